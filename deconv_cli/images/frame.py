"""One picture in memory, with all that its file said about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Samples = NDArray[Any]
"""uint8 or uint16."""


@dataclass(frozen=True, eq=False)
class Frame:
    r"""A decoded picture, upright, and the metadata that goes back into a file with it.

    Attributes
    ----------
    pixels
        H x W (gray) or H x W x 3 (RGB), uint8 or uint16, the EXIF orientation already applied.
    alpha
        H x W of the same dtype, 0 for transparent (not premultiplied), or None.
    format
        What the file was, whatever its suffix: "png", "jpg", "webp", "bmp" or "tiff".
    name
        What messages call the picture.
    icc
        ICC profile that the pixels are in, or None.
    exif
        EXIF block, from ``Exif\0\0`` on, with orientation 1 and no thumbnail, or None.
    xmp
        XMP packet, or None.
    dpi
        Horizontal and vertical resolution in dots per inch, or None.
    jpeg_quality
        Quality (1 to 100) that a JPEG was probably saved with, or None.
    lossless
        Whether the file stored the pixels without loss.
    warnings
        What could not be kept on reading, a sentence each.
    """

    pixels: Samples
    alpha: Samples | None = None
    format: str = "png"
    name: str = "picture"
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    jpeg_quality: int | None = None
    lossless: bool = True
    warnings: tuple[str, ...] = ()
