"""Files to files: what goes where, one file at a time, and a record to resume from."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deconv_cli.errors import DeconvError, UsageError, unknown_name
from deconv_cli.images import (
    SUFFIXES,
    Frame,
    encode_frame,
    find_pictures,
    format_of,
    read_frame,
    write_atomically,
)

if TYPE_CHECKING:
    from deconv_cli.restoration.restorer import Restorer  # imports torch, which planning does not need

CLEAN_LEVEL = 2.0
"""An estimated noise level below this leaves nothing to restore: clean photographs read 1 to 2."""
RECORD = ".deconv.jsonl"


@dataclass(frozen=True)
class Options:
    """How to restore and write every file of a batch.

    Attributes
    ----------
    noise_level, strength, tta, tile
        See `deconv_cli.restoration.restorer.Restorer.restore`.
    copy_clean
        Copy a file byte for byte if the estimate finds no noise in it and its format stays.
    format
        ``png``, ``jpg``, ``webp``, ``bmp``, ``tiff``, or ``same`` as the target's suffix says.
    quality
        Of JPEG and WebP; None decides by the input.
    metadata
        ``keep`` or ``strip`` EXIF, XMP and resolution.
    """

    noise_level: float | Literal["auto"] = "auto"
    strength: float = 1.0
    tta: bool = False
    tile: int | Literal["auto", "off"] = "auto"
    copy_clean: bool = True
    format: str = "same"
    quality: int | None = None
    metadata: Literal["keep", "strip"] = "keep"


@dataclass(frozen=True)
class Job:
    """One file to restore, and where the result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes
    ----------
    status
        ``restored``, ``copied`` (nothing to restore), ``complete`` (already done), ``planned`` or ``failed``.
    task
        What was undone.
    reason
        What was decided and why, or the error.
    noise_level
        Noise level given to the network, sigma on 0..255.
    width, height
        Size of the picture.
    seconds
        Time from reading to having written.
    warnings
        What could not be kept.
    """

    input: str
    output: str
    status: Literal["restored", "copied", "complete", "planned", "failed"]
    task: str | None = None
    reason: str = ""
    noise_level: float | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Processed:
    """A restored file in memory, with the picture before and after."""

    data: bytes
    before: Frame
    after: Frame
    outcome: Outcome


def plan(
    inputs: Sequence[Path],
    output: Path,
    *,
    recursive: bool = False,
    output_format: str = "same",
    suffix: str = "",
) -> list[Job]:
    """Decide where the result of every input goes.

    `output` is a file only if there is exactly one input, not a folder, and `output` has the suffix of a picture and
    is no folder; otherwise it is a folder. A missing input file is planned too: it fails alone, later.

    Parameters
    ----------
    inputs
        Files and folders.
    output
        A file or a folder.
    recursive
        Look into folders inside the input folders; the tree is kept.
    output_format
        Format of the results, or ``same``.
    suffix
        Text to append to the stem of every result that goes into a folder.

    Raises
    ------
    UsageError
        If the format is unknown, a result would overwrite an input, or two results would be one file.
    """
    extension = _extension(output_format)
    _refuse_foreign_format(inputs, output)
    if is_single_file(inputs, output):
        jobs = [Job(inputs[0], output)]
    else:
        jobs = [
            Job(path, output / inner.with_name(inner.stem + suffix + (extension or inner.suffix)))
            for path, inner in _expand(inputs, output, recursive=recursive)
        ]
    _refuse_collisions(jobs)
    return jobs


def is_single_file(inputs: Sequence[Path], output: Path) -> bool:
    """Tell whether `output` names a file rather than a folder."""
    return len(inputs) == 1 and not inputs[0].is_dir() and format_of(output) is not None and not output.is_dir()


def _refuse_foreign_format(inputs: Sequence[Path], output: Path) -> None:
    """Refuse ``out.gif``, which nobody means as the name of a folder."""
    from PIL import Image

    foreign = output.suffix.lower() in Image.registered_extensions() and format_of(output) is None
    if len(inputs) == 1 and foreign and not output.is_dir():
        raise UsageError(f"{output}: cannot write this format; give a name that ends in {', '.join(SUFFIXES)}")


def _extension(output_format: str) -> str:
    if output_format == "same":
        return ""
    if output_format not in SUFFIXES.values():
        raise unknown_name("format", output_format, {*SUFFIXES.values(), "same"})
    return "." + output_format


def _expand(inputs: Sequence[Path], output: Path, *, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Yield every picture with its path below the output folder."""
    for given in inputs:
        if given.is_dir():
            for path in find_pictures(given, recursive=recursive, exclude=output):
                yield path, path.relative_to(given)
        else:
            yield given, Path(given.name)


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {_key(job.source) for job in jobs}
    itself = [str(job.target) for job in jobs if _key(job.target) in sources]
    if itself:
        raise UsageError(f"would overwrite an input: {_listed(itself)}; give another output or --suffix")
    # Compared without case, since some file systems do not tell a.png from A.png.
    counts = Counter(str(job.target).casefold() for job in jobs)
    doubled = [f"{job.source} -> {job.target}" for job in jobs if counts[str(job.target).casefold()] > 1]
    if doubled:
        raise UsageError(f"several inputs would become one output: {_listed(doubled)}")


def refuse_existing(targets: Iterable[Path]) -> None:
    """Refuse to replace files.

    Raises
    ------
    UsageError
        If a target exists; the message names them.
    """
    existing = [str(target) for target in targets if target.exists()]
    if existing:
        raise UsageError(f"already there: {_listed(existing)}; use --overwrite to replace or --resume to continue")


def _key(path: Path) -> str:
    return str(path.resolve())


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def process(
    data: bytes, restorer: Restorer, options: Options, *, name: str, target: str, target_format: str
) -> Processed:
    """Restore one file in memory.

    Parameters
    ----------
    data
        The file.
    restorer, options
        What to restore it with, and how.
    name, target
        What messages and the outcome call input and output.
    target_format
        Format of the result, or ``same``.

    Raises
    ------
    DeconvError
        If the file cannot be read, restored or written.
    """
    frame = read_frame(data, name=name)
    target_format = frame.format if target_format == "same" else target_format
    height, width = frame.pixels.shape[:2]
    level = restorer.find_noise_level(frame.pixels, options.noise_level)
    found = _describe(restorer, level, options)
    outcome = Outcome(
        input=name,
        output=target,
        status="restored",
        task=restorer.task.name,
        reason=found,
        noise_level=None if level is None else round(level, 2),
        width=width,
        height=height,
        warnings=frame.warnings,
    )
    if options.copy_clean and options.noise_level == "auto" and level is not None and level < CLEAN_LEVEL:
        stays = target_format == frame.format and options.quality is None and options.metadata == "keep"
        outcome = dataclasses.replace(outcome, status="copied", reason=f"{found}: nothing to restore", warnings=())
        if stays:
            return Processed(data, frame, frame, outcome)
        restored = frame
    else:
        result = restorer.restore(
            frame.pixels,
            alpha=frame.alpha,
            noise_level="auto" if level is None else level,
            strength=options.strength,
            tta=options.tta,
            tile=options.tile,
        )
        outcome = dataclasses.replace(outcome, reason=f"{found}, {result.precision}")
        restored = dataclasses.replace(frame, pixels=result.pixels)
    encoded, warnings = encode_frame(restored, target_format, quality=options.quality, metadata=options.metadata)
    return Processed(encoded, frame, restored, dataclasses.replace(outcome, warnings=(*outcome.warnings, *warnings)))


def _describe(restorer: Restorer, level: float | None, options: Options) -> str:
    if level is None:
        return f"{restorer.task.name}, blind"
    return f"noise level {level:.1f} ({'estimated' if options.noise_level == 'auto' else 'given'})"


def run(
    jobs: Iterable[Job],
    restorer: Restorer,
    options: Options,
    *,
    record: ResumeRecord | None = None,
    seen: Callable[[Processed], None] = lambda _: None,
) -> Iterator[Outcome]:
    """Restore files one after the other; a file that fails is reported and the rest goes on.

    Parameters
    ----------
    jobs
        What goes where.
    restorer, options
        What to restore it with, and how.
    record
        Skip what it says is complete and current, and enter what is done.
    seen
        Called with every picture before and after.

    Yields
    ------
    Outcome
        One for every job, in order.
    """
    for job in jobs:
        if record and record.is_current(job):
            yield Outcome(str(job.source), str(job.target), "complete", reason="already complete")
            continue
        began = time.perf_counter()
        try:
            done = process(
                read_bytes(job.source),
                restorer,
                options,
                name=str(job.source),
                target=str(job.target),
                target_format=format_of(job.target) or "same",
            )
            _make_folder(job.target.parent)
            write_atomically(job.target, done.data)
        except UsageError:
            raise  # The request is wrong, not the file.
        except DeconvError as error:
            yield Outcome(str(job.source), str(job.target), "failed", reason=str(error))
            continue
        if record:
            record.enter(job)
        seen(done)
        yield dataclasses.replace(done.outcome, seconds=round(time.perf_counter() - began, 3))


def read_bytes(path: Path) -> bytes:
    """Read a file whole.

    Raises
    ------
    DeconvError
        If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeconvError(f"{path}: cannot be read ({error.strerror})") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeconvError(f"{folder}: the output folder cannot be made ({error.strerror})") from error


class ResumeRecord:
    """Which outputs of a folder are complete, and from what and with what they were made.

    A line of JSON for every finished file. An entry counts only as long as input, weights, options and output are
    what they were, so that a changed input is done again.

    Parameters
    ----------
    folder
        The output folder.
    weights
        Hash of the weights in use.
    options
        The options in use.
    reuse
        Heed what is recorded; otherwise only add to it.
    """

    def __init__(self, folder: Path, weights: str, options: Options, *, reuse: bool) -> None:
        self.folder = folder
        self.path = folder / RECORD
        self.made_with = {"weights": weights, "options": dataclasses.asdict(options)}
        self._entries: dict[str, dict[str, Any]] = {}
        if reuse and self.path.is_file():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._load(line)

    def _load(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self._entries[entry["output"]] = entry
        except (ValueError, KeyError, TypeError):
            return  # The last line of a run that was killed may be cut; its file is done again.

    def is_current(self, job: Job) -> bool:
        """Tell whether the output of a job is complete and made from this input with these weights and options."""
        try:
            return self._entries.get(self._name(job)) == self._entry(job)
        except OSError:
            return False

    def enter(self, job: Job) -> None:
        """Record that the output of a job has been written."""
        entry = self._entry(job)
        self._entries[entry["output"]] = entry
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _name(self, job: Job) -> str:
        return job.target.relative_to(self.folder).as_posix()

    def _entry(self, job: Job) -> dict[str, Any]:
        source, target = job.source.stat(), job.target.stat()
        return {
            "output": self._name(job),
            "output_bytes": target.st_size,
            "input": str(job.source.resolve()),
            "input_bytes": source.st_size,
            "input_time": source.st_mtime_ns,
            **self.made_with,
        }
