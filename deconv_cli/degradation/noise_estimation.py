"""Blind estimation of the noise level: what `--noise-level auto` tells the network."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deconv_cli.degradation.clipping import clipped_gaussian
from deconv_cli.degradation.noise import LEVEL_SCALE
from deconv_cli.images.samples import to_float

PATCH = 8
"""Side of a patch in pixels."""
MAX_PATCHES = 20_000
"""Patches looked at, however large the picture: this is what bounds time and memory."""
R2 = 0.7548776662466927, 0.5698402909980532
"""Powers -1 and -2 of the real root of x**3 = x + 1: multiples of them fill the unit square most evenly."""
PATCHES_AT_ONCE = 1024
"""Patches measured at a time: what they need stays in the cache."""
QUIET_FRACTION, MIN_QUIET = 0.02, 300
"""Share of the patches taken to be free of texture, and the fewest that give a steady variance."""
FIRST_HIGH_FREQUENCY = 9
"""Sum of the two DCT indices from which a coefficient counts as noise; below it, as texture."""
MAX_PASSES = 10
SMOOTH, COARSE = 2, 4
"""Side of the averages that tell correlated noise from white, in all channels and in chroma alone."""
MOST_AVERAGES = 512
"""Averages a side that are looked at, in the centre of a picture: bounds time and memory."""
SATURATED_MARGIN = 0.15
"""Share of saturated pixels in a patch above what clipping explains: two standard deviations for a flat one."""
TEXTURED = 1.5
"""Energy of the quietest patches at low frequencies over that at high ones, for a coefficient, from which they hold
more than white noise: it has 0.6, text 1.7 to 11, photographs with fine texture or noise of cameras up to 20."""
GROWN = 2.5
"""How many times the level of all patches that is of those which are left when the clipped ones are not counted, from
which these may all be strokes: of text on white 4 to 300 times, of clipped noise 1 to 2, in the night 3."""
WITHIN = 1 / 255
"""Distance from the darkest and the brightest sample of a picture that is within its limits."""
PLAIN_SHARE = 0.1
"""Share of patches of one colour within the limits from which a picture is drawn: with noise there are none."""

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
        H x W or H x W x 3; uint8, uint16, or float32, nominally 0..1 (values outside are allowed). Patches that hold a
        NaN are left out.

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
    return root_mean_square(estimate_opponent_levels(image))


def estimate_opponent_levels(image: NDArray[Any]) -> NDArray[np.float64]:
    """Estimate the level of noise at high frequencies in luma and in the two chroma components.

    They are equal where the noise is white. JPEG with subsampled colours takes it from the chroma.

    Parameters
    ----------
    image
        As for `estimate_noise_level`, which is the root mean square of these.

    Returns
    -------
    ndarray
        float64, of 3, for orthonormal components on the 0..255 scale; of 1 for H x W. Zeros where nothing can be
        measured.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0.5, 20 / 255, (256, 256, 3))
    >>> estimate_opponent_levels(noise.astype(np.float32)).round().tolist()
    [20.0, 20.0, 20.0]
    """
    return _solve_levels(*_measure(image)) * LEVEL_SCALE


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
    chroma = _average(image, COARSE) @ OPPONENT[1:].T.astype(np.float32)
    levels = [estimate_noise_level(np.ascontiguousarray(chroma[..., plane])) for plane in range(2)]
    return root_mean_square(levels)


def estimate_smooth_noise(image: NDArray[Any]) -> float:
    """Estimate the level of white noise that would leave as much in averages of 2 x 2 pixels as is in a picture.

    White noise of level s has s; noise that pixels share with their neighbours more than `estimate_noise_level` reads,
    up to several times as much. So has texture, which is among the middle frequencies.

    Parameters
    ----------
    image
        H x W or H x W x 3; uint8, uint16, or float32, nominally 0..1.

    Returns
    -------
    float
        Noise level on the 0..255 scale; 0.0 for pictures of less than 16 pixels a side.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0.5, 20 / 255, (256, 256, 3))
    >>> round(estimate_smooth_noise(noise.astype(np.float32)))
    20
    """
    return SMOOTH * estimate_noise_level(_average(image, SMOOTH))


def estimate_strongest_noise(image: NDArray[Any]) -> float:
    """Estimate the noise level of the dark, the medium and the bright third of a picture; return the highest.

    White noise has one level everywhere; that of photons more where it is bright, and after a gamma where it is dark.
    Texture that fills a third reads as noise.

    Parameters
    ----------
    image
        As for `estimate_noise_level`, which goes by the quietest parts.

    Returns
    -------
    float
        Noise level on the 0..255 scale; 0.0 where nothing can be measured.

    Examples
    --------
    >>> ramp = np.linspace(0.2, 0.8, 256 * 256).reshape(256, 256)
    >>> noise = np.random.default_rng(0).normal(0, ramp * 20 / 255)
    >>> round(estimate_noise_level((ramp + noise).astype(np.float32)))
    5
    >>> round(estimate_strongest_noise((ramp + noise).astype(np.float32)))
    12
    """
    measures, plain = _measure(image)
    if not len(measures.brightness):
        return 0.0
    thirds = np.searchsorted(np.quantile(measures.brightness, (1 / 3, 2 / 3)), measures.brightness)
    parts = [_Measures(*(array[thirds == third] for array in measures)) for third in range(3)]
    return max(root_mean_square(_solve_levels(part, plain)) for part in parts) * LEVEL_SCALE


def root_mean_square(levels: ArrayLike) -> float:
    """Return the level of noise that has so much in each of some components."""
    return math.sqrt(np.mean(np.square(levels)))


def _average(image: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Average squares of so many pixels a side, in the centre of a picture."""
    most = MOST_AVERAGES * side
    top, left = (max(0, length - most) // 2 for length in image.shape[:2])
    centre = to_float(image[top : top + most, left : left + most])
    height, width = (length // side for length in centre.shape[:2])
    blocks = centre[: height * side, : width * side].reshape(height, side, width, side, *centre.shape[2:])
    averages: NDArray[np.float32] = blocks.mean(axis=(1, 3))
    return averages


def _sample_patches(channels: NDArray[Any]) -> NDArray[Any]:
    """Return patches x channels x pixels: all there are, or `MAX_PATCHES` spread evenly at the same places always."""
    windows = np.lib.stride_tricks.sliding_window_view(channels, (PATCH, PATCH), axis=(0, 1))
    rows, columns = windows.shape[:2]
    if rows * columns > MAX_PATCHES:
        # Spread as Roberts' R2 sequence does (2018, "The unreasonable effectiveness of quasirandom sequences");
        # to import NumPy's random numbers would take a quarter of the time of the whole estimate.
        steps = np.arange(MAX_PATCHES)
        places = ((steps * ratio % 1 * count).astype(np.intp) for ratio, count in zip(R2, (rows, columns), strict=True))
        chosen = windows[tuple(places)]
    else:
        chosen = windows.reshape(rows * columns, *windows.shape[2:])
    return np.ascontiguousarray(chosen.reshape(*chosen.shape[:2], PATCH * PATCH))


class _Measures(NamedTuple):
    """What is measured in patches: arrays of patches x channels, the last two of opponent channels.

    Attributes
    ----------
    brightness
        Means of all channels: an array of patches.
    distances
        From the means to the limits.
    saturated
        Shares of saturated pixels.
    texture
        Energy at low frequencies, without the mean.
    noise
        Energy at each high frequency: patches x channels x frequencies.
    """

    brightness: NDArray[np.float32]
    distances: NDArray[np.float32]
    saturated: NDArray[np.float32]
    texture: NDArray[np.float32]
    noise: NDArray[np.float32]


def _measure(image: NDArray[Any]) -> tuple[_Measures, float]:
    """Measure patches of a picture, none of one that is smaller than a patch.

    Those that are constant or hold a NaN are left out; what share is constant within the limits comes beside.
    """
    channels = image[..., None] if image.ndim == 2 else image
    if min(channels.shape[:2]) < PATCH:
        channels = np.zeros((PATCH, PATCH, channels.shape[2]), channels.dtype)
    lowest, highest = (to_float(np.asarray(limit.reduce(channels, axis=None))) for limit in (np.fmin, np.fmax))
    sampled = _sample_patches(channels)
    # Only the sampled patches are scaled, some at a time: memory that is in use already is a multiple faster.
    parts = [
        _measure_patches(to_float(sampled[start : start + PATCHES_AT_ONCE]), lowest, highest)
        for start in range(0, len(sampled), PATCHES_AT_ONCE)
    ]
    measures = _Measures(*(np.concatenate(arrays) for arrays in zip(*(part for part, _ in parts), strict=True)))
    return measures, sum(plain for _, plain in parts) / len(sampled)


def _measure_patches(
    patches: NDArray[np.float32], lowest: NDArray[np.float32], highest: NDArray[np.float32]
) -> tuple[_Measures, int]:
    """Measure patches (patches x channels x pixels), and count those that are constant within the limits."""
    means = patches.mean(2)
    # The picture's own extremes stand for the limits of its format: a scan may well be clipped to 16..235. Where
    # nothing was clipped they are some standard deviations away from any patch and change nothing.
    distances = np.minimum(means - lowest, highest - means)
    constant = (patches == patches[..., :1]).all((1, 2))
    plain = int(np.count_nonzero(constant & (distances > WITHIN).all(1)))
    usable = np.isfinite(distances).all(1) & ~constant
    patches = patches[usable]
    saturated = ((patches == lowest) | (patches == highest)).mean(2, dtype=np.float32)
    basis, low = _cosine_transform()
    coefficients = (patches.reshape(-1, PATCH * PATCH) @ basis).reshape(*patches.shape[:2], basis.shape[1])
    energy = np.square(_mix(patches.shape[1]) @ coefficients)
    texture, noise = energy[..., :low].sum(-1), energy[..., low:]
    return _Measures(means[usable].mean(1), distances[usable], saturated, texture, noise), plain


def _mix(channels: int) -> NDArray[np.float32]:
    return OPPONENT.astype(np.float32) if channels == 3 else np.ones((1, 1), np.float32)


@functools.cache
def _cosine_transform() -> tuple[NDArray[np.float32], int]:
    """Return the DCT of a patch, pixels x coefficients without the mean, low before high, and how many are low."""
    index = np.arange(PATCH)
    dct = np.sqrt(2 / PATCH) * np.cos(np.pi * np.outer(index, 2 * index + 1) / (2 * PATCH))
    dct[0] /= np.sqrt(2)
    frequency = np.add.outer(index, index).ravel()
    by_frequency = np.argsort(frequency, kind="stable")[1:]
    low = int(np.count_nonzero(frequency[by_frequency] < FIRST_HIGH_FREQUENCY))
    return np.kron(dct, dct)[by_frequency].T.astype(np.float32), low


class _Estimate(NamedTuple):
    """What patches say, if there is noise of some level.

    Attributes
    ----------
    levels
        The channels' levels, in units of the pixels; zeros if no patch is left.
    textured
        Whether the quietest patches are not quiet: they hold more than noise does at low frequencies.
    """

    levels: NDArray[np.float64]
    textured: bool


def _solve_levels(measures: _Measures, plain: float) -> NDArray[np.float64]:
    """Iterate the channels' levels, in units of the pixels: how much clipping takes from them depends on them.

    Of text on white, the paper is left out as clipped, until nothing but strokes is left, which pass for ever more
    noise. Then all patches that are not constant say more: some are free of strokes. `plain` is the share of patches of
    one colour within the limits.
    """
    first = estimate = _estimate(measures, 0.0)
    for _ in range(MAX_PASSES - 1):
        level = root_mean_square(estimate.levels)
        estimate = _estimate(measures, level)
        if abs(root_mean_square(estimate.levels) - level) <= 0.005 * level:
            break
    grown = root_mean_square(estimate.levels) > GROWN * root_mean_square(first.levels)
    if not estimate.textured or not (grown or plain >= PLAIN_SHARE):
        return estimate.levels
    return np.zeros_like(first.levels) if first.textured else first.levels


def _estimate(measures: _Measures, level: float) -> _Estimate:
    """Estimate the channels' levels from what is left of patches if `level` is that of the noise, in their units."""
    squared_mix = np.square(_mix(measures.distances.shape[1])).T
    clipped = clipped_gaussian()
    means = clipped.mean * level
    inside = measures.distances > means[0]
    if level > 0:
        # More saturated pixels than noise explains: the border of a blown area, or black print on white.
        explained = np.interp(measures.distances, means, clipped.saturated)
        inside &= measures.saturated <= explained + SATURATED_MARGIN
    chosen = np.flatnonzero(inside.all(1))
    if chosen.size == 0:
        return _Estimate(np.zeros(len(squared_mix)), textured=False)
    kept = np.interp(measures.distances[chosen], means, clipped.variance) @ squared_mix
    texture, noise = measures.texture[chosen], measures.noise
    variances, textures = np.transpose(
        [
            _quiet_variance(texture[:, channel], noise[:, channel], chosen, kept[:, channel])
            for channel in range(texture.shape[1])
        ]
    )
    low = _cosine_transform()[1]
    return _Estimate(np.sqrt(variances), textured=textures.sum() > TEXTURED * low * variances.sum())


def _quiet_variance(
    texture: NDArray[np.float32], noise: NDArray[np.float32], chosen: NDArray[np.intp], kept: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the noise variance in the chosen patches with the least texture for the variance that clipping has kept.

    Beside it, their energy at low frequencies in the same measure. `noise` is that of all patches, the others of the
    chosen ones.
    """
    count = min(len(kept), max(MIN_QUIET, int(QUIET_FRACTION * len(kept))))
    quiet = np.argpartition(texture / kept, count - 1)[:count]
    by_frequency = np.sort(noise[chosen[quiet]].sum(0, dtype=np.float64))
    # The median; NumPy's imports masked arrays, for a tenth of the time of the whole estimate.
    median = (by_frequency[(len(by_frequency) - 1) // 2] + by_frequency[len(by_frequency) // 2]) / 2
    return float(median / kept[quiet].sum()), float(texture[quiet].sum(dtype=np.float64) / kept[quiet].sum())
