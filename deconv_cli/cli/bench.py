"""``deconv bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from deconv_cli.cli import options as shared
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.cli.reporting import cells_table
from deconv_cli.errors import NoPicturesError, UsageError

if TYPE_CHECKING:
    from deconv_cli.cli.streams import Streams
    from deconv_cli.evaluation.bench import Bench, Conditions, Method
    from deconv_cli.restoration.restorer import Restorer


def bench(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", show_default=False, help="Clean pictures; not for --speed.")
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Degradation levels. [those that the task's papers report]"),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="denoise|decompress|photo|sr", help="What to undo. [that of the weights, or denoise]"),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(metavar="2|3|4", help="Enlargement; implies --task sr. [sr: 2]", show_default=False),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Bundled weights, or a file that train wrote; repeat it to compare. [those of the task]",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Classical methods to compare with: nlm, tv, wavelet (told the true deviation of the input's error);"
            " for sr bicubic, lanczos.",
            show_default=False,
        ),
    ] = None,
    gray: Annotated[
        bool, typer.Option("--gray", help="Turn colour originals into their luma first (BT.601 studio range, rounded).")
    ] = False,
    subsampling: Annotated[
        str | None, typer.Option(metavar="4:2:0|4:4:4", help="Of the colour in JPEG. [4:2:0]", show_default=False)
    ] = None,
    channel: Annotated[
        str | None, typer.Option(metavar="rgb|y|gray", help="What is scored. [rgb; sr: y]", show_default=False)
    ] = None,
    tta: shared.Tta = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    engine: shared.Engine = "auto",
    recursive: shared.Recursive = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a table too; an earlier one is replaced.")
    ] = None,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed",
            help="Time the engines that are installed instead, on random pictures: a minute or two, with nothing else"
            " running.",
        ),
    ] = False,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="For --speed: how often each is timed; the median counts. [3]")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Degrade, restore and score a folder of clean pictures in memory.

    deconv bench Set12 --levels 15,25,50 --against nlm,tv

    deconv bench LIVE1 --task decompress --gray

    deconv bench Set5 --scale 2 --against bicubic,lanczos

    deconv bench --speed
    """
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    if speed:
        choice = {"weights"} if weights else {"task", "scale"}
        what = "--speed and --weights" if weights else "--speed"
        shared.refuse_beside(context, what, {"speed", "rounds", "device", *choice})
        _time_engines(
            streams,
            weights or _own_weights(task or ("sr" if scale else "denoise"), scale, required=True),
            device,
            rounds or 3,
            json=json,
        )
        return
    folder = _require_folder(folder, rounds)
    chosen = shared.parse_numbers(levels, "--levels", ",", float)
    if csv:
        shared.require_table_path(csv, folder)
    from deconv_cli.evaluation.bench import Conditions
    from deconv_cli.evaluation.bench import bench as measure
    from deconv_cli.images import find_pictures, write_atomically
    from deconv_cli.restoration.restorer import Restorer
    from deconv_cli.tasks import find_task

    paths = find_pictures(folder, recursive=recursive)
    if not paths:
        raise NoPicturesError(f"{folder}: no picture was found in this folder")
    names = weights or _own_weights(task or ("sr" if scale else "denoise"), scale, required=not against)
    restorers = {name: Restorer(name, device=device, precision=precision, engine=engine) for name in names}
    first = next(iter(restorers.values()), None)
    aim = find_task(task or ("sr" if scale else first.task.name if first else "denoise"))
    own = first.description.scale if first and scale is None else 0
    conditions = Conditions(
        aim,
        own if own in aim.scales else aim.find_scale(scale),
        gray=gray,
        subsampling=cast(Literal["4:2:0", "4:4:4"] | None, subsampling),
        channel=channel,
    )
    if chosen and aim.name == "sr":
        raise UsageError("the level of super-resolution is its scale: give --scale instead of --levels")
    result = measure(
        paths,
        _methods(restorers, list(dict.fromkeys(shared.parse_names(against) or [])), conditions, tta=tta),
        conditions,
        [conditions.scale] if aim.name == "sr" else chosen or aim.report_levels,
        progress=lambda items: streams.track(items, len(items), "picture"),
    )
    for failure in result.failed:
        streams.error(failure.reason)
    if csv:
        write_atomically(csv, result.to_csv().encode("utf-8", "surrogateescape"))
    if json:
        streams.json(result.to_dict())
    else:
        _print(streams, result, aim.level_name, markdown=markdown)
    if result.failed:
        raise typer.Exit(ExitCode.FAILED)


def _print(streams: Streams, result: Bench, level_name: str, *, markdown: bool) -> None:
    if markdown:
        streams.data(result.to_markdown(level_name))
        return
    streams.table(cells_table(result.cells(level_name)))
    precisions = ", ".join(f"{name} in {value}" for name, value in result.precisions.items())
    streams.data(f"{result.pictures} pictures; {result.conditions}; {precisions}")


def _require_folder(folder: Path | None, rounds: int | None) -> Path:
    if rounds:
        raise UsageError("--rounds is for --speed; add it, or leave --rounds out")
    if folder is None:
        raise UsageError("give a FOLDER of clean pictures, or --speed")
    shared.require_folders(folder)
    return folder


def _time_engines(streams: Streams, weights: list[str], device: str, rounds: int, *, json: bool) -> None:
    """Measure and print how fast the engines are."""
    from deconv_cli.evaluation.speed import SIZE, measure_speed

    result = measure_speed(
        weights, device=device, rounds=rounds, progress=lambda items, unit: streams.track(items, len(items), unit)
    )
    if json:
        streams.json(result.to_dict())
        return
    cells = [
        (
            row.weights,
            row.engine,
            row.precision,
            f"{row.megapixels_per_second:.2f}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            f"{row.gigaflops:.0f}",
            f"{row.share:.0%}",
        )
        for row in result.rows
    ]
    headings = ("weights", "engine", "precision", "MP/s", "times torch", "GFLOPS", "of the convolution rate")
    streams.table(cells_table([headings, *cells]))
    sizes = [
        (f"{size:g}", f"{seconds:.2f}", "" if peak is None else f"{peak / 1e9:.2f}")
        for size, (seconds, peak) in result.sizes.items()
    ]
    streams.table(cells_table([("megapixels", "seconds", "peak memory (GB)"), *sizes]))
    for title, rates in (("threads", result.threads), ("tiles at once", result.batches)):
        streams.table(cells_table([(title, "MP/s"), *((str(count), f"{rate:.2f}") for count, rate in rates.items())]))
    streams.data(
        f"{result.processor}; pictures of {SIZE[1]} x {SIZE[0]}, array to array;"
        f" for 2 megapixels {result.engine_share:.0%} of the time is the engine's own"
    )


def _own_weights(task: str, scale: int | None, *, required: bool) -> list[str]:
    """Return the bundled weights of a task; none if there are none and there is something else to measure."""
    from deconv_cli.restoration.restorer import own_weights
    from deconv_cli.tasks import find_task

    try:
        return [own_weights(find_task(task), scale)]
    except UsageError:
        if required:
            raise
        return []


def _methods(
    restorers: dict[str, Restorer], classical: list[str], conditions: Conditions, *, tta: bool
) -> list[Method]:
    from deconv_cli.evaluation.bench import Method

    stems = [Path(name).stem for name in restorers]
    unique = len({*stems, *classical}) == len(stems) + len(classical)
    methods = [
        Method.of_weights(restorer, stem if unique else name, tta=tta)
        for (name, restorer), stem in zip(restorers.items(), stems, strict=True)
    ]
    return methods + [Method.classical(name, conditions.scale) for name in classical]
