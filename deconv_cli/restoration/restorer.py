"""Array to array: prepare, tile, run, blend."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deconv_cli.degradation.blocking import find_blocks
from deconv_cli.degradation.jpeg import BLOCK
from deconv_cli.degradation.noise_estimation import estimate_noise_level
from deconv_cli.errors import DeconvError, UsageError, out_of_memory
from deconv_cli.images import bleed_alpha, from_float, is_gray, to_float, upscale, without_hidden
from deconv_cli.network.bundled import bundled_weights, find_weights, load_by_name
from deconv_cli.network.description import Description
from deconv_cli.network.device import ITEM_SIZES, choose_device, choose_precision, has_native_bf16
from deconv_cli.network.engines import ENGINES, find_engines
from deconv_cli.restoration import blending, clipping, memory
from deconv_cli.restoration.blending import blend
from deconv_cli.restoration.clipping import clipping_bias
from deconv_cli.restoration.running import Runner, self_ensemble
from deconv_cli.restoration.tiling import Span, even_core, spans
from deconv_cli.tasks import TASKS, Task, find_task

Pixels = NDArray[Any]
"""A picture as `check_image` accepts it: uint8, uint16 or float32."""

MIRRORED = 16
"""Pixels at least that the picture goes on for, mirrored, beyond its border: the zeros that a convolution takes there
instead would be an edge, and discolour what lies beside it. Of a network that reaches far, a quarter of the influence
radius: what lies further hardly counts."""

FAST = "-int8"
"""What the names of the bundled weights in int8 end in."""

FAR_BEYOND = 16
"""Float samples above this are not of a picture in 0..1, however noisy."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """A restored picture and what was done to it.

    Attributes
    ----------
    pixels
        The picture, in dtype and shape of the input, the sides times the network's scale.
    noise_level
        The noise level that the network was given, on the 0..255 scale; None for a blind one.
    precision
        Number format the network ran in: ``fp32``, ``bf16`` or ``fp16``.
    engine
        Name of the engine that ran it.
    fallback
        Which engines were to run it and why they did not, or None.
    alpha
        The transparency given beside the picture, enlarged by bicubic interpolation with it; or None.
    """

    pixels: Pixels
    noise_level: float | None
    precision: str
    engine: str
    fallback: str | None = None
    alpha: Pixels | None = None


@dataclass(frozen=True)
class _Pass:
    """How every tile of a picture is restored; the other fields are those of `Restorer.restore`.

    Attributes
    ----------
    clipped
        Whether the noise was clipped, and the network was not trained on that.
    before
        Rows and columns that the first tile starts before the picture.
    """

    noise_level: float | None
    clipped: bool
    before: tuple[int, int]
    strength: float
    chroma: float
    precision: str
    tta: bool


class Restorer:
    """A model that keeps its weights for many calls.

    Parameters
    ----------
    weights
        Name of bundled weights, or a file that ``deconv train`` wrote.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    precision
        ``fp32``, ``bf16``, ``fp16``, or ``auto``: bfloat16 for 8-bit pictures where the processor is faster in it,
        else float32.
    engine
        What runs the network: ``openvino``, ``onnxruntime``, ``torch``, or ``auto``: the fastest one that works.

    Raises
    ------
    DeconvError
        If weights, device, precision or engine cannot be had.

    Examples
    --------
    >>> from skimage.data import chelsea
    >>> restorer = Restorer("denoise")
    >>> restorer.restore(chelsea()[:64, :64], noise_level=10).pixels.shape
    (64, 64, 3)
    """

    def __init__(
        self,
        weights: str | Path = "denoise",
        *,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
    ) -> None:
        self.weights = load_by_name(weights)
        self.description = self.weights.description
        if self.description.classes:
            raise UsageError(f"{weights}: these weights tell classes apart; use them with deconv classify")
        self.task = _task_of(weights, self.description)
        self.device, self.precision = check_engine(engine, device, precision), precision
        if precision == "bf16" and self.device == "cpu" and engine != "torch" and not has_native_bf16():
            # OpenVINO would, and not say so. torch emulates it, several times slower: only if asked for by name.
            log.warning("this processor does not compute in bfloat16; %s runs in float32", self.description.name)
            self.precision = "fp32"
        self.runner = Runner(self.weights, self.device, engine)

    def restore(
        self,
        image: Pixels,
        *,
        alpha: Pixels | None = None,
        noise_level: float | Literal["auto"] = "auto",
        strength: float = 1.0,
        chroma: float | None = None,
        tta: bool = False,
        tile: int | Literal["auto", "off"] = "auto",
    ) -> Restored:
        """Restore one picture.

        Parameters
        ----------
        image
            H x W, H x W x 3 or H x W x 4 (alpha last); uint8, uint16, or float32 nominally in 0..1.
            Float values may lie outside and are neither clipped nor rounded, in or out. Noise in integers has been
            clipped, which moves its mean beside black and white: ``denoise`` moves it back. Three equal channels stay
            equal.
        alpha
            H x W of the same dtype, 0 for transparent, if it is not the last channel. What is fully transparent keeps
            its pixels, unless they are enlarged, and does not show in its surroundings.
        noise_level
            Standard deviation of the noise on the 0..255 scale; ``auto`` estimates it. A blind network is not told.
        strength
            1 is the network's result, 0 the input (enlarged by bicubic interpolation); between them a blend that gives
            back texture rather than noise (see `deconv_cli.restoration.blending.blend`).
        chroma
            The strength of what changes the colour but not the luma; the same by default.
        tta
            Average over the eight symmetries of the square ("self-ensemble", Lim et al. 2017, arXiv 1707.02921,
            section 3.4): eight times the time for a little quality.
        tile
            Side of a tile's core in pixels, rounded up to the network's stride; ``auto`` goes by the free memory,
            ``off`` runs the whole picture at once. Tiled and untiled results are equal up to the rounding of the number
            format.

        Raises
        ------
        DeconvError
            If memory does not suffice even for small tiles, or the network's output is not finite.
        UsageError
            If the picture or an option is not as described.
        """
        check_image(image)
        if alpha is not None and alpha.shape != image.shape[:2]:
            raise UsageError(f"alpha of shape {alpha.shape} does not go with a picture of shape {image.shape}")
        chroma = strength if chroma is None else chroma
        for share in (strength, chroma):
            if not isinstance(share, int | float | np.number) or not 0 <= share <= 1:
                raise UsageError(f"strength must be from 0 (the input) to 1 (full), not {share}")
        options: dict[str, Any] = {
            "noise_level": noise_level,
            "strength": strength,
            "chroma": chroma,
            "tta": tta,
            "tile": tile,
        }
        if image.ndim == 3 and image.shape[2] == 4:
            inner = self.restore(image[..., :3], alpha=image[..., 3], **options)
            assert inner.alpha is not None
            return dataclasses.replace(inner, pixels=np.dstack((inner.pixels, inner.alpha)))
        if image.ndim == 3 and is_gray(image):
            inner = self.restore(np.ascontiguousarray(image[..., 0]), alpha=alpha, **options)
            return dataclasses.replace(inner, pixels=np.repeat(inner.pixels[..., None], 3, axis=2))
        level = self.find_noise_level(image, noise_level, alpha)
        clipped = bool(level) and image.dtype != np.float32 and self._knows_no_clipping
        if image.dtype == np.float32 and (largest := image.max()) > FAR_BEYOND:
            log.warning("values up to %g in a float picture, which is nominally 0..1: divide it by its peak", largest)
        visible = image if alpha is None else bleed_alpha(image, alpha)
        before, precision = self._before(visible), self.precision_for(image.dtype)
        how = _Pass(level, clipped, before, strength, chroma, precision, tta)
        height, width = (side + more for side, more in zip(image.shape[:2], before, strict=True))
        pixels = self._run(visible, how, self._core(tile, height, width, precision))
        scale = self.description.scale
        if alpha is not None and scale == 1:
            hidden = alpha == 0
            pixels[hidden] = image[hidden]
        elif alpha is not None:
            alpha = from_float(np.clip(upscale(to_float(alpha), scale), 0, 1), alpha.dtype)
        engine, precision = self.runner.ran
        return Restored(pixels, level, precision, engine, self.runner.fallback, alpha)

    def find_noise_level(
        self, image: Pixels, noise_level: float | Literal["auto"] = "auto", alpha: Pixels | None = None
    ) -> float | None:
        """Return the level to tell the network: the one given, or the estimate, within the range of the training.

        A blind network is told nothing: None. What is fully transparent is not looked at.

        Raises
        ------
        UsageError
            If a given level is outside the range, or the network is blind.
        """
        if noise_level != "auto":
            return self.require_level(noise_level)
        if self.task.condition_scale is None:
            return None
        return self.within_range(estimate_noise_level(image if alpha is None else without_hidden(image, alpha)))

    def require_level(self, noise_level: float) -> float:
        """Return a level that is given, refusing one that the network cannot be told.

        Raises
        ------
        UsageError
            If it is outside the range, or the network is blind.
        """
        if self.task.condition_scale is None:
            raise UsageError(f"the weights '{self.description.name}' are blind: leave the noise level out")
        if not isinstance(noise_level, int | float | np.number):
            raise UsageError(f"the noise level must be 'auto' or a number on the 0..255 scale, not {noise_level!r}")
        low, high = self.description.level_range
        if not low <= noise_level <= high:
            raise UsageError(
                f"noise level {noise_level:g} is outside the range {low:g} to {high:g} of the weights "
                f"'{self.description.name}'"
            )
        return float(noise_level)

    def require(self, task: str | None, scale: int | None = None) -> None:
        """Refuse weights that are for another task or scale than these, where they are given.

        Raises
        ------
        UsageError
            If they are.
        """
        if task not in (None, self.task.name):
            raise UsageError(f"the weights '{self.description.name}' are for {self.task.name}, not for {task}")
        if scale not in (None, self.description.scale):
            raise UsageError(
                f"the weights '{self.description.name}' are for scale {self.description.scale}, not for {scale}"
            )

    def within_range(self, estimate: float) -> float:
        """Return the nearest level that the weights were trained for."""
        low, high = self.description.level_range
        return min(max(estimate, low), high)

    def precision_for(self, image_dtype: np.dtype[Any]) -> str:
        """Return the number format that the network runs in for pictures of this type."""
        engine = ENGINES.get(self.runner.engine)
        if self.precision == "auto" and (image_dtype != np.uint8 or (engine and "bf16" not in engine.precisions)):
            return "fp32"
        return choose_precision(self.precision, self.device)

    @property
    def _knows_no_clipping(self) -> bool:
        """Whether the network was trained on noise beyond black and white, which no file of integers holds.

        One that was trained on pairs of files has learnt by itself what clipping does.
        """
        return self.task.name == "denoise" and not self.weights.recipe.get("paired")

    def _before(self, image: Pixels) -> tuple[int, int]:
        """Return the rows and columns by which tiles have to start earlier for the blocks of JPEG to start with them.

        So they did in most of the training; of a picture that was cropped since they may lie anywhere.
        """
        found = find_blocks(image) if self.task.compressed else None
        row, column = (-start % BLOCK % self.description.architecture.size_multiple for start in found or (0, 0))
        return row, column

    def _core(self, tile: int | Literal["auto", "off"], height: int, width: int, precision: str) -> tuple[int, int]:
        """Return height and width of the tiles' cores."""
        architecture = self.description.architecture
        if tile == "auto":
            free = memory.available_on(self.device)
            largest = memory.tile_side(architecture, ITEM_SIZES[precision], free) // architecture.size_multiple
            largest, multiple = max(1, largest) * architecture.size_multiple, architecture.size_multiple
            return even_core(height, largest, multiple), even_core(width, largest, multiple)
        if tile == "off":
            return architecture.round_up(height), architecture.round_up(width)
        if not isinstance(tile, int | np.integer) or tile < 1:
            raise UsageError(f"the tile must be 'auto', 'off' or a positive number of pixels, not {tile}")
        return architecture.round_up(tile), architecture.round_up(tile)

    def _run(self, image: Pixels, how: _Pass, core: tuple[int, int]) -> Pixels:
        """Restore all tiles, with smaller ones if memory runs out."""
        scale = self.description.scale
        height, width = image.shape[:2]
        count = math.ceil((height + how.before[0]) / core[0]) * math.ceil((width + how.before[1]) / core[1])
        log.debug("%d x %d pixels in tiles of %d x %d: %d", width, height, core[1], core[0], count)
        output = np.empty((height * scale, width * scale, *image.shape[2:]), image.dtype)
        while True:
            try:
                self._fill(output, image, how, core)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                smaller = self.description.architecture.round_up(max(core) // 2)
                if smaller < memory.SMALLEST_TILE:
                    raise DeconvError("memory does not suffice even for small tiles; close other programs") from error
                core = smaller, smaller
            else:
                return output
            log.warning("out of memory; going on with tiles of %d pixels", core[0])

    def _fill(self, output: Pixels, image: Pixels, how: _Pass, core: tuple[int, int]) -> None:
        scale, (height, width) = self.description.scale, image.shape[:2]
        for rows, columns in self._tiles((height, width), core, how):
            patch = image[rows.inside(height), columns.inside(width)]
            beyond = [rows.beyond(height), columns.beyond(width), (0, 0)][: image.ndim]
            restored = self._run_tile(np.pad(patch, beyond, mode="symmetric"), how)
            inner = rows.core_within(scale), columns.core_within(scale)
            output[rows.core(scale), columns.core(scale)] = restored[inner]

    def _tiles(self, shape: tuple[int, ...], core: tuple[int, int], how: _Pass) -> Iterator[tuple[Span, Span]]:
        architecture = self.description.architecture
        overlap, multiple = architecture.influence_radius, architecture.size_multiple
        blended = min(how.strength, how.chroma) < 1
        around = blended * (blending.WINDOW // 2) + how.clipped * (clipping.WINDOW // 2)
        overlap = architecture.round_up(overlap + around)
        margin = architecture.round_up(max(MIRRORED, architecture.influence_radius // 4))
        for rows in spans(shape[0], core[0], overlap, multiple, margin=margin, before=how.before[0]):
            for columns in spans(shape[1], core[1], overlap, multiple, margin=margin, before=how.before[1]):
                yield rows, columns

    def _run_tile(self, patch: Pixels, how: _Pass) -> Pixels:
        """Restore one tile with its context; its sides are multiples of the network's stride."""
        given, scale = to_float(patch), self.description.scale
        run = functools.partial(self.runner.run, precision=how.precision)
        run = functools.partial(self_ensemble, run) if how.tta else run
        one_by_one = given.ndim == 3 and self.description.architecture.channels == 1
        parts = list(given.transpose(2, 0, 1)) if one_by_one else [given]
        residuals = [run(self._stack(part, how.noise_level))[0] for part in parts]
        residual = np.concatenate(residuals) if one_by_one else residuals[0]
        added = residual.mean(0) if patch.ndim == 2 else residual.transpose(1, 2, 0)
        level = how.noise_level if scale == 1 else None
        if how.clipped and level:
            added = added - clipping_bias(given + added, given, level)
        blended = blend(upscale(given, scale), added, strength=how.strength, chroma=how.chroma, noise_level=level)
        return from_float(blended, patch.dtype)

    def _stack(self, image: NDArray[np.float32], noise_level: float | None) -> NDArray[np.float32]:
        """Return what the network sees: its channels, equal ones of a gray picture, and what it is told."""
        architecture = self.description.architecture
        planes = architecture.channels + architecture.condition_planes
        stacked = np.empty((1, planes, *image.shape[:2]), np.float32)
        stacked[0, : architecture.channels] = image if image.ndim == 2 else image.transpose(2, 0, 1)
        if noise_level is not None:
            stacked[0, architecture.channels :] = self.task.condition(noise_level)
        return stacked


def _task_of(weights: str | Path, description: Description) -> Task:
    """Return the task of weights; a network of another shape would be given what it does not know, or not be told."""
    task, planes, scale = TASKS.get(description.task), description.architecture.condition_planes, description.scale
    if task is None or planes != task.condition_planes or scale not in task.scales:
        raise UsageError(
            f"{weights}: not a network for a task that this version knows: it has {planes} condition planes and"
            f" scale {scale}, for '{description.task}'"
        )
    return task


def check_engine(engine: str, device: str, precision: str) -> str:
    """Return the device that an engine is to run on: ``cpu``, ``cuda`` or ``mps``.

    Raises
    ------
    UsageError
        If engine, device or precision are unknown, not there, or do not go together.
    """
    own = ENGINES[engine].devices if engine in ENGINES else ()
    chosen = own[0] if device == "auto" and len(own) == 1 else choose_device(device)
    find_engines(engine, chosen, "fp32" if precision == "auto" else choose_precision(precision, chosen))
    if engine in ENGINES:
        ENGINES[engine].require()
    return chosen


def check_image(image: Pixels) -> None:
    """Refuse what is not a picture.

    Raises
    ------
    UsageError
        If shape or dtype is wrong, or a value is not finite.
    """
    if not isinstance(image, np.ndarray):
        raise UsageError(f"a picture is a NumPy array, not {type(image).__name__}; see numpy.asarray")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)) or 0 in image.shape:
        raise UsageError(f"a picture is H x W, H x W x 3 or H x W x 4, not {' x '.join(map(str, image.shape))}")
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise UsageError(f"a picture is uint8, uint16 or float32, not {image.dtype}")
    if image.dtype == np.float32 and not np.isfinite(image).all():
        raise UsageError("the picture holds values that are not finite")


class Restorers:
    """The networks of a batch: the one given, or the bundled one of each task, loaded when first needed.

    Parameters
    ----------
    weights
        Name or file of the only weights to use, or None.
    device, precision, engine
        See `Restorer`.
    fast
        Use the bundled weights in int8 of a task, where there are some.

    Raises
    ------
    UsageError
        If `fast` is asked for beside weights, or device, precision or engine cannot be had.
    """

    def __init__(
        self, weights: str | None, device: str, precision: str, engine: str = "auto", *, fast: bool = False
    ) -> None:
        if weights and fast:
            raise UsageError("--fast is a choice among the bundled weights: leave it out with --weights")
        self.fast, self._told = fast, set[str]()
        self._loading = threading.Lock()
        self.device = check_engine(engine, device, precision)
        self.precision, self.engine = precision, engine
        self.only = Restorer(weights, device=device, precision=precision, engine=engine) if weights else None
        self.bundled = bundled_weights()

    def of(self, task: str, scale: int | None = None, *, to_measure: bool = False) -> Restorer:
        """Return the network for a task, and for a scale if the task has several.

        Parameters
        ----------
        task, scale
            What to undo.
        to_measure
            What it restores is looked at only: nobody needs to know that ``--fast`` does not make it faster.

        Raises
        ------
        UsageError
            If the weights given are for another task or scale, or none are bundled for these.
        """
        with self._loading:
            restorer = self.only or cached_restorer(
                self._bundled_for(find_task(task), scale, tell=not to_measure), self.device, self.precision, self.engine
            )
        restorer.require(task, scale)
        return restorer

    def prepare(self) -> None:
        """Import what is going to run the networks, for a time when there is nothing else to do."""
        with contextlib.suppress(Exception):  # Whatever it is, running the network tells, or goes on with another.
            find_engines(self.engine, self.device, "fp32")[0].require()

    def _bundled_for(self, task: Task, scale: int | None, *, tell: bool) -> str:
        if not self.fast:
            return own_weights(task, scale)
        name = task.weights_name(scale)
        if name + FAST in self.bundled:
            return name + FAST
        if tell and name not in self._told:
            log.warning("no weights in int8 are bundled for %s: the full ones restore it, not --fast", name)
            self._told.add(name)
        return own_weights(task, scale)

    def scale_for(self, task: str, scale: int | None = None) -> int:
        """Return output side over input side, without loading a network for it; the task ``auto`` never enlarges."""
        if self.only:
            return self.only.description.scale
        return 1 if task == "auto" else find_task(task).find_scale(scale)

    @property
    def sha256(self) -> str:
        """The hash of the weights given, or of all bundled ones, and what else was chosen that changes results."""
        hashes = [self.only.weights.sha256] if self.only else [entry.sha256 for entry in self.bundled.values()]
        choices = {"fast": self.fast, self.precision: self.precision != "auto"}
        return " ".join([*hashes, *(name for name, chosen in choices.items() if chosen)])

    @property
    def tasks(self) -> set[str]:
        """The tasks that there are weights for."""
        return {self.only.task.name} if self.only else TASKS.keys() & self.bundled.keys()


def own_weights(task: Task, scale: int | None = None, *, fast: bool = False) -> str:
    """Return the name of the weights that are bundled for a task; `fast` those in int8.

    Raises
    ------
    UsageError
        If there are none; the message says how to train some.
    """
    name = task.weights_name(scale) + (FAST if fast else "")
    if name not in bundled_weights():
        if fast:
            raise UsageError(
                f"no weights {name} are bundled: leave fast out, or make some by deconv compress"
                f" {name.removesuffix(FAST)} FOLDER --quantize int8, and give them as weights"
            )
        option = f"--task {task.name}" if task.scales == (1,) else f"--scale {task.find_scale(scale)}"
        raise UsageError(
            f"no weights are bundled for {name}: train some by deconv train FOLDER {option}, and give them by --weights"
        )
    return name


@functools.lru_cache(maxsize=4)
def cached_restorer(
    weights: str | Path, device: str, precision: str, engine: str, version: tuple[int, int] | None = None
) -> Restorer:
    """Return a `Restorer`, the same one for the same arguments; `version` changes once a file is rewritten."""
    del version
    return Restorer(weights, device=device, precision=precision, engine=engine)


def _version(file: Path) -> tuple[int, int] | None:
    """Return what changes once a file is rewritten; None if it is not there, which reading it tells."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def restore(
    image: Pixels,
    *,
    task: str | None = None,
    noise_level: float | Literal["auto"] = "auto",
    scale: int | None = None,
    strength: float = 1.0,
    weights: str | Path | None = None,
    tta: bool = False,
    tile: int | Literal["auto", "off"] = "auto",
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    fast: bool = False,
) -> Pixels:
    """Restore a picture; the weights are loaded at the first call and kept until their file changes.

    Parameters
    ----------
    image
        H x W, H x W x 3 or H x W x 4 (alpha last); uint8, uint16, or float32 nominally in 0..1. Float values may lie
        outside, as noise added in float gives them.
    task
        Name of the task; its bundled weights are used unless `weights` names others. By default what `weights` are for,
        ``sr`` if a scale is given and no noise level, and ``denoise`` otherwise.
    scale
        For ``sr``: 2 (the default), 3 or 4. Beside another task, whose result is enlarged then; not beside `weights`.
    noise_level, strength, tta, tile
        See `Restorer.restore`.
    weights, device, precision, engine
        See `Restorer`.
    fast
        Use the bundled weights in int8; not beside `weights`.

    Returns
    -------
    ndarray
        The restored picture, in the dtype and shape of `image`, the sides times the scale; float is neither clipped nor
        rounded.

    Raises
    ------
    UsageError
        If the picture or an option is not as described, or the weights are for another task or scale.
    DeconvError
        If the restoration fails.

    Examples
    --------
    >>> from skimage.data import camera
    >>> out = restore(camera()[:96, :96], task="denoise", noise_level=15)
    >>> out.shape, out.dtype
    ((96, 96), dtype('uint8'))
    """
    wanted = find_task(task or ("sr" if scale and noise_level == "auto" else "denoise"))
    if weights and fast:
        raise UsageError("fast is a choice among the bundled weights: leave it out with weights")
    if scale not in (None, 1) and wanted.scales == (1,) and not weights:
        own_weights(find_task("sr"), scale)  # Which fails now rather than after the first half of the work.
        how: dict[str, Any] = {"tta": tta, "tile": tile, "device": device, "precision": precision, "engine": engine}
        restored = restore(image, task=wanted.name, noise_level=noise_level, strength=strength, fast=fast, **how)
        return restore(restored, task="sr", scale=scale, **how)
    weights = weights or own_weights(wanted, scale, fast=fast)
    restorer = cached_restorer(weights, device, precision, engine, _version(find_weights(weights)))
    restorer.require(task, scale)
    return restorer.restore(image, noise_level=noise_level, strength=strength, tta=tta, tile=tile).pixels
