"""The pictures of a study, cut once and kept in memory."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deconv_cli.errors import DeconvError
from deconv_cli.images import write_atomically
from deconv_cli.training.data import PictureSet, read_held_out, split_pictures
from deconv_cli.training.labelled import LabelledPictures

TRAINING_CROPS = 1024


class Crops:
    """Crops in memory, as the drawing of batches and the validation take them.

    Parameters
    ----------
    pixels
        N x S x S x 3, uint8.
    """

    twins: Mapping[Path, Path] | None = None

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.sizes = np.full((len(pixels), 2), pixels.shape[1], np.int64)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        crop: NDArray[np.uint8] = self.pixels[index]
        return crop

    def level(self, index: int, *, gray: bool) -> float:
        """No crop has a degraded twin."""
        raise NotImplementedError


@dataclass(frozen=True)
class Data:
    """What all arms of a study see.

    Attributes
    ----------
    training, seen, validation
        Crops to train on, some of these to measure on, and crops of pictures that are held out.
    """

    training: Crops
    seen: Crops
    validation: Crops

    @property
    def sha256(self) -> str:
        """Hash of all pixels."""
        digest = hashlib.sha256()
        for crops in (self.training, self.validation):
            digest.update(crops.pixels.tobytes())
        return digest.hexdigest()


def cut_data(folders: Sequence[Path], validation: Path | None, patch: int) -> Data:
    """Cut the crops of a study: random places of random pictures to train on, the middle of those held out.

    Every pixel of the training pictures is equally likely to be cut. Nothing is measured on crops of one colour.

    Parameters
    ----------
    folders
        Folders of pictures, read recursively.
    validation
        Folder of pictures to validate on; by default a tenth is held out, as in a training.
    patch
        Side of the patches that will be cut from the crops, which have twice the side.

    Raises
    ------
    DeconvError
        If there are no pictures, none has sides of two patches, or all crops are of one colour.
    """
    train_paths, validation_paths = split_pictures(folders, validation)
    side = 2 * patch
    pictures, held_out = PictureSet(train_paths, side), read_held_out(validation_paths, side)
    rng = np.random.default_rng(0)
    areas = pictures.sizes.prod(axis=1).astype(np.float64)
    # In the order of the pictures, so that each is decoded once.
    chosen = np.sort(rng.choice(len(pictures), TRAINING_CROPS, p=areas / areas.sum()))
    training = np.stack([_cut(pictures[int(index)], side, rng) for index in chosen])
    training = training[rng.permutation(len(training))]
    middles = _showing(np.stack([_middle(held_out[index], side) for index in range(len(held_out))]), "validate")
    return Data(Crops(training), Crops(_showing(training, "train")[: len(middles)]), Crops(middles))


def _cut(picture: NDArray[np.uint8], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    top, left = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def _middle(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def _showing(crops: NDArray[np.uint8], what_for: str) -> NDArray[np.uint8]:
    """Return the crops that are not of one colour, which may be restored exactly: their PSNR would be infinite."""
    showing: NDArray[np.uint8] = crops[(crops != crops[:, :1, :1]).any((1, 2, 3))]
    if not len(showing):
        raise DeconvError(f"all crops of the pictures to {what_for} on are of one colour; give others")
    return showing


@dataclass(frozen=True)
class LabelledData:
    """What all arms of a study of classification see: pictures to train on, and held-out ones."""

    training: LabelledPictures
    validation: LabelledPictures

    @property
    def sha256(self) -> str:
        """Hash of all pixels and labels."""
        digest = hashlib.sha256()
        for pictures in (self.training, self.validation):
            digest.update(pictures.pixels.tobytes() + pictures.labels.tobytes())
        return digest.hexdigest()


def save_data(path: Path, data: Data | LabelledData) -> None:
    """Write the pictures to a file, atomically."""
    file = BytesIO()
    if isinstance(data, Data):
        np.savez(file, training=data.training.pixels, seen=data.seen.pixels, validation=data.validation.pixels)
    else:
        parts = {"training": data.training, "validation": data.validation}
        arrays: dict[str, Any] = {name: part.pixels for name, part in parts.items()}
        arrays |= {f"{name}_labels": part.labels for name, part in parts.items()}
        np.savez(file, classes=np.array(data.training.classes), **arrays)
    write_atomically(path, file.getvalue())


def load_data(path: Path) -> Data | LabelledData:
    """Read the pictures that `save_data` wrote.

    Raises
    ------
    DeconvError
        If the file cannot be read, or is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _from_arrays(arrays)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DeconvError(f"{path}: cannot be read, or is damaged ({error})") from error


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Data | LabelledData:
    if "classes" not in arrays:
        return Data(*(Crops(arrays[name]) for name in ("training", "seen", "validation")))
    classes = tuple(str(name) for name in arrays["classes"])
    training, validation = (
        LabelledPictures(arrays[name], arrays[f"{name}_labels"], classes) for name in ("training", "validation")
    )
    return LabelledData(training, validation)
