"""The report of a study, made from its results alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deconv_cli.images import write_atomically
from deconv_cli.network.description import KERNEL
from deconv_cli.study import summary as measures
from deconv_cli.study.arms import LEVELS
from deconv_cli.study.document import Block, Grid, Heading, Items, Paragraph, Picture, to_html, to_markdown
from deconv_cli.study.plots import plots, to_png
from deconv_cli.study.statistics import Estimate
from deconv_cli.study.summary import ArmSummary, Summary, load_summary
from deconv_cli.study.verdicts import verdicts
from deconv_cli.training.gradient_health import EXPLODING, VANISHING

TITLE = "What the activation function does to a deconvolutional network"
NOTHING = "–"


def write_report(folder: Path) -> list[Path]:
    """Write report.md, report.html, curves.csv and the plots beside the results of a study.

    Parameters
    ----------
    folder
        The folder of the study, which holds ``results.json``.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    DeconvError
        If there are no results, or they are damaged.
    """
    summary = load_summary(folder / "results.json")
    pictures = {f"{name}.png": (to_png(figure), caption) for name, (figure, caption) in plots(summary).items()}
    blocks = _blocks(summary, [Picture(name, png, caption) for name, (png, caption) in pictures.items()])
    written = {
        "report.md": to_markdown(blocks).encode(),
        "report.html": to_html(blocks, TITLE).encode(),
        "curves.csv": _curves(summary).encode(),
        **{name: png for name, (png, _) in pictures.items()},
    }
    for name, content in written.items():
        write_atomically(folder / name, content)
    return [folder / name for name in written]


def main_table(summary: Summary) -> Grid:
    """Return quality, generalisation and pace of every arm."""
    unit, what = summary.unit, "accuracy" if summary.classifies else "PSNR"
    targets = {task: summary.target(task) for task in summary.settings.tasks}
    headings = [
        "setting",
        "activation",
        "rate",
        f"{what} / {unit}",
        "SSIM",
        f"gain / {unit}",
        f"seen - unseen / {unit}",
    ]
    headings += [f"gain outside / {unit}", "steps to target", "s to target", "ms a step"]

    def row(arm: ArmSummary) -> list[str]:
        name = arm.arm.activation
        if not arm.runs:
            return [arm.group, name, f"{arm.rate:g}", arm.missing, *[NOTHING] * 7]
        best = summary.best(arm.group) is arm
        gained = _shown(arm.of(measures.gain), "+.2f")
        gained = f"**{gained}**" if best else f"{gained} ≈" if summary.ties_best(arm) else gained
        target = targets[arm.arm.task]
        lost = f" ({arm.lost})" if arm.lost else ""
        return [
            arm.group,
            f"**{name}**" if best else name,
            f"{arm.rate:g}",
            _shown(arm.of(measures.final_score), ".2f") + lost,
            _shown(arm.of(measures.similarity), ".4f"),
            gained,
            _shown(arm.of(measures.overfitting), "+.2f"),
            _shown(arm.of(measures.outside_gain), "+.2f"),
            _reached(arm, measures.steps_to, target, ".0f"),
            _reached(arm, measures.seconds_to, target, ".1f"),
            _shown(arm.of(measures.step_milliseconds), ".1f"),
        ]

    return Grid(headings, [row(arm) for arm in summary.arms])


def health_table(summary: Summary) -> Grid:
    """Return the health of the gradients, the units and the output of every arm."""
    headings = ["setting", "activation", "first / last layer, start", "during training", "gradients"]
    headings += ["weakest / last layer", "update / weight"]
    headings += ["never on / %", "saturated / %", "mean slope", "outside 0..1 / %", "checkerboard"]

    def percent(arm: ArmSummary, measure: Callable[[dict[str, Any]], float | None]) -> str:
        return _shown(arm.of(lambda run: None if (value := measure(run)) is None else 100 * value), ".1f")

    def row(arm: ArmSummary) -> list[str]:
        if not arm.runs:
            gradients = "not finite" if arm.diverged else arm.missing
            return [arm.group, arm.arm.activation, *[NOTHING] * 2, gradients, *[NOTHING] * 7]
        return [
            arm.group,
            arm.arm.activation,
            _shown_ratio(arm.ratio(measures.initial_ratio)),
            _shown_ratio(arm.ratio(measures.trained_ratio)),
            arm.gradients,
            _shown_ratio(arm.ratio(measures.weakest_ratio)),
            _shown_ratio(arm.ratio(measures.update_ratio)),
            percent(arm, measures.off),
            percent(arm, measures.saturated),
            _shown(arm.of(measures.slope), ".2f"),
            percent(arm, measures.share_outside),
            _shown(arm.of(measures.checkerboard), ".2f"),
        ]

    return Grid(headings, [row(arm) for arm in summary.arms])


def _blocks(summary: Summary, pictures: list[Picture]) -> list[Block]:
    blocks: list[Block] = [Heading(TITLE, 1), Paragraph(_introduction(summary)), Heading("Verdicts")]
    for verdict in verdicts(summary):
        blocks += [
            Paragraph(f"**{verdict.claim}** {verdict.conclusion[0].upper()}{verdict.conclusion[1:]}."),
            Items(verdict.evidence),
        ]
    blocks += [Heading("Quality"), main_table(summary), Paragraph(_legend(summary))]
    blocks += [Heading("Health"), health_table(summary), Paragraph(_health_legend())]
    blocks += [Heading("Plots"), *pictures, Heading("How it was done"), Items(_protocol(summary))]
    return blocks


def _introduction(summary: Summary) -> str:
    settings = summary.settings
    return (
        f"{len(summary.arms)} ways of building and training one network, {settings.seeds} seeds each;"
        f" {', '.join(settings.tasks)}; the learning rate of each chosen on held-out pictures. Intervals are 95 %"
        " (Student's t over the seeds). Everything below is computed from `results.json`; `deconv study --report"
        " FOLDER`"
        " makes it anew."
    )


def _legend(summary: Summary) -> str:
    told = "; ".join(
        f"{target:.2f} {summary.unit} ({task})"
        for task in summary.settings.tasks
        if (target := summary.target(task)) is not None
    )
    told = told or "none, since no run came to its end"
    outside = ", ".join(
        f"{task}: level {level:g}" for task in summary.settings.tasks if (level := LEVELS[task][1]) is not None
    )
    tied = "the interval of the difference over paired seeds holds zero; not corrected for the number of comparisons"
    if all(len(arm.runs) < 2 for arm in summary.arms):
        tied = "with one seed nothing can be told"
    return (
        f"Mean ± half the 95 % interval. **Bold**: the best of its setting; ≈: not told from it ({tied})."
        " Gain: above doing nothing."
        " Seen - unseen: the gain on training crops minus that on held-out ones, which differ in content, so"
        f" compare arms and not with zero. Outside: a level beyond the training range ({outside or 'none'}). Target:"
        f" {measures.BELOW_BEST:g} {summary.unit} below the best arm's end at the middle level: {told}."
    )


def _health_legend() -> str:
    return (
        "First / last layer: norm of the gradient of the first layer's kernel over that of the last one's, geometric"
        " mean"
        f" over the seeds; during training it is the median over its course. Below {VANISHING:g} it is called"
        " vanishing,"
        f" above {EXPLODING:g} exploding. Weakest / last layer: the same, during training, of the layer that gets"
        " least. Update / weight: norm of a step over norm of the kernel, median over"
        " layers, in"
        " the middle of training. Never on: units of rectifiers that are positive for no held-out pixel. Saturated:"
        " share"
        " of values where the slope is below a twentieth of its largest (sigmoid |z| > 4.36, tanh |z| > 2.18). Mean"
        " slope:"
        " mean |f'(z)| over all layers. Outside 0..1: share of output samples that a file would clip. Checkerboard:"
        " energy"
        " of the error at a period of two pixels, in units of what white noise of the same energy has there."
    )


def _protocol(summary: Summary) -> list[str]:
    settings, content = summary.settings, summary.content
    crops, environment = content["crops"], content["environment"]
    runs = content["runs"]
    parameters = sorted({run["parameters"] for run in runs})
    ranges = {task: LEVELS[task][0] for task in settings.tasks}
    layout = (
        f"RED-Net's stack, {' or '.join(map(str, settings.depths))} layers (half of them transposed), width"
        f" {settings.width}, kernels {KERNEL} x {KERNEL}, a skip every second layer"
        if settings.architecture == "rednet"
        else f"pyramid of {' or '.join(map(str, settings.depths))} levels, width {settings.width} at full resolution"
    )
    seconds = sum(run["seconds"] for run in runs)
    rates = sorted({rate for arm in summary.arms for rate in settings.rates_of(arm.arm)})
    loss = "cross-entropy" if summary.classifies else "L1"
    return [
        f"Network: {layout}; {' or '.join(map(str, parameters))} parameters."
        + ("" if summary.classifies else " It predicts what is to be added to its input, with and without skips."),
        f"Training: {settings.steps} steps of {settings.batch} patches of {settings.patch} x {settings.patch},"
        f" {', '.join(settings.optimizers)}, {loss} loss, 3 % warm-up and half a cosine, gradients clipped to a norm"
        " of 1,"
        " float32; equal seeds see equal batches in all arms. "
        + " ".join(f"{task}: levels {levels[0]:g} to {levels[1]:g}." for task, levels in ranges.items() if levels),
        f"Learning rate: the best of {', '.join(f'{rate:g}' for rate in rates)}"
        f" after {settings.sweep_steps} steps on a seed that is not reported.",
        f"Pictures: {crops['training']} crops to train on and {crops['validation']} held-out ones from"
        f" {', '.join(content['folders'])}; sha256 of all pixels `{crops['sha256']}`.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in environment.items()) + ".",
        f"Time: {seconds / 60:.0f} minutes of runs, {len(runs)} in all, on one thread each if there was more than one"
        " at a time.",
    ]


def _shown(value: Estimate | None, spec: str) -> str:
    return NOTHING if value is None else format(value, spec)


def _shown_ratio(value: Estimate | None) -> str:
    return NOTHING if value is None else f"{value.mean:.1e}" if value.mean else "0"


def _reached(
    arm: ArmSummary,
    measure: Callable[[float], Callable[[dict[str, Any]], float | None]],
    target: float | None,
    spec: str,
) -> str:
    """Show a mean only if every run has reached the target; otherwise how many have."""
    if target is None:
        return NOTHING
    reached = arm.of(measure(target))
    if reached is None:
        return "not reached"
    return _shown(reached, spec) if reached.count == len(arm.runs) else f"{reached.count} of {len(arm.runs)} runs"


def _curves(summary: Summary) -> str:
    """Return the curves of all reported runs as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    fields = ["activation", "task", "initialisation", "skips", "depth", "upsampling", "optimizer"]
    writer.writerow([*fields, "rate", "seed", "step", "seconds", "loss", "score", "first_over_last"])
    for arm in summary.arms:
        for run in arm.runs:
            ratios = {entry["step"]: entry["first_over_last"] for entry in run["health"]}
            for point in run["curve"]:
                seconds = round(point["step"] * run["seconds_per_step"], 3)
                writer.writerow(
                    [
                        *(getattr(arm.arm, name) for name in fields),
                        run["rate"],
                        run["seed"],
                        point["step"],
                        seconds,
                        point["loss"],
                        point["score"],
                        ratios.get(point["step"]),
                    ]
                )
    return file.getvalue()
