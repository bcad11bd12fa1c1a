"""Reading a picture file whole: every pixel at its full depth, or a refusal that says why."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from deconv_cli.errors import DeconvError
from deconv_cli.images import exif as exif_block
from deconv_cli.images.frame import Frame, Samples
from deconv_cli.images.jpeg import estimate_quality

MAX_PIXELS = 400_000_000
"""Larger pictures are refused: a file of a few kilobytes can claim any size."""

# Pillow's own limit, which it reads from its module, is too low for scans.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

_FORMATS = {"PNG": "png", "JPEG": "jpg", "MPO": "jpg", "WEBP": "webp", "BMP": "bmp", "TIFF": "tiff"}
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "YCbCr": "RGB"}
"""What opaque 8-bit modes are converted to."""

_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders are known to raise on damaged files."""

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_X_RESOLUTION, _TIFF_EXTRA_SAMPLES, _TIFF_SAMPLE_FORMAT = (
    258,
    262,
    282,
    338,
    339,
)


def read_frame(source: Path | bytes, *, name: str | None = None) -> Frame:
    """Read a picture: PNG, JPEG, WebP, BMP or TIFF, told by its content and not by its suffix.

    Palettes and bilevel pictures become RGB or gray, CMYK becomes sRGB with a warning.

    Parameters
    ----------
    source
        A file, or the bytes of one.
    name
        What messages call the picture; by default its path.

    Returns
    -------
    Frame
        The upright picture and its metadata.

    Raises
    ------
    DeconvError
        If the file is missing, damaged, of another format or larger than `MAX_PIXELS`, or holds several
        pictures or more bits a sample than can be read.
    """
    name = name or (str(source) if isinstance(source, Path) else "standard input")
    with _decoding(name):
        data = source.read_bytes() if isinstance(source, Path) else source
        with _open(io.BytesIO(data), name) as image:
            image.load()
            pixels, alpha, warnings = _samples(image, name)
            metadata = _read_metadata(image)
            return Frame(
                pixels=_turn(pixels, metadata.orientation),
                alpha=None if alpha is None else _turn(alpha, metadata.orientation),
                format=_FORMATS[image.format or ""],
                name=name,
                icc=None if image.mode == "CMYK" else image.info.get("icc_profile") or None,
                exif=metadata.exif,
                xmp=metadata.xmp,
                dpi=_resolution(image, metadata.orientation),
                jpeg_quality=_jpeg_quality(image),
                lossless=_is_lossless(image, data),
                warnings=(*warnings, *metadata.warnings),
            )


def read_size(path: Path) -> tuple[int, int]:
    """Return width and height of the upright picture from the file's header, without decoding the pixels.

    Raises
    ------
    DeconvError
        As `read_frame` does, except for damage further on in the file.
    """
    with _decoding(str(path)), path.open("rb") as file, _open(file, str(path)) as image:
        width, height = image.size
        # Pillow turns TIFFs by itself, and gives their upright size.
        sideways = not isinstance(image, TiffImageFile) and _read_metadata(image).orientation >= 5
        return (height, width) if sideways else (width, height)


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn what goes wrong in reading the picture `name` into a DeconvError."""
    try:
        yield
    except FileNotFoundError as error:
        raise DeconvError(f"{name}: no such file") from error
    except UnidentifiedImageError as error:
        message = "not a PNG, JPEG, WebP, BMP or TIFF picture, damaged, or of a rare kind that cannot be read"
        raise DeconvError(f"{name}: {message}") from error
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except MemoryError as error:
        raise DeconvError(f"{name}: too large for the memory of this machine; cut it into parts first") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno:
            raise DeconvError(f"{name}: cannot be read ({error.strerror})") from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DeconvError(f"{name}: the picture is damaged or incomplete ({reason})") from error


def _too_large(name: str) -> DeconvError:
    return DeconvError(f"{name}: larger than {MAX_PIXELS // 10**6} megapixels; cut it into parts first")


def _open(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    """Open a picture without decoding it; refuse what could only be read in part or with fewer bits."""
    header = stream.read(26)
    if not header:
        raise DeconvError(f"{name}: the file is empty")
    stream.seek(0)
    image = Image.open(stream, formats=("PNG", "JPEG", "WEBP", "BMP", "TIFF"))
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    count = getattr(image, "n_frames", 1)
    if count > 1 and not isinstance(image, JpegImageFile):
        raise DeconvError(f"{name}: holds {count} pages or frames; split it into single pictures first")
    if image.format == "PNG":
        _check_png(image, header, name)
    if isinstance(image, TiffImageFile):
        _check_tiff(image, name)
    return image


def _check_png(image: Image.Image, header: bytes, name: str) -> None:
    if header[12:16] != b"IHDR":
        raise ValueError("the first chunk is not IHDR")
    depth = header[24]
    if depth > 8 and (image.mode != "I;16" or "transparency" in image.info):
        raise _too_deep(name, f"{depth}-bit colour or transparency")
    if depth < 8 and image.mode == "L" and "transparency" in image.info:
        # Pillow stretches the samples to 8 bits but leaves the transparent one as it is in the file.
        image.info["transparency"] *= 255 // (2**depth - 1)


def _check_tiff(image: TiffImageFile, name: str) -> None:
    bits = image.tag_v2.get(_TIFF_BITS, (1,))
    if max(bits) > 8 and (bits != (16,) or not image.mode.startswith("I;16")):
        raise _too_deep(name, f"{max(bits)}-bit samples of this kind")
    if set(image.tag_v2.get(_TIFF_SAMPLE_FORMAT, (1,))) & {2, 3}:
        raise _too_deep(name, "signed or floating-point samples")


def _too_deep(name: str, what: str) -> DeconvError:
    return DeconvError(f"{name}: {what} cannot be read without loss; save it with 8 bits, or as 16-bit gray, first")


def _samples(image: ImageFile.ImageFile, name: str) -> tuple[Samples, Samples | None, list[str]]:
    """Return pixels, alpha and warnings."""
    warnings = []
    if isinstance(image, JpegImageFile) and "mp" in image.info:
        warnings.append("only the main picture was read; previews or a gain map beside it were left out")
    if isinstance(image, TiffImageFile) and 0 in image.tag_v2.get(_TIFF_EXTRA_SAMPLES, ()):
        warnings.append("extra channels of unspecified meaning were left out")
    if image.mode.startswith("I;16"):
        return _gray16(image), None, warnings
    if image.mode == "CMYK":
        warnings.append("CMYK was converted to sRGB")
        return np.array(_cmyk_to_srgb(image)), None, warnings
    if image.has_transparency_data:
        layers = np.array(image.convert("LA" if image.mode in {"1", "L", "LA", "La"} else "RGBA"))
        pixels, alpha = layers[..., :-1], np.ascontiguousarray(layers[..., -1])
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    elif image.mode in _MODES:
        pixels, alpha = np.array(image.convert(_MODES[image.mode])), None
    else:
        raise DeconvError(f"{name}: {image.mode} colours cannot be read; convert it to RGB first")
    if image.mode in {"P", "PA"} and _is_gray(pixels, image.info.get("icc_profile")):
        pixels = pixels[..., 0]
    return np.ascontiguousarray(pixels), alpha, warnings


def _gray16(image: ImageFile.ImageFile) -> Samples:
    samples: Samples = np.array(image).astype(np.uint16)
    # Pillow inverts white-is-zero samples of up to 8 bits, but not these.
    inverted = isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
    return ~samples if inverted else samples


def _is_gray(rgb: Samples, icc: bytes | None) -> bool:
    """Tell whether H x W x 3 pixels can be kept as gray: channels equal, and no profile that wants three."""
    of_three_channels = icc is not None and icc[16:20] != b"GRAY"
    return not of_three_channels and bool((rgb == rgb[..., :1]).all())


def _cmyk_to_srgb(image: Image.Image) -> Image.Image:
    """Convert by the picture's ICC profile; by Pillow's rule of thumb if it has none that works."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info.get("icc_profile") or b""))
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):
        converted = None
    return converted or image.convert("RGB")


def _turn(samples: Samples, orientation: int) -> Samples:
    """Turn samples upright by EXIF orientation (1 to 8)."""
    if orientation in {5, 6, 7, 8}:
        samples = samples.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        samples = samples[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        samples = samples[::-1]
    return np.ascontiguousarray(samples)


@dataclass(frozen=True)
class _Metadata:
    """EXIF and XMP set upright, and the orientation (1 to 8) to turn the pixels by."""

    exif: bytes | None
    xmp: bytes | None
    orientation: int
    warnings: tuple[str, ...]


def _read_metadata(image: ImageFile.ImageFile) -> _Metadata:
    block, orientation = None, None
    warnings: tuple[str, ...] = ()
    try:
        block, orientation = _read_exif(image)
    except exif_block.MALFORMED:
        warnings = ("the EXIF block is malformed and was left out",)
    xmp, xmp_orientation = exif_block.make_xmp_upright(image.info.get("xmp") or b"")
    orientation = orientation or xmp_orientation or 1
    return _Metadata(block, xmp or None, orientation if 1 <= orientation <= 8 else 1, warnings)


def _read_exif(image: ImageFile.ImageFile) -> tuple[bytes | None, int | None]:
    """Return the EXIF block set upright, and the orientation it had."""
    if isinstance(image, TiffImageFile):
        return exif_block.describe(image.getexif()), None
    if block := image.info.get("exif"):
        return exif_block.make_upright(block)
    if profile := image.info.get("Raw profile type exif"):
        # ImageMagick's way, before PNG had a chunk for it: name, length and hexadecimal digits as text.
        return exif_block.make_upright(bytes.fromhex("".join(profile.split("\n")[3:])))
    return None, None


def _resolution(image: ImageFile.ImageFile, orientation: int) -> tuple[float, float] | None:
    """Return dots per inch along the upright picture's width and height, if the file gives them sensibly."""
    if isinstance(image, TiffImageFile) and _TIFF_X_RESOLUTION not in image.tag_v2:
        return None  # Pillow says 1 dpi
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (LookupError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (1 <= x <= 65535 and 1 <= y <= 65535):
        return None
    return (y, x) if orientation >= 5 else (x, y)


def _jpeg_quality(image: ImageFile.ImageFile) -> int | None:
    if not isinstance(image, JpegImageFile):
        return None
    luminance = image.quantization.get(image.layer[0][3])
    return None if luminance is None else estimate_quality(luminance)


def _is_lossless(image: ImageFile.ImageFile, data: bytes) -> bool:
    if image.format == "WEBP":
        return b"VP8L" in _riff_chunks(data)
    if isinstance(image, TiffImageFile):
        return "jpeg" not in str(image.info.get("compression")) and image.info.get("compression") != "webp"
    return not isinstance(image, JpegImageFile)


def _riff_chunks(data: bytes) -> set[bytes]:
    """Return the names of the chunks in a RIFF file, such as a WebP."""
    names, position = set(), 12
    while position + 8 <= len(data):
        names.add(data[position : position + 4])
        (length,) = struct.unpack_from("<I", data, position + 4)
        position += 8 + length + length % 2
    return names
