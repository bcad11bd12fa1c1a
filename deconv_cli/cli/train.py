"""``deconv train``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deconv_cli.cli import options as shared
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.cli.signals import graceful_stop
from deconv_cli.cli.streams import Streams
from deconv_cli.errors import UsageError, unknown_name

NOISE_TASKS = {"gaussian": "denoise", "camera": "photo"}
"""Kind of noise to the task that undoes it."""

BELONGINGS = {
    "optimizer": ("lr", "adam_lr"),
    "task": ("scale", "level_range"),
    "scale": ("level_range",),
    "layout": ("widths", "blocks", "inner", "upsampling"),
    "widths": ("inner",),
    "blocks": ("inner",),
}
"""Values of a configuration that mean something for one choice only."""

UNSUITED_TO_CLASSIFY = ("paired", "init", "teacher", "resume", "max_time")
"""Options, as fields of a request, that ``--task classify`` has no use for."""

if TYPE_CHECKING:
    from rich.table import Table

    from deconv_cli.network.description import Architecture
    from deconv_cli.training.classification import Confusion
    from deconv_cli.training.config import TrainConfig
    from deconv_cli.training.loop import Progress, Result
    from deconv_cli.training.run_files import RunFiles
    from deconv_cli.training.validation import Score


def train(
    context: typer.Context,
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", show_default=False, help="Clean pictures, found recursively."),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="denoise|decompress|photo|sr|classify",
            help="What the network is to undo; or to tell apart: FOLDER then has a folder for each class. [denoise]",
        ),
    ] = None,
    scale: Annotated[
        int | None, typer.Option(metavar="2|3|4", help="Enlargement to learn; implies --task sr. [sr: 2]")
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="relu, leaky_relu, leaky_relu_0.2, prelu, tanh, sigmoid, elu, gelu, silu, mish or none; the"
            " initialisation is matched to it. [leaky_relu_0.2; relu to classify]",
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(metavar="gaussian|camera", help="Kind of noise; camera implies --task photo. [gaussian]"),
    ] = None,
    noise_level: Annotated[
        str | None, typer.Option(metavar="LOW:HIGH", help="Range of sigma on the 0..255 scale. [0:75; photo: 0:50]")
    ] = None,
    quality: Annotated[str | None, typer.Option(metavar="LOW:HIGH", help="Range of JPEG quality. [5:95]")] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="flip, rotate, scale, colour, brightness, mixup, cutblur, soften, mosaic, flat, text or border,"
            " or 'none' [flip,rotate]; classify: flip, rotate, colour, brightness, mixup, tilt or shift"
            " [flip,tilt,shift].",
        ),
    ] = None,
    gray_share: Annotated[
        float | None, typer.Option(help="Share of patches turned to gray; 1 makes a network of one channel. [0.4]")
    ] = None,
    imbalance: Annotated[
        str | None,
        typer.Option(
            metavar="none|weights|sampling",
            help="Of classify, if classes differ in number: errors of rare ones count for more, or all are drawn alike."
            " [none]",
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures to validate on. [a tenth of the training pictures, 1 to 16]"),
    ] = None,
    paired: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Degraded twins of the pictures, matched by name. [the noise is made]"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps. [as many as --max-time allows; classify: 1500]")
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time to train, such as 90s, 30m or 2h. [20m]")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Patches a step. [16; classify: 32]")] = None,
    patch: Annotated[
        int | None, typer.Option(help="Side of a clean patch, or of the picture to classify. [96; classify: 32]")
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            metavar="pyramid|rednet",
            help="Levels that halve the side, or RED-Net's stack at full resolution (15 + 15 layers of 64). [pyramid]",
        ),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Channels a level, from full resolution down. [32,64,128,240; sr: 64,128; classify: 16,32,64]",
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Residual blocks a level and side. [1,1,2,3; sr: 4,2; classify: 1,1,1]"),
    ] = None,
    skips: Annotated[
        bool | None, typer.Option("--skips/--no-skips", help="Add the encoder's features to the decoder's. [skips]")
    ] = None,
    upsampling: Annotated[
        str | None,
        typer.Option(
            metavar="deconv|resize|shuffle",
            help="How a pyramid goes up: transposed convolution, nearest neighbour and convolution, or pixel shuffle."
            " [deconv]",
        ),
    ] = None,
    initialisation: Annotated[
        str | None,
        typer.Option(metavar="matched|default", help="Matched to the activation, or PyTorch's default. [matched]"),
    ] = None,
    residual_gain: Annotated[
        float | None,
        typer.Option(help="Scale of the residual branches in a matched initialisation. [0.1]"),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(metavar="muon|adamw|sgd", help="How to descend. [muon; classify: adamw]")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(min=1e-9, help="Peak learning rate. [muon 0.01, adamw 0.001, sgd 0.1]")
    ] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Share of the steps over which the rate rises from zero. [0.03]")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Norm above which the gradient is scaled down to it. [1]")] = None,
    loss: Annotated[str | None, typer.Option(metavar="l1|charbonnier|mse|rmse", help="What to minimise. [l1]")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides initialisation and every draw. [0]")] = None,
    watch_gradients: Annotated[
        bool,
        typer.Option(
            "--watch-gradients",
            help="Log the health of gradients and units every 50 steps, and warn of what is vanishing, exploding, dead"
            " or saturated.",
        ),
    ] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Hyper-parameters; flags win over it.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Weights to start from. [random initialisation]")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Weights for the same task to learn from: what they make of a picture in all eight orientations takes"
            " the place of the clean picture.",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="auto|FILE", help="Checkpoint to go on from; auto: that of --out, if there is one."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The best weights. [FOLDER-TASK-ACTIVATION.safetensors]", show_default=False),
    ] = None,
    overwrite: shared.Overwrite = False,
    device: shared.Device = "auto",
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Train a network on folders of clean pictures.

    deconv train ./images

    deconv train ./images --activation tanh --max-time 1h

    deconv train ./classes --task classify

    Beside the best weights a folder of the same name gets the last weights, the checkpoint, the effective
    configuration, the log and its curves. Ctrl-C saves; --resume auto goes on.
    """
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    shared.require_folders(*folders, *filter(None, (val, paired)))
    if steps is not None and max_time is not None:
        raise UsageError("--steps and --max-time exclude each other")
    task = _implied_task(task, scale, noise)
    from deconv_cli.training.config import load_toml

    toml = load_toml(config) if config else {}
    kind = task or toml.get("task", "denoise")
    flags = {
        "task": task,
        "scale": scale,
        "activation": activation,
        "level_range": _level_range(kind, noise_level, quality),
        "augment": [] if augment == "none" else shared.parse_names(augment),
        "gray_share": gray_share,
        "imbalance": imbalance,
        "steps": steps,
        "batch": batch,
        "patch": patch,
        "layout": architecture,
        "widths": shared.parse_numbers(widths, "--widths", ",", int),
        "blocks": shared.parse_numbers(blocks, "--blocks", ",", int),
        "skips": skips,
        "upsampling": upsampling,
        "initialisation": initialisation,
        "residual_gain": residual_gain,
        "optimizer": optimizer,
        "lr": lr,
        "warmup": warmup,
        "clip": clip,
        "loss": loss,
        "seed": seed,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    _refuse_unsuited(given, kind)
    request = _Request(
        folders=folders,
        validation=val,
        paired=paired,
        config=config,
        init=init,
        teacher=teacher,
        resume=resume,
        max_time=max_time,
        out=out,
        overwrite=overwrite,
        watch_gradients=watch_gradients,
        device=device,
        json=json,
    )
    carry_out = _train_classifier if kind == "classify" else _train_restoration
    raise typer.Exit(carry_out(streams, request, _without_stale(toml, given, streams), given))


@dataclass(frozen=True)
class _Request:
    """What was asked for beside the hyper-parameters."""

    folders: list[Path]
    validation: Path | None
    paired: Path | None
    config: Path | None
    init: str | None
    teacher: str | None
    resume: str | None
    max_time: str | None
    out: Path | None
    overwrite: bool
    watch_gradients: bool
    device: str
    json: bool

    def source(self, given: Collection[str]) -> str:
        """Return where the hyper-parameters come from, for messages."""
        options = "options" if given or not self.config else None
        return " and ".join(str(part) for part in (self.config, options) if part)

    @property
    def all_folders(self) -> list[Path]:
        return [*self.folders, *filter(None, (self.validation, self.paired))]

    def run_files(self, task: str, activation: str) -> RunFiles:
        """Return the files of the training: ``--out``, or named after the first folder and what is trained."""
        from deconv_cli.images.paths import folder_name
        from deconv_cli.training.run_files import RunFiles

        return RunFiles(self.out or Path(f"{folder_name(self.folders[0])}-{task}-{activation}.safetensors"))


def _train_restoration(streams: Streams, request: _Request, toml: dict[str, Any], given: dict[str, Any]) -> ExitCode:
    """Carry out ``train`` for what a network is to undo."""
    from deconv_cli.network.bundled import find_weights, load_by_name
    from deconv_cli.network.device import find_device
    from deconv_cli.tasks import find_task
    from deconv_cli.training import loop

    max_seconds = parse_time(request.max_time or "20m")
    if request.max_time and toml.pop("steps", None):
        streams.message("steps of the configuration left aside: --max-time is given")
    start = find_weights(request.init) if request.init else None
    settings = _settings(request, toml, given)
    files = request.run_files(find_task(settings.task).weights_name(settings.scale), settings.activation)
    checkpoint = _find_checkpoint(request.resume, files.checkpoint)
    if checkpoint:
        settings = _config_to_resume(checkpoint, settings, given, request.config)
        if request.max_time:
            streams.message(f"goes on to step {settings.steps}, as planned; --max-time is not heeded")
    hint = ", but left no checkpoint; use" if request.resume == "auto" else "; use --resume auto to go on,"
    replace = request.overwrite or _is_the_same(files, request.resume, checkpoint)
    _refuse(files, request.all_folders, replace=replace, hint=hint)

    with graceful_stop() as stop, streams.progress(settings.steps, "step") as bar:

        def report(progress: Progress) -> None:
            bar.total = progress.steps
            bar.update(progress.step - bar.n)
            bar.set_postfix_str(f"loss {progress.loss:.4f}")
            if progress.scores:
                streams.message(f"step {progress.step} of {progress.steps}: {_in_words(progress.scores)}")

        result = loop.train(
            request.folders,
            files.out,
            settings,
            validation=request.validation,
            paired=request.paired,
            init=start,
            teacher=load_by_name(request.teacher) if request.teacher else None,
            resume=checkpoint,
            max_seconds=max_seconds,
            watch_gradients=request.watch_gradients,
            device=find_device(request.device),
            report=report,
            stop=stop,
        )
    _finish(streams, files, result, json=request.json)
    return stop.code or ExitCode.OK


def _train_classifier(streams: Streams, request: _Request, toml: dict[str, Any], given: dict[str, Any]) -> ExitCode:
    """Carry out ``train --task classify``."""
    from deconv_cli.network.device import find_device
    from deconv_cli.training.classification import train_classifier
    from deconv_cli.training.config import ClassifyConfig, config_from_dict

    unsuited = [name for name in UNSUITED_TO_CLASSIFY if getattr(request, name) is not None]
    if unsuited:
        options = ", ".join("--" + name.replace("_", "-") for name in unsuited)
        raise UsageError(f"{options}: not for --task classify")
    if len(request.folders) > 1:
        raise UsageError("--task classify takes one FOLDER, with a folder for each class in it")
    settings = config_from_dict({**toml, **given}, request.source(given), ClassifyConfig)
    files = request.run_files("classify", settings.activation)
    _refuse(files, request.all_folders, replace=request.overwrite, hint="; use")
    with graceful_stop() as stop, streams.progress(settings.steps, "step") as bar:

        def report(progress: Progress, confusion: Confusion | None) -> None:
            bar.update(progress.step - bar.n)
            bar.set_postfix_str(f"loss {progress.loss:.4f}")
            if confusion:
                streams.message(
                    f"step {progress.step} of {progress.steps}: {confusion.accuracy:.2%} right, balanced recall"
                    f" {confusion.balanced_recall:.2%}"
                )

        result = train_classifier(
            request.folders[0],
            files.out,
            settings,
            validation=request.validation,
            watch_gradients=request.watch_gradients,
            device=find_device(request.device),
            report=report,
            stop=stop,
        )
    if request.json:
        done = {name: getattr(result, name) for name in ("step", "steps", "seconds")}
        streams.json({"weights": str(files.out), **done, **result.confusion.to_dict()})
    else:
        streams.table(_confusion_table(result.confusion))
    if result.step < result.steps:
        streams.message(
            f"stopped at step {result.step} of {result.steps}; the training of a classifier cannot be resumed"
        )
    streams.message(f"{files.out}: the weights; log and configuration are in {files.folder}")
    streams.message(f"try them: deconv classify --weights {shlex.quote(str(files.out))} IMAGE...")
    return stop.code or ExitCode.OK


def _confusion_table(confusion: Confusion) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title="held-out pictures: true class by predicted class")
    for heading in ("", *confusion.classes, "recall"):
        table.add_column(Text(heading), justify="right")
    for name, row in zip(confusion.classes, confusion.matrix, strict=True):
        table.add_row(Text(name), *map(str, row), f"{confusion.recalls[name]:.1%}")
    table.caption = f"{confusion.accuracy:.2%} right, balanced recall {confusion.balanced_recall:.2%}"
    return table


def parse_time(text: str) -> float:
    """Turn a time such as ``90s``, ``30m`` or ``1.5h`` into seconds; a bare number is minutes.

    >>> [parse_time(text) for text in ("90s", "30m", "1.5h", "2")]
    [90.0, 1800.0, 5400.0, 120.0]
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or not float(match[1]):
        raise UsageError(f"--max-time takes a time such as 90s, 30m or 2h, not '{text}'")
    return float(match[1]) * {"s": 1, "m": 60, "": 60, "h": 3600}[match[2]]


def _implied_task(task: str | None, scale: int | None, noise: str | None) -> str | None:
    """Return the task that the flags mean, refusing those that contradict each other."""
    if noise not in (None, *NOISE_TASKS):
        raise unknown_name("noise", str(noise), NOISE_TASKS)
    implied = {"--scale": "sr" if scale else None, "--noise": NOISE_TASKS[noise] if noise else None}
    for option, meant in implied.items():
        if meant and task not in (None, meant):
            raise UsageError(f"{option} means --task {meant}, not {task}")
        task = meant or task
    return task


def _level_range(task: str, noise_level: str | None, quality: str | None) -> list[float] | None:
    """Return the range given for the level of the task, refusing that of another task."""
    given = {"--noise-level": (noise_level, tuple(NOISE_TASKS.values())), "--quality": (quality, ("decompress",))}
    for option, (text, owners) in given.items():
        if text is not None and task not in owners:
            raise UsageError(f"{option} is for --task {' or '.join(owners)}")
        if text is not None:
            return shared.parse_numbers(text, option, ":", float)
    return None


def _refuse_unsuited(given: Collection[str], task: str) -> None:
    """Refuse options that the task has no use for, before they are called unknown keys of a configuration."""
    from deconv_cli.training.config import ClassifyConfig, TrainConfig

    known = {field.name for field in fields(ClassifyConfig if task == "classify" else TrainConfig)}
    if unsuited := [_option(key, task) for key in given if key not in known]:
        raise UsageError(f"{', '.join(unsuited)}: not for --task {task}")


def _option(key: str, task: str) -> str:
    """Return what users call a value of the configuration on the command line."""
    renamed = {"layout": "architecture", "level_range": "quality" if task == "decompress" else "noise-level"}
    return "--" + renamed.get(key, key).replace("_", "-")


def _settings(request: _Request, toml: dict[str, Any], given: dict[str, Any]) -> TrainConfig:
    """Return the configuration: flags win over the file, and that over the weights to start from."""
    from deconv_cli.network.bundled import load_by_name
    from deconv_cli.training.config import config_from_dict

    values = {**toml, **given}
    if request.init:
        values = {**_shape_left_open(load_by_name(request.init).description.architecture, values), **values}
    return config_from_dict(values, request.source(given))


def _shape_left_open(architecture: Architecture, given: Collection[str]) -> dict[str, Any]:
    """Return what the weights to start from say about the shape of the network, where nothing else is given."""
    from deconv_cli.training.config import SHAPE

    shape = {name: getattr(architecture, name) for name in SHAPE if name not in given}
    if not {"widths", "blocks"}.isdisjoint(given):
        shape.pop("inner", None)  # These belong to other blocks.
    return shape


def _without_stale(toml: dict[str, Any], given: dict[str, Any], streams: Streams) -> dict[str, Any]:
    """Leave out of a configuration what belongs to a choice that the flags change."""
    changed = [key for key in BELONGINGS if key in given and key in toml and given[key] != toml[key]]
    stale = {name for key in changed for name in BELONGINGS[key] if name in toml and name not in given}
    if stale:
        streams.message(f"{', '.join(sorted(stale))} of the configuration left aside: {', '.join(changed)} is another")
    return {name: value for name, value in toml.items() if name not in stale}


def _find_checkpoint(resume: str | None, own: Path) -> Path | None:
    if resume == "auto":
        return own if own.is_file() else None
    return Path(resume) if resume else None


def _config_to_resume(
    checkpoint: Path, settings: TrainConfig, given: dict[str, Any], config: Path | None
) -> TrainConfig:
    """Return the checkpoint's configuration, after checking that nothing was asked for that contradicts it."""
    from deconv_cli.training.checkpoint import read_config

    saved, _ = read_config(checkpoint)
    before, now = saved.to_dict(), settings.to_dict()
    named = now if config else given
    changed = [key for key in named if before[key] != now[key] and not (key == "steps" and not now[key])]
    if changed:
        names = [_option(key, saved.task) if key in given else key for key in changed]
        raise UsageError(
            f"{checkpoint}: was made with other values of {', '.join(names)}; leave them out to resume, or start anew"
            " with --init"
        )
    return saved


def _is_the_same(files: RunFiles, resume: str | None, checkpoint: Path | None) -> bool:
    """Tell whether the training that was here is the one to go on with, maybe from the beginning."""
    if checkpoint is None:
        return resume == "auto" and not files.out.exists()
    return files.checkpoint.is_file() and checkpoint.samefile(files.checkpoint)


def _refuse(files: RunFiles, folders: Collection[Path], *, replace: bool, hint: str) -> None:
    """Refuse to write over what is here, or into a folder of pictures."""
    from deconv_cli.images import find_pictures
    from deconv_cli.training.run_files import is_run_folder

    shared.require_weights_path(files.out)
    given = files.folder.resolve() in [folder.resolve() for folder in folders]
    ours = is_run_folder(files.folder) and not given
    if files.folder.is_dir() and not ours and find_pictures(files.folder, recursive=True):
        raise UsageError(
            f"{files.out}: log and checkpoint would go into {files.folder}, which holds pictures; give another --out"
        )
    if not replace and (files.out.exists() or files.folder.exists()):
        raise UsageError(f"{files.out}: a training was here already{hint} --overwrite to replace it, or --out")


def _in_words(scores: tuple[Score, ...]) -> str:
    return ", ".join(
        f"level {score.level:g}: {score.psnr:.2f} dB / {score.ssim:.4f} (input {score.input_psnr:.2f} /"
        f" {score.input_ssim:.4f})"
        for score in scores
    )


def _finish(streams: Streams, files: RunFiles, result: Result, *, json: bool) -> None:
    from dataclasses import asdict

    if json:
        scores = [score.to_dict() for score in result.scores]
        streams.json({"weights": str(files.out), **asdict(result), "scores": scores})
    if result.skipped:
        streams.warning(f"{result.skipped} steps were not finite and were left out")
    out = shlex.quote(str(files.out))
    if result.step < result.steps:
        streams.message(f"stopped at step {result.step} of {result.steps}; go on with: --out {out} --resume auto")
    streams.message(f"{files.out}: the best weights; log, curves and checkpoint are in {files.folder}")
    streams.message(f"try them: deconv restore --weights {out} INPUT OUTPUT")
