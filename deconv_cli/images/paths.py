"""Which files are pictures, by name, and where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from deconv_cli.errors import DeconvError
from deconv_cli.images.optional import RAW_SUFFIXES

SUFFIXES = MappingProxyType(
    {
        ".png": "png",
        ".jpg": "jpg",
        ".jpeg": "jpg",
        ".jpe": "jpg",
        ".jfif": "jpg",
        ".webp": "webp",
        ".bmp": "bmp",
        ".tif": "tiff",
        ".tiff": "tiff",
        ".gif": "gif",
        ".apng": "png",
        ".avif": "avif",
        ".jp2": "jp2",
        ".j2k": "jp2",
        ".jpx": "jp2",
        ".jxl": "jxl",
        ".heic": "heif",
        ".heif": "heif",
        **dict.fromkeys(sorted(RAW_SUFFIXES), "raw"),
    }
)
"""The format of every supported suffix (lower case); "raw" is read only."""


def format_of(path: Path) -> str | None:
    """Return the format that the suffix of `path` stands for, or None if it is not a picture's.

    >>> format_of(Path("scan.TIF"))
    'tiff'
    """
    return SUFFIXES.get(path.suffix.lower())


def is_picture(path: Path) -> bool:
    """Tell whether `path` has the suffix of a supported format; the file is not looked at."""
    return format_of(path) is not None


def folder_name(folder: Path) -> str:
    """Return the name of a folder however it is given: `.` and `..` have none of their own.

    >>> folder_name(Path("/scans/1900/.."))
    'scans'
    """
    # To resolve it would follow links, whose names are those that users know.
    return os.path.basename(os.path.abspath(folder))  # noqa: PTH100, PTH119 - see above


# pathlib's own raise where a folder on the way cannot be searched (until Python 3.13), and one such link in a folder
# would end the work on all the others.
def exists(path: Path) -> bool:
    """Tell whether there is something; not if it cannot be looked at."""
    return os.path.exists(path)  # noqa: PTH110 - see above


def is_file(path: Path) -> bool:
    """Tell whether there is a file; not if it cannot be looked at."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder; not if it cannot be looked at."""
    return os.path.isdir(path)  # noqa: PTH112 - see above


def identities(path: Path) -> set[str | tuple[int, int]]:
    """Return what a file or folder is known by: its path and, if it exists, its number on its disk.

    A disk that is mounted twice, or takes a.png for A.png, gives it further paths.
    """
    real = os.path.realpath(path)  # pathlib's own raises where links lead in a circle.
    try:
        status = os.stat(path)  # noqa: PTH116 - see above
    except (OSError, ValueError):
        return {real}
    return {real, (status.st_dev, status.st_ino)}


def find_pictures(
    folder: Path, *, recursive: bool, exclude: Path | None = None, unreadable: dict[Path, str] | None = None
) -> list[Path]:
    """List the pictures in a folder by suffix, sorted.

    Hidden files and folders are skipped. Links are followed, but not back into a folder that they lie in.

    Parameters
    ----------
    folder
        Where to look.
    recursive
        Look into sub-folders too.
    exclude
        A sub-folder to leave out, such as the one that results go to. No effect if it is `folder` itself.
    unreadable
        Takes the folders that cannot be read, and why; without it they are an error.

    Raises
    ------
    DeconvError
        If a folder cannot be read.
    """
    excluded = identities(exclude) if exclude else set()
    return sorted(_walk(folder, recursive=recursive, above=set(), excluded=excluded, unreadable=unreadable))


def _walk(
    folder: Path,
    *,
    recursive: bool,
    above: set[str | tuple[int, int]],
    excluded: set[str | tuple[int, int]],
    unreadable: dict[Path, str] | None,
) -> Iterator[Path]:
    above = above | identities(folder)
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        message = f"{folder}: the folder cannot be read ({error.strerror})"
        if unreadable is None:
            raise DeconvError(message) from error
        unreadable[folder] = message
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if is_picture(entry) and is_file(entry):
            yield entry
        elif recursive and is_folder(entry) and identities(entry).isdisjoint(above | excluded):
            yield from _walk(entry, recursive=True, above=above, excluded=excluded, unreadable=unreadable)
