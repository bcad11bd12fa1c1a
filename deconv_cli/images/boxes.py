"""The boxes of ISO media files (JPEG 2000, JPEG XL, AVIF, HEIF): finding metadata in them, and putting it there."""

from __future__ import annotations

import struct
from collections.abc import Iterator

JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
J2K_SIGNATURE = b"\xff\x4f\xff\x51"
JXL_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
JXL_CODESTREAM = b"\xff\x0a"

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF_UUID = b"JpgTiffExif->JP2"
_CONTAINERS = {b"jp2h", b"iprp", b"ipco"}
_DEEPEST = 8


def boxes(data: bytes, start: int = 0, end: int | None = None, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the contents of every box, also of those inside containers."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        length, name = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1 and start + 16 <= end:
            (length,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        stop = end if length == 0 else start + length
        if stop > end or stop < start + head:
            return
        yield name, start + head, stop
        if name == b"meta" and depth < _DEEPEST:
            yield from boxes(data, start + head + 4, stop, depth + 1)
        elif name in _CONTAINERS and depth < _DEEPEST:
            yield from boxes(data, start + head, stop, depth + 1)
        start = stop


def make_box(name: bytes, content: bytes) -> bytes:
    """Return a box."""
    if len(content) + 8 < 2**32:
        return struct.pack(">I4s", len(content) + 8, name) + content
    return struct.pack(">I4sQ", 1, name, len(content) + 16) + content


def depth_of(data: bytes) -> int:
    """Return the most bits a sample that the header of an AVIF or HEIF says; 8 if it says nothing."""
    depth = 8
    for name, start, stop in boxes(data):
        if name == b"pixi" and stop - start > 5:
            depth = max(depth, *data[start + 5 : stop])
        elif name == b"av1C" and stop - start > 2:
            high, twelve = data[start + 2] & 0x40, data[start + 2] & 0x20
            depth = max(depth, 12 if high and twelve else 10 if high else 8)
    return depth


def read_metadata(data: bytes) -> dict[str, bytes]:
    """Return the ICC profile, EXIF block and XMP packet that a JP2 or JXL file holds, as ``icc``, ``exif``, ``xmp``."""
    found: dict[str, bytes] = {}
    for name, start, stop in boxes(data):
        if name == b"colr" and data[start : start + 1] == b"\x02":
            found.setdefault("icc", data[start + 3 : stop])
        elif name == b"uuid" and data[start : start + 16] == _XMP_UUID:
            found.setdefault("xmp", data[start + 16 : stop])
        elif name == b"uuid" and data[start : start + 16] == _EXIF_UUID:
            found.setdefault("exif", data[start + 16 : stop])
        elif name == b"Exif" and stop - start > 4:
            # Four bytes say where the TIFF header starts behind them.
            offset = start + 4 + int.from_bytes(data[start : start + 4])
            found.setdefault("exif", data[offset:stop])
        elif name == b"xml ":
            found.setdefault("xmp", data[start:stop])
    return found


def jxl_size(data: bytes) -> tuple[int, int]:
    """Return width and height that a JPEG XL file says (ISO/IEC 18181-1, annex D.2, SizeHeader).

    Raises
    ------
    ValueError
        If there is no codestream.
    """
    if data.startswith(JXL_CODESTREAM):
        start = 2
    else:
        # jxlp boxes, the codestream in parts, begin with four bytes that count them.
        starts = (first + 4 * (name == b"jxlp") for name, first, _ in boxes(data) if name in (b"jxlc", b"jxlp"))
        start = next(starts, len(data)) + 2
    bits = int.from_bytes(data[start : start + 12], "little")
    if start >= len(data):
        raise ValueError("no codestream")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    def side(small: int) -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height = side(small)
    ratio = take(3)
    if not ratio:
        return side(small), height
    numerator, denominator = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * numerator // denominator, height


def jp2_with_metadata(data: bytes, *, icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> bytes:
    """Put metadata into a JP2 file; the ICC profile replaces the colour specification."""
    parts: list[bytes] = []
    position = 0
    for name, start, stop in boxes(data):
        if name == b"jp2h" and icc is not None:
            inner = b"".join(
                make_box(b"colr", b"\x02\0\0" + icc) if child == b"colr" else make_box(child, data[first:last])
                for child, first, last in boxes(data, start, stop)
            )
            parts += [data[position : start - 8], make_box(b"jp2h", inner)]
            position = stop
    parts.append(data[position:])
    if xmp:
        parts.append(make_box(b"uuid", _XMP_UUID + xmp))
    if exif:
        parts.append(make_box(b"uuid", _EXIF_UUID + exif.removeprefix(b"Exif\0\0")))
    return b"".join(parts)


def jxl_with_metadata(data: bytes, *, exif: bytes | None, xmp: bytes | None) -> bytes:
    """Put metadata into a JPEG XL file, made a container if it is a bare codestream."""
    if data.startswith(JXL_CODESTREAM):
        data = JXL_SIGNATURE + make_box(b"ftyp", b"jxl \0\0\0\0jxl ") + make_box(b"jxlc", data)
    if exif:
        data += make_box(b"Exif", b"\0\0\0\0" + exif.removeprefix(b"Exif\0\0"))
    if xmp:
        data += make_box(b"xml ", xmp)
    return data
