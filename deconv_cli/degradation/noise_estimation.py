"""Blind estimation of the noise level: what `--noise-level auto` tells the network."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deconv_cli.degradation.noise import LEVEL_SCALE
from deconv_cli.images.samples import to_float

PATCH = 8
"""Side of a patch in pixels."""
MAX_PATCHES = 30_000
"""Patches looked at, however large the picture: this is what bounds time and memory."""
QUIET_FRACTION, MIN_QUIET = 0.02, 300
"""Share of the patches taken to be free of texture, and the fewest that give a steady variance."""
FIRST_HIGH_FREQUENCY = 9
"""Sum of the two DCT indices from which a coefficient counts as noise; below it, as texture."""
MAX_PASSES = 10
COARSE, COARSE_SIDE = 4, 2048
"""Side of the averages that tell correlated noise from white, and of the centre of a picture that is looked at."""
SATURATED_MARGIN = 0.15
"""Share of saturated pixels in a patch above what clipping explains: two standard deviations for a flat one."""

OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [0.5, -1, 0.5]]) / np.sqrt([[3.0], [2.0], [1.5]])
"""Orthonormal luma and chroma: the mean square of the noise over them is that over red, green and blue."""


def estimate_noise_level(image: NDArray[Any]) -> float:
    """Estimate the standard deviation of the white Gaussian noise in a picture.

    The patches with the least energy at low DCT frequencies are taken to be free of texture, and the noise
    variance is the median over the high frequencies of their mean squares. White noise is independent from
    one frequency to another, so the choice does not bias the variance. Colour is measured in orthonormal
    luma and chroma, where a photograph's texture is mostly in luma, and given as the root mean square.

    Noise clipped to the limits of the format is weaker than it was: patches near the limits count with the
    variance that a clipped Gaussian of their mean keeps; saturated and constant ones are left out.

    Parameters
    ----------
    image
        H x W or H x W x 3; uint8, uint16, or float32, nominally 0..1 (values outside are allowed).

    Returns
    -------
    float
        Noise level on the 0..255 scale; 0.0 where nothing can be measured, as in a picture smaller than a
        patch or a constant one. Equal for equal pictures.

    Notes
    -----
    After N. Ponomarenko et al., "An automatic approach to lossy compression of AVIRIS images", IGARSS 2007,
    as given in M. Colom and A. Buades, "Analysis and Extension of the Ponomarenko et al. Method", Image
    Processing On Line 3 (2013). The opponent colours and the account of clipping are additions.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0.5, 25 / 255, (128, 128))
    >>> round(estimate_noise_level(noise.astype(np.float32)))
    25
    """
    channels = image[..., None] if image.ndim == 2 else image
    if min(channels.shape[:2]) < PATCH:
        return 0.0
    # Only the sampled patches are scaled, so that a large picture is not copied.
    patches = to_float(_sample_patches(channels))
    lowest = to_float(np.asarray(np.fmin.reduce(channels, axis=None)))
    highest = to_float(np.asarray(np.fmax.reduce(channels, axis=None)))
    means = patches.mean(2)
    # The picture's own extremes stand for the limits of its format: a scan may well be clipped to 16..235. Where
    # nothing was clipped they are some standard deviations away from any patch and change nothing.
    distances = np.minimum(means - lowest, highest - means)
    usable = np.isfinite(distances).all(1) & (np.ptp(patches, axis=2) > 0).any(1)
    if not usable.any():
        return 0.0
    saturated = ((patches == lowest) | (patches == highest)).mean(2, dtype=np.float32)
    return _solve_level(patches[usable], distances[usable], saturated[usable]) * LEVEL_SCALE


def estimate_coarse_chroma(image: NDArray[Any]) -> float:
    """Estimate how much noise is left in the colours of a picture after averaging 4 x 4 pixels.

    White noise of level s leaves s / 4; the noise of cameras, whose pixels share theirs with their neighbours, and more
    so in chroma, up to twice of what `estimate_noise_level` reads, or ten times where it was smoothed. Chroma is where
    to look for it, since there photographs have little texture of that size.

    Parameters
    ----------
    image
        H x W or H x W x 3; uint8, uint16, or float32, nominally 0..1.

    Returns
    -------
    float
        Root mean square of the two chroma components' noise on the 0..255 scale; below 1.8 for 97 of 100 photographs
        as their files hold them. 0.0 for gray pictures, and for those of less than 32 pixels a side.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0.5, 20 / 255, (256, 256, 3))
    >>> round(estimate_coarse_chroma(noise.astype(np.float32)))
    5
    """
    if image.ndim == 2 or min(image.shape[:2]) < COARSE * PATCH:
        return 0.0
    top, left = (max(0, side - COARSE_SIDE) // 2 for side in image.shape[:2])
    centre = to_float(image[top : top + COARSE_SIDE, left : left + COARSE_SIDE])
    height, width = (side // COARSE for side in centre.shape[:2])
    blocks = centre[: height * COARSE, : width * COARSE].reshape(height, COARSE, width, COARSE, 3)
    chroma = blocks.mean(axis=(1, 3)) @ OPPONENT[1:].T.astype(np.float32)
    levels = [estimate_noise_level(np.ascontiguousarray(chroma[..., plane])) for plane in range(2)]
    return math.sqrt(np.mean(np.square(levels)))


def _sample_patches(channels: NDArray[Any]) -> NDArray[Any]:
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


def _solve_level(patches: NDArray[np.float32], distances: NDArray[np.float32], saturated: NDArray[np.float32]) -> float:
    """Iterate the noise level, in units of the pixels: how much clipping takes from it depends on it.

    `distances` of the means to the limits and shares of `saturated` pixels are patches x channels.
    """
    mix = OPPONENT if patches.shape[1] == 3 else np.ones((1, 1))
    texture, noise = _texture_and_noise(np.einsum("kc,pcx->kpx", mix.astype(np.float32), patches))
    clipped = _clipped_gaussian()
    level = 0.0
    for _ in range(MAX_PASSES):
        means = clipped.mean * level
        inside = distances > means[0]
        if level > 0:
            # More saturated pixels than noise explains: the border of a blown area, or black print on white.
            inside &= saturated <= np.interp(distances, means, clipped.saturated) + SATURATED_MARGIN
        chosen = np.flatnonzero(inside.all(1))
        if chosen.size == 0:
            return 0.0
        kept = np.interp(distances[chosen], means, clipped.variance) @ np.square(mix).T
        variances = [_quiet_variance(t[chosen], n[chosen], k) for t, n, k in zip(texture, noise, kept.T, strict=True)]
        previous, level = level, math.sqrt(np.mean(variances))
        if abs(level - previous) <= 0.005 * level:
            break
    return level


def _quiet_variance(texture: NDArray[np.float32], noise: NDArray[np.float32], kept: NDArray[np.float64]) -> float:
    """Return the noise variance in the patches with the least texture for the variance that clipping has kept."""
    count = min(len(kept), max(MIN_QUIET, int(QUIET_FRACTION * len(kept))))
    quiet = np.argpartition(texture / kept, count - 1)[:count]
    return float(np.median(noise[quiet].sum(0, dtype=np.float64)) / kept[quiet].sum())


def _texture_and_noise(patches: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the energy of each patch at low frequencies (without the mean), and that at each high one."""
    index = np.arange(PATCH)
    dct = np.sqrt(2 / PATCH) * np.cos(np.pi * np.outer(index, 2 * index + 1) / (2 * PATCH))
    dct[0] /= np.sqrt(2)
    basis = np.kron(dct, dct).astype(np.float32)
    frequency = np.add.outer(index, index).ravel()
    is_high = frequency >= FIRST_HIGH_FREQUENCY
    low, high = patches @ basis[(frequency > 0) & ~is_high].T, patches @ basis[is_high].T
    return np.square(low).sum(-1), np.square(high)


class _ClippedGaussian(NamedTuple):
    """A unit Gaussian clipped below 0, by where its centre is: each an array, ascending in the mean."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    saturated: NDArray[np.float64]
    """Share of the samples that were clipped."""


@functools.cache
def _clipped_gaussian() -> _ClippedGaussian:
    """Return the moments from a quarter of a standard deviation beyond the limit to four inside it."""
    centre = np.linspace(-0.25, 4, 86)
    density = np.exp(-np.square(centre) / 2) / math.sqrt(2 * math.pi)
    saturated = np.array([math.erfc(c / math.sqrt(2)) / 2 for c in centre])
    mean = centre * (1 - saturated) + density
    variance = (np.square(centre) + 1) * (1 - saturated) + centre * density - np.square(mean)
    return _ClippedGaussian(mean, variance, saturated)
