"""From the results of the runs to a line for every arm."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deconv_cli.errors import DeconvError
from deconv_cli.study.arms import Arm, Settings
from deconv_cli.study.statistics import Estimate, compare, estimate, estimate_ratio, is_tie
from deconv_cli.training.gradient_health import judge_ratio

BELOW_BEST = 1.0
"""The score whose reaching is timed lies so far, in dB or percent, below the best arm's mean at the end."""


@dataclass(frozen=True)
class ArmSummary:
    """An arm with its runs.

    Attributes
    ----------
    arm
        The arm.
    group
        What it has in common with those it is compared with, in words: everything but the activation.
    runs
        Its reported runs that did not diverge.
    diverged
        How many did.
    sweep
        Its runs that served to choose the rate.
    """

    arm: Arm
    group: str
    runs: tuple[dict[str, Any], ...]
    diverged: int
    sweep: tuple[dict[str, Any], ...]

    @property
    def rate(self) -> float:
        """The learning rate chosen."""
        return float(self.runs[0]["rate"]) if self.runs else choose_rate(self.sweep)

    @property
    def missing(self) -> str:
        """Why there is nothing to report; empty if there is something."""
        return "" if self.runs else "diverged" if self.diverged else "not run"

    @property
    def lost(self) -> str:
        """How many of its runs diverged and are in none of its means, in words; empty if none did."""
        return f"{self.diverged} of {len(self.runs) + self.diverged} diverged" if self.diverged else ""

    def by_seed(self, measure: Callable[[dict[str, Any]], float | None]) -> dict[int, float]:
        """Return a measure of every run that has it, by seed."""
        values = {int(run["seed"]): measure(run) for run in self.runs}
        return {seed: value for seed, value in values.items() if value is not None}

    def of(self, measure: Callable[[dict[str, Any]], float | None]) -> Estimate | None:
        """Return the mean of a measure over the seeds."""
        return estimate(list(self.by_seed(measure).values()))

    def ratio(self, measure: Callable[[dict[str, Any]], float | None]) -> Estimate | None:
        """Return the geometric mean of a measure over the seeds."""
        return estimate_ratio(list(self.by_seed(measure).values()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the single runs."""
        return {
            **dataclasses.asdict(self.arm),
            "rate": self.rate,
            "runs": len(self.runs),
            "diverged": self.diverged,
            "score": _plain(self.of(final_score)),
            "gain": _plain(self.of(gain)),
            "gradients": self.gradients if self.runs else None,
        }

    @property
    def gradients(self) -> str:
        """What the gradients do, by the median ratio of first to last layer: vanishing, healthy, exploding."""
        ratio = self.ratio(trained_ratio)
        return "not finite" if ratio is None else judge_ratio(ratio.mean)


@dataclass(frozen=True)
class Summary:
    """A study as its report tells it.

    Attributes
    ----------
    content
        What `results.json` holds.
    arms
        The arms, in the order of the settings.
    """

    content: dict[str, Any]
    arms: tuple[ArmSummary, ...]

    @property
    def settings(self) -> Settings:
        """The settings of the study."""
        return settings_from(self.content["settings"])

    @cached_property
    def groups(self) -> dict[str, list[ArmSummary]]:
        """The arms by group."""
        groups: dict[str, list[ArmSummary]] = {}
        for arm in self.arms:
            groups.setdefault(arm.group, []).append(arm)
        return groups

    @property
    def classifies(self) -> bool:
        """Whether the study is one of classification."""
        return self.settings.tasks == ("classify",)

    @property
    def unit(self) -> str:
        """Unit of the score."""
        return "%" if self.classifies else "dB"

    def best(self, group: str) -> ArmSummary | None:
        """Return the arm of a group with the highest mean gain."""
        ran = [arm for arm in self.groups[group] if arm.runs]
        return max(ran, key=lambda arm: arm.of(gain).mean, default=None)  # type: ignore[union-attr]

    def ties_best(self, arm: ArmSummary) -> bool:
        """Tell whether an arm cannot be told from the best of its group by paired seeds."""
        best = self.best(arm.group)
        return best is not None and (arm is best or is_tie(compare(arm.by_seed(gain), best.by_seed(gain))))

    def target(self, task: str) -> float | None:
        """Return the score whose reaching is timed: `BELOW_BEST` under the best arm's at the end of its curve."""
        ends = [end.mean for arm in self.arms if arm.arm.task == task and (end := arm.of(curve_end))]
        return max(ends) - BELOW_BEST if ends else None


def _plain(measured: Estimate | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    # The interval of a single value is NaN, which JSON has no word for.
    return {name: None if math.isnan(value) else value for name, value in dataclasses.asdict(measured).items()}


def choose_rate(sweep: Sequence[dict[str, Any]]) -> float:
    """Return the rate whose run scored best on the validation crops; the lowest one if all diverged."""
    scored = [result for result in sweep if result.get("score") is not None]
    if not scored:
        return float(min(result["rate"] for result in sweep))
    return float(max(scored, key=lambda result: result["score"])["rate"])


def load_summary(path: Path) -> Summary:
    """Read ``results.json``.

    Raises
    ------
    DeconvError
        If it is missing or no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = settings_from(content["settings"])
        return Summary(content, tuple(_arms(settings, content["runs"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeconvError(
            f"{path}: not the results of a study, or damaged ({error}); give the folder of one"
        ) from error


def settings_from(values: dict[str, Any]) -> Settings:
    """Rebuild settings from plain values."""
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Settings(**plain)


def _arms(settings: Settings, runs: Sequence[dict[str, Any]]) -> list[ArmSummary]:
    summaries = []
    for arm in settings.arms:
        own = [run for run in runs if Arm(**run["arm"]) == arm]
        reported = [run for run in own if not run["sweep"]]
        finished = tuple(run for run in reported if not run["diverged"])
        sweep = tuple(sorted((run for run in own if run["sweep"]), key=lambda run: float(run["rate"])))
        if sweep:
            group = group_in_words(arm, settings)
            summaries.append(ArmSummary(arm, group, finished, len(reported) - len(finished), sweep))
    return summaries


def group_in_words(arm: Arm, settings: Settings, without: str = "") -> str:
    """Say what an arm has in common with those that differ in the activation only; leave one field out if named."""
    words = {
        "task": arm.task,
        "initialisation": f"{arm.initialisation} initialisation",
        "skips": "with skips" if arm.skips else "without skips",
        "depth": f"depth {arm.depth}",
        "upsampling": f"upsampling by {arm.upsampling}",
        "optimizer": arm.optimizer,
    }
    return ", ".join(words[name] for name in settings.crossed if name != without) or "all arms"


def final_score(run: dict[str, Any]) -> float | None:
    """Return the score at the end: mean PSNR over the levels in dB, or percent right."""
    return run["score"]  # type: ignore[no-any-return]


def gain(run: dict[str, Any]) -> float | None:
    """Return the score above doing nothing (a classifier: above always naming the commonest class)."""
    if "levels" in run:
        return float(np.mean([level["gain"] for level in run["levels"]]))
    return float(run["score"] - run["baseline"])


def baseline(run: dict[str, Any]) -> float:
    """Return what doing nothing scores where the curve is measured."""
    if "levels" not in run:
        return float(run["baseline"])
    return float(next(level["input_psnr"] for level in run["levels"] if level["level"] == run["curve_level"]))


def similarity(run: dict[str, Any]) -> float | None:
    """Return the mean SSIM over the levels."""
    return float(np.mean([level["ssim"] for level in run["levels"]])) if "levels" in run else None


def overfitting(run: dict[str, Any]) -> float | None:
    """Return the gain on pictures seen in training minus that on held-out ones, at the middle level."""
    if "levels" not in run:
        return float(run["seen"] - run["score"])
    (seen,) = run["seen"]
    (held_out,) = [level for level in run["levels"] if level["level"] == seen["level"]]
    return float(seen["gain"] - held_out["gain"])


def outside_gain(run: dict[str, Any]) -> float | None:
    """Return the gain at the level outside the training range."""
    outside = run.get("outside")
    return float(outside[0]["gain"]) if outside else None


def curve_end(run: dict[str, Any]) -> float | None:
    """Return the score at the end of the curve."""
    return run["curve"][-1]["score"]  # type: ignore[no-any-return]


def steps_to(target: float) -> Callable[[dict[str, Any]], float | None]:
    """Return a measure: the steps after which a run first reaches a score, between the points of its curve."""

    def measure(run: dict[str, Any]) -> float | None:
        points = [(point["step"], point["score"]) for point in run["curve"] if point["score"] is not None]
        for (before, low), (after, high) in zip([points[0], *points], points, strict=False):
            if high >= target:
                share = (target - low) / (high - low) if high > low else 1.0
                return float(before + max(share, 0) * (after - before))
        return None

    return measure


def seconds_to(target: float) -> Callable[[dict[str, Any]], float | None]:
    """Return a measure: the seconds after which a run first reaches a score, without those spent on measuring."""

    def measure(run: dict[str, Any]) -> float | None:
        steps = steps_to(target)(run)
        return None if steps is None else steps * float(run["seconds_per_step"])

    return measure


def step_milliseconds(run: dict[str, Any]) -> float | None:
    """Return the milliseconds a step (median)."""
    return 1000 * float(run["seconds_per_step"])


def initial_ratio(run: dict[str, Any]) -> float | None:
    """Return the gradient norm of the first layer over that of the last, at the first step."""
    return run["health"][0]["first_over_last"]  # type: ignore[no-any-return]


def trained_ratio(run: dict[str, Any]) -> float | None:
    """Return the same as a median over the training."""
    ratios = [entry["first_over_last"] for entry in run["health"] if entry["first_over_last"] is not None]
    return float(np.median(ratios)) if ratios else None


def weakest_ratio(run: dict[str, Any]) -> float | None:
    """Return the gradient norm of the layer that gets least over that of the last, as a median over the training.

    Skips may feed the first layer and still starve those between.
    """
    ratios = []
    for entry in run["health"]:
        norms = list(entry["gradient"].values())
        if None not in norms and norms[-1]:
            ratios.append(min(norms) / norms[-1])
    return float(np.median(ratios)) if ratios else None


def update_ratio(run: dict[str, Any]) -> float | None:
    """Return the norm of a step over the norm of the kernel: the median over layers and the middle of training."""
    entry = run["health"][len(run["health"]) // 2]
    updates = [value for value in entry["update"].values() if value is not None]
    return float(np.median(updates)) if updates else None


def _entry(name: str) -> Callable[[dict[str, Any]], float | None]:
    def measure(run: dict[str, Any]) -> float | None:
        value = run.get(name)
        return None if value is None else float(value)

    return measure


off, saturated, slope = _entry("off"), _entry("saturated"), _entry("slope")
share_outside, checkerboard = _entry("share_outside"), _entry("checkerboard")
