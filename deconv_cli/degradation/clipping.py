"""What the limits of a format do to noise: samples beyond black and white are clipped."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class ClippedGaussian(NamedTuple):
    """A unit Gaussian clipped below 0, by where its centre is: each an array, ascending in the mean."""

    centre: NDArray[np.float64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    saturated: NDArray[np.float64]
    """Share of the samples that were clipped."""


@functools.cache
def clipped_gaussian() -> ClippedGaussian:
    """Return the moments from a quarter of a standard deviation beyond the limit to four inside it."""
    centre = np.linspace(-0.25, 4, 86)
    density = np.exp(-np.square(centre) / 2) / math.sqrt(2 * math.pi)
    saturated = np.array([math.erfc(c / math.sqrt(2)) / 2 for c in centre])
    mean = centre * (1 - saturated) + density
    variance = (np.square(centre) + 1) * (1 - saturated) + centre * density - np.square(mean)
    return ClippedGaussian(centre, mean, variance, saturated)
