"""``deconv degrade``."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from deconv_cli.cli import options as shared
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.cli.signals import graceful_stop
from deconv_cli.errors import DeconvError, NoPicturesError, UsageError

if TYPE_CHECKING:
    from deconv_cli.cli.streams import Streams
    from deconv_cli.degradation.files import Degradation
    from deconv_cli.restoration.planning import Job


def degrade(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT... OUTPUT",
            show_default=False,
            help="Pictures and folders, then where the copies go: a file if there is one input file and OUTPUT has the"
            " suffix of a picture, else a folder.",
        ),
    ],
    noise_level: Annotated[
        str | None,
        typer.Option(metavar="FLOAT|LOW:HIGH", help="Add noise: sigma on the 0..255 scale.", show_default=False),
    ] = None,
    noise: Annotated[
        str,
        typer.Option(metavar="gaussian|camera", help="Kind of noise: white, or as a camera leaves it in its pictures."),
    ] = "gaussian",
    quality: Annotated[
        str | None, typer.Option(metavar="N|LOW:HIGH", help="Compress as JPEG: quality 1 to 100.", show_default=False)
    ] = None,
    subsampling: Annotated[str, typer.Option(metavar="4:2:0|4:4:4", help="Of the colour in the JPEG.")] = "4:2:0",
    scale: Annotated[
        int, typer.Option(metavar="N", help="Shrink so many times (bicubic, as papers on super-resolution do).")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Decides, with each file's bytes, all that is drawn.")] = 0,
    recursive: shared.Recursive = False,
    overwrite: shared.Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be done, and do nothing.")] = False,
    suffix: Annotated[
        str, typer.Option(metavar="TEXT", help="Text to append to the names of copies in a folder.")
    ] = "",
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="png|jpg|webp|bmp|tiff", help="Format of the copies. [png; with --quality jpg]"
        ),
    ] = None,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Make degraded copies of clean pictures: shrunk, noisy, compressed, in this order.

    deconv degrade photos/ noisy/ --noise-level 25

    deconv degrade photos/ worn/ --noise camera --noise-level 3:15 --quality 60:95

    The same seed gives the same copies. The copies keep the names, so that `deconv score` and
    `deconv train --paired` match them with the originals.
    """
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    if len(paths) < 2:
        raise UsageError("give at least one INPUT, and an OUTPUT at the end")
    shared.refuse_dash(*paths)
    _refuse_idle(shared.given(context))
    from deconv_cli.degradation.files import Degradation
    from deconv_cli.restoration import planning

    how = Degradation(
        scale=scale,
        noise=noise,
        noise_level=_range(noise_level, "--noise-level"),
        quality=_range(quality, "--quality"),
        subsampling=cast(Literal["4:2:0", "4:4:4"], subsampling),
        seed=seed,
    )
    inputs, output = paths[:-1], paths[-1]
    to_file = planning.is_single_file(inputs, output)
    wanted = output_format or ("same" if to_file else "jpg" if quality else "png")
    jobs = planning.plan(inputs, output, recursive=recursive, output_format=wanted, suffix=suffix)
    if not jobs:
        raise NoPicturesError("no picture was found in the given folders; --recursive looks into folders inside them")
    _refuse_formats(jobs, how)
    if not overwrite:
        planning.refuse_existing(
            (job.target for job in jobs if job.error is None), "use --overwrite to replace, or give another output"
        )
    if dry_run:
        for job in jobs:
            _tell(streams, {"input": str(job.source), "output": str(job.target), "status": "planned"}, json=json)
        raise typer.Exit(ExitCode.OK)
    raise typer.Exit(_degrade_files(streams, jobs, how, json=json))


def _refuse_idle(given: Container[str]) -> None:
    """Refuse to say how to do what is not to be done."""
    for how, what in (("noise", "noise_level"), ("subsampling", "quality")):
        if how in given and what not in given:
            raise UsageError(f"--{how} does nothing without --{what.replace('_', '-')}; give both")


def _range(text: str | None, option: str) -> tuple[float, float] | None:
    numbers = shared.parse_numbers(text, option, ":", float)
    if numbers is None:
        return None
    if len(numbers) > 2:
        raise UsageError(f"{option} takes one number or LOW:HIGH, not '{text}'")
    return numbers[0], numbers[-1]


def _refuse_formats(jobs: list[Job], how: Degradation) -> None:
    """Refuse a format that copies cannot have, or that would degrade beyond what was asked for."""
    from deconv_cli.degradation.files import FORMATS
    from deconv_cli.images import format_of

    for target in (job.target for job in jobs if job.error is None):
        if format_of(target) not in FORMATS:
            raise UsageError(f"{target}: copies can be one of {', '.join(FORMATS)}; give --format, or another name")
        if format_of(target) == "jpg" and how.quality is None:
            raise UsageError(f"{target}: JPEG degrades on its own; give --quality, or a lossless format such as png")


def _degrade_files(streams: Streams, jobs: list[Job], how: Degradation, *, json: bool) -> ExitCode:
    failed = False
    with graceful_stop() as stop:
        for job in streams.track(jobs, len(jobs), "picture"):
            facts = {"input": str(job.source), "output": str(job.target)}
            try:
                drawn = _degrade_file(job, how)
            except DeconvError as error:
                failed = True
                streams.error(str(error))
                if json:
                    streams.json({**facts, "status": "failed", "error": str(error)})
            else:
                for warning in drawn["warnings"]:
                    streams.warning(f"{job.source}: {warning}")
                _tell(streams, {**facts, "status": "degraded", **drawn}, json=json)
            if stop():
                break
    return stop.code or (ExitCode.FAILED if failed else ExitCode.OK)


def _degrade_file(job: Job, how: Degradation) -> dict[str, Any]:
    """Degrade one file and return what was done to it."""
    from deconv_cli.degradation.files import degrade as degrade_data
    from deconv_cli.images import format_of, write_atomically
    from deconv_cli.restoration.batch import make_folder, read_bytes

    if job.error:
        raise DeconvError(job.error)
    target_format = format_of(job.target)
    assert target_format
    done = degrade_data(read_bytes(job.source), how, name=str(job.source), target_format=target_format)
    make_folder(job.target.parent)
    write_atomically(job.target, done.data)
    return {
        "scale": how.scale,
        "noise": how.noise if how.noise_level else None,
        "noise_level": None if done.noise_level is None else round(done.noise_level, 3),
        "quality": done.quality,
        "width": done.width,
        "height": done.height,
        "warnings": done.warnings,
    }


def _tell(streams: Streams, facts: dict[str, Any], *, json: bool) -> None:
    """Report one file; what a dry run would do is a result and goes to stdout."""
    line = f"{facts['input']} -> {facts['output']}"
    if json:
        streams.json({**facts, "error": None})
    elif facts["status"] == "planned":
        streams.data(line)
    else:
        parts = [
            f"shrunk {facts['scale']} times" if facts["scale"] > 1 else "",
            f"{facts['noise']} noise {facts['noise_level']:.1f}" if facts["noise"] else "",
            f"JPEG quality {facts['quality']}" if facts["quality"] else "",
        ]
        streams.message(f"{line}: {', '.join(filter(None, parts))}")
