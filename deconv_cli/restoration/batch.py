"""Files to files, one at a time; a file that fails does not stop the rest."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.images import Frame, encode_frame, format_of, read_frame, write_atomically
from deconv_cli.restoration.decision import Decision, decide
from deconv_cli.restoration.planning import Job
from deconv_cli.restoration.resume import ResumeRecord

if TYPE_CHECKING:
    from deconv_cli.restoration.restorer import Restorers  # imports torch, which a dry run does not need


@dataclass(frozen=True)
class Options:
    """How to restore and write every file of a batch.

    Attributes
    ----------
    task
        What to undo; ``auto`` decides for every picture, and copies a file byte for byte if it needs nothing and its
        format stays.
    noise_level, strength, tta, tile
        See `deconv_cli.restoration.restorer.Restorer.restore`. A noise level means denoising.
    scale
        Enlargement of super-resolution; None is what the weights do, or the task's default.
    format
        ``png``, ``jpg``, ``webp``, ``bmp``, ``tiff``, or ``same`` as the target's suffix says.
    quality
        Of JPEG and WebP; None decides by the input.
    metadata
        ``keep`` or ``strip`` EXIF, XMP and resolution.
    """

    task: str = "auto"
    noise_level: float | Literal["auto"] = "auto"
    scale: int | None = None
    strength: float = 1.0
    tta: bool = False
    tile: int | Literal["auto", "off"] = "auto"
    format: str = "same"
    quality: int | None = None
    metadata: Literal["keep", "strip"] = "keep"


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
    scale
        Output side over input side.
    width, height
        Size of the input.
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
    scale: int = 1
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


def process(
    data: bytes, restorers: Restorers, options: Options, *, name: str, target: str, target_format: str
) -> Processed:
    """Restore one file in memory.

    Parameters
    ----------
    data
        The file.
    restorers, options
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
    outcome = Outcome(name, target, "restored", width=width, height=height)
    decision = decide(frame, restorers.tasks) if options.task == options.noise_level == "auto" else None
    if decision and decision.task is None:
        outcome = dataclasses.replace(
            outcome, status="copied", reason=decision.reason, noise_level=round(decision.noise_level, 2)
        )
        if target_format == frame.format and options.quality is None and options.metadata == "keep":
            return Processed(data, frame, frame, outcome)
        restored = frame
    else:
        restored, outcome = _restore(frame, restorers, options, decision, outcome)
    encoded, warnings = encode_frame(restored, target_format, quality=options.quality, metadata=options.metadata)
    outcome = dataclasses.replace(outcome, warnings=(*frame.warnings, *warnings))
    return Processed(encoded, frame, restored, outcome)


def _restore(
    frame: Frame, restorers: Restorers, options: Options, decision: Decision | None, outcome: Outcome
) -> tuple[Frame, Outcome]:
    task = decision.task if decision else "denoise" if options.task == "auto" else options.task
    assert task
    restorer = restorers.of(task, options.scale)
    estimated = restorer.within_range(decision.noise_level) if decision and task == "denoise" else None
    result = restorer.restore(
        frame.pixels,
        alpha=frame.alpha,
        noise_level=options.noise_level if estimated is None else estimated,
        strength=options.strength,
        tta=options.tta,
        tile=options.tile,
    )
    level = result.noise_level
    if decision:
        found = decision.reason
    elif restorer.description.scale > 1:
        found = f"x{restorer.description.scale}"
    elif level is None:
        found = "blind"
    else:
        found = f"noise level {level:.1f} ({'estimated' if options.noise_level == 'auto' else 'given'})"
    return dataclasses.replace(frame, pixels=result.pixels, alpha=result.alpha), dataclasses.replace(
        outcome,
        task=task,
        reason=f"{task}: {found}, {result.precision}",
        noise_level=None if level is None else round(level, 2),
        scale=restorer.description.scale,
    )


def run(
    jobs: Iterable[Job],
    restorers: Restorers,
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
    restorers, options
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
                restorers,
                options,
                name=str(job.source),
                target=str(job.target),
                target_format=format_of(job.target) or "same",
            )
            make_folder(job.target.parent)
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


def make_folder(folder: Path) -> None:
    """Make the folder of an output.

    Raises
    ------
    DeconvError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeconvError(f"{folder}: the output folder cannot be made ({error.strerror})") from error
