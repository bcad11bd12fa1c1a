"""Noise that nothing but its removal shows: what the weights for camera noise take from the flat parts of a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deconv_cli.images import to_float
from deconv_cli.metrics.luma import LUMA

SIDE = 384
"""Largest side, in pixels, of the centre that is tried."""
BLOCK = 16
"""Side, in pixels, of the squares that are told flat from others."""
FLAT_SHARE, FEWEST_FLAT = 0.1, 8
"""Share of the squares that count as flat, and the fewest that tell anything."""
BUSY = 32.0
"""Deviation within the flattest squares, on 0..255, from which none is flat: photographs have up to 26, text, line art
and two-level pictures 40 to 70."""
MOST_REMOVED = 40.0
"""What was taken, on 0..255, from which it was no camera's noise: of dithered pictures and checks it is 60 to 150."""
MID_GRAY = 0.5
"""What the network sees where a picture is fully transparent: NaN, in float samples."""
DARKEST, BRIGHTEST = 0.05, 0.95
"""Means between which a square counts: noise that was clipped looks weaker than it is."""


class Removed(NamedTuple):
    """Noise that a restoration took from where a picture is flat: root mean square of the luma, on the 0..255 scale.

    Attributes
    ----------
    typical
        Median over the flattest squares.
    strongest
        The highest of the medians over the flattest dark, medium and bright ones.
    """

    typical: float
    strongest: float


def removed_noise(image: NDArray[Any], restore: Callable[[NDArray[Any]], NDArray[Any]]) -> Removed | None:
    """Restore the centre of a picture, and measure what that takes from where it leaves nothing.

    Noise that pixels share with their neighbours has little at high frequencies, and in luma it is like texture; a
    network that was trained on such tells them apart. Of the squares of 16 x 16 pixels the flattest tenth after the
    restoration has no texture to speak of, so that what was taken there was noise.

    Parameters
    ----------
    image
        H x W or H x W x 3; uint8, uint16, or float32, nominally 0..1. Squares that hold a NaN do not count.
    restore
        Returns an array like that which it is given, without noise.

    Returns
    -------
    Removed, or None
        None where that tells nothing: there are less than 8 squares to go by, in pictures of fewer than 45 pixels a
        side and in those that are nearly black or white; or none of them is flat, in text and line art; or what was
        taken is more than noise, in dithered pictures.

    Examples
    --------
    >>> noisy = np.random.default_rng(0).normal(0.5, 5 / 255, (256, 256)).astype(np.float32)
    >>> removed = removed_noise(noisy, lambda image: np.full_like(image, 0.5))
    >>> round(removed.typical), round(removed.strongest)
    (5, 5)
    """
    top, left = (max(0, side - SIDE) // 2 for side in image.shape[:2])
    centre = np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])
    hidden = np.isnan(centre)
    before, after = _squares(centre), _squares(restore(np.where(hidden, centre.dtype.type(MID_GRAY), centre)))
    finite, means = np.isfinite(before).all(1), after.mean(1)
    usable = finite & (means > DARKEST) & (means < BRIGHTEST)
    if np.count_nonzero(usable) < FEWEST_FLAT:
        return None
    # Of a page with text the paper is what is flat, though white may have clipped its noise.
    return _removed(before[usable], after[usable]) or _removed(before[finite], after[finite])


def _removed(before: NDArray[np.float32], after: NDArray[np.float32]) -> Removed | None:
    """Measure what was taken from squares (squares x pixels) where they are flat; None if nowhere, or too much."""
    taken = 255 * np.sqrt(np.square(before - after).mean(1))
    deviation, by_brightness = 255 * after.std(1), np.argsort(after.mean(1), kind="stable")
    typical = _where_flat(taken, deviation)
    if typical is None or typical > MOST_REMOVED:
        return None
    thirds = [part for part in np.array_split(by_brightness, 3) if len(part) >= FEWEST_FLAT]
    of_thirds = [_where_flat(taken[part], deviation[part]) for part in thirds]
    return Removed(typical, max([typical, *(level for level in of_thirds if level is not None)]))


def _where_flat(taken: NDArray[np.float32], deviation: NDArray[np.float32]) -> float | None:
    """Return the median of what was taken where the deviation is least, or None if it is not small there."""
    flattest = np.argsort(deviation, kind="stable")[: max(FEWEST_FLAT, int(FLAT_SHARE * len(deviation)))]
    return None if np.median(deviation[flattest]) > BUSY else float(np.median(taken[flattest]))


def _squares(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return the luma of all whole squares, squares x pixels."""
    floats = to_float(image)
    luma = floats @ LUMA if floats.ndim == 3 else floats
    rows, columns = (side // BLOCK for side in luma.shape)
    cut = luma[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return cut.transpose(0, 2, 1, 3).reshape(-1, BLOCK * BLOCK)
