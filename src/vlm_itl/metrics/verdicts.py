"""All of `metrics/comparison.json`: can the experiment tell judges apart, does approval pay, and is an arm no worse than the reference?

The questions stand in that order, since an answer to a later one counts only by the earlier ones (docs/method.md, "The order of proof").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from vlm_itl.core.runs import chain, drawing_nothing, drawing_runs, idle
from vlm_itl.metrics.compare import Sampled, Seeds, compare, holm, last_run_of, last_runs, number, pairs, too_few_images
from vlm_itl.metrics.curve import Against, Curve, against, hours_at, price_name
from vlm_itl.metrics.matches import same_images
from vlm_itl.settings import Compare, Judge, Run, Seconds

Row = dict[str, Any]
BLIND = "this experiment does not tell judges apart"


@dataclass(frozen=True)
class Plan:
    """Who is held against whom.

    Attributes:
        arms: {last run of an arm: the reference arm's run that it is held against}.
        reference: the reference arm's last run, if it begins at `start`; None where there is none.
        control: the negative control's run, a key of `arms`; None where there is none.
        drawing: runs of the drawing curve, the one that draws nothing first (`drawing_nothing`).
        judged: last runs of the other arms, the reference among them: those that are held against the curve.
        no_reference, no_control: why there is none, in words.
    """

    arms: dict[str, str]
    reference: str | None
    control: str | None
    drawing: list[str]
    judged: list[str]
    no_reference: str | None = None
    no_control: str | None = None

    @property
    def nothing_drawn(self) -> str:
        """The run that adds no labels; the reference has to end above it."""
        return self.drawing[0]

    @property
    def runs(self) -> list[str]:
        """All runs whose models are needed."""
        named = [*self.arms, *self.arms.values(), *([self.reference] if self.reference else []), *self.drawing, *self.judged]
        return list(dict.fromkeys(named))


def plan(runs: Mapping[str, Run], judges: Mapping[str, Judge], settings: Compare) -> Plan:
    """The plan that follows from `runs`, where no run is known by its name."""
    arms = pairs(runs, settings.reference)
    reference, control = last_run_of(runs, settings.reference), last_run_of(runs, settings.negative_control)
    drawn = drawing_runs(runs, judges)
    no_reference = no_control = None
    if reference is None:
        no_reference = f"no arm of the judge '{settings.reference}' in runs"
    elif runs[chain(runs, reference)[0]].prev != "start":
        no_reference, reference = f"the arm of '{settings.reference}' does not begin at start", None
    if settings.negative_control is None:
        no_control = "compare.negative_control is null"
    elif control is None or control not in arms:
        no_control, control = f"no arm of the judge '{settings.negative_control}' in runs", None
    curve = dict.fromkeys([drawing_nothing(runs, judges), *(run for run in drawn if not idle(runs, run))])
    return Plan(arms, reference, control, list(curve), [r for r in last_runs(runs) if r not in drawn], no_reference, no_control)


def planned(comparison: Row) -> Plan | None:
    """The plan by which a comparison was made, or None of one that an earlier version wrote."""
    try:
        found = TypeAdapter(Plan).validate_json(json.dumps(comparison.get("plan")), strict=True)
    except ValidationError:
        return None
    return found if found.drawing and (found.control is None or found.control in found.arms) else None


@dataclass(frozen=True)
class Contrast:
    """A difference that the experiment has to show: `run` - `against`."""

    run: str
    against: str
    difference: float | None
    low: float | None
    high: float | None
    shown: bool  # that its whole interval lies on its side of 0, beyond the margin


@dataclass(frozen=True)
class Assay:
    """Assay sensitivity (ICH E10, 2000, section 1.5): could this experiment have told a good judge from a bad one?

    Attributes:
        sensitive: the reference is above the run that draws nothing and the negative control below the reference, each by more than the
            margin, with its whole interval. An experiment that cannot show so much would pass a useless judge, too. False where one of them
            is not; None where none fails and one is missing: then it was not shown.
        reason: why it is not, or was not shown, in words.
        reference, negative_control: the two; None where one is missing.
    """

    sensitive: bool | None
    reason: str | None
    reference: Contrast | None
    negative_control: Contrast | None


Answer = Literal["yes", "no", "cannot tell"]


@dataclass(frozen=True)
class _Arm:
    """A row of `arms`: `compare` and `correct`."""

    against: str
    mask_AP: float | None
    against_mask_AP: float | None
    difference: float | None
    low: float | None
    high: float | None
    standard_error: float | None
    p: float | None
    p_worse: float | None
    p_holm: float | None
    answer: Answer
    answer_holm: Answer | None
    reason: str | None
    images_needed: int | None
    seeds_needed: int | None
    images: int
    seeds: int
    resampled: str
    margin: float
    level: float
    power: float
    replicates: int


@dataclass(frozen=True)
class _Point:
    hours: float
    mask_AP: float | None


@dataclass(frozen=True)
class _Judged:
    mask_AP: float | None
    prices: dict[str, Against]


@dataclass(frozen=True)
class _Drawing:
    reason: str | None
    paid: str
    points: dict[str, _Point]
    arms: dict[str, _Judged]


@dataclass(frozen=True)
class _Comparison:
    assay: Assay
    arms: dict[str, _Arm]
    curve: _Drawing
    plan: Plan


def is_comparison(content: Any) -> bool:
    """Whether a file's content is what `verdicts` of this version gives, in every value that a report shows."""
    try:
        found = TypeAdapter(_Comparison).validate_json(json.dumps(content), strict=True)
    except ValidationError:
        return False
    rows: list[_Arm | Contrast] = [*found.arms.values(), *(one for one in (found.assay.reference, found.assay.negative_control) if one)]
    whole = all((row.low is None) == (row.high is None) and (row.low is None or row.difference is not None) for row in rows)
    return whole and all(found.curve.paid in arm.prices for arm in found.curve.arms.values())


def assay(reference: Row | None, control: Row | None, plan: Plan) -> Assay:
    """Judge by the rows of `compare` of the reference against `plan.nothing_drawn` and of the control against the reference."""
    gain = loss = None
    if reference is not None and plan.reference is not None:
        shown = reference["low"] is not None and reference["low"] > reference["margin"]
        gain = _contrast(plan.reference, plan.nothing_drawn, reference, shown)
    if control is not None and plan.control is not None:
        shown = control["high"] is not None and control["high"] < -control["margin"]
        loss = _contrast(plan.control, plan.arms[plan.control], control, shown)
    failed = [
        f"{one.run} is not {word} {one.against} by more than the margin, with its whole interval{_because(row)}"
        for one, word, row in ((gain, "above", reference), (loss, "below", control))
        if one and not one.shown
    ]
    if failed:
        return Assay(False, "; ".join(failed), gain, loss)
    missing = [why for one, why in ((gain, plan.no_reference), (loss, plan.no_control)) if one is None and why]
    return Assay(None if missing else True, "; ".join(missing) or None, gain, loss)


def _contrast(run: str, other: str, row: Row, shown: bool) -> Contrast:
    return Contrast(run, other, row["difference"], row["low"], row["high"], shown)


def _because(row: Row | None) -> str:
    return f" ({row['reason']})" if row and row["reason"] else ""


def verdicts(
    plan: Plan, models: Mapping[str, Seeds], costs: Mapping[str, Mapping[Any, Row]], settings: Compare, seconds: Seconds,
    verify_seconds: Iterable[float],
) -> Row:  # fmt: skip
    """The content of `metrics/comparison.json` (docs/architecture.md, "Statistics").

    Args:
        models: {run: {seed: matches}} of `plan.runs`.
        costs: {run: {seed: its file of metrics/cost}} of `plan.drawing` and `plan.judged`.
        seconds: the prices that are paid.
        verify_seconds: other prices of a decision.

    Raises:
        UserError: the runs were tested on different images, or with different seeds.
    """
    same_images([one for run in plan.runs for one in models[run].values()])
    sampled = {run: Sampled(models[run], settings) for run in plan.runs}
    compared = tqdm(plan.arms.items(), desc="comparing", unit="arm", disable=None)
    rows = {run: compare(sampled[run], sampled[other], settings) for run, other in compared}
    gain = compare(sampled[plan.reference], sampled[plan.nothing_drawn], settings) if plan.reference else None
    sensitive = assay(gain, rows[plan.control] if plan.control else None, plan)
    correct(rows, [run for run in rows if run in plan.judged and run != plan.control], settings.level)
    curve = against_drawing(plan, sampled, costs, settings, seconds, sorted({seconds.verify, *verify_seconds}))
    if sensitive.sensitive is False:
        for row in rows.values():
            row |= {"answer": "cannot tell", "answer_holm": row["answer_holm"] and "cannot tell", "reason": row["reason"] or BLIND}
        for arm in curve["arms"].values():
            for row in arm["prices"].values():
                row["answer"] = "cannot tell"
    return {
        "assay": asdict(sensitive),
        "arms": {run: {"against": other, **rows[run]} for run, other in plan.arms.items()},
        "curve": curve,
        "plan": asdict(plan),
    }


def correct(rows: Mapping[str, Row], questions: list[str], level: float) -> None:
    """Add `p_holm` and `answer_holm` to the rows: the answer where all `questions` together may err once in (1 - level) / 2.

    `yes` where Holm's adjusted p of `p_worse` is below (1 - level) / 2; `no` where that of 1 - `p_worse` is; else `cannot tell`. Drawing
    runs and the negative control are no questions: theirs are null. An arm without an interval is one, with p = 1.
    """
    tail = (1 - level) / 2
    p = [rows[run]["p_worse"] for run in questions]
    better, worse = holm(p), holm([None if value is None else 1 - value for value in p])
    for row in rows.values():
        row |= {"p_holm": None, "answer_holm": None}
    for run, yes, no in zip(questions, better, worse):
        rows[run] |= {"p_holm": number(yes), "answer_holm": "yes" if yes < tail else "no" if no < tail else "cannot tell"}


def against_drawing(
    plan: Plan, sampled: Mapping[str, Sampled], costs: Mapping[str, Mapping[Any, Row]], settings: Compare, seconds: Seconds,
    prices: list[float],
) -> Row:  # fmt: skip
    """Every judged arm against the drawing curve, under each price of a decision: `reason`, `paid`, `points` and `arms`.

    `points` are the curve's runs as they came out, means over seeds; `paid` is the price at which the hours of all other files are.
    """
    nothing = sampled[plan.nothing_drawn]
    seeds = nothing.seeds

    def hours(run: str, verify: float) -> np.ndarray:
        return np.array([hours_at(costs[run][s], seconds.draw, verify) for s in seeds])

    def ap(run: str) -> np.ndarray:
        return np.vstack([sampled[run].ap, sampled[run].replicates])

    found: Row = {
        "reason": None, "paid": price_name(seconds.verify), "arms": {},
        "points": {run: {"hours": number(hours(run, seconds.verify).mean()), "mask_AP": number(sampled[run].ap.mean())}
                   for run in plan.drawing},
    }  # fmt: skip
    if len(plan.drawing) < 2:
        found["reason"] = (
            f"besides {plan.nothing_drawn} no run in which a human draws random images (judge of kind never, policy annotate, from start)"
        )
        return found
    if any(np.isnan(sampled[run].ap).any() for run in plan.drawing):
        found["reason"] = "no test image shows an instance"
        return found
    found["reason"] = too_few_images(nothing.models)
    if found["reason"]:
        return found
    drawn = {run: ap(run) for run in plan.drawing}
    for verify in prices:
        places = np.stack([hours(run, verify) for run in plan.drawing])  # (runs, seeds)
        curves = [Curve.through(places[:, k], np.stack([drawn[run][:, k] for run in plan.drawing], axis=1)) for k in range(len(seeds))]
        if any(curve is None for curve in curves):
            found["reason"] = "the drawing runs took no more hours than the initial labels"
            return found
        whole = [curve for curve in curves if curve is not None]
        for run in plan.judged:
            row = asdict(against(whole, hours(run, verify), ap(run), settings.level))
            row["hours"] = number(row["hours"])
            arm = found["arms"].setdefault(run, {"mask_AP": number(sampled[run].ap.mean()), "prices": {}})
            arm["prices"][price_name(verify)] = row
    return found
