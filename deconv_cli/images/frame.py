"""Pictures in memory, with all that their file said about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deconv_cli.errors import DeconvError

Samples = NDArray[Any]
"""uint8, uint16 or float32."""
MAX_DPI = 65535
"""The finest resolution that is kept: JPEG counts in 16 bits."""
FILM_LEFT_OUT = "the film of a motion photo was left out"
"""The warning of it."""


@dataclass(frozen=True, eq=False)
class Frame:
    r"""A decoded picture, page or frame of an animation, upright, and the metadata that goes back into a file with it.

    Attributes
    ----------
    pixels
        H x W (gray) or H x W x 3 (RGB), uint8, uint16 or float32 (nominally 0..1), the EXIF orientation already
        applied. Of a CMYK picture the complement of cyan, magenta and yellow, which looks like RGB.
    alpha
        H x W of the same dtype, 0 for transparent (not premultiplied), or None.
    black
        H x W of the same dtype, the complement of the black ink of a CMYK picture, or None.
    bits
        Bits a sample that the file had, if these are 9 to 15; here they are stretched to 16.
    format
        What the file was, whatever its suffix: a value of `deconv_cli.images.paths.SUFFIXES`.
    name
        What messages call the picture.
    icc
        ICC profile that the pixels are in, or None.
    exif
        EXIF block, from ``Exif\0\0`` on, with orientation 1 and no thumbnail, or None.
    xmp
        XMP packet, or None.
    iptc
        IPTC records (IIM), or None.
    dpi
        Horizontal and vertical resolution in dots per inch, or None.
    comment
        Comment of a JPEG or GIF, or None.
    chunks
        Name and data of the PNG chunks that hold text or say what the colours are.
    tags
        Code, type, count and value of the TIFF tags that do not say how the samples are stored.
    compression
        How a TIFF was compressed, by its tag's number, or None.
    palette
        Whether the file stored the pixels by a palette.
    jpeg_quality
        Quality (1 to 100) that a JPEG was probably saved with, or None.
    lossless
        Whether the file stored the pixels without loss.
    duration
        Time that a frame of an animation shows, in milliseconds, or None.
    stamp
        What to write into the file about what was done to the picture, name and value.
    warnings
        What could not be kept on reading, and `doubts`, a phrase each.
    doubts
        Signs that the file is damaged, a phrase each, which are told of a mere copy, too.
    """

    pixels: Samples
    alpha: Samples | None = None
    black: Samples | None = None
    bits: int | None = None
    format: str = "png"
    name: str = "picture"
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    comment: bytes | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    tags: tuple[tuple[int, int, int, Any], ...] = ()
    compression: int | None = None
    palette: bool = False
    jpeg_quality: int | None = None
    lossless: bool = True
    duration: float | None = None
    stamp: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def bits_per_sample(self) -> int:
        """How many bits a sample are worth keeping."""
        return self.bits or 8 * self.pixels.dtype.itemsize

    @property
    def layers(self) -> tuple[Samples, ...]:
        """The pixels, and alpha and black where there are such."""
        return tuple(layer for layer in (self.pixels, self.alpha, self.black) if layer is not None)

    @property
    def nbytes(self) -> int:
        """Size of the samples in memory."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def is_finite(self) -> bool:
        """Whether no sample is NaN or infinite."""
        return all(layer.dtype != np.float32 or bool(np.isfinite(layer).all()) for layer in self.layers)

    def map_layers(self, change: Callable[[Samples], Samples]) -> Frame:
        """Return the frame with pixels, alpha and black each changed by a function."""
        return replace(
            self,
            pixels=change(self.pixels),
            alpha=None if self.alpha is None else change(self.alpha),
            black=None if self.black is None else change(self.black),
        )


@dataclass(frozen=True, eq=False)
class Picture:
    """An opened file: what its header says, and its pages or frames, decoded as they are asked for.

    Attributes
    ----------
    name
        What messages call the picture.
    format
        What the file is, whatever its suffix.
    width, height
        Size of the first page, upright.
    count
        How many pages or frames there are.
    frames
        The pages or frames, in order.
    animated
        Whether they are the frames of an animation rather than pages.
    loop
        How often an animation plays; 0 for ever, None if not said.
    still_first
        Whether the first frame is shown only by what knows no animations (APNG).
    bytes_per_pixel
        Size of a decoded pixel, alpha and black included.
    """

    name: str
    format: str
    width: int
    height: int
    count: int
    frames: Iterator[Frame] = field(repr=False)
    animated: bool = False
    loop: int | None = None
    still_first: bool = False
    bytes_per_pixel: int = 3


def too_large(name: str, max_pixels: int) -> DeconvError:
    """Make the error for a picture of more pixels than may be read."""
    return DeconvError(f"{name}: larger than {max_pixels / 10**6:g} megapixels; raise --max-pixels if it is genuine")


def too_deep(name: str, what: str) -> DeconvError:
    """Make the error for a picture of more bits than there is a place for."""
    return DeconvError(f"{name}: {what} cannot be read without loss; save it with 8 or 16 bits, or float32, first")
