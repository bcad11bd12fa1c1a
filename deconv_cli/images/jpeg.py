"""What the quantization tables of a JPEG tell about its quality, and whether its samples are whole."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

# ITU-T T.81, table K.1: the luminance table that libjpeg, and so nearly everyone, scales by quality.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()


# Without the 0xFF that may fill up the place before: a pattern that begins by a single byte is found 20 times as fast.
_MARKER = re.compile(rb"\xff([^\0\xff])", re.DOTALL)
_END, _SCAN = 0xD9, 0xDA
_RESTARTS = range(0xD0, 0xD8)
_ARITHMETIC = range(0xC9, 0xD0)
"""Frames of a coding that legally leaves out the zeros at the end of its samples."""
_OTHER_SAMPLES = bytes(range(0x31, 0x51))
"""What no encoder ends with; without 0xFF, which would have to be followed by 0."""


def estimate_quality(luminance: Sequence[int]) -> int:
    """Return the libjpeg quality (1 to 100) whose luminance table is nearest to this one.

    `luminance` is 64 values, row by row. The answer is exact for tables that libjpeg made; for others it is the
    quality of about the same coarseness.

    >>> estimate_quality([1] * 64)
    100
    """
    distance = np.abs(_luminance_tables() - np.asarray(luminance)).sum(axis=1)
    return int(distance.argmin()) + 1


def high_frequency_step(quality: int) -> int:
    """Return by what step libjpeg quantizes high frequencies of the luma: the median of those that tell noise.

    >>> high_frequency_step(90), high_frequency_step(50)
    (20, 100)
    """
    row, column = np.divmod(np.arange(64), 8)
    steps = np.sort(_luminance_tables()[quality - 1][row + column >= 9])
    return int(steps[len(steps) // 2])  # NumPy's median would import masked arrays.


def _luminance_tables() -> NDArray[np.int64]:
    """Return the tables of all qualities from 1 to 100, qualities x 64."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None]
    tables: NDArray[np.int64] = np.clip((_LUMINANCE * scale + 50) // 100, 1, 255)
    return tables


def find_samples(data: bytes) -> list[tuple[int, int]]:
    """Return start and end of the samples of each scan and restart interval of a JPEG file, in order.

    Nothing is returned of a file that has no end, or is not coded by Huffman's method.
    """
    spans: list[tuple[int, int]] = []
    begun: int | None = None
    for code, start, end in _markers(data):
        if begun is not None:
            spans.append((begun, start))
        if code == _END:
            return spans
        if code in _ARITHMETIC:
            return []
        begun = end if code == _SCAN or (begun is not None and code in _RESTARTS) else None
    return []


def find_end(data: bytes) -> int | None:
    """Return where a JPEG file ends, behind which there may be anything; None if it has no end."""
    return next((end for code, _, end in _markers(data) if code == _END), None)


def _markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield code, start and end of each marker with its segment, to the one that ends the picture."""
    code, end = 0, 2
    while code != _END and (marker := _MARKER.search(data, end)):
        start = marker.start()
        while start > end and data[start - 1] == 0xFF:
            start -= 1
        code, end = marker[1][0], marker.end()
        if code != _END and code not in _RESTARTS:
            end += int.from_bytes(data[end : end + 2])
        yield code, start, end


def with_more_samples(data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    """Add samples to each of the spans: a decoder uses them only where it misses some."""
    cuts = (0, *(end for _, end in spans), len(data))
    return _OTHER_SAMPLES.join(data[start:end] for start, end in itertools.pairwise(cuts))


def with_other_end(data: bytes, spans: Sequence[tuple[int, int]]) -> bytes | None:
    """Replace the end of the last span by other samples: a decoder uses them unless it needs none any more.

    Returns
    -------
    bytes | None
        The file, or None if the span is so short that others could mean the same.
    """
    first, end = spans[-1]
    start = end - len(_OTHER_SAMPLES)
    if start < first:
        return None
    stuffed = b"\0" if data[start - 1] == 0xFF else b""
    return data[:start] + stuffed + _OTHER_SAMPLES + data[end:]
