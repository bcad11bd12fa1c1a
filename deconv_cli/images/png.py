"""The chunks of a PNG file: what Pillow does not read, and samples of 16 bits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from deconv_cli.images.frame import Samples

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = 33
"""Where the second chunk starts."""

XMP_KEYWORD = b"XML:com.adobe.xmp"
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_OF_SRGB = {
    b"gAMA": (45455,),
    b"cHRM": (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
}
"""What the chunks that define the colours hold where these are sRGB's, in 1/100000; writers round them otherwise."""
_ROUNDING = 50
_CICP_OF_SRGB = bytes((1, 13, 0, 1))
_IPTC_PROFILE = b"Raw profile type iptc"
_READ_ELSEWHERE = (XMP_KEYWORD, _IPTC_PROFILE, b"Raw profile type exif")


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and data of every chunk but those of the pixels, as far as the file is whole."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            return
        if name not in (b"IDAT", b"fdAT"):
            yield name, bytes(data[position + 8 : position + 8 + length])
        position += 12 + length


def find_end(data: bytes) -> int | None:
    """Return where the last chunk ends, behind which decoders do not look; None if there is no last chunk."""
    position, name = len(SIGNATURE), b""
    while position + 12 <= len(data) and name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, position)
        position += 12 + length
    return position if name == b"IEND" else None


def kept_chunks(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the chunks that hold text, time or the meaning of the colours, without those that are read otherwise."""
    return tuple(
        (name, content)
        for name, content in chunks(data)
        if name in (*_COLOUR, b"tIME") or (name in _TEXT and not content.startswith(_READ_ELSEWHERE))
    )


def is_text(chunk: tuple[bytes, bytes]) -> bool:
    """Tell whether a chunk holds text."""
    return chunk[0] in _TEXT


def yields_to_profile(chunk: tuple[bytes, bytes]) -> bool:
    """Tell whether a chunk says what a profile says better."""
    return chunk[0] in (b"gAMA", b"cHRM", b"sRGB")


def define_other_colours(chunks: Iterable[tuple[bytes, bytes]], *, has_profile: bool) -> bool:
    """Tell whether chunks say that the colours are not sRGB's: cICP first, then a profile or sRGB, then the others."""
    found = dict(chunks)
    if b"cICP" in found:
        return found[b"cICP"] != _CICP_OF_SRGB
    if has_profile or b"sRGB" in found:
        return False
    return any(not _is_about(found[name], usual) for name, usual in _OF_SRGB.items() if name in found)


def _is_about(content: bytes, usual: tuple[int, ...]) -> bool:
    if len(content) != 4 * len(usual):
        return False
    values = struct.unpack(f">{len(usual)}I", content)
    return all(abs(value - other) <= _ROUNDING for value, other in zip(values, usual, strict=True))


def make_chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk with length and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def text_chunk(keyword: str, text: str) -> tuple[bytes, bytes]:
    """Return a text chunk in UTF-8 (iTXt, uncompressed)."""
    return b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()


def xmp_chunk(xmp: bytes) -> tuple[bytes, bytes]:
    """Return the chunk that an XMP packet is stored in."""
    return b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + xmp


def iptc_chunk(iptc: bytes) -> tuple[bytes, bytes]:
    """Return IPTC records as ImageMagick and exiftool store them in a PNG: as hexadecimal text."""
    digits = iptc.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    text = f"\niptc\n{len(iptc):8d}\n{lines}\n"
    return b"zTXt", _IPTC_PROFILE + b"\0\0" + zlib.compress(text.encode())


def decode_profile(text: str) -> bytes:
    """Turn the text of a ``Raw profile type`` chunk (name, length, hexadecimal digits) into bytes.

    Raises
    ------
    ValueError
        If it is not of that form.
    """
    return bytes.fromhex("".join(text.split("\n")[3:]))


def physical_chunk(dpi: tuple[float, float]) -> tuple[bytes, bytes]:
    """Return the chunk for a resolution."""
    per_metre = (min(round(value / 0.0254), 2**31 - 1) for value in dpi)
    return b"pHYs", struct.pack(">IIB", *per_metre, 1)


def profile_chunk(icc: bytes) -> tuple[bytes, bytes]:
    """Return the chunk for an ICC profile."""
    return b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)


def with_chunks(encoded: bytes, extra: Iterable[tuple[bytes, bytes]]) -> list[bytes | memoryview]:
    """Return an encoded PNG in parts, with chunks put in behind the header."""
    added = b"".join(make_chunk(name, content) for name, content in extra)
    view = memoryview(encoded)
    return [view[:HEADER_END], added, view[HEADER_END:]]


def decode_deep(data: bytes) -> tuple[Samples, Samples | None]:
    """Decode a PNG of 16 bits a sample.

    Returns
    -------
    tuple[Samples, Samples | None]
        Pixels (H x W or H x W x 3) and alpha (H x W), uint16.

    Raises
    ------
    Exception
        If the file is damaged.
    """
    import imagecodecs

    samples = imagecodecs.png_decode(data)
    if samples.dtype != np.uint16:
        raise ValueError(f"decoded as {samples.dtype}")
    layers = samples[..., None] if samples.ndim == 2 else samples
    count = layers.shape[2]
    alpha = np.ascontiguousarray(layers[..., -1]) if count in (2, 4) else None
    pixels = layers[..., 0] if count <= 2 else layers[..., :3]
    return np.ascontiguousarray(pixels), alpha
