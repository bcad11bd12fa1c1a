"""Formats that need a decoder beside Pillow and tifffile; those of extra packages say how to get them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deconv_cli.errors import DeconvError
from deconv_cli.images import boxes
from deconv_cli.images import exif as exif_block
from deconv_cli.images.frame import Frame, Samples

RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".3fr", ".iiq", ".erf", ".mrw"}
)
"""Suffixes of cameras' raw files; many of these are TIFFs inside, so that the suffix has to tell."""


def is_raw(name: str) -> bool:
    """Tell whether a file is a camera's raw file, by its name."""
    return Path(name).suffix.lower() in RAW_SUFFIXES


def _missing(name: str, extra: str) -> DeconvError:
    return DeconvError(f"{name}: this format needs an extra package; install it by pip install 'deconv-cli[{extra}]'")


def raw_size(stream: BinaryIO) -> tuple[int, int] | None:
    """Return width and height of a developed raw file, or None if no decoder is installed."""
    try:
        import rawpy
    except ImportError:
        return None
    with rawpy.imread(stream) as raw:
        sizes = raw.sizes
    stream.seek(0)
    sideways = sizes.flip in (5, 6)
    return (sizes.iheight, sizes.iwidth) if sideways else (sizes.iwidth, sizes.iheight)


def read_raw(stream: BinaryIO, name: str) -> Frame:
    """Develop a camera's raw file with the camera's white balance to 16-bit sRGB.

    Raises
    ------
    DeconvError
        If the extra package is not installed.
    """
    try:
        import rawpy
    except ImportError:
        raise _missing(name, "raw") from None
    with rawpy.imread(stream) as raw:
        pixels = raw.postprocess(use_camera_wb=True, output_bps=16, no_auto_bright=True)
    warning = "developed with the camera's white balance to sRGB; the raw file's metadata were left out"
    return Frame(np.ascontiguousarray(pixels), warnings=(warning,))


def read_jp2(data: bytes, name: str) -> Frame:
    """Read a JPEG 2000 file of up to 16 bits a sample.

    Raises
    ------
    DeconvError
        If it holds samples of another kind.
    """
    import imagecodecs

    samples = imagecodecs.jpeg2k_decode(data)
    pixels, alpha = _layers(samples, name)
    depth, reversible = _jp2_coding(data)
    pixels, alpha, warnings = _stretched(pixels, alpha, depth)
    found = boxes.read_metadata(data) if data.startswith(boxes.JP2_SIGNATURE) else {}
    return _described(Frame(pixels, alpha, icc=found.get("icc"), lossless=reversible, warnings=warnings), found)


def _jp2_coding(data: bytes) -> tuple[int, bool]:
    """Return the bits a sample, and whether the wavelet is the reversible one, from the codestream's headers."""
    start = data.find(boxes.J2K_SIGNATURE)
    depth = (data[start + 42] & 0x7F) + 1 if len(data) > start + 42 else 8
    coding = data.find(b"\xff\x52", start)
    reversible = coding >= 0 and len(data) > coding + 13 and data[coding + 13] == 1
    return depth, reversible


def read_jxl(data: bytes) -> Frame:
    """Read the only or first frame of a JPEG XL file."""
    import imagecodecs

    samples = imagecodecs.jpegxl_decode(data)
    pixels, alpha = _layers(samples, "JPEG XL")
    found = boxes.read_metadata(data)
    if pixels.dtype == np.float16:
        pixels, alpha = pixels.astype(np.float32), None if alpha is None else alpha.astype(np.float32)
    return _described(Frame(pixels, alpha, lossless=False), found)


def read_deep_avif(data: bytes, depth: int) -> Frame:
    """Read an AVIF of 10 or 12 bits a sample; they are stretched to 16."""
    import imagecodecs

    pixels, alpha = _layers(imagecodecs.avif_decode(data), "AVIF")
    pixels, alpha, warnings = _stretched(pixels, alpha, depth)
    return Frame(pixels, alpha, lossless=False, warnings=warnings)


def read_heif(stream: BinaryIO, name: str, max_pixels: int) -> Frame:
    """Read the primary picture of a HEIF file.

    Raises
    ------
    DeconvError
        If the extra package is not installed, or the picture is too large.
    """
    try:
        import pillow_heif
    except ImportError:
        raise _missing(name, "heif") from None
    file = pillow_heif.open_heif(io.BytesIO(stream.read()), convert_hdr_to_8bit=False)
    width, height = file.size
    if width * height > max_pixels:
        raise DeconvError(f"{name}: larger than {max_pixels / 10**6:g} megapixels; raise --max-pixels if it is genuine")
    pixels, alpha = _layers(np.asarray(file), name)
    warnings = ("only the main picture was read",) if len(file) > 1 else ()
    found = {key: file.info[key] for key in ("exif", "xmp") if file.info.get(key)}
    # libheif has turned the picture upright already.
    frame = Frame(pixels, alpha, icc=file.info.get("icc_profile") or None, lossless=False, warnings=warnings)
    return _described(frame, found)


def _layers(samples: Samples, name: str) -> tuple[Samples, Samples | None]:
    """Return pixels and alpha of H x W or H x W x (1 to 4) samples."""
    if samples.dtype not in (np.uint8, np.uint16, np.float16, np.float32) or samples.ndim not in (2, 3):
        raise DeconvError(f"{name}: {samples.dtype} samples cannot be read without loss; convert it first")
    layers = samples[..., None] if samples.ndim == 2 else samples
    if layers.shape[2] > 4:
        raise DeconvError(f"{name}: {layers.shape[2]} channels cannot be read; convert it to RGB first")
    alpha = np.ascontiguousarray(layers[..., -1]) if layers.shape[2] in (2, 4) else None
    pixels = layers[..., 0] if layers.shape[2] <= 2 else layers[..., :3]
    return np.ascontiguousarray(pixels), alpha


def _stretched(pixels: Samples, alpha: Samples | None, depth: int) -> tuple[Samples, Samples | None, tuple[str, ...]]:
    """Bring samples of 9 to 15 bits to 16."""
    if pixels.dtype != np.uint16 or not 9 <= depth <= 15:
        return pixels, alpha, ()

    def stretch(samples: Samples) -> Samples:
        wide = samples.astype(np.uint32)
        return ((wide << (16 - depth)) | (wide >> (2 * depth - 16))).astype(np.uint16)

    return stretch(pixels), None if alpha is None else stretch(alpha), (f"{depth}-bit samples are written with 16",)


def _described(frame: Frame, found: dict[str, Any]) -> Frame:
    """Add EXIF and XMP, set upright: the decoders of these formats have turned the pixels already."""
    exif, warnings = None, frame.warnings
    try:
        exif = exif_block.make_upright(found["exif"])[0] if found.get("exif") else None
    except exif_block.MALFORMED:
        warnings = (*warnings, "malformed EXIF was left out")
    xmp = exif_block.make_xmp_upright(found.get("xmp") or b"")[0] or None
    return replace(frame, exif=exif, xmp=xmp, warnings=warnings)
