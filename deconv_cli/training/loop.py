"""A training from beginning to end: set up, fit, validate, save."""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w
import torch
from torch import Tensor

from deconv_cli.errors import UsageError, cannot_write
from deconv_cli.images import write_atomically
from deconv_cli.images.paths import folder_name
from deconv_cli.metrics import mean_psnr
from deconv_cli.network.description import Description
from deconv_cli.network.device import find_precision
from deconv_cli.network.encoder_decoder import RestorationNetwork
from deconv_cli.network.weights import Weights, load_weights, save_weights, to_parameters
from deconv_cli.tasks import Task, find_task
from deconv_cli.training.augmentation import PAIRED
from deconv_cli.training.checkpoint import (
    TrainState,
    load_checkpoint,
    new_state,
    read_config,
    save_checkpoint,
)
from deconv_cli.training.config import TrainConfig
from deconv_cli.training.data import PictureSet, find_twins, prefetch, read_held_out, split_pictures
from deconv_cli.training.divergence import Divergence, divergence_error
from deconv_cli.training.gradient_health import GradientWatch, finite
from deconv_cli.training.optimizer import rate_factor
from deconv_cli.training.record import Record, plot_record, read_record
from deconv_cli.training.run_files import RunFiles
from deconv_cli.training.start import initial_parameters
from deconv_cli.training.step import find_step, train_step, within_memory
from deconv_cli.training.teacher import Teacher, find_teacher
from deconv_cli.training.validation import (
    Case,
    Score,
    leave_out_blank,
    make_cases,
    smallest_side,
    validate,
)

TIMED_STEPS = 20
LOG_EVERY = 50
VALIDATIONS = 20
"""Times a long training is validated and checkpointed, the end included."""
MIN_STEPS_BETWEEN_VALIDATIONS = 100
ESTIMATED = "mean estimated noise level of the pairs (sigma on 0..255)"
"""What the level of pairs is, whatever the task: how they were degraded, nobody said."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """What a training tells its caller after each step.

    Attributes
    ----------
    step, steps
        Steps done, and steps in all.
    loss
        Loss of the step.
    scores
        Validation scores, when this step was validated.
    """

    step: int
    steps: int
    loss: float
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True)
class Result:
    """How a training ended.

    Attributes
    ----------
    scores
        Scores of the last validation.
    step, steps
        Steps done and planned; fewer done than planned means it was interrupted.
    skipped
        Steps left out because they were not finite.
    seconds
        Time spent, over all resumed parts.
    """

    scores: tuple[Score, ...]
    step: int
    steps: int
    skipped: int
    seconds: float


def train(
    folders: Sequence[Path],
    out: Path,
    config: TrainConfig,
    *,
    validation: Path | None = None,
    paired: Path | None = None,
    init: Path | None = None,
    resume: Path | None = None,
    max_seconds: float = 20 * 60,
    watch_gradients: bool = False,
    adapt: Callable[[RestorationNetwork], None] = lambda _: None,
    teacher: Weights | None = None,
    self_ensemble: bool = True,
    device: torch.device | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train an encoder-decoder on folders of clean pictures.

    Parameters
    ----------
    folders
        Folders of pictures, read recursively.
    out
        Where the best weights go; the run's other files go into a folder of the same name without suffix.
    config
        The hyper-parameters. With 0 steps, as many are taken as fit into `max_seconds`.
    validation
        Folder of pictures to validate on; by default a tenth of the pictures is held out.
    paired
        Folder of degraded twins of the pictures, matched by path without suffix; by default the degradation is made.
    init
        Weights to start from instead of a random initialisation. On resuming these may be left out.
    resume
        Checkpoint to go on from; `config` and `init` must be those it was made with.
    max_seconds
        Time for a training whose steps are not given.
    watch_gradients
        Measure gradients, updates and activations every `LOG_EVERY` steps, log them and warn of what is wrong.
    adapt
        Changes the network in place before the first step, not its parameters; as quantization does, whose effect is
        to be trained away.
    teacher
        Weights whose results are to be learned instead of the clean pictures; see `deconv_cli.training.teacher`.
    self_ensemble
        Learn the teacher's results in all orientations that `config.augment` makes, not in one.
    device
        Where to train; the processor by default.
    report
        Called after every step.
    stop
        Asked after every step; when it answers True, the state is saved and the training ends.

    Raises
    ------
    DeconvError
        If the pictures, the weights or the checkpoint cannot be used, or the training diverges.
    """
    device = device or torch.device("cpu")
    task, files = find_task(config.task), RunFiles(out)
    if paired and config.scale > 1:
        raise UsageError(
            f"{paired}: --paired is for pictures of one size; super-resolution makes the small ones itself"
        )
    unsuited = sorted(set(config.augment) - set(PAIRED)) if paired else []
    if unsuited:
        raise UsageError(f"{paired}: {', '.join(unsuited)} would change the degradation of the pairs; leave them out")
    train_paths, validation_paths = split_pictures(folders, validation)
    twins = find_twins(folders, validation, paired) if paired else None
    pictures = PictureSet(train_paths, config.patch, twins)
    held_out = read_held_out(validation_paths, smallest_side(task, config), twins)
    cases = leave_out_blank(make_cases(held_out, task, config))

    origin = (init.name, load_weights(init).sha256) if init else ()
    parameters = initial_parameters(init, config) if init and not resume else None
    guide = find_teacher(teacher, config, device, self_ensemble=self_ensemble) if teacher else None
    fingerprint = pictures.fingerprint + held_out.fingerprint + (teacher.sha256[:16] if teacher else "")
    del held_out  # Whole pictures, in memory; all that is needed of them now are the crops.
    files.make_folder()
    if resume:
        state = _resume(resume, files, config, fingerprint, device, origin=origin)
    else:
        _remove_earlier(files, init)
        if not config.steps:
            with within_memory():
                config = _with_timed_steps(
                    config,
                    pictures,
                    cases,
                    task,
                    device,
                    parameters=parameters,
                    teacher=guide,
                    max_seconds=max_seconds,
                )
        state = new_state(config, device, parameters)
        state.init = origin
    adapt(state.network)
    write_atomically(files.config, tomli_w.dumps(config.to_dict()).encode())
    provenance = {
        "folders": [folder_name(folder) for folder in folders],
        "paired": folder_name(paired) if paired else "",
        "pictures": len(pictures),
        "fingerprint": fingerprint,
        "init": state.init[0] if state.init else "",
        "teacher": f"{teacher.description.name} {teacher.sha256[:16]}" if teacher else "",
        "torch": torch.__version__,
    }
    watch = GradientWatch(config.activation) if watch_gradients else None
    fit = Fit(config, task, device, files, pictures, cases, provenance, watch, guide)
    with within_memory():
        return fit.run(state, report, stop)


@dataclass
class Fit:
    """The fixed things around the loop, and the loop."""

    config: TrainConfig
    task: Task
    device: torch.device
    files: RunFiles
    pictures: PictureSet
    cases: list[Case]
    provenance: dict[str, object]
    watch: GradientWatch | None = None
    teacher: Teacher | None = None

    def run(self, state: TrainState, report: Callable[[Progress], None], stop: Callable[[], bool]) -> Result:
        """Fit until the last step or until asked to stop, validating and saving on the way."""
        config, steps = self.config, self.config.steps
        record = Record(self.files.record, state.step)
        every = steps_between_validations(steps)
        if state.step == steps:
            log.info(
                "this training was complete already, at step %d; to train further, start from its weights: --init",
                steps,
            )
        scores: tuple[Score, ...] = ()
        losses: list[float] = []
        divergence = Divergence()
        started = time.perf_counter() - state.seconds
        take_step = find_step(state, config, self.task, self.device, self.teacher)
        for step, batch in prefetch(self.pictures, config, self.task, range(state.step, steps), self.device.type):
            logged = (step + 1) % LOG_EVERY == 0 or step + 1 == steps
            take = functools.partial(train_step, state, batch, config, self.task, self.device, teacher=self.teacher)
            watched = self.watch if logged else None
            (loss, norm), health = watched(state.network, step + 1, take) if watched else (take_step(batch), {})
            state.step, state.seconds = step + 1, time.perf_counter() - started
            if divergence.after(loss, norm):
                raise divergence_error(step, config.lr, self._start_again())
            losses.append(loss)
            if logged:
                self._log(state, record, losses, norm, health)
                losses.clear()
            stopping = stop()
            validated = state.step % every == 0 or state.step == steps
            if validated or stopping:
                scores = self.validate_and_save(state, record, scheduled=validated)
            report(Progress(state.step, steps, loss, scores if validated or stopping else ()))
            if stopping:
                break
        if not scores:  # Resumed at the end; the best weights may be lost.
            found = math.isfinite(state.best)
            scores = self.validate(state) if found else self.validate_and_save(state, record, scheduled=True)
        return Result(scores, state.step, steps, state.skipped, state.seconds)

    def _start_again(self) -> str:
        """Return the option that starts from the last weights, unless there are none or they do worse than nothing."""
        if not self.files.last.exists():
            return ""
        scores = load_weights(self.files.last).scores.get("validation", ())
        network, nothing = (
            mean_psnr(math.inf if score[name] is None else score[name] for score in scores)
            for name in ("psnr", "input_psnr")
        )
        return f" --init {shlex.quote(str(self.files.last))}" if network >= nothing else ""

    def _log(
        self, state: TrainState, record: Record, losses: list[float], norm: float, health: Mapping[str, object]
    ) -> None:
        """Enter the mean loss of the steps since the last entry, and how the last of them was."""
        finite_losses = [loss for loss in losses if math.isfinite(loss)]
        record.append(
            step=state.step,
            loss=float(np.mean(finite_losses)) if finite_losses else None,
            lr=self.config.lr * rate_factor(state.step - 1, self.config.steps, self.config.warmup),
            gradient_norm=finite(norm),
            skipped=state.skipped,
            seconds=round(state.seconds, 1),
            **health,
        )

    def validate(self, state: TrainState) -> tuple[Score, ...]:
        """Score the averaged parameters."""
        averaged = copy.deepcopy(state.network)
        averaged.load_state_dict(state.average)
        dtype = find_precision(self.config.precision, self.device)
        return tuple(validate(averaged, self.cases, self.task, self.device, dtype))

    def validate_and_save(self, state: TrainState, record: Record, *, scheduled: bool) -> tuple[Score, ...]:
        """Score the averaged parameters; write checkpoint, last weights, curve, and the best weights if these are.

        An interruption, which is not scheduled, does not count, so that in the end the best weights are those of an
        uninterrupted training; until there are any, the weights at hand stand in for them.
        """
        scores = self.validate(state)
        record.append(step=state.step, validation=[score.to_dict() for score in scores])
        weights = self.weights(state, scores)
        save_weights(self.files.last, weights)
        mean = mean_psnr(score.psnr for score in scores)
        if mean > state.best and (scheduled or state.best == -math.inf):
            save_weights(self.files.out, weights)
        if scheduled:
            state.best = max(state.best, mean)
        save_checkpoint(self.files.checkpoint, state, self.config, str(self.provenance["fingerprint"]))
        plot_record(read_record(self.files.record), self.files.curve, self.files.out.stem)
        return scores

    def weights(self, state: TrainState, scores: Sequence[Score]) -> Weights:
        """Return the averaged parameters with the description, recipe and scores that belong to them."""
        low, high = self.config.level_range
        description = Description(self.files.out.stem, self.task.name, self.config.architecture, (low, high))
        recipe = {
            **self.config.to_dict(),
            **self.provenance,
            "step": state.step,
            "seconds": round(state.seconds),
        }
        level = ESTIMATED if self.pictures.twins else self.task.level_name
        protocol = f"{level}, centre crops of at most 256 x 256, {self.task.protocol(self.config.scale)}"
        return Weights(
            description,
            to_parameters(state.average),
            recipe,
            {"protocol": protocol, "validation": [score.to_dict() for score in scores]},
        )


def _with_timed_steps(
    config: TrainConfig,
    pictures: PictureSet,
    cases: list[Case],
    task: Task,
    device: torch.device,
    *,
    parameters: dict[str, Tensor] | None,
    teacher: Teacher | None,
    max_seconds: float,
) -> TrainConfig:
    """Turn a time into a number of steps by timing the first ones, and a validation, on a state that is thrown away.

    With the number fixed and saved, schedule and resume are as exact as if it had been given.
    """
    began = time.perf_counter()
    timed = dataclasses.replace(config, steps=TIMED_STEPS)
    state = new_state(timed, device, parameters)
    take_step = find_step(state, timed, task, device, teacher)
    ends = []
    for _, batch in prefetch(pictures, timed, task, range(TIMED_STEPS), device.type):
        take_step(batch)
        ends.append(time.perf_counter())
    # The slower first steps, in which memory is allocated, do not speak for the rest.
    half = TIMED_STEPS // 2
    seconds = (ends[-1] - ends[half - 1]) / (TIMED_STEPS - half)
    validate(state.network, cases, task, device, find_precision(config.precision, device))
    ended = time.perf_counter()
    steps = steps_within(max_seconds - (ended - began), seconds, ended - ends[-1])
    log.info("%.2f s a step: %d steps fit into %.0f s", seconds, steps, max_seconds)
    return dataclasses.replace(config, steps=steps)


def steps_between_validations(steps: int) -> int:
    """Return after how many steps of a training it is validated and checkpointed; at its end it is, too."""
    return max(MIN_STEPS_BETWEEN_VALIDATIONS, -(-steps // VALIDATIONS))


def steps_within(time_left: float, step: float, validation: float) -> int:
    """Return how many steps fit into a time, with the validations among them; all of these in seconds."""
    steps = time_left / (step + validation / MIN_STEPS_BETWEEN_VALIDATIONS)
    if steps > MIN_STEPS_BETWEEN_VALIDATIONS * VALIDATIONS:
        steps = (time_left - VALIDATIONS * validation) / step
    return max(TIMED_STEPS, round(steps))


def _resume(
    checkpoint: Path,
    files: RunFiles,
    config: TrainConfig,
    fingerprint: str,
    device: torch.device,
    *,
    origin: tuple[str, ...],
) -> TrainState:
    """Load the state to go on from, and see that the files of the training are where it goes on."""
    if read_config(checkpoint)[1] != fingerprint:
        raise UsageError(
            f"{checkpoint}: was made with other pictures to train or validate on, or another teacher; give the same, or"
            " start anew with --init"
        )
    state = load_checkpoint(checkpoint, device)
    if state.init is None:
        state.init = origin
    elif origin and origin != state.init:
        raise UsageError(
            f"{checkpoint}: its training did not start from {origin[0]} as that is now; leave --init out to go on, or"
            " start anew without --resume"
        )
    if not _take_best(checkpoint, files):
        state.best = -math.inf
    if checkpoint.resolve() != files.checkpoint.resolve():
        save_checkpoint(files.checkpoint, state, config, fingerprint)
    return state


def _take_best(resume: Path, files: RunFiles) -> bool:
    """See that the best weights of the training to go on with stand at `out`; return False if they are lost."""
    folder = resume.resolve().parent
    best = folder.with_name(f"{folder.name}.safetensors")
    if not best.is_file() or best == files.out.resolve():
        return best.is_file()
    weights = load_weights(best)
    description = dataclasses.replace(weights.description, name=files.out.stem)
    save_weights(files.out, dataclasses.replace(weights, description=description))
    return True


def _remove_earlier(files: RunFiles, init: Path | None) -> None:
    """Remove what an earlier training left to go on from, so that this one is not taken for it.

    The best weights stay until there are others to replace them, and so does what this training starts from.
    """
    for path in (files.checkpoint, files.last):
        try:
            if path.exists() and not (init and path.samefile(init)):
                path.unlink()
        except OSError as error:
            raise cannot_write(path, error) from error
