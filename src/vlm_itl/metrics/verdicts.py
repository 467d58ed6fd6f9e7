"""All of `metrics/comparison.json`: can the experiment tell judges apart, does approval pay, and is an arm no worse than the reference?

The questions stand in that order, since an answer to a later one counts only by the earlier ones (docs/method.md, "The order of proof").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from vlm_itl.core.runs import chain, drawing_nothing, drawing_runs, idle
from vlm_itl.metrics.compare import DIGITS, Sampled, Seeds, compare, holm, last_run_of, last_runs, number, pairs, too_few_images
from vlm_itl.metrics.curve import Curve, against, hours_at
from vlm_itl.metrics.hours import Price, price_name
from vlm_itl.metrics.matches import same_images
from vlm_itl.metrics.rows import Against, Arm, Assay, Comparison, Contrast, Drawing, Judged, Place, Plan

if TYPE_CHECKING:
    from vlm_itl.settings import Compare, Judge, Run, Seconds

Row = dict[str, Any]
BLIND = "this experiment does not tell judges apart"


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


def assay(reference: Arm | None, control: Arm | None, plan: Plan) -> Assay:
    """Judge by the rows of `compare` of the reference against `plan.nothing_drawn` and of the control against the reference."""
    gain = loss = None
    if reference is not None and plan.reference is not None:
        gain = _contrast(plan.reference, reference, reference.low is not None and reference.low > reference.margin)
    if control is not None and plan.control is not None:
        loss = _contrast(plan.control, control, control.high is not None and control.high < -control.margin)
    failed = [
        f"{one.run} is not {word} {one.against} by more than the margin, with its whole interval{_because(row)}"
        for one, word, row in ((gain, "above", reference), (loss, "below", control))
        if one and not one.shown
    ]
    if failed:
        return Assay(False, "; ".join(failed), gain, loss)
    missing = [why for one, why in ((gain, plan.no_reference), (loss, plan.no_control)) if one is None and why]
    return Assay(None if missing else True, "; ".join(missing) or None, gain, loss)


def _contrast(run: str, row: Arm, shown: bool) -> Contrast:
    return Contrast(run, row.against, row.difference, row.low, row.high, shown)


def _because(row: Arm | None) -> str:
    return f" ({row.reason})" if row and row.reason else ""


def verdicts(
    plan: Plan, models: Mapping[str, Seeds], costs: Mapping[str, Mapping[Any, Row]], settings: Compare, seconds: Seconds,
    verify_seconds: Iterable[float],
) -> Comparison:  # fmt: skip
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

    def held(run: str, other: str) -> Arm:
        return compare(sampled[run], sampled[other], settings, other)

    rows = {run: held(run, other) for run, other in tqdm(plan.arms.items(), desc="comparing", unit="arm", disable=None)}
    gain = held(plan.reference, plan.nothing_drawn) if plan.reference else None
    sensitive = assay(gain, rows[plan.control] if plan.control else None, plan)
    rows = corrected(rows, [run for run in rows if run in plan.judged and run != plan.control], settings.level)
    curve = against_drawing(plan, sampled, costs, settings, seconds, prices_of(seconds, verify_seconds))
    if sensitive.sensitive is False:
        rows, curve = {run: _blind(row) for run, row in rows.items()}, _blind_curve(curve)
    return Comparison(sensitive, rows, curve, plan)


def prices_of(seconds: Seconds, others: Iterable[float]) -> list[Price]:
    """The price that is paid and the others, each once; a measured one comes last."""
    if seconds.verify == "measured":
        return [*sorted(set(others)), "measured"]
    return [*sorted({seconds.verify, *others})]


def _blind(row: Arm) -> Arm:
    return replace(row, answer="cannot tell", answer_holm=row.answer_holm and "cannot tell", reason=row.reason or BLIND)


def _blind_curve(curve: Drawing) -> Drawing:
    def blind(arm: Judged) -> Judged:
        return replace(arm, prices={price: replace(found, answer="cannot tell") for price, found in arm.prices.items()})

    return replace(curve, arms={run: blind(arm) for run, arm in curve.arms.items()})


def corrected(rows: Mapping[str, Arm], questions: list[str], level: float) -> dict[str, Arm]:
    """The rows with `p_holm` and `answer_holm`: the answer where all `questions` together may err once in (1 - level) / 2.

    `yes` where Holm's adjusted p of `p_worse` is below (1 - level) / 2; `no` where that of 1 - `p_worse` is; else `cannot tell`. Drawing
    runs and the negative control are no questions: theirs are null. An arm without an interval is one, with p = 1.
    """
    tail = (1 - level) / 2
    p = [rows[run].p_worse for run in questions]
    better, worse = holm(p), holm([None if value is None else 1 - value for value in p])
    return dict(rows) | {
        run: replace(rows[run], p_holm=number(yes), answer_holm="yes" if yes < tail else "no" if no < tail else "cannot tell")
        for run, yes, no in zip(questions, better, worse)
    }


def against_drawing(
    plan: Plan, sampled: Mapping[str, Sampled], costs: Mapping[str, Mapping[Any, Row]], settings: Compare, seconds: Seconds,
    prices: list[Price],
) -> Drawing:  # fmt: skip
    """Every judged arm against the drawing curve, under each price of a decision. The curve's runs are means over seeds."""
    nothing = sampled[plan.nothing_drawn]
    seeds = nothing.seeds

    def hours(run: str, verify: Price) -> np.ndarray:
        return np.array([hours_at(costs[run][s], seconds.draw, verify, seconds.correct) for s in seeds])

    def ap(run: str) -> np.ndarray:
        return np.vstack([sampled[run].ap, sampled[run].replicates])

    points = {
        run: Place(round(float(hours(run, seconds.verify).mean()), DIGITS), number(sampled[run].ap.mean())) for run in plan.drawing
    }  # fmt: skip
    without = Drawing(None, price_name(seconds.verify), {}, points)
    if len(plan.drawing) < 2:
        return replace(
            without,
            reason=f"besides {plan.nothing_drawn} no run in which a human draws random images "
            "(judge of kind never, policy annotate, from start)",
        )
    if any(np.isnan(sampled[run].ap).any() for run in plan.drawing):
        return replace(without, reason="no test image shows an instance")
    few = too_few_images(nothing.models)
    if few:
        return replace(without, reason=few)
    drawn = {run: ap(run) for run in plan.drawing}
    found: dict[str, dict[str, Against]] = {run: {} for run in plan.judged}
    for verify in prices:
        places = np.stack([hours(run, verify) for run in plan.drawing])  # (runs, seeds)
        curves = [Curve.through(places[:, k], np.stack([drawn[run][:, k] for run in plan.drawing], axis=1)) for k in range(len(seeds))]
        whole = [curve for curve in curves if curve is not None]
        if len(whole) < len(curves):
            return replace(without, reason="the drawing runs took no more hours than the initial labels")
        for run in plan.judged:
            row = against(whole, hours(run, verify), ap(run), settings.level)
            found[run][price_name(verify)] = replace(row, hours=round(row.hours, DIGITS))
    return replace(without, arms={run: Judged(number(sampled[run].ap.mean()), of_run) for run, of_run in found.items()})
