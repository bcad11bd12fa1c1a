"""The plots of a study: each a function from the summary to a figure.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; lines differ in dash and marker too, so that
a gray print can be read.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deconv_cli.metrics import psnr
from deconv_cli.network.activations import find_activation
from deconv_cli.study.statistics import estimate
from deconv_cli.study.summary import ArmSummary, Summary, baseline, gain
from deconv_cli.training.gradient_health import EXPLODING, HISTOGRAM_LIMIT, VANISHING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {
    "sigmoid": ("#d55e00", "s", (0, (1, 1))),
    "tanh": ("#0072b2", "o", (0, (5, 1.5))),
    "relu": ("#000000", "^", "-"),
    "leaky_relu": ("#009e73", "D", (0, (5, 1, 1, 1))),
    "leaky_relu_0.2": ("#56b4e9", "d", (0, (3, 1))),
    "prelu": ("#cc79a7", "v", (0, (3, 1, 1, 1, 1, 1))),
    "elu": ("#a65628", "P", (0, (2, 1))),
    "gelu": ("#e69f00", "X", "-"),
    "silu": ("#f0e442", "*", (0, (5, 1.5))),
    "mish": ("#7f7f7f", "h", "-"),
    "none": ("#999999", ".", (0, (1, 2))),
}
"""Colour, marker and dash of each activation."""
PANEL = (3.6, 2.7)
"""Width and height of a panel in inches."""
FLOOR = 1e-20
"""Gradients below it are drawn as if they were at it."""
DPI = 110


def plots(summary: Summary) -> dict[str, tuple[Figure, str]]:
    """Draw everything.

    Returns
    -------
    dict
        Name of the file without suffix to the figure and its caption. Plots for which there is no data are left out.
    """
    name = "accuracy" if summary.classifies else "PSNR"
    drawn: dict[str, tuple[Figure | None, str]] = {
        "gain": (
            plot_gain(summary),
            f"Gain over doing nothing, {summary.unit}: mean over the seeds and 95 % interval; the grey crosses are the"
            " single runs.",
        ),
        "curves-steps": (
            plot_curves(summary, seconds=False),
            f"{name} on held-out pictures against steps: mean over the seeds, with its 95 % interval as a band.",
        ),
        "curves-seconds": (
            plot_curves(summary, seconds=True),
            "The same against seconds of training (median seconds a step, without the time that measuring takes).",
        ),
        "gradients": (
            plot_gradients(summary),
            "Norm of the gradient by layer and step, seed 0, on a logarithmic scale; layer 1 is the first. A panel that"
            " darkens downwards loses its gradient on the way to the first layer.",
        ),
        "ratios": (
            plot_ratios(summary),
            f"Gradient norm of the first layer over that of the last, geometric mean over the seeds. Below"
            f" {VANISHING:g} it is called vanishing, above {EXPLODING:g} exploding (dotted lines).",
        ),
        "activations": (
            plot_histograms(summary),
            "What goes into the activations (z), all layers together, at the start, in the middle and at the end of"
            f" training, seed 0; what lies beyond ±{HISTOGRAM_LIMIT:g} counts at the border. Shaded: where the"
            " function is saturated, or a rectifier is off.",
        ),
        "rates": (
            plot_rates(summary),
            "Sensitivity to the learning rate: the score of the shorter runs that chose it; the chosen one is filled. A"
            " cross at the bottom is a run that diverged.",
        ),
        "sample": (
            plot_sample(summary),
            "A crop of scikit-image's cat, which no run has seen: input, what each arm (seed 0) makes of it, truth;"
            " PSNR in dB.",
        ),
    }
    return {key: (figure, caption) for key, (figure, caption) in drawn.items() if figure is not None}


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    data = BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    return data.getvalue()


def plot_gain(summary: Summary) -> Figure:
    """Draw the gain of every arm as a point with its interval, group by group."""
    figure, axes = _figure((8.0, 0.9 + 0.26 * len(summary.arms) + 0.35 * len(summary.groups)))
    position, ticks, labels = 0.0, [], []
    for group, arms in summary.groups.items():
        axes.text(0.01, position, group, transform=axes.get_yaxis_transform(), va="center", weight="bold", fontsize=9)
        position += 1
        for arm in arms:
            colour, marker, _ = STYLES[arm.arm.activation]
            ticks.append(position)
            labels.append(arm.arm.activation)
            values = list(arm.by_seed(gain).values())
            reached = estimate(values)
            if reached is None:
                axes.text(0, position, f" {arm.missing}", va="center", fontsize=8)
            else:
                half = 0 if math.isnan(reached.half) else reached.half
                axes.plot(values, [position] * len(values), "x", color="#999999", markersize=4, zorder=1)
                axes.errorbar(
                    reached.mean, position, xerr=half, color=colour, marker=marker, markersize=6, capsize=3, zorder=2
                )
            position += 1
        position += 0.3
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_ylim(position, -0.8)
    axes.axvline(0, color="#666666", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"gain over doing nothing / {summary.unit}")
    return figure


def plot_curves(summary: Summary, *, seconds: bool) -> Figure:
    """Draw the score against steps or seconds, a panel a group."""

    def draw(axes: Axes, arm: ArmSummary) -> None:
        colour, marker, dash = STYLES[arm.arm.activation]
        if not arm.runs:
            return
        steps = [point["step"] for point in arm.runs[0]["curve"]]
        at = [[run["curve"][index]["score"] for run in arm.runs] for index in range(len(steps))]
        estimates = [estimate([value for value in values if value is not None]) for values in at]
        known = [(step, value) for step, value in zip(steps, estimates, strict=True) if value]
        pace = float(np.mean([run["seconds_per_step"] for run in arm.runs])) if seconds else 1.0
        x = [step * pace for step, _ in known]
        mean = [value.mean for _, value in known]
        axes.plot(x, mean, color=colour, marker=marker, markersize=3, linestyle=dash, label=arm.arm.activation)
        if len(arm.runs) > 1:
            axes.fill_between(
                x, [v.low for _, v in known], [v.high for _, v in known], color=colour, alpha=0.18, linewidth=0
            )

    figure = _panels(summary, draw, "training time / s" if seconds else "step", _curve_label, scores=True)
    for axes, arms in zip(figure.axes, summary.groups.values(), strict=True):
        _draw_doing_nothing(axes, arms, [arm for arm in summary.arms if arm.arm.task == arms[0].arm.task])
    _legend(figure, figure.axes)
    return figure


def _draw_doing_nothing(axes: Axes, arms: list[ArmSummary], same_axis: list[ArmSummary]) -> None:
    """Draw what doing nothing scores in a panel, and limit the axis that it shares to what matters."""
    runs = [run for arm in arms for run in arm.runs]
    if not runs:
        return
    axes.axhline(float(np.mean([baseline(run) for run in runs])), color="#666666", linewidth=0.8, label="doing nothing")
    # Networks that start far below doing nothing, and wide bands, would squeeze what matters: where they end.
    runs = [run for arm in same_axis for run in arm.runs]
    reached = [point["score"] for run in runs for point in run["curve"] if point["score"] is not None]
    ends = [run["curve"][-1]["score"] for run in runs]
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, min([*map(baseline, runs), *ends]) - 2), min(high, max(reached) + 1))


def plot_ratios(summary: Summary) -> Figure:
    """Draw the ratio of gradient norms, first layer over last, against the step."""

    def draw(axes: Axes, arm: ArmSummary) -> None:
        colour, marker, dash = STYLES[arm.arm.activation]
        steps = [entry["step"] for entry in arm.runs[0]["health"]] if arm.runs else []
        means = []
        for index in range(len(steps)):
            ratios = [run["health"][index]["first_over_last"] for run in arm.runs]
            logs = [math.log(max(ratio, FLOOR)) for ratio in ratios if ratio is not None]
            means.append(math.exp(float(np.mean(logs))) if logs else math.nan)
        axes.semilogy(steps, means, color=colour, marker=marker, markersize=3, linestyle=dash, label=arm.arm.activation)
        for threshold in (VANISHING, EXPLODING):
            axes.axhline(threshold, color="#666666", linestyle=":", linewidth=0.8)

    figure = _panels(summary, draw, "step", lambda _: "gradient norm, first / last layer", scores=False)
    _legend(figure, figure.axes)
    return figure


def plot_rates(summary: Summary) -> Figure:
    """Draw the score of the sweeps against the rate."""
    bottoms = {task: _bottom(summary, task) for task in summary.settings.tasks}

    def draw(axes: Axes, arm: ArmSummary) -> None:
        colour, marker, dash = STYLES[arm.arm.activation]
        known = [(run["rate"], run["score"]) for run in arm.sweep if run.get("score") is not None]
        lost = [run["rate"] for run in arm.sweep if run.get("score") is None]
        axes.plot(
            [rate for rate, _ in known],
            [score for _, score in known],
            color=colour,
            marker=marker,
            markersize=5,
            markerfacecolor="white",
            linestyle=dash,
            label=arm.arm.activation,
        )
        axes.plot([rate for rate, s in known if rate == arm.rate], [s for r, s in known if r == arm.rate], marker,
                  color=colour, markersize=6)  # fmt: skip
        axes.plot(lost, [bottoms[arm.arm.task]] * len(lost), "x", color=colour)
        axes.set_xscale("log")

    what = "accuracy / %" if summary.classifies else "PSNR / dB, mean over levels"
    figure = _panels(summary, draw, "learning rate", lambda _: what, scores=True)
    _legend(figure, figure.axes)
    return figure


def _bottom(summary: Summary, task: str) -> float:
    """Return a score a little below all of the sweeps of a task."""
    sweeps = [run for arm in summary.arms if arm.arm.task == task for run in arm.sweep]
    scores = [run["score"] for run in sweeps if run.get("score") is not None] or [0.0, 1.0]
    return float(min(scores) - 0.05 * (max(scores) - min(scores) + 0.1))


def plot_gradients(summary: Summary) -> Figure | None:
    """Draw the gradient norm by layer and step as a heat map, a panel an arm."""
    shown = {arm.arm.name: run for arm in summary.arms for run in arm.runs if run["seed"] == 0}
    maps = {name: _norms(run) for name, run in shown.items()}
    if not maps:
        return None
    values = np.concatenate([norms.ravel() for norms in maps.values()])
    low, high = max(np.nanmin(values), math.log10(FLOOR)), np.nanmax(values)
    low = max(low, high - 16)
    figure, grid = _grid(summary, sharey=False, height=1.9)
    image = None
    for row, arms in zip(grid, summary.groups.values(), strict=True):
        for axes, arm in zip(row, arms, strict=False):
            axes.set_title(arm.arm.activation, fontsize=9)
            if arm.arm.name not in maps:
                axes.text(0.5, 0.5, arm.missing, ha="center", transform=axes.transAxes)
                continue
            norms, run = maps[arm.arm.name], shown[arm.arm.name]
            steps = [entry["step"] for entry in run["health"]]
            extent = (-0.5, len(steps) - 0.5, len(norms) + 0.5, 0.5)
            image = axes.imshow(norms, aspect="auto", cmap="cividis", vmin=low, vmax=high, extent=extent)
            axes.set_yticks(range(1, len(norms) + 1, -(-len(norms) // 8)))
            axes.set_xticks([0, len(steps) // 2, len(steps) - 1], [str(steps[at]) for at in (0, len(steps) // 2, -1)])
            axes.tick_params(labelsize=7)
    _label_rows(grid, summary, "layer", "step")
    if image is not None:
        bar = figure.colorbar(image, ax=grid.ravel().tolist(), shrink=0.6, pad=0.01)
        bar.set_label("log10 of the gradient norm")
    return figure


def plot_histograms(summary: Summary) -> Figure | None:
    """Draw what goes into the activations at three times, a panel an arm."""
    if not any(run["histograms"] for arm in summary.arms for run in arm.runs):
        return None
    figure, grid = _grid(summary, sharey=True, height=1.9)
    times = {"start": ("#999999", ":"), "middle": ("#0072b2", "--"), "end": ("#d55e00", "-")}
    for row, arms in zip(grid, summary.groups.values(), strict=True):
        for axes, arm in zip(row, arms, strict=False):
            axes.set_title(arm.arm.activation, fontsize=9)
            _shade(axes, arm.arm.activation)
            for run in arm.runs:
                for time, layers in run["histograms"].items():
                    shares = np.mean(list(layers.values()), axis=0)
                    edges = np.linspace(-HISTOGRAM_LIMIT, HISTOGRAM_LIMIT, len(shares) + 1)
                    colour, dash = times[time]
                    axes.stairs(
                        np.maximum(shares, 1e-5), edges, color=colour, linestyle=dash, linewidth=1.3, label=time
                    )
            axes.set_yscale("log")
            axes.set_ylim(1e-4, 1.2)
            axes.tick_params(labelsize=7)
    _label_rows(grid, summary, "share of values", "z")
    _legend(figure, figure.axes)
    return figure


def plot_sample(summary: Summary) -> Figure | None:
    """Draw a strip of crops for every group: input, each arm's output, truth."""
    samples = {arm.arm.name: run["sample"] for arm in summary.arms for run in arm.runs if "sample" in run}
    if not samples:
        return None
    columns = max(len(arms) for arms in summary.groups.values()) + 2
    figure, grid = _subplots(len(summary.groups), columns, (1.55 * columns, 1.85 * len(summary.groups)))
    for row, (group, arms) in zip(grid, summary.groups.items(), strict=True):
        for axes in row:
            axes.axis("off")
        pictures = [(arm.arm.activation, samples[arm.arm.name]) for arm in arms if arm.arm.name in samples]
        if not pictures:
            continue
        truth, degraded = _decode(pictures[0][1]["truth"]), _decode(pictures[0][1]["input"])
        strip = [("input", degraded), *((name, _decode(sample["output"])) for name, sample in pictures)]
        for axes, (name, picture) in zip(row, strip, strict=False):
            axes.imshow(picture, interpolation="nearest")
            reached = f"\n{psnr(truth, picture):.2f} dB" if picture.shape == truth.shape else ""
            axes.set_title(f"{name}{reached}", fontsize=8)
        row[len(strip)].imshow(truth, interpolation="nearest")
        row[len(strip)].set_title("truth\n", fontsize=8)
        row[0].text(
            -0.06, 0.5, group.replace(", ", "\n"), transform=row[0].transAxes, ha="right", va="center", fontsize=8
        )
    return figure


def _decode(png: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(base64.b64decode(png))))


def _norms(run: dict[str, Any]) -> NDArray[np.float64]:
    """Return log10 of the gradient norms, layers x steps."""
    columns = [[norm or 0.0 for norm in entry["gradient"].values()] for entry in run["health"]]
    logs: NDArray[np.float64] = np.log10(np.maximum(np.array(columns).T, FLOOR))
    return logs


def _shade(axes: Axes, name: str) -> None:
    activation = find_activation(name)
    if activation.saturation:
        for left, right in ((-HISTOGRAM_LIMIT, -activation.saturation), (activation.saturation, HISTOGRAM_LIMIT)):
            axes.axvspan(left, right, color="#000000", alpha=0.08, linewidth=0)
    if activation.rectifier:
        axes.axvspan(-HISTOGRAM_LIMIT, 0, color="#000000", alpha=0.08, linewidth=0)


def _curve_label(arms: list[ArmSummary]) -> str:
    levels = {run["curve_level"] for arm in arms for run in arm.runs if "curve_level" in run}
    if arms[0].arm.task == "classify":
        return "accuracy / %"
    return "PSNR / dB" + "".join(f" at level {level:g}" for level in levels)


def _panels(
    summary: Summary,
    draw: Callable[[Axes, ArmSummary], None],
    x: str,
    y: Callable[[list[ArmSummary]], str],
    *,
    scores: bool,
) -> Figure:
    """Draw all arms of each group into a panel of its own; the scores of different tasks share no axis."""
    count = len(summary.groups)
    columns = min(count, 2)
    rows = -(-count // columns)
    shared = not (scores and len(summary.settings.tasks) > 1)
    figure, grid = _subplots(
        rows, columns, (PANEL[0] * max(columns, 1.5), PANEL[1] * rows + 0.5), sharex=True, sharey=shared
    )
    for axes, (group, arms) in zip(grid.ravel(), summary.groups.items(), strict=False):
        for arm in arms:
            draw(axes, arm)
        axes.set_title(group if count > 1 else "", fontsize=9)
        axes.set(xlabel=x, ylabel=y(arms))
        if shared:
            axes.label_outer()
        axes.grid(alpha=0.3)
    for axes in grid.ravel()[count:]:
        axes.remove()
    return figure


def _grid(summary: Summary, *, sharey: bool, height: float) -> tuple[Figure, NDArray[Any]]:
    """Make a panel for every arm: a row a group, a column an activation."""
    columns = max(len(arms) for arms in summary.groups.values())
    rows = len(summary.groups)
    size = (2.3 * columns + 1.0, height * rows + 0.6)
    return _subplots(rows, columns, size, sharey=sharey)


def _label_rows(grid: NDArray[Any], summary: Summary, y: str, x: str) -> None:
    for row, group in zip(grid, summary.groups, strict=True):
        words = group.replace(", ", "\n") + "\n" if len(summary.groups) > 1 else ""
        row[0].set_ylabel(f"{words}{y}", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel(x, fontsize=8)


def _legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """Put one legend below all panels."""
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if entries:
        figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=min(5, len(entries)), fontsize=8
        )


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure, grid = _subplots(1, 1, size)
    axes: Axes = grid[0, 0]
    return figure, axes


def _subplots(
    rows: int, columns: int, size: tuple[float, float], *, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, NDArray[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid: NDArray[Any] = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, grid
