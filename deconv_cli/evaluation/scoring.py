"""Score pictures against their references: two files, or two folders matched by name, never by position."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deconv_cli.errors import DeconvError, NoPicturesError, UsageError
from deconv_cli.images import Frame, find_pictures, read_frame
from deconv_cli.images.paths import exists, is_folder
from deconv_cli.metrics import Protocol, mean_psnr, measure


@dataclass(frozen=True)
class Pair:
    """A picture to score and its reference, under the name they share."""

    name: str
    reference: Path
    test: Path


@dataclass(frozen=True)
class Score:
    """What one pair scored: `psnr` in dB (infinite for equal pictures) and `ssim`, by `protocol`.

    `warnings` says what was not kept on reading the two files, such as CMYK colours.
    """

    pair: Pair
    psnr: float
    ssim: float
    protocol: Protocol
    warnings: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether all samples that the protocol compares are equal."""
        return math.isinf(self.psnr)


@dataclass(frozen=True)
class Failure:
    """A name that could not be scored, and why."""

    name: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Return plain values for JSON."""
        return {"name": self.name, "error": self.reason}


@dataclass(frozen=True)
class Report:
    """The scores of a set, what could not be scored, and the protocol."""

    protocol: Protocol
    scores: tuple[Score, ...]
    failures: tuple[Failure, ...]

    @property
    def mean_psnr(self) -> float | None:
        """The mean PSNR in dB of the pictures that differ from their references.

        One identical picture would make the mean infinite and hide the others, so identical ones are left out
        of it and counted beside it. Infinite if all are identical, None if nothing was scored.
        """
        return mean_psnr(score.psnr for score in self.scores) if self.scores else None

    @property
    def mean_ssim(self) -> float | None:
        """The mean SSIM of all pictures scored, identical ones included; None if nothing was scored."""
        return math.fsum(score.ssim for score in self.scores) / len(self.scores) if self.scores else None

    @property
    def identical(self) -> int:
        """The number of pictures that are identical to their references."""
        return sum(score.identical for score in self.scores)

    @property
    def warnings(self) -> list[str]:
        """What was not kept on reading the pictures scored, a sentence each that names the file."""
        return [warning for score in self.scores for warning in score.warnings]

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON, where an infinite PSNR is null beside ``"identical": true``."""
        mean_psnr = self.mean_psnr
        return {
            "protocol": self.protocol.as_dict(),
            "pictures": [_score_row(score) for score in self.scores],
            "failed": [failure.to_dict() for failure in self.failures],
            "mean": {
                "psnr": None if mean_psnr is None else finite(mean_psnr),
                "ssim": self.mean_ssim,
                "identical": bool(self.scores) and self.identical == len(self.scores),
                "scored": len(self.scores),
                "identical_pictures": self.identical,
            },
        }

    def as_csv(self) -> str:
        """Return a row for every name, failed ones included; an infinite PSNR is ``inf``."""
        text = io.StringIO()
        columns = [
            "name",
            "reference",
            "test",
            "psnr",
            "ssim",
            "identical",
            *self.protocol.as_dict(),
            "error",
        ]
        rows = csv.DictWriter(text, columns, lineterminator="\n")
        rows.writeheader()
        for score in self.scores:
            rows.writerow(_score_row(score) | {"psnr": score.psnr} | score.protocol.as_dict())
        for failure in self.failures:
            rows.writerow(failure.to_dict())
        return text.getvalue()


def score_pictures(
    reference: Path,
    test: Path,
    protocol: Protocol | None = None,
    *,
    suffix: str = "",
    recursive: bool = False,
    worst_first: bool = False,
    progress: Callable[[list[Pair]], Iterable[Pair]] = iter,
) -> Report:
    """Score a file against a file, or every picture of a folder against its namesake in another.

    Parameters
    ----------
    reference, test
        Two files or two folders. Folders are matched by file name without extension.
    protocol
        How to count; by default RGB, nothing cropped.
    suffix
        What the names of the test pictures in a folder have appended: "_out" matches ``a_out.png`` with ``a.jpg``.
    recursive
        Look into sub-folders too, and match by relative path.
    worst_first
        Order the scores by PSNR (ties by SSIM) instead of by name.
    progress
        Wraps the pairs while they are walked through.

    Returns
    -------
    Report
        Names without a partner or with several, pictures that differ in size or mode, and files that cannot
        be read are in its failures; the rest is scored.

    Raises
    ------
    UsageError
        If a path is missing, the two are the same, or one is a file and the other a folder; or if they are files, which
        are not matched by name, and there is a suffix.
    NoPicturesError
        If a folder holds no picture.
    """
    _require_comparable(reference, test)
    protocol = protocol or Protocol()
    if is_folder(reference):
        pairs, failures = pair_folders(reference, test, suffix=suffix, recursive=recursive)
    elif suffix:
        raise UsageError(f"{test}: --suffix matches the pictures of two folders; leave it out")
    else:
        pairs, failures = [Pair(test.name, reference, test)], []
    scores = []
    for pair in progress(pairs):
        try:
            scores.append(score_pair(pair, protocol))
        except DeconvError as error:
            failures.append(Failure(pair.name, str(error)))
    if worst_first:
        scores.sort(key=lambda score: (score.psnr, score.ssim))
    return Report(protocol, tuple(scores), tuple(sorted(failures, key=lambda failure: failure.name)))


def pair_folders(
    reference: Path, test: Path, *, suffix: str = "", recursive: bool = False
) -> tuple[list[Pair], list[Failure]]:
    """Match the pictures of two folders by relative path without extension; `suffix` as in `score_pictures`.

    Returns
    -------
    tuple[list[Pair], list[Failure]]
        The pairs in the order of their names, and the names that have no partner or more than one.

    Raises
    ------
    NoPicturesError
        If one of the folders holds no picture.
    """
    references = _by_name(reference, besides=test, recursive=recursive)
    tests = _by_name(test, besides=reference, recursive=recursive)
    failures = [
        Failure(name, f"the name does not end in '{suffix}': {_listed(files)}")
        for name, files in tests.items()
        if not name.endswith(suffix)
    ]
    tests = {name.removesuffix(suffix): files for name, files in tests.items() if name.endswith(suffix)}
    pairs = []
    for name in sorted(references.keys() | tests.keys()):
        match references.get(name, []), tests.get(name, []):
            case [one], [other]:
                pairs.append(Pair(name, one, other))
            case [], files:
                failures.append(Failure(name, f"no reference for {_listed(files)}"))
            case files, []:
                failures.append(Failure(name, f"no test picture for {_listed(files)}"))
            case these, those:
                failures.append(Failure(name, f"more than one file of this name: {_listed([*these, *those])}"))
    return pairs, failures


def score_pair(pair: Pair, protocol: Protocol) -> Score:
    """Read and score one pair; alpha is not scored, but both pictures must have it or neither.

    Raises
    ------
    DeconvError
        If a picture cannot be read, is too small to score, or the two differ in size or mode.
    """
    reference, test = read_frame(pair.reference), read_frame(pair.test)
    if _kind(reference) != _kind(test):
        raise DeconvError(f"{pair.test} is {_kind(test)}, but its reference {pair.reference} {_kind(reference)}")
    protocol = replace(protocol, data_range=protocol.peak(reference.pixels.dtype))
    try:
        return Score(
            pair,
            *measure(reference.pixels, test.pixels, protocol),
            protocol=protocol,
            warnings=tuple(f"{frame.name}: {text}" for frame in (reference, test) for text in frame.warnings),
        )
    except DeconvError as error:
        raise DeconvError(f"{pair.test}: {error}") from error


def finite(value: float) -> float | None:
    """Return the value, or None if it is not finite: JSON has no other word for the PSNR of equal pictures."""
    return value if math.isfinite(value) else None


def _kind(frame: Frame) -> str:
    height, width = frame.pixels.shape[:2]
    mode = ("gray" if frame.pixels.ndim == 2 else "RGB") + (" with alpha" if frame.alpha is not None else "")
    return f"{width} x {height} {mode} in {8 * frame.pixels.itemsize} bits"


def _require_comparable(reference: Path, test: Path) -> None:
    for path in (reference, test):
        if not exists(path):
            raise UsageError(f"{path} does not exist")
    if reference.samefile(test):
        raise UsageError(f"{reference} and {test} are the same; give what was restored as the second")
    if is_folder(reference) != is_folder(test):
        folder, file = (reference, test) if is_folder(reference) else (test, reference)
        raise UsageError(f"{folder} is a folder and {file} a file; give two files or two folders")


def _by_name(folder: Path, *, besides: Path, recursive: bool) -> dict[str, list[Path]]:
    """Group the pictures of a folder by name, without those of the other folder where it lies inside."""
    names = defaultdict(list)
    for picture in find_pictures(folder, recursive=recursive, exclude=besides):
        names[picture.relative_to(folder).with_suffix("").as_posix()].append(picture)
    if not names:
        raise NoPicturesError(f"{folder}: no picture found" + ("" if recursive else "; --recursive looks deeper"))
    return dict(names)


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(str(file) for file in files)


def _score_row(score: Score) -> dict[str, Any]:
    return {
        "name": score.pair.name,
        "reference": str(score.pair.reference),
        "test": str(score.pair.test),
        "psnr": finite(score.psnr),
        "ssim": score.ssim,
        "identical": score.identical,
        "data_range": score.protocol.data_range,
    }
