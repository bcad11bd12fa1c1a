"""Additive white Gaussian noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVEL_SCALE = MAX_NOISE_LEVEL = 255.0
"""Noise levels are standard deviations on the 0..255 scale; pixels are on 0..1."""


def add_gaussian_noise(image: NDArray[np.float32], noise_level: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add white Gaussian noise in float, neither clipped nor rounded, as the field's protocol asks.

    Parameters
    ----------
    image
        H x W or H x W x C, float32, nominally 0..1.
    noise_level
        Standard deviation on the 0..255 scale.
    rng
        Source of the noise; the same generator state gives the same noise.

    Returns
    -------
    ndarray
        float32, the shape of `image`; values may lie outside 0..1.

    Examples
    --------
    >>> noisy = add_gaussian_noise(np.zeros((64, 64), np.float32), 25, np.random.default_rng(0))
    >>> round(float(noisy.std() * 255))
    25
    """
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return image + noise * np.float32(noise_level / LEVEL_SCALE)
