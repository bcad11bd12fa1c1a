"""A compression from beginning to end: prune, fine-tune, quantize, fine-tune, save."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deconv_cli.compression.calibration import Crops, draw_crops
from deconv_cli.compression.pruning import choose_channels, find_importance, prune
from deconv_cli.compression.quantization import Choice, calibrate, choose_layers, find_bias_errors, quantize
from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.images.paths import folder_name
from deconv_cli.network.description import Description
from deconv_cli.network.fake_quantization import fake_quantize
from deconv_cli.network.weights import Weights, load_weights, save_weights
from deconv_cli.tasks import Task, find_task
from deconv_cli.training.config import OPTIMIZERS, SHAPE, TrainConfig, config_from_dict
from deconv_cli.training.data import PictureSet, split_pictures
from deconv_cli.training.loop import Progress, train
from deconv_cli.training.run_files import RunFiles

PRUNED_RATE, ROUNDED_RATE = 0.3, 0.05
"""Learning rates of the fine-tunings, as shares of the optimiser's own: a pruned network has more to learn again."""
ADAM_SHARE = 0.05
"""Rate of Adam over that of Muon, as in the defaults of the training."""
DISK_TYPES: dict[str, type[np.floating[Any]]] = {"fp16": np.float16, "fp32": np.float32}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compression:
    """What is to be done.

    Attributes
    ----------
    prune
        Share of the multiply-adds to take out, as whole channels.
    quantize
        ``int8``, or empty.
    max_loss
        Most that quantization may cost at any of `levels`, in dB; layers stay in float until it does not.
    finetune
        Steps of training after pruning, and again with rounding.
    levels
        Degradation levels to measure at; empty means those that the task reports.
    precision
        Number format on disk of what is not int8: ``fp16`` or ``fp32``.
    lr, batch, patch, seed
        Of the fine-tuning; 0 or None means what the weights were trained with, and for the rate a share of the
        optimiser's own.
    """

    prune: float = 0.0
    quantize: str = ""
    max_loss: float = 0.05
    finetune: int = 0
    levels: tuple[float, ...] = ()
    precision: str = "fp16"
    lr: float = 0.0
    batch: int | None = None
    patch: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for message, broken in {
            "give --prune FRACTION, --quantize int8, or both": not self.prune and not self.quantize,
            f"--prune takes a share of the multiply-adds from 0 to 1, not {self.prune:g}": not 0 <= self.prune < 1,
            f"--quantize takes int8, not '{self.quantize}'": self.quantize not in ("", "int8"),
            f"--max-loss is a number of decibels, not {self.max_loss:g}": not self.max_loss >= 0,
            f"--precision takes {' or '.join(DISK_TYPES)}, not '{self.precision}'": self.precision not in DISK_TYPES,
            "--finetune must not be negative": self.finetune < 0,
        }.items():
            if broken:
                raise UsageError(message)


@dataclass(frozen=True)
class Compressed:
    """What came out of it.

    Attributes
    ----------
    weights
        The compressed weights.
    choice
        Which layers run in eight bits, if any were to.
    """

    weights: Weights
    choice: Choice | None


@dataclass(frozen=True)
class Callbacks:
    """How a caller follows a compression.

    Attributes
    ----------
    stage
        Told in words what begins.
    trained
        Called after every step of a fine-tuning.
    layers
        Wraps the names of layers, to show progress.
    stop
        Asked after every step of a fine-tuning, before every layer that is looked at, and before the weights are
        written; on True the compression ends.
    """

    stage: Callable[[str], None] = lambda _: None
    trained: Callable[[Progress], None] = lambda _: None
    layers: Callable[[Iterable[str]], Iterable[str]] = lambda names: names
    stop: Callable[[], bool] = lambda: False


SILENT = Callbacks()


def compress(
    source: Path,
    folders: Sequence[Path],
    out: Path,
    wanted: Compression,
    *,
    validation: Path | None = None,
    device: torch.device | None = None,
    callbacks: Callbacks = SILENT,
) -> Compressed | None:
    """Make a smaller and faster network of a trained one.

    Parameters
    ----------
    source
        Weights of a restoration, in float.
    folders
        Clean pictures to decide by and to train on.
    out
        Where the compressed weights go; the files of the fine-tunings go into a folder of the same name beside them.
    wanted
        What to do.
    validation
        Pictures to validate the fine-tunings on; by default a tenth of the others is held out, as in a training.
    device
        Where the fine-tunings run; the processor by default.
    callbacks
        How to follow it.

    Returns
    -------
    Compressed or None
        None if it was stopped; then nothing was written to `out`.

    Raises
    ------
    UsageError
        If the weights cannot be compressed so.
    DeconvError
        If weights or pictures cannot be used, or a fine-tuning diverges.
    """
    weights = load_weights(source)
    recipe, history = weights.recipe, _history(weights, folders, wanted)
    refuse(weights, source, wanted)
    task = find_task(weights.description.task)
    if pairs := recipe.get("paired"):
        log.warning(
            "%s: trained on the pairs of %s, but compressed, fine-tuned and measured on the degradation that %s makes"
            " by code; compare both on such pictures by deconv score",
            source,
            pairs,
            task.name,
        )
    config, levels = training_config(weights, wanted), levels_to_measure(weights.description, wanted.levels)
    pictures = PictureSet(split_pictures(folders, validation)[0], config.patch)
    tune = functools.partial(
        _finetune, teacher=weights, folders=folders, validation=validation, device=device, callbacks=callbacks
    )
    crops = draw_crops(pictures, config, task, {*levels, *config.level_range})
    stages = _Stages(wanted, config, task, crops, RunFiles(out).folder, tune, callbacks)
    choice = None
    try:
        if wanted.prune:
            weights = stages.prune(weights)
        if wanted.quantize:
            weights, choice = stages.quantize(weights, levels)
            if not choice.quantization:
                raise DeconvError(
                    f"{source}: no layer can run in eight bits and lose at most {wanted.max_loss:g} dB; give a higher"
                    " --max-loss"
                )
            history |= {"in_float": choice.in_float, "sensitivity": dict(choice.sensitivity)}
    except _StoppedError:
        return None
    weights = dataclasses.replace(
        weights,
        description=dataclasses.replace(weights.description, name=out.stem),
        recipe={**recipe, "inner": list(weights.description.architecture.inner), "compression": history},
    )
    if callbacks.stop():
        return None
    save_weights(out, weights, dtype=DISK_TYPES[wanted.precision])
    return Compressed(weights, choice)


class _StoppedError(Exception):
    """The compression was to stop within a stage of it."""


@dataclass(frozen=True)
class _Stages:
    """The two stages, each with its fine-tuning, and what both work with."""

    wanted: Compression
    config: TrainConfig
    task: Task
    crops: Crops
    folder: Path
    tune: Callable[..., Weights]
    callbacks: Callbacks

    def prune(self, weights: Weights) -> Weights:
        self.callbacks.stage(f"pruning {self.wanted.prune:.0%} of the multiply-adds")
        importance = find_importance(weights.build(), self.crops, self.task, self.config.loss)
        pruned = prune(weights, choose_channels(self.config.architecture, importance, self.wanted.prune))
        if not self.wanted.finetune:
            return pruned
        return self.tune(pruned, self.folder / "pruned.safetensors", self._config(pruned, PRUNED_RATE))

    def quantize(self, weights: Weights, levels: Sequence[float]) -> tuple[Weights, Choice]:
        self.callbacks.stage("choosing the layers to run in eight bits")
        network = weights.build()
        choice = choose_layers(
            network,
            calibrate(network, self.crops, self.task),
            {level: self.crops[level] for level in levels},
            self.task,
            max_loss=self.wanted.max_loss,
            progress=self.callbacks.layers,
            stop=self.callbacks.stop,
        )
        if choice is None:
            raise _StoppedError
        if not choice.quantization:
            return weights, choice
        if not self.wanted.finetune:
            errors = find_bias_errors(network, choice.quantization, self.crops, self.task)
            return quantize(weights, choice.quantization, errors), choice
        adapt = functools.partial(fake_quantize, quantization=choice.quantization, round_kernels=True)
        config = self._config(weights, ROUNDED_RATE)
        tuned = self.tune(weights, self.folder / "rounded.safetensors", config, adapt=adapt)
        return quantize(tuned, choice.quantization), choice

    def _config(self, weights: Weights, share: float) -> TrainConfig:
        """Return the configuration of a fine-tuning, at a share of the optimiser's own rate if none is given."""
        lr = self.wanted.lr or share * OPTIMIZERS[self.config.optimizer]
        inner = weights.description.architecture.inner
        return dataclasses.replace(self.config, inner=inner, lr=lr, adam_lr=lr * ADAM_SHARE)


def refuse(weights: Weights, source: Path, wanted: Compression) -> None:
    """Refuse weights that cannot be compressed, or not so.

    Raises
    ------
    UsageError
        If so.
    """
    if weights.description.classes:
        raise UsageError(f"{source}: these weights tell classes apart; only restorations can be compressed")
    if weights.quantization:
        raise UsageError(f"{source}: these weights are in int8 already; give those in float that they were made from")
    if wanted.prune and weights.description.architecture.layout == "rednet":
        raise UsageError(f"{source}: a rednet cannot be pruned, since all of its layers are on a skip; quantize it")


def _history(weights: Weights, folders: Sequence[Path], wanted: Compression) -> dict[str, Any]:
    """Return what the file is to tell about this compression and those before it."""
    history = dataclasses.asdict(wanted) | {
        "levels": list(wanted.levels),
        "folders": [folder_name(folder) for folder in folders],
        "of": weights.sha256,
    }
    if "compression" in weights.recipe:
        history["earlier"] = weights.recipe["compression"]
    return history


def training_config(weights: Weights, wanted: Compression) -> TrainConfig:
    """Return the configuration that the weights were trained with, for their shape and with what is asked for."""
    description = weights.description
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    recipe: dict[str, Any] = {key: value for key, value in weights.recipe.items() if key in names}
    shape = {name: getattr(description.architecture, name) for name in (*SHAPE, "scale")}
    given = {"batch": wanted.batch, "patch": wanted.patch, "seed": wanted.seed}
    values = {
        **recipe,
        **shape,
        **{name: value for name, value in given.items() if value is not None},
        "task": description.task,
        "level_range": list(description.level_range),
        "steps": wanted.finetune,
    }
    return config_from_dict(values, description.name)


def levels_to_measure(description: Description, levels: Sequence[float]) -> tuple[float, ...]:
    """Return the levels given, or those that the task reports and the weights were trained for.

    Raises
    ------
    UsageError
        If one is outside the range of the training, or given for super-resolution, whose level is its scale.
    """
    low, high = description.level_range
    if description.scale > 1 and levels:
        raise UsageError("the level of super-resolution is its scale; leave --levels out")
    if outside := [level for level in levels if not low <= level <= high]:
        raise UsageError(f"--levels {outside[0]:g} is outside the range {low:g} to {high:g} of the weights")
    return tuple(levels) or find_task(description.task).levels_within(low, high)


def _finetune(
    weights: Weights,
    out: Path,
    config: TrainConfig,
    *,
    teacher: Weights,
    folders: Sequence[Path],
    validation: Path | None,
    device: torch.device | None,
    callbacks: Callbacks,
    adapt: Callable[[Any], None] = lambda _: None,
) -> Weights:
    """Train on from the weights to do what the teacher does; return the best of it.

    Raises
    ------
    _StoppedError
        If it was stopped.
    """
    callbacks.stage(f"fine-tuning for {config.steps} steps at a rate of {config.lr:g}")
    RunFiles(out).make_folder()
    start = out.with_name(f"{out.stem}-start.safetensors")
    save_weights(start, weights, dtype=np.float32)
    result = train(
        folders,
        out,
        config,
        validation=validation,
        device=device,
        init=start,
        adapt=adapt,
        teacher=teacher,
        self_ensemble=False,  # In few steps more is won by a target that does not turn: docs/compression.md.
        report=callbacks.trained,
        stop=callbacks.stop,
    )
    if result.step < result.steps:
        raise _StoppedError
    return load_weights(out)
