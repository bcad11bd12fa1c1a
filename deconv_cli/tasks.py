"""The restorations, each described once.

A task is a degradation with one level (for denoising the noise level), the range of levels to train on, the levels to
report, and how the network is told the level. Everything that depends on the task reads it from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from deconv_cli.degradation.jpeg import compress_jpeg, compress_variously
from deconv_cli.degradation.noise import add_gaussian_noise
from deconv_cli.errors import unknown_name

Degrade = Callable[[NDArray[np.float32], float, np.random.Generator], NDArray[np.float32]]
"""Clean picture (H x W, H x W x 1 or H x W x 3, float32, 0..1), level and generator to degraded picture."""


@dataclass(frozen=True)
class Task:
    """One restoration.

    Attributes
    ----------
    name
        What users type; also the name of its bundled weights.
    level_name
        Name of the level of degradation, with its unit.
    train_range
        Lowest and highest level to train on by default.
    report_levels
        The levels at which the field reports results.
    condition_scale
        The network gets the level divided by this as a constant plane; None for a blind one, which gets none.
    degrade
        The degradation, by the field's protocol.
    degrade_variously
        The same with all that may vary beside the level, to train on.
    """

    name: str
    level_name: str
    train_range: tuple[float, float]
    report_levels: tuple[float, ...]
    condition_scale: float | None
    degrade: Degrade
    degrade_variously: Degrade

    @property
    def condition_planes(self) -> int:
        """Planes that the network gets beside the picture."""
        return 0 if self.condition_scale is None else 1

    def condition(self, level: float) -> float | None:
        """Return what the network is told about the level, or None if it is blind."""
        return None if self.condition_scale is None else level / self.condition_scale


TASKS = MappingProxyType(
    {
        task.name: task
        for task in (
            Task(
                name="denoise",
                level_name="noise level (sigma on 0..255)",
                train_range=(0.0, 75.0),
                report_levels=(15.0, 25.0, 50.0),
                condition_scale=255.0,
                degrade=add_gaussian_noise,
                degrade_variously=add_gaussian_noise,
            ),
            Task(
                name="decompress",
                level_name="JPEG quality",
                train_range=(5.0, 95.0),
                report_levels=(10.0, 20.0, 30.0, 40.0),
                condition_scale=None,
                degrade=lambda image, quality, _: compress_jpeg(image, quality),
                degrade_variously=compress_variously,
            ),
        )
    }
)


def find_task(name: str) -> Task:
    """Return the task of that name.

    Raises
    ------
    UsageError
        If there is none; the message lists the valid names.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
