"""Means over seeds with their intervals, and paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with the interval of Student's t at `CONFIDENCE`.

    Attributes
    ----------
    mean, low, high
        The mean and the ends of its interval, which are NaN for a single value.
    count
        Number of values.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def __format__(self, spec: str) -> str:
        if math.isnan(self.half):
            return format(self.mean, spec)
        return f"{format(self.mean, spec)} ± {format(self.half, spec.lstrip('+'))}"


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return mean and interval, or None of no values.

    >>> f"{estimate([1.0, 2.0, 3.0]):.2f}"
    '2.00 ± 2.48'
    """
    count = len(values)
    if not count:
        return None
    mean = float(np.mean(values))
    if count == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    return Estimate(mean, mean - half, mean + half, count)


def estimate_ratio(values: Sequence[float]) -> Estimate | None:
    """Return geometric mean and interval of values that are not negative; a zero makes the mean zero.

    >>> round(estimate_ratio([0.01, 1.0]).mean, 3), estimate_ratio([0.0, 1.0]).mean
    (0.1, 0.0)
    """
    if values and min(values) <= 0:
        return Estimate(0.0, math.nan, math.nan, len(values))
    logs = estimate([math.log(value) for value in values])
    if logs is None:
        return None
    return Estimate(math.exp(logs.mean), math.exp(logs.low), math.exp(min(logs.high, 700)), logs.count)


def compare(ours: dict[int, float], theirs: dict[int, float]) -> Estimate | None:
    """Return the mean difference, ours minus theirs, over the seeds that both have, with its interval."""
    return estimate([ours[seed] - theirs[seed] for seed in sorted(set(ours) & set(theirs))])


def is_tie(difference: Estimate | None) -> bool:
    """Tell whether a difference cannot be told from none: its interval holds zero, or there is none."""
    return difference is None or math.isnan(difference.half) or difference.low <= 0 <= difference.high


def exceeds(measured: Estimate | None, bound: float) -> bool | None:
    """Tell whether a mean lies above a bound with all of its interval, or below it; None if that cannot be told.

    >>> exceeds(estimate([1.0, 1.1]), 0.1), exceeds(estimate([-0.1, 0.9]), 0.1), exceeds(estimate([5.0]), 0.1)
    (True, None, None)
    """
    if measured is None or math.isnan(measured.half) or measured.low <= bound < measured.high:
        return None
    return measured.low > bound
