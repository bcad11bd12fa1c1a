"""The hyper-parameters of a training, as flags, as TOML and as saved beside the weights."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deconv_cli.errors import UsageError, unknown_name
from deconv_cli.network.activations import find_activation
from deconv_cli.network.description import LAYOUTS, Architecture
from deconv_cli.tasks import find_task
from deconv_cli.training.augmentation import RESTORATION

OPTIMIZERS = {"muon": 0.02, "adamw": 1e-3, "sgd": 0.1}
"""The optimisers, each with its default rate."""
PRECISIONS = ("auto", "fp32", "bf16")
LOSSES = ("l1", "charbonnier", "mse")
INITIALISATIONS = ("matched", "default")
RED30 = (64,), (15,)
"""Widths and blocks of the rednet of the paper."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training learns; two equal configs on equal pictures learn the same.

    Attributes
    ----------
    task, activation, layout, widths, blocks, skips, upsampling
        What is trained: see `deconv_cli.tasks` and `deconv_cli.network.description.Architecture`. Empty widths or
        blocks mean the task's own, or those of RED30 for a rednet.
    scale
        Output side over input side; 0 means the task's first.
    initialisation
        ``matched`` to the activation, or PyTorch's ``default``.
    residual_gain
        Gain of the last convolution of a residual branch in a matched initialisation.
    level_range
        Lowest and highest degradation level, sampled uniformly; empty means the task's own, which is the scale for
        super-resolution.
    augment
        Names of augmentations; see `deconv_cli.training.augmentation`.
    gray_share
        Share of patches turned to gray, so that one model serves gray pictures too.
    steps
        Optimiser steps; 0 means as many as fit into the time given.
    batch, patch
        Patches a step, and their side in pixels of the clean picture.
    optimizer, lr, adam_lr
        Muon with its rate for the kernels and Adam's for the rest, or AdamW or SGD (momentum 0.9) with `lr` for all;
        0 is the optimiser's own default.
    loss
        Mean over pixels of |error| (l1), sqrt(error^2 + 1e-6) (charbonnier) or error^2 (mse).
    warmup
        Share of the steps over which the rate rises from zero, before it falls to zero along a half cosine.
    ema
        Decay of the moving average of the parameters, which is what is validated and saved.
    clip
        Largest norm of the gradient; a larger one is scaled down.
    precision
        Number format of the network's layers: ``auto`` is bfloat16 where the machine has it natively, else float32.
    seed
        Everything sampled at a step is a function of this and the step.
    """

    task: str = "denoise"
    activation: str = "relu"
    layout: str = "pyramid"
    widths: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    scale: int = 0
    skips: bool = True
    upsampling: str = "deconv"
    initialisation: str = "matched"
    residual_gain: float = 0.1
    level_range: tuple[float, ...] = ()
    augment: tuple[str, ...] = ("flip", "rotate")
    gray_share: float = 0.25
    steps: int = 0
    batch: int = 16
    patch: int = 96
    optimizer: str = "muon"
    lr: float = 0.0
    adam_lr: float = 1e-3
    loss: str = "l1"
    warmup: float = 0.03
    ema: float = 0.999
    clip: float = 1.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        task = find_task(self.task)
        find_activation(self.activation)
        for kind, name, valid in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("loss", self.loss, LOSSES),
            ("architecture", self.layout, LAYOUTS),
            ("initialisation", self.initialisation, INITIALISATIONS),
            ("precision", self.precision, PRECISIONS),
        ):
            if name not in valid:
                raise unknown_name(kind, name, valid)
        for name in self.augment:
            if name not in RESTORATION:
                raise unknown_name("augmentation", name, RESTORATION)
        scale = task.find_scale(self.scale or None)
        own = {
            "widths": task.widths if self.layout == "pyramid" else RED30[0],
            "blocks": task.blocks if self.layout == "pyramid" else RED30[1],
            "scale": scale,
            "level_range": task.train_range if scale == 1 else (float(scale), float(scale)),
            "lr": OPTIMIZERS[self.optimizer],
        }
        for name, value in own.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        self._check_numbers()

    def _check_numbers(self) -> None:
        low, high = self.level_range if len(self.level_range) == 2 else (1.0, 0.0)
        wrong = {
            "the level range must be LOW:HIGH with 0 <= LOW <= HIGH": not 0 <= low <= high,
            "steps must not be negative": self.steps < 0,
            "batch must be positive": self.batch < 1,
            "rates must be positive": min(self.lr, self.adam_lr) <= 0,
            "gray_share and warmup are shares from 0 to 1": not (0 <= self.gray_share <= 1 and 0 <= self.warmup <= 1),
            "ema must be at least 0 and below 1": not 0 <= self.ema < 1,
            "clip must be positive": self.clip <= 0,
            "residual_gain must not be negative": self.residual_gain < 0,
            "seed must not be negative": self.seed < 0,
            f"patch must be a positive multiple of {self.multiple}, the total stride": (
                self.patch < 1 or self.patch % self.multiple != 0
            ),
            "cutblur needs input and truth of one size: leave it out for super-resolution": (
                self.scale > 1 and "cutblur" in self.augment
            ),
            "the level of super-resolution is its scale; leave the level range out": (
                self.scale > 1 and {low, high} != {self.scale}
            ),
        }
        for message, broken in wrong.items():
            if broken:
                raise UsageError(message)

    @property
    def architecture(self) -> Architecture:
        """The shape of the network to train."""
        planes = find_task(self.task).condition_planes
        return Architecture(
            self.widths,
            self.blocks,
            self.activation,
            condition_planes=planes,
            scale=self.scale,
            layout=self.layout,
            skips=self.skips,
            upsampling=self.upsampling,
        )

    @property
    def multiple(self) -> int:
        """What the sides of a clean picture must be multiples of to go through degradation and network."""
        return self.architecture.size_multiple * self.scale

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for TOML and JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }


def config_from_dict(values: dict[str, Any], source: str) -> TrainConfig:
    """Check names and types of plain values and make a config of them.

    Parameters
    ----------
    values
        Field name to value; lists stand for tuples.
    source
        Where the values come from, for the message.

    Raises
    ------
    UsageError
        If a name is unknown or a value has the wrong type or range.
    """
    defaults = dataclasses.asdict(TrainConfig())
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in defaults:
            raise UsageError(f"{source}: {unknown_name('key', key, defaults)}")
        checked[key] = _as_type_of(defaults[key], value, f"{source}: {key}")
    return TrainConfig(**checked)


def load_toml(path: Path) -> dict[str, Any]:
    """Read the values of a TOML file.

    Raises
    ------
    UsageError
        If the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot read the configuration ({error})") from error


def _as_type_of(default: Any, value: Any, name: str) -> Any:  # noqa: ANN401 - TOML values
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(_as_type_of(default[0] if default else 0.0, entry, name) for entry in value)
    if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(default):
        return value
    raise UsageError(f"{name} must be a {type(default).__name__}, not {value!r}")
