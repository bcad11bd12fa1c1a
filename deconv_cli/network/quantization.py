"""Convolutions in eight bits: which numbers their inputs and kernels are rounded to."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 255
"""Steps of an input: 0 to 255; a kernel has 127 on either side of zero."""
KERNEL_LEVELS = 127
SMALLEST_SCALE = 1e-12
"""Of a kernel or an input that is nothing but zeros."""


@dataclass(frozen=True)
class Quantization:
    """What a convolution in eight bits rounds to.

    Inputs become ``(q - zero_point) * input_scale``, q from 0 to 255 (one scale for all channels), kernels
    ``q * scales``, q from -127 to 127 (a scale for each output channel); what it adds up is not rounded. Zero is among
    the inputs, so that padding is exact.

    Attributes
    ----------
    scales
        float32, outputs x 1 x 1 x 1; of a transposed convolution 1 x outputs x 1 x 1.
    input_scale, zero_point
        Step between neighbouring inputs, and the q of zero.

    Raises
    ------
    ValueError
        If these are not numbers that could be meant.
    """

    scales: NDArray[np.float32]
    input_scale: float
    zero_point: int

    def __post_init__(self) -> None:
        sound = np.isfinite(self.scales).all() and bool((self.scales > 0).all())
        if not (sound and math.isfinite(self.input_scale) and self.input_scale > 0):
            raise ValueError("the scales of a layer in eight bits are not positive")
        if not 0 <= self.zero_point <= LEVELS or self.zero_point != int(self.zero_point):
            raise ValueError("the zero of a layer in eight bits is not among its inputs")

    @classmethod
    def of(cls, kernel: NDArray[np.float32], low: float, high: float, *, transposed: bool) -> Quantization:
        """Return the one that holds the largest value of every output's kernel, and inputs from `low` to `high`."""
        axes = tuple(axis for axis in range(4) if axis != (1 if transposed else 0))
        low, high = min(low, 0.0), max(high, 0.0)
        step = float(np.float32(max((high - low) / LEVELS, SMALLEST_SCALE)))
        return cls(_kernel_scales(kernel, axes), step, round(-low / step))

    def for_kernel(self, kernel: NDArray[np.float32]) -> Quantization:
        """Return the same for another kernel of the layer."""
        axes = tuple(axis for axis, side in enumerate(self.scales.shape) if side == 1)
        return dataclasses.replace(self, scales=_kernel_scales(kernel, axes))

    @property
    def input_range(self) -> tuple[float, float]:
        """The least and the greatest input; what lies beyond becomes these."""
        return -self.zero_point * self.input_scale, (LEVELS - self.zero_point) * self.input_scale

    def to_int8(self, kernel: NDArray[np.float32]) -> NDArray[np.int8]:
        """Return the q of a kernel."""
        steps: NDArray[np.int8] = np.clip(np.rint(kernel / self.scales), -KERNEL_LEVELS, KERNEL_LEVELS).astype(np.int8)
        return steps

    def round(self, kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a kernel, rounded."""
        return self.to_int8(kernel) * self.scales


def _kernel_scales(kernel: NDArray[np.float32], axes: tuple[int, ...]) -> NDArray[np.float32]:
    scales: NDArray[np.float32] = np.abs(kernel).max(axes, keepdims=True) / KERNEL_LEVELS
    return np.maximum(scales, SMALLEST_SCALE).astype(np.float32)
