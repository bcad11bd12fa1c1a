"""Page to page: what a page or frame needs, and its restoration with all its layers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deconv_cli._version import __version__
from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.images import LOSSLESS, MAX_PIXELS, Encoding, Frame, excess, without_black, without_hidden
from deconv_cli.images.exif import with_finer_dots, xmp_with_finer_dots
from deconv_cli.images.frame import MAX_DPI
from deconv_cli.images.tiff import off_the_map
from deconv_cli.restoration.decision import Decision, before_enlarging, decide

if TYPE_CHECKING:
    from deconv_cli.restoration.restorer import Restored, Restorer, Restorers


ENLARGING = "sr"
"""Name of the task that enlarges."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int

    def within(self, other: Crop, scale: int = 1) -> Crop:
        """Return the same part, seen from another one that was enlarged so many times."""
        left, top = self.x - other.x, self.y - other.y
        return Crop(left * scale, top * scale, self.width * scale, self.height * scale)


@dataclass(frozen=True)
class Options:
    """How to restore and write every file of a batch.

    Attributes
    ----------
    task
        What to undo; ``auto`` decides for every page, and copies a file byte for byte if it needs nothing and its
        format stays.
    noise_level, strength, chroma, tta, tile
        See `deconv_cli.restoration.restorer.Restorer.restore`. A noise level means denoising.
    scale
        Enlargement of super-resolution; None is what the weights do, or the task's default. Beside a task that keeps
        the size: what it leaves is enlarged then.
    crop
        The part to restore; None is all.
    format
        A name of `deconv_cli.images.FORMATS`, or ``same``; see `deconv_cli.restoration.planning.Job`.
    quality, metadata, palette
        See `deconv_cli.images.Encoding`.
    stamp
        Write into the file what was done to it, where something was.
    max_pixels
        Refuse larger pictures.
    """

    task: str = "auto"
    noise_level: float | Literal["auto"] = "auto"
    scale: int | None = None
    strength: float = 1.0
    chroma: float | None = None
    tta: bool = False
    tile: int | Literal["auto", "off"] = "auto"
    crop: Crop | None = None
    format: str = "same"
    quality: int | None = None
    metadata: Literal["keep", "strip"] = "keep"
    palette: bool = False
    stamp: bool = False
    max_pixels: int = MAX_PIXELS

    @property
    def encoding(self) -> Encoding:
        """How to write."""
        return Encoding(self.quality, self.metadata, self.palette)

    @property
    def identity(self) -> dict[str, Any]:
        """What a result depends on, as plain values for JSON."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in {"tile", "max_pixels"}}

    @property
    def decides(self) -> bool:
        """Whether every page is looked at to find out what it needs."""
        return self.task == self.noise_level == "auto"

    @property
    def enlarges_after(self) -> bool:
        """Whether what the task has left is enlarged then."""
        return self.scale not in (None, 1) and self.task not in ("auto", ENLARGING)

    def may_copy(self, kept_format: str) -> bool:
        """Whether a file that needs nothing and keeps its format can be copied."""
        same_quality = self.quality is None or kept_format in LOSSLESS
        return self.decides and same_quality and self.metadata == "keep" and self.crop is None


@dataclass(frozen=True)
class Done:
    """What was done to a page.

    Attributes
    ----------
    task
        What was undone; None if nothing had to be. Here and below, what differs of two networks is joined by ``+``.
    decision
        What was decided and why.
    noise_level
        What the network was told (of a CMYK picture for the noisier of colours and black), or what was estimated of a
        page that needs nothing or goes to a blind network; None if neither.
    scale
        Output side over input side.
    weights
        Name and sha256 of the weights, or None.
    precision
        Number format that it ran in, or None.
    engine
        Name of the engine that ran the network, or None.
    fallback
        Which engines were to run it and why they did not, or None.
    warnings
        What could not be kept.
    """

    task: str | None
    decision: str
    noise_level: float | None = None
    scale: int = 1
    weights: tuple[str, str] | None = None
    precision: str | None = None
    engine: str | None = None
    fallback: str | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def nothing(cls, decision: Decision) -> Done:
        """Say that nothing had to be done."""
        return cls(None, decision.reason, round(decision.noise_level, 2))

    def then(self, other: Done) -> Done:
        """Say that something was done to what was left."""
        assert self.weights
        assert other.weights
        name, sha256 = (joined(*pair) for pair in zip(self.weights, other.weights, strict=True))
        return dataclasses.replace(
            self,
            task=joined(self.task, other.task),
            decision=f"{self.decision}; {other.decision}",
            scale=self.scale * other.scale,
            weights=(name, sha256),
            precision=joined(self.precision, other.precision),
            engine=joined(self.engine, other.engine),
            fallback=joined(self.fallback, other.fallback, separator="; ") or None,
            warnings=tuple(dict.fromkeys((*self.warnings, *other.warnings))),
        )


def joined(*words: str | None, separator: str = "+") -> str:
    """Join words, each once; ``None`` is none."""
    return separator.join(dict.fromkeys(word for word in words if word))


def decide_page(frame: Frame, options: Options, restorers: Restorers) -> Decision | None:
    """Find out what a page needs, if the options leave that open.

    Raises
    ------
    DeconvError
        If memory does not suffice, or a trial fails.
    """
    with _naming(frame):
        if not options.decides:
            return None
        return decide(
            _as_seen(frame),
            restorers.tasks,
            lambda pixels: restorers.of("photo", to_measure=True).restore(pixels).pixels,
        )


def find_concern(frame: Frame) -> str | None:
    """Say what had better be undone before a page is enlarged, if anything; see `before_enlarging`.

    Raises
    ------
    DeconvError
        If memory does not suffice.
    """
    with _naming(frame):
        return before_enlarging(_as_seen(frame))


def restore_page(frame: Frame, decision: Decision | None, restorers: Restorers, options: Options) -> tuple[Frame, Done]:
    """Restore a page.

    Parameters
    ----------
    frame
        The page.
    decision
        What `decide_page` found.
    restorers, options
        What to restore it with, and how.

    Raises
    ------
    DeconvError
        If the part to restore lies outside the page, memory does not suffice, or the restoration fails otherwise.
    UsageError
        If the options do not go with the weights.
    """
    with _naming(frame):
        if options.enlarges_after:
            restored, done = _restore_and_enlarge(frame, restorers, options)
        else:
            restored, done = _restore_page(frame, decision, restorers, options)
        stamp = _facts(done, options) if options.stamp and done.task else ()
        return dataclasses.replace(restored, stamp=stamp), done


def total_scale(options: Options, restorers: Restorers) -> int:
    """Return output side over input side, without loading a network for it."""
    if options.enlarges_after:
        return restorers.scale_for(ENLARGING, options.scale)
    return restorers.scale_for(options.task, options.scale)


def networks_for(options: Options, restorers: Restorers) -> Iterator[Restorer]:
    """Yield the networks that pictures go through, one after the other; where auto decides, that for noise.

    Raises
    ------
    UsageError
        If the options do not go with the weights.
    """
    if options.enlarges_after:
        yield restorers.of(options.task)
        yield restorers.of(ENLARGING, options.scale)
    else:
        yield restorers.of("denoise" if options.task == "auto" else options.task, options.scale)


def _restore_and_enlarge(frame: Frame, restorers: Restorers, options: Options) -> tuple[Frame, Done]:
    """Do what two runs would, the second one on the result of the first, rounded as a file holds it."""
    enlarging = Options(task=ENLARGING, scale=options.scale, tta=options.tta, tile=options.tile)
    around = None
    if crop := options.crop:
        around = _around(frame, crop, restorers.of(ENLARGING, options.scale))
        enlarging = dataclasses.replace(enlarging, crop=crop.within(around))
    restoring = dataclasses.replace(options, scale=None, crop=around)
    restored, undone = _restore_page(frame, None, restorers, restoring)
    enlarged, done = _restore_page(restored, None, restorers, enlarging)
    return enlarged, undone.then(done)


@contextlib.contextmanager
def _naming(frame: Frame) -> Iterator[None]:
    """Say which picture it is that something fails on: what restores arrays does not know."""
    try:
        yield
    except UsageError:
        raise
    except DeconvError as error:
        raise DeconvError(f"{frame.name}: {error}") from error
    except MemoryError as error:
        raise DeconvError(f"{frame.name}: memory does not suffice for the result") from error


def _restore_page(
    frame: Frame, decision: Decision | None, restorers: Restorers, options: Options
) -> tuple[Frame, Done]:
    if decision and decision.task is None:
        return cut(frame, options.crop), Done.nothing(decision)
    task = decision.task if decision else "denoise" if options.task == "auto" else options.task
    assert task
    restorer = restorers.of(task, options.scale)
    frame, largest = _normalised(frame)
    # Of the whole page: the level of a part may be estimated otherwise.
    levels = _noise_levels(frame, decision, restorer, options)
    scale = restorer.description.scale
    around = _around(frame, options.crop, restorer) if options.crop else None
    restored, result = _restore_layers(cut(frame, around), restorer, levels, options)
    if options.crop and around:
        restored = cut(restored, options.crop.within(around, scale))
    if largest != 1:
        restored = dataclasses.replace(restored, pixels=restored.pixels * np.float32(largest))
    level = max((level for level in levels if level is not None), default=None)
    precision = f"int8 with {result.precision}" if restorer.weights.quantization else result.precision
    told = decision.noise_level if decision and level is None else level
    done = Done(
        task,
        f"{task}: {_describe(restorer, decision, level, options)}, {precision}",
        None if told is None else round(told, 2),
        scale,
        (restorer.description.name, restorer.weights.sha256),
        precision,
        result.engine,
        result.fallback,
    )
    return _as_large_on_paper(off_the_map(restored), scale) if scale > 1 else restored, done


def _as_large_on_paper(frame: Frame, scale: int) -> Frame:
    """Give an enlarged page so many times the dots per inch: a scan is of a sheet, whose size stays what it is."""
    exif = with_finer_dots(frame.exif, scale) if frame.exif else frame.exif
    xmp = xmp_with_finer_dots(frame.xmp, scale) if frame.xmp else frame.xmp
    frame = dataclasses.replace(frame, exif=exif, xmp=xmp)
    if frame.dpi is None:
        return frame
    dpi = frame.dpi[0] * scale, frame.dpi[1] * scale
    if max(dpi) > MAX_DPI:
        return dataclasses.replace(frame, dpi=None, warnings=(*frame.warnings, "the resolution was left out"))
    return dataclasses.replace(frame, dpi=dpi)


def _facts(done: Done, options: Options) -> tuple[tuple[str, str], ...]:
    """Return what is written into the file about what was done."""
    assert done.task
    assert done.weights
    settings = {
        "NoiseLevel": done.noise_level,
        "Scale": done.scale if done.scale > 1 else None,
        "Strength": options.strength,
        "ChromaStrength": options.chroma,
        "SelfEnsemble": "yes" if options.tta else None,
        "Precision": done.precision,
    }
    facts = {"Software": f"deconv {__version__}", "Task": done.task}
    facts |= {"Weights": done.weights[0], "WeightsSha256": done.weights[1]}
    return (*facts.items(), *((name, f"{value}") for name, value in settings.items() if value is not None))


def _describe(restorer: Restorer, decision: Decision | None, level: float | None, options: Options) -> str:
    if decision:
        return decision.reason
    if restorer.description.scale > 1:
        return f"x{restorer.description.scale}"
    if level is None:
        return "blind"
    return f"noise level {level:.1f} ({'estimated' if options.noise_level == 'auto' else 'given'})"


def _noise_levels(
    frame: Frame, decision: Decision | None, restorer: Restorer, options: Options
) -> tuple[float | None, float | None]:
    """Return what to tell the network about the noise in the pixels and in the black plate; None where there is none.

    The plates of a CMYK picture have noise of their own each, whatever was decided on all of them together.
    """
    told = options.noise_level
    if frame.black is not None:
        pixels, black = (restorer.find_noise_level(plate, told, frame.alpha) for plate in (frame.pixels, frame.black))
        return pixels, black
    if decision and restorer.task.condition_scale is not None:
        told = restorer.within_range(decision.noise_level)
    return restorer.find_noise_level(frame.pixels, told, frame.alpha), None


def _restore_layers(
    frame: Frame, restorer: Restorer, levels: tuple[float | None, float | None], options: Options
) -> tuple[Frame, Restored]:
    how: dict[str, Any] = {
        "alpha": frame.alpha,
        "strength": options.strength,
        "chroma": options.chroma,
        "tta": options.tta,
        "tile": options.tile,
    }
    of_pixels, of_black = ({**how, "noise_level": "auto" if level is None else level} for level in levels)
    result = restorer.restore(frame.pixels, **of_pixels)
    black = None if frame.black is None else restorer.restore(frame.black, **of_black).pixels
    return dataclasses.replace(frame, pixels=result.pixels, alpha=result.alpha, black=black), result


def _normalised(frame: Frame) -> tuple[Frame, float]:
    """Bring float samples far beyond 0..1 into that range; return what to multiply by again."""
    factor = excess(frame.pixels)
    return (frame, 1) if factor == 1 else (dataclasses.replace(frame, pixels=frame.pixels / np.float32(factor)), factor)


def _as_seen(frame: Frame) -> Frame:
    """Return what the eye sees of a page, for measuring: all inks at once, and nothing of what is fully transparent."""
    frame, _ = without_black(_normalised(frame)[0])
    if frame.alpha is None:
        return frame
    return dataclasses.replace(frame, pixels=without_hidden(frame.pixels, frame.alpha))


def _check_inside(frame: Frame, crop: Crop) -> None:
    height, width = frame.pixels.shape[:2]
    if crop.x + crop.width > width or crop.y + crop.height > height:
        raise DeconvError(f"the part to crop lies outside its {width} x {height} pixels")


def cut(frame: Frame, crop: Crop | None) -> Frame:
    """Return a part of a page; without one, the page.

    Raises
    ------
    DeconvError
        If the part lies outside the page.
    """
    if crop is None:
        return frame
    _check_inside(frame, crop)
    rows, columns = slice(crop.y, crop.y + crop.height), slice(crop.x, crop.x + crop.width)
    return off_the_map(frame.map_layers(lambda layer: layer[rows, columns].copy()))


def _around(frame: Frame, crop: Crop, restorer: Restorer) -> Crop:
    """Return a part of a page with so much around it that it is restored as in the whole."""
    _check_inside(frame, crop)
    architecture = restorer.description.architecture
    margin, multiple = 2 * architecture.influence_radius, architecture.size_multiple
    left, top = (max(0, start - margin) // multiple * multiple for start in (crop.x, crop.y))
    height, width = frame.pixels.shape[:2]
    right, bottom = min(width, crop.x + crop.width + margin), min(height, crop.y + crop.height + margin)
    return Crop(left, top, right - left, bottom - top)
