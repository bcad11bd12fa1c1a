"""How fast the engines are, beside one another and beside what the processor can do."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deconv_cli.errors import DeconvError
from deconv_cli.network.description import KERNEL, Architecture, Description
from deconv_cli.network.device import has_fast_bf16, processor
from deconv_cli.network.engines import ENGINES
from deconv_cli.network.weights import Weights
from deconv_cli.restoration.restorer import Restorer

SIZE = (768, 1024)
"""Height and width of the picture that engines are compared on."""
LARGE = (1224, 1632)
"""The same of the one that shows what is beside the engine: 2 megapixels."""
MEGAPIXELS = (0.25, 1.0, 4.0)
BATCHES, BATCH_SIDE = (1, 2, 4), 256
CONVOLUTIONS = Architecture(widths=(64,), blocks=(4,))
"""Convolutions of 64 channels at full resolution, the textbook's load: what they reach is the processor's rate."""


@dataclass(frozen=True)
class Candidate:
    """Something to time, and the megapixels that it does in a run."""

    name: str
    run: Callable[[], object]
    megapixels: float


@dataclass(frozen=True)
class Row:
    """One network in one engine.

    Attributes
    ----------
    weights, engine, precision
        What ran.
    megapixels_per_second
        From array to array, the noise level given.
    ratio
        Times as fast as torch in the same precision with the first weights of that task and scale; None without torch.
    gigaflops
        What the network computes in a second, two operations a multiply-add, on the picture and its mirrored border.
    share
        Of the processor's rate for plain convolutions in that precision, the best of all engines.
    """

    weights: str
    engine: str
    precision: str
    megapixels_per_second: float
    ratio: float | None
    gigaflops: float
    share: float


@dataclass(frozen=True)
class Speed:
    """All that `measure_speed` measures.

    Attributes
    ----------
    processor
        What ran it, and its number of cores.
    rows
        Engines by precisions.
    engine_share
        Of the time from array to array for a result of 2 megapixels, what the default engine takes.
    sizes
        By megapixels of the result, each in a fresh process: seconds from array to array, and the process's peak
        memory in bytes (None where the system does not tell).
    threads
        By number of threads, each in a fresh process: megapixels a second.
    batches
        By number of tiles of 256 x 256 at once: megapixels a second.
    """

    processor: str
    rows: tuple[Row, ...]
    engine_share: float
    sizes: dict[float, tuple[float, int | None]]
    threads: dict[int, float]
    batches: dict[int, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **dataclasses.asdict(self),
            "sizes": [{"megapixels": m, "seconds": s, "peak_bytes": b} for m, (s, b) in self.sizes.items()],
        }


Progress = Callable[[Sequence[Any], str], Iterable[Any]]


def _without_progress(items: Sequence[Any], _unit: str) -> Iterable[Any]:
    return items


def time_in_turn(
    candidates: Sequence[Candidate],
    rounds: int,
    progress: Progress = _without_progress,
) -> dict[str, float]:
    """Return the median megapixels a second of each, after a warm-up round; machines drift, so they take turns."""
    seconds: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for _ in progress(range(rounds + 1), "round"):
        for candidate in candidates:
            began = time.perf_counter()
            candidate.run()
            seconds[candidate.name].append(time.perf_counter() - began)
    return {
        candidate.name: candidate.megapixels / statistics.median(seconds[candidate.name][1:])
        for candidate in candidates
    }


def convolution(engine: str, device: str, precision: str) -> Candidate:
    """Make a candidate of plain convolutions of 64 channels, in half of the picture's size."""
    weights = _random_weights(CONVOLUTIONS)
    loaded = ENGINES[engine].load(weights, device, precision)
    x = np.random.default_rng(0).random((1, 4, SIZE[0] // 2, SIZE[1]), dtype=np.float32)
    return Candidate(f"convolutions, {engine}, {precision}", lambda: loaded.run(x), x[0, 0].size / 1e6)


def measure_speed(
    weights: Sequence[str],
    *,
    device: str = "auto",
    rounds: int = 3,
    progress: Progress = _without_progress,
) -> Speed:
    """Time the engines that are installed, in one process, in turn, on random pictures.

    Parameters
    ----------
    weights
        Names or files of weights; the first ones are what size, threads and batches are measured with.
    device
        See `deconv_cli.restoration.restorer.Restorer`.
    rounds
        How often each is run; the median counts.
    progress
        Wraps what is gone through, given what one of it is called, to show progress.

    Raises
    ------
    DeconvError
        If weights or device cannot be had.
    """
    first = Restorer(weights[0], device=device)
    picture = random_picture(*SIZE)
    candidates, restorers = [], {}
    computed: dict[str, float] = {}
    pairs = [(engine, precision) for engine in _installed(first) for precision in _precisions(engine, first.device)]
    for name in weights:
        for engine, precision in pairs:
            restorer = Restorer(name, device=first.device, precision=precision, engine=engine)
            restorers[name, engine, precision] = restorer
            computed[name] = computed.get(name) or _computed_over_own(restorer, picture)
            candidates.append(restoring(f"{name}, {engine}, {precision}", restorer, picture))
    plain = [convolution(engine, first.device, precision) for engine, precision in pairs]
    speed = time_in_turn([*candidates, *plain], rounds, progress)
    rates = {
        precision: max(
            _gigaflops(speed[f"convolutions, {engine}, {each}"]) for engine, each in pairs if each == precision
        )
        for precision in {each for _, each in pairs}
    }
    fresh = functools.partial(_in_fresh_process, weights[0], first.device, rounds)
    rows = []
    first_of_kind: dict[tuple[str, int], str] = {}
    for (name, engine, precision), restorer in restorers.items():
        description = restorer.description
        rate = speed[f"{name}, {engine}, {precision}"]
        beside = first_of_kind.setdefault((description.task, description.scale), name)
        reference = speed.get(f"{beside}, torch, {precision}")
        gigaflops = 2 * rate * computed[name] * description.architecture.multiply_adds / 1e3
        ratio = rate / reference if reference else None
        rows.append(Row(Path(name).stem, engine, precision, rate, ratio, gigaflops, gigaflops / rates[precision]))
    return Speed(
        f"{processor().get('model name') or platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        tuple(rows),
        _engine_share(first, rounds),
        {size: fresh(size) for size in progress(MEGAPIXELS, "size")},
        {count: 1 / fresh(1.0, count)[0] for count in progress(_thread_counts(), "number of threads")},
        _by_batch(first, rounds),
    )


def time_one_size(weights: str, device: str, megapixels: float, rounds: int) -> tuple[float, int | None]:
    """Return the seconds that a result of this size takes, and the peak memory in bytes if the system tells."""
    restorer = Restorer(weights, device=device)
    pixels = megapixels * 1e6 / restorer.description.scale**2
    height = round((pixels * 3 / 4) ** 0.5)
    candidate = restoring("it", restorer, random_picture(height, round(pixels / height)))
    return candidate.megapixels / time_in_turn([candidate], rounds)["it"], _peak_memory()


def restoring(name: str, restorer: Restorer, picture: NDArray[np.uint8]) -> Candidate:
    """Make a candidate of the restoration of a picture."""
    told: dict[str, Any] = {} if restorer.task.condition_scale is None else {"noise_level": restorer.within_range(25)}
    megapixels = picture[..., 0].size * restorer.description.scale**2 / 1e6
    return Candidate(name, lambda: restorer.restore(picture, **told), megapixels)


def random_picture(height: int, width: int) -> NDArray[np.uint8]:
    """Make a picture of noise, height x width x 3."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _installed(restorer: Restorer) -> list[str]:
    """Return the names of the engines that run on the device and can be imported."""
    names = []
    for kind in ENGINES.values():
        try:
            kind.require()
        except DeconvError:
            continue
        if restorer.device in kind.devices:
            names.append(kind.name)
    return names


def _precisions(engine: str, device: str) -> list[str]:
    """Return the number formats that an engine is worth running in."""
    slow = {"fp16"} if device == "cpu" else set()
    return [
        name for name in ENGINES[engine].precisions if name not in slow and (name != "bf16" or has_fast_bf16(device))
    ]


def _gigaflops(megapixels_per_second: float) -> float:
    return 2 * megapixels_per_second * CONVOLUTIONS.multiply_adds / 1e3


@contextlib.contextmanager
def _watch(restorer: Restorer) -> Iterator[list[tuple[int, float]]]:
    """Give a list that grows by the pixels and the seconds of every run of the engine."""
    runs: list[tuple[int, float]] = []
    run = restorer.runner.run

    def watched(x: NDArray[np.float32], precision: str) -> NDArray[np.float32]:
        began = time.perf_counter()
        output = run(x, precision)
        runs.append((x[:, 0].size, time.perf_counter() - began))
        return output

    restorer.runner.run = watched  # type: ignore[method-assign]
    try:
        yield runs
    finally:
        restorer.runner.run = run  # type: ignore[method-assign]


def _computed_over_own(restorer: Restorer, picture: NDArray[np.uint8]) -> float:
    """Return the pixels that the network goes over for a picture, its border and overlaps included, over its own."""
    with _watch(restorer) as runs:
        restoring("it", restorer, picture).run()
    return sum(pixels for pixels, _ in runs) / picture[..., 0].size


def _engine_share(restorer: Restorer, rounds: int) -> float:
    """Return the share of the whole time that is the engine's own, for a result of 2 megapixels."""
    height, width = (side // restorer.description.scale for side in LARGE)
    candidate = restoring("whole", restorer, random_picture(height, width))
    candidate.run()
    with _watch(restorer) as runs:
        began = time.perf_counter()
        for _ in range(rounds):
            candidate.run()
        return sum(seconds for _, seconds in runs) / (time.perf_counter() - began)


def _in_fresh_process(
    weights: str, device: str, rounds: int, megapixels: float, threads: int | None = None
) -> tuple[float, int | None]:
    code = (
        "import json, sys; from deconv_cli.evaluation.speed import time_one_size;"
        "print(json.dumps(time_one_size(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))))"
    )
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    command = [sys.executable, "-c", code, weights, device, str(megapixels), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603
    if done.returncode:
        # One that is killed, as for want of memory, says nothing.
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise DeconvError(f"timing in a process of its own failed: {reason}")
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def _thread_counts() -> list[int]:
    cores = os.cpu_count() or 1
    return [count for count in (1, 2, 4, 8, 16, 32, 64) if count < cores] + [cores]


def _by_batch(restorer: Restorer, rounds: int) -> dict[int, float]:
    """Return megapixels a second by the number of tiles that the engine is given at once."""
    architecture, precision = restorer.description.architecture, restorer.precision_for(np.dtype(np.uint8))
    side = architecture.round_up(BATCH_SIDE)
    planes = architecture.channels + architecture.condition_planes
    tiles = np.random.default_rng(0).random((max(BATCHES), planes, side, side), dtype=np.float32)

    def candidate(count: int) -> Candidate:
        megapixels = count * side**2 * architecture.scale**2 / 1e6
        return Candidate(str(count), lambda: restorer.runner.run(tiles[:count], precision), megapixels)

    return {int(name): rate for name, rate in time_in_turn([candidate(n) for n in BATCHES], rounds).items()}


def _random_weights(architecture: Architecture) -> Weights:
    """Return weights that have the right shapes: what they hold does not change the speed."""
    rng, width = np.random.default_rng(0), architecture.widths[0]
    channels = architecture.channels
    kernels = {"head": (width, channels + architecture.condition_planes), "tail": (channels, width)}
    for block in range(architecture.blocks[0]):
        kernels |= {f"bottom.{block}.conv{number}": (width, width) for number in (1, 2)}
    parameters = {}
    for name, shape in kernels.items():
        parameters[f"{name}.weight"] = rng.normal(0, 0.01, (*shape, KERNEL, KERNEL)).astype(np.float32)
        parameters[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return Weights(Description("convolutions", "denoise", architecture, (0.0, 75.0)), parameters)


def _peak_memory() -> int | None:
    status = Path("/proc/self/status")
    if status.exists():
        # Linux's getrusage would count the peak of the process that this one was forked from.
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
