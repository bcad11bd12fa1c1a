"""Where a training or a compression puts its files: the weights, and a folder of the same name beside them.

And what such folders are known by, and those of studies, which are none of pictures wherever they lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deconv_cli.errors import UsageError

CONFIG, RECORD = "config.toml", "log.jsonl"
REPORT, REPORT_PLOT = "report.json", "report.png"
STUDY, CROPS, RESULTS = "study.json", "crops.npz", "results.json"


@dataclass(frozen=True)
class RunFiles:
    """The files of a training: the best weights at `out`, everything else in a folder of the same name beside it."""

    out: Path

    @property
    def folder(self) -> Path:
        """The folder beside the weights."""
        return self.out.with_suffix("")

    @property
    def checkpoint(self) -> Path:
        """The whole state, to resume from."""
        return self.folder / "checkpoint.safetensors"

    @property
    def last(self) -> Path:
        """The weights of the last validation."""
        return self.folder / "last.safetensors"

    @property
    def config(self) -> Path:
        """The effective configuration."""
        return self.folder / CONFIG

    @property
    def record(self) -> Path:
        """The log, JSON lines."""
        return self.folder / RECORD

    @property
    def curve(self) -> Path:
        """The curves."""
        return self.folder / "curve.png"

    @property
    def report(self) -> Path:
        """What a compression saves and costs."""
        return self.folder / REPORT

    @property
    def report_plot(self) -> Path:
        """The same as a picture."""
        return self.folder / REPORT_PLOT

    def make_folder(self) -> None:
        """Make the folder, and those that it is in.

        Raises
        ------
        UsageError
            If that is not possible.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder}: this folder cannot be made ({error.strerror})") from error


def is_run_folder(folder: Path) -> bool:
    """Tell whether a folder is one of `RunFiles`, of a training or of a compression."""
    return _holds_either(folder, (CONFIG, RECORD), (REPORT, REPORT_PLOT))


def is_study_folder(folder: Path) -> bool:
    """Tell whether a folder is that of a study."""
    return _holds_either(folder, (STUDY, CROPS), (STUDY, RESULTS))


def holds_results(folder: Path) -> bool:
    """Tell whether a folder is one of a training, a compression or a study: its plots are no pictures to train on."""
    return is_run_folder(folder) or is_study_folder(folder)


def _holds_either(folder: Path, *sets: tuple[str, ...]) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in sets)
