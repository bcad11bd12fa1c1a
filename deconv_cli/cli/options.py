"""Options that several commands share, each written once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from deconv_cli.cli.streams import Streams
from deconv_cli.errors import UsageError
from deconv_cli.library_warnings import log_library_warnings

Number = TypeVar("Number", int, float)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more about what is done.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where the network runs.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="auto|fp32|bf16|fp16",
        help="Number format; auto: bf16 for 8-bit pictures where the processor is faster in it, else fp32.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="auto|openvino|onnxruntime|torch",
        help="What runs the network; auto: the fastest one that works here.",
    ),
]
Recursive = Annotated[bool, typer.Option("--recursive", help="Look into folders inside folders.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="Bundled weights, or a file that train wrote. [those of the task]"),
]
Tta = Annotated[bool, typer.Option("--tta", help="Average over the 8 symmetries: 8 times slower, a little better.")]


class _ToStreams(logging.Handler):
    """Tells the user what the package logs: warnings once, whatever part of the command comes upon the same thing."""

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self.streams, self._warned_of = streams, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno < logging.WARNING:
            self.streams.message(text)
        elif text not in self._warned_of:
            self._warned_of.add(text)
            self.streams.warning(text)


def parse_numbers(
    text: str | None, option: str, separator: str, number: Callable[[str], Number]
) -> list[Number] | None:
    """Turn a text such as ``15,25,50`` into numbers; None stays None.

    Raises
    ------
    UsageError
        If a part is no number.
    """
    if text is None:
        return None
    try:
        return [number(part) for part in text.split(separator)]
    except ValueError:
        raise UsageError(f"{option} takes numbers separated by '{separator}', not '{text}'") from None


def parse_names(text: str | None) -> list[str] | None:
    """Turn a text such as ``relu,tanh`` into names; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",")]


def given(context: typer.Context) -> dict[str, str]:
    """Return what was given on the command line: parameters, and what users call them."""
    return {
        parameter.name: parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper()
        for parameter in context.command.params
        if parameter.name and (source := context.get_parameter_source(parameter.name)) and source.name != "DEFAULT"
    }


def refuse_beside(context: typer.Context, option: str, heeded: Collection[str]) -> None:
    """Refuse what would be left aside beside an option that changes what the command does.

    Raises
    ------
    UsageError
        If something is given that is not among the parameters heeded.
    """
    always = {"json", "quiet", "verbose"}
    if ignored := [called for name, called in given(context).items() if name not in always.union(heeded)]:
        raise UsageError(f"{', '.join(ignored)} does not go with {option}; leave it out")


def require_folders(*folders: Path | None) -> None:
    """Refuse folders of pictures that do not exist, where they are given.

    Raises
    ------
    UsageError
        If one does not.
    """
    for folder in filter(None, folders):
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no such folder of pictures")


def require_weights_path(path: Path) -> None:
    """Refuse to write weights to a file that nothing would take for some.

    Raises
    ------
    UsageError
        If so.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: weights are written as safetensors; give a name that ends in .safetensors")


def refuse_dash(*paths: Path | None) -> None:
    """Refuse ``-`` where there is no pipe: a file or folder would get that name.

    Raises
    ------
    UsageError
        If it is given.
    """
    if Path("-") in paths:
        raise UsageError("-: nothing is read from or written to a pipe here; give the name of a file")


def require_table_path(path: Path, *inputs: Path) -> None:
    """Refuse a table that cannot be written or would replace a picture, before any work is done.

    Raises
    ------
    UsageError
        If so.
    """
    from deconv_cli.images import is_picture

    refuse_dash(path)
    if is_picture(path) or any(path.exists() and given.exists() and path.samefile(given) for given in inputs):
        raise UsageError(f"--csv {path}: that is the name of a picture; give a .csv file")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--csv {path}: give a file in a folder that exists")


def set_up(context: typer.Context, *, quiet: bool, verbose: bool) -> Streams:
    """Return the streams of the command, with the package's log, and Python's warnings, going to them."""
    streams: Streams = context.obj
    streams.quiet = quiet
    log = logging.getLogger("deconv_cli")
    log.handlers = [_ToStreams(streams)]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
    log_library_warnings()
    return streams
