"""Files to files: reading, the network and writing overlap; a file that fails does not stop the rest."""

from __future__ import annotations

import dataclasses
import itertools
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from deconv_cli.errors import DeconvError, DiskFullError, UsageError, cannot_read, cannot_write
from deconv_cli.images import Frame, Picture, atomic_file, check_pages, format_of, open_picture, write_frames
from deconv_cli.network.container import available_memory
from deconv_cli.restoration import memory
from deconv_cli.restoration.decision import Decision
from deconv_cli.restoration.pages import (
    Done,
    Options,
    cut,
    decide_page,
    find_concern,
    joined,
    restore_page,
    total_scale,
)
from deconv_cli.restoration.planning import Job
from deconv_cli.restoration.resume import ResumeRecord

if TYPE_CHECKING:
    from deconv_cli.restoration.restorer import Restorers

COPIED = 1 << 20
"""Bytes copied at a time."""

Status = Literal["restored", "copied", "rewritten", "complete", "planned", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What became of one file; a line of ``--json``.

    Attributes
    ----------
    input, output
        The files.
    status
        ``restored``; ``copied``: nothing to restore, byte for byte; ``rewritten``: nothing to restore, but another
        format, quality or part was asked for; ``complete``: already done; ``planned``: by a dry run; ``failed``;
        ``skipped``: not begun, because the disk was full.
    task
        What was undone, or null. Here and below, several are joined by + if pages differ, or if what a task had left
        was enlarged.
    decision
        What was decided and why, or null.
    noise_level
        Noise level given to the network or estimated, sigma on 0..255, or null.
    scale
        Output side over input side.
    width, height
        Size of the input in pixels, or null.
    pages
        Pages or frames in the input, or null.
    input_bytes, output_bytes
        Sizes of the files, or null.
    seconds
        Time from decoding to having written, or null.
    weights
        Name of the weights, or null.
    engine
        Name of the engine that ran the network, or null.
    fallback
        Which engines were to run it and why they did not, or did not to the end; or null.
    warnings
        What could not be kept.
    error
        Why it failed or was skipped, or null.
    """

    input: str
    output: str
    status: Status
    task: str | None = None
    decision: str | None = None
    noise_level: float | None = None
    scale: int = 1
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    seconds: float | None = None
    weights: str | None = None
    engine: str | None = None
    fallback: str | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Seen:
    """A page before and after, and what was done."""

    before: Frame
    after: Frame
    done: Done


class _Page(NamedTuple):
    """A page for the network."""

    frame: Frame
    decision: Decision | None


class _Copy(NamedTuple):
    """Word that no page needs anything."""

    decision: Decision
    doubts: tuple[str, ...]


def _read_pages(
    source: Path | bytes, name: str, options: Options, restorers: Restorers, target_format: str
) -> Iterator[Picture | _Page | _Copy]:
    """Yield the header, then the pages with what they need; or instead of pages that the file can be copied."""
    with open_picture(source, name=name, max_pixels=options.max_pixels) as picture:
        target = written_format(picture, target_format)
        check_pages(name, target, picture.count, animated=picture.animated)
        yield picture
        may_copy = target == picture.format and options.may_copy(target)
        idle: list[Decision] = []
        doubts: dict[str, None] = {}
        unwarned = not options.enlarges_after and total_scale(options, restorers) > 1
        for frame in picture.frames:
            decision = decide_page(frame, options, restorers)
            if may_copy and decision and decision.task is None:
                idle.append(decision)
                doubts |= dict.fromkeys(frame.doubts)
                continue
            if idle:
                # Only now it is clear that the pages before are needed.
                with open_picture(source, name=name, max_pixels=options.max_pixels) as again:
                    yield from (_Page(earlier, found) for found, earlier in zip(idle, again.frames, strict=False))
            may_copy, idle = False, []
            if unwarned and (concern := find_concern(frame)):
                # Once a file: every page would tell another noise level.
                frame, unwarned = dataclasses.replace(frame, warnings=(*frame.warnings, concern)), False  # noqa: PLW2901
            yield _Page(frame, decision)
        if idle:
            yield _Copy(idle[0], tuple(doubts))


def written_format(picture: Picture, target_format: str) -> str:
    """Return what a picture is written as, asked for a format or for ``same``: raw, which nobody writes, as TIFF."""
    kept = "tiff" if picture.format == "raw" else picture.format
    return kept if target_format == "same" else target_format


def _misnamed(job: Job, picture: Picture) -> tuple[str, ...]:
    """Say that a file keeps a format that its name does not tell."""
    written = written_format(picture, job.format)
    if written == format_of(job.target):
        return ()
    return (f"its name does not say so, but it is {written}, and the result is, too",)


def _describe(outcome: Outcome, picture: Picture, all_done: list[Done]) -> Outcome:
    """Say what was done to the pages of a file."""
    first = next((done for done in all_done if done.task), all_done[0])
    task = joined(*(done.task for done in all_done))
    # What gave way to run one page does for all that follow: of the same weights the last page knows it all.
    fallbacks = {done.weights: done.fallback for done in all_done if done.fallback}
    more = f" (the first of {len(all_done)})" if len(all_done) > 1 else ""
    return dataclasses.replace(
        outcome,
        status="restored" if task else "rewritten",
        task=task or None,
        decision=first.decision + more,
        noise_level=first.noise_level,
        scale=first.scale,
        weights=joined(*(done.weights[0] for done in all_done if done.weights)) or None,
        engine=joined(*(done.engine for done in all_done)) or None,
        fallback=joined(*fallbacks.values(), separator="; ") or None,
        width=picture.width,
        height=picture.height,
        pages=picture.count,
        warnings=(*outcome.warnings, *dict.fromkeys(warning for done in all_done for warning in done.warnings)),
    )


def _copied(outcome: Outcome, picture: Picture, copy: _Copy) -> Outcome:
    done = dataclasses.replace(Done.nothing(copy.decision), warnings=copy.doubts)
    return dataclasses.replace(_describe(outcome, picture, [done] * picture.count), status="copied")


def restore_data(
    data: bytes,
    file: IO[bytes],
    restorers: Restorers,
    options: Options,
    *,
    name: str,
    target: str,
    target_format: str,
    seen: Callable[[Seen], None] = lambda _: None,
) -> Outcome:
    """Restore one file in memory.

    Parameters
    ----------
    data
        The file.
    file
        Where to write the result; empty, open for reading and writing.
    restorers, options
        What to restore it with, and how.
    name, target
        What messages and the outcome call input and output.
    target_format
        Format of the result, or ``same``.
    seen
        Called with every page before and after.

    Raises
    ------
    DeconvError
        If the file cannot be read, restored or written.
    """
    began = time.perf_counter()
    outcome = Outcome(name, target, "restored", input_bytes=len(data))
    parts = _read_pages(data, name, options, restorers, target_format)
    picture = next(parts)
    assert isinstance(picture, Picture)
    all_done: list[Done] = []

    def restored() -> Iterator[Frame]:
        for page in parts:
            if isinstance(page, _Page):
                frame, done = restore_page(page.frame, page.decision, restorers, options)
                all_done.append(done)
                seen(Seen(cut(page.frame, options.crop), frame, done))
                yield frame

    first = next(parts)
    if isinstance(first, _Copy):
        file.write(data)
        outcome = _copied(outcome, picture, first)
    else:
        parts = itertools.chain([first], parts)
        warnings = _write(file, restored(), picture, options, target_format)
        outcome = _describe(outcome, picture, all_done)
        outcome = dataclasses.replace(outcome, warnings=(*warnings, *outcome.warnings))
    seconds = round(time.perf_counter() - began, 3)
    return dataclasses.replace(outcome, output_bytes=file.seek(0, os.SEEK_END), seconds=seconds)


def _write(
    file: IO[bytes], frames: Iterator[Frame], picture: Picture, options: Options, target_format: str
) -> tuple[str, ...]:
    """Write all pages; return what could not be kept, on reading or in the format."""
    unread: dict[str, None] = {}

    def noted() -> Iterator[Frame]:
        for frame in frames:
            unread.update(dict.fromkeys(frame.warnings))
            yield frame

    lost = write_frames(
        file,
        noted(),
        written_format(picture, target_format),
        options.encoding,
        count=picture.count,
        loop=picture.loop,
        still_first=picture.still_first,
    )
    return (*unread, *lost)


class _Feed:
    """Hands pages from the network to the thread that writes them, one waiting at most."""

    def __init__(self) -> None:
        self._pages: queue.Queue[Frame | DeconvError | None] = queue.Queue(maxsize=1)
        self.writing: Future[Any] | None = None

    def put(self, page: Frame | DeconvError | None) -> bool:
        """Hand on a page, None at the end, or the error that there will be no more because of.

        Returns
        -------
        bool
            False if nobody takes it, since the writing has failed.
        """
        while not (self.writing and self.writing.done()):
            try:
                self._pages.put(page, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[Frame]:
        while (page := self._pages.get()) is not None:
            if isinstance(page, DeconvError):
                raise page
            yield page
            del page


@dataclass
class _Incoming:
    """A file that is being read."""

    job: Job
    status: os.stat_result | None = None
    picture: Picture | None = None
    parts: Iterator[Any] = field(default_factory=lambda: iter(()))
    first: Future[Any] | None = None
    needed: int = 0
    error: DeconvError | None = None
    complete: bool = False


@dataclass
class _Outgoing:
    """A file that is being written, or that is done with."""

    job: Job
    outcome: Outcome
    began: float
    status: os.stat_result | None = None
    writing: Future[tuple[tuple[str, ...], int, float]] | None = None
    needed: int = 0


class Batch:
    """Restores files, with threads that read ahead and write behind around the one network.

    Parameters
    ----------
    restorers, options
        What to restore with, and how.
    jobs_beside
        How many files may be decoded ahead and encoded behind.
    record
        Skip what it says is complete and current, and enter what is done.
    keep_times
        Give the outputs the times of their inputs.
    seen
        Called with every page before and after.
    stop
        Asked before every file whether to end; what has been started is finished.

    Attributes
    ----------
    busy
        Seconds that the network worked.
    """

    def __init__(
        self,
        restorers: Restorers,
        options: Options,
        *,
        jobs_beside: int = 2,
        record: ResumeRecord | None = None,
        keep_times: bool = False,
        seen: Callable[[Seen], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.restorers, self.options = restorers, options
        self.jobs_beside, self.record, self.keep_times = jobs_beside, record, keep_times
        self.seen, self.stop = seen, stop
        self.busy = 0.0
        self._full: DiskFullError | None = None
        self._budget = available_memory() // 2
        self._readers = ThreadPoolExecutor(jobs_beside, "reader")
        self._writers = ThreadPoolExecutor(jobs_beside, "writer")
        self._incoming: deque[_Incoming] = deque()
        self._outgoing: deque[_Outgoing] = deque()
        self._feed: _Feed | None = None

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Restore files.

        Yields
        ------
        Outcome
            One for every job that was begun, in order; after a full disk one for every job that was left, too.

        Raises
        ------
        UsageError
            If the options do not go with the weights: the request is wrong, not the file.
        """
        remaining = iter(jobs)
        try:
            while not (self.stop() or self._full):
                self._read_ahead(remaining)
                if not self._incoming:
                    break
                self._outgoing.append(self._restore(self._incoming.popleft(), remaining))
                yield from self._finished(at_most=self.jobs_beside)
            yield from self._finished(at_most=0)
            if self._full:
                left = itertools.chain((incoming.job for incoming in self._incoming), remaining)
                yield from (_skipped(job, self._full) for job in left)
        finally:
            if self._feed:
                self._feed.put(DeconvError("interrupted"))
            for pool in (self._readers, self._writers):
                pool.shutdown(cancel_futures=True)

    def _read_ahead(self, remaining: Iterator[Job], in_hand: int = 0) -> None:
        """Open the next files, and let those be decoded that the memory has room for.

        The first one always, unless one is `in_hand`, which takes so many bytes.
        """
        most = self.jobs_beside if in_hand else self.jobs_beside + 1
        while len(self._incoming) < most and (job := next(remaining, None)) is not None:
            self._incoming.append(self._open(job))
        for incoming in self._incoming:
            if incoming.first or not incoming.picture:
                continue
            beside = sum(other.needed for other in self._incoming) + sum(other.needed for other in self._outgoing)
            in_use = in_hand + beside
            picture, scale = incoming.picture, total_scale(self.options, self.restorers)
            needed = memory.picture_bytes(picture.width, picture.height, picture.bytes_per_pixel, scale)
            must = not in_hand and incoming is self._incoming[0]
            if in_use and in_use + needed > self._budget and not must:
                return
            incoming.needed = needed
            incoming.first = self._readers.submit(next, incoming.parts)

    def _open(self, job: Job) -> _Incoming:
        if job.error:
            return _Incoming(job, error=DeconvError(job.error))
        if self.record and self.record.is_current(job):
            return _Incoming(job, complete=True)
        incoming = _Incoming(job)
        try:
            incoming.status = job.source.stat()
            name = str(job.source)
            incoming.parts = _read_pages(job.source, name, self.options, self.restorers, job.format)
            picture = next(incoming.parts)
            assert isinstance(picture, Picture)
            incoming.picture = picture
        except UsageError:
            raise
        except DeconvError as error:
            incoming.error = error
        except OSError as error:
            incoming.error = cannot_read(job.source, error)
        return incoming

    def _restore(self, incoming: _Incoming, remaining: Iterator[Job]) -> _Outgoing:
        job, began = incoming.job, time.perf_counter()
        outcome = Outcome(str(job.source), str(job.target), "restored")
        if incoming.complete:
            return _Outgoing(job, already_complete(job), began)
        if incoming.error or not incoming.picture or not incoming.first or not incoming.status:
            return _Outgoing(job, _failed(outcome, incoming.error), began)
        warnings = _misnamed(job, incoming.picture)
        outcome = dataclasses.replace(outcome, input_bytes=incoming.status.st_size, warnings=warnings)
        outgoing = _Outgoing(job, outcome, began, incoming.status)
        outgoing.needed = incoming.needed
        try:
            if self.record:
                self.record.begin(job)
            self._pass_pages(incoming, outgoing, remaining)
        except UsageError:
            if self.record:
                self.record.withdraw(job)
            raise
        except DeconvError as error:
            if self._feed:
                self._feed.put(error)  # The writer fails by it, and removes what it has written.
            else:
                outgoing.outcome = self._fail(outgoing, error)
        self._feed = None
        return outgoing

    def _pass_pages(self, incoming: _Incoming, outgoing: _Outgoing, remaining: Iterator[Job]) -> None:
        """Take the pages of a file through the network and on to the writer."""
        picture, coming, all_done = incoming.picture, incoming.first, []
        incoming.first = None  # It would keep the page.
        assert picture
        self.restorers.prepare()  # While the first page is decoded and looked at.
        while True:
            assert coming
            page = coming.result()
            if page is None:
                break
            if isinstance(page, _Copy):
                outgoing.outcome = _copied(outgoing.outcome, picture, page)
                outgoing.writing = self._writers.submit(self._copy, incoming)
                return
            coming = self._readers.submit(next, incoming.parts, None)
            self._read_ahead(remaining, outgoing.needed)
            frame, done = self._run_network(page)
            all_done.append(done)
            del page
            if self._feed is None:
                self._feed = _Feed()
                outgoing.writing = self._feed.writing = self._writers.submit(self._write, incoming, self._feed)
            if not self._feed.put(frame):
                break
            del frame
        if self._feed:
            self._feed.put(None)
        outgoing.outcome = _describe(outgoing.outcome, picture, all_done)

    def _run_network(self, page: _Page) -> tuple[Frame, Done]:
        began = time.perf_counter()
        frame, done = restore_page(page.frame, page.decision, self.restorers, self.options)
        self.busy += time.perf_counter() - began
        self.seen(Seen(cut(page.frame, self.options.crop), frame, done))
        return frame, done

    def _write(self, incoming: _Incoming, feed: _Feed) -> tuple[tuple[str, ...], int, float]:
        """Write the pages as they come; return what could not be kept, the size and the time it was done."""
        job, picture = incoming.job, incoming.picture
        assert picture
        make_folder(job.target.parent)
        with atomic_file(job.target, like=incoming.status, keep_times=self.keep_times) as file:
            warnings = _write(file, iter(feed), picture, self.options, job.format)
            size = file.seek(0, os.SEEK_END)
        return warnings, size, time.perf_counter()

    def _copy(self, incoming: _Incoming) -> tuple[tuple[str, ...], int, float]:
        job = incoming.job
        make_folder(job.target.parent)
        with atomic_file(job.target, like=incoming.status, keep_times=self.keep_times) as file:
            file.writelines(_chunks(job.source))
            size = file.tell()
        return (), size, time.perf_counter()

    def _finished(self, *, at_most: int) -> Iterator[Outcome]:
        """Yield the outcomes that are certain, in order; wait until at most so many are not."""
        while self._outgoing:
            first = self._outgoing[0]
            if first.writing and not first.writing.done() and len(self._outgoing) <= at_most:
                return
            outcome = self._conclude(first)
            self._outgoing.popleft()
            yield outcome

    def _conclude(self, outgoing: _Outgoing) -> Outcome:
        if outgoing.writing is None:
            return outgoing.outcome
        try:
            warnings, size, ended = outgoing.writing.result()
            if self.record and outgoing.status:
                self.record.enter(outgoing.job, outgoing.status)
        except DeconvError as error:
            return self._fail(outgoing, error)
        return dataclasses.replace(
            outgoing.outcome,
            output_bytes=size,
            seconds=round(ended - outgoing.began, 3),
            warnings=(*warnings, *outgoing.outcome.warnings),
        )

    def _fail(self, outgoing: _Outgoing, error: DeconvError) -> Outcome:
        """Return what becomes of a file that was begun and not written."""
        self._full = error if isinstance(error, DiskFullError) else self._full
        if self.record:
            self.record.withdraw(outgoing.job)
        return _failed(outgoing.outcome, error)


def already_complete(job: Job) -> Outcome:
    """Return what becomes of a file whose output is there, and current."""
    return Outcome(str(job.source), str(job.target), "complete", decision="already complete")


def _failed(outcome: Outcome, error: DeconvError | None) -> Outcome:
    return dataclasses.replace(outcome, status="failed", task=None, decision=None, error=str(error))


def _skipped(job: Job, full: DiskFullError) -> Outcome:
    return Outcome(str(job.source), str(job.target), "skipped", error=f"{job.source}: not begun, since {full}")


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(COPIED):
                yield chunk
    except OSError as error:
        raise cannot_read(path, error) from error


def read_bytes(path: Path) -> bytes:
    """Read a file whole.

    Raises
    ------
    DeconvError
        If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error


def make_folder(folder: Path) -> None:
    """Make the folder of an output.

    Raises
    ------
    DeconvError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(f"{folder}, the output folder", error) from error


def make_writable_folder(folder: Path) -> None:
    """Make the folder of a batch, and refuse one that nothing can be written to before any work is done.

    Raises
    ------
    DeconvError
        If it cannot be made or written to.
    """
    make_folder(folder)
    if not os.access(folder, os.W_OK):
        raise DeconvError(f"{folder}: the output folder is read-only; give another one")
