"""The training of a classifier from beginning to end."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deconv_cli.images import to_float, write_atomically
from deconv_cli.images.paths import folder_name
from deconv_cli.network.classifier import Classifier, build_classifier, class_probabilities
from deconv_cli.network.description import Description
from deconv_cli.network.device import autocast, find_precision, training_layout
from deconv_cli.network.weights import Weights, save_weights, to_parameters
from deconv_cli.training.config import ClassifyConfig
from deconv_cli.training.divergence import Divergence, divergence_error
from deconv_cli.training.gradient_health import GradientWatch, finite
from deconv_cli.training.labelled import (
    LabelledBatch,
    LabelledPictures,
    class_weights,
    describe_counts,
    draw_labelled,
    is_imbalanced,
    read_labelled,
)
from deconv_cli.training.loop import LOG_EVERY, Progress
from deconv_cli.training.optimizer import backward, build_optimizers, set_rates
from deconv_cli.training.record import Record
from deconv_cli.training.run_files import RunFiles
from deconv_cli.training.step import to_tensor, within_memory

VALIDATIONS = 10
"""Times that the classifier is validated, the end included."""
CHUNK = 256
"""Pictures at a time when no gradients are needed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Confusion:
    """How a classifier does on pictures it has not seen.

    Attributes
    ----------
    classes
        Names of the classes.
    matrix
        Number of pictures, true class by predicted class.
    """

    classes: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]

    @property
    def accuracy(self) -> float:
        """Share of the pictures that are told right."""
        matrix = np.array(self.matrix)
        return float(np.trace(matrix) / matrix.sum())

    @property
    def recalls(self) -> dict[str, float]:
        """Share told right of the pictures of each class."""
        matrix = np.array(self.matrix)
        shares = np.diag(matrix) / np.maximum(matrix.sum(1), 1)
        return {name: float(share) for name, share in zip(self.classes, shares, strict=True)}

    @property
    def balanced_recall(self) -> float:
        """Mean over the classes of the share told right."""
        return float(np.mean(list(self.recalls.values())))

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "accuracy": self.accuracy,
            "balanced_recall": self.balanced_recall,
            "recalls": self.recalls,
            "classes": list(self.classes),
            "confusion": [list(row) for row in self.matrix],
        }


@dataclass(frozen=True)
class ClassifyResult:
    """How a training ended.

    Attributes
    ----------
    confusion
        On the held-out pictures, at the end.
    step, steps
        Steps done and planned; fewer done than planned means it was interrupted.
    seconds
        Time spent.
    """

    confusion: Confusion
    step: int
    steps: int
    seconds: float


@dataclass
class ClassifierState:
    """What changes while training: the network, its optimisers, and the number of steps done."""

    network: Classifier
    optimizers: list[torch.optim.Optimizer]
    step: int = 0


def new_classifier(config: ClassifyConfig, classes: int, device: torch.device) -> ClassifierState:
    """Make the state at step 0, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_classifier(config.architecture, classes, config.initialisation, config.residual_gain)
    network.to(device, memory_format=training_layout(device))  # type: ignore[call-overload]
    return ClassifierState(network, build_optimizers(network, config))


@within_memory()
def train_classifier(
    folder: Path,
    out: Path,
    config: ClassifyConfig,
    *,
    validation: Path | None = None,
    watch_gradients: bool = False,
    device: torch.device | None = None,
    report: Callable[[Progress, Confusion | None], None] = lambda *_: None,
    stop: Callable[[], bool] = lambda: False,
) -> ClassifyResult:
    """Train a classifier on a folder with a folder of pictures for each class.

    Parameters
    ----------
    folder
        The folder of the classes' folders.
    out
        Where the weights go; configuration and log go into a folder of the same name without suffix.
    config
        The hyper-parameters.
    validation
        Folder of held-out pictures, of the same form; by default a fifth of every class.
    watch_gradients
        Measure gradients, updates and activations every `LOG_EVERY` steps, log them and warn of what is wrong.
    device
        Where to train; the processor by default.
    report
        Called after every step, with the held-out result when there is one.
    stop
        Asked after every step; when it answers True, the weights are saved and the training ends.

    Raises
    ------
    DeconvError
        If the pictures cannot be used, or the training diverges.
    """
    device, files = device or torch.device("cpu"), RunFiles(out)
    training, held_out = read_labelled(folder, validation, config.patch)
    log.info("%d pictures to train on (%s), %d held out", len(training), describe_counts(training), len(held_out))
    if config.imbalance == "none" and is_imbalanced(training):
        log.warning("some classes have far fewer pictures than others: --imbalance sampling helps these")
    files.make_folder()
    write_atomically(files.config, tomli_w.dumps(config.to_dict()).encode())
    state = new_classifier(config, len(training.classes), device)
    weights = torch.from_numpy(class_weights(training, config.imbalance)).to(device)
    watch = GradientWatch(config.activation) if watch_gradients else None
    record = Record(files.record, 0)
    every = -(-config.steps // VALIDATIONS)
    losses: list[float] = []
    started, divergence, confusion = time.perf_counter(), Divergence(), None
    for step in range(config.steps):
        take = functools.partial(classifier_step, state, draw_labelled(training, config, step), config, weights, device)
        logged = (step + 1) % LOG_EVERY == 0 or step + 1 == config.steps
        (loss, norm), health = watch(state.network, step + 1, take) if watch and logged else (take(), {})
        if divergence.after(loss, norm):
            raise divergence_error(step, config.lr)
        losses.append(loss)
        if logged:
            record.append(step=state.step, loss=finite(float(np.mean(losses))), gradient_norm=finite(norm), **health)
            losses.clear()
        stopping = stop()
        validated = state.step % every == 0 or state.step == config.steps or stopping
        if validated:
            confusion = measure_confusion(state.network, held_out, device)
            record.append(step=state.step, accuracy=confusion.accuracy, balanced_recall=confusion.balanced_recall)
        report(Progress(state.step, config.steps, loss), confusion if validated else None)
        if stopping:
            break
    assert confusion is not None
    seconds = time.perf_counter() - started
    description = Description(
        out.stem, "classify", config.architecture, (0.0, 0.0), classes=training.classes, side=config.patch
    )
    recipe = {
        **config.to_dict(),
        "folders": [folder_name(folder)],
        "pictures": dict(zip(training.classes, training.counts.tolist(), strict=True)),
        "step": state.step,
        "torch": torch.__version__,
    }
    parameters = to_parameters(state.network.state_dict())
    save_weights(out, Weights(description, parameters, recipe, {"held out": confusion.to_dict()}))
    return ClassifyResult(confusion, state.step, config.steps, seconds)


def classifier_step(
    state: ClassifierState, batch: LabelledBatch, config: ClassifyConfig, weights: Tensor, device: torch.device
) -> tuple[float, float]:
    """Take one optimiser step and return loss and gradient norm; a step that is not finite changes no parameter."""
    set_rates(state.optimizers, config, state.step)
    dtype = find_precision(config.precision, device)
    with autocast(device, dtype):
        logits = state.network(to_tensor(batch.images, device))
    targets = torch.from_numpy(batch.targets).to(device)
    loss = nn.functional.cross_entropy(logits.float(), targets, weights)
    result = torch.stack(backward(state.network, loss, config.clip)).tolist()
    if math.isfinite(sum(result)):
        for optimizer in state.optimizers:
            optimizer.step()
    state.step += 1
    return result[0], result[1]


def predict(network: Classifier, pixels: NDArray[np.uint8], device: torch.device) -> NDArray[np.float32]:
    """Return N x classes probabilities of N x S x S x 3 pictures, uint8."""
    chunks = [
        class_probabilities(network, to_tensor(to_float(pixels[at : at + CHUNK]), device)).cpu().numpy()
        for at in range(0, len(pixels), CHUNK)
    ]
    return np.concatenate(chunks)


def measure_confusion(network: Classifier, pictures: LabelledPictures, device: torch.device) -> Confusion:
    """Compare the classes predicted for pictures with the true ones."""
    predicted = predict(network, pictures.pixels, device).argmax(1)
    count = len(pictures.classes)
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (pictures.labels, predicted), 1)
    return Confusion(pictures.classes, tuple(tuple(int(entry) for entry in row) for row in matrix))
