"""The exceptions a user of the package may meet."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
)
"""What engines say when memory runs out, in lower case."""


class DeconvError(Exception):
    """Something the user can act on: one line that names the file or option and the way out."""


class UsageError(DeconvError):
    """The request itself cannot be carried out; nothing has been done."""


class DiskFullError(DeconvError):
    """There is no space left, or no quota; nothing else can be written either."""


class NoPicturesError(DeconvError):
    """There is no picture where some were expected."""


def cannot_write(what: object, error: OSError) -> DeconvError:
    """Make the error for a file or folder that cannot be written."""
    kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else DeconvError
    return kind(f"{what}: cannot be written ({error.strerror or error})")


def cannot_read(what: object, error: OSError) -> DeconvError:
    """Make the error for a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return DeconvError(f"{what}: no such file")
    return DeconvError(f"{what}: cannot be read ({error.strerror or error})")


def refused(error: OSError) -> DeconvError:
    """Make the error for what the system refused where nothing else knows of it, such as a name that is too long."""
    what = f"{error.filename}: " if error.filename else ""
    return DeconvError(f"{what}{error.strerror or error}")


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UsageError:
    """Make the error for a name that is not in a registry, with the nearest one suggested.

    >>> str(unknown_name("activation", "rellu", ["relu", "tanh"]))
    "unknown activation 'rellu' (did you mean 'relu'?); valid: relu, tanh"
    """
    names = sorted(valid)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean '{nearest[0]}'?)" if nearest else ""
    return UsageError(f"unknown {kind} '{name}'{hint}; valid: {', '.join(names)}")


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an engine's error says that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)
