"""What a judge says of probes, against what is known of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata

from ..base.coco import Coco, by_image
from ..base.errors import UserError
from ..base.settings import Prices
from ..calibration import Fitted, logit, weakest
from ..labels import taken
from ..matching import all_right, matched

Row = dict[str, Any]
BINS = np.linspace(0, 1, 11)


def measure(
    pool: Coco, proposals: list[Row], truth: Coco, verdicts: list[Row], at: float, prices: Prices
) -> tuple[Row, list[Row], list[Row]]:
    """Measure a judge on probes.

    Args:
        pool, proposals, truth: see `vlm_itl.judging.probes`.
        verdicts: the judge's, on that pool.
        at: mask IoU from which on a proposal is right.
        prices: what errors cost.

    Returns:
        Numbers: share of right probes and of approvals, `auroc` and `brier` of P(approve) (null where the judge gives none), by kind, class
        and number of instances; the same of single masks where the judge gives P for each; the threshold with the least cost. Rows of the
        curve P(approve | IoU of the changed mask), and of the reliability diagram (share of right probes by P(approve)).
    """
    shown, true = by_image(proposals), by_image(truth)
    names = {c["id"]: c["name"] for c in pool["categories"]}
    said = {v["image_id"]: v for v in verdicts}
    rows: list[Row] = []
    masks: list[tuple[float, bool]] = []
    for image in pool["images"]:
        verdict, instances = said[image["id"]], true[image["id"]]
        rows.append({
            "kind": image["kind"], "iou": image.get("iou"), "approve": verdict["approve"], "p": verdict["p_approve"],
            "right": all_right(shown[image["id"]], instances, at), "instances": sum(not a["iscrowd"] for a in instances),
            "classes": {names[a["category_id"]] for a in instances if not a["iscrowd"]},
        })  # fmt: skip
        if verdict.get("p_mask"):
            right = matched(shown[image["id"]], instances, at)
            masks += [(p, r) for p, r in zip(verdict["p_mask"], right) if p is not None]
    sizes = {"1": (1, 1), "2-3": (2, 3), "4+": (4, 10**9)}
    numbers: Row = {
        **_numbers(rows),
        "by_kind": {kind: _numbers([r for r in rows if r["kind"] == kind]) for kind in dict.fromkeys(r["kind"] for r in rows)},
        "by_class": {name: _numbers([r for r in rows if name in r["classes"]]) for name in names.values()},
        "by_instances": {name: _numbers([r for r in rows if low <= r["instances"] <= high]) for name, (low, high) in sizes.items()},
        "threshold": choose_threshold([(r["p"], r["right"]) for r in rows if r["p"] is not None], prices),
    }
    if masks:
        p, good = np.array([m[0] for m in masks]), np.array([m[1] for m in masks])
        numbers["masks"] = {"probes": len(masks), "right": _round(good.mean()), "auroc": auroc(p, good), "brier": brier(p, good)}
    curve, reliability = [], []
    for low, high in itertools.pairwise(BINS.tolist()):
        graded = [r for r in rows if r["iou"] is not None and low < r["iou"] <= high]
        if graded:
            curve.append({
                "iou": _round((low + high) / 2), "approved": _round(np.mean([r["approve"] for r in graded])), "probes": len(graded),
                "p_approve": _round(np.mean([r["p"] for r in graded])) if all(r["p"] is not None for r in graded) else None,
            })  # fmt: skip
        binned = [r for r in rows if r["p"] is not None and (low < r["p"] <= high or low == r["p"] == 0)]
        if binned:
            p_mean, share = np.mean([r["p"] for r in binned]), np.mean([r["right"] for r in binned])
            reliability.append({"p_approve": _round(p_mean), "right": _round(share), "probes": len(binned)})
    return numbers, curve, reliability


def _numbers(rows: list[Row]) -> Row:
    given = [(r["p"], r["right"]) for r in rows if r["p"] is not None]
    p, right = np.array([g[0] for g in given], dtype=float), np.array([g[1] for g in given], dtype=bool)
    return {
        "probes": len(rows),
        "right": _round(np.mean([r["right"] for r in rows])) if rows else None,
        "approved": _round(np.mean([r["approve"] for r in rows])) if rows else None,
        "accuracy": _round(np.mean([r["approve"] == r["right"] for r in rows])) if rows else None,
        "auroc": auroc(p, right),
        "brier": brier(p, right),
    }


def auroc(p: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve: P(a right one scores above a wrong one), ties one half (Mann and Whitney 1947). Null for one kind alone."""
    n, m = int(right.sum()), int((~right).sum())
    if not n or not m:
        return None
    return _round((rankdata(p)[right].sum() - n * (n + 1) / 2) / (n * m))


def brier(p: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """Mean squared difference of probability and outcome (Brier 1950); 0 is perfect, .25 a coin that knows it. Null for none."""
    return _round(np.mean((p - right) ** 2)) if len(p) else None


def fit_calibration(p: NDArray[np.float64], right: NDArray[np.bool_]) -> Fitted:
    """Scale and shift of the logits that make probabilities fit what came out best.

    Temperature scaling (Guo et al., ICML 2017) with a shift, as Platt (1999) has it, since a model may lean to one option. By maximum
    likelihood with a weak pull towards no change (a prior of standard deviation 2 on both), so that few or separable probes give no
    certainty. Right and wrong ones weigh alike in sum: nine in ten masks of the probes are right, of a pool's nobody knows how many. No
    change where there is one outcome only.
    """
    if not len(p) or right.all() or not right.any():
        return Fitted()
    x, y = logit(p), right.astype(float)
    weight = np.where(right, 0.5 / right.mean(), 0.5 / (1 - right.mean()))

    def cost(parameters: NDArray[np.float64]) -> float:
        z = parameters[0] * x + parameters[1]
        return float(np.sum(weight * (np.logaddexp(0, z) - y * z)) + ((parameters[0] - 1) ** 2 + parameters[1] ** 2) / 8)

    scale, shift = minimize(cost, np.array([1.0, 0.0]), bounds=[(0.01, None), (None, None)]).x
    return Fitted(round(float(scale), 4), round(float(shift), 4))


def expected_calibration_error(p: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """Mean distance of probability and share of right ones over ten bins of equal width, weighted by their size (Guo et al. 2017)."""
    if not len(p):
        return None
    bins = np.minimum((p * 10).astype(int), 9)
    return _round(sum(abs(p[bins == b].sum() - right[bins == b].sum()) for b in range(10)) / len(p))


def calibrate(pool: Coco, proposals: list[Row], truth: Coco, verdicts: list[Row], at: float, prices: Prices) -> Row:
    """What makes a judge of single masks calibrated: scale and shift for its two questions, and the thresholds that cost least.

    Returns:
        `mask` and `missing`: scale and shift. `threshold`: for approving an image without a person. `reject` and `approve`: below the one
        it is rejected, from the other on approved, between them a person is asked. Both with what they cost a probe, at `prices`.

    Raises:
        UserError: the verdicts hold no probabilities of single masks.
    """
    shown, true = by_image(proposals), by_image(truth)
    masks: list[tuple[float, bool]] = []
    missing: list[tuple[float, bool]] = []
    asked = [
        (v, all_right(taken(shown[v["image_id"]], v["accepted"]), true[v["image_id"]], at))
        for v in verdicts if v.get("p_mask") is not None
    ]  # fmt: skip
    for v, right in asked:
        rows, instances = shown[v["image_id"]], true[v["image_id"]]
        masks += [(p, r) for p, r in zip(v["p_mask"], matched(rows, instances, at)) if p is not None]
        if v.get("p_missing") is not None:
            missing.append((v["p_missing"], right))
    if not masks or not missing:
        raise UserError("these verdicts hold no P(approve) of single masks; calibration needs a judge with unit: instance")
    fitted = {name: fit_calibration(*_columns(pairs)) for name, pairs in (("mask", masks), ("missing", missing))}
    images = [(weakest(v["p_mask"], v["accepted"], v.get("p_missing"), fitted["mask"], fitted["missing"]), right) for v, right in asked]
    alone = choose_threshold(images, prices)
    assert alone is not None
    return {
        **{name: {"scale": f.scale, "shift": f.shift} for name, f in fitted.items()},
        "threshold": alone["threshold"], "cost": alone["cost"], "cost_always": alone["cost_always"], "cost_never": alone["cost_never"],
        **choose_bands(images, prices),
    }  # fmt: skip


def _columns(pairs: list[tuple[float, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return np.array([p for p, _ in pairs], dtype=float), np.array([r for _, r in pairs], dtype=bool)


def choose_bands(pairs: list[tuple[float, bool]], prices: Prices) -> Row:
    """Two thresholds on P(approve) that cost least on these probes, where a person answers between them for `prices.question` and is right.

    Of several that cost the same, those that ask least.
    """
    p, right = _columns(sorted(pairs))
    n = len(p)
    wrong_above = (~right).sum() - np.concatenate([[0], np.cumsum(~right)])
    right_below = np.concatenate([[0], np.cumsum(right)])
    allowed = [k for k in range(n + 1) if k in (0, n) or p[k - 1] < p[k]]
    best = min(
        ((right_below[low] * prices.needless_rejection + (high - low) * prices.question + wrong_above[high] * prices.wrong_approval,
          high - low, low, high) for low in allowed for high in allowed if low <= high),
    )  # fmt: skip
    cost, asked, low, high = best

    def between(k: int) -> float:
        return 0.0 if k == 0 else 1.0001 if k == n else _round((p[k - 1] + p[k]) / 2)

    return {"reject": between(low), "approve": between(high), "bands_cost": _round(cost / n), "asked": _round(asked / n)}


def choose_threshold(pairs: list[tuple[float, bool]], prices: Prices) -> Row | None:
    """The threshold on P(approve) that costs least on these probes, its cost per probe, and that of approving and of rejecting everything.

    Of several that cost the same, the middle of the highest range. Null without probabilities.
    """
    if not pairs:
        return None
    pairs = sorted(pairs)
    p, right = np.array([x for x, _ in pairs]), np.array([r for _, r in pairs], dtype=bool)
    # rejecting the k lowest, for every k: needless rejections below, wrong approvals above
    right_below = np.concatenate([[0], np.cumsum(right)])
    wrong_above = (~right).sum() - np.concatenate([[0], np.cumsum(~right)])
    cost = right_below * prices.needless_rejection + wrong_above * prices.wrong_approval
    allowed = np.array([k == 0 or k == len(p) or p[k - 1] < p[k] for k in range(len(p) + 1)])
    best = max(k for k in range(len(p) + 1) if allowed[k] and cost[k] <= cost[allowed].min() + 1e-9)
    low, high = (p[best - 1] if best else 0.0), (p[best] if best < len(p) else 1.0)
    n = len(p)
    return {
        "threshold": _round(min(1.0, (low + high) / 2 if 0 < best < n else (1.0 if best else 0.0))), "cost": _round(cost[best] / n),
        "cost_always": _round(cost[0] / n), "cost_never": _round(cost[n] / n),
    }  # fmt: skip


def _round(x: Any) -> float:
    return round(float(x), 4)
