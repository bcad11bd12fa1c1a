"""Between the integers of a file and the 0..1 that the network works on."""

from __future__ import annotations

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
    scaled: NDArray[np.float32] = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return scaled


def from_float(image: NDArray[np.float32], dtype: np.dtype[Any] | type[np.generic]) -> NDArray[Any]:
    """Scale 0..1 back to an integer dtype, clipped and rounded; to float32 it passes as it is.

    >>> from_float(np.array([-1, 0.5, 2], np.float32), np.uint8)
    array([  0, 128, 255], dtype=uint8)
    """
    if dtype == np.float32:
        return image
    largest = np.iinfo(dtype).max
    rounded: NDArray[Any] = np.rint(np.clip(image, 0, 1) * np.float32(largest)).astype(dtype)
    return rounded
