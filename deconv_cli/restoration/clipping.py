"""What clipping at black and white did to noise, undone in the restored picture."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deconv_cli.degradation.clipping import clipped_gaussian
from deconv_cli.degradation.noise import LEVEL_SCALE

WINDOW = 7
"""Side of the square in which clipped pixels are counted: at most 255 fit a byte."""
ENTRIES = 4096
"""Of the table: one is 0.001 sigma from the next."""
ENOUGH = 0.5
"""Share of the clipped pixels to be expected from which all of the shift is undone. To ask for more would leave some of
it, since so few pixels scatter; for less would change clean pictures beside their blacks."""


def clipping_bias(
    restored: NDArray[np.float32], clipped: NDArray[np.float32], noise_level: float
) -> NDArray[np.float32]:
    """Return how far the clipping of the noise has moved a restored picture: up beside black, down beside white.

    A network that was trained on noise that is not clipped restores the mean of what it sees. Clipped noise has
    another mean than the picture: with level 50 black has one of 20. Where the mean is one that clipped noise of this
    level would have, and about as many pixels around it are clipped as would be then, its distance to the picture
    follows from the level; see `benchmarks/clipping.py`.

    Parameters
    ----------
    restored
        What the network makes of `clipped`: H x W or H x W x 3, nominally 0..1.
    clipped
        The noisy picture, in 0..1.
    noise_level
        Sigma of the noise before it was clipped, on the 0..255 scale.

    Notes
    -----
    A. Foi, "Clipped noisy images: heteroskedastic modeling and practical denoising", Signal Processing 89 (2009): the
    transformation of the expectation of the clipped variable to that of the unclipped one. To count the clipped pixels
    is an addition, for pictures that hold less noise than is told, there or altogether.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 50 / 255, (256, 256))
    >>> black = np.clip(noise, 0, 1).astype(np.float32)
    >>> mean = np.full_like(black, black.mean())
    >>> round(255 * float(mean[0, 0])), round(255 * float((mean - clipping_bias(mean, black, 50)).mean()))
    (20, 0)
    """
    bias = np.zeros(restored.size, np.float32)
    sigma, table = np.float32(noise_level / LEVEL_SCALE), _table()
    for limit, inwards in ((0, 1), (1, -1)):
        counts = _count_around(clipped == limit).ravel()
        near = np.flatnonzero(counts)
        means = inwards * (restored.ravel()[near] - limit) / sigma
        moved, enough = table.read(means)
        bias[near] += inwards * sigma * moved * np.minimum(1, counts[near] / enough)
    return bias.reshape(restored.shape)


class _Table(NamedTuple):
    """By the mean of clipped noise, evenly spaced in units of its sigma: several times as fast as `interp`.

    Attributes
    ----------
    first, step
        The least mean, and the distance from one to the next.
    moved
        How far the clipping has moved it; 0 at the end, far inside, where next to nothing is clipped.
    enough
        How many clipped pixels in the window are enough to undo all of that.
    """

    first: float
    step: float
    moved: NDArray[np.float32]
    enough: NDArray[np.float32]

    def read(self, means: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return `moved` and `enough` at the means, without steps: rounding in the network must not show."""
        place = np.clip((means - self.first) / self.step, 0, ENTRIES - 1)
        at = np.minimum(place.astype(np.intp), ENTRIES - 2)
        beyond = place - at.astype(np.float32)
        moved, enough = (values[at] + beyond * (values[at + 1] - values[at]) for values in (self.moved, self.enough))
        return moved, enough


@functools.cache
def _table() -> _Table:
    of_noise = clipped_gaussian()
    means = np.linspace(of_noise.mean[0], of_noise.mean[-1], ENTRIES)
    step = means[1] - means[0]
    moved = np.interp(means, of_noise.mean, of_noise.mean - of_noise.centre).astype(np.float32)
    moved[-1] = 0
    enough = (ENOUGH * WINDOW**2 * np.interp(means, of_noise.mean, of_noise.saturated)).astype(np.float32)
    return _Table(float(means[0]), float(step), moved, enough)


def _count_around(marked: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Count the marked pixels in the window around each, a channel at a time."""
    counts = marked.astype(np.uint8)
    if not marked.any():
        return counts
    for _ in range(2):
        padded = np.pad(counts, [(WINDOW // 2, WINDOW // 2)] + [(0, 0)] * (counts.ndim - 1))
        rows = [padded[start : start + len(counts)] for start in range(WINDOW)]
        counts = functools.reduce(np.add, rows).swapaxes(0, 1)
    return counts
