"""The restorations, each described once.

A task is a degradation with one level (for denoising the noise level), the range of levels to train on, the levels to
report, and how the network is told the level. Everything that depends on the task reads it from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from deconv_cli.errors import unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Degrade = Callable[[NDArray[np.float32], float, np.random.Generator], NDArray[np.float32]]


@dataclass(frozen=True)
class Task:
    """One restoration.

    Attributes
    ----------
    name
        What users type.
    level_name
        Name of the level of degradation, with its unit.
    train_range
        Lowest and highest level to train on by default.
    report_levels
        The levels at which the field reports results.
    condition_scale
        The network gets the level divided by this as a constant plane.
    """

    name: str
    level_name: str
    train_range: tuple[float, float]
    report_levels: tuple[float, ...]
    condition_scale: float

    @property
    def degrade(self) -> Degrade:
        """The degradation: clean picture (float32, 0..1), level and generator to degraded picture."""
        from deconv_cli.degradation.noise import add_gaussian_noise

        return add_gaussian_noise


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
