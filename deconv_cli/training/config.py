"""The hyper-parameters of a training, as flags, as TOML and as saved beside the weights."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from deconv_cli.errors import UsageError, unknown_name
from deconv_cli.network.activations import find_activation
from deconv_cli.network.description import LAYOUTS, Architecture
from deconv_cli.tasks import find_task
from deconv_cli.training.augmentation import CLASSIFICATION, RESTORATION

OPTIMIZERS = {"muon": 0.01, "adamw": 1e-3, "sgd": 0.1}
"""The optimisers, each with its default rate."""
PRECISIONS = ("auto", "fp32", "bf16")
LOSSES = ("l1", "charbonnier", "mse", "rmse")
INITIALISATIONS = ("matched", "default")
IMBALANCE = ("none", "weights", "sampling")
SHAPE = ("activation", "layout", "widths", "blocks", "skips", "upsampling", "inner")
"""The shape of a network, which it has in common with the weights that it starts from, unless it is given."""
RED30 = (64,), (15,)
"""Widths and blocks of the rednet of the paper."""


@dataclass(frozen=True)
class FitConfig:
    """What decides how a network is built and fitted, whatever it is to do.

    Attributes
    ----------
    activation, layout, widths, blocks, skips, upsampling, inner
        Shape of the network: see `deconv_cli.network.description.Architecture`. Empty widths or blocks mean the task's
        own, or those of RED30 for a rednet.
    initialisation
        ``matched`` to the activation, or PyTorch's ``default``.
    residual_gain
        Gain of the last convolution of a residual branch in a matched initialisation.
    augment
        Names of augmentations; see `deconv_cli.training.augmentation`.
    steps
        Optimiser steps; 0 means as many as fit into the time given.
    batch, patch
        Pictures or patches a step, and their side in pixels.
    optimizer, lr, adam_lr
        Muon with its rate for the kernels and Adam's for the rest, or AdamW or SGD (momentum 0.9) with `lr` for all;
        0 is the optimiser's own default.
    warmup
        Share of the steps over which the rate rises from zero, before it falls to zero along a half cosine.
    clip
        Largest norm of the gradient; a larger one is scaled down.
    precision
        Number format of the network's layers: ``auto`` is bfloat16 where the machine is faster in it, else float32.
    seed
        Everything sampled at a step is a function of this and the step.
    """

    suited: ClassVar[Collection[str]] = RESTORATION
    """Augmentations to choose from."""

    activation: str = "leaky_relu_0.2"
    layout: str = "pyramid"
    widths: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    skips: bool = True
    upsampling: str = "deconv"
    inner: tuple[int, ...] = ()
    initialisation: str = "matched"
    residual_gain: float = 0.1
    augment: tuple[str, ...] = ("flip", "rotate")
    steps: int = 0
    batch: int = 16
    patch: int = 96
    optimizer: str = "muon"
    lr: float = 0.0
    adam_lr: float = 5e-4
    warmup: float = 0.03
    clip: float = 1.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_names()
        own = {**self._defaults(), "lr": OPTIMIZERS[self.optimizer]}
        if self.layout == "rednet":
            own |= {"widths": RED30[0], "blocks": RED30[1]}
        for name, value in own.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        for message, broken in self._faults().items():
            if broken:
                raise UsageError(message)

    def _defaults(self) -> dict[str, Any]:
        """Return what fields that were left empty stand for."""
        raise NotImplementedError

    def _check_names(self) -> None:
        find_activation(self.activation)
        for kind, names, valid in (
            ("optimizer", (self.optimizer,), OPTIMIZERS),
            ("architecture", (self.layout,), LAYOUTS),
            ("initialisation", (self.initialisation,), INITIALISATIONS),
            ("precision", (self.precision,), PRECISIONS),
            ("augmentation", self.augment, self.suited),
        ):
            for name in names:
                if name not in valid:
                    raise unknown_name(kind, name, valid)

    def _faults(self) -> dict[str, bool]:
        """Return what could be wrong with the numbers, and whether it is."""
        return {
            "steps must not be negative": self.steps < 0,
            "batch must be positive": self.batch < 1,
            "rates must be positive": not all(0 < rate < math.inf for rate in (self.lr, self.adam_lr)),
            "warmup is a share from 0 to 1": not 0 <= self.warmup <= 1,
            "clip must be positive": not self.clip > 0,
            "residual_gain must not be negative": not 0 <= self.residual_gain < math.inf,
            "seed must not be negative": self.seed < 0,
            f"patch must be a positive multiple of {self.multiple}, the total stride": (
                self.patch < 1 or self.patch % self.multiple != 0
            ),
        }

    @property
    def architecture(self) -> Architecture:
        """The shape of the network to train."""
        return Architecture(
            self.widths,
            self.blocks,
            self.activation,
            condition_planes=0,
            layout=self.layout,
            skips=self.skips,
            upsampling=self.upsampling,
            inner=self.inner,
        )

    @property
    def multiple(self) -> int:
        """What the sides of a picture must be multiples of to go through the network."""
        return self.architecture.size_multiple

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for TOML and JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }


@dataclass(frozen=True)
class TrainConfig(FitConfig):
    """Everything that decides what a training of a restoration learns.

    Two equal configs on equal pictures learn the same. `patch` is the side of the clean picture's patch.

    Attributes
    ----------
    task
        What is to be undone: see `deconv_cli.tasks`.
    scale
        Output side over input side; 0 means the task's first.
    level_range
        Lowest and highest degradation level; empty means the task's own, which is the scale for super-resolution.
    level_power
        A level lies as far into its range as this power of a uniform number says: 1 samples uniformly, 2 the lower
        quarter of the range half of the time.
    gray_share
        Share of patches turned to gray, so that one model serves gray pictures too. With 1 the network has one
        channel.
    loss
        Mean over pixels of |error| (l1), sqrt(error^2 + 1e-6) (charbonnier) or error^2 (mse); or mean over patches
        of the square root of their mse (rmse), which is what PSNR is of, and pulls at patches of all levels alike.
    ema
        Decay of the moving average of the parameters, which is what is validated and saved.
    """

    task: str = "denoise"
    scale: int = 0
    level_range: tuple[float, ...] = ()
    level_power: float = 1.0
    gray_share: float = 0.4
    loss: str = "l1"
    ema: float = 0.999

    def _defaults(self) -> dict[str, Any]:
        task = find_task(self.task)
        scale = task.find_scale(self.scale or None)
        return {
            "widths": task.widths,
            "blocks": task.blocks,
            "scale": scale,
            "level_range": task.train_range if scale == 1 else (float(scale), float(scale)),
        }

    def _check_names(self) -> None:
        find_task(self.task)
        super()._check_names()
        if self.loss not in LOSSES:
            raise unknown_name("loss", self.loss, LOSSES)

    def _faults(self) -> dict[str, bool]:
        low, high = self.level_range if len(self.level_range) == 2 else (1.0, 0.0)
        least, most = find_task(self.task).limits
        return {
            **super()._faults(),
            f"the level range must be LOW:HIGH with {least:g} <= LOW <= HIGH <= {most:g}": (
                self.scale == 1 and not least <= low <= high <= most
            ),
            "level_power must be positive": not 0 < self.level_power < math.inf,
            "gray_share is a share from 0 to 1": not 0 <= self.gray_share <= 1,
            "ema must be at least 0 and below 1": not 0 <= self.ema < 1,
            "cutblur needs input and truth of one size: leave it out for super-resolution": (
                self.scale > 1 and "cutblur" in self.augment
            ),
            "the level of super-resolution is its scale; leave the level range out": (
                self.scale > 1 and {low, high} != {self.scale}
            ),
        }

    @property
    def architecture(self) -> Architecture:
        """The shape of the network to train."""
        planes, channels = find_task(self.task).condition_planes, 1 if self.gray_share == 1 else 3
        return dataclasses.replace(super().architecture, condition_planes=planes, scale=self.scale, channels=channels)

    @property
    def multiple(self) -> int:
        """What the sides of a clean picture must be multiples of to go through degradation and network."""
        return self.architecture.size_multiple * self.scale


@dataclass(frozen=True)
class ClassifyConfig(FitConfig):
    """Everything that decides what a training of a classifier learns. `patch` is the side of the pictures it sees.

    Attributes
    ----------
    imbalance
        What is done if some classes have fewer pictures: ``none``; ``weights``, their errors count for more;
        ``sampling``, every class is drawn equally often.
    """

    suited: ClassVar[Collection[str]] = CLASSIFICATION

    task: str = "classify"
    activation: str = "relu"
    augment: tuple[str, ...] = ("flip", "tilt", "shift")
    steps: int = 1500
    batch: int = 32
    patch: int = 32
    optimizer: str = "adamw"
    imbalance: str = "none"

    def _defaults(self) -> dict[str, Any]:
        return {"widths": (16, 32, 64), "blocks": (1, 1, 1)}

    def _check_names(self) -> None:
        super()._check_names()
        if self.imbalance not in IMBALANCE:
            raise unknown_name("imbalance", self.imbalance, IMBALANCE)

    def _faults(self) -> dict[str, bool]:
        return {**super()._faults(), "steps must be positive": self.steps < 1}


Config = TypeVar("Config", TrainConfig, ClassifyConfig)


def config_from_dict(values: dict[str, Any], source: str, kind: type[Config] = TrainConfig) -> Config:  # type: ignore[assignment]
    """Check names and types of plain values and make a config of them.

    Parameters
    ----------
    values
        Field name to value; lists stand for tuples.
    source
        Where the values come from, for the message.
    kind
        Class of the config.

    Raises
    ------
    UsageError
        If a name is unknown or a value has the wrong type or range.
    """
    defaults = dataclasses.asdict(kind())
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in defaults:
            raise UsageError(f"{source}: {unknown_name('key', key, defaults)}")
        checked[key] = _as_type_of(defaults[key], value, f"{source}: {key}")
    try:
        return kind(**checked)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error


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


_TOML_TYPES = {bool: "true or false", int: "an integer", float: "a number", str: "a string", tuple: "an array"}


def _as_type_of(default: Any, value: Any, name: str) -> Any:  # noqa: ANN401 - TOML values
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(_as_type_of(default[0] if default else 0, entry, name) for entry in value)
    if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(default):
        return value
    raise UsageError(f"{name} must be {_TOML_TYPES[type(default)]}, not {value!r}")
