"""Formats that need a decoder beside Pillow and tifffile; those of extra packages say how to get them."""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image

from deconv_cli.errors import DeconvError
from deconv_cli.images import boxes
from deconv_cli.images import exif as exif_block
from deconv_cli.images.frame import FILM_LEFT_OUT, Frame, Samples, too_large
from deconv_cli.images.samples import narrow, widen

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
    """Develop a camera's raw file with the camera's white balance to 16-bit sRGB; EXIF is kept of those that are TIFFs.

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
        pixels = raw.postprocess(use_camera_wb=True, output_bps=16, no_auto_bright=True, gamma=(2.4, 12.92))
    exif = _raw_exif(stream)
    lost = "the maker's notes were left out" if exif else "the raw file's metadata were left out"
    warning = f"developed with the camera's white balance to sRGB; {lost}"
    return Frame(np.ascontiguousarray(pixels), exif=exif, warnings=(warning,))


def _raw_exif(stream: BinaryIO) -> bytes | None:
    """Return what the first directory of a raw file that is a TIFF says about the picture, or None."""
    stream.seek(0)
    header = stream.read(8)
    order: Any = {b"II*\0": "little", b"MM\0*": "big"}.get(header[:4])
    if order is None:
        return None
    tags = Image.Exif()
    tags.endian = "<" if order == "little" else ">"
    try:
        tags.load_from_fp(stream, int.from_bytes(header[4:], order))
        for tag in set(tags) - exif_block.DESCRIPTIVE - {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}:
            del tags[tag]
        if ExifTags.IFD.Exif in tags:
            tags.get_ifd(ExifTags.IFD.Exif).pop(ExifTags.Base.MakerNote, None)
        return exif_block.describe(tags)
    except exif_block.MALFORMED:
        return None


def read_jp2(data: bytes, name: str) -> Frame:
    """Read a JPEG 2000 file of up to 16 bits a sample.

    Raises
    ------
    DeconvError
        If it holds samples of another kind, or CMYK.
    """
    import imagecodecs

    in_boxes = data.startswith(boxes.JP2_SIGNATURE)
    if in_boxes and boxes.is_cmyk(data):
        raise DeconvError(f"{name}: JPEG 2000 with CMYK colours cannot be read; convert it to RGB, or to TIFF, first")
    depth, reversible = _jp2_coding(data)
    frame = _frame(imagecodecs.jpeg2k_decode(data), depth, name)
    found = boxes.read_metadata(data) if in_boxes else {}
    dpi = boxes.dots_per_inch(found["resolution"]) if "resolution" in found else None
    warnings = ("the resolution was left out",) if "resolution" in found and dpi is None else ()
    return _described(replace(frame, icc=found.get("icc"), dpi=dpi, lossless=reversible, warnings=warnings), found)


def _jp2_coding(data: bytes) -> tuple[int, bool]:
    """Return the bits a sample, and whether the wavelet is the reversible one, from the codestream's headers."""
    start = data.find(boxes.J2K_SIGNATURE)
    depth = (data[start + 42] & 0x7F) + 1 if len(data) > start + 42 else 8
    coding = data.find(b"\xff\x52", start)
    reversible = coding >= 0 and len(data) > coding + 13 and data[coding + 13] == 1
    return depth, reversible


def read_jxl(data: bytes, header: boxes.JxlHeader, name: str) -> Frame:
    """Read the only or first frame of a JPEG XL file.

    Raises
    ------
    DeconvError
        If the extra package is not installed.
    """
    import imagecodecs

    _open_image_io(name)
    frame = _frame(imagecodecs.jpegxl_decode(data, index=0), header.bits, name)
    profile = _jxl_profile(data, name)
    black = np.zeros((8, 8, *frame.pixels.shape[2:]), frame.pixels.dtype)
    plain = bytes(imagecodecs.jpegxl_encode(black, lossless=True))
    # libjxl makes profiles of the colour spaces that a file only names; the one that goes without saying is left out.
    profile = None if profile == _jxl_profile(plain, name) else profile
    warnings = ("only the first frame of the animation was read",) if header.animated else ()
    found = boxes.read_metadata(data)
    return _described(replace(frame, icc=profile, lossless=False, warnings=(*frame.warnings, *warnings)), found)


def _open_image_io(name: str) -> Any:  # noqa: ANN401 - a module
    try:
        import OpenImageIO
    except ImportError:
        raise _missing(name, "jxl") from None
    return OpenImageIO


def _jxl_profile(data: bytes, name: str) -> bytes | None:
    """Return the profile of a JPEG XL picture, or the one of the colour space that it names."""
    library = _open_image_io(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jxl"
        # It takes files only, and none of fewer than 128 bytes.
        path.write_bytes(boxes.jxl_with_metadata(boxes.jxl_codestream(data)) + boxes.make_box(b"skip", bytes(128)))
        source = library.ImageInput.open(str(path))
        if source is None:
            raise ValueError(library.geterror())
        profile = source.spec().getattribute("ICCProfile")
        source.close()
    return None if profile is None else np.asarray(profile, np.uint8).tobytes()


def encode_jxl(samples: Samples, *, distance: float, icc: bytes | None, name: str) -> bytes:
    """Encode samples as JPEG XL; distance 0 is lossless. A profile takes H x W x 3 or H x W x 4 integers.

    Raises
    ------
    DeconvError
        If there is a profile, and the extra package is not installed.
    """
    if icc is None:
        import imagecodecs

        how: dict[str, Any] = {"distance": distance} if distance else {"lossless": True}
        return bytes(imagecodecs.jpegxl_encode(samples, **how))
    # Only this puts the profile where the format has it, and that for integer colours alone.
    library = _open_image_io(name)
    height, width, channels = samples.shape
    spec = library.ImageSpec(width, height, channels, samples.dtype.name)
    if channels == 4:
        spec.alpha_channel = 3
        spec.attribute("oiio:UnassociatedAlpha", 1)
    spec.attribute("ICCProfile", library.TypeDesc(f"uint8[{len(icc)}]"), np.frombuffer(icc, np.uint8))
    spec.attribute("jpegxl:distance", float(distance))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jxl"
        output = library.ImageOutput.create(str(path))
        if not (output.open(str(path), spec) and output.write_image(samples) and output.close()):
            raise RuntimeError(output.geterror())
        return path.read_bytes()


def read_deep_avif(data: bytes, depth: int) -> Frame:
    """Read an AVIF of 10 or 12 bits a sample."""
    import imagecodecs

    return replace(_frame(imagecodecs.avif_decode(data), depth, "AVIF"), lossless=False)


def encode_deep_avif(
    samples: Samples,
    bits: int,
    *,
    quality: int | None,
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None,
    name: str,
) -> bytes:
    """Encode H x W x 3 or H x W x 4 uint16 as AVIF of 10 or 12 bits; without a quality, lossless.

    Raises
    ------
    DeconvError
        If the extra package is not installed.
    """
    try:
        import pyvips
    except ImportError:
        raise DeconvError(
            f"{name}: AVIF of more than 8 bits needs an extra package; install it by pip install 'deconv-cli[avif]'"
        ) from None
    height, width, channels = samples.shape
    image = pyvips.Image.new_from_memory(_in_upper_bits(samples, bits).tobytes(), width, height, channels, "ushort")
    image = image.copy(interpretation="rgb16")
    for field, value in {"icc-profile-data": icc, "exif-data": exif, "xmp-data": xmp}.items():
        if value:
            image.set_type(pyvips.GValue.blob_type, field, value)
    how: dict[str, Any] = {"lossless": True} if quality is None else {"Q": quality}
    try:
        return bytes(image.heifsave_buffer(compression="av1", bitdepth=bits, subsample_mode="off", keep="all", **how))
    except pyvips.Error as error:
        raise RuntimeError(str(error)) from error


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
    data = stream.read()
    file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    width, height = file.size
    if width * height > max_pixels:
        raise too_large(name, max_pixels)
    frame = _frame(np.asarray(file), file.info["bit_depth"], name)
    warnings = []
    if len(file) > 1:
        warnings.append("only the main picture was read")
    if any(box == b"mpvd" for box, _, _ in boxes.boxes(data)):
        warnings.append(FILM_LEFT_OUT)
    found = {key: file.info[key] for key in ("exif", "xmp") if file.info.get(key)}
    # libheif has turned the picture upright already.
    return _described(
        replace(frame, icc=file.info.get("icc_profile") or None, lossless=False, warnings=tuple(warnings)),
        found,
    )


def encode_heif(
    samples: Samples,
    bits: int,
    *,
    quality: int,
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None,
    name: str,
) -> bytes:
    """Encode H x W x 3 or H x W x 4 samples as HEIF; uint16 is written with 10 or 12 bits.

    Raises
    ------
    DeconvError
        If the extra package is not installed.
    """
    try:
        import pillow_heif
    except ImportError:
        raise _missing(name, "heif") from None
    height, width, channels = samples.shape
    mode = ("RGB" if channels == 3 else "RGBA") + (";16" if samples.dtype == np.uint16 else "")
    file = io.BytesIO()
    how: dict[str, Any] = {"quality": quality, "chroma": 444, "bit_depth": bits}
    how |= {key: value for key, value in {"icc_profile": icc, "exif": exif, "xmp": xmp}.items() if value}
    data = samples if samples.dtype == np.uint8 else _in_upper_bits(samples, bits)
    pillow_heif.encode(mode, (width, height), data.tobytes(), file, **how)
    return file.getvalue()


def _in_upper_bits(samples: Samples, bits: int) -> Samples:
    """Round uint16 to so many bits, and leave the lower ones zero: the encoders cut them off."""
    return narrow(samples, bits) << np.uint16(16 - bits)


def _frame(samples: Samples, bits: int, name: str) -> Frame:
    """Make a picture of H x W or H x W x (1 to 4) samples that have so many bits."""
    if samples.dtype not in (np.uint8, np.uint16, np.float16, np.float32) or samples.ndim not in (2, 3):
        raise DeconvError(f"{name}: {samples.dtype} samples cannot be read without loss; convert it first")
    layers = samples[..., None] if samples.ndim == 2 else samples
    if layers.shape[2] > 4:
        raise DeconvError(f"{name}: {layers.shape[2]} channels cannot be read; convert it to RGB first")
    if layers.dtype == np.float16:
        layers = layers.astype(np.float32)
    odd = layers.dtype != np.float32 and bits < 8 * layers.dtype.itemsize
    layers = widen(layers, bits) if odd else layers
    alpha = np.ascontiguousarray(layers[..., -1]) if layers.shape[2] in (2, 4) else None
    pixels = np.ascontiguousarray(layers[..., 0] if layers.shape[2] <= 2 else layers[..., :3])
    return Frame(pixels, alpha, bits=bits if odd and bits > 8 else None)


def _described(frame: Frame, found: dict[str, Any]) -> Frame:
    """Add EXIF and XMP, set upright: the decoders of these formats have turned the pixels already."""
    exif, warnings = None, frame.warnings
    try:
        exif = exif_block.make_upright(found["exif"])[0] if found.get("exif") else None
    except exif_block.MALFORMED:
        warnings = (*warnings, "malformed EXIF was left out")
    if "xml" in found:
        warnings = (*warnings, "XML that is not XMP was left out")
    xmp = exif_block.make_xmp_upright(found.get("xmp") or b"")[0] or None
    return replace(frame, exif=exif, xmp=xmp, warnings=warnings)
