"""Which outputs of a folder are complete and current."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deconv_cli.errors import DeconvError, cannot_read, cannot_write
from deconv_cli.images.paths import exists
from deconv_cli.restoration.planning import Job

if TYPE_CHECKING:
    from deconv_cli.restoration.pages import Options

RECORD = ".deconv.jsonl"


class Record:
    """What runs have written into a folder: a line of JSON for every file, the last one counts.

    Parameters
    ----------
    folder
        The output folder.

    Raises
    ------
    DeconvError
        If the record is there and cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / RECORD
        self._entries: dict[str, dict[str, Any]] = {}
        if exists(self.path):
            for line in self._read().splitlines():
                self._load(line)

    def _read(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise cannot_read(f"{self.path}, the record to resume from", error) from error

    def _load(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self._entries[entry["output"]] = entry
        except (ValueError, KeyError, TypeError):
            return  # The last line of a run that was killed may be cut; its file is done again.

    @property
    def results(self) -> set[str]:
        """The files that runs have written and nobody changed since, links followed."""
        paths = [self.folder / name for name in self._entries]
        return {os.path.realpath(path) for path in paths if not self.is_foreign(path)}

    def is_foreign(self, path: Path) -> bool:
        """Tell whether there is a file that no run has written, or that was changed since."""
        try:
            status = path.stat()
        except OSError:
            return False
        entry = self._entries.get(self._name(path), {})
        if entry.get("begun"):
            return False
        written = entry.get("output_time", status.st_mtime_ns)
        return status.st_size != entry.get("output_bytes") or status.st_mtime_ns > written

    def _name(self, path: Path) -> str:
        """Return what the record calls a file: by its path in the folder, so that both can be moved, or else whole."""
        place, home = (Path(os.path.abspath(given)) for given in (path, self.folder))  # noqa: PTH100 - links stay links
        return place.relative_to(home).as_posix() if place.is_relative_to(home) else str(place)


class ResumeRecord(Record):
    """Which outputs of a folder are complete, and from what and with what they were made.

    A file that is begun has an entry, and another one when it is finished. An entry counts only as long as input,
    weights, options and output are what they were, so that a changed input is done again.

    Parameters
    ----------
    folder
        The output folder.
    weights
        Hash of the weights in use.
    options
        The options in use.
    reuse
        Heed what is recorded; otherwise only add to it.

    Raises
    ------
    DeconvError
        If the record is there and cannot be read.
    """

    def __init__(self, folder: Path, weights: str, options: Options, *, reuse: bool) -> None:
        super().__init__(folder)
        self.made_with = {"weights": weights, "options": options.identity}
        self._earlier: dict[str, dict[str, Any]] = {}
        if not reuse:
            self._entries.clear()

    def is_current(self, job: Job) -> bool:
        """Tell whether the output of a job is complete and made from this input with these weights and options."""
        try:
            # A folder that was copied is as complete as before.
            entry = self._entry(job, job.source.stat()) | {"output_time": None}
        except OSError:
            return False
        return self._entries.get(self._name(job.target), {}) | {"output_time": None} == entry

    def would_lose(self, job: Job) -> bool:
        """Tell whether doing a job would replace a file that no run has written, or that was changed since."""
        return self.is_foreign(job.target) and not self.is_current(job)

    def begin(self, job: Job) -> None:
        """Record that the output of a job is about to be written: if the run is killed, it may be there without more.

        Raises
        ------
        DeconvError
            If the record cannot be written.
        """
        name = self._name(job.target)
        self._earlier[name] = self._entries.get(name, {"output": name})
        self._append({"output": name, "begun": True})

    def withdraw(self, job: Job) -> None:
        """Record that the output of a job was not written after all; on a full disk only for this run."""
        if earlier := self._earlier.pop(self._name(job.target), None):
            with contextlib.suppress(DeconvError):
                self._append(earlier)

    def enter(self, job: Job, source: os.stat_result) -> None:
        """Record that the output of a job has been written, from an input of that status when it was read.

        Raises
        ------
        DeconvError
            If the record cannot be written.
        """
        self._append(self._entry(job, source))

    def enter_beside(self, path: Path) -> None:
        """Record that a run has written a file that is no output, wherever it is: a sheet, a list of failures.

        Raises
        ------
        DeconvError
            If the record cannot be written.
        """
        self._append(self._written(path))

    def _append(self, entry: dict[str, Any]) -> None:
        self._entries[entry["output"]] = entry
        try:
            with self.path.open("ab") as file:
                # A run that was killed may have left a line without an end.
                start = b"\n" if self._unfinished() else b""
                file.write(start + json.dumps(entry).encode() + b"\n")
        except OSError as error:
            raise cannot_write(f"{self.path}, the record to resume from", error) from error

    def _unfinished(self) -> bool:
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            return file.read(1) not in (b"", b"\n")

    def _written(self, path: Path) -> dict[str, Any]:
        status = path.stat()
        return {"output": self._name(path), "output_bytes": status.st_size, "output_time": status.st_mtime_ns}

    def _entry(self, job: Job, source: os.stat_result) -> dict[str, Any]:
        return {
            **self._written(job.target),
            "input": str(job.source.resolve()),
            "input_bytes": source.st_size,
            "input_time": source.st_mtime_ns,
            **self.made_with,
        }
