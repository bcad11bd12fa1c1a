"""Pictures in a folder per class, as square arrays with labels."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deconv_cli.errors import DeconvError, NoPicturesError, UsageError
from deconv_cli.images import to_float
from deconv_cli.training.augmentation import (
    blend,
    dim,
    mixing_weight,
    permute_channels,
    tilt_and_shift,
    turn_and_mirror,
)
from deconv_cli.training.config import ClassifyConfig
from deconv_cli.training.data import find_clean, path_hash, read_rgb8, warn_of_shared
from deconv_cli.training.run_files import holds_results

HELD_OUT = 5
"""One in so many pictures of a class is held out."""

Squares = dict[str, dict[Path, NDArray[np.uint8]]]
"""Class to file to its picture, S x S x 3."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledPictures:
    """Square pictures with their classes.

    Attributes
    ----------
    pixels
        N x S x S x 3, uint8.
    labels
        N, int64: index of the class.
    classes
        Names of the classes.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of pictures of each class."""
        return np.bincount(self.labels, minlength=len(self.classes))


@dataclass(frozen=True)
class LabelledBatch:
    """Pictures of one step.

    Attributes
    ----------
    images
        N x S x S x 3, float32, 0..1.
    targets
        N x classes, float32: probabilities; one-hot unless pictures were blended.
    """

    images: NDArray[np.float32]
    targets: NDArray[np.float32]


def find_classes(folder: Path, validation: Path | None = None) -> dict[str, list[Path]]:
    """List the pictures of each class: the folders inside the folder, read recursively, by name.

    Hidden folders, those of trainings and studies, and the validation folder are no classes.

    Raises
    ------
    UsageError
        If there are fewer than two classes.
    NoPicturesError
        If a class has no picture.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder of pictures")
    left_out = validation.resolve() if validation else None
    inside = [entry for entry in folder.iterdir() if entry.is_dir() and entry.resolve() != left_out]
    names = sorted(entry.name for entry in inside if not entry.name.startswith(".") and not holds_results(entry))
    if len(names) < 2:
        has = f"only one class ('{names[0]}')" if names else "no classes"
        raise UsageError(f"{folder}: has {has}; put the pictures of each class into a folder of its own, at least two")
    found = {name: find_clean(folder / name) for name in names}
    empty = [name for name, paths in found.items() if not paths]
    if empty:
        raise NoPicturesError(f"{folder / empty[0]}: no picture of this class was found")
    return found


def read_labelled(folder: Path, validation: Path | None, side: int) -> tuple[LabelledPictures, LabelledPictures]:
    """Read the pictures to train on and those held out.

    Without a validation folder every fifth picture of a class is held out, at least one, by the hash of its path; of
    those that can be read, so that a damaged one does not leave a class without.

    Raises
    ------
    DeconvError
        If the classes cannot be used, or those of the validation folder are others.
    """
    found = find_classes(folder, validation)
    if validation is None:
        training, held_out = _split(folder, _read(folder, found, side))
    else:
        others = find_classes(validation)
        if different := ", ".join(sorted(set(others) ^ set(found))):
            raise UsageError(f"{validation}: its classes are not those of {folder}: {different}")
        warn_of_shared(itertools.chain(*found.values()), itertools.chain(*others.values()), validation)
        training = _read(folder, found, side)
        held_out = _read(validation, {name: others[name] for name in found}, side)
    return _label(training), _label(held_out)


def _read(folder: Path, found: dict[str, list[Path]], side: int) -> Squares:
    read: Squares = {name: {} for name in found}
    for name, paths in found.items():
        for path in paths:
            try:
                read[name][path] = fit_square(read_rgb8(path), side)
            except DeconvError as error:
                log.warning("%s; left out", error)
        if not read[name]:
            raise DeconvError(f"{folder / name}: no picture of this class can be read")
    return read


def _split(folder: Path, read: Squares) -> tuple[Squares, Squares]:
    training, held_out = {}, {}
    for name, squares in read.items():
        if len(squares) < 2:
            raise DeconvError(f"{folder / name}: one picture is not enough to train and validate on; add some")
        by_hash = sorted(squares, key=lambda path: path_hash(path.relative_to(folder).as_posix()))
        count = max(1, len(squares) // HELD_OUT)
        held_out[name] = {path: squares[path] for path in sorted(by_hash[:count])}
        training[name] = {path: squares[path] for path in sorted(by_hash[count:])}
    return training, held_out


def _label(read: Squares) -> LabelledPictures:
    pixels = [square for squares in read.values() for square in squares.values()]
    labels = np.repeat(np.arange(len(read)), [len(squares) for squares in read.values()])
    return LabelledPictures(np.stack(pixels), labels.astype(np.int64), tuple(read))


def fit_square(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scale a picture of any size such that it just fits into a square, and fill that up by repeating the border.

    Parameters
    ----------
    picture
        H x W x 3, uint8.
    side
        Side of the square in pixels.
    """
    height, width, _ = picture.shape
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != (width, height):
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    missing = side - picture.shape[0], side - picture.shape[1]
    return np.pad(picture, [(gap // 2, gap - gap // 2) for gap in missing] + [(0, 0)], mode="edge")


def draw_labelled(pictures: LabelledPictures, config: ClassifyConfig, step: int) -> LabelledBatch:
    """Draw the pictures of a step and augment them: a function of seed and step."""
    rng = np.random.default_rng([config.seed, step])
    chance = drawing_chances(pictures, config.imbalance)
    one_hot = np.eye(len(pictures.classes), dtype=np.float32)
    images, targets = [], []
    for index in rng.choice(len(pictures), config.batch, p=chance):
        image, target = _augmented(pictures.pixels[index], config, rng), one_hot[pictures.labels[index]]
        if "mixup" in config.augment and (weight := mixing_weight(rng)) < 1:
            other = int(rng.choice(len(pictures), p=chance))
            image = blend(image, _augmented(pictures.pixels[other], config, rng), weight)
            target = blend(target, one_hot[pictures.labels[other]], weight)
        images.append(image)
        targets.append(target)
    return LabelledBatch(np.stack(images), np.stack(targets))


def drawing_chances(pictures: LabelledPictures, imbalance: str) -> NDArray[np.float64]:
    """Return how likely each picture is drawn: all alike, or with ``sampling`` every class alike."""
    if imbalance != "sampling":
        return np.full(len(pictures), 1 / len(pictures))
    chances: NDArray[np.float64] = 1 / (len(pictures.classes) * pictures.counts[pictures.labels])
    return chances


def _augmented(picture: NDArray[np.uint8], config: ClassifyConfig, rng: np.random.Generator) -> NDArray[np.float32]:
    picture = tilt_and_shift(picture, config.augment, rng)
    picture = turn_and_mirror(picture, config.augment, rng)
    if "colour" in config.augment:
        picture = permute_channels(picture, rng)
    scaled = to_float(picture)
    return dim(scaled, rng) if "brightness" in config.augment else scaled


def describe_counts(pictures: LabelledPictures) -> str:
    """Say how many pictures each class has."""
    names = Counter({name: int(count) for name, count in zip(pictures.classes, pictures.counts, strict=True)})
    return ", ".join(f"{name} {count}" for name, count in names.most_common())


def class_weights(pictures: LabelledPictures, imbalance: str) -> NDArray[np.float32]:
    """Return how much the error of each class counts: all alike, or with ``weights`` inversely to its pictures."""
    if imbalance != "weights":
        return np.ones(len(pictures.classes), np.float32)
    weights: NDArray[np.float32] = (len(pictures) / (len(pictures.classes) * pictures.counts)).astype(np.float32)
    return weights


def is_imbalanced(pictures: LabelledPictures, times: int = 3) -> bool:
    """Tell whether the largest class has more than so many times the pictures of the smallest."""
    return bool(pictures.counts.max() > times * pictures.counts.min())
