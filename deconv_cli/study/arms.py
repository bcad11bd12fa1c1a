"""What a study compares: its arms, and what is the same in all of them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deconv_cli.errors import UsageError, unknown_name
from deconv_cli.network.activations import find_activation
from deconv_cli.network.description import LAYOUTS, UPSAMPLINGS
from deconv_cli.training.config import INITIALISATIONS, OPTIMIZERS, ClassifyConfig, TrainConfig

LEVELS: Mapping[str, tuple[tuple[float, ...], float | None]] = {
    "denoise": ((5.0, 50.0), 75.0),
    "decompress": ((20.0, 80.0), 10.0),
    "sr": ((), None),
    "classify": ((), None),
}
"""By task: the range of levels to train on, and a level outside to generalise to (super-resolution has one, 2)."""
SWEEP_SEED = 1000
"""The learning rate is chosen on a seed that no reported run has."""
# With 20 layers and no skips hardly any arm learns within a short study; with 12 all the effects show.
DEPTHS = {"rednet": 12, "pyramid": 3}
RATES: Mapping[str, tuple[float, ...]] = {
    "adamw": (3e-4, 1e-3, 3e-3, 1e-2),
    "muon": (2e-3, 6e-3, 2e-2, 6e-2),
    "sgd": (1e-2, 3e-2, 1e-1, 3e-1),
}
"""Learning rates to choose from, by optimiser."""


@dataclass(frozen=True)
class Arm:
    """One way of building and training the network.

    Attributes
    ----------
    activation, task, initialisation, skips, upsampling, optimizer
        See `deconv_cli.training.config.TrainConfig`.
    depth
        Layers of a rednet, an even number; levels of a pyramid.
    """

    activation: str
    task: str
    initialisation: str
    skips: bool
    depth: int
    upsampling: str
    optimizer: str

    @property
    def name(self) -> str:
        """A name that no other arm has, fit for a file."""
        skips = "skips" if self.skips else "noskips"
        parts = (self.task, self.activation, self.initialisation, skips, self.depth, self.upsampling, self.optimizer)
        return "-".join(map(str, parts))


@dataclass(frozen=True)
class Settings:
    """A study; the arms are all combinations of the plural fields, the others are the same in every arm.

    Attributes
    ----------
    activations, tasks, initialisations, skips, depths, upsamplings, optimizers
        What is crossed.
    seeds
        Runs an arm, with the seeds 0, 1, ...: equal seeds see equal batches in all arms.
    rates
        Learning rates to choose from, for every arm on its own; empty stands for `RATES`.
    architecture, width
        Layout of the network, and its channels at full resolution (a pyramid has twice as many a level down).
    steps, sweep_steps
        Steps of a reported run, and of one that serves to choose the rate.
    batch, patch
        Patches a step, and their side in pixels; 0 stands for 8 of 48, or 16 pictures of 32 to classify.
    """

    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu", "leaky_relu")
    tasks: tuple[str, ...] = ("denoise",)
    initialisations: tuple[str, ...] = ("matched",)
    skips: tuple[bool, ...] = (True,)
    depths: tuple[int, ...] = ()
    upsamplings: tuple[str, ...] = ("deconv",)
    optimizers: tuple[str, ...] = ("adamw",)
    seeds: int = 5
    rates: tuple[float, ...] = ()
    architecture: str = "rednet"
    width: int = 16
    steps: int = 2000
    sweep_steps: int = 500
    batch: int = 0
    patch: int = 0

    def __post_init__(self) -> None:
        # A study waits for every run: for one that is given twice it would wait for ever.
        for field in dataclasses.fields(self):
            if isinstance(values := getattr(self, field.name), tuple):
                object.__setattr__(self, field.name, tuple(dict.fromkeys(values)))
        for activation in self.activations:
            find_activation(activation)
        for kind, names, valid in (
            ("task", self.tasks, LEVELS),
            ("initialisation", self.initialisations, INITIALISATIONS),
            ("upsampling", self.upsamplings, UPSAMPLINGS),
            ("optimizer", self.optimizers, OPTIMIZERS),
            ("architecture", (self.architecture,), LAYOUTS),
        ):
            for name in names:
                if name not in valid:
                    raise unknown_name(kind, name, valid)
        own = {"depths": (DEPTHS[self.architecture],), **dict(zip(("batch", "patch"), self._size, strict=True))}
        for name, value in own.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        self._check_numbers()
        self._check_crossed()
        for arm in self.arms:
            self.config(arm, self.rates_of(arm)[0], seed=0, steps=self.steps)

    @property
    def _size(self) -> tuple[int, int]:
        return (16, 32) if "classify" in self.tasks else (8, 48)

    def _check_numbers(self) -> None:
        if self.architecture == "rednet" and any(depth % 2 or depth < 4 for depth in self.depths):
            raise UsageError(f"a rednet has an even number of at least 4 layers, not {self.depths}")
        if min(self.seeds, self.steps - 1, self.sweep_steps, self.width, *self.depths) < 1:
            raise UsageError("seeds, steps (at least 2), width and depths must be positive")
        if not all(0 < rate < math.inf for rate in self.rates):
            raise UsageError("the learning rates must be positive")

    def _check_crossed(self) -> None:
        """Refuse to compare what cannot be compared, or is one network."""
        if "classify" in self.tasks and len(self.tasks) > 1:
            raise UsageError("classify has pictures and a measure of its own: study it alone")
        if self.architecture == "rednet" and len(self.upsamplings) > 1:
            raise UsageError("a rednet stays at full resolution: cross upsampling with --architecture pyramid")
        if self.architecture == "rednet" and len(self.skips) > 1 and min(self.depths) < 6:
            raise UsageError("a rednet of 4 layers has no skips to leave out: cross them from --depth 6 on")
        if self.architecture == "pyramid" and max(map(len, (self.skips, self.upsamplings))) > 1 and 1 in self.depths:
            raise UsageError("a pyramid of 1 level has neither skips nor upsampling: cross them from --depth 2 on")

    @property
    def arms(self) -> list[Arm]:
        """All combinations, the activations changing fastest."""
        others = (self.tasks, self.initialisations, self.skips, self.depths, self.upsamplings, self.optimizers)
        return [Arm(activation, *rest) for rest in itertools.product(*others) for activation in self.activations]

    @property
    def crossed(self) -> list[str]:
        """Names of the arms' fields, beside the activation, in which arms differ."""
        plurals = {
            "task": self.tasks,
            "initialisation": self.initialisations,
            "skips": self.skips,
            "depth": self.depths,
            "upsampling": self.upsamplings,
            "optimizer": self.optimizers,
        }
        return [name for name, values in plurals.items() if len(values) > 1]

    def rates_of(self, arm: Arm) -> tuple[float, ...]:
        """Return the learning rates to choose from for an arm."""
        return self.rates or RATES[arm.optimizer]

    def config(self, arm: Arm, rate: float, *, seed: int, steps: int) -> TrainConfig | ClassifyConfig:
        """Return the configuration of a training: the arm's, and for the rest what is fixed."""
        widths: tuple[int, ...] = (self.width,)
        blocks: tuple[int, ...] = (arm.depth // 2,)
        if self.architecture == "pyramid":
            widths, blocks = tuple(self.width * 2**level for level in range(arm.depth)), (1,) * arm.depth
        shared: dict[str, Any] = {
            "activation": arm.activation,
            "layout": self.architecture,
            "widths": widths,
            "blocks": blocks,
            "skips": arm.skips,
            "upsampling": arm.upsampling,
            "initialisation": arm.initialisation,
            "steps": steps,
            "batch": self.batch,
            "patch": self.patch,
            "optimizer": arm.optimizer,
            "lr": rate,
            # Float32 throughout: this is about gradients that may be very small.
            "precision": "fp32",
            "seed": seed,
        }
        if arm.task == "classify":
            return ClassifyConfig(**shared, augment=("tilt", "shift"))
        return TrainConfig(**shared, task=arm.task, level_range=LEVELS[arm.task][0], gray_share=0.0)

    @property
    def fixed(self) -> dict[str, Any]:
        """What may not change when a study goes on; arms and seeds may be added."""
        names = ("architecture", "width", "steps", "sweep_steps", "batch", "patch", "rates")
        return {name: value for name, value in dataclasses.asdict(self).items() if name in names}
