"""EXIF and XMP made to fit pixels that have been turned upright, cut or enlarged.

EXIF blocks are edited in place, not parsed and written anew: makers' notes hold offsets into the block that
only their makers can correct.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from PIL import Image

PREFIX = b"Exif\0\0"

MALFORMED = (
    struct.error,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
)
"""What Pillow is known to raise on EXIF that does not keep to the standard."""

_ORIENTATION, _THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 0x0112, 0x0201, 0x0202
_EXIF_DIRECTORY, _SIDES = 0x8769, (0xA002, 0xA003)
RESOLUTIONS = (282, 283)
_LONG, _RATIONAL = 4, 5
_INTEGER_CODES = {1: "B", 3: "H", 4: "I"}

# Of the tags that TIFF 6.0 itself defines these describe the picture; the others say how samples are stored.
_LAST_TIFF_TAG = 532
DESCRIPTIVE = {269, 270, 271, 272, 285, 305, 306, 315, 316}
# XMP and ICC travel on their own; Photoshop's block holds previews of the old pixels.
_ELSEWHERE = {700, 34377, 34675}

_XMP_EXTENSION = re.compile(
    rb"""\s*(?:\bxmpNote:HasExtendedXMP\s*=\s*(?:"[^"]*"|'[^']*')|<xmpNote:HasExtendedXMP>.*?</xmpNote:HasExtendedXMP>)"""
)
_XMP_FILM = re.compile(rb"""(:(?:MotionPhoto|MicroVideo)(?:\s*=\s*["']|>)\s*)1""")
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))([1-8])""")
_XMP_SIDES = tuple(
    re.compile(rb"""((?:%s)(?:\s*=\s*["']|>)\s*)\d+""" % names)
    for names in (b"tiff:ImageWidth|exif:PixelXDimension", b"tiff:ImageLength|exif:PixelYDimension")
)

_XMP_RESOLUTION = re.compile(rb"""(tiff:[XY]Resolution(?:\s*=\s*["']|>)\s*)(\d+)""")


def make_upright(exif: bytes) -> tuple[bytes, int | None]:
    """Set the orientation of an EXIF block to 1 and take its thumbnail out.

    Returns
    -------
    tuple[bytes, int | None]
        The block, with prefix, and the orientation it had, if it had one.

    Raises
    ------
    ValueError, struct.error
        If the block is malformed.
    """
    block = bytearray(re.sub(b"^(Exif\0\0)+", b"", exif))
    if not block.startswith((b"II*\0", b"MM\0*")):
        raise ValueError("not an EXIF block")
    order = "<" if block.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", block, 4)
    orientation = None
    for tag, code, position in _integers(block, directory, order):
        if tag == _ORIENTATION:
            (orientation,) = struct.unpack_from(code, block, position)
            struct.pack_into(code, block, position, 1)
    _cut_thumbnail(block, directory, order)
    return PREFIX + bytes(block), orientation


def make_xmp_upright(xmp: bytes) -> tuple[bytes, int | None]:
    """Set the orientation in an XMP packet to 1; return the packet and the orientation it had, if any."""
    found = _XMP_ORIENTATION.search(xmp)
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp), int(found[2]) if found else None


def xmp_with_size(xmp: bytes, width: int, height: int) -> bytes:
    """Set width and height in an XMP packet where it has them."""
    for side, tags in zip((width, height), _XMP_SIDES, strict=True):
        xmp = tags.sub(rb"\g<1>%d" % side, xmp)
    return xmp


def without_extension(xmp: bytes) -> bytes:
    """Take the reference to a second part, which JPEGs can have, out of an XMP packet."""
    return _XMP_EXTENSION.sub(b"", xmp)


def without_film(xmp: bytes) -> bytes:
    """Take the claim that a film follows the picture out of an XMP packet."""
    return _XMP_FILM.sub(rb"\g<1>0", xmp)


def with_size(exif: bytes, width: int, height: int) -> bytes:
    """Set width and height in an EXIF block where it has them; a malformed block is returned as it is."""
    block = bytearray(exif.removeprefix(PREFIX))
    order = "<" if block.startswith(b"II") else ">"
    sides = dict(zip(_SIDES, (width, height), strict=True))
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        outer = [entry for entry in _integers(block, first, order) if entry[0] == _EXIF_DIRECTORY]
        directories = [struct.unpack_from(code, block, position)[0] for _, code, position in outer]
        found = [entry for directory in directories for entry in _integers(block, directory, order)]
        for tag, code, position in found:
            if tag in sides and struct.unpack_from(code, block, position)[0] != sides[tag]:
                struct.pack_into(order + "HII", block, position - 6, _LONG, 1, sides[tag])
    except struct.error:
        return exif
    return PREFIX + bytes(block)


def with_finer_dots(exif: bytes, scale: int) -> bytes:
    """Multiply the resolution that an EXIF block tells; a malformed block is returned as it is."""
    block = bytearray(exif.removeprefix(PREFIX))
    order = "<" if block.startswith(b"II") else ">"
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        places = {
            struct.unpack_from(order + "I", block, position)[0]  # Some writers have one number for both.
            for tag, kind, length, position in _entries(block, first, order)
            if tag in RESOLUTIONS and kind == _RATIONAL and length == 1
        }
        for place in places:
            (numerator,) = struct.unpack_from(order + "I", block, place)
            struct.pack_into(order + "I", block, place, numerator * scale)
    except struct.error:
        return exif
    return PREFIX + bytes(block)


def xmp_with_finer_dots(xmp: bytes, scale: int) -> bytes:
    """Multiply the resolution that an XMP packet tells."""
    return _XMP_RESOLUTION.sub(lambda found: b"%s%d" % (found[1], int(found[2]) * scale), xmp)


def describe(tags: Image.Exif) -> bytes | None:
    """Serialise the tags that describe the picture, without those that say how a TIFF stores it.

    Returns
    -------
    bytes | None
        An EXIF block with prefix, or None if no tag is left.

    Raises
    ------
    Exception
        One of `MALFORMED`.
    """
    for tag in list(tags):
        if tag in _ELSEWHERE or (tag <= _LAST_TIFF_TAG and tag not in DESCRIPTIVE):
            del tags[tag]
    tags.bigtiff = False
    return tags.tobytes() if len(tags) else None


def _integers(block: bytearray, directory: int, order: str) -> Iterator[tuple[int, str, int]]:
    """Yield tag, struct code and position of the directory's single integers."""
    for tag, kind, length, position in _entries(block, directory, order):
        if length == 1 and kind in _INTEGER_CODES:
            yield tag, order + _INTEGER_CODES[kind], position


def _entries(block: bytearray, directory: int, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, count, and position of the value or of its offset."""
    (count,) = struct.unpack_from(order + "H", block, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        yield *struct.unpack_from(order + "HHI", block, entry), entry + 8


def _cut_thumbnail(block: bytearray, directory: int, order: str) -> None:
    """Unlink the second directory, which holds the thumbnail, and cut the thumbnail off if it comes last."""
    (count,) = struct.unpack_from(order + "H", block, directory)
    link = directory + 2 + 12 * count
    if link + 4 > len(block):
        return  # Some writers leave the link out where there is nothing to link to.
    (thumbnail,) = struct.unpack_from(order + "I", block, link)
    if not thumbnail:
        return
    struct.pack_into(order + "I", block, link, 0)
    try:
        integers = list(_integers(block, thumbnail, order))
    except struct.error:
        return
    found = {tag: struct.unpack_from(code, block, position)[0] for tag, code, position in integers}
    start = found.get(_THUMBNAIL_OFFSET, 0)
    if start > thumbnail > directory and start + found.get(_THUMBNAIL_LENGTH, 0) >= len(block.rstrip(b"\0")):
        del block[start:]
