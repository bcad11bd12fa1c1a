"""The boxes of ISO media files (JPEG 2000, JPEG XL, AVIF, HEIF): finding metadata in them, and putting it there."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
J2K_SIGNATURE = b"\xff\x4f\xff\x51"
JXL_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
JXL_CODESTREAM = b"\xff\x0a"

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF_UUID = b"JpgTiffExif->JP2"
_CONTAINERS = {b"jp2h", b"res ", b"iprp", b"ipco"}
_CMYK = (12).to_bytes(4)
"""The number that JP2 has for these colours."""
_DEEPEST = 8
_LONGEST = 1 << 24
"""Bytes that metadata may have decompressed."""


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
    """Return the metadata that a JP2 or JXL file holds.

    Returns
    -------
    dict[str, bytes]
        What there is of ``icc`` (profile), ``exif`` (block), ``xmp`` (packet), ``xml`` (of another kind) and
        ``resolution`` (contents of the box with the capture resolution).
    """
    found: dict[str, bytes] = {}
    for name, start, stop in boxes(data):
        if name == b"colr" and data[start : start + 1] == b"\x02":
            found.setdefault("icc", data[start + 3 : stop])
        elif name == b"uuid" and data[start : start + 16] == _XMP_UUID:
            found.setdefault("xmp", data[start + 16 : stop])
        elif name == b"uuid" and data[start : start + 16] == _EXIF_UUID:
            found.setdefault("exif", data[start + 16 : stop])
        elif name == b"resc":
            found.setdefault("resolution", data[start:stop])
        elif name == b"brob":
            _add_exif_or_xmp(found, data[start : start + 4], _decompressed(data[start + 4 : stop]))
        else:
            _add_exif_or_xmp(found, name, data[start:stop])
    return found


def is_cmyk(data: bytes) -> bool:
    """Tell whether a JP2 file says that its colours are CMYK, by their number or by a profile."""
    colours = [data[start:stop] for name, start, stop in boxes(data) if name == b"colr"]
    return any(box[3:7] == _CMYK if box[:1] == b"\x01" else box[19:23] == b"CMYK" for box in colours)


def dots_per_inch(box: bytes) -> tuple[float, float] | None:
    """Return horizontal and vertical resolution of a ``resc`` box, which counts by metres, if they make sense."""
    try:
        y, y_divisor, x, x_divisor, y_exponent, x_exponent = struct.unpack_from(">4H2b", box)
        found = 0.0254 * x / x_divisor * 10.0**x_exponent, 0.0254 * y / y_divisor * 10.0**y_exponent
    except (struct.error, ZeroDivisionError):
        return None
    return found if all(1 <= side <= 65535 for side in found) else None


def _add_exif_or_xmp(found: dict[str, bytes], name: bytes, content: bytes) -> None:
    if name == b"Exif" and len(content) > 4:
        # Four bytes say where the TIFF header starts behind them; some programs leave them out.
        start = 0 if content.startswith((b"II*\0", b"MM\0*")) else 4 + int.from_bytes(content[:4])
        found.setdefault("exif", content[start:])
    elif name == b"xml ":
        # The box is for XML of any kind, such as METS.
        is_xmp = content.startswith(b"<?xpacket") or b"x:xmpmeta" in content
        found.setdefault("xmp" if is_xmp else "xml", content)


def _decompressed(content: bytes) -> bytes:
    """Return what a ``brob`` box of JPEG XL holds; nothing if it is damaged or enormous."""
    import imagecodecs

    try:
        return bytes(imagecodecs.brotli_decode(content, out=_LONGEST))
    except imagecodecs.BrotliError:
        return b""


class JxlHeader(NamedTuple):
    """What the start of a JPEG XL codestream says: upright size, bits a sample, and whether there are more frames."""

    width: int
    height: int
    bits: int
    animated: bool


class _Bits:
    """Reads a JPEG XL header, lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return value

    def choose(self, *ways: tuple[int, int]) -> int:
        """Read two bits that say how many more to read, and what to add to them."""
        count, base = ways[self.take(2)]
        return base + self.take(count)

    def side(self, *, eighths: bool) -> int:
        return (self.take(5) + 1) * 8 if eighths else self.choose((9, 1), (13, 1), (18, 1), (30, 1))

    def size(self) -> tuple[int, int]:
        eighths = bool(self.take(1))
        height = self.side(eighths=eighths)
        ratio = self.take(3)
        if not ratio:
            return self.side(eighths=eighths), height
        numerator, denominator = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
        return height * numerator // denominator, height


def jxl_codestream(data: bytes) -> bytes:
    """Return the codestream of a JPEG XL file without the boxes around it.

    Raises
    ------
    ValueError
        If there is none.
    """
    if data.startswith(JXL_CODESTREAM):
        return data
    # jxlp boxes, the codestream in parts, begin with four bytes that count them.
    parts = ((first + 4 * (name == b"jxlp"), last) for name, first, last in boxes(data) if name in (b"jxlc", b"jxlp"))
    codestream = b"".join(data[first:last] for first, last in parts)
    if not codestream.startswith(JXL_CODESTREAM):
        raise ValueError("no codestream")
    return codestream


def jxl_header(codestream: bytes) -> JxlHeader:
    """Read the header of a JPEG XL codestream (ISO/IEC 18181-1, annex D: SizeHeader and ImageMetadata).

    Raises
    ------
    ValueError
        If there is a preview in it.
    """
    header = _Bits(codestream[2:50])
    width, height = header.size()
    if header.take(1):
        return JxlHeader(width, height, 8, animated=False)
    animated = False
    if header.take(1):
        if header.take(3) >= 4:
            width, height = height, width
        if header.take(1):
            header.size()  # The size that it is meant to be shown in.
        if header.take(1):
            raise ValueError("a preview inside is not supported")
        animated = bool(header.take(1))
        if animated:
            header.choose((0, 100), (0, 1000), (10, 1), (30, 1))
            header.choose((0, 1), (0, 1001), (8, 1), (10, 1))
            header.choose((0, 0), (3, 0), (16, 0), (32, 0))
            header.take(1)
    if header.take(1):
        return JxlHeader(width, height, header.choose((0, 32), (0, 16), (0, 24), (6, 1)), animated)
    return JxlHeader(width, height, header.choose((0, 8), (0, 10), (0, 12), (6, 1)), animated)


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


def jxl_with_metadata(codestream: bytes, *, exif: bytes | None = None, xmp: bytes | None = None) -> bytes:
    """Put a JPEG XL codestream into a container with metadata."""
    file = JXL_SIGNATURE + make_box(b"ftyp", b"jxl \0\0\0\0jxl ") + make_box(b"jxlc", codestream)
    if exif:
        file += make_box(b"Exif", b"\0\0\0\0" + exif.removeprefix(b"Exif\0\0"))
    if xmp:
        file += make_box(b"xml ", xmp)
    return file
