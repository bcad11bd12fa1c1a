"""The command line: its commands, and how errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from itertools import pairwise
from typing import Annotated

import typer

from deconv_cli._version import __version__
from deconv_cli.cli.exit_codes import ExitCode
from deconv_cli.cli.streams import Streams
from deconv_cli.errors import DeconvError, NoPicturesError, UsageError, refused

COMMANDS = ("restore", "train", "score", "degrade", "bench", "study", "classify", "compress", "export", "models")
"""Each one is a function, or a `typer.Typer`, in a module of its name."""


def build_app(commands: Collection[str] = COMMANDS) -> typer.Typer:
    """Make the command line, with these commands only: to make all of them takes a while."""
    app = typer.Typer(
        name="deconv",
        help="Restore images with a conv/deconv encoder-decoder: weights included, no GPU needed.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["--help", "-h"]},
        callback=_options,
    )
    for name in commands:
        command = getattr(import_module(f"deconv_cli.cli.{name}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command()(command)
    return app


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        typer.echo(f"deconv {__version__}")
        raise typer.Exit


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
    words = list(sys.argv[1:] if arguments is None else arguments)
    app = build_app(words[:1]) if words and words[0] in COMMANDS else build_app()
    try:
        _refuse_empty(words, app)
        app(args=words, prog_name="deconv", obj=streams)
    except SystemExit as stop:
        return int(stop.code or 0)
    except BrokenPipeError:
        # Whoever read the output has gone; there is nobody to tell. Python must not flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.FAILED
    except (DeconvError, OSError) as given:
        error = refused(given) if isinstance(given, OSError) else given
        streams.error(str(error))
        codes = {UsageError: ExitCode.USAGE, NoPicturesError: ExitCode.NOTHING_FOUND}
        return codes.get(type(error), ExitCode.FAILED)
    return ExitCode.OK


def _refuse_empty(words: Sequence[str], app: typer.Typer) -> None:
    """Refuse an empty argument, which would be the current folder: most often a script's variable that is not set.

    Behind an option that takes a value it may be meant.
    """
    if "" not in words:
        return
    commands = getattr(typer.main.get_command(app), "commands", {})
    options = commands[words[0]].params if words[0] in commands else ()
    flags = {name for option in options if getattr(option, "is_flag", False) for name in option.opts}
    if any(not word and (not before.startswith("-") or before in flags) for before, word in pairwise(["", *words])):
        raise UsageError("an argument is empty; give the name of a file or folder, . for the current folder")
