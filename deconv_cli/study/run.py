"""One training of a study, and everything that is measured in it."""

from __future__ import annotations

import base64
import dataclasses
import functools
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from deconv_cli.images import from_float, to_float
from deconv_cli.network.activations import Activation, find_activation
from deconv_cli.study.arms import LEVELS, Arm, Settings
from deconv_cli.study.data import Crops, Data, LabelledData
from deconv_cli.study.measures import checkerboard_energy, mean_psnr, restore_cases, score, share_outside
from deconv_cli.tasks import find_task
from deconv_cli.training.checkpoint import new_state
from deconv_cli.training.classification import classifier_step, measure_confusion, new_classifier, predict
from deconv_cli.training.config import ClassifyConfig, TrainConfig
from deconv_cli.training.data import draw_batch
from deconv_cli.training.divergence import Divergence
from deconv_cli.training.gradient_health import finite, measure_step, observed
from deconv_cli.training.labelled import LabelledPictures, class_weights, draw_labelled
from deconv_cli.training.step import train_step
from deconv_cli.training.validation import Case, make_cases

POINTS = 12
"""Points of a run's curves, and times that its health is measured."""
LOOKED_AT = 256
"""Held-out pictures, at most, on which the units of a classifier are observed."""
CPU = torch.device("cpu")

log = logging.getLogger(__name__)


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


def carry_out(
    run: Run, settings: Settings, data: Data | LabelledData, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Train and measure.

    Returns
    -------
    dict
        Plain values for JSON. ``score`` is the mean PSNR in dB over the levels inside the training range, or the
        percent of pictures that are told right; None for a run that diverged, whose other results may be missing.

    Raises
    ------
    Stopped
        If `stop` answers True after a step.
    """
    began = time.perf_counter()
    steps = settings.sweep_steps if run.sweep else settings.steps
    config = settings.config(run.arm, run.rate, seed=run.seed, steps=steps)
    training: Training
    if isinstance(config, ClassifyConfig):
        assert isinstance(data, LabelledData)
        training = ClassifierTraining(config, data)
    else:
        assert isinstance(data, Data)
        training = RestorationTraining(config, data)
    result: dict[str, Any] = {
        "arm": dataclasses.asdict(run.arm),
        "rate": run.rate,
        "seed": run.seed,
        "sweep": run.sweep,
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in training.network.parameters()),
    }
    result |= training.fit(stop, watch=not run.sweep)
    if not result["diverged"]:
        result |= training.measure(thoroughly=not run.sweep)
        result["diverged"] = result["score"] is None
    seconds = time.perf_counter() - began
    log.debug("%s: %d steps of %d parameters in %.1f s", run.name, result["stopped_at"], result["parameters"], seconds)
    return result | {"seconds": round(seconds, 2)}


class Training(ABC):
    """A network in training, with what it learns from and is measured on."""

    config: TrainConfig | ClassifyConfig
    network: nn.Module

    @abstractmethod
    def step(self, number: int) -> tuple[float, float]:
        """Take a step; return loss and gradient norm."""

    @abstractmethod
    def current_score(self) -> float:
        """Return the score for the curve; NaN if the output is not finite."""

    @abstractmethod
    def look(self) -> None:
        """Run the network forward on held-out pictures, for those who observe it."""

    @abstractmethod
    def measure(self, *, thoroughly: bool) -> dict[str, Any]:
        """Return the score and, thoroughly, everything else."""

    def fit(self, stop: Callable[[], bool], *, watch: bool) -> dict[str, Any]:
        """Train to the last step, or until it diverges; with `watch`, measure on the way."""
        steps = self.config.steps
        marks = {round(at) for at in np.linspace(0, steps - 1, min(POINTS, steps // 2))} if watch else set()
        middle = sorted(marks)[len(marks) // 2] if watch else 0
        curve, health, histograms = [], [], {}
        losses: list[float] = []
        durations: list[float] = []  # of steps that are not watched, which takes time
        divergence = Divergence()
        for step in range(steps):
            if stop():
                raise Stopped
            if step in marks:
                curve.append(self._curve_point(step, losses))
                (loss, norm), measured = measure_step(
                    self.network, self._activation, functools.partial(self.step, step)
                )
                health.append({"step": step, **measured.to_dict()})
                if step in (0, middle):
                    histograms["start" if step == 0 else "middle"] = self._histograms()
            else:
                began = time.perf_counter()
                loss, norm = self.step(step)
                durations.append(time.perf_counter() - began)
            losses.append(loss if np.isfinite(norm) else float("nan"))
            if divergence.after(losses[-1]):
                break
        if watch and not divergence.reached:
            curve.append(self._curve_point(steps, losses))
            histograms["end"] = self._histograms()
        result: dict[str, Any] = {
            "diverged": divergence.reached,
            "stopped_at": len(losses),
            "seconds_per_step": finite(float(np.median(durations))) if durations else None,
        }
        if watch:
            result |= {"curve": curve, "health": health}
            result |= {"histograms": histograms if self.config.seed == 0 else {}}
        return result

    @property
    def _activation(self) -> Activation:
        return find_activation(self.config.activation)

    def _curve_point(self, step: int, losses: list[float]) -> dict[str, Any]:
        recent = [loss for loss in losses[-max(1, self.config.steps // POINTS) :] if np.isfinite(loss)]
        loss = finite(float(np.mean(recent))) if recent else None
        return {"step": step, "loss": loss, "score": finite(self.current_score())}

    def _histograms(self) -> dict[str, tuple[float, ...]]:
        with observed(self.network, self._activation) as activations:
            self.look()
        return {layer.name: layer.histogram for layer in activations}

    def units(self) -> dict[str, float | None]:
        """Return means over the layers of what is off, saturated, and of the slope, on held-out pictures."""
        with observed(self.network, self._activation) as activations:
            self.look()
        off = [layer.off for layer in activations if layer.off is not None]
        saturated = [layer.saturated for layer in activations if layer.saturated is not None]
        return {
            "off": float(np.mean(off)) if off else None,
            "saturated": float(np.mean(saturated)) if saturated else None,
            "slope": float(np.mean([layer.slope for layer in activations])) if activations else None,
        }


class RestorationTraining(Training):
    """The training of a restoration."""

    def __init__(self, config: TrainConfig, data: Data) -> None:
        self.config: TrainConfig = config
        self.data = data
        self.task = find_task(config.task)
        self.state = new_state(config, CPU)
        self.network = self.state.network
        self.cases = make_cases(data.validation, self.task, config)
        levels = sorted({case.reported for case in self.cases})
        self.curve_level = levels[len(levels) // 2]
        self.middle = [case for case in self.cases if case.reported == self.curve_level]

    def step(self, number: int) -> tuple[float, float]:
        """Take a step; see `Training.step`."""
        batch = draw_batch(self.data.training, self.config, self.task, number)
        result = train_step(self.state, batch, self.config, self.task, CPU)
        self.state.step = number + 1
        return result

    def current_score(self) -> float:
        """Return the mean PSNR at the middle level."""
        return mean_psnr(self.middle, self._restore(self.middle))

    def look(self) -> None:
        """Restore the crops of the middle level."""
        self._restore(self.middle)

    def measure(self, *, thoroughly: bool) -> dict[str, Any]:
        """Score the network on the held-out crops and, thoroughly, everything else."""
        scores = self._scores(self.cases)
        result: dict[str, Any] = {"score": finite(float(np.mean([entry["psnr"] for entry in scores])))}
        if not thoroughly or result["score"] is None:
            return result
        outside = LEVELS[self.task.name][1]
        restored = self._restore(self.middle)
        clean = np.stack([to_float(case.clean) for case in self.middle])
        result |= {
            "curve_level": self.curve_level,
            "levels": scores,
            "outside": [] if outside is None else self._scores(self._cases_at(self.data.validation, outside)),
            "seen": self._scores(self._cases_at(self.data.seen, self.curve_level)),
            "share_outside": share_outside(restored),
            "checkerboard": checkerboard_energy(restored - clean),
            **self.units(),
        }
        if self.config.seed == 0:
            result["sample"] = self._sample()
        return result

    def _restore(self, cases: list[Case]) -> NDArray[np.float32]:
        return restore_cases(self.state.network, cases, self.task)

    def _cases_at(self, crops: Crops, level: float) -> list[Case]:
        """Degrade crops at one level, which may lie outside the training range."""
        return make_cases(crops, self.task, dataclasses.replace(self.config, level_range=(level, level)))

    def _scores(self, cases: list[Case]) -> list[dict[str, float]]:
        result = []
        for level in sorted({case.reported for case in cases}):
            at_level = [case for case in cases if case.reported == level]
            restored = self._restore(at_level)
            if not np.isfinite(restored).all():
                return [{"level": level, "psnr": float("nan")}]
            result.append(score(at_level, restored))
        return result

    def _sample(self) -> dict[str, str]:
        """Restore a picture that anyone may show, one of scikit-image's: input, output and truth as PNG in base64."""
        (case,) = self._cases_at(sample_crops(), self.curve_level)
        restored = self._restore([case])[0]
        images = {"input": from_float(case.degraded, np.uint8), "output": from_float(restored, np.uint8)}
        return {name: encode_png(image) for name, image in {**images, "truth": case.clean}.items()}


class ClassifierTraining(Training):
    """The training of a classifier; scores are percent of the held-out pictures."""

    def __init__(self, config: ClassifyConfig, data: LabelledData) -> None:
        self.config: ClassifyConfig = config
        self.data = data
        self.state = new_classifier(config, len(data.training.classes), CPU)
        self.network = self.state.network
        self.weights = torch.from_numpy(class_weights(data.training, config.imbalance))

    def step(self, number: int) -> tuple[float, float]:
        """Take a step; see `Training.step`."""
        batch = draw_labelled(self.data.training, self.config, number)
        return classifier_step(self.state, batch, self.config, self.weights, CPU)

    def current_score(self) -> float:
        """Return the percent of the held-out pictures that are told right."""
        return self._percent_right(self.data.validation)

    def look(self) -> None:
        """Classify held-out pictures."""
        # They lie class by class, so that the first ones are of a few classes only.
        pixels = self.data.validation.pixels
        predict(self.state.network, pixels[:: -(-len(pixels) // LOOKED_AT)], CPU)

    def measure(self, *, thoroughly: bool) -> dict[str, Any]:
        """Score the network on the held-out pictures and, thoroughly, everything else."""
        confusion = measure_confusion(self.state.network, self.data.validation, CPU)
        result: dict[str, Any] = {"score": finite(self.current_score())}
        if not thoroughly or result["score"] is None:
            return result
        training, count = self.data.training, len(self.data.validation)
        every = -(-len(training) // count)
        seen = LabelledPictures(training.pixels[::every], training.labels[::every], training.classes)
        return result | {
            "baseline": finite(100 * float(self.data.validation.counts.max() / count)),  # Rounded as the score is.
            "balanced_recall": 100 * confusion.balanced_recall,
            "seen": self._percent_right(seen),
            **self.units(),
        }

    def _percent_right(self, pictures: LabelledPictures) -> float:
        probabilities = predict(self.state.network, pictures.pixels, CPU)
        if not np.isfinite(probabilities).all():
            return float("nan")
        return 100 * float((probabilities.argmax(1) == pictures.labels).mean())


def sample_crops() -> Crops:
    """Return a crop of scikit-image's cat, 96 x 96."""
    from skimage import data

    return Crops(np.ascontiguousarray(data.chelsea()[60:156, 150:246])[None])  # type: ignore[no-untyped-call]


def encode_png(image: NDArray[np.uint8]) -> str:
    """Return a picture as PNG in base64."""
    file = BytesIO()
    Image.fromarray(image).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
