"""Telling a user, or a script, what became of the files of a batch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deconv_cli.cli.streams import Streams, printable

if TYPE_CHECKING:
    from rich.table import Table

    from deconv_cli.restoration.batch import Outcome
    from deconv_cli.restoration.estimate import Estimate

WORDS = {"", "method", "weights", "engine", "precision", "setting", "activation"}
"""Headings of columns that hold no numbers, which stand on the left of tables."""


@dataclass
class Reporter:
    """Reports files as they finish, and keeps the tally.

    Attributes
    ----------
    streams
        Where to write.
    json
        Write a line of JSON a file, and one at the end.
    json_to_stderr
        Write these to stderr, because stdout carries a picture.
    """

    streams: Streams
    json: bool
    json_to_stderr: bool
    tally: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def tell(self, outcome: Outcome) -> None:
        """Report one file."""
        self.tally[outcome.status] += 1
        if outcome.warnings:
            self.streams.warning(f"{outcome.input}: {'; '.join(outcome.warnings)}")
        if outcome.status == "failed":
            self.failed.append(outcome.input)
            self.streams.error(outcome.error or "failed")
        elif outcome.status == "skipped":
            self.skipped.append(outcome.input)
        if self.json:
            self.streams.json(outcome.to_dict(), to_stderr=self.json_to_stderr)
        elif outcome.status == "planned":
            line = f"{outcome.input} -> {outcome.output} ({_size(outcome)})"
            self.streams.data(printable(line) if self.streams.stdout.isatty() else line)
        elif outcome.status not in ("failed", "skipped"):
            self.streams.message(f"{outcome.input} -> {outcome.output}: {outcome.decision}")

    def estimate(self, estimate: Estimate, seconds_per_megapixel: float) -> None:
        """Say what a dry run found that the batch would take."""
        seconds = estimate.megapixels * seconds_per_megapixel
        if self.json:
            facts: dict[str, float | int | None] = {
                "megapixels": round(estimate.megapixels, 3),
                "seconds": round(seconds, 1),
                "memory_bytes": estimate.memory,
            }
            self._summary(facts)
        else:
            takes = f"about {duration(seconds)} and {estimate.memory / 1e9:.1f} GB of memory on this machine"
            count = self.tally["planned"]
            self.streams.message(
                f"{count} file{'' if count == 1 else 's'}, {estimate.megapixels:.1f} megapixels: {takes}"
            )

    def summarise(self, total: int, seconds: float, busy: float | None) -> None:
        """Report the batch, with the share of the time that the network worked, if it was measured."""
        share = None if busy is None else round(min(1.0, busy / seconds), 3) if seconds else 0.0
        if self.json:
            self._summary({"total": total, "seconds": round(seconds, 3), "network_share": share})
        elif total > 1:
            parts = ", ".join(f"{count} {status}" for status, count in self.tally.items())
            self.streams.message(f"{total} pictures: {parts}; {seconds:.1f} s, the network busy {share:.0%}")
        if total > 1 and self.failed:
            self.streams.message(f"{len(self.failed)} failed:")
            for name in self.failed:
                self.streams.message(f"  {name}")
        if self.skipped:
            left = f"{len(self.skipped)} of {total} pictures were not begun"
            self.streams.error(f"the disk is full: {left}; free some space and use --resume")

    def _summary(self, facts: dict[str, float | int | None]) -> None:
        self.streams.json({"summary": dict(self.tally), **facts}, to_stderr=self.json_to_stderr)

    def write_failed(self, path: Path, *, null: bool) -> None:
        """Write the names of the files that failed or were skipped, as ``--files-from`` reads them."""
        from deconv_cli.images import write_atomically

        end = b"\0" if null else b"\n"
        write_atomically(path, b"".join(os.fsencode(name) + end for name in (*self.failed, *self.skipped)))


def _size(outcome: Outcome) -> str:
    pages = f", {outcome.pages} pages" if (outcome.pages or 1) > 1 else ""
    return f"{outcome.width} x {outcome.height}{pages}, {(outcome.input_bytes or 0) / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Say a time as people do.

    >>> duration(42.4), duration(600), duration(9000)
    ('42 seconds', '10 minutes', '2.5 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def cells_table(cells: Iterable[Sequence[str]]) -> Table:
    """Make a table of cells, the headings first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headings, *rows = cells
    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in WORDS else "right")
    for row in rows:
        table.add_row(*map(Text, row))  # Names of weights may hold what rich would take for its marks.
    return table
