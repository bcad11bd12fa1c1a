"""When a training has diverged: its steps are no longer finite."""

from __future__ import annotations

import math

from deconv_cli.errors import DeconvError

MAX_IN_A_ROW = 20
"""Steps that are not finite, one after the other, from which a training does not recover."""


class Divergence:
    """Counts the steps that were not finite, and were left out, since the last that was."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def after(self, *values: float) -> bool:
        """Take note of what a step gave, its loss and gradient norm; return whether the training has diverged."""
        self.in_a_row = 0 if math.isfinite(sum(values)) else self.in_a_row + 1
        return self.reached

    @property
    def reached(self) -> bool:
        """Whether the training has diverged."""
        return self.in_a_row >= MAX_IN_A_ROW


def divergence_error(step: int, lr: float, advice: str = "") -> DeconvError:
    """Return the error that tells of it and of the way out: a third of the learning rate, and what else is advised."""
    return DeconvError(
        f"{MAX_IN_A_ROW} steps in a row were not finite: the training diverged at step {step}; start again at a lower"
        f" rate: --lr {lr / 3:.2g}{advice} --overwrite"
    )
