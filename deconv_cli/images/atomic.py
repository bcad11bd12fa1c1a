"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from deconv_cli.errors import cannot_write

_PREFIX, _ENDING = ".deconv-", ".part"


class _Unnumbered(io.BufferedRandom):
    """A file that keeps its descriptor to itself: Pillow writes to that, and overlooks that a disk is full."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation


@contextmanager
def atomic_file(path: Path, *, like: os.stat_result | None = None, keep_times: bool = False) -> Iterator[BinaryIO]:
    """Open a file to write `path` whole or not at all.

    The data go to a hidden file beside the target, reach the disk at the end of the block, and take the target's name.
    A file that is replaced hands on its permissions; a new one gets those of `like`, or the usual ones.

    Parameters
    ----------
    path
        The file to write.
    like
        Status of the file that the new one is made from.
    keep_times
        Give it the times of `like` too.

    Yields
    ------
    BinaryIO
        Empty, open for reading and writing.

    Raises
    ------
    DeconvError
        If the file cannot be written; an earlier one is then untouched and nothing is left behind.
    """
    temporary = path.with_name(f"{_owner()}{secrets.token_hex(6)}{_ENDING}")
    try:
        try:
            with _Unnumbered(io.FileIO(temporary, "x+")) as file:
                yield file
                file.flush()
                os.fsync(file.raw.fileno())
            if path.exists():
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            elif like is not None:
                temporary.chmod(stat.S_IMODE(like.st_mode) & 0o777)
            if like is not None and keep_times:
                os.utime(temporary, ns=(like.st_atime_ns, like.st_mtime_ns))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all; see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(data)


def _owner() -> str:
    """Return how the names of this process's temporary files begin."""
    return f"{_PREFIX}{_machine()}-{os.getpid()}-"


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def remove_leftovers(folder: Path) -> None:
    """Remove what runs that were killed have left in a folder.

    What belongs to a process that lives stays, and so does what other machines write into a shared folder.
    """
    for path in folder.glob(f"{_PREFIX}{_machine()}-*{_ENDING}"):
        process = path.name.split("-")[2]
        if process.isdigit() and not _is_alive(int(process)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(process))
