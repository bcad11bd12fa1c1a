"""The restorations, each described once.

A task is a degradation with one level (for denoising the noise level), the range of levels to train on, the levels to
report, how the network is told the level, its shape, and the measure. Everything that depends on the task reads it from
here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from deconv_cli.degradation.camera import photograph, photograph_variously
from deconv_cli.degradation.jpeg import compress_jpeg, compress_variously
from deconv_cli.degradation.noise import MAX_NOISE_LEVEL, add_gaussian_noise
from deconv_cli.degradation.shrinking import shrink
from deconv_cli.errors import UsageError, unknown_name
from deconv_cli.metrics import Protocol

Degrade = Callable[[NDArray[np.float32], float, "np.random.Generator"], NDArray[np.float32]]
"""Clean picture (H x W, H x W x 1 or H x W x 3, float32, 0..1), level and generator to degraded picture.

The result is smaller by the scale, of which height and width of the clean picture are multiples.
"""


@dataclass(frozen=True)
class Task:
    """One restoration.

    Attributes
    ----------
    name
        What users type.
    level_name
        Name of the level of degradation, with its unit. The level of super-resolution is its scale.
    train_range
        Lowest and highest level to train on by default.
    limits
        Lowest and highest level that there is.
    report_levels
        The levels at which the field reports results.
    condition_scale
        The network gets the level divided by this as a constant plane; None for a blind one, which gets none.
    degrade
        The degradation, by the field's protocol.
    degrade_variously
        The same with all that may vary beside the level, to train on.
    scales
        Output side over input side: the choices, the default first. A network has one of them.
    widths, blocks
        Default shape of the network; see `deconv_cli.network.description.Architecture`.
    channel
        What is scored; see `deconv_cli.metrics.Protocol`.
    compressed
        Whether what is to be restored has been a JPEG, whose blocks start at the corner of most patches in training.
    """

    name: str
    level_name: str
    train_range: tuple[float, float]
    limits: tuple[float, float]
    report_levels: tuple[float, ...]
    condition_scale: float | None
    degrade: Degrade
    degrade_variously: Degrade
    scales: tuple[int, ...] = (1,)
    widths: tuple[int, ...] = (32, 64, 128, 240)
    blocks: tuple[int, ...] = (1, 1, 2, 3)
    channel: str = "rgb"
    compressed: bool = False

    @property
    def condition_planes(self) -> int:
        """Planes that the network gets beside the picture."""
        return 0 if self.condition_scale is None else 1

    def condition(self, level: float) -> float | None:
        """Return what the network is told about the level, or None if it is blind."""
        return None if self.condition_scale is None else level / self.condition_scale

    def levels_within(self, low: float, high: float) -> tuple[float, ...]:
        """Return those of the levels to report that lie in a range of levels, or its middle if none does."""
        reported = tuple(level for level in self.report_levels if low <= level <= high)
        return reported or ((low + high) / 2,)

    def find_scale(self, scale: int | None) -> int:
        """Return the scale asked for, or the default one.

        Raises
        ------
        UsageError
            If the task has no such scale.
        """
        if scale is None:
            return self.scales[0]
        if scale not in self.scales:
            valid = ", ".join(map(str, self.scales))
            raise UsageError(f"{self.name} has no scale {scale}; valid: {valid}")
        return scale

    def weights_name(self, scale: int | None = None) -> str:
        """Return the name of the bundled weights for a scale."""
        return self.name if self.scales == (1,) else f"{self.name}-x{self.find_scale(scale)}"

    def protocol(self, scale: int) -> Protocol:
        """Return how the field scores: super-resolution leaves out as many pixels of the border as its scale."""
        return Protocol(self.channel, crop=scale if scale > 1 else 0)


TASKS = MappingProxyType(
    {
        task.name: task
        for task in (
            Task(
                name="denoise",
                level_name="noise level (sigma on 0..255)",
                train_range=(0.0, 75.0),
                limits=(0.0, MAX_NOISE_LEVEL),
                report_levels=(15.0, 25.0, 50.0),
                condition_scale=255.0,
                degrade=add_gaussian_noise,
                degrade_variously=add_gaussian_noise,
            ),
            Task(
                name="decompress",
                level_name="JPEG quality",
                train_range=(5.0, 95.0),
                limits=(1.0, 100.0),
                report_levels=(10.0, 20.0, 30.0, 40.0),
                condition_scale=None,
                degrade=lambda image, quality, _: compress_jpeg(image, quality),
                degrade_variously=compress_variously,
                compressed=True,
            ),
            Task(
                name="photo",
                level_name="camera noise (sigma on 0..255)",
                train_range=(0.0, 50.0),
                limits=(0.0, MAX_NOISE_LEVEL),
                report_levels=(5.0, 10.0, 20.0),
                condition_scale=None,
                degrade=photograph,
                degrade_variously=photograph_variously,
                compressed=True,
            ),
            Task(
                name="sr",
                level_name="scale",
                train_range=(2.0, 4.0),
                limits=(2.0, 4.0),
                report_levels=(2.0, 3.0, 4.0),
                condition_scale=None,
                degrade=lambda image, scale, _: shrink(image, round(scale)),
                degrade_variously=lambda image, scale, _: shrink(image, round(scale)),
                scales=(2, 3, 4),
                widths=(64, 128),
                blocks=(4, 2),
                channel="y",
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
