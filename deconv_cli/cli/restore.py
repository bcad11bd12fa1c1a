"""``deconv restore``."""

from __future__ import annotations

import codecs
import io
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deconv_cli.cli import options as shared
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.cli.reporting import Reporter
from deconv_cli.cli.signals import graceful_stop
from deconv_cli.errors import DeconvError, NoPicturesError, UsageError, unknown_name

if TYPE_CHECKING:
    from deconv_cli.cli.streams import Streams
    from deconv_cli.restoration.batch import Outcome
    from deconv_cli.restoration.pages import Crop, Options
    from deconv_cli.restoration.planning import Job
    from deconv_cli.restoration.restorer import Restorers
    from deconv_cli.restoration.resume import ResumeRecord
    from deconv_cli.restoration.sheet import ComparisonSheet

PIPE = Path("-")
RESTORATION, FILES, OUTPUT = "What is done", "Which files", "What is written"


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
        typer.Option(
            metavar="auto|denoise|decompress|photo|sr",
            help="What to undo; auto decides for every picture.",
            rich_help_panel=RESTORATION,
        ),
    ] = "auto",
    noise_level: Annotated[
        str,
        typer.Option(
            metavar="auto|FLOAT",
            help="Noise: sigma on the 0..255 scale; auto estimates it.",
            rich_help_panel=RESTORATION,
        ),
    ] = "auto",
    scale: Annotated[
        int | None,
        typer.Option(
            metavar="2|3|4",
            help="Enlarge so many times, by --task sr; what another --task is for is undone before. [sr: 2]",
            show_default=False,
            rich_help_panel=RESTORATION,
        ),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="1: the full result; 0: the input (sr: bicubic). Less gives texture back, before noise.",
            rich_help_panel=RESTORATION,
        ),
    ] = 1.0,
    luma: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Strength for brightness alone: 0 keeps the grain. [--strength]",
            show_default=False,
            rich_help_panel=RESTORATION,
        ),
    ] = None,
    chroma: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Strength for colour alone: 1 takes colour noise off. [--strength]",
            show_default=False,
            rich_help_panel=RESTORATION,
        ),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,WIDTH,HEIGHT",
            help="Restore only this part, to try settings out; see --compare.",
            show_default=False,
            rich_help_panel=RESTORATION,
        ),
    ] = None,
    weights: shared.Weights = None,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Use the bundled weights in int8: faster on a processor, a little worse.",
            rich_help_panel=RESTORATION,
        ),
    ] = False,
    tta: shared.Tta = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    engine: shared.Engine = "auto",
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|off|PIXELS",
            help="Side of the tiles; the result does not depend on it. auto goes by the free memory.",
            rich_help_panel=RESTORATION,
        ),
    ] = "auto",
    jobs: Annotated[
        int,
        typer.Option(
            min=1, help="How many pictures to decode ahead, and to encode behind the network.", rich_help_panel=FILES
        ),
    ] = 2,
    recursive: shared.Recursive = False,
    files_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-",
            help="Read names of further pictures from a file or stdin, a line each. They keep their places below the"
            " folder that they have in common.",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option("--null", help="Names in --files-from and --failed end in NUL bytes.", rich_help_panel=FILES),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Take every N-th picture, from number I: for N machines.",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    max_pixels: Annotated[
        int,
        typer.Option(min=1, help="Refuse larger pictures, which may be decompression bombs.", rich_help_panel=FILES),
    ] = 500_000_000,
    overwrite: shared.Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Skip outputs that are complete and current, and replace the others that an earlier run wrote.",
            rich_help_panel=FILES,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List what would be done and what it would take, and do nothing.",
            rich_help_panel=FILES,
        ),
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first file that fails.", rich_help_panel=FILES)
    ] = False,
    failed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the names of inputs that failed to a file.",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    suffix: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Text to append to the names of results in a folder.", rich_help_panel=OUTPUT
        ),
    ] = "",
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="png|jpg|webp|bmp|tiff|gif|avif|jp2|jxl|heif|same",
            help="Format of the results; same: that of the input, by its content.",
            rich_help_panel=OUTPUT,
        ),
    ] = "same",
    quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="Quality of a lossy format; by default at least 95 and the input's.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    metadata: Annotated[
        str,
        typer.Option(
            metavar="keep|strip",
            help="What becomes of EXIF, XMP, IPTC, text, resolution and profile; without one, colours become sRGB.",
            rich_help_panel=OUTPUT,
        ),
    ] = "keep",
    palette: Annotated[
        bool,
        typer.Option(
            "--palette", help="Write pictures that have a palette with one again: PNG and BMP.", rich_help_panel=OUTPUT
        ),
    ] = False,
    stamp: Annotated[
        bool,
        typer.Option(
            "--stamp",
            help="Write version, weights, task and settings into XMP, or into text of a PNG.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    preserve_times: Annotated[
        bool,
        typer.Option("--preserve-times", help="Give results the times of their inputs.", rich_help_panel=OUTPUT),
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="SHEET.png",
            help="Write a sheet of parts before and after.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Restore pictures: remove noise and JPEG artefacts, or enlarge, and keep everything else as it was.

    deconv restore in.png out.png

    deconv restore photos/ scans/*.tif restored/

    find scans -name '*.tif' -print0 | deconv restore --files-from - --null restored/
    """
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    if len(paths) < 2 and files_from is None:
        raise UsageError("give at least one INPUT, and an OUTPUT at the end")
    shared.refuse_dash(failed)
    _require_numbers({"--strength": strength, "--luma": luma, "--chroma": chroma})
    if metadata not in ("keep", "strip"):
        raise unknown_name("metadata", metadata, ("keep", "strip"))
    from deconv_cli.restoration.pages import Options
    from deconv_cli.tasks import TASKS

    if task not in {"auto", *TASKS}:
        raise unknown_name("task", task, ("auto", *TASKS))
    if scale is not None:
        # A noise level is of noise, which is taken off before.
        task = task if task != "auto" else "sr" if noise_level == "auto" else "denoise"
        TASKS[task if scale == 1 else "sr"].find_scale(scale)

    options = Options(
        task=task,
        scale=scale,
        noise_level=_number_or_word(noise_level, "--noise-level", ("auto",), float),
        strength=strength if luma is None else luma,
        chroma=strength if chroma is None else chroma,
        crop=_parse_crop(crop),
        tta=tta,
        tile=_parse_tile(tile),
        format=output_format,
        quality=quality,
        metadata="strip" if metadata == "strip" else "keep",
        palette=palette,
        stamp=stamp,
        max_pixels=max_pixels,
    )
    listed = [] if files_from is None else read_names(files_from, streams, null=null)
    request = Request(
        inputs=paths[:-1],
        listed=listed,
        output=paths[-1],
        options=options,
        weights=weights,
        device=device,
        precision=precision,
        engine=engine,
        fast=fast,
        sheet=compare,
        failed=failed,
        null=null,
        overwrite=overwrite,
        resume=resume,
        workers=jobs,
        keep_times=preserve_times,
    )
    reporter = Reporter(streams, json=json, json_to_stderr=request.output == PIPE)
    if PIPE in paths:
        options_of_files = {
            "--dry-run": dry_run,
            "--resume": resume,
            "--shard": shard,
            "--suffix": suffix,
            "--failed": failed,
            "--recursive": recursive,
            "--preserve-times": preserve_times,
        }
        if ignored := [name for name, given in options_of_files.items() if given]:
            raise UsageError(f"{', '.join(ignored)}: not for a picture that comes or goes through a pipe")
        raise typer.Exit(restore_piped(request, reporter))
    planned = plan(request, recursive=recursive, suffix=suffix, part=_parse_shard(shard))
    if resume and request.to_file:
        raise UsageError("--resume needs a folder as OUTPUT")
    if dry_run:
        raise typer.Exit(look_at_files(request, planned, reporter))
    raise typer.Exit(restore_files(request, planned, reporter, fail_fast=fail_fast))


def _number_or_word(text: str, option: str, words: tuple[str, ...], number: Callable[[str], Any]) -> Any:  # noqa: ANN401
    if text in words:
        return text
    try:
        return number(text)
    except ValueError:
        raise UsageError(f"{option} takes {', '.join(words)} or a number, not '{text}'") from None


def _require_numbers(shares: dict[str, float | None]) -> None:
    """Refuse nan, which no range leaves out."""
    for option, share in shares.items():
        if share is not None and math.isnan(share):
            raise UsageError(f"{option} takes a number from 0 to 1, not nan")


def _parse_tile(text: str) -> int | Literal["auto", "off"]:
    tile: int | Literal["auto", "off"] = _number_or_word(text, "--tile", ("auto", "off"), int)
    if isinstance(tile, int) and tile < 1:
        raise UsageError(f"--tile takes auto, off or a positive number of pixels, not {tile}")
    return tile


def _parse_crop(text: str | None) -> Crop | None:
    from deconv_cli.restoration.pages import Crop

    numbers = shared.parse_numbers(text, "--crop", ",", int)
    if numbers is None:
        return None
    if len(numbers) != 4 or min(numbers[:2]) < 0 or min(numbers[2:]) < 1:
        raise UsageError(f"--crop takes X,Y,WIDTH,HEIGHT in pixels, such as 100,50,400,300, not '{text}'")
    return Crop(*numbers)


def _parse_shard(text: str | None) -> tuple[int, int]:
    numbers = shared.parse_numbers(text, "--shard", "/", int)
    if numbers is None:
        return 1, 1
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise UsageError(f"--shard takes I/N with I from 1 to N, such as 2/5, not '{text}'")
    return numbers[0], numbers[1]


def read_names(source: str, streams: Streams, *, null: bool) -> list[Path]:
    """Read file names from a file or stdin, a line or a NUL-terminated name each.

    Raises
    ------
    UsageError
        If the file cannot be read, or its names end otherwise.
    """
    if source == "-":
        data = streams.stdin.read()
    else:
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise UsageError(f"{source}: the list of files cannot be read ({error.strerror})") from None
    if b"\0" in data and not null:
        raise UsageError(f"{source}: the names in it end in NUL bytes; add --null")
    data = data.removeprefix(codecs.BOM_UTF8)  # Windows' editors begin a file with it.
    names = data.split(b"\0") if null else data.splitlines()
    return [Path(os.fsdecode(name)) for name in names if name]


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    inputs: list[Path]
    listed: list[Path]
    output: Path
    options: Options
    weights: str | None
    device: str
    precision: str
    engine: str
    fast: bool
    sheet: Path | None
    failed: Path | None
    null: bool
    overwrite: bool
    resume: bool
    workers: int
    keep_times: bool

    def __post_init__(self) -> None:
        from deconv_cli.images import format_of
        from deconv_cli.images.paths import is_folder

        if self.sheet and format_of(self.sheet) != "png":
            raise UsageError(f"{self.sheet}: the sheet is a PNG; give a name that ends in .png")
        for option, path in self.beside.items():
            if is_folder(path):
                raise UsageError(f"{option} {path}: it is a folder; give the name of a file")
        self.refuse_existing(*self.replaceable)

    @property
    def beside(self) -> dict[str, Path]:
        """What is written beside the results, by option; first what is dearer."""
        given = {"--failed": self.failed, "--compare": self.sheet}
        return {option: path for option, path in given.items() if path}

    @property
    def replaceable(self) -> list[Path]:
        """What is written beside the results and would take the place of a file; a pipe takes none."""
        from deconv_cli.images.atomic import is_stream

        return [path for path in self.beside.values() if not is_stream(path)]

    @property
    def to_file(self) -> bool:
        """Whether OUTPUT names a file rather than a folder."""
        from deconv_cli.restoration import planning

        return not self.listed and planning.is_single_file(self.inputs, self.output)

    def refuse_existing(self, *targets: Path) -> None:
        """Refuse to replace files, unless asked to; what --resume may replace, its record tells."""
        from deconv_cli.restoration import planning

        if self.overwrite or self.resume:
            return
        if self.to_file or self.output == PIPE:  # There is no record to resume by.
            planning.refuse_existing(targets)
        else:
            planning.refuse_existing(targets, "use --overwrite to replace or --resume to continue")

    def refuse_pictures_beside(self, jobs: list[Job]) -> None:
        """Refuse a sheet, or a list of failures, that would take the place of an input or of a result."""
        pictures = {os.path.realpath(path) for job in jobs if self.beside for path in (job.source, job.target)}
        for option, path in self.beside.items():
            if os.path.realpath(path) in pictures:
                raise UsageError(f"{option} {path}: it is an input or a result; give another name")

    def load(self) -> tuple[Restorers, Options]:
        """Load the network given, once it is clear that there is work to do; weights given fix the task.

        Raises
        ------
        UsageError
            If task, scale or noise level are not what it was trained for; later, some of the work would be done.
        """
        from deconv_cli.restoration.pages import networks_for
        from deconv_cli.restoration.restorer import Restorers

        restorers, options = (
            Restorers(self.weights, self.device, self.precision, self.engine, fast=self.fast),
            self.options,
        )
        if restorers.only:
            restorers.only.require(None if options.task == "auto" else options.task, options.scale)
            options = replace(options, task=restorers.only.task.name)
        if options.noise_level != "auto":
            next(networks_for(options, restorers)).require_level(options.noise_level)
        return restorers, options


def plan(request: Request, *, recursive: bool, suffix: str, part: tuple[int, int]) -> list[Job]:
    """Decide what goes where, refusing all that would lose a file."""
    from deconv_cli.restoration import planning
    from deconv_cli.restoration.resume import Record

    jobs = planning.plan(
        request.inputs,
        request.output,
        recursive=recursive,
        output_format=request.options.format,
        suffix=suffix,
        listed=request.listed,
        results=() if request.to_file else Record(request.output).results,
    )
    if not jobs:
        where = "in the given folders; --recursive looks into folders inside them" if request.inputs else "in the list"
        raise NoPicturesError(f"no picture was found {where}")
    request.refuse_pictures_beside(jobs)
    jobs = planning.shard(jobs, *part)
    request.refuse_existing(*(job.target for job in jobs if job.error is None))
    return jobs


def open_record(request: Request, jobs: list[Job], weights: str, options: Options) -> ResumeRecord | None:
    """Return the record of the output folder, if it is one.

    Raises
    ------
    UsageError
        If --resume would replace a file that no earlier run wrote, or that was changed since.
    """
    from deconv_cli.restoration import planning
    from deconv_cli.restoration.resume import ResumeRecord

    if request.to_file:
        return None
    record = ResumeRecord(request.output, weights, options, reuse=request.resume)
    if request.resume and not request.overwrite:
        lost = [job.target for job in jobs if job.error is None and record.would_lose(job)]
        lost += [path for path in request.replaceable if record.is_foreign(path)]
        planning.refuse_existing(lost, "not as an earlier run wrote it; use --overwrite to replace it")
    return record


def look_at_files(request: Request, jobs: list[Job], reporter: Reporter) -> ExitCode:
    """List what would be done, with sizes and what it would take."""
    from deconv_cli.restoration.batch import already_complete
    from deconv_cli.restoration.estimate import Estimate, look_at, seconds_per_megapixel

    restorers, options = request.load()
    record = open_record(request, jobs, restorers.sha256, options)
    estimate = Estimate()
    for job in jobs:
        if record and record.is_current(job):
            reporter.tell(already_complete(job))
        else:
            reporter.tell(look_at(job, options, restorers, estimate))
    reporter.estimate(estimate, seconds_per_megapixel(restorers, options))
    return ExitCode.FAILED if reporter.failed else ExitCode.OK


def restore_files(request: Request, jobs: list[Job], reporter: Reporter, *, fail_fast: bool) -> ExitCode:
    """Restore files to files and return how that ended."""
    from deconv_cli.images import remove_leftovers
    from deconv_cli.restoration.batch import Batch, make_writable_folder

    restorers, options = request.load()
    record = open_record(request, jobs, restorers.sha256, options)
    if record:
        make_writable_folder(request.output)
    for path in request.beside.values():
        make_writable_folder(path.parent)
    for folder in {job.target.parent for job in jobs}:
        remove_leftovers(folder)
    sheet = _sheet(request)
    began = time.perf_counter()
    with graceful_stop() as stop, reporter.streams.progress(len(jobs), "picture") as bar:
        batch = Batch(
            restorers,
            options,
            jobs_beside=request.workers,
            record=record,
            keep_times=request.keep_times,
            seen=sheet.add if sheet is not None else lambda _: None,
            stop=lambda: stop() or (fail_fast and bool(reporter.failed)),
        )
        for outcome in batch.run(jobs):
            bar.update()
            reporter.tell(outcome)
    written = write_beside(request, reporter, sheet, record)
    reporter.summarise(len(jobs), time.perf_counter() - began, batch.busy)
    return stop.code or (ExitCode.FAILED if reporter.failed or not written else ExitCode.OK)


def write_beside(
    request: Request, reporter: Reporter, sheet: ComparisonSheet | None, record: ResumeRecord | None = None
) -> bool:
    """Write the list of failures and the sheet, each whatever becomes of the other; return whether both are written."""
    from deconv_cli.images.atomic import is_stream

    written = True
    for path in request.beside.values():
        try:
            if path == request.failed:
                reporter.write_failed(path, null=request.null)
            elif sheet:
                sheet.write(path)
            else:
                reporter.streams.message(f"{path}: no sheet was written, since no picture was restored")
                continue
            if record and not is_stream(path):
                record.enter_beside(path)
        except DeconvError as error:
            reporter.streams.error(str(error))
            written = False
    return written


def _sheet(request: Request) -> ComparisonSheet | None:
    if request.sheet is None:
        return None
    from deconv_cli.restoration.sheet import CHOSEN, CROP, ComparisonSheet

    return ComparisonSheet(CHOSEN if request.options.crop else CROP)


def restore_piped(request: Request, reporter: Reporter) -> ExitCode:
    """Restore one picture from stdin, to stdout, or both."""
    from deconv_cli.restoration import batch

    streams = reporter.streams
    _check_pipes(request, streams)
    for path in request.beside.values():
        batch.make_writable_folder(path.parent)
    restorers, options = request.load()
    sheet, began = _sheet(request), time.perf_counter()
    try:
        outcome = pass_through(request, streams, restorers, options, sheet)
    except UsageError:
        raise
    except DeconvError as error:
        outcome = batch.Outcome(*_piped_names(request), "failed", error=str(error))
    written = write_beside(request, reporter, sheet)
    reporter.tell(outcome)
    reporter.summarise(1, time.perf_counter() - began, None)
    return ExitCode.FAILED if reporter.failed or not written else ExitCode.OK


def pass_through(
    request: Request, streams: Streams, restorers: Restorers, options: Options, sheet: ComparisonSheet | None
) -> Outcome:
    """Read a picture, restore it and write it, each whole, since nobody can take back what went into a pipe."""
    from deconv_cli.images import format_of, write_atomically
    from deconv_cli.restoration import batch

    source, output, file = request.inputs[0], request.output, io.BytesIO()
    name, target = _piped_names(request)
    outcome = batch.restore_data(
        streams.stdin.read() if source == PIPE else batch.read_bytes(source),
        file,
        restorers,
        options,
        name=name,
        target=target,
        target_format=options.format if output == PIPE else format_of(output) or "same",
        seen=sheet.add if sheet is not None else lambda _: None,
    )
    if output == PIPE:
        streams.write(file.getbuffer())
    else:
        write_atomically(output, file.getvalue())
    return outcome


def _piped_names(request: Request) -> tuple[str, str]:
    """Return what messages call the input and the output."""
    source, output = request.inputs[0], request.output
    return (
        "standard input" if source == PIPE else str(source),
        "standard output" if output == PIPE else str(output),
    )


def _check_pipes(request: Request, streams: Streams) -> None:
    from deconv_cli.images import format_of
    from deconv_cli.restoration import planning

    source, output = request.inputs[0] if request.inputs else PIPE, request.output
    if len(request.inputs) != 1 or request.listed or source.is_dir():
        raise UsageError("with - for stdin or stdout, give exactly one INPUT file and one OUTPUT file")
    if output == PIPE and streams.stdout.isatty():
        raise UsageError("a picture is not written to a terminal; redirect stdout, or give an OUTPUT file")
    if source == PIPE and streams.stdin.isatty():
        raise UsageError("nothing is piped into stdin; give an INPUT file")
    if output != PIPE and format_of(output) is None:
        raise UsageError(f"{output}: from stdin, OUTPUT must be a file with the suffix of a picture")
    request.refuse_pictures_beside([planning.Job(source, output)])
    if output != PIPE:
        planning.refuse_other_format(output, request.options.format)
        request.refuse_existing(output)
