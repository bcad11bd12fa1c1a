"""Blind estimation of the noise level: what `--noise-level auto` tells the network."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from deconv_cli.degradation.noise import LEVEL_SCALE

PATCH = 8
"""Side of a patch in pixels."""
MAX_PATCHES = 30_000
"""Patches looked at, however large the picture: this is what bounds time and memory."""
QUIET_FRACTION, MIN_QUIET = 0.02, 300
"""Share of the patches taken to be free of texture, and the fewest that give a steady variance."""
FIRST_HIGH_FREQUENCY = 9
"""Sum of the two DCT indices from which a coefficient counts as noise; below it, as texture."""
MAX_PASSES = 8

OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [0.5, -1, 0.5]]) / np.sqrt([[3], [2], [1.5]])
"""Orthonormal luma and chroma: the mean square of the noise over them is that over red, green and blue."""


def estimate_noise_level(image: NDArray[np.float32]) -> float:
    """Estimate the standard deviation of the white Gaussian noise in a picture.

    The patches with the least energy at low DCT frequencies are taken to be free of texture, and the noise
    variance is the median over the high frequencies of their mean squares. White noise is independent from
    one frequency to another, so the choice does not bias the variance. Colour is measured in orthonormal
    luma and chroma, where a photograph's texture is mostly in luma, and given as the root mean square.

    Noise clipped to the limits of the format is weaker than it was: patches near the limits are scaled by
    what clipping takes from a Gaussian at their mean, patches beyond them and constant ones are left out.

    Parameters
    ----------
    image
        H x W or H x W x 3, float32, nominally 0..1; values outside are allowed.

    Returns
    -------
    float
        Noise level on the 0..255 scale; 0.0 where nothing can be measured, as in a picture smaller than a
        patch or a constant one. Equal for equal pictures.

    Notes
    -----
    After N. Ponomarenko et al., "An automatic approach to lossy compression of AVIRIS images", IGARSS 2007,
    as given in M. Colom and A. Buades, "Analysis and Extension of the Ponomarenko et al. Method", Image
    Processing On Line 3 (2013), section 2. The opponent colours and the account of clipping are additions.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0.5, 25 / 255, (128, 128))
    >>> round(estimate_noise_level(noise.astype(np.float32)))
    25
    """
    channels = image[..., None] if image.ndim == 2 else image
    if min(channels.shape[:2]) < PATCH:
        return 0.0
    patches = _sample_patches(channels)
    distances = _distances_to_limits(patches, channels)
    usable = np.isfinite(distances).all(1) & (distances > 0).all(1) & (np.ptp(patches, axis=2) > 0).any(1)
    if not usable.any():
        return 0.0
    return _solve_level(patches[usable], distances[usable]) * LEVEL_SCALE


def _sample_patches(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return patches x channels x pixels: all there are, or `MAX_PATCHES` at fixed pseudo-random places."""
    windows = np.lib.stride_tricks.sliding_window_view(channels, (PATCH, PATCH), axis=(0, 1))
    rows, columns = windows.shape[:2]
    if rows * columns > MAX_PATCHES:
        rng = np.random.default_rng(0)
        places = rng.integers(rows, size=MAX_PATCHES), rng.integers(columns, size=MAX_PATCHES)
        chosen = windows[places]
    else:
        chosen = windows.reshape(rows * columns, *windows.shape[2:])
    return np.ascontiguousarray(chosen.reshape(*chosen.shape[:2], PATCH * PATCH))


def _distances_to_limits(patches: NDArray[np.float32], channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return, for each patch and channel, how far its mean is from the nearer extreme of the picture.

    The picture's own extremes stand for the limits of its format, as a scan may well be clipped to 16..235;
    where nothing was clipped they are some standard deviations away from any patch and change nothing.
    """
    lowest = np.fmin.reduce(np.fmin.reduce(channels, axis=0), axis=0)
    highest = np.fmax.reduce(np.fmax.reduce(channels, axis=0), axis=0)
    means = patches.mean(2)
    nearer: NDArray[np.float32] = np.minimum(means - lowest, highest - means)
    return nearer


def _solve_level(patches: NDArray[np.float32], distances: NDArray[np.float32]) -> float:
    """Iterate the noise level, in units of the pixels: how much is clipped depends on it."""
    low, high = _texture_and_noise(patches)
    clipped_means, gains = _clipped_gaussian()
    mix = OPPONENT if patches.shape[1] == 3 else np.ones((1, 1))
    level = 0.0
    for _ in range(MAX_PASSES):
        inside = np.flatnonzero((distances > clipped_means[0] * level).all(1))
        if inside.size == 0:
            break
        gain = np.interp(distances[inside], clipped_means * level, gains)
        weights = (mix[:, None, :] * gain).astype(np.float32)
        previous, level = level, _root_mean_square(low[inside], high[inside], weights)
        if abs(level - previous) <= 0.005 * level:
            break
    return level


def _root_mean_square(low: NDArray[np.float32], high: NDArray[np.float32], weights: NDArray[np.float32]) -> float:
    """Return the noise level over the components that `weights` (components x patches x channels) make."""
    quiet_count = min(len(low), max(MIN_QUIET, int(QUIET_FRACTION * len(low))))
    variances = []
    for weight in weights:
        texture = np.square(_mix(weight, low)).sum(1)
        quiet = np.argpartition(texture, quiet_count - 1)[:quiet_count]
        noise = _mix(weight[quiet], high[quiet])
        variances.append(np.median(np.square(noise, dtype=np.float64).mean(0)))
    return math.sqrt(np.mean(variances))


def _mix(weight: NDArray[np.float32], coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum coefficients (patches x channels x frequencies) over the channels, weighted patch by patch."""
    mixed: NDArray[np.float32] = np.einsum("pc,pcf->pf", weight, coefficients)
    return mixed


def _texture_and_noise(patches: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the DCT coefficients of low (without the mean) and of high frequency."""
    index = np.arange(PATCH)
    dct = np.sqrt(2 / PATCH) * np.cos(np.pi * np.outer(index, 2 * index + 1) / (2 * PATCH))
    dct[0] /= np.sqrt(2)
    basis = np.kron(dct, dct).astype(np.float32)
    frequency = np.add.outer(index, index).ravel()
    is_high = frequency >= FIRST_HIGH_FREQUENCY
    return patches @ basis[(frequency > 0) & ~is_high].T, patches @ basis[is_high].T


@functools.cache
def _clipped_gaussian() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of a unit Gaussian clipped below 0 and the inverse of its standard deviation.

    One entry for each place of its centre, from a quarter of a standard deviation beyond the limit, where
    half of the noise is left, to four inside it, where nothing is lost.
    """
    centre = np.linspace(-0.25, 4, 86)
    density = np.exp(-np.square(centre) / 2) / math.sqrt(2 * math.pi)
    share = np.array([math.erfc(-c / math.sqrt(2)) / 2 for c in centre])
    mean = centre * share + density
    variance = (np.square(centre) + 1) * share + centre * density - np.square(mean)
    return mean, 1 / np.sqrt(variance)
