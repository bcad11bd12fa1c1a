"""Where the result of every input goes, and what is refused before any work."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deconv_cli.errors import UsageError, unknown_name
from deconv_cli.images import FORMATS, find_pictures, format_of
from deconv_cli.images.paths import exists, identities, is_folder


@dataclass(frozen=True)
class Job:
    """One file to restore, where the result goes and in what format; or a folder that could not be read, and why.

    The format ``same`` is that of the input's content, whatever the names say.
    """

    source: Path
    target: Path
    error: str | None = None
    format: str = "same"


def plan(
    inputs: Sequence[Path],
    output: Path,
    *,
    recursive: bool = False,
    output_format: str = "same",
    suffix: str = "",
    listed: Sequence[Path] = (),
    results: Container[str] = (),
) -> list[Job]:
    """Decide where the result of every input goes.

    `output` is a file only if there is exactly one input, not a folder, and `output` has the suffix of a picture and
    is no folder; otherwise it is a folder. A missing input file is planned too: it fails alone, later.

    Parameters
    ----------
    inputs
        Files and folders.
    output
        A file or a folder.
    recursive
        Look into folders inside the input folders; the tree is kept.
    output_format
        Format of the results, or ``same``.
    suffix
        Text to append to the stem of every result that goes into a folder.
    listed
        More files, which keep their places below the folder that they have in common.
    results
        Paths, links followed, of what earlier runs have written: in folders, these are no inputs.

    Raises
    ------
    UsageError
        If the format is unknown or contradicts the output's suffix, a result would overwrite an input, two results
        would be one file, the output is a file and would have to be a folder, or it is one and `suffix` has no use.
    """
    extension = _extension(output_format)
    if any(separator in suffix for separator in "/\\\0"):
        raise UsageError(f"--suffix is appended to names and cannot hold a path: '{suffix}'")
    _refuse_foreign_format(inputs, output)
    if not listed and is_single_file(inputs, output):
        refuse_other_format(output, output_format)
        if suffix:
            raise UsageError(f"{output}: --suffix is for results in a folder; leave it out, or give a folder")
        jobs = [Job(inputs[0], output, format=format_of(output) or "same")]
    elif exists(output) and not is_folder(output):
        raise UsageError(f"{output}: is a file; the last argument is OUTPUT, and must be a folder here")
    else:
        unreadable: dict[Path, str] = {}
        jobs = [
            Job(
                path,
                output / inner.with_name(inner.stem + suffix + (extension or _written_suffix(inner))),
                format=output_format,
            )
            for path, inner in (
                *_expand(inputs, output, unreadable, results, recursive=recursive),
                *_below_common_folder(listed),
            )
        ]
        jobs += [Job(folder, output, message) for folder, message in unreadable.items()]
    _refuse_collisions(jobs)
    return jobs


def is_single_file(inputs: Sequence[Path], output: Path) -> bool:
    """Tell whether `output` names a file rather than a folder."""
    return len(inputs) == 1 and not is_folder(inputs[0]) and format_of(output) is not None and not is_folder(output)


def refuse_other_format(output: Path, output_format: str) -> None:
    """Refuse a format that contradicts the suffix of the output.

    Raises
    ------
    UsageError
        If it does.
    """
    if output_format not in ("same", format_of(output)):
        raise UsageError(f"{output}: its suffix does not say {output_format}; leave --format out, or change one")


def _refuse_foreign_format(inputs: Sequence[Path], output: Path) -> None:
    """Refuse ``out.gif``, which nobody means as the name of a folder."""
    if len(inputs) != 1 or not output.suffix or format_of(output) in FORMATS or is_folder(output):
        return
    # Asked last: Pillow imports all of its formats for it.
    from PIL import Image

    if format_of(output) == "raw" or output.suffix.lower() in Image.registered_extensions():
        raise UsageError(f"{output}: cannot write this format; it can be one of {', '.join(FORMATS)}")


def _extension(output_format: str) -> str:
    if output_format == "same":
        return ""
    if output_format not in FORMATS:
        raise unknown_name("format", output_format, (*FORMATS, "same"))
    return "." + output_format


def _written_suffix(path: Path) -> str:
    """Return the suffix of a result in the format of its input; what a raw file becomes has to be a TIFF."""
    return ".tif" if format_of(path) == "raw" else path.suffix


def _expand(
    inputs: Sequence[Path], output: Path, unreadable: dict[Path, str], results: Container[str], *, recursive: bool
) -> Iterator[tuple[Path, Path]]:
    """Yield every picture with its path below the output folder."""
    for given in inputs:
        if is_folder(given):
            for path in find_pictures(given, recursive=recursive, exclude=output, unreadable=unreadable):
                if os.path.realpath(path) not in results:
                    yield path, path.relative_to(given)
        else:
            yield given, Path(given.name)


def _below_common_folder(listed: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield every listed file with its path below the deepest folder that all of them lie in."""
    places = [Path(os.path.abspath(path)) for path in listed]  # noqa: PTH100 - links are not to be followed
    try:
        common = os.path.commonpath([place.parent for place in places]) if places else ""
    except ValueError as error:  # On Windows, of files on two drives.
        raise UsageError(f"the listed files have no folder in common; list each drive's alone ({error})") from error
    for path, place in zip(listed, places, strict=True):
        yield path, place.relative_to(common)


def shard(jobs: Sequence[Job], index: int, count: int) -> list[Job]:
    """Return every `count`-th job, the first one being number `index` (from 1).

    >>> shard([1, 2, 3, 4, 5], 2, 3)
    [2, 5]
    """
    return list(jobs[index - 1 :: count])


def _refuse_collisions(every: Sequence[Job]) -> None:
    jobs = [job for job in every if job.error is None]
    sources = set().union(*(identities(job.source) for job in jobs))
    itself = [str(job.target) for job in jobs if not sources.isdisjoint(identities(job.target))]
    if itself:
        raise UsageError(f"would overwrite an input: {_listed(itself)}; give another output, or a folder with --suffix")
    # Compared without case, since some file systems do not tell a.png from A.png.
    targets = [os.path.realpath(job.target) for job in jobs]
    counts = Counter(target.casefold() for target in targets)
    doubled = [
        f"{job.source} -> {job.target}"
        for job, target in zip(jobs, targets, strict=True)
        if counts[target.casefold()] > 1
    ]
    if doubled:
        raise UsageError(f"several inputs would become one output: {_listed(doubled)}")


def refuse_existing(targets: Iterable[Path], way_out: str = "use --overwrite to replace") -> None:
    """Refuse to replace files.

    Raises
    ------
    UsageError
        If a target exists; the message names them.
    """
    existing = [str(target) for target in targets if exists(target)]
    if existing:
        raise UsageError(f"already there: {_listed(existing)}; {way_out}")


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
