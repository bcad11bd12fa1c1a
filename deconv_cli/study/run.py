"""One training of a study, and everything that is measured in it."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from deconv_cli.images import from_float, to_float
from deconv_cli.network.activations import find_activation
from deconv_cli.study.arms import LEVELS, Arm, Settings
from deconv_cli.study.crops import Crops, Data
from deconv_cli.study.measures import checkerboard_energy, mean_psnr, restore_cases, score, share_outside
from deconv_cli.tasks import Task, find_task
from deconv_cli.training.checkpoint import TrainState, new_state
from deconv_cli.training.config import TrainConfig
from deconv_cli.training.data import draw_batch
from deconv_cli.training.gradient_health import finite, measure_step, observed
from deconv_cli.training.loop import MAX_SKIPPED_IN_A_ROW, train_step
from deconv_cli.training.validation import Case, make_cases

POINTS = 12
"""Points of a run's curves, and times that its health is measured."""
CPU = torch.device("cpu")


class Stopped(Exception):  # noqa: N818 - no error
    """The study was asked to stop; the run leaves nothing behind."""


@dataclass(frozen=True)
class Run:
    """One training: an arm, a learning rate, a seed. A sweep is a shorter one that only serves to choose the rate."""

    arm: Arm
    rate: float
    seed: int
    sweep: bool

    @property
    def name(self) -> str:
        """A name that no other run has, fit for a file."""
        return f"{self.arm.name}-{'sweep' if self.sweep else 'seed'}-{self.rate:g}-{self.seed}"


def carry_out(run: Run, settings: Settings, data: Data, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Train and measure.

    Returns
    -------
    dict
        Plain values for JSON. ``score`` is the mean PSNR in dB over the levels inside the training range, None for a
        run that diverged, whose other results may be missing.

    Raises
    ------
    Stopped
        If `stop` answers True after a step.
    """
    began = time.perf_counter()
    steps = settings.sweep_steps if run.sweep else settings.steps
    config = settings.config(run.arm, run.rate, seed=run.seed, steps=steps)
    state = new_state(config, CPU)
    training = Training(config, find_task(config.task), state, data)
    result: dict[str, Any] = {
        "arm": dataclasses.asdict(run.arm),
        "rate": run.rate,
        "seed": run.seed,
        "sweep": run.sweep,
        "steps": steps,
        "parameters": config.architecture.parameters,
    }
    result |= training.fit(stop, watch=not run.sweep)
    if not result["diverged"]:
        result |= training.measure(thoroughly=not run.sweep)
        result["diverged"] = result["score"] is None
    return result | {"seconds": round(time.perf_counter() - began, 2)}


@dataclass
class Training:
    """A network in training, with what it learns from and is measured on."""

    config: TrainConfig
    task: Task
    state: TrainState
    data: Data

    def __post_init__(self) -> None:
        self.cases = make_cases(self.data.validation, self.task, self.config)
        levels = sorted({case.reported for case in self.cases})
        self.curve_level = levels[len(levels) // 2]

    def _cases_at(self, crops: Crops, level: float) -> list[Case]:
        """Degrade crops at one level, which may lie outside the training range."""
        return make_cases(crops, self.task, dataclasses.replace(self.config, level_range=(level, level)))

    def fit(self, stop: Callable[[], bool], *, watch: bool) -> dict[str, Any]:
        """Train to the last step, or until it diverges; with `watch`, measure on the way."""
        steps = self.config.steps
        marks = {round(at) for at in np.linspace(0, steps - 1, POINTS)} if watch else set()
        middle = sorted(marks)[len(marks) // 2] if watch else 0
        curve, health, histograms = [], [], {}
        losses: list[float] = []
        durations: list[float] = []
        skipped = 0
        for step in range(steps):
            if stop():
                raise Stopped
            if step in marks:
                curve.append(self._curve_point(step, losses))
                health.append({"step": step, **self._watched_step(step, losses)})
                if step in (0, middle):
                    histograms["start" if step == 0 else "middle"] = self._histograms()
            else:
                began = time.perf_counter()
                self._step(step, losses)
                durations.append(time.perf_counter() - began)
            skipped = 0 if np.isfinite(losses[-1]) else skipped + 1
            if skipped == MAX_SKIPPED_IN_A_ROW:
                break
        diverged = skipped == MAX_SKIPPED_IN_A_ROW
        if watch and not diverged:
            curve.append(self._curve_point(steps, losses))
            histograms["end"] = self._histograms()
        result: dict[str, Any] = {
            "diverged": diverged,
            "stopped_at": self.state.step,
            "seconds_per_step": finite(float(np.median(durations))) if durations else None,
        }
        if watch:
            result |= {"curve_level": self.curve_level, "curve": curve, "health": health}
            result |= {"histograms": histograms if self.config.seed == 0 else {}}
        return result

    def _step(self, step: int, losses: list[float]) -> None:
        batch = draw_batch(self.data.training, self.config, self.task, step)
        loss, norm = train_step(self.state, batch, self.config, self.task, CPU)
        self.state.step = step + 1
        losses.append(loss if np.isfinite(norm) else float("nan"))

    def _watched_step(self, step: int, losses: list[float]) -> dict[str, Any]:
        activation = find_activation(self.config.activation)
        _, health = measure_step(self.state.network, activation, lambda: self._step(step, losses))
        return health.to_dict()

    def _curve_point(self, step: int, losses: list[float]) -> dict[str, Any]:
        cases = [case for case in self.cases if case.reported == self.curve_level]
        reached = mean_psnr(cases, restore_cases(self.state.network, cases, self.task))
        recent = [loss for loss in losses[-self.config.steps // POINTS :] if np.isfinite(loss)]
        return {"step": step, "loss": finite(float(np.mean(recent))) if recent else None, "score": finite(reached)}

    def _histograms(self) -> dict[str, tuple[float, ...]]:
        with observed(self.state.network, find_activation(self.config.activation)) as activations:
            restore_cases(self.state.network, self.cases[:: len(self.cases) // 8 or 1], self.task)
        return {layer.name: layer.histogram for layer in activations}

    def measure(self, *, thoroughly: bool) -> dict[str, Any]:
        """Score the network on the held-out crops and, thoroughly, everything else."""
        scores = self._scores(self.cases)
        mean = float(np.mean([entry["psnr"] for entry in scores]))
        result: dict[str, Any] = {"score": finite(mean)}
        if not thoroughly or result["score"] is None:
            return result
        outside = LEVELS[self.task.name][1]
        middle = [case for case in self.cases if case.reported == self.curve_level]
        with observed(self.state.network, find_activation(self.config.activation)) as activations:
            restored = restore_cases(self.state.network, middle, self.task)
        clean = np.stack([to_float(case.clean) for case in middle])
        off = [layer.off for layer in activations if layer.off is not None]
        saturated = [layer.saturated for layer in activations if layer.saturated is not None]
        result |= {
            "levels": scores,
            "outside": [] if outside is None else self._scores(self._cases_at(self.data.validation, outside)),
            "seen": self._scores(self._cases_at(self.data.seen, self.curve_level)),
            "share_outside": share_outside(restored),
            "checkerboard": checkerboard_energy(restored - clean),
            "off": float(np.mean(off)) if off else None,
            "saturated": float(np.mean(saturated)) if saturated else None,
            "slope": float(np.mean([layer.slope for layer in activations])) if activations else None,
        }
        if self.config.seed == 0:
            result["sample"] = self._sample()
        return result

    def _scores(self, cases: list[Case]) -> list[dict[str, float]]:
        result = []
        for level in sorted({case.reported for case in cases}):
            at_level = [case for case in cases if case.reported == level]
            restored = restore_cases(self.state.network, at_level, self.task)
            if not np.isfinite(restored).all():
                return [{"level": level, "psnr": float("nan")}]
            result.append(score(at_level, restored))
        return result

    def _sample(self) -> dict[str, str]:
        """Restore a picture that anyone may show, one of scikit-image's: input, output and truth as PNG in base64."""
        (case,) = self._cases_at(sample_crops(), self.curve_level)
        restored = restore_cases(self.state.network, [case], self.task)[0]
        images = {"input": from_float(case.degraded, np.uint8), "output": from_float(restored, np.uint8)}
        return {name: encode_png(image) for name, image in {**images, "truth": case.clean}.items()}


def sample_crops() -> Crops:
    """Return a crop of scikit-image's cat, 96 x 96."""
    from skimage import data

    return Crops(np.ascontiguousarray(data.chelsea()[60:156, 150:246])[None])  # type: ignore[no-untyped-call]


def encode_png(image: NDArray[np.uint8]) -> str:
    """Return a picture as PNG in base64."""
    file = BytesIO()
    Image.fromarray(image).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
