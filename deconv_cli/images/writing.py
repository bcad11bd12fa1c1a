"""Encoding a picture as a file, and saying what the format could not hold."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deconv_cli.errors import DeconvError, unknown_name
from deconv_cli.images import exif as exif_block
from deconv_cli.images.alpha import flatten_onto_white
from deconv_cli.images.frame import Frame, Samples

DEFAULT_QUALITY = 95

_METADATA = {"icc": "ICC profile", "exif": "EXIF", "xmp": "XMP", "dpi": "resolution"}
_HOLDS = {
    "png": {"16 bits", "alpha", "gray", *_METADATA},
    "jpg": {"gray", *_METADATA},
    "webp": {"alpha", "icc", "exif", "xmp"},
    "bmp": {"gray", "dpi"},
    "tiff": {"16 bits", "alpha", "gray", *_METADATA},
}
_LONGEST = {("jpg", "exif"): 65_533, ("jpg", "xmp"): 65_504}
"""Bytes that fit into one JPEG segment."""

_LABELS = {"png": "PNG", "jpg": "JPEG", "webp": "WebP", "bmp": "BMP", "tiff": "TIFF"}
_XMP_CHUNK = b"XML:com.adobe.xmp\0\0\0\0\0"
_TIFF_XMP = 700


def encode_frame(
    frame: Frame,
    format: str,  # noqa: A002 - the name that everyone expects
    *,
    quality: int | None = None,
    subsampling: Literal["4:4:4", "4:2:0"] = "4:4:4",
    metadata: Literal["keep", "strip"] = "keep",
) -> tuple[bytes, tuple[str, ...]]:
    """Encode a picture as a file of the given format.

    PNG, BMP and TIFF (uncompressed) are lossless.

    Parameters
    ----------
    frame
        The picture; transparency that the format cannot hold is flattened onto white.
    format
        "png", "jpg", "webp", "bmp" or "tiff".
    quality
        1 to 100 for JPEG and WebP, no matter to the others. By default a JPEG gets 95, or the quality that
        the picture had as a JPEG if that was higher; a WebP is lossless if the picture's file was, else it
        gets 95.
    subsampling
        Of the colour in a JPEG.
    metadata
        "strip" leaves out EXIF, XMP and resolution. The ICC profile stays: without it the colours
        would be others.

    Returns
    -------
    tuple[bytes, tuple[str, ...]]
        The file, and what the format could not hold, a sentence each.

    Raises
    ------
    DeconvError
        If the picture cannot be written in this format: too large for it, or 16-bit colour.
    UsageError
        If there is no such format.
    """
    if format not in _HOLDS:
        raise unknown_name("format", format, _HOLDS)
    if metadata == "strip":
        frame = replace(frame, exif=None, xmp=None, dpi=None)
    frame, warnings = _fit(frame, format)
    file = io.BytesIO()
    try:
        _to_image(frame, format).save(file, **_options(frame, format, quality, subsampling))
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DeconvError(f"{frame.name}: cannot be written as {_LABELS[format]} ({reason})") from error
    return file.getvalue(), warnings


def _fit(frame: Frame, target: str) -> tuple[Frame, tuple[str, ...]]:
    """Take from the picture what the format cannot hold, and say what that was."""
    label, holds, warnings = _LABELS[target], _HOLDS[target], []
    if frame.pixels.dtype == np.uint16 and "16 bits" not in holds:
        alpha = None if frame.alpha is None else _to_8_bits(frame.alpha)
        frame = replace(frame, pixels=_to_8_bits(frame.pixels), alpha=alpha)
        warnings.append(f"{label} holds 8 bits a sample: 16 were rounded to 8")
    if frame.alpha is not None and "alpha" not in holds:
        frame = replace(frame, pixels=flatten_onto_white(frame.pixels, frame.alpha), alpha=None)
        warnings.append(f"{label} holds no transparency: it was flattened onto white")
    lost = [field for field in _METADATA if getattr(frame, field) is not None and not _fits(frame, field, target)]
    if lost:
        nothing: dict[str, Any] = dict.fromkeys(lost)
        frame = replace(frame, **nothing)
        warnings.append(f"{label} cannot hold: {', '.join(_METADATA[field] for field in lost)}")
    return frame, tuple(warnings)


def _fits(frame: Frame, field: str, target: str) -> bool:
    """Tell whether the format can hold this field of the picture."""
    if field not in _HOLDS[target]:
        return False
    value = getattr(frame, field)
    if field == "icc" and "gray" not in _HOLDS[target]:
        return bool(value[16:20] != b"GRAY")
    if field == "exif" and target == "tiff":
        return _tiff_tags(value) is not None
    longest = _LONGEST.get((target, field))
    return longest is None or len(value) <= longest


def _to_8_bits(samples: Samples) -> Samples:
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _to_image(frame: Frame, target: str) -> Image.Image:
    pixels, alpha = frame.pixels, frame.alpha
    if pixels.dtype == np.uint16 and (pixels.ndim == 3 or alpha is not None):
        kind = "16-bit colour or transparency"
        raise DeconvError(f"{frame.name}: {kind} cannot be written as {_LABELS[target]}; choose jpg or webp")
    return Image.fromarray(pixels if alpha is None else np.dstack([pixels, alpha]))


def _options(frame: Frame, target: str, quality: int | None, subsampling: str) -> dict[str, Any]:
    """Return Pillow's options: those of the format, and the metadata that there is."""
    own: dict[str, Any]
    coding: dict[str, Any]
    match target:
        case "png":
            own = {"format": "PNG", "exif": frame.exif, "pnginfo": _png_chunks(frame)}
        case "jpg":
            coding = {"quality": quality or max(DEFAULT_QUALITY, frame.jpeg_quality or 0), "subsampling": subsampling}
            own = {"format": "JPEG", "exif": frame.exif, "xmp": frame.xmp, **coding}
        case "webp":
            lossless = frame.lossless and quality is None
            coding = {"lossless": True} if lossless else {"quality": quality or DEFAULT_QUALITY}
            own = {"format": "WEBP", "exif": frame.exif, "xmp": frame.xmp, "exact": True, **coding}
        case "bmp":
            own = {"format": "BMP", "dpi": (0, 0)}
        case _:
            own = {"format": "TIFF", "exif": _tiff_exif(frame)}
    options = own | {"icc_profile": frame.icc} | ({"dpi": frame.dpi} if frame.dpi else {})
    return {key: value for key, value in options.items() if value is not None}


def _png_chunks(frame: Frame) -> PngInfo:
    chunks = PngInfo()
    if frame.xmp:
        chunks.add(b"iTXt", _XMP_CHUNK + frame.xmp)
    return chunks


def _tiff_exif(frame: Frame) -> Image.Exif:
    tags = (_tiff_tags(frame.exif) if frame.exif else None) or Image.Exif()
    if frame.xmp:
        tags[_TIFF_XMP] = frame.xmp
    return tags


def _tiff_tags(block: bytes) -> Image.Exif | None:
    """Return the tags of an EXIF block that a TIFF can take, or None if Pillow cannot write them."""
    tags = Image.Exif()
    try:
        tags.load(block)
        described = exif_block.describe(tags) or b""
    except exif_block.MALFORMED:
        return None
    tags.load(described)
    return tags
