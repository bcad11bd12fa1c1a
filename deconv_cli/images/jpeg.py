"""What the quantization tables of a JPEG tell about its quality."""

from __future__ import annotations

from collections.abc import Sequence

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
