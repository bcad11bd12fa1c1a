"""Degrade, restore and score clean pictures in memory, as the field's papers do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deconv_cli.images import crop_to_multiple, from_float, read_frame, to_float, upscale
from deconv_cli.metrics import Protocol, psnr, ssim
from deconv_cli.restoration.restorer import Restorer

SEED = 0


@dataclass(frozen=True)
class Row:
    """Means over the pictures at one level.

    Attributes
    ----------
    level
        Degradation level in the task's unit.
    input_psnr, input_ssim
        Of the degraded pictures: what doing nothing (to small ones: bicubic interpolation) scores. PSNR in dB.
    psnr, ssim
        Of the restored pictures.
    seconds_per_megapixel
        Time from array to array, by the size of the result.
    """

    level: float
    input_psnr: float
    input_ssim: float
    psnr: float
    ssim: float
    seconds_per_megapixel: float


@dataclass(frozen=True)
class Bench:
    """A table of rows with all that has to be known to compare it."""

    weights: str
    task: str
    pictures: int
    precision: str
    protocol: Protocol
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**dataclasses.asdict(self), "protocol": self.protocol.as_dict()}


def bench(
    paths: Sequence[Path],
    restorer: Restorer,
    levels: Sequence[float],
    *,
    tta: bool = False,
    progress: Callable[[Sequence[Path]], Iterable[Path]] = lambda paths: paths,
) -> Bench:
    """Measure weights on clean pictures.

    Noise is added in float, neither clipped nor rounded, and the network is told its level; JPEG is 4:2:0; for
    super-resolution the picture is cut to a multiple of the scale, shrunk and rounded to 8 bits. The output is rounded
    to the sample type of the clean picture, and scored as the task says. Gray pictures stay gray. The noise is a
    function of the picture's place in the list and the level.

    Parameters
    ----------
    paths
        Clean pictures.
    restorer
        The weights to measure.
    levels
        Degradation levels; for super-resolution the scale of the weights.
    tta
        Average over the eight symmetries.
    progress
        Wraps the list of pictures to show progress.

    Raises
    ------
    DeconvError
        If a picture cannot be read.
    """
    measured: dict[float, list[tuple[float, ...]]] = {level: [] for level in levels}
    precision = ""
    conditioned = restorer.task.condition_scale is not None
    scale = restorer.description.scale
    protocol = restorer.task.protocol(scale)
    for index, path in enumerate(progress(paths)):
        clean = crop_to_multiple(read_frame(path).pixels, scale)
        for level in levels:
            rng = np.random.default_rng([SEED, index, round(level * 1000)])
            degraded = restorer.task.degrade(to_float(clean), level, rng)
            told: float | Literal["auto"] = level if conditioned else "auto"
            began = time.perf_counter()
            result = restorer.restore(degraded, noise_level=told, tta=tta)
            seconds = time.perf_counter() - began
            precision = result.precision
            megapixels = clean.shape[0] * clean.shape[1] / 1e6
            before, after = (_score(clean, image, protocol) for image in (upscale(degraded, scale), result.pixels))
            measured[level].append((*before, *after, seconds / megapixels))
    rows = tuple(
        Row(level, *(float(np.mean(column)) for column in zip(*values, strict=True)))
        for level, values in measured.items()
    )
    return Bench(restorer.description.name, restorer.task.name, len(paths), precision, protocol, rows)


def _score(clean: NDArray[Any], image: NDArray[Any], protocol: Protocol) -> tuple[float, float]:
    rounded = from_float(image, clean.dtype)
    channel, crop = protocol.channel, protocol.crop
    return psnr(clean, rounded, channel=channel, crop=crop), ssim(clean, rounded, channel=channel, crop=crop)
