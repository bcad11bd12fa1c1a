"""Telling the classes of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.network.bundled import load_by_name
from deconv_cli.network.device import find_device
from deconv_cli.training.classification import predict
from deconv_cli.training.data import read_rgb8
from deconv_cli.training.labelled import fit_square


@dataclass(frozen=True)
class Prediction:
    """What a picture may show.

    Attributes
    ----------
    path
        The picture.
    classes
        The likeliest classes with their probabilities, the likeliest first; empty if the picture cannot be read.
    error
        Why it cannot.
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str = ""


def classify(paths: Iterable[Path], weights: str | Path, *, top: int = 1, device: str = "auto") -> Iterator[Prediction]:
    """Tell the classes of pictures of any size, one at a time; one that cannot be read does not stop the others.

    Parameters
    ----------
    paths
        Files of pictures.
    weights
        A file that ``deconv train --task classify`` wrote.
    top
        How many classes to name, at most.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises
    ------
    UsageError
        If the weights cannot be used.
    """
    loaded, where = load_by_name(weights), find_device(device)
    description = loaded.description
    if not description.classes:
        raise UsageError(f"{weights}: these weights restore pictures; give some that train --task classify wrote")
    classifier = loaded.build_classifier().to(where)
    for path in paths:
        try:
            square = fit_square(read_rgb8(path), description.side)
        except DeconvError as error:
            yield Prediction(path, error=str(error))
            continue
        likely = torch.from_numpy(predict(classifier, square[None], where)[0]).topk(min(top, len(description.classes)))
        named = zip(likely.indices.tolist(), likely.values.tolist(), strict=True)
        yield Prediction(path, tuple((description.classes[index], float(value)) for index, value in named))
