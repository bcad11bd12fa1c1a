"""Sentences about a study, computed from its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from deconv_cli.study.arms import Arm
from deconv_cli.study.statistics import Estimate, compare, exceeds, is_tie
from deconv_cli.study.summary import (
    ArmSummary,
    Summary,
    gain,
    group_in_words,
    initial_ratio,
    off,
    trained_ratio,
    weakest_ratio,
)
from deconv_cli.training.gradient_health import judge_ratio

DEAD = 0.05
"""Share of units that are never on, above which rectifiers are said to die."""
LEARNED = 0.1
"""Gain over doing nothing, in dB or percent, from which an arm is said to have learned something."""


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes
    ----------
    claim
        The claim.
    conclusion
        Whether it holds here.
    evidence
        A sentence with numbers for every setting.
    """

    claim: str
    conclusion: str
    evidence: tuple[str, ...]


def verdicts(summary: Summary) -> list[Verdict]:
    """Judge the common claims that the arms of the study can speak to, and every field in which arms differ."""
    found = [_best(summary)]
    for judge in (_sigmoid_vanishes, _tanh_helps, _relu_dies, _leaky_mends):
        verdict = judge(summary)
        if verdict:
            found.append(verdict)
    found += [_effect(summary, field) for field in summary.settings.crossed if field != "task"]
    return found


def _best(summary: Summary) -> Verdict:
    evidence, leading = [], []
    for group, arms in summary.groups.items():
        found, leaders = _leaders(summary, arms)
        evidence.append(f"{group}: {found}{_lost(*arms)}.")
        if leaders:
            leading.append(leaders)
    return Verdict("Which activation does best?", _winner(leading), tuple(evidence))


def _leaders(summary: Summary, arms: list[ArmSummary]) -> tuple[str, list[str]]:
    """Say what became of a setting, and name what may be best in it: nothing where it is not told that any learned."""
    best = summary.best(arms[0].group)
    waiting = [arm.arm.activation for arm in arms if arm.missing == "not run"]
    not_run = f"; not run: {', '.join(waiting)}" if waiting else ""
    if best is None:
        return "not run" if len(waiting) == len(arms) else f"every run diverged{not_run}", []
    name, gained = best.arm.activation, f"{best.of(gain):.2f} {summary.unit}"
    learned = {exceeds(arm.of(gain), LEARNED) for arm in arms if arm.runs}
    if learned == {False}:
        return f"nothing learned anything (best gain {gained}){not_run}", []
    if True not in learned:
        return f"{name} gains most, {gained}, but that anything was learned cannot be told{not_run}", []
    ties = [arm.arm.activation for arm in arms if arm is not best and arm.runs and summary.ties_best(arm)]
    told = f", not told from {' and '.join(ties)}" if ties else "" if waiting else ", ahead of all others"
    return f"{name}, gain {gained}{told}{not_run}", [name, *ties, *waiting]


def _winner(leading: list[list[str]]) -> str:
    """Conclude from what may be best in each setting where something is learned."""
    if not leading:
        return "cannot be told"
    everywhere = [name for name in leading[0] if all(name in leaders for leaders in leading)]
    alone = sum(len(leaders) == 1 for leaders in leading)
    if not everywhere:
        return "it depends on the setting"
    if alone == len(leading):
        return f"{everywhere[0]} wherever anything is learned"
    if alone:
        return f"{everywhere[0]} in {alone} of {len(leading)} settings, cannot be told in the others"
    rivals = f": {everywhere[0]} is not told from {' and '.join(everywhere[1:])}" if everywhere[1:] else ""
    return f"cannot be told{rivals}"


def _sigmoid_vanishes(summary: Summary) -> Verdict | None:
    def judge(arm: ArmSummary) -> tuple[bool, str]:
        start, during = arm.ratio(initial_ratio), arm.ratio(trained_ratio)
        if start is None or during is None:
            return False, "no finite gradients"
        vanishes = judge_ratio(during.mean) == "vanishing"
        reached = arm.of(gain)
        weakest = arm.ratio(weakest_ratio)
        starved = f"; the layer that gets least has {weakest.mean:.1e}" if weakest else ""
        gained = f"; gain {reached:.2f} {summary.unit}" if reached else ""
        return vanishes, (
            f"the first layer's gradient is {start.mean:.1e} of the last one's at the start and {during.mean:.1e}"
            " during"
            f" training ({judge_ratio(during.mean)}){starved}{gained}"
        )

    return _judge_arms(summary, "The sigmoid's gradients vanish.", "sigmoid", judge)


def _relu_dies(summary: Summary) -> Verdict | None:
    def judge(arm: ArmSummary) -> tuple[bool | None, str]:
        dead = arm.of(off)
        assert dead is not None
        return exceeds(dead, DEAD), f"{_percent(dead)} of the units are never on at the end"

    claim = f"ReLU dies (more than {100 * DEAD:g} % of the units are never on for any held-out picture)."
    return _judge_arms(summary, claim, "relu", judge)


def _tanh_helps(summary: Summary) -> Verdict | None:
    return _compare_activations(summary, "tanh does better than the sigmoid.", "tanh", "sigmoid")


def _leaky_mends(summary: Summary) -> Verdict | None:
    found = _compare_activations(summary, "Leaky ReLU mends what ReLU lacks (it does better).", "leaky_relu", "relu")
    if found is None:
        return None
    evidence = []
    for sentence, (theirs, ours) in zip(found.evidence, _pairs(summary, "relu", "leaky_relu"), strict=True):
        dead, leaking = theirs.of(off), ours.of(off)
        assert dead is not None
        assert leaking is not None
        evidence.append(
            f"{sentence.rstrip('.')}; units never on: relu {_percent(dead)}, leaky_relu {_percent(leaking)} (these"
            " still"
            " pass a hundredth of the gradient)."
        )
    return dataclasses.replace(found, evidence=tuple(evidence))


def _effect(summary: Summary, field: str) -> Verdict:
    """Compare arms that differ in one field only."""
    by_arm = {arm.arm: arm for arm in summary.arms}
    values = list(dict.fromkeys(getattr(arm.arm, field) for arm in summary.arms))
    evidence, outcomes = [], []
    for ours in summary.arms:
        for value in values[values.index(getattr(ours.arm, field)) + 1 :]:
            theirs = by_arm[dataclasses.replace(ours.arm, **{field: value})]
            if ours.runs and theirs.runs:
                difference = compare(ours.by_seed(gain), theirs.by_seed(gain))
                outcomes.append(_outcome(difference))
                names = f"{_in_words(ours.arm, summary, field)}: {_value(field, ours.arm)} against"
                told = f"{_difference(difference, summary.unit)}{_lost(ours, theirs)}"
                evidence.append(f"{names} {_value(field, theirs.arm)} {told}.")
    first = _value(field, summary.arms[0].arm)
    return Verdict(
        f"What {field} does: {first} against {' and '.join(_value(field, value) for value in values[1:])}.",
        _count(outcomes, f"{first} does better", f"{first} does worse"),
        tuple(evidence),
    )


def _judge_arms(
    summary: Summary, claim: str, activation: str, judge: Callable[[ArmSummary], tuple[bool | None, str]]
) -> Verdict | None:
    """Judge every arm of an activation: whether the claim holds, None where that cannot be told."""
    arms = [arm for arm in summary.arms if arm.arm.activation == activation and arm.runs]
    if not arms:
        return None
    judged = [judge(arm) for arm in arms]
    outcomes = [holds for holds, _ in judged]
    if len(set(outcomes)) == 1:
        conclusion = {True: "holds here", False: "does not hold here", None: "cannot be told"}[outcomes[0]]
    else:
        untold = f", cannot be told in {outcomes.count(None)}" if None in outcomes else ""
        conclusion = f"holds in {outcomes.count(True)} of {len(arms)} settings{untold}"
    evidence = tuple(f"{arm.group}: {text}." for arm, (_, text) in zip(arms, judged, strict=True))
    return Verdict(claim, conclusion, evidence)


def _compare_activations(summary: Summary, claim: str, ours: str, theirs: str) -> Verdict | None:
    pairs = _pairs(summary, ours, theirs)
    if not pairs:
        return None
    differences = [compare(a.by_seed(gain), b.by_seed(gain)) for a, b in pairs]
    evidence = tuple(
        f"{a.group}: {ours} against {theirs} {_difference(difference, summary.unit)}{_lost(a, b)}."
        for (a, b), difference in zip(pairs, differences, strict=True)
    )
    return Verdict(claim, _count([_outcome(d) for d in differences], "better", "worse"), evidence)


def _pairs(summary: Summary, ours: str, theirs: str) -> list[tuple[ArmSummary, ArmSummary]]:
    pairs = []
    for arms in summary.groups.values():
        by_name = {arm.arm.activation: arm for arm in arms if arm.runs}
        if ours in by_name and theirs in by_name:
            pairs.append((by_name[ours], by_name[theirs]))
    return pairs


def _outcome(difference: Estimate | None) -> int | None:
    """Return the sign of a difference, 0 for a tie, or None where there are too few seeds to tell."""
    if difference is None or difference.count == 1:
        return None
    if is_tie(difference):
        return 0
    return 1 if difference.mean > 0 else -1


def _count(outcomes: list[int | None], better: str, worse: str) -> str:
    if not outcomes:
        return "no runs to compare"
    words = {better: 1, "a tie": 0, worse: -1, "too few seeds to tell": None}
    counts = {word: outcomes.count(outcome) for word, outcome in words.items()}
    told = [(word, count) for word, count in counts.items() if count]
    if len(told) == 1:
        return f"{told[0][0]} in all {len(outcomes)} comparisons" if len(outcomes) > 1 else told[0][0]
    return ", ".join(f"{word} in {count}" for word, count in told) + f" of {len(outcomes)} comparisons"


def _difference(difference: Estimate | None, unit: str) -> str:
    if difference is None:
        return "cannot be compared"
    outcome = _outcome(difference)
    note = " (one seed: cannot be told)" if outcome is None else "" if outcome else " (a tie)"
    return f"{difference:+.2f} {unit}{note}"


def _lost(*arms: ArmSummary) -> str:
    """Name the arms of which some runs diverged: the others, in their means, are the luckier ones."""
    return "".join(f"; of {arm.arm.name} {arm.lost}" for arm in arms if arm.runs and arm.lost)


def _percent(share: Estimate) -> str:
    return f"{dataclasses.replace(share, mean=100 * share.mean, low=100 * share.low, high=100 * share.high):.1f} %"


def _value(field: str, arm: Arm | object) -> str:
    value = getattr(arm, field) if isinstance(arm, Arm) else arm
    if field == "skips":
        return "with skips" if value else "without skips"
    return str(value)


def _in_words(arm: Arm, summary: Summary, without: str) -> str:
    """Name an arm by its activation and what it is crossed with, but for one field."""
    if summary.settings.crossed == [without]:
        return arm.activation
    return f"{arm.activation}, {group_in_words(arm, summary.settings, without)}"
