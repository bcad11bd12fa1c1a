"""What a compression saved, and what it cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from deconv_cli.evaluation.bench import Bench, Conditions, Method, bench
from deconv_cli.evaluation.speed import random_picture, restoring, time_in_turn
from deconv_cli.images import write_atomically
from deconv_cli.network.weights import Weights
from deconv_cli.restoration.restorer import Restorer

BEFORE, AFTER = "before", "after"
FLAT_SIDE = 64
COLOURS = np.array(
    [*([value] * 3 for value in (0, 32, 64, 96, 128, 160, 192, 224, 255)), (255, 0, 0), (0, 255, 0), (0, 0, 255),
     (200, 120, 40), (30, 90, 160)],
    np.float32,
)  # fmt: skip
"""Of the flat patches, on 0..255."""
SPEED_SIDES = 512, 768
SPEED_ROUNDS = 5


@dataclass(frozen=True)
class Network:
    """What is measured of a network itself.

    Attributes
    ----------
    bytes
        Size of the file.
    parameters
        Their number.
    multiply_adds
        Per output pixel.
    in_int8
        Share of the layers' kernels, by number of parameters, that are in eight bits.
    megapixels_per_second
        From array to array, by the size of the result.
    flat_error
        Most that a patch of one colour comes to differ from it, on 0..255, at any level.
    """

    bytes: int
    parameters: int
    multiply_adds: float
    in_int8: float
    megapixels_per_second: float
    flat_error: float


@dataclass(frozen=True)
class Report:
    """Networks and scores before and after.

    Attributes
    ----------
    name
        Name of the compressed weights.
    networks
        `BEFORE` and `AFTER` to what was measured.
    flat_shift
        Most that the two differ on patches of one colour, on 0..255.
    precision
        Number format in which speed was measured, of what is not in eight bits.
    scores
        PSNR and SSIM by level, of both.
    in_float
        Layers that stay in float because of their sensitivity.
    """

    name: str
    networks: dict[str, Network]
    flat_shift: float
    precision: str
    scores: Bench
    in_float: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**dataclasses.asdict(self), "scores": self.scores.to_dict()}

    def losses(self) -> dict[float, tuple[float, float]]:
        """Return by level how much PSNR (dB) and SSIM fall."""
        rows = {(row.level, row.method): row for row in self.scores.rows}
        return {
            level: (
                rows[level, BEFORE].psnr - rows[level, AFTER].psnr,
                rows[level, BEFORE].ssim - rows[level, AFTER].ssim,
            )
            for level in dict.fromkeys(level for level, _ in rows)
        }

    def cells(self, level_name: str) -> list[tuple[str, str, str, str]]:
        """Return headings and rows as text, for people."""
        first, second = self.networks[BEFORE], self.networks[AFTER]

        def ratio(name: str, unit: float, digits: int) -> tuple[str, str, str]:
            one, two = getattr(first, name), getattr(second, name)
            return f"{one / unit:.{digits}f}", f"{two / unit:.{digits}f}", f"x {two / one:.2f}"

        rows = [
            ("", BEFORE, AFTER, "change"),
            ("file (MB)", *ratio("bytes", 1e6, 2)),
            ("parameters (M)", *ratio("parameters", 1e6, 2)),
            ("multiply-adds / pixel (K)", *ratio("multiply_adds", 1e3, 1)),
            ("kernels in int8", f"{first.in_int8:.1%}", f"{second.in_int8:.1%}", ""),
            (f"speed in {self.precision} (MP/s)", *ratio("megapixels_per_second", 1, 2)),
            ("flat patches off by (of 255)", f"{first.flat_error:.2f}", f"{second.flat_error:.2f}",
             f"at most {self.flat_shift:.2f} apart"),
        ]  # fmt: skip
        scores = {(row.level, row.method): row for row in self.scores.rows}
        for level, (psnr, ssim) in self.losses().items():
            one, two = scores[level, BEFORE], scores[level, AFTER]
            label = f"{level_name} {level:g}: PSNR (dB) / SSIM"
            was, became = (f"{row.psnr:.3f} / {row.ssim:.4f}" for row in (one, two))
            rows.append((label, was, became, f"{-psnr:+.3f} / {-ssim:+.4f}"))
        return rows


def measure(
    before: Path,
    after: Path,
    pictures: Sequence[Path],
    levels: Sequence[float],
    *,
    device: str = "auto",
    in_float: Sequence[str] = (),
    progress: Callable[[Sequence[Path]], Iterable[Path]] = lambda paths: paths,
) -> Report:
    """Measure two files of weights of one task against each other.

    Parameters
    ----------
    before, after
        The files.
    pictures
        Clean pictures to degrade, restore and score, as `deconv_cli.evaluation.bench.bench` does.
    levels
        Degradation levels.
    device
        See `Restorer`.
    in_float
        What to note in the report.
    progress
        Wraps the list of pictures to show progress.
    """
    restorers = {BEFORE: Restorer(before, device=device), AFTER: Restorer(after, device=device)}
    task, scale = restorers[BEFORE].task, restorers[BEFORE].description.scale
    methods = [Method.of_weights(restorer, name) for name, restorer in restorers.items()]
    scores = bench(pictures, methods, Conditions(task, scale), levels, progress=progress)
    picture = random_picture(*SPEED_SIDES)
    speeds = time_in_turn([restoring(name, each, picture) for name, each in restorers.items()], SPEED_ROUNDS)
    flats = {name: restore_flat(restorer, levels) for name, restorer in restorers.items()}
    colours = COLOURS[:, None, None, :]
    networks = {
        name: Network(
            path.stat().st_size,
            restorers[name].description.parameters,
            restorers[name].description.architecture.multiply_adds,
            share_in_int8(restorers[name].weights),
            speeds[name],
            float(np.abs(flats[name] - colours).max()),
        )
        for name, path in ((BEFORE, before), (AFTER, after))
    }
    return Report(
        after.stem,
        networks,
        float(np.abs(flats[AFTER] - flats[BEFORE]).max()),
        restorers[AFTER].precision_for(np.dtype(np.uint8)),
        scores,
        tuple(in_float),
    )


def share_in_int8(weights: Weights) -> float:
    """Return the share of the kernels' parameters that are in eight bits."""
    kernels = {name: array.size for name, array in weights.parameters.items() if array.ndim == 4}
    return sum(kernels[f"{name}.weight"] for name in weights.quantization) / sum(kernels.values())


def restore_flat(restorer: Restorer, levels: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Restore patches of one colour; levels * colours x side x side x 3 on 0..255, the levels outermost."""
    told: Sequence[Any] = ["auto"] if restorer.task.condition_scale is None else levels
    patches = np.broadcast_to(COLOURS[:, None, None, :] / np.float32(255), (len(COLOURS), FLAT_SIDE, FLAT_SIDE, 3))
    restored = [[restorer.restore(patch, noise_level=level).pixels for patch in patches] for level in told]
    return np.stack([np.stack(row) for row in restored]) * np.float32(255)


def plot(report: Report, path: Path, level_name: str) -> None:
    """Draw what was saved and what was lost, as PNG."""
    from matplotlib.figure import Figure

    first, second = report.networks[BEFORE], report.networks[AFTER]
    saved = {
        "file": second.bytes / first.bytes,
        "multiply-adds": second.multiply_adds / first.multiply_adds,
        "time": first.megapixels_per_second / second.megapixels_per_second,
    }
    losses = report.losses()
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    bars = left.bar(list(saved), list(saved.values()), color="#0072b2")
    left.bar_label(bars, [f"{share:.2f}" for share in saved.values()])
    left.axhline(1, color="#999999", linestyle=":")
    left.set(ylabel="share of what it was")
    left.set_title(report.name.encode(errors="replace").decode(), parse_math=False)
    bars = right.bar([f"{level:g}" for level in losses], [psnr for psnr, _ in losses.values()], color="#d55e00")
    right.bar_label(bars, [f"{psnr:.3f}" for psnr, _ in losses.values()])
    right.axhline(0, color="#999999", linewidth=0.8)
    right.set(xlabel=level_name, ylabel="loss of PSNR / dB", title=f"{report.scores.pictures} pictures")
    data = BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_atomically(path, data.getvalue())
