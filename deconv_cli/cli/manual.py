"""The reference, made from the same descriptions as ``--help``: the man page here, docs/cli.md by Typer.

python -m deconv_cli.cli.manual > docs/deconv.1
python -m typer deconv_cli.cli.manual utils docs --name deconv --output docs/cli.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from deconv_cli._version import __version__
from deconv_cli.cli.app import build_app
from deconv_cli.cli.exit_codes import ExitCode

app = build_app()


def manual() -> str:
    """Return the manual page of the command and all its sub-commands, in roff."""
    root = typer.main.get_command(app)
    lines = [
        f'.TH DECONV 1 "" "deconv {__version__}" "User Commands"',
        ".SH NAME",
        f"deconv \\- {_escape(_plain(root.help or '')[0].rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B deconv",
        ".I COMMAND",
        "[OPTIONS] ...",
        *_options(root),
        ".SH COMMANDS",
        *_commands(root, "deconv"),
        ".SH EXIT STATUS",
    ]
    for code in ExitCode:
        lines += [".TP", f".B {code.value}", _escape(code.description)]
    return "\n".join(lines) + "\n"


def _commands(group: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - Typer's own classes
    for word, command in group.commands.items():
        full = f"{name} {word}"
        if hasattr(command, "commands"):
            yield from _commands(command, full)
            continue
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        usage = " ".join(argument.metavar or argument.name.upper() for argument in arguments)
        yield f'.SS "{_escape(full)} [OPTIONS] {_escape(usage)}"'
        for paragraph in _plain(command.help or ""):
            yield from (".PP", _escape(paragraph))
        for argument in arguments:
            yield from (".TP", f".I {_escape(argument.metavar or argument.name.upper())}", _escape(argument.help or ""))
        yield from _options(command)


def _options(command: Any) -> Iterator[str]:  # noqa: ANN401
    for option in command.params:
        if option.param_type_name != "option" or option.hidden:
            continue
        names = ", ".join((*option.opts, *option.secondary_opts))
        value = "" if option.is_flag else f" {option.metavar or _kind(option)}"
        default = option.default if option.show_default and not option.is_flag else None
        ending = f" [{default}]" if isinstance(default, str | int | float) and default != "" else ""
        yield from (".TP", f".B {_escape(names)}\\fR{_escape(value)}", _escape(f"{option.help or ''}{ending}"))


def _kind(option: Any) -> str:  # noqa: ANN401
    kind = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    return {int: "INTEGER", float: "FLOAT", str: "TEXT", Path: "PATH"}.get(kind, "VALUE")  # type: ignore[arg-type]


def _plain(text: str) -> list[str]:
    """Return the paragraphs of a help text without its marks."""
    return [" ".join(part.split()).replace("`", "") for part in re.split(r"\n\s*\n|\f|\x08", text) if part.strip()]


def _escape(text: str) -> str:
    """Keep roff from taking dashes, backslashes and leading dots for its own."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped


if __name__ == "__main__":
    sys.stdout.write(manual())
