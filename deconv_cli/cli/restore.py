"""``deconv restore``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deconv_cli.cli import options as shared
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.cli.signals import graceful_stop
from deconv_cli.cli.streams import Streams
from deconv_cli.errors import NoPicturesError, UsageError, unknown_name

if TYPE_CHECKING:
    from deconv_cli.restoration.batch import Options, Outcome
    from deconv_cli.restoration.planning import Job
    from deconv_cli.restoration.restorer import Restorers

PIPE = Path("-")


def restore(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT... OUTPUT",
            show_default=False,
            help="Pictures and folders, then where the results go: a file if there is one input file and OUTPUT has the"
            " suffix of a picture, else a folder. - is stdin or stdout.",
        ),
    ],
    task: Annotated[
        str,
        typer.Option(metavar="auto|denoise|decompress|photo|sr", help="What to undo; auto decides for every picture."),
    ] = "auto",
    noise_level: Annotated[
        str, typer.Option(metavar="auto|FLOAT", help="Noise: sigma on the 0..255 scale; auto estimates it.")
    ] = "auto",
    scale: Annotated[
        int | None,
        typer.Option(metavar="2|3|4", help="Enlarge so many times; implies --task sr. [sr: 2]", show_default=False),
    ] = None,
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="1: the full result; 0: the input (sr: bicubic).")
    ] = 1.0,
    weights: shared.Weights = None,
    tta: shared.Tta = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    tile: Annotated[
        str,
        typer.Option(metavar="auto|off|PIXELS", help="Side of the tiles; the result does not depend on it."),
    ] = "auto",
    recursive: shared.Recursive = False,
    overwrite: shared.Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Skip outputs that are complete and current.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be done, and do nothing.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first file that fails.")] = False,
    suffix: Annotated[
        str, typer.Option(metavar="TEXT", help="Text to append to the names of results in a folder.")
    ] = "",
    output_format: Annotated[
        str, typer.Option("--format", metavar="png|jpg|webp|bmp|tiff|same", help="Format of the results.")
    ] = "same",
    quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="JPEG or WebP quality; by default at least 95 and the input's.",
            show_default=False,
        ),
    ] = None,
    metadata: Annotated[
        str, typer.Option(metavar="keep|strip", help="What becomes of EXIF, XMP and resolution.")
    ] = "keep",
    compare: Annotated[
        Path | None,
        typer.Option(metavar="SHEET.png", help="Write a sheet of crops before and after.", show_default=False),
    ] = None,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Restore pictures: remove noise, and keep everything else as it was.

    deconv restore in.png out.png

    deconv restore photos/ scans/*.tif restored/
    """
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    if len(paths) < 2:
        raise UsageError("give at least one INPUT, and an OUTPUT at the end")
    if metadata not in ("keep", "strip"):
        raise unknown_name("metadata", metadata, ("keep", "strip"))
    from deconv_cli.restoration.batch import Options
    from deconv_cli.tasks import TASKS

    if task not in {"auto", *TASKS}:
        raise unknown_name("task", task, ("auto", *TASKS))
    if scale is not None:
        task = "sr" if task == "auto" else task
        TASKS[task].find_scale(scale)

    options = Options(
        task=task,
        scale=scale,
        noise_level=_number_or_word(noise_level, "--noise-level", ("auto",), float),
        strength=strength,
        tta=tta,
        tile=_number_or_word(tile, "--tile", ("auto", "off"), int),
        format=output_format,
        quality=quality,
        metadata="strip" if metadata == "strip" else "keep",
    )
    request = Request(paths[:-1], paths[-1], options, weights, device, precision, compare, overwrite or resume)
    reporter = Reporter(streams, json=json, json_to_stderr=request.output == PIPE)
    if PIPE in paths:
        raise typer.Exit(restore_piped(request, reporter))
    jobs = plan(request, recursive=recursive, suffix=suffix)
    if resume and request.to_file:
        raise UsageError("--resume needs a folder as OUTPUT")
    if not jobs:
        raise NoPicturesError("no picture was found in the given folders; --recursive looks into folders inside them")
    if dry_run:
        reporter.list_jobs(jobs)
        raise typer.Exit(ExitCode.OK)
    raise typer.Exit(restore_files(request, jobs, reporter, resume=resume, fail_fast=fail_fast))


def _number_or_word(text: str, option: str, words: tuple[str, ...], number: Callable[[str], Any]) -> Any:  # noqa: ANN401
    if text in words:
        return text
    try:
        return number(text)
    except ValueError:
        raise UsageError(f"{option} takes {', '.join(words)} or a number, not '{text}'") from None


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    inputs: list[Path]
    output: Path
    options: Options
    weights: str | None
    device: str
    precision: str
    sheet: Path | None
    may_replace: bool

    def __post_init__(self) -> None:
        from deconv_cli.images import format_of

        if self.sheet is None:
            return
        if format_of(self.sheet) != "png":
            raise UsageError(f"{self.sheet}: the sheet is a PNG; give a name that ends in .png")
        self.refuse_existing(self.sheet)

    @property
    def to_file(self) -> bool:
        """Whether OUTPUT names a file rather than a folder."""
        from deconv_cli.restoration import planning

        return planning.is_single_file(self.inputs, self.output)

    def refuse_existing(self, *targets: Path) -> None:
        """Refuse to replace files, unless asked to."""
        from deconv_cli.restoration import planning

        if not self.may_replace:
            planning.refuse_existing(targets)

    def load(self) -> tuple[Restorers, Options]:
        """Load the network given, once it is clear that there is work to do; weights given fix the task."""
        from deconv_cli.restoration.restorer import Restorers

        restorers = Restorers(self.weights, self.device, self.precision)
        if restorers.only and self.options.task == "auto":
            return restorers, replace(self.options, task=restorers.only.task.name)
        return restorers, self.options


def plan(request: Request, *, recursive: bool, suffix: str) -> list[Job]:
    """Decide what goes where, refusing all that would lose a file."""
    from deconv_cli.restoration import planning

    jobs = planning.plan(
        request.inputs,
        request.output,
        recursive=recursive,
        output_format=request.options.format,
        suffix=suffix,
    )
    request.refuse_existing(*(job.target for job in jobs))
    return jobs


def restore_files(request: Request, jobs: list[Job], reporter: Reporter, *, resume: bool, fail_fast: bool) -> ExitCode:
    """Restore files to files and return how that ended."""
    from deconv_cli.restoration import batch
    from deconv_cli.restoration.resume import ResumeRecord
    from deconv_cli.restoration.sheet import ComparisonSheet

    restorers, options = request.load()
    record = None
    if not request.to_file:
        record = ResumeRecord(request.output, restorers.sha256, options, reuse=resume)
    sheet = ComparisonSheet()
    stopped = None
    began = time.perf_counter()
    with graceful_stop() as stop, reporter.streams.progress(len(jobs), "picture") as bar:
        for outcome in batch.run(jobs, restorers, options, record=record, seen=sheet.add):
            bar.update()
            reporter.tell(outcome)
            if stop() or (fail_fast and outcome.status == "failed"):
                stopped = stop.code
                break
    if request.sheet and sheet:
        sheet.write(request.sheet)
    reporter.summarise(len(jobs), time.perf_counter() - began)
    return stopped or (ExitCode.FAILED if reporter.tally["failed"] else ExitCode.OK)


def restore_piped(request: Request, reporter: Reporter) -> ExitCode:
    """Restore one picture from stdin, to stdout, or both."""
    from deconv_cli.images import format_of, write_atomically
    from deconv_cli.restoration import batch
    from deconv_cli.restoration.sheet import ComparisonSheet

    streams, output = reporter.streams, request.output
    if len(request.inputs) != 1 or request.inputs[0].is_dir():
        raise UsageError("with - for stdin or stdout, give exactly one INPUT file and one OUTPUT file")
    source = request.inputs[0]
    if output == PIPE and streams.stdout.isatty():
        raise UsageError("a picture is not written to a terminal; redirect stdout, or give an OUTPUT file")
    if source == PIPE and streams.stdin.isatty():
        raise UsageError("nothing is piped into stdin; give an INPUT file")
    if output != PIPE and format_of(output) is None:
        raise UsageError(f"{output}: from stdin, OUTPUT must be a file with the suffix of a picture")
    if output != PIPE:
        request.refuse_existing(output)
    restorers, options = request.load()
    data = streams.stdin.read() if source == PIPE else batch.read_bytes(source)
    done = batch.process(
        data,
        restorers,
        options,
        name="standard input" if source == PIPE else str(source),
        target="standard output" if output == PIPE else str(output),
        target_format=options.format if output == PIPE else format_of(output) or "same",
    )
    if output == PIPE:
        streams.stdout.write(done.data)
        streams.stdout.flush()
    else:
        write_atomically(output, done.data)
    if request.sheet:
        sheet = ComparisonSheet()
        sheet.add(done)
        sheet.write(request.sheet)
    reporter.tell(done.outcome)
    return ExitCode.OK


@dataclass
class Reporter:
    """Tells the user, or a script, what became of the files, and keeps the tally."""

    streams: Streams
    json: bool
    json_to_stderr: bool
    tally: Counter[str] = field(default_factory=Counter)

    def tell(self, outcome: Outcome) -> None:
        """Report one file."""
        self.tally[outcome.status] += 1
        for warning in outcome.warnings:
            self.streams.warning(f"{outcome.input}: {warning}")
        if outcome.status == "failed":
            self.streams.error(outcome.reason)
        if self.json:
            self.streams.json(outcome.to_dict(), to_stderr=self.json_to_stderr)
        elif outcome.status != "failed":
            self.streams.message(f"{outcome.input} -> {outcome.output}: {outcome.reason}")

    def list_jobs(self, jobs: list[Job]) -> None:
        """Say what would be done; this is the result of a dry run, so it goes to stdout."""
        from deconv_cli.restoration.batch import Outcome

        for job in jobs:
            if self.json:
                self.streams.json(Outcome(str(job.source), str(job.target), "planned").to_dict())
            else:
                self.streams.data(f"{job.source} -> {job.target}")

    def summarise(self, total: int, seconds: float) -> None:
        """Report the batch."""
        if self.json:
            self.streams.json({"summary": dict(self.tally), "total": total, "seconds": round(seconds, 3)})
        elif total > 1:
            parts = ", ".join(f"{count} {status}" for status, count in self.tally.items())
            self.streams.message(f"{total} pictures: {parts}; {seconds:.1f} s")
