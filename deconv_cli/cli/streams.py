"""Where a command reads and writes: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TextIO, TypeVar

from deconv_cli.errors import cannot_write

if TYPE_CHECKING:
    from rich.console import RenderableType

Item = TypeVar("Item")


class Bar(Protocol):
    """A progress bar: tqdm's."""

    n: int
    total: int

    def update(self, n: int = 1) -> object:
        """Advance by `n`."""

    def set_postfix_str(self, s: str) -> object:
        """Show a short text at the end."""


@dataclass
class _NoBar:
    """Nothing to see, without the time it takes to import tqdm."""

    n: int
    total: int

    def update(self, n: int = 1) -> None:
        self.n += n

    def set_postfix_str(self, s: str) -> None:
        del s


def printable(text: str) -> str:
    r"""Escape what would move the cursor, change colours or direction, or end the line: names may hold anything.

    >>> printable("a\x1b[31mb\u202ec")
    'a\\x1b[31mb\\u202ec'
    """
    lines = " ".join(text.split("\n"))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in lines.replace("\t", " "))


@dataclass
class Streams:
    """The three streams of a command, in one object that tests replace whole.

    Attributes
    ----------
    stdin, stdout
        Binary streams.
    stderr
        Text stream.
    quiet
        Set by ``--quiet``: no messages and no progress, only errors.
    """

    stdin: BinaryIO
    stdout: BinaryIO
    stderr: TextIO
    quiet: bool = False

    @classmethod
    def of_process(cls) -> Streams:
        """Return the streams of the process."""
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            # None if whoever started the process has closed it, which others do not expect either.
            if getattr(sys, name) is None:
                setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - till the end
        return cls(sys.stdin.buffer, sys.stdout.buffer, sys.stderr)

    def write(self, data: bytes | memoryview) -> None:
        """Write bytes to stdout.

        Raises
        ------
        BrokenPipeError
            If its reader has gone.
        DeconvError
            If it cannot be written otherwise, as on a full disk.
        """
        try:
            self.stdout.write(data)
            self.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write("standard output", error) from error

    def data(self, text: str, *, to_stderr: bool = False) -> None:
        """Write a line of results."""
        if to_stderr:
            self._line(text)
        else:
            # Names of files need not be UTF-8; they come out as they went in.
            self.write((text + "\n").encode("utf-8", "surrogateescape"))

    def json(self, value: Any, *, to_stderr: bool = False) -> None:  # noqa: ANN401 - any JSON value
        """Write one line of JSON; numbers that are not finite must have been turned into null before."""
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        # Bytes of a name that are not UTF-8 become JSON's own escapes.
        self.data(text.encode("utf-8", "backslashreplace").decode(), to_stderr=to_stderr)

    def table(self, table: RenderableType) -> None:
        """Print a rich table as a result."""
        from io import StringIO

        from rich.console import Console

        terminal = self.stdout.isatty()
        text = StringIO()
        Console(file=text, force_terminal=terminal, width=None if terminal else 120).print(table)
        self.data(text.getvalue().rstrip("\n"))

    def message(self, text: str) -> None:
        """Tell the user something, unless quiet."""
        if not self.quiet:
            self._line(text)

    def warning(self, text: str) -> None:
        """Warn the user, unless quiet."""
        if not self.quiet:
            self._print_labelled("warning", "yellow", text)

    def error(self, text: str) -> None:
        """Report a failure in one line, quiet or not."""
        self._print_labelled("error", "red", text)

    @contextmanager
    def progress(self, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
        """Show a progress bar inside the block, if stderr is a terminal and the command is not quiet."""
        if self.quiet or not self.stderr.isatty():
            yield _NoBar(done, total)
            return
        from tqdm import tqdm

        with tqdm(total=total, initial=done, unit=unit, file=self.stderr, dynamic_ncols=True) as bar:
            yield bar

    def track(self, items: Iterable[Item], total: int, unit: str) -> Iterator[Item]:
        """Yield the items with a progress bar."""
        with self.progress(total, unit) as bar:
            for item in items:
                yield item
                bar.update()

    def _line(self, text: str) -> None:
        self.stderr.write(printable(text) + "\n")
        self.stderr.flush()

    def _print_labelled(self, label: str, colour: str, text: str) -> None:
        from rich.console import Console
        from rich.text import Text

        line = Text.assemble((f"{label}: ", colour), printable(" ".join(text.split())))
        Console(file=self.stderr).print(line, soft_wrap=True, highlight=False)
