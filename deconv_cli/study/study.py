"""A study from beginning to end: cut the crops, choose the rates, train every arm with every seed, collect."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import multiprocessing
import platform
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from deconv_cli._version import __version__
from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.images import write_atomically
from deconv_cli.images.paths import folder_name
from deconv_cli.library_warnings import log_library_warnings
from deconv_cli.study.arms import SWEEP_SEED, Settings
from deconv_cli.study.data import Data, LabelledData, cut_data, load_data, save_data
from deconv_cli.study.run import Run, Stopped, carry_out
from deconv_cli.study.summary import choose_rate
from deconv_cli.training.labelled import read_labelled
from deconv_cli.training.run_files import CROPS, RESULTS, STUDY

FORMAT_VERSION = 1
POLL_SECONDS = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyFiles:
    """The files of a study, all in one folder."""

    folder: Path

    @property
    def facts(self) -> Path:
        """What is fixed, to notice that a study would go on as another one."""
        return self.folder / STUDY

    @property
    def crops(self) -> Path:
        """The crops that all arms see."""
        return self.folder / CROPS

    @property
    def results(self) -> Path:
        """Everything measured, from which the report is made."""
        return self.folder / RESULTS

    def run(self, run: Run) -> Path:
        """Return the result of one run."""
        return self.folder / "runs" / f"{run.name}.json"


@dataclass(frozen=True)
class Progress:
    """What a study tells its caller after each run: how many are done of how many, and the last one's result."""

    done: int
    total: int
    run: Run
    result: dict[str, Any]


def study(
    folders: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    validation: Path | None = None,
    jobs: int = 1,
    report: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Carry out a study, or the rest of one, and write its results.

    Parameters
    ----------
    folders
        Folders of clean pictures, read recursively.
    out
        Folder of the study; finished runs that are there already are kept.
    settings
        What is compared, and what is fixed.
    validation
        Folder of pictures to measure on; by default a tenth is held out.
    jobs
        Runs at a time, one thread each; several are processes of their own, 1 stays in this one.
    report
        Called after every run.
    stop
        Asked now and then; when it answers True, the runs in progress are given up and the study ends.

    Returns
    -------
    bool
        Whether everything was done; otherwise the same call goes on.

    Raises
    ------
    DeconvError
        If the pictures cannot be used, or the folder holds another study.
    """
    files = StudyFiles(out)
    data = _prepare(files, folders, settings, validation)
    sweeps = [Run(arm, rate, SWEEP_SEED, sweep=True) for arm in settings.arms for rate in settings.rates_of(arm)]
    total = len(sweeps) + settings.seeds * len(settings.arms)
    counter = _Counter(total, report)
    carry = _Carrier(files, settings, data, jobs, stop)
    swept = carry.out(sweeps, counter)
    if len(swept) < len(sweeps):
        return False
    rates = {arm: choose_rate([result for run, result in swept.items() if run.arm == arm]) for arm in settings.arms}
    # Seed by seed, so that a study that is cut short has some of every arm.
    runs = [Run(arm, rates[arm], seed, sweep=False) for seed in range(settings.seeds) for arm in settings.arms]
    done = carry.out(runs, counter)
    results = [*swept.values(), *done.values()]
    write_results(files, settings, results)
    return len(done) == len(runs)


def write_results(files: StudyFiles, settings: Settings, runs: Sequence[dict[str, Any]]) -> None:
    """Write everything measured to one file."""
    facts = json.loads(files.facts.read_text(encoding="utf-8"))
    content = {**facts, "settings": dataclasses.asdict(settings), "runs": list(runs)}
    write_atomically(files.results, json.dumps(content, allow_nan=False).encode())


def _prepare(
    files: StudyFiles, folders: Sequence[Path], settings: Settings, validation: Path | None
) -> Data | LabelledData:
    """Cut the crops, or read them if the study goes on, and check that it is the same study."""
    fixed = json.loads(json.dumps(settings.fixed))
    names = [folder_name(folder) for folder in (*folders, *([validation] if validation else []))]
    if files.facts.exists():
        facts = _read_facts(files.facts)
        changed = [name for name in fixed if facts["fixed"].get(name) != fixed[name]]
        changed += ["the folders"] if facts["folders"] != names else []
        if changed:
            raise UsageError(
                f"{files.folder}: holds a study with other values of {', '.join(changed)}; leave them out to go on with"
                " it, or give another --out"
            )
        return _load_or_cut(files, facts, lambda: _read_data(folders, settings, validation))
    data = _read_data(folders, settings, validation)
    try:
        (files.folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{files.folder}: the folder of the study cannot be made ({error.strerror})") from error
    save_data(files.crops, data)
    facts = {
        "format": FORMAT_VERSION,
        "fixed": fixed,
        "folders": names,
        "crops": {"training": len(data.training), "validation": len(data.validation), "sha256": data.sha256},
        "environment": _environment(),
    }
    write_atomically(files.facts, json.dumps(facts, indent=1).encode())
    return data


def _load_or_cut(
    files: StudyFiles, facts: dict[str, Any], cut: Callable[[], Data | LabelledData]
) -> Data | LabelledData:
    """Read the crops; cut them anew if their file is damaged, as a power cut leaves it."""
    try:
        return load_data(files.crops)
    except DeconvError as error:
        log.warning("%s; its pictures are cut anew", error)
    data = cut()
    if data.sha256 != facts["crops"]["sha256"]:
        raise DeconvError(f"{files.crops}: damaged, and the folders hold other pictures by now; give another --out")
    save_data(files.crops, data)
    return data


def _read_data(folders: Sequence[Path], settings: Settings, validation: Path | None) -> Data | LabelledData:
    if "classify" not in settings.tasks:
        return cut_data(folders, validation, settings.patch)
    if len(folders) > 1:
        raise UsageError("classify takes one folder, with a folder for each class in it")
    return LabelledData(*read_labelled(folders[0], validation, settings.patch))


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeconvError(f"{path}: cannot be read ({error}); give another --out") from error
    if facts.get("format") != FORMAT_VERSION:
        raise DeconvError(f"{path}: a study of another version of deconv; give another --out")
    return facts


def _environment() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "scikit-image")}
    return {"deconv": __version__, "python": platform.python_version(), **versions, "machine": platform.machine()}


class _Counter:
    """Counts finished runs for the caller."""

    def __init__(self, total: int, report: Callable[[Progress], None]) -> None:
        self.total, self.report, self.done = total, report, 0

    def __call__(self, run: Run, result: dict[str, Any]) -> None:
        self.done += 1
        self.report(Progress(self.done, self.total, run, result))


@dataclass(frozen=True)
class _Carrier:
    """Carries out runs, here or in processes of their own, and keeps their results."""

    files: StudyFiles
    settings: Settings
    data: Data | LabelledData
    jobs: int
    stop: Callable[[], bool]

    def out(self, runs: Sequence[Run], finished: Callable[[Run, dict[str, Any]], None]) -> dict[Run, dict[str, Any]]:
        """Return the results of the runs, in their order; fewer if asked to stop."""
        results: dict[Run, dict[str, Any]] = {}
        missing = []
        for run in runs:
            if result := _read_result(self.files.run(run)):
                results[run] = result
                finished(run, result)
            else:
                missing.append(run)
        carry = self._here if self.jobs == 1 else self._in_processes
        for run, result in carry(missing):
            write_atomically(self.files.run(run), json.dumps(result, allow_nan=False).encode())
            results[run] = result
            finished(run, result)
        return {run: results[run] for run in runs if run in results}

    def _here(self, runs: Sequence[Run]) -> Iterator[tuple[Run, dict[str, Any]]]:
        with _one_thread():
            for run in runs:
                try:
                    yield run, carry_out(run, self.settings, self.data, self.stop)
                except Stopped:
                    return

    def _in_processes(self, runs: Sequence[Run]) -> Iterator[tuple[Run, dict[str, Any]]]:
        context = multiprocessing.get_context("spawn")
        stopping = context.Event()
        arguments = (self.files.crops, self.settings, stopping, log.getEffectiveLevel())
        pool = ProcessPoolExecutor(self.jobs, context, _Worker.start, arguments)
        try:
            waiting = {pool.submit(_Worker.carry_out, run): run for run in runs}
            while waiting:
                finished, _ = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                if self.stop() and not stopping.is_set():
                    stopping.set()
                    # A cancelled future is never reported as finished: those not begun are forgotten here.
                    waiting = {future: run for future, run in waiting.items() if not future.cancel()}
                for future in finished:
                    run = waiting.pop(future)
                    if isinstance(future.exception(), Stopped):
                        continue
                    try:
                        result, entries = future.result()
                    except BrokenProcessPool as error:
                        raise DeconvError(
                            "a process of the study was killed, perhaps for want of memory; the same command goes on,"
                            " with fewer --jobs"
                        ) from error
                    for level, text in entries:
                        log.log(level, "%s", text)
                    yield run, result
        finally:
            # Whatever ended this, such as a full disk: nobody takes the results of the runs that are left.
            stopping.set()
            pool.shutdown(cancel_futures=True)


def _read_result(path: Path) -> dict[str, Any] | None:
    """Return the result of a run, or None if there is none, or what a power cut has left of one."""
    if not path.exists():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        log.warning("%s: damaged (%s); this run is made anew", path, error)
        return None
    return result


@contextmanager
def _one_thread() -> Iterator[None]:
    """Give PyTorch one thread, as every process of a study has: what a run learns is the same with any `jobs`."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Entries(logging.Handler):
    """Keeps what is logged, severity and text, for the process that has somebody to tell."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append((record.levelno, record.getMessage()))

    def take(self) -> list[tuple[int, str]]:
        """Return what was logged since the last time."""
        taken, self.kept = self.kept, []
        return taken


class _Worker:
    """What a process of a study holds: the same crops and settings for all its runs."""

    settings: Settings
    data: Data | LabelledData
    stopping: Event
    entries: _Entries

    @classmethod
    def start(cls, crops: Path, settings: Settings, stopping: Event, level: int) -> None:
        """Prepare the process; `level` is the least severity of what is logged."""
        import torch

        # Ctrl-C reaches every process of the terminal; the parent decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        torch.set_num_threads(1)
        cls.entries, package = _Entries(), logging.getLogger("deconv_cli")
        package.handlers = [cls.entries]
        package.setLevel(level)
        log_library_warnings()
        cls.settings, cls.data, cls.stopping = settings, load_data(crops), stopping

    @classmethod
    def carry_out(cls, run: Run) -> tuple[dict[str, Any], list[tuple[int, str]]]:
        """Carry out a run in this process; return its result, and what was logged."""
        return carry_out(run, cls.settings, cls.data, cls.stopping.is_set), cls.entries.take()
