"""Bicubic resampling by whole factors, as MATLAB's imresize does it and the field's papers expect it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped, unused-ignore]

REACH = 2
"""How many pixels of the small picture, to either side, an enlarged pixel depends on."""


def downscale(image: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Shrink a picture: bicubic with a = -0.5, the kernel widened by `scale` against aliasing, borders mirrored.

    Parameters
    ----------
    image
        H x W or H x W x C, float32; H and W are multiples of `scale` (see `crop_to_multiple`).
    scale
        Whole factor.

    Returns
    -------
    ndarray
        H / scale x W / scale (x C), float32, neither clipped nor rounded.

    References
    ----------
    Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions on Acoustics, Speech,
    and Signal Processing 29 (1981); the widening and the borders are those of MATLAB's ``imresize``.

    Examples
    --------
    >>> downscale(np.full((6, 8), 0.5, np.float32), 2).shape
    (3, 4)
    """
    height, width = image.shape[:2]
    return _resample(image, _shrinking(height, scale), _shrinking(width, scale))


def upscale(image: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Enlarge a picture: bicubic with a = -0.5, borders mirrored; a factor of 1 returns it as it is.

    Parameters
    ----------
    image
        H x W or H x W x C, float32.
    scale
        Whole factor.

    Returns
    -------
    ndarray
        H * scale x W * scale (x C), float32, neither clipped nor rounded.
    """
    if scale == 1:
        return image
    height, width = image.shape[:2]
    return _resample(image, enlarging(height, scale), enlarging(width, scale))


def crop_to_multiple(image: NDArray[np.generic], multiple: int) -> NDArray[np.generic]:
    """Cut right and bottom so that both sides are multiples."""
    height, width = (side // multiple * multiple for side in image.shape[:2])
    return image[:height, :width]


def enlarging(size: int, scale: int) -> csr_matrix:
    """Return the ``size * scale`` x ``size`` matrix that enlarges an axis."""
    return _matrix(size, size * scale, float(scale))


def _shrinking(size: int, scale: int) -> csr_matrix:
    return _matrix(size, size // scale, 1 / scale)


@functools.lru_cache(maxsize=64)
def _matrix(size: int, outputs: int, factor: float) -> csr_matrix:
    """Return the sparse `outputs` x `size` matrix of one axis."""
    from scipy.sparse import csr_matrix

    stretch = min(factor, 1.0)
    centre = (np.arange(outputs) + 0.5) / factor - 0.5
    taps = int(np.ceil(2 * REACH / stretch)) + 2
    inputs = np.floor(centre - REACH / stretch).astype(np.int64)[:, None] + np.arange(taps)
    weights = _cubic(stretch * (centre[:, None] - inputs))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = inputs % (2 * size)
    mirrored = np.minimum(mirrored, 2 * size - 1 - mirrored)
    rows = np.repeat(np.arange(outputs), taps)
    matrix = csr_matrix((weights.ravel(), (rows, mirrored.ravel())), shape=(outputs, size))
    matrix.eliminate_zeros()
    return matrix.astype(np.float32)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Keys' kernel with a = -0.5."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x**2 + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0))


def _resample(image: NDArray[np.float32], rows: csr_matrix, columns: csr_matrix) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    across = (rows @ image.reshape(height, -1)).reshape(rows.shape[0], width, -1)
    turned = np.ascontiguousarray(across.swapaxes(0, 1)).reshape(width, -1)
    both = (columns @ turned).reshape(columns.shape[0], rows.shape[0], -1).swapaxes(0, 1)
    resampled: NDArray[np.float32] = np.ascontiguousarray(both).reshape(*both.shape[:2], *image.shape[2:])
    return resampled
