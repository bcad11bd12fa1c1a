"""TIFF files: every page at its full depth, with its tags."""

from __future__ import annotations

import logging
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import IO, Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from deconv_cli.images import exif as exif_block
from deconv_cli.images.frame import MAX_DPI, Frame, Samples, too_deep, too_large
from deconv_cli.images.samples import widen

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_SUBFILE, _ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 254, 274, 282, 283, 296
_INCHES = {2: 1.0, 3: 2.54}
"""Units of resolution, by how many of them an inch has."""
_XMP, _IPTC, _PHOTOSHOP, _ICC, _LAYERS = 700, 33723, 34377, 34675, 37724
SUB_IFDS = 330
"""The tag that links to pictures inside of a page."""
_TRANSFER_FUNCTION = 301
_DESCRIPTION = 270
_SHAPE = re.compile(rb'\{"shape": \[([\d, ]+)\](?:, )?')
_LEFT_OUT = {
    _LAYERS: "Photoshop layers were left out",
    SUB_IFDS: "pictures inside the page (reduced copies) were left out",
    _TRANSFER_FUNCTION: "the transfer function was left out",
}
IPTC_RESOURCE, PATHS = 0x0404, range(2000, 3000)
"""Photoshop's image resources that hold IPTC records, and those that hold clipping paths."""
_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_GEOMETRY_TAGS = frozenset({33550, 33922, 34264})
"""Tags that tie pixel coordinates to a map."""

_STORAGE = (
    frozenset(range(254, 269)) - {263}
    | {273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 288, 289, 290, 291, 292, 293, 296, 317, 320}
    | {321, 322, 323, 324, 325, 326, 327, 328, 332, 334, 336, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347}
    | {400, 401, 402, 403, 404, 405, 433, 434, 435, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
    | {
        _XMP,
        _IPTC,
        _PHOTOSHOP,
        _ICC,
        _LAYERS,
        SUB_IFDS,
        _EXIF,
        _GPS,
        _INTEROPERABILITY,
        32997,
        32998,
        _TRANSFER_FUNCTION,
    }
)
"""Tags that say how the samples are stored, or that travel on their own."""

_BYTES = frozenset({1, 2, 6, 7})
"""Types of tags whose values are single bytes."""

_BIG = 3_900_000_000
"""Bytes of samples from which a file is written as BigTIFF; a classic TIFF ends at 4 GiB."""

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _SEPARATED = 0, 1, 2, 5
_UNSPECIFIED, _PREMULTIPLIED, _STRAIGHT = 0, 1, 2
_JPEG_KINDS = frozenset({6, 7, 34892, 50001, 50002, 34712, 33003, 33005})
"""Lossy compressions."""
_PLAIN_COMPRESSIONS = frozenset({1, 5, 8, 32773, 32946, 34925, 50000, 50001})
"""What tifffile decodes: Deflate, LZW and the like, and WebP."""
_WRITTEN_COMPRESSION = {1: None, 5: "lzw"}

# tifffile reports oddities of files to its log; what matters here raises.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False

Opened = Any
"""A tifffile.TiffFile, which is imported only where a TIFF is read."""


def open_pages(stream: IO[bytes]) -> tuple[Opened, list[Any]]:
    """Parse a TIFF; return it and its full pages, without reduced copies and transparency masks.

    Raises
    ------
    Exception
        If the file is damaged.
    """
    import tifffile

    _check_directories(stream)
    tiff = tifffile.TiffFile(stream)
    every = [page.aspage() for page in tiff.pages]
    pages = [page for page in every if not (page.is_reduced or page.is_mask)] or every
    if not pages:
        raise ValueError("it holds no page")
    if tiff.is_imagej and len(tiff.series[0].pages) > len(tiff.pages):
        raise ValueError("an ImageJ stack without a directory for every page")
    return tiff, pages


def _check_directories(stream: IO[bytes]) -> None:
    """Refuse a chain of directories that loops, overlaps or leaves the file: a small file could make it endless."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    header = stream.read(16)
    order = "<" if header[:2] == b"II" else ">"
    big = header[2:4] in (b"+\0", b"\0+")
    counter, pointer, entry = (order + "Q", order + "Q", 20) if big else (order + "H", order + "I", 12)
    (position,) = struct.unpack_from(pointer, header, 8 if big else 4)
    total = 0
    while position:
        stream.seek(position)
        (count,) = struct.unpack(counter, stream.read(struct.calcsize(counter)))
        end = position + struct.calcsize(counter) + count * entry
        total += end - position
        if end > size or total > size:
            raise ValueError("its directories make no sense")
        stream.seek(end)
        following = stream.read(struct.calcsize(pointer))
        position = struct.unpack(pointer, following)[0] if len(following) == struct.calcsize(pointer) else 0
    stream.seek(0)


def shape_of(page: Any) -> tuple[int, int]:  # noqa: ANN401 - a tifffile.TiffPage
    """Return width and height of a page, upright."""
    width, height = int(page.imagewidth), int(page.imagelength)
    return (height, width) if orientation_of(page) >= 5 else (width, height)


def orientation_of(page: Any) -> int:  # noqa: ANN401
    """Return the orientation, 1 to 8."""
    value = page.tags.valueof(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def bytes_per_pixel(page: Any) -> int:  # noqa: ANN401
    """Return the size of a decoded pixel."""
    return max(1, int(page.samplesperpixel)) * max(1, int(page.bitspersample) // 8)


def check(page: Any, name: str, max_pixels: int) -> None:  # noqa: ANN401
    """Refuse a page that is too large, or could be read only with fewer bits.

    Raises
    ------
    DeconvError
        If it is so.
    ValueError
        If its size makes no sense.
    """
    if page.imagewidth < 1 or page.imagelength < 1 or page.imagedepth != 1:
        raise ValueError("the size of the page makes no sense")
    if page.imagewidth * page.imagelength > max_pixels or page.samplesperpixel > 16:
        raise too_large(name, max_pixels)
    if page.bitspersample > 8 and not _is_plain(page):
        raise too_deep(name, f"{page.bitspersample}-bit samples of this kind")
    kind = page.dtype
    if kind is not None and page.bitspersample >= 8 and kind not in (np.uint8, np.uint16, np.float16, np.float32):
        raise too_deep(name, f"{kind} samples")


def read_page(tiff: Opened, page: Any, stream: IO[bytes], pillow: Callable[[int], Frame], name: str) -> Frame:  # noqa: ANN401
    """Read a page that `check` let through; not turned upright.

    Parameters
    ----------
    pillow
        Reads the page of that index by Pillow, for kinds of 8-bit samples that tifffile does not turn into colours.
    """
    frame = _read_plain(page) if _is_plain(page) else pillow(page.index)
    tags = page.tags
    lossless = int(page.compression) not in _JPEG_KINDS
    warnings = [*frame.warnings, *(warning for tag, warning in _LEFT_OUT.items() if tag in tags)]
    resources = _photoshop_resources(_bytes(tags.valueof(_PHOTOSHOP)) or b"")
    if set(PATHS).intersection(resources):
        warnings.append("clipping paths were left out")
    exif, malformed = _read_exif(tiff, page, stream)
    if malformed:
        warnings.append("malformed EXIF was left out")
    dpi, other_resolution = _resolution(tags, orientation_of(page))
    if other_resolution:
        warnings.append("the resolution was left out")
    xmp = tags.valueof(_XMP)
    return replace(
        frame,
        format="tiff",
        name=name,
        icc=_bytes(tags.valueof(_ICC)),
        exif=exif,
        xmp=exif_block.make_xmp_upright(_bytes(xmp) or b"")[0] or None,
        iptc=_bytes(tags.valueof(_IPTC)) or resources.get(IPTC_RESOURCE) or None,
        dpi=dpi,
        tags=tuple(_kept_tags(tags)),
        compression=int(page.compression),
        palette=int(page.photometric) == 3,
        lossless=lossless,
        warnings=tuple(warnings),
    )


def _is_plain(page: Any) -> bool:  # noqa: ANN401
    """Tell whether the samples are gray, RGB or CMYK as they stand in the file."""
    bits, samples, photometric = page.bitspersample, page.samplesperpixel, page.photometric
    colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _SEPARATED: 4}.get(int(photometric), 99)
    inks = page.tags.valueof(332, 1)
    return (
        (bits in (8, 16) or 9 <= bits <= 15 or (bits == 32 and page.dtype == np.float32))
        and page.dtype in (np.uint8, np.uint16, np.float16, np.float32)
        and samples >= colours
        and int(page.compression) in _PLAIN_COMPRESSIONS
        and inks == 1
    )


def _read_plain(page: Any) -> Frame:  # noqa: ANN401
    _check_segments(page)
    samples = page.asarray(maxworkers=1)
    if samples.ndim == 3 and int(page.planarconfig) == 2:
        samples = np.moveaxis(samples, 0, -1)
    layers = samples.reshape(page.imagelength, page.imagewidth, -1)
    if layers.dtype == np.float16:
        layers = layers.astype(np.float32)
    bits = page.bitspersample if 9 <= page.bitspersample <= 15 else None
    layers, warnings = widen(layers, bits) if bits else layers, []
    photometric = int(page.photometric)
    colours = {_RGB: 3, _SEPARATED: 4}.get(photometric, 1)
    pixels = layers[..., 0] if colours == 1 else layers[..., :3]
    black = layers[..., 3] if colours == 4 else None
    if photometric == _WHITE_IS_ZERO:
        pixels = _complement(pixels)
    if colours == 4:
        assert black is not None
        pixels, black = _complement(pixels), np.ascontiguousarray(_complement(black))
    alpha, kind = _alpha(layers[..., colours:], page)
    if kind == _PREMULTIPLIED and alpha is not None:
        pixels = _divide(pixels, alpha)
        warnings.append("premultiplied transparency is written straight")
    left_out = layers.shape[2] - colours - (alpha is not None)
    if left_out:
        warnings.append("extra channels of unspecified meaning were left out")
    return Frame(np.ascontiguousarray(pixels), alpha, black, bits, warnings=tuple(warnings))


def _check_segments(page: Any) -> None:  # noqa: ANN401
    """Refuse strips and tiles that lie outside the file, which tifffile would fill in."""
    size = page.parent.filehandle.size
    offsets, counts = page.dataoffsets, page.databytecounts
    if not offsets or len(offsets) != len(counts):
        raise ValueError("pixels are missing")
    if any(start <= 0 or count <= 0 or start + count > size for start, count in zip(offsets, counts, strict=True)):
        raise ValueError("pixels are missing")
    if len(offsets) != int(np.prod(page.chunked)):
        raise ValueError("pixels are missing")


def _complement(samples: Samples) -> Samples:
    return 1 - samples if samples.dtype == np.float32 else ~samples


def _alpha(extra: Samples, page: Any) -> tuple[Samples | None, int]:  # noqa: ANN401
    """Return the first of the extra samples that is transparency, and its kind."""
    kinds = [int(kind) for kind in page.extrasamples][: extra.shape[2]]
    index = next((index for index, kind in enumerate(kinds) if kind in (_PREMULTIPLIED, _STRAIGHT)), None)
    if index is None:
        return None, _UNSPECIFIED
    return np.ascontiguousarray(extra[..., index]), kinds[index]


def _divide(pixels: Samples, alpha: Samples) -> Samples:
    """Divide premultiplied pixels by their alpha."""
    cover = alpha[(...,) + (None,) * (pixels.ndim - 2)]
    if pixels.dtype == np.float32:
        with np.errstate(over="ignore"):  # What is infinite is refused, wherever it comes from.
            divided: Samples = np.divide(pixels, cover, out=np.zeros_like(pixels), where=cover > 0)
        return divided
    largest = np.uint64(np.iinfo(pixels.dtype).max)
    wide = pixels.astype(np.uint64) * largest + (cover // 2)
    straight = np.where(cover > 0, wide // np.maximum(cover, 1), 0)
    return np.minimum(straight, largest).astype(pixels.dtype)


def _read_exif(tiff: Opened, page: Any, stream: IO[bytes]) -> tuple[bytes | None, bool]:  # noqa: ANN401
    """Return the describing tags as an EXIF block, and whether they were malformed."""
    exif = Image.Exif()
    exif.endian, exif.bigtiff = tiff.byteorder, tiff.is_bigtiff
    try:
        exif.load_from_fp(stream, page.offset)
        return exif_block.describe(exif), False
    except exif_block.MALFORMED:
        return None, True


def _bytes(value: Any) -> bytes | None:  # noqa: ANN401
    if value is None:
        return None
    if isinstance(value, bytes):
        return value or None
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape") or None
    try:
        return np.asarray(value).tobytes() or None
    except (TypeError, ValueError):
        return None


def _photoshop_resources(block: bytes) -> dict[int, bytes]:
    """Return the contents of Photoshop's image resources by their codes."""
    found: dict[int, bytes] = {}
    position = 0
    while position + 12 <= len(block) and block[position : position + 4] == b"8BIM":
        code = int.from_bytes(block[position + 4 : position + 6])
        name = block[position + 6] + 1
        position += 6 + name + name % 2
        length = int.from_bytes(block[position : position + 4])
        found.setdefault(code, block[position + 4 : position + 4 + length])
        position += 4 + length + length % 2
    return found


def _resolution(tags: Any, orientation: int) -> tuple[tuple[float, float] | None, bool]:  # noqa: ANN401
    """Return dots per inch along the upright page, if the file gives them sensibly; and whether it gives others."""
    try:
        x, y = (
            numerator / denominator for numerator, denominator in (tags[_X_RESOLUTION].value, tags[_Y_RESOLUTION].value)
        )
        unit = int(tags.valueof(_RESOLUTION_UNIT, 2))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None, False
    # Programs that know of no resolution write 0, or 1 of no unit.
    if not (x and y) or (x == y == 1 and unit not in _INCHES):
        return None, False
    x, y = (value * _INCHES.get(unit, 0) for value in (x, y))
    if not (1 <= x <= MAX_DPI and 1 <= y <= MAX_DPI):
        return None, True
    return ((y, x) if orientation >= 5 else (x, y)), False


def _kept_tags(tags: Any) -> Iterator[tuple[int, int, int, Any]]:  # noqa: ANN401
    for tag in tags:
        if tag.code in _STORAGE or (50706 <= tag.code <= 51125 and tag.code not in (50838, 50839)):
            continue
        try:
            code, kind, count, value, *_ = tag.astuple()
            value = _unpacked(kind, count, value, tag.parent.tiff.byteorder)
        except Exception:  # noqa: BLE001, S112 - whatever a damaged tag makes tifffile raise costs that tag alone
            continue
        yield code, kind, count, value


def off_the_map(frame: Frame) -> Frame:
    """Drop, with a warning, the tags that would tie other pixels than those they were written for to a map."""
    tags = tuple(tag for tag in frame.tags if tag[0] not in _GEOMETRY_TAGS)
    if len(tags) == len(frame.tags):
        return frame
    warning = "the tags that place the picture on a map were dropped: its pixels are others"
    return replace(frame, tags=tags, warnings=(*frame.warnings, warning))


def _unpacked(kind: int, count: int, value: bytes, order: str) -> bytes | tuple[Any, ...]:
    """Return the value of a tag as numbers: the file that it goes into has a byte order of its own."""
    import tifffile

    if kind in _BYTES:
        return value
    layout = tifffile.TIFF.DATA_FORMATS[kind]  # Such as "2I" for a rational.
    return struct.unpack(f"{order}{count * int(layout[0])}{layout[1]}", value)


def write_pages(file: IO[bytes], frames: Iterator[Frame], *, count: int) -> None:
    """Write frames as the pages of a TIFF, compressed without loss: as they were, or by Deflate with a predictor.

    Parameters
    ----------
    file
        Empty, open for reading and writing.
    frames
        The pages.
    count
        How many pages to expect; decides on BigTIFF with the size of the first.
    """
    import tifffile

    directories: list[dict[int, dict[int, Any]]] = []
    writer = None
    try:
        for frame in frames:
            if writer is None:
                writer = tifffile.TiffWriter(file, bigtiff=frame.nbytes * count > _BIG, byteorder="<")
            directories.append(_directories(frame.exif))
            writer.write(**_page_options(frame, directories[-1]))
    finally:
        if writer is not None:
            writer.close()
    if any(directories):
        _append_directories(file, directories)


def _page_options(frame: Frame, directories: Iterable[int]) -> dict[str, Any]:
    layers = [frame.pixels]
    photometric = "minisblack" if frame.pixels.ndim == 2 else "rgb"
    if frame.black is not None:
        photometric = "separated"
        layers = [_complement(frame.pixels), _complement(frame.black)]
    if frame.alpha is not None:
        layers.append(frame.alpha)
    data = layers[0] if len(layers) == 1 else np.dstack(layers)
    compression = _WRITTEN_COMPRESSION.get(frame.compression or 8, "zlib")
    tags = {code: (code, kind, count, value, True) for code, kind, count, value in _all_tags(frame)}
    # tifffile keeps the pointers to EXIF to itself; these stand in for them, and are turned into them later.
    tags |= {code - 1: (code - 1, 4, 1, 0, True) for code in directories}
    dtype = data.dtype
    return {
        "data": data,
        "photometric": photometric,
        "extrasamples": None if frame.alpha is None else ["unassalpha"],
        "planarconfig": "contig" if data.ndim == 3 else None,
        "compression": compression,
        "predictor": compression is not None and dtype.kind in "uf",
        "resolution": frame.dpi,
        "resolutionunit": "inch" if frame.dpi else None,
        "iccprofile": frame.icc,
        "metadata": None,
        "software": False,
        "extratags": [tags[code] for code in sorted(tags)],
    }


def _all_tags(frame: Frame) -> Iterator[tuple[int, int, int, Any]]:
    """Yield the tags of a page: those that it had as a TIFF, or those that its EXIF block describes it with."""
    own = {tag[0] for tag in frame.tags}
    for code, kind, count, value in frame.tags:
        if code != _DESCRIPTION or not isinstance(value, bytes):
            yield code, kind, count, value
        elif description := _without_other_shape(value, frame):
            yield code, kind, len(description), description
    if frame.xmp:
        yield _XMP, 1, len(frame.xmp), frame.xmp
    if frame.iptc:
        yield _IPTC, 7, len(frame.iptc), frame.iptc
    tags = load_exif(frame.exif) if frame.exif else None
    for code, value in (tags or {}).items():
        if code in own or code in (_EXIF, _GPS, _XMP, _IPTC):
            continue
        if (described := _describe(code, value)) is not None:
            yield described


def _without_other_shape(description: bytes, frame: Frame) -> bytes | None:
    """Take the shape of a series of pages, which tifffile notes, out of a description if the page has another."""
    noted = _SHAPE.match(description)
    if not noted or b"%d, %d" % frame.pixels.shape[:2] in noted[1]:
        return description
    rest = b"{" + description[noted.end() :]
    return None if rest == b"{}\0" else rest


def _describe(code: int, value: Any) -> tuple[int, int, int, Any] | None:  # noqa: ANN401
    """Return a tag of an EXIF block as tifffile takes it, or None for a kind that is left out."""
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape") + b"\0"
        return code, 2, len(data), data
    if isinstance(value, bytes):
        return (code, 7, len(value), value) if value else None
    if isinstance(value, int) and 0 <= value < 2**32:
        return code, 3 if value < 2**16 else 4, 1, value
    return None


def load_exif(block: bytes) -> Image.Exif | None:
    """Return the tags of an EXIF block that a TIFF can take, or None if they are malformed."""
    tags = Image.Exif()
    try:
        tags.load(block)
        described = exif_block.describe(tags) or b""
    except exif_block.MALFORMED:
        return None
    tags.load(described)
    return tags


def _directories(exif: bytes | None) -> dict[int, dict[int, Any]]:
    """Return the EXIF and GPS directories of a block that can be written."""
    tags = load_exif(exif) if exif else None
    if tags is None:
        return {}
    found = {code: dict(tags.get_ifd(code)) for code in (_EXIF, _GPS)}
    # The pointer says where the directory was in the block; Pillow writes the directory itself behind a new one.
    if found[_EXIF].pop(_INTEROPERABILITY, None) and (inner := tags.get_ifd(_INTEROPERABILITY)):
        found[_EXIF][_INTEROPERABILITY] = dict(inner)
    return {code: values for code, values in found.items() if values and _serialise(values, code, 0, big=False)}


def _append_directories(file: IO[bytes], directories: list[dict[int, dict[int, Any]]]) -> None:
    """Write the EXIF and GPS directories of every page at the end of the file, and point to them."""
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        big = tiff.is_bigtiff
        places = [
            (code, page.aspage().tags[code - 1].offset, values)
            for page, found in zip(tiff.pages, directories, strict=True)
            for code, values in found.items()
        ]
    for code, entry, values in places:
        end = file.seek(0, 2)
        position = end + end % 2
        data = _serialise(values, code, position, big=big)
        assert data
        file.seek(position)
        file.write(data)
        file.seek(entry)
        file.write(code.to_bytes(2, "little"))
        file.seek(entry + (12 if big else 8))
        file.write(position.to_bytes(8 if big else 4, "little"))


def _serialise(tags: dict[int, Any], code: int, position: int, *, big: bool) -> bytes | None:
    """Return a directory with its values as it stands at a position of the file; None if Pillow cannot write it."""
    directory = ImageFileDirectory_v2(b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4), group=code)
    try:
        for tag, value in tags.items():
            directory[tag] = value
        return directory.tobytes(position)
    except exif_block.MALFORMED:
        return None
