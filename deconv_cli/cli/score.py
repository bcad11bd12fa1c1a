"""``deconv score``: PSNR and SSIM of pictures against their references."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.cli.options import Json, Quiet, Recursive, Verbose, require_table_path, set_up
from deconv_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from deconv_cli.evaluation.scoring import Report


def score(
    context: typer.Context,
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="File or folder.", show_default=False)],
    test: Annotated[Path, typer.Argument(metavar="TEST", help="What to score: file or folder.", show_default=False)],
    *,
    channel: Annotated[
        str,
        typer.Option(
            metavar="rgb|y|gray",
            help="Compare all channels, the studio-range luma as papers on super-resolution do, "
            "or the full-range luma.",
        ),
    ] = "rgb",
    crop: Annotated[int, typer.Option(metavar="N", help="Leave out N pixels at each border.")] = 0,
    suffix: Annotated[
        str,
        typer.Option(metavar="TEXT", help="What the test pictures' names have appended.", show_default=False),
    ] = "",
    recursive: Recursive = False,
    sort: Annotated[bool, typer.Option("--sort", help="Order by PSNR, the worst first.")] = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a table too; an earlier one is replaced.")
    ] = None,
    fail_under: Annotated[
        float | None, typer.Option(metavar="DB", help="Exit with 1 if the mean PSNR is below.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score pictures against their references by PSNR and SSIM.

    Give two files, or two folders, whose pictures are matched by name without extension. What has no partner,
    differs in size or mode, or cannot be read is listed, and the rest is scored. Alpha is not scored. Pictures
    identical to their references are left out of the mean PSNR, which they would make infinite.
    """
    from deconv_cli.evaluation.scoring import score_pictures
    from deconv_cli.images import write_atomically
    from deconv_cli.metrics import Protocol

    streams = set_up(context, quiet=quiet, verbose=verbose)
    if fail_under is not None and math.isnan(fail_under):
        raise UsageError("--fail-under takes a number of decibels, not nan")
    if csv:
        require_table_path(csv, reference, test)
    report = score_pictures(
        reference,
        test,
        Protocol(channel=channel, crop=crop),
        suffix=suffix,
        recursive=recursive,
        worst_first=sort,
        progress=lambda pairs: streams.track(pairs, len(pairs), "picture"),
    )
    for warning in report.warnings:
        streams.warning(warning)
    for failure in report.failures:
        streams.error(failure.reason)
    if json:
        streams.json(report.as_dict())
    elif report.scores:
        streams.table(_table(report))
        streams.data(str(report.protocol))
    if csv:
        # Names of files need not be UTF-8; they come out as they went in.
        write_atomically(csv, report.as_csv().encode("utf-8", "surrogateescape"))
    mean = report.mean_psnr
    too_low = fail_under is not None and mean is not None and mean < fail_under
    if too_low:
        streams.error(f"the mean PSNR is {mean:.3f} dB, below {fail_under:g}")
    if too_low or report.failures:
        raise typer.Exit(ExitCode.FAILED)


def _table(report: Report) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("picture", box=box.SIMPLE_HEAD)
    table.columns[0].overflow = "fold"
    table.add_column("PSNR (dB)", justify="right", no_wrap=True)
    table.add_column("SSIM", justify="right", no_wrap=True)
    for score in report.scores:
        psnr = "identical" if score.identical else f"{score.psnr:.2f}"
        table.add_row(Text(score.pair.name), psnr, f"{score.ssim:.4f}")
    if len(report.scores) > 1:
        table.add_section()
        left_out = f" (PSNR without {report.identical} identical)" if report.identical else ""
        table.add_row(f"mean of {len(report.scores)}{left_out}", f"{report.mean_psnr:.2f}", f"{report.mean_ssim:.4f}")
    return table
