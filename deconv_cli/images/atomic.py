"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import contextlib
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
from deconv_cli.images import paths

_PREFIX, _ENDING = ".deconv-", ".part"


class _Unnumbered(io.BufferedRandom):
    """A file that keeps its descriptor to itself: Pillow writes to that, and overlooks that a disk is full."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation


@contextmanager
def atomic_file(path: Path, *, like: os.stat_result | None = None, keep_times: bool = False) -> Iterator[BinaryIO]:
    """Open a file to write `path` whole or not at all.

    The data go to a hidden file beside the target, reach the disk at the end of the block, and take the target's name.
    A file that is replaced hands on its permissions; a new one gets those of `like`, or the usual ones. A link stays:
    what it leads to is replaced. A pipe, a device, or a file that stdout goes into, gets the data when the block ends.

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
    try:
        if is_stream(path):
            writing = _handed_over(path)
        else:
            target = Path(os.path.realpath(path)) if path.is_symlink() else path
            writing = _replaced(target, like, keep_times=keep_times)
        with writing as file:
            yield file
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def _handed_over(path: Path) -> Iterator[BinaryIO]:
    """Gather what is for a pipe or a device, since writers of pictures seek, and neither can be replaced by a file."""
    with io.BytesIO() as file:
        yield file
        stream = _stream_into(path)
        with os.fdopen(os.dup(stream), "wb") if stream else path.open("wb") as target:
            target.write(file.getvalue())


def is_stream(path: Path) -> bool:
    """Tell whether what is written to `path` goes into a pipe, a device or stdout, and replaces nothing."""
    return bool(_stream_into(path)) or (paths.exists(path) and not paths.is_file(path))


def _stream_into(path: Path) -> int | None:
    """Return stdout or stderr if it goes into this file, as it does for /dev/stdout: the file may hold more already."""
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), os.fstat(stream)):
                return stream
    return None


@contextmanager
def _replaced(path: Path, like: os.stat_result | None, *, keep_times: bool) -> Iterator[BinaryIO]:
    temporary = path.with_name(f"{_owner()}{secrets.token_hex(6)}{_ENDING}")
    try:
        with _Unnumbered(io.FileIO(temporary, "x+")) as file:
            yield file
            file.flush()
            os.fsync(file.raw.fileno())
        _hand_on_status(path, temporary, like, keep_times=keep_times)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _hand_on_status(path: Path, temporary: Path, like: os.stat_result | None, *, keep_times: bool) -> None:
    """Give a new file permissions and times, where they can be given: a share or a foreign disk may refuse them.

    What was computed is worth more than they are.
    """
    with contextlib.suppress(OSError):
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        elif like is not None:
            temporary.chmod(stat.S_IMODE(like.st_mode) & 0o777)
    if like is not None and keep_times:
        with contextlib.suppress(OSError):
            os.utime(temporary, ns=(like.st_atime_ns, like.st_mtime_ns))


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
