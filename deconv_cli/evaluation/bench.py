"""Degrade, restore and score clean pictures in memory, as the field's papers do."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deconv_cli.degradation.jpeg import Subsampling, compress_jpeg
from deconv_cli.degradation.noise import LEVEL_SCALE
from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.evaluation.classical import find_classical
from deconv_cli.evaluation.scoring import Failure, finite
from deconv_cli.images import crop_to_multiple, from_float, read_frame, to_float, upscale
from deconv_cli.metrics import Protocol, mean_psnr, measure, to_luma
from deconv_cli.restoration.restorer import Restored, Restorer
from deconv_cli.tasks import Task

SEED = 0
MEANS: tuple[Callable[..., float], ...] = (mean_psnr, np.mean, mean_psnr, np.mean, np.mean)
"""How the pictures' PSNR and SSIM of the input, of the result, and seconds per megapixel become those of a set."""
WARM_UP = 64
"""Side of the corner that every method restores untimed, so that what it sets up once does not count."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Method:
    """Something that restores, at one scale.

    Attributes
    ----------
    name
        What tables call it.
    restore
        Degraded picture and the level of its degradation to the restored picture, with what ran. The level is that of
        the task where the method knows it, else the standard deviation of the error, on 0..255.
    scale
        Output side over input side.
    task
        Name of the task whose levels it is told; None is told the standard deviation of the error.
    """

    name: str
    restore: Callable[[Floats, float], Restored]
    scale: int = 1
    task: str | None = None

    @classmethod
    def of_weights(cls, restorer: Restorer, name: str, *, tta: bool = False) -> Method:
        """Make the method that a network is."""
        blind = restorer.task.condition_scale is None

        def restore(image: Floats, level: float) -> Restored:
            return restorer.restore(image, noise_level="auto" if blind else level, tta=tta)

        return cls(name, restore, restorer.description.scale, restorer.task.name)

    @classmethod
    def classical(cls, name: str, scale: int) -> Method:
        """Make a classical method; see `deconv_cli.evaluation.classical`."""
        run = find_classical(name, scale)

        def restore(image: Floats, deviation: float) -> Restored:
            return Restored(run(image, deviation / LEVEL_SCALE), None, precision="float64", engine="", fallback=None)

        return cls(name, restore, scale)


@dataclass(frozen=True)
class Conditions:
    """What is measured, and how the pictures are degraded and scored.

    Attributes
    ----------
    task
        The task.
    scale
        Output side over input side.
    gray
        Turn colour originals into their luma first (BT.601 studio range, integers rounded), as papers on gray JPEG do.
    subsampling
        Of the colour in JPEG; None is the task's own degradation.
    channel
        What is scored; None is the task's own.
    """

    task: Task
    scale: int = 1
    gray: bool = False
    subsampling: Subsampling | None = None
    channel: str | None = None

    def __post_init__(self) -> None:
        if self.subsampling is not None and self.task.name != "decompress":
            raise UsageError("the subsampling is one of JPEG: give it with --task decompress")
        _ = self.protocol

    @property
    def protocol(self) -> Protocol:
        """How is scored."""
        own = self.task.protocol(self.scale)
        return own if self.channel is None else dataclasses.replace(own, channel=self.channel)

    def read(self, path: Path) -> NDArray[Any]:
        """Read a clean picture, as it is to be degraded: its sides multiples of the scale."""
        pixels = crop_to_multiple(read_frame(path).pixels, self.scale)
        if self.gray and pixels.ndim == 3:
            luma = to_luma(pixels)
            return (luma if pixels.dtype == np.float32 else np.rint(luma)).astype(pixels.dtype)
        return pixels

    def degrade(self, clean: NDArray[Any], level: float, rng: np.random.Generator) -> Floats:
        """Degrade a picture; the result is float32."""
        if self.subsampling is not None:
            return compress_jpeg(to_float(clean), level, self.subsampling)
        return self.task.degrade(to_float(clean), level, rng)

    def score(self, clean: NDArray[Any], image: Floats) -> tuple[float, float]:
        """Return PSNR and SSIM of a result, rounded to the sample type of the clean picture."""
        return measure(clean, from_float(image, clean.dtype), self.protocol)

    def describe(self) -> str:
        """Return the protocol in words."""
        how = {
            "denoise": "noise in float, neither clipped nor rounded, its level told",
            "decompress": f"JPEG, colour {self.subsampling or '4:2:0'}",
            "photo": "camera noise of a typical camera, 8 bits, JPEG 4:2:0 of quality 90",
            "sr": "bicubic reduction (a = -0.5), 8 bits",
        }[self.task.name]
        gray = "luma of colour originals, " if self.gray else ""
        return f"{gray}{how}; output rounded; {self.protocol}"


@dataclass(frozen=True)
class Row:
    """Means over the pictures at one level for one method.

    Attributes
    ----------
    level
        Degradation level in the task's unit.
    method
        Name of the method.
    input_psnr, input_ssim
        Of the degraded pictures: what doing nothing (to small ones: bicubic interpolation) scores. PSNR in dB.
    psnr, ssim
        Of the restored pictures.
    seconds_per_megapixel
        Time from array to array, by the size of the result.
    """

    level: float
    method: str
    input_psnr: float
    input_ssim: float
    psnr: float
    ssim: float
    seconds_per_megapixel: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, where an infinite PSNR is null."""
        values = dataclasses.asdict(self)
        return {name: finite(value) if isinstance(value, float) else value for name, value in values.items()}


@dataclass(frozen=True)
class Bench:
    """A table of rows, by level and then in the order of the methods, with all that has to be known to compare it.

    Attributes
    ----------
    task, pictures, conditions, protocol
        What was measured on how many pictures, and how.
    precisions
        Number format of each method.
    engines
        By name of each network: as ``engine`` what ran it at the end, and as ``fallback`` why others did not, or None.
    rows
        The table.
    failed
        The pictures that could not be measured, and why.
    """

    task: str
    pictures: int
    conditions: str
    protocol: Protocol
    precisions: dict[str, str]
    engines: dict[str, dict[str, str | None]]
    rows: tuple[Row, ...]
    failed: tuple[Failure, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        rows = [row.to_dict() for row in self.rows]
        failed = [failure.to_dict() for failure in self.failed]
        return {**dataclasses.asdict(self), "protocol": self.protocol.as_dict(), "rows": rows, "failed": failed}

    def to_csv(self) -> str:
        """Return the rows as CSV with a line of headings; each says by what protocol and in what conditions."""
        text = io.StringIO()
        how = {**self.protocol.as_dict(), "conditions": self.conditions}
        columns = [*(field.name for field in dataclasses.fields(Row)), *how]
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(dataclasses.asdict(row) | how for row in self.rows)
        return text.getvalue()

    def cells(self, level_name: str) -> list[tuple[str, ...]]:
        """Return the headings and the rows as text, for people."""
        headings = (level_name, "method", "input PSNR (dB)", "input SSIM", "PSNR (dB)", "SSIM", "s/MP")
        return [
            headings,
            *(
                (
                    f"{row.level:g}",
                    row.method,
                    f"{row.input_psnr:.3f}",
                    f"{row.input_ssim:.4f}",
                    f"{row.psnr:.3f}",
                    f"{row.ssim:.4f}",
                    f"{row.seconds_per_megapixel:.2f}",
                )
                for row in self.rows
            ),
        ]

    def to_markdown(self, level_name: str) -> str:
        """Return the rows as a Markdown table."""
        headings, *rows = self.cells(level_name)
        lines = [headings, tuple("---" for _ in headings), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bench(
    paths: Sequence[Path],
    methods: Sequence[Method],
    conditions: Conditions,
    levels: Sequence[float],
    *,
    progress: Callable[[Sequence[Path]], Iterable[Path]] = lambda paths: paths,
) -> Bench:
    """Measure methods on clean pictures, all on the same degraded ones.

    The output is rounded to the sample type of the clean picture, and gray pictures stay gray. The noise is a function
    of the picture's place in the list and the level. A network of this task that wants to know the level is told it;
    any other method that wants to know how strong the noise is gets the standard deviation of the input's error, which
    nobody knows outside of a benchmark.

    Parameters
    ----------
    paths
        Clean pictures.
    methods
        What to measure.
    conditions
        How pictures are degraded and scored.
    levels
        Degradation levels; for super-resolution its scale.
    progress
        Wraps the list of pictures to show progress.

    Raises
    ------
    UsageError
        If there is no such level, or a method does not go with the conditions.
    DeconvError
        If no picture can be measured.
    """
    if other := next((method for method in methods if method.scale != conditions.scale), None):
        asked = f"{conditions.task.name} at scale {conditions.scale}"
        raise UsageError(f"the weights '{other.name}' are for scale {other.scale}, not for {asked}")
    low, high = conditions.task.limits
    if outside := [level for level in levels if not low <= level <= high]:
        raise UsageError(f"level {outside[0]:g}: those of {conditions.task.name} go from {low:g} to {high:g}")
    measured: dict[tuple[float, str], list[tuple[float, ...]]] = {
        (level, method.name): [] for level in levels for method in methods
    }
    last: dict[str, Restored] = {}
    failed: list[Failure] = []
    for index, path in enumerate(progress(paths)):
        try:
            of_picture = _measure_picture(path, index, methods, conditions, levels, last=last)
        except UsageError:
            raise
        except DeconvError as error:
            failed.append(Failure(path.name, _reason(path, error)))
            continue
        for key, values in of_picture.items():
            measured[key].append(values)
    if len(failed) == len(paths):
        raise DeconvError(failed[0].reason)
    rows = tuple(
        Row(level, name, *(float(mean(column)) for mean, column in zip(MEANS, zip(*values, strict=True), strict=True)))
        for (level, name), values in measured.items()
    )
    precisions = {name: result.precision for name, result in last.items()}
    engines = {name: {"engine": of.engine, "fallback": of.fallback} for name, of in last.items() if of.engine}
    protocol = conditions.protocol
    count = len(paths) - len(failed)
    return Bench(conditions.task.name, count, conditions.describe(), protocol, precisions, engines, rows, tuple(failed))


def require_measurable(paths: Sequence[Path], conditions: Conditions) -> None:
    """Refuse pictures of which none can be scored; the first that can ends the search.

    Raises
    ------
    DeconvError
        If there is none.
    """
    reasons = []
    for path in paths:
        try:
            corner = conditions.read(path)[:WARM_UP, :WARM_UP]
            conditions.score(corner, to_float(corner))
        except DeconvError as error:
            reasons.append(_reason(path, error))
        else:
            return
    raise DeconvError(f"no picture to report on can be measured; the first: {reasons[0]}")


def _reason(path: Path, error: DeconvError) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _measure_picture(
    path: Path,
    index: int,
    methods: Sequence[Method],
    conditions: Conditions,
    levels: Sequence[float],
    *,
    last: dict[str, Restored],
) -> dict[tuple[float, str], tuple[float, ...]]:
    """Return what is measured of a picture, by level and method; leave the methods' last results in `last`."""
    clean = conditions.read(path)
    megapixels = clean.shape[0] * clean.shape[1] / 1e6
    measured: dict[tuple[float, str], tuple[float, ...]] = {}
    for level in levels:
        rng = np.random.default_rng([SEED, index, round(level * 1000)])
        degraded = conditions.degrade(clean, level, rng)
        before = conditions.score(clean, upscale(degraded, conditions.scale))
        deviation = _error(clean, degraded) if conditions.scale == 1 else 0.0
        for method in methods:
            told = level if method.task == conditions.task.name else deviation
            if method.name not in last:
                method.restore(np.ascontiguousarray(degraded[:WARM_UP, :WARM_UP]), told)
            began = time.perf_counter()
            last[method.name] = restored = method.restore(degraded, told)
            seconds = time.perf_counter() - began
            measured[level, method.name] = *before, *conditions.score(clean, restored.pixels), seconds / megapixels
    return measured


def _error(clean: NDArray[Any], degraded: Floats) -> float:
    """Return the standard deviation of the error on 0..255."""
    return float(np.sqrt(np.square(degraded - to_float(clean), dtype=np.float64).mean())) * LEVEL_SCALE
