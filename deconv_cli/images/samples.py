"""Between the integers of a file and the 0..1 that the network works on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_float(image: NDArray[Any]) -> NDArray[np.float32]:
    """Scale integers (uint8 or uint16, any shape) to 0..1, float32; float32 passes as it is.

    >>> to_float(np.array([0, 51, 255], np.uint8)).tolist() == np.array([0, 0.2, 1], np.float32).tolist()
    True
    """
    if image.dtype == np.float32:
        return image
    scaled: NDArray[np.float32] = image.astype(np.float32)
    scaled /= np.float32(np.iinfo(image.dtype).max)
    return scaled


def from_float(image: NDArray[np.float32], dtype: np.dtype[Any] | type[np.generic]) -> NDArray[Any]:
    """Scale 0..1 back to an integer dtype, clipped and rounded; to float32 it passes as it is.

    >>> from_float(np.array([-1, 0.5, 2], np.float32), np.uint8)
    array([  0, 128, 255], dtype=uint8)
    """
    if dtype == np.float32:
        return image
    # In place: new memory takes longer than the arithmetic.
    scaled = np.clip(image, 0, 1)
    scaled *= np.float32(np.iinfo(dtype).max)
    rounded: NDArray[Any] = np.rint(scaled, out=scaled).astype(dtype)
    return rounded


def excess(pixels: NDArray[Any]) -> float:
    """Return what to divide float samples by that lie far beyond 0..1, as of measurements: a power of two, or 1.

    To divide by that and to multiply again loses nothing.

    >>> excess(np.array([0, 200], np.float32)), excess(np.array([0, 1.5], np.float32))
    (256.0, 1.0)
    """
    largest = float(pixels.max(initial=0)) if pixels.dtype == np.float32 else 1.0
    # 2**128 is beyond float32.
    return 2.0 ** min(127, math.ceil(math.log2(largest))) if 2 < largest < math.inf else 1.0


def is_gray(pixels: NDArray[Any]) -> bool:
    """Tell whether a picture, H x W or H x W x 3, has no colour: one channel, or three equal ones.

    >>> is_gray(np.full((4, 4, 3), 7)), is_gray(np.arange(48).reshape(4, 4, 3))
    (True, False)
    """
    # The first row tells of most pictures.
    return pixels.ndim == 2 or all(bool((part[..., 1:] == part[..., :1]).all()) for part in (pixels[:1], pixels))


def widen(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    """Stretch integers of so many bits (1 to 15) to all of uint8 or uint16, whichever they came in.

    >>> widen(np.array([0, 512, 1023], np.uint16), 10)
    array([    0, 32800, 65535], dtype=uint16)
    """
    largest = int(np.iinfo(samples.dtype).max)
    return _rescaled(samples, (1 << bits) - 1, largest)


def narrow(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    """Round uint16 to so many bits, which undoes `widen`.

    >>> narrow(np.array([0, 32800, 65535], np.uint16), 10)
    array([   0,  512, 1023], dtype=uint16)
    """
    return _rescaled(samples, int(np.iinfo(samples.dtype).max), (1 << bits) - 1)


def _rescaled(samples: NDArray[Any], largest: int, wanted: int) -> NDArray[Any]:
    """Map 0..largest to 0..wanted, rounded, some rows at a time."""
    out = np.empty_like(samples)
    rows = max(1, (1 << 24) // max(1, samples[:1].size))
    for top in range(0, len(samples), rows):
        part = samples[top : top + rows].astype(np.uint32)
        out[top : top + rows] = np.minimum((part * wanted + largest // 2) // largest, wanted)
    return out
