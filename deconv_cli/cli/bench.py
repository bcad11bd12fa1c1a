"""``deconv bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deconv_cli.cli import options as shared
from deconv_cli.errors import NoPicturesError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from deconv_cli.evaluation.bench import Bench


def bench(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False, help="Clean pictures.")],
    levels: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Degradation levels. [those that the task's papers report]"),
    ] = None,
    task: Annotated[str, typer.Option(metavar="denoise|decompress|photo|sr", help="What to undo.")] = "denoise",
    scale: Annotated[
        int | None,
        typer.Option(metavar="2|3|4", help="Enlargement; implies --task sr. [sr: 2]", show_default=False),
    ] = None,
    weights: shared.Weights = None,
    tta: shared.Tta = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    recursive: shared.Recursive = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Degrade, restore and score a folder of clean pictures in memory.

    deconv bench Set12 --levels 15,25,50

    deconv bench classic5 --task decompress
    """
    streams = shared.set_up(context, quiet=quiet, verbose=verbose)
    chosen = shared.parse_numbers(levels, "--levels", ",", float)
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder of pictures")
    from deconv_cli.evaluation.bench import bench as measure
    from deconv_cli.images import find_pictures
    from deconv_cli.restoration.restorer import Restorer
    from deconv_cli.tasks import find_task

    paths = find_pictures(folder, recursive=recursive)
    if not paths:
        raise NoPicturesError(f"{folder}: no picture was found in this folder")
    task = "sr" if scale else task
    restorer = Restorer(weights or find_task(task).weights_name(scale), device=device, precision=precision)
    restorer.require(None, scale)
    enlargement = restorer.description.scale
    result = measure(
        paths,
        restorer,
        [enlargement] if enlargement > 1 else chosen or restorer.task.report_levels,
        tta=tta,
        progress=lambda items: streams.track(items, len(items), "picture"),
    )
    if json:
        streams.json(result.to_dict())
        return
    streams.table(_table(result, restorer.task.level_name))
    streams.data(
        f"{result.weights}, {result.precision}, {result.pictures} pictures; noise in float, JPEG 4:2:0, output rounded;"
        f" {result.protocol}"
    )


def _table(result: Bench, level_name: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in (level_name, "input PSNR (dB)", "input SSIM", "PSNR (dB)", "SSIM", "s/MP"):
        table.add_column(heading, justify="right")
    for row in result.rows:
        table.add_row(
            f"{row.level:g}",
            f"{row.input_psnr:.3f}",
            f"{row.input_ssim:.4f}",
            f"{row.psnr:.3f}",
            f"{row.ssim:.4f}",
            f"{row.seconds_per_megapixel:.2f}",
        )
    return table
