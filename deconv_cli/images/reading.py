"""Reading a picture file whole: every page and pixel at its full depth, or a refusal that says why."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from deconv_cli.errors import DeconvError, cannot_read
from deconv_cli.images import boxes, colour, jpeg, optional, png, tiff
from deconv_cli.images import exif as exif_block
from deconv_cli.images.frame import FILM_LEFT_OUT, MAX_DPI, Frame, Picture, Samples, too_deep, too_large
from deconv_cli.images.samples import is_gray

MAX_PIXELS = 500_000_000
"""Larger pictures are refused unless asked for: a file of a few kilobytes can claim any size."""
MAX_ANIMATION = 10
"""How many times `MAX_PIXELS` all frames of an animation may have together: they are held in memory."""

_FORMATS = {
    "PNG": "png",
    "JPEG": "jpg",
    "MPO": "jpg",
    "WEBP": "webp",
    "BMP": "bmp",
    "DIB": "bmp",
    "TIFF": "tiff",
    "GIF": "gif",
    "AVIF": "avif",
    "JPEG2000": "jp2",
}
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "YCbCr": "RGB", "RGBX": "RGB"}
"""What opaque 8-bit modes are converted to."""
_ANIMATED = {"png", "gif", "webp", "avif"}
_PILLOW_LIMIT = threading.Lock()
_LARGEST_PROFILE = 1 << 24
"""Bytes of a profile in a PNG. Pillow takes one mebibyte, which the tables of a printer's profile exceed."""
_TELEPHONES_NOTES = b"SEFT"
"""How what Samsung's telephones write behind every picture ends: when and how it was taken."""
_STRIP = 1 << 24
"""Pixels converted at a time, so that a large picture is not in memory three times."""

_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    AttributeError,
    AssertionError,
    struct.error,
    zlib.error,
)
"""What the decoders are known to raise on damaged files."""


@contextmanager
def open_picture(
    source: Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS, verify: bool = True
) -> Iterator[Picture]:
    """Open a picture file of any supported format, told by its content and not by its suffix.

    Parameters
    ----------
    source
        A file, or the bytes of one.
    name
        What messages call the picture; by default its path.
    max_pixels
        Refuse larger pictures.
    verify
        Look for damage that decoders are silent about; for that, JPEGs are decoded up to three times.

    Yields
    ------
    Picture
        What the header says; `frames` decodes as it is iterated, within the block.

    Raises
    ------
    DeconvError
        If the file is missing, damaged, of another format or too large, or holds more bits a sample than can be
        read; also while iterating the frames.
    """
    name = name or (str(source) if isinstance(source, Path) else "standard input")
    with ExitStack() as stack:
        with _decoding(name, max_pixels):
            stream = stack.enter_context(_stream(source))
            if not stream.seekable():
                raise DeconvError(f"{name}: a pipe cannot be read as a file; save it first, or pipe it into - (stdin)")
            picture = _Opened(stream, name, max_pixels, verify).open()
        yield replace(picture, frames=_guarded(picture.frames, name, max_pixels))


def read_frame(
    source: Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS, verify: bool = True
) -> Frame:
    """Read a file that holds one picture; CMYK becomes sRGB with a warning.

    Parameters
    ----------
    source, name, max_pixels, verify
        See `open_picture`.

    Returns
    -------
    Frame
        The upright picture and its metadata.

    Raises
    ------
    DeconvError
        As `open_picture` does, and if the file holds several pictures.
    """
    with open_picture(source, name=name, max_pixels=max_pixels, verify=verify) as picture:
        if picture.count > 1:
            raise DeconvError(
                f"{picture.name}: holds {picture.count} pages or frames; split it into single pictures first"
            )
        frame, converted = colour.without_black(next(picture.frames))
    return replace(frame, warnings=(*frame.warnings, converted)) if converted else frame


def read_size(path: Path) -> tuple[int, int]:
    """Return width and height of the upright picture from the file's header, without decoding the pixels.

    Raises
    ------
    DeconvError
        As `open_picture` does, except for damage further on in the file.
    """
    with open_picture(path) as picture:
        return picture.width, picture.height


def _stream(source: Path | bytes) -> BinaryIO:
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


def _guarded(frames: Iterator[Frame], name: str, max_pixels: int) -> Iterator[Frame]:
    """Pass frames on; what goes wrong in decoding them becomes a DeconvError."""
    while True:
        with _decoding(name, max_pixels):
            frame = next(frames, None)
        if frame is None:
            return
        if not frame.is_finite:
            raise DeconvError(f"{name}: holds values that are not finite (NaN or infinite); replace them first")
        yield frame


@contextmanager
def _decoding(name: str, max_pixels: int) -> Iterator[None]:
    """Turn what goes wrong in reading the picture `name` into a DeconvError."""
    try:
        yield
    except UnidentifiedImageError as error:
        message = "not a picture of a supported format, damaged, or of a rare kind that cannot be read"
        raise DeconvError(f"{name}: {message}") from error
    except Image.DecompressionBombError as error:
        raise too_large(name, max_pixels) from error
    except MemoryError as error:
        raise DeconvError(f"{name}: too large for the memory of this machine; cut it into parts first") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno:
            raise cannot_read(name, error) from error
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DeconvError(f"{name}: the picture is damaged or incomplete ({reason})") from error


@dataclass(frozen=True)
class _Opened:
    """A stream, told apart by its first bytes and read by the decoder that loses nothing of it."""

    stream: BinaryIO
    name: str
    max_pixels: int
    verify: bool

    def open(self) -> Picture:
        header = self.stream.read(64)
        self.stream.seek(0)
        if not header:
            raise DeconvError(f"{self.name}: the file is empty")
        readers: tuple[tuple[bool, Callable[[], Picture]], ...] = (
            (optional.is_raw(self.name), self._raw),
            (header.startswith(tiff.MAGIC), self._tiff),
            (header.startswith(png.SIGNATURE), lambda: self._png(header)),
            (header.startswith((boxes.JP2_SIGNATURE, boxes.J2K_SIGNATURE)), self._jpeg_2000),
            (header.startswith((boxes.JXL_SIGNATURE, boxes.JXL_CODESTREAM)), self._jpeg_xl),
            (header[4:8] == b"ftyp", lambda: self._iso_media(header)),
        )
        return next((read for fits, read in readers if fits), self._pillow)()

    def _raw(self) -> Picture:
        size = optional.raw_size(self.stream)
        return self._single("raw", size, 6, lambda: optional.read_raw(self.stream, self.name))

    def _jpeg_xl(self) -> Picture:
        data = self.stream.read()
        header = boxes.jxl_header(boxes.jxl_codestream(data))
        sample = 1 if header.bits <= 8 else 2 if header.bits <= 16 else 4
        return self._single("jxl", header[:2], 4 * sample, lambda: optional.read_jxl(data, header, self.name))

    def _single(
        self, kind: str, size: tuple[int, int] | None, bytes_per_pixel: int, decode: Callable[[], Frame]
    ) -> Picture:
        """Make a picture of one frame; without a size in the header it is decoded at once."""
        if size:
            self._check_size(*size)
            return Picture(self.name, kind, *size, 1, self._finish(decode, kind), bytes_per_pixel=bytes_per_pixel)
        frame = next(self._finish(decode, kind))
        height, width = frame.pixels.shape[:2]
        measured = frame.nbytes // (height * width)
        return Picture(self.name, kind, width, height, 1, iter([frame]), bytes_per_pixel=measured)

    def _finish(self, decode: Callable[[], Frame], kind: str) -> Iterator[Frame]:
        frame = decode()
        height, width = frame.pixels.shape[:2]
        self._check_size(width, height)
        yield replace(frame, format=kind, name=self.name)

    def _check_size(self, width: int, height: int, count: int = 1) -> None:
        if width * height > self.max_pixels or width * height * count > MAX_ANIMATION * self.max_pixels:
            raise too_large(self.name, self.max_pixels)

    def _tiff(self) -> Picture:
        opened, pages = tiff.open_pages(self.stream)
        if pages[0].is_reduced and tiff.SUB_IFDS in pages[0].tags:
            inside = "a reduced copy, and inside of it the picture, as in cameras' raw files"
            raise DeconvError(f"{self.name}: it holds {inside}; give it the suffix of one, such as .dng")
        tiff.check(pages[0], self.name, self.max_pixels)
        return Picture(
            self.name,
            "tiff",
            *tiff.shape_of(pages[0]),
            len(pages),
            self._tiff_frames(opened, pages),
            bytes_per_pixel=tiff.bytes_per_pixel(pages[0]),
        )

    def _tiff_frames(self, opened: Any, pages: list[Any]) -> Iterator[Frame]:  # noqa: ANN401
        dropped = len(opened.pages) - len(pages)
        for number, page in enumerate(pages):
            tiff.check(page, self.name, self.max_pixels)
            frame = tiff.read_page(opened, page, self.stream, self._tiff_page_by_pillow, self.name)
            if number == 0 and dropped:
                frame = replace(frame, warnings=(*frame.warnings, f"reduced copies or masks were left out: {dropped}"))
            yield _turned(frame, tiff.orientation_of(page))

    def _tiff_page_by_pillow(self, index: int) -> Frame:
        self.stream.seek(0)
        image = _open_image(self.stream, ("TIFF",))
        assert isinstance(image, TiffImageFile)
        image.seek(index)
        # Once more: of a tag that a file has twice, Pillow and tifffile need not take the same one.
        self._check_size(*image.size)
        # Pillow turns TIFFs by itself when it loads them; here it is done once for all decoders.
        image.getexif()[274] = 1
        image._size = image._tile_size
        # It holds them to its own limit once more, for all threads alike, unless there is memory for them already.
        image.im = Image.new(image.mode, image.size).im
        image.load()
        return _samples(image, self.name)

    def _png(self, header: bytes) -> Picture:
        if header[12:16] != b"IHDR" or len(header) < png.HEADER_END:
            raise UnidentifiedImageError
        if header[24] <= 8:
            return self._pillow()
        width, height = struct.unpack_from(">II", header, 16)
        self._check_size(width, height)
        channels = {0: 1, 2: 3, 4: 2, 6: 4}.get(header[25], 3)
        return Picture(self.name, "png", *self._upright_size(), 1, self._deep_png(), bytes_per_pixel=2 * channels)

    def _upright_size(self) -> tuple[int, int]:
        image = _open_image(self.stream, ("PNG",))
        if getattr(image, "n_frames", 1) > 1:
            raise too_deep(self.name, "16-bit animation")
        size = _upright(image.size, _read_metadata(image).orientation)
        self.stream.seek(0)
        return size

    def _deep_png(self) -> Iterator[Frame]:
        data = self.stream.read()
        image = _open_image(io.BytesIO(data), ("PNG",))
        metadata = _read_metadata(image)
        pixels, alpha = png.decode_deep(data)
        yield self._with_metadata(Frame(pixels, alpha), image, metadata, data)

    def _jpeg_2000(self) -> Picture:
        image = _open_image(self.stream, ("JPEG2000",))
        self._check_size(*image.size)
        # Pillow does not say how many bits a sample has.
        return self._single("jp2", image.size, 2 * len(image.getbands()), self._decode_jpeg_2000)

    def _decode_jpeg_2000(self) -> Frame:
        self.stream.seek(0)
        return optional.read_jp2(self.stream.read(), self.name)

    def _iso_media(self, header: bytes) -> Picture:
        brands = header[8:12] + header[16:48]
        if b"avi" in brands:
            data = self.stream.read()
            depth = boxes.depth_of(data)
            self.stream.seek(0)
            image = _open_image(self.stream, ("AVIF",))
            if depth <= 8:
                self.stream.seek(0)
                return self._pillow()
            if getattr(image, "n_frames", 1) > 1:
                raise too_deep(self.name, f"{depth}-bit animation")
            metadata = _read_metadata(image)
            return self._single(
                "avif",
                image.size,
                2 * len(image.getbands()),
                lambda: self._with_metadata(optional.read_deep_avif(data, depth), image, metadata, b""),
            )
        if any(brand in brands for brand in (b"hei", b"hev", b"mif1", b"msf1")):
            return self._single("heif", None, 3, lambda: optional.read_heif(self.stream, self.name, self.max_pixels))
        raise UnidentifiedImageError

    def _pillow(self) -> Picture:
        image = _open_image(self.stream, ("PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF"))
        kind = _FORMATS[image.format or ""]
        count = getattr(image, "n_frames", 1) if kind in _ANIMATED else 1
        self._check_size(*image.size, count)
        still_first = bool(getattr(image, "default_image", False))
        loop = image.info.get("loop")
        return Picture(
            self.name,
            kind,
            *_upright(image.size, _read_metadata(image).orientation),
            count,
            self._pillow_frames(image, count, still_first=still_first),
            animated=count > 1,
            loop=loop,
            still_first=still_first,
            bytes_per_pixel=4 if image.mode == "P" else len(image.getbands()),
        )

    def _pillow_frames(self, image: ImageFile.ImageFile, count: int, *, still_first: bool) -> Iterator[Frame]:
        data = b""
        if image.format in {"PNG", "WEBP", "JPEG", "MPO"}:
            self.stream.seek(0)
            data = self.stream.read()
            self.stream.seek(0)
        for index in range(count):
            if count > 1:
                image.seek(index)
                # A frame of a GIF can be larger than its header says.
                self._check_size(*image.size, count)
            metadata = _read_metadata(image)
            _mend_transparency(image, data)
            image.load()
            doubts = _check_jpeg(image, data) if self.verify and isinstance(image, JpegImageFile) else ()
            frame = self._with_metadata(_samples(image, self.name), image, metadata, data)
            frame = replace(frame, warnings=(*doubts, *frame.warnings), doubts=doubts)
            if count > 1 and not (still_first and index == 0):
                frame = replace(frame, duration=float(image.info.get("duration") or 0))
            yield frame

    def _with_metadata(self, frame: Frame, image: Image.Image, metadata: _Metadata, data: bytes) -> Frame:
        kind = _FORMATS[image.format or ""]
        dpi, other_resolution = _resolution(image, metadata.orientation)
        frame = replace(
            frame,
            format=kind,
            name=self.name,
            icc=image.info.get("icc_profile") or None,
            exif=metadata.exif,
            xmp=metadata.xmp,
            iptc=_iptc(image),
            dpi=dpi,
            comment=_comment(image),
            chunks=png.kept_chunks(data) if kind == "png" else (),
            palette=image.mode in {"P", "PA"} or kind == "gif",
            jpeg_quality=_jpeg_quality(image),
            lossless=_is_lossless(image, data),
            warnings=(
                *frame.warnings,
                *metadata.warnings,
                *_left_out(image, other_resolution=other_resolution),
                *_left_behind(kind, data, image.info),
            ),
        )
        return _turned(frame, metadata.orientation)


def _check_jpeg(image: JpegImageFile, data: bytes) -> tuple[str, ...]:
    """Find out whether the samples ended with the picture: libjpeg fills up what is missing, and Pillow is silent.

    Raises
    ------
    ValueError
        If samples are missing.
    """
    spans = jpeg.find_samples(data)
    if not spans:
        return ()
    if not _looks_like(image, jpeg.with_more_samples(data, spans)):
        raise ValueError("samples are missing")
    other = jpeg.with_other_end(data, spans)
    # Where all is flat, Huffman's code can have one word only, and others cannot be told from it.
    if other and not _is_flat(image) and _looks_like(image, other):
        return ("the picture may be damaged: it ended before its samples did",)
    return ()


def _open_image(stream: IO[bytes], formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """Open a picture by Pillow without decoding it."""
    # Sizes are checked here, with a limit that can be raised; Pillow's own would be the same for all. It is read from
    # its module, and pictures are opened by several threads.
    with _PILLOW_LIMIT:
        limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, _LARGEST_PROFILE
        try:
            return Image.open(stream, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = limits


def _is_flat(image: Image.Image) -> bool:
    return all(low == high for low, high in np.reshape(image.getextrema(), (-1, 2)))


def _looks_like(image: Image.Image, data: bytes) -> bool:
    """Tell whether a JPEG file decodes to the same pixels as an image."""
    with _open_image(io.BytesIO(data), ("JPEG",)) as other:
        other.load()
        # From below: damage shows in what follows it.
        strips = [(0, top, image.width, min(top + 64, image.height)) for top in range(0, image.height, 64)]
        return all(image.crop(strip).tobytes() == other.crop(strip).tobytes() for strip in reversed(strips))


def _upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation >= 5 else size


def _mend_transparency(image: ImageFile.ImageFile, data: bytes) -> None:
    depth = data[24] if image.format == "PNG" else 8
    if depth < 8 and image.mode == "L" and isinstance(image.info.get("transparency"), int):
        # Pillow stretches the samples to 8 bits but leaves the transparent one as it is in the file.
        image.info["transparency"] *= 255 // (2**depth - 1)


def _samples(image: Image.Image, name: str) -> Frame:
    """Return pixels, alpha, black and warnings."""
    warnings = []
    if isinstance(image, JpegImageFile) and "mp" in image.info:
        warnings.append("only the main picture was read; previews or a gain map beside it were left out")
    if isinstance(image, TiffImageFile) and 0 in image.tag_v2.get(338, ()):
        warnings.append("extra channels of unspecified meaning were left out")
    if image.mode == "CMYK":
        inks = ~_array(image, "CMYK")
        return Frame(np.ascontiguousarray(inks[..., :3]), None, inks[..., 3].copy(), warnings=tuple(warnings))
    if image.has_transparency_data:
        layers = _array(image, "LA" if image.mode in {"1", "L", "LA", "La"} else "RGBA")
        pixels, alpha = np.ascontiguousarray(layers[..., :-1]), np.ascontiguousarray(layers[..., -1])
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    elif image.mode in _MODES:
        pixels, alpha = _array(image, _MODES[image.mode]), None
    else:
        raise DeconvError(f"{name}: {image.mode} colours cannot be read; convert it to RGB first")
    if image.mode in {"P", "PA"} and _can_be_gray(pixels, image.info.get("icc_profile")):
        pixels = pixels[..., 0]
    return Frame(np.ascontiguousarray(pixels), alpha, warnings=tuple(warnings))


def _array(image: Image.Image, mode: str) -> Samples:
    """Convert a decoded picture to an array of that mode, some rows at a time."""
    channels = Image.getmodebands(mode)
    out = np.empty((image.height, image.width, channels) if channels > 1 else (image.height, image.width), np.uint8)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        out[top : top + rows] = np.asarray(part if part.mode == mode else part.convert(mode))
    return out


def _can_be_gray(rgb: Samples, icc: bytes | None) -> bool:
    """Tell whether H x W x 3 pixels can be kept as gray: channels equal, and no profile that wants three."""
    of_three_channels = icc is not None and not colour.is_gray_profile(icc)
    return rgb.ndim == 3 and not of_three_channels and is_gray(rgb)


def _turned(frame: Frame, orientation: int) -> Frame:
    """Turn a frame upright by EXIF orientation (1 to 8)."""
    return frame if orientation == 1 else frame.map_layers(lambda layer: _turn(layer, orientation))


def _turn(samples: Samples, orientation: int) -> Samples:
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


def _read_metadata(image: Image.Image) -> _Metadata:
    block, orientation = None, None
    warnings: tuple[str, ...] = ()
    try:
        block, orientation = _read_exif(image)
    except exif_block.MALFORMED:
        warnings = ("malformed EXIF was left out",)
    whole, xmp_orientation = exif_block.make_xmp_upright(image.info.get("xmp") or b"")
    xmp = exif_block.without_extension(whole)
    if xmp != whole:
        warnings = (*warnings, "the second part of the XMP was left out")
    xmp = exif_block.without_film(xmp)
    orientation = orientation or xmp_orientation or 1
    return _Metadata(block, xmp or None, orientation if 1 <= orientation <= 8 else 1, warnings)


def _read_exif(image: Image.Image) -> tuple[bytes | None, int | None]:
    """Return the EXIF block set upright, and the orientation it had."""
    if block := image.info.get("exif"):
        return exif_block.make_upright(block)
    if profile := image.info.get("Raw profile type exif"):
        # ImageMagick's way, before PNG had a chunk for it.
        return exif_block.make_upright(png.decode_profile(profile))
    return None, None


def _iptc(image: Image.Image) -> bytes | None:
    resources = image.info.get("photoshop")
    if isinstance(resources, dict) and isinstance(resources.get(tiff.IPTC_RESOURCE), bytes):
        return resources[tiff.IPTC_RESOURCE] or None
    if profile := image.info.get("Raw profile type iptc"):
        try:
            return png.decode_profile(profile) or None
        except ValueError:
            return None
    return None


def _comment(image: Image.Image) -> bytes | None:
    if isinstance(image, JpegImageFile):
        return b"\n".join(content for name, content in image.applist if name == "COM") or None
    return image.info.get("comment") or None if image.format == "GIF" else None


def _left_out(image: Image.Image, *, other_resolution: bool) -> Iterator[str]:
    """Say what of a file's metadata has no place here."""
    resources = image.info.get("photoshop")
    if isinstance(resources, dict) and set(tiff.PATHS).intersection(resources):
        yield "clipping paths were left out"
    if other_resolution:
        yield "the resolution was left out"


def _left_behind(kind: str, data: bytes, info: Mapping[Any, Any]) -> Iterator[str]:
    """Say what follows the end of a file; padding is nothing.

    A pipe may hold several pictures, as some programs write the pages of a document. Telephones write the film of a
    motion photo there, and notes of their own.
    """
    end = {"png": png.find_end, "jpg": jpeg.find_end}.get(kind, len)(data)
    behind = b"" if end is None else data[end:].lstrip(b"\0\r\n").rstrip(b"\0\r\n\xff")
    if kind == "jpg" and b"ftyp" in behind:
        yield FILM_LEFT_OUT
    elif not behind or "mp" in info or behind.endswith(_TELEPHONES_NOTES):
        return
    elif behind[:3] == data[:3]:
        yield "another picture behind it was left out"
    else:
        yield f"{len(behind)} bytes behind its end were left out"


def _resolution(image: Image.Image, orientation: int) -> tuple[tuple[float, float] | None, bool]:
    """Return dots per inch along the upright picture, if the file gives them sensibly; and whether it gives others."""
    told = () if _has_invented_resolution(image) else image.info.get("dpi", ())
    try:
        x, y = (float(value) for value in told)
    except (LookupError, TypeError, ValueError, ZeroDivisionError):
        x, y = image.info.get("aspect") or image.info.get("jfif_density") or (0, 0)
        return None, x != y  # Without a unit they say how wide a pixel is for its height.
    if not (1 <= x <= MAX_DPI and 1 <= y <= MAX_DPI):
        return None, bool(x and y)
    return ((y, x) if orientation >= 5 else (x, y)), False


def _has_invented_resolution(image: Image.Image) -> bool:
    """Tell whether Pillow says 72 dots per inch of a JPEG whose EXIF tells none, or cannot be read."""
    if not isinstance(image, JpegImageFile) or image.info.get("jfif_unit") or "dpi" not in image.info:
        return False
    try:
        return exif_block.RESOLUTIONS[0] not in image.getexif()
    except exif_block.MALFORMED:
        return True


def _jpeg_quality(image: Image.Image) -> int | None:
    if not isinstance(image, JpegImageFile):
        return None
    luminance = image.quantization.get(image.layer[0][3])
    return None if luminance is None else jpeg.estimate_quality(luminance)


def _is_lossless(image: Image.Image, data: bytes) -> bool:
    if image.format == "WEBP":
        return b"VP8L" in _riff_chunks(data)
    return image.format not in {"JPEG", "MPO", "AVIF"}


def _riff_chunks(data: bytes) -> set[bytes]:
    """Return the names of the chunks in a RIFF file, such as a WebP, those of its frames included."""
    names, position = set(), 12
    while position + 8 <= len(data):
        name = data[position : position + 4]
        names.add(name)
        (length,) = struct.unpack_from("<I", data, position + 4)
        # A frame of an animation holds chunks behind 16 bytes of its own.
        position += 8 + (16 if name == b"ANMF" else length + length % 2)
    return names
