"""The command line: its commands, and how errors become messages and exit codes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from deconv_cli._version import __version__
from deconv_cli.cli.bench import bench
from deconv_cli.cli.classify import classify
from deconv_cli.cli.compress import compress
from deconv_cli.cli.degrade import degrade
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.cli.export import export
from deconv_cli.cli.models import models
from deconv_cli.cli.restore import restore
from deconv_cli.cli.score import score
from deconv_cli.cli.streams import Streams
from deconv_cli.cli.study import study
from deconv_cli.cli.train import train
from deconv_cli.errors import DeconvError, NoPicturesError, UsageError

app = typer.Typer(
    name="deconv",
    help="Restore images with a conv/deconv encoder-decoder: weights included, no GPU needed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for command in (restore, train, score, degrade, bench, study, classify, compress, export):
    app.command()(command)
app.add_typer(models, name="models")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        typer.echo(f"deconv {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    del version


def run(arguments: Sequence[str] | None = None, streams: Streams | None = None) -> int:
    """Run a command line and return its exit code.

    Parameters
    ----------
    arguments
        The words behind ``deconv``; by default those of the process.
    streams
        Where to read and write; by default the streams of the process.
    """
    streams = streams or Streams.of_process()
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="deconv", obj=streams)
    except SystemExit as stop:
        return int(stop.code or 0)
    except BrokenPipeError:
        # Whoever read the output has gone; there is nobody to tell. Python must not flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.FAILED
    except DeconvError as error:
        streams.error(str(error))
        codes = {UsageError: ExitCode.USAGE, NoPicturesError: ExitCode.NOTHING_FOUND}
        return codes.get(type(error), ExitCode.FAILED)
    return ExitCode.OK
