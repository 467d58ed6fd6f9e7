"""What a judge says of probes, against what is known of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.errors import UserError
from vlm_itl.core.matching import all_right, rightness
from vlm_itl.judges.calibration import Calibrated, Fitted, weakest
from vlm_itl.judges.verdict import Verdict, check_about
from vlm_itl.loop.accepted import accepted_proposals

if TYPE_CHECKING:
    from vlm_itl.settings import Prices

Row = dict[str, Any]
Numbers = NDArray[np.float64]
BINS = np.linspace(0, 1, 11)
FOLDS = 10  # of cross-validation, by source image
SURE = 1.645  # standard errors by which thresholds must save, held out: 5 % one-sided


def measure(
    pool: Coco, proposals: list[Row], truth: Coco, verdicts: list[Verdict], at: float, prices: Prices
) -> tuple[Row, list[Row], list[Row]]:
    """Measure a judge on probes.

    Args:
        pool, proposals, truth: see `vlm_itl.probes.making`.
        verdicts: the judge's, on that pool; what it was not asked about does not count.
        at: mask IoU from which on a proposal is right.
        prices: what errors cost.

    Returns:
        Numbers: share of right probes and of approvals, `auroc` and `brier` of P(approve) (null where the judge gives none), by kind, class
        and number of instances; the same of single masks where the judge gives P for each, without those on ignored regions; the threshold
        with the least cost (`threshold_numbers`). Rows of the curve P(approve | IoU of the changed mask), and of the reliability diagram
        (share of right probes by P(approve)).
    """
    shown, true = by_image(proposals), by_image(truth)
    check_about(verdicts, shown, pool["images"])
    names = {c["id"]: c["name"] for c in pool["categories"]}
    said = {v.image_id: v for v in verdicts}
    rows: list[Row] = []
    masks: list[tuple[float, bool]] = []
    for image in pool["images"]:
        verdict, instances = said[image["id"]], true[image["id"]]
        if not verdict.asked:  # a person has not answered yet
            continue
        rows.append({
            "kind": image["kind"], "iou": image.get("iou"), "approve": verdict.approve, "log_odds": verdict.log_odds,
            "p": None if verdict.log_odds is None else float(expit(verdict.log_odds)), "source": image["source_id"],
            "right": all_right(shown[image["id"]], instances, at), "instances": sum(not a["iscrowd"] for a in instances),
            "classes": {names[a["category_id"]] for a in instances if not a["iscrowd"]},
        })  # fmt: skip
        if verdict.log_odds_mask:
            right = rightness(shown[image["id"]], instances, at)
            masks += [(x, r) for x, r in zip(verdict.log_odds_mask, right, strict=True) if x is not None and r is not None]
    sizes = {"1": (1, 1), "2-3": (2, 3), "4+": (4, 10**9)}
    numbers: Row = {
        **_numbers(rows),
        "by_kind": {kind: _numbers([r for r in rows if r["kind"] == kind]) for kind in dict.fromkeys(r["kind"] for r in rows)},
        "by_class": {name: _numbers([r for r in rows if name in r["classes"]]) for name in names.values()},
        "by_instances": {name: _numbers([r for r in rows if low <= r["instances"] <= high]) for name, (low, high) in sizes.items()},
        "threshold": threshold_numbers([(r["log_odds"], r["right"], r["source"]) for r in rows if r["log_odds"] is not None], prices),
    }
    if masks:
        x, good = _columns(masks)
        numbers["masks"] = {"probes": len(masks), "right": _round(good.mean()), "auroc": auroc(x, good), "brier": brier(expit(x), good)}
    curve = []
    for low, high in itertools.pairwise(BINS.tolist()):
        graded = [r for r in rows if r["iou"] is not None and low < r["iou"] <= high]
        if graded:
            curve.append({
                "iou": _round((low + high) / 2), "approved": _round(np.mean([r["approve"] for r in graded])), "probes": len(graded),
                "p_approve": _round(np.mean([r["p"] for r in graded])) if all(r["p"] is not None for r in graded) else None,
            })  # fmt: skip
    return numbers, curve, reliability(*_columns([(r["p"], r["right"]) for r in rows if r["p"] is not None]))


def _numbers(rows: list[Row]) -> Row:
    x, right = _columns([(r["log_odds"], r["right"]) for r in rows if r["log_odds"] is not None])
    return {
        "probes": len(rows),
        "right": _round(np.mean([r["right"] for r in rows])) if rows else None,
        "approved": _round(np.mean([r["approve"] for r in rows])) if rows else None,
        "accuracy": _round(np.mean([r["approve"] == r["right"] for r in rows])) if rows else None,
        "auroc": auroc(x, right),
        "brier": brier(expit(x), right),
    }


def auroc(score: Numbers, right: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve: P(a right one scores above a wrong one), ties one half (Mann and Whitney 1947). Null for one kind alone.

    Scores of any scale; of a judge its log-odds, since probabilities of a sure one are rounded to ties.
    """
    from sklearn.metrics import roc_auc_score  # half a second, which only those who measure wait for

    if right.all() or not right.any():
        return None
    return _round(round(float(roc_auc_score(right, score)), 12))  # few pairs give fractions half-way between two of four digits


def brier(p: Numbers, right: NDArray[np.bool_]) -> float | None:
    """Mean squared difference of probability and outcome (Brier 1950); 0 is perfect, .25 a coin that knows it. Null for none."""
    from sklearn.metrics import brier_score_loss

    return _round(brier_score_loss(right, p)) if len(p) else None


def reliability(p: Numbers, right: NDArray[np.bool_]) -> list[Row]:
    """Mean probability, share of right ones and number in each of the `BINS` that has any; a bin has its upper end, the first both."""
    from sklearn.calibration import calibration_curve

    if not len(p):
        return []
    shares, means = calibration_curve(right, p, n_bins=len(BINS) - 1)
    sizes = np.unique(np.searchsorted(BINS[1:-1], p), return_counts=True)[1]
    return [
        {"p_approve": _round(mean), "right": _round(share), "probes": int(size)}
        for mean, share, size in zip(means, shares, sizes, strict=True)
    ]


def fit_calibration(log_odds: Numbers, right: NDArray[np.bool_]) -> Fitted:
    """Scale and shift of log-odds that fit what came out best.

    Temperature scaling (Guo et al., ICML 2017) with a shift, as Platt (1999) has it, since a model may lean to one option. By maximum
    likelihood with a weak pull towards no change (a prior of standard deviation 2 on both), so that few or separable probes give no
    certainty. Right and wrong ones weigh alike in sum: nine in ten masks of the probes are right, of a pool's nobody knows how many. No
    change where there is one outcome only.
    """
    if not len(log_odds) or right.all() or not right.any():
        return Fitted()
    y = right.astype(float)
    weight = np.where(right, 0.5 / right.mean(), 0.5 / (1 - right.mean()))

    def cost(parameters: Numbers) -> float:
        z = parameters[0] * log_odds + parameters[1]
        return float(np.sum(weight * (np.logaddexp(0, z) - y * z)) + ((parameters[0] - 1) ** 2 + parameters[1] ** 2) / 8)

    scale, shift = minimize(cost, np.array([1.0, 0.0]), bounds=[(0.01, None), (None, None)]).x
    return Fitted(round(float(scale), 4), round(float(shift), 4))


def expected_calibration_error(p: Numbers, right: NDArray[np.bool_]) -> float | None:
    """Mean distance of probability and share of right ones over ten bins of equal width, weighted by their size (Guo et al. 2017)."""
    if not len(p):
        return None
    bins = np.minimum((p * 10).astype(int), 9)
    return _round(sum(abs(p[bins == b].sum() - right[bins == b].sum()) for b in range(10)) / len(p))


@dataclass(frozen=True)
class Probed:
    """What a judge of single masks said of a probe, and what is right."""

    source: int  # id of the image that it was made from
    log_odds: list[float | None]  # of each mask
    accepted: list[bool]
    missing: float | None  # log-odds that nothing is missing beside the accepted masks
    fits: list[bool | None]  # which masks are right; None on ignored regions
    right: bool  # the accepted masks are all that there is


def observations(pool: Coco, proposals: list[Row], truth: Coco, verdicts: list[Verdict], at: float) -> list[Probed]:
    """One for each verdict that decided on single masks."""
    shown, true = by_image(proposals), by_image(truth)
    check_about(verdicts, shown, pool["images"])
    source = {image["id"]: image["source_id"] for image in pool["images"]}
    result = []
    for v in verdicts:
        if v.log_odds_mask is not None and v.accepted is not None:
            rows, instances = shown[v.image_id], true[v.image_id]
            result.append(Probed(
                source[v.image_id], v.log_odds_mask, v.accepted, v.log_odds_missing, rightness(rows, instances, at),
                all_right(accepted_proposals(rows, v.accepted), instances, at),
            ))  # fmt: skip
    return result


def calibrate(probes: list[Probed], prices: Prices, judge: str) -> Row:
    """What makes a judge of single masks calibrated: scale and shift for its two questions, and the thresholds that cost least.

    The masks that it accepts are those that it accepted here: a calibrated judge asks the same questions, and decides otherwise on images
    only.

    Args:
        judge: its name, for messages.

    Returns:
        `mask` and `missing`: scale and shift. `threshold`: of log-odds, for approving an image without a person. `reject` and `approve`:
        below the one it is rejected, from the other on approved, between them a person is asked. Null is above all log-odds. Both with what
        they cost a probe at `prices`: `cost`, `bands_cost` on the very probes, which flatters, `cost_held_out`, `bands_cost_held_out` with
        everything fitted on other source images (`held_out_costs`); and `too_few` (`too_few_probes`).

    Raises:
        UserError: there is nothing to calibrate.
    """
    check(probes, judge)

    def cost(some: list[Probed], by: Calibrated) -> Numbers:
        """(probes, 2): by one threshold, and by two with a person."""
        image = _images(some, by)
        pairs = (by.threshold, by.threshold), (by.reject, by.approve)
        return np.stack([costs(*image, *pair, prices) for pair in pairs], -1)

    by, sources = fit(probes, prices), [p.source for p in probes]
    apparent, held_out = cost(probes, by), held_out_costs(probes, sources, lambda some: fit(some, prices), cost)
    x, right = _images(probes, by)
    return {
        **{name: {"scale": f.scale, "shift": f.shift} for name, f in (("mask", by.mask), ("missing", by.missing))},
        "threshold": _bound(by.threshold), **_cost_numbers(x, right, sources, apparent[:, 0], held_out[:, 0], prices),
        "reject": _bound(by.reject), "approve": _bound(by.approve),
        "bands_cost": _round(apparent[:, 1].mean()), "bands_cost_held_out": _mean(held_out[:, 1]),
        "asked": _round(np.mean((x >= by.reject) & (x < by.approve))),
    }  # fmt: skip


def check(probes: list[Probed], judge: str) -> None:
    """Raises:
    UserError: the judge gave no P(approve) of single masks, or none of completeness, in most cases since it accepted nothing.
    """
    masks, accepted = sum(len(p.log_odds) for p in probes), sum(sum(p.accepted) for p in probes)
    if not any(x is not None for p in probes for x in p.log_odds):
        raise UserError(
            f"params.yaml: calibrations: judge {judge} gave no P(approve) of single masks ({masks:,} asked about); it needs "
            "unit: instance and answer: probability, and answers that can be read"
        )
    if not any(p.missing is not None for p in probes):
        why = (
            f"accepted none of {masks:,} masks, so whether anything is missing was never asked; it may not know these classes"
            if not accepted
            else f"accepted {accepted:,} of {masks:,} masks, but no answer about what is missing gives a P(approve)"
        )
        raise UserError(
            f"params.yaml: calibrations: there is nothing to calibrate: of {len(probes):,} probes judge {judge} {why}. Give it another "
            "model (docs/guides/vlm-judges.md), or take the judges with its thresholds out of calibrations and runs"
        )


def fit(probes: list[Probed], prices: Prices) -> Calibrated:
    """Scales, shifts and thresholds that fit these probes best."""
    masks = [(x, r) for p in probes for x, r in zip(p.log_odds, p.fits, strict=True) if x is not None and r is not None]
    missing = [(p.missing, p.right) for p in probes if p.missing is not None]
    by = Calibrated(fit_calibration(*_columns(masks)), fit_calibration(*_columns(missing)))
    images = _images(probes, by)
    threshold, _ = choose_thresholds(*images, prices, person=False)
    reject, approve = choose_thresholds(*images, prices, person=True)
    return replace(by, threshold=threshold, reject=reject, approve=approve)


def _images(probes: list[Probed], by: Calibrated) -> tuple[Numbers, NDArray[np.bool_]]:
    """Log-odds of each probe as a whole, after a calibration, and whether it is right."""
    return _columns([(weakest(p.log_odds, p.accepted, p.missing, by), p.right) for p in probes])


def choose_thresholds(log_odds: Numbers, right: NDArray[np.bool_], prices: Prices, person: bool) -> tuple[float, float]:
    """(reject below, approve from), equal without a person, that cost least on these probes.

    A person answers between them for `prices.question` and is right. A threshold lies half-way between two probes' log-odds, or at the
    lowest, or, as infinity, above all. Of several that cost the same, those that ask least, then the highest. -inf is always rejected.
    """
    values = np.unique(log_odds[np.isfinite(log_odds)])
    middle = (values[:-1] + values[1:]) / 2
    middle = np.where(middle > values[:-1], middle, values[1:])  # of two neighbouring floats
    t = np.concatenate([values[:1], middle, [inf]])
    under = log_odds[None, :] < t[:, None]
    below, right_below, wrong_above = under.sum(1), (under & right).sum(1), (~under & ~right).sum(1)
    asked = below[None, :] - below[:, None]  # (reject, approve)
    cost = (
        right_below[:, None] * prices.needless_rejection + asked * prices.question + wrong_above[None, :] * prices.wrong_approval
    )  # fmt: skip
    possible = np.triu(np.ones_like(cost, dtype=bool)) if person else np.eye(len(t), dtype=bool)
    best = possible & (cost <= cost[possible].min() + 1e-9)
    best &= asked == asked[best].min()
    reject, approve = max(zip(*np.nonzero(best)))
    return float(t[reject]), float(t[approve])


def costs(log_odds: Numbers, right: NDArray[np.bool_], reject: float, approve: float, prices: Prices) -> Numbers:
    """Of each probe: a wrong approval, a needless rejection, a question to a person, or nothing."""
    approved, rejected = log_odds >= approve, log_odds < reject
    wrong = approved & ~right, rejected & right, ~approved & ~rejected
    prices_of = prices.wrong_approval, prices.needless_rejection, prices.question
    return np.asarray(sum(price * which for price, which in zip(prices_of, wrong)), dtype=float)


T = TypeVar("T")
F = TypeVar("F")


def held_out_costs(probes: list[T], sources: Sequence[int], fit: Callable[[list[T]], F], cost: Callable[[list[T], F], Numbers]) -> Numbers:
    """The cost of each probe with all that is fitted coming from other source images; NaN where there is one source alone.

    Probes of one image share its things, so whole images are left out: `FOLDS` parts of them, or one image each where there are fewer.
    """
    place = {source: k % FOLDS for k, source in enumerate(sorted(set(sources)))}
    result = np.full_like(cost(probes, fit(probes)), np.nan)
    for fold in set(place.values()) if len(place) > 1 else ():
        out = np.array([place[source] == fold for source in sources])
        train, test = ([p for p, is_out in zip(probes, out) if is_out == wanted] for wanted in (False, True))
        result[out] = cost(test, fit(train))
    return result


def _cost_numbers(
    log_odds: Numbers, right: NDArray[np.bool_], sources: Sequence[int], apparent: Numbers, held_out: Numbers, prices: Prices
) -> Row:  # fmt: skip
    lowest = float(np.min(log_odds[np.isfinite(log_odds)], initial=inf))
    always, never = (costs(log_odds, right, t, t, prices) for t in (lowest, inf))
    return {
        "cost": _round(apparent.mean()), "cost_held_out": _mean(held_out),
        "cost_always": _round(always.mean()), "cost_never": _round(never.mean()),
        "probes": len(right), "sources": len(set(sources)),
        "too_few": too_few_probes(min(always, never, key=np.sum) - held_out, sources),
    }  # fmt: skip


def too_few_probes(saved: Numbers, sources: Sequence[int]) -> bool:
    """Whether the probes are too few to say that thresholds chosen by them are worth anything.

    They are if, on source images held out, the thresholds do not save `SURE` standard errors over the cheaper of approving and rejecting
    everything. The standard error is that of a mean of clusters, the source images (Cameron and Miller 2015).

    Args:
        saved: by each probe, held out; NaN counts as nothing.
    """
    saved = np.nan_to_num(saved)
    of = np.unique(sources, return_inverse=True)[1]
    clusters = np.bincount(of, weights=saved - saved.mean())
    error = np.sqrt((clusters**2).sum() * len(clusters) / max(1, len(clusters) - 1)) / len(saved)
    return bool(saved.mean() <= SURE * error)


def threshold_numbers(probes: list[tuple[float, bool, int]], prices: Prices) -> Row | None:
    """The threshold that costs least on (log-odds, right, source image): as `threshold` of P(approve), to be set by hand, and `log_odds`.

    Null: approve nothing. With its cost a probe, apparent and held out, and that of approving and of rejecting everything. None without
    probabilities.
    """
    if not probes:
        return None

    def fit(some: list[tuple[float, bool, int]]) -> float:
        return choose_thresholds(*_columns([p[:2] for p in some]), prices, person=False)[1]

    def cost(some: list[tuple[float, bool, int]], threshold: float) -> Numbers:
        return costs(*_columns([p[:2] for p in some]), threshold, threshold, prices)

    threshold, sources = fit(probes), [source for _, _, source in probes]
    held_out = held_out_costs(probes, sources, fit, cost)
    return {
        "threshold": float(expit(threshold)) if isfinite(threshold) else None, "log_odds": _bound(threshold),
        **_cost_numbers(*_columns([p[:2] for p in probes]), sources, cost(probes, threshold), held_out, prices),
    }  # fmt: skip


def _columns(pairs: Sequence[tuple[float, bool]]) -> tuple[Numbers, NDArray[np.bool_]]:
    return np.array([x for x, _ in pairs], dtype=float), np.array([r for _, r in pairs], dtype=bool)


def _bound(threshold: float) -> float | None:
    """As JSON has it, which knows no infinity."""
    return threshold if isfinite(threshold) else None


def _mean(values: Numbers) -> float | None:
    return None if np.isnan(values).any() else _round(values.mean())


def _round(x: Any) -> float:
    return round(float(x), 4)
