"""From folders of pictures to batches, each a function of seed and step alone."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deconv_cli.degradation.noise_estimation import estimate_noise_level
from deconv_cli.errors import DeconvError, NoPicturesError
from deconv_cli.images import excess, find_pictures, from_float, read_frame, read_size, to_float
from deconv_cli.network.container import available_memory, thread_limit
from deconv_cli.tasks import Task
from deconv_cli.training.augmentation import (
    UNTOUCHED_SHARE,
    blend,
    cut_patch,
    cutblur,
    dim,
    flatten,
    mirror_border,
    mixing_weight,
    mosaic,
    set_text,
    soften,
    to_gray,
)
from deconv_cli.training.config import TrainConfig
from deconv_cli.training.run_files import holds_results

CACHE_SHARE = 4
"""A quarter of the memory that there is holds decoded pictures; the rest of them is decoded again when drawn. The steps
need more than that, and take it later."""
MAX_VALIDATION = 16
LEAST_HELD_OUT = 32
"""Least side of a picture to hold out: enough for the protocol of every task."""
LOOKAHEAD = 4
"""Batches prepared ahead of the network, for each thread that prepares them."""
MOST_THREADS = 8
"""More would wait for each other: what is not NumPy's or Pillow's work is done by one at a time."""

log = logging.getLogger(__name__)


class PictureSet:
    """Pictures that are decoded when first drawn and kept while memory allows.

    Parameters
    ----------
    paths
        Files of clean pictures.
    smallest
        Pictures with a side below this are named and left out, like those that cannot be read.
    twins
        Clean file to degraded file, if the degradation is not made by code.
    held_out
        For validation, where every picture counts: all are decoded now, so that damaged ones are left out, too, and
        none stands in for another.

    Raises
    ------
    DeconvError
        If no usable picture is left.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        smallest: int,
        twins: Mapping[Path, Path] | None = None,
        *,
        held_out: bool = False,
    ) -> None:
        self.twins = twins
        self.paths: list[Path] = []
        self._levels: dict[tuple[int, bool], float] = {}
        self._cache: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes, self._budget = 0, available_memory() // CACHE_SHARE
        self._lock = threading.Lock()
        sizes: list[tuple[int, int]] = []
        for path in paths:
            try:
                size = self._usable_size(path, smallest)
                if held_out:
                    self._keep(len(self.paths), self._read(path))
            except DeconvError as error:
                log.warning("%s; left out%s", error, " of the validation" if held_out else "")
            else:
                self.paths.append(path)
                sizes.append(size)
        if not self.paths:
            raise DeconvError(f"no picture of at least {smallest} x {smallest} pixels can be read in the given folders")
        self.sizes = np.array(sizes, np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def fingerprint(self) -> str:
        """Hash of names and sizes, to notice that a resumed training would see other pictures."""
        names = [f"{path.name} {width} {height}" for path, (width, height) in zip(self.paths, self.sizes, strict=True)]
        names += [self.twins[path].name for path in self.paths] if self.twins else []
        return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return a picture as H x W x 3, uint8, or H x W x 6 with its degraded twin behind it.

        One that turns out damaged is replaced by the next in the set.
        """
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            try:
                picture = self._read(self.paths[at])
            except DeconvError as error:
                log.warning("%s; another picture takes its place", error)
                continue
            self._keep(index, picture)
            return picture
        raise DeconvError("every picture of the training set turned out damaged")

    def level(self, index: int, *, gray: bool) -> float:
        """Return the noise level of a picture's degraded twin: the estimate, as `restore` would make it.

        Of its luma if the patch was drawn as gray: noise that is independent in the three colours is weaker there.
        """
        if (index, gray) not in self._levels:
            twin = to_float(self[index][..., 3:])
            self._levels[index, gray] = estimate_noise_level(to_gray(twin)[..., 0] if gray else twin)
        return self._levels[index, gray]

    def _usable_size(self, path: Path, smallest: int) -> tuple[int, int]:
        width, height = read_size(path)
        if min(width, height) < smallest:
            raise DeconvError(f"{path}: {width} x {height} is smaller than {smallest} x {smallest} pixels")
        if self.twins and read_size(self.twins[path]) != (width, height):
            raise DeconvError(f"{self.twins[path]}: is not of the same size as {path}")
        return width, height

    def _read(self, path: Path) -> NDArray[np.uint8]:
        clean = read_rgb8(path)
        return np.dstack((clean, read_rgb8(self.twins[path]))) if self.twins else clean

    def _keep(self, index: int, picture: NDArray[np.uint8]) -> None:
        with self._lock:
            if index not in self._cache:
                self._cached_bytes += picture.nbytes
            self._cache[index] = picture
            while self._cached_bytes > self._budget and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes


def read_rgb8(path: Path) -> NDArray[np.uint8]:
    """Read a picture as H x W x 3, uint8; gray is repeated, alpha ignored, 16 bits and float rounded to 8 bits.

    Float samples far beyond 0..1 are brought into that range, as `restore` does.
    """
    # Not verified: a training decodes its pictures again and again, and a damaged one among many does little.
    pixels: NDArray[Any] = read_frame(path, verify=False).pixels
    if pixels.dtype != np.uint8:
        pixels = from_float(to_float(pixels) / np.float32(excess(pixels)), np.uint8)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def find_clean(folder: Path, validation: Path | None = None) -> list[Path]:
    """List the pictures in a folder, read recursively, without those of the validation folder inside it.

    The folders of trainings and studies inside it are left out, too: one in the folder of its own pictures would find
    its curves among them.
    """
    found = find_pictures(folder, recursive=True, exclude=validation)
    inside = {parent for path in found for parent in path.relative_to(folder).parents} - {Path()}
    runs = {parent for parent in inside if holds_results(folder / parent)}
    return [path for path in found if runs.isdisjoint(path.relative_to(folder).parents)]


def split_pictures(folders: Sequence[Path], validation: Path | None) -> tuple[list[Path], list[Path]]:
    """List the pictures to train on, and those to validate on, whose folder may lie inside the others.

    Without a validation folder a tenth of the pictures is held out, 1 to 16 of them, chosen by the hash of the path
    below its folder, so that the choice survives moving the folder and adding pictures. Those that are tiny or damaged
    are not among them where there are others. A picture that is found twice, since folders overlap, is one.

    Raises
    ------
    NoPicturesError
        If a folder holds no picture.
    DeconvError
        If there is only one and no validation folder.
    """
    found: list[tuple[str, Path]] = []
    for folder in folders:
        paths = find_clean(folder, validation)
        if not paths:
            raise NoPicturesError(f"{folder}: no picture was found in this folder")
        found += [(path.relative_to(folder).as_posix(), path) for path in paths]
    if validation is not None:
        held_out = find_clean(validation)
        if not held_out:
            raise NoPicturesError(f"{validation}: no picture to validate on was found in this folder")
        training = [path for _, path in found]
        warn_of_shared(training, held_out, validation)
        return training, held_out
    by_hash = sorted(found, key=lambda entry: path_hash(entry[0]))
    distinct = {os.path.realpath(path): path for _, path in by_hash}
    if len(distinct) == 1:
        raise DeconvError(f"{folders[0]}: one picture is not enough to train and validate on; add some or give --val")
    count = min(MAX_VALIDATION, max(1, len(distinct) // 10))
    fit = itertools.islice(filter(_can_be_scored, distinct.values()), count)
    held_out = sorted(fit) or sorted(itertools.islice(distinct.values(), count))
    held_out_too = set(map(os.path.realpath, held_out))
    return [path for _, path in found if os.path.realpath(path) not in held_out_too], held_out


def warn_of_shared(training: Iterable[Path], held_out: Iterable[Path], validation: Path) -> None:
    """Warn of pictures to validate on that are trained on, too."""
    if shared := len(set(map(os.path.realpath, training)) & set(map(os.path.realpath, held_out))):
        log.warning(
            "%s: %d of the pictures to validate on are trained on, too; the scores do not tell how well others do",
            validation,
            shared,
        )


def path_hash(path: str) -> bytes:
    """Return a hash by which pictures are held out, of a path below its folder, in whatever encoding."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()


def _can_be_scored(path: Path) -> bool:
    try:
        if min(read_size(path)) < LEAST_HELD_OUT:
            return False
        read_rgb8(path)  # The header says nothing of the data behind it.
    except DeconvError:
        return False
    return True


def read_held_out(paths: Iterable[Path], smallest: int, twins: Mapping[Path, Path] | None = None) -> PictureSet:
    """Read the pictures to validate on: each counts once, or not at all if it is damaged; see `PictureSet`.

    Raises
    ------
    DeconvError
        If no usable picture is left.
    """
    try:
        return PictureSet(paths, smallest, twins, held_out=True)
    except DeconvError as error:
        raise DeconvError(f"to validate on, {error}; give others with --val") from error


def find_twins(folders: Sequence[Path], validation: Path | None, degraded: Path) -> dict[Path, Path]:
    """Match every clean picture with its degraded twin: the same path below its folder, whatever the suffix.

    Raises
    ------
    DeconvError
        If a picture has no twin, or several, or two pictures the same.
    """
    by_stem: dict[Path, list[Path]] = {}
    for path in find_pictures(degraded, recursive=True):
        by_stem.setdefault(path.relative_to(degraded).with_suffix(""), []).append(path)
    twins: dict[Path, Path] = {}
    owners: dict[Path, Path] = {}
    for folder in (*folders, *filter(None, (validation,))):
        for path in find_clean(folder, validation):
            stem = path.relative_to(folder).with_suffix("")
            found = by_stem.get(stem, [])
            if len(found) != 1:
                raise DeconvError(f"{path}: has {len(found)} twins named {stem} in {degraded}; it must have one")
            twins[path] = twin = found[0]
            if (owner := owners.setdefault(twin, path)) != path:
                raise DeconvError(f"{twin}: would be the twin of both {owner} and {path}; rename one of these")
    return twins


@dataclass(frozen=True)
class Batch:
    """Patches of one step.

    Attributes
    ----------
    degraded, clean
        N x S x S x C, float32, nominally 0..1; S of `degraded` is smaller by the scale, C is the network's.
    levels
        N, float32: degradation level of each patch in the task's unit.
    """

    degraded: NDArray[np.float32]
    clean: NDArray[np.float32]
    levels: NDArray[np.float32]


class Pictures(Protocol):
    """What batches are drawn from: a `PictureSet`, or crops in memory."""

    sizes: NDArray[np.int64]
    twins: Mapping[Path, Path] | None

    def __len__(self) -> int:
        """Return the number of pictures."""

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return a picture; see `PictureSet`."""

    def level(self, index: int, *, gray: bool) -> float:
        """Return the level of a degraded twin; see `PictureSet`."""


def draw_batch(pictures: Pictures, config: TrainConfig, task: Task, step: int) -> Batch:
    """Draw the patches of a step: random place, symmetry, share of gray, and degradation level.

    A picture that has a degraded twin gets no other degradation; its level is the estimate.

    Every pixel of the set is equally likely to be drawn, whatever the size of its picture.
    """
    rng, channels = np.random.default_rng([config.seed, step]), config.architecture.channels
    areas = pictures.sizes.prod(axis=1).astype(np.float64)
    low, high = config.level_range
    degraded, clean, levels = [], [], []
    chance = areas / areas.sum()
    for index in rng.choice(len(pictures), config.batch, p=chance):
        target, twin = draw_patch(pictures[int(index)], config, rng)
        if "mixup" in config.augment and (weight := mixing_weight(rng)) < 1:
            other, _ = draw_patch(pictures[int(rng.choice(len(pictures), p=chance))], config, rng)
            target = blend(target, other, weight)
        untouched = False
        if "flat" in config.augment:
            photograph, target = target, flatten(target, rng)
            untouched = target is not photograph and config.scale == 1 and rng.random() < UNTOUCHED_SHARE
        if "text" in config.augment and not untouched:
            target = set_text(target, rng, config.scale)
        if twin is None:
            level = low + (high - low) * rng.random() ** config.level_power
        else:
            level = min(max(pictures.level(int(index), gray=twin.shape[2] == 1), low), high)
        if untouched:
            source = target
        elif twin is None:
            source = task.degrade_variously(target, level, rng)
        else:
            source = twin
        if "cutblur" in config.augment:
            source = cutblur(source, target, rng)
        if "border" in config.augment:
            source, target = mirror_border(source, target, rng)
        degraded.append(np.broadcast_to(source, (*source.shape[:2], channels)))
        clean.append(np.broadcast_to(target, (*target.shape[:2], channels)))
        levels.append(level)
    return Batch(np.stack(degraded), np.stack(clean), np.array(levels, np.float32))


def draw_patch(
    picture: NDArray[np.uint8], config: TrainConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Cut and augment one clean patch and its degraded twin, if there is one.

    Each is S x S x 3, or S x S x 1 if they were drawn as gray; float32, 0..1.
    """
    scaled = to_float(cut_patch(picture, config.patch, config.augment, rng))
    if "brightness" in config.augment:
        scaled = dim(scaled, rng)
    gray = rng.random() < config.gray_share
    parts = [to_gray(part) if gray else part for part in np.split(scaled, scaled.shape[2] // 3, axis=2)]
    patch, twin = parts[0], parts[1] if len(parts) == 2 else None
    if "soften" in config.augment:  # Neither this nor the next suits twins.
        patch = soften(patch, rng)
    if "mosaic" in config.augment:
        patch = mosaic(patch, rng)
    return patch, twin


def prefetch(
    pictures: PictureSet, config: TrainConfig, task: Task, steps: Iterable[int], device: str
) -> Iterator[tuple[int, Batch]]:
    """Yield step and batch in order, drawn ahead on threads of their own, so that the network never waits.

    On a processor one thread is enough, which takes little from the network. A GPU is up to a hundred times as fast,
    and leaves the processor to the others.
    """
    cores = thread_limit() or os.cpu_count() or 1
    threads = 1 if device == "cpu" else max(1, min(MOST_THREADS, cores - 1))
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        waiting: OrderedDict[int, Future[Batch]] = OrderedDict()
        try:
            for step in steps:
                waiting[step] = pool.submit(draw_batch, pictures, config, task, step)
                if len(waiting) > LOOKAHEAD * threads:
                    ready, future = waiting.popitem(last=False)
                    yield ready, future.result()
            while waiting:
                ready, future = waiting.popitem(last=False)
                yield ready, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
