"""Degraded copies of picture files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deconv_cli.degradation.camera import Camera, add_camera_noise
from deconv_cli.degradation.jpeg import Subsampling, compress_jpeg
from deconv_cli.degradation.noise import MAX_NOISE_LEVEL, add_gaussian_noise
from deconv_cli.errors import DeconvError, UsageError, unknown_name
from deconv_cli.images import Frame, crop_to_multiple, downscale, encode_frame, from_float, read_frame, to_float
from deconv_cli.images.tiff import off_the_map

Noise = Callable[[NDArray[np.float32], float, np.random.Generator], NDArray[np.float32]]

NOISES: MappingProxyType[str, Noise] = MappingProxyType(
    {
        "gaussian": add_gaussian_noise,
        "camera": lambda image, level, rng: add_camera_noise(image, level, rng, Camera.draw(rng)),
    }
)
"""Kinds of noise by name; the camera is another one for every picture."""
MAX_SCALE = 8
FORMATS = ("png", "jpg", "webp", "bmp", "tiff")
"""What copies can be: all but JPEG hold samples as they are."""


@dataclass(frozen=True)
class Degradation:
    """What to do to every picture, in this order; each range is drawn from anew for every picture.

    Attributes
    ----------
    scale
        Shrink so many times.
    noise
        Kind of noise; see `NOISES`.
    noise_level
        Lowest and highest noise level on the 0..255 scale, or None for no noise.
    quality
        Lowest and highest JPEG quality, or None for no compression.
    subsampling
        Of the colour in the JPEG.
    seed
        With the bytes of the file it decides all that is drawn.

    Raises
    ------
    UsageError
        If nothing is to be done, or a value is out of range.
    """

    scale: int = 1
    noise: str = "gaussian"
    noise_level: tuple[float, float] | None = None
    quality: tuple[float, float] | None = None
    subsampling: Subsampling = "4:2:0"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.noise not in NOISES:
            raise unknown_name("noise", self.noise, NOISES)
        if self.subsampling not in ("4:2:0", "4:4:4"):
            raise unknown_name("subsampling", self.subsampling, ("4:2:0", "4:4:4"))
        if self.scale == 1 and self.noise_level is None and self.quality is None:
            raise UsageError("nothing to degrade by: give a noise level, a JPEG quality or a scale")
        if not 1 <= self.scale <= MAX_SCALE:
            raise UsageError(f"the scale must be from 1 to {MAX_SCALE}, not {self.scale}")
        for name, limits, given in (
            ("noise level", (0, MAX_NOISE_LEVEL), self.noise_level),
            ("JPEG quality", (1, 100), self.quality),
        ):
            if given and not limits[0] <= given[0] <= given[1] <= limits[1]:
                raise UsageError(f"the {name} must be LOW:HIGH or one number from {limits[0]:g} to {limits[1]:g}")


@dataclass(frozen=True)
class Degraded:
    """A degraded copy of one file.

    Attributes
    ----------
    data
        The file.
    noise_level, quality
        What was drawn, or None.
    width, height
        Size of the result.
    warnings
        What the format could not hold.
    """

    data: bytes
    noise_level: float | None
    quality: int | None
    width: int
    height: int
    warnings: tuple[str, ...]


def degrade(data: bytes, how: Degradation, *, name: str, target_format: str) -> Degraded:
    """Make the degraded copy of a file, a function of its bytes and of `how` alone.

    A JPEG is compressed once, at the quality drawn; other formats hold what such a JPEG decodes to, without loss.
    Transparency is shrunk with the picture and otherwise left alone.

    Parameters
    ----------
    data
        The file.
    how
        What to do to it.
    name
        What messages call it.
    target_format
        One of `FORMATS`.

    Raises
    ------
    DeconvError
        If the file cannot be read, is too small to shrink, or the result cannot be written.
    """
    rng = np.random.default_rng([how.seed, *hashlib.sha256(data).digest()])
    frame = _shrink(read_frame(data, name=name), how.scale)
    level = None if how.noise_level is None else float(rng.uniform(*how.noise_level))
    quality = None if how.quality is None else round(rng.uniform(*how.quality))
    pixels = to_float(frame.pixels)
    if level is not None:
        pixels = NOISES[how.noise](pixels, level, rng)
    as_jpeg = target_format == "jpg"
    if quality is not None and not as_jpeg:
        pixels = compress_jpeg(pixels, quality, how.subsampling)
    height, width = pixels.shape[:2]
    # Lossless also where the original is not: the encoder would degrade once more.
    frame = dataclasses.replace(frame, pixels=from_float(pixels, frame.pixels.dtype), lossless=True)
    encoded, warnings = encode_frame(
        frame, target_format, quality=quality if as_jpeg else None, subsampling=how.subsampling
    )
    return Degraded(encoded, level, quality, width, height, (*frame.warnings, *warnings))


def _shrink(frame: Frame, scale: int) -> Frame:
    if scale == 1:
        return frame
    if min(frame.pixels.shape[:2]) < scale:
        raise DeconvError(f"{frame.name}: too small to be shrunk {scale} times")

    def shrunk(samples: NDArray[Any]) -> NDArray[np.float32]:
        return downscale(to_float(crop_to_multiple(samples, scale)), scale)

    pixels, alpha = shrunk(frame.pixels), frame.alpha
    alpha = None if alpha is None else from_float(np.clip(shrunk(alpha), 0, 1), alpha.dtype)
    return off_the_map(dataclasses.replace(frame, pixels=from_float(pixels, frame.pixels.dtype), alpha=alpha))
