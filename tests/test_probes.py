"""Probes have known answers, and the numbers drawn from them are right."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from conftest import instance
from pycocotools import mask as mask_util
from scipy.special import expit, logit
from scipy.stats import mannwhitneyu

from vlm_itl.core.coco import decode
from vlm_itl.core.errors import UserError
from vlm_itl.core.matching import all_right
from vlm_itl.judges.calibration import Fitted, finite_log_odds
from vlm_itl.judges.verdict import Verdict
from vlm_itl.probes.making import GRADED, KINDS, grow, iou, make_probes, shift
from vlm_itl.probes.metrics import (
    FOLDS,
    Probed,
    auroc,
    brier,
    calibrate,
    choose_thresholds,
    costs,
    measure,
    observations,
    reliability,
    threshold_numbers,
    too_few_probes,
)
from vlm_itl.settings import HumanJudge, Prices

CATEGORIES = [{"id": 1, "name": "bird"}, {"id": 2, "name": "book"}]


def labels(images: int = 30) -> dict:
    """Every image shows a bird, every other one a book too, every third a second bird; every fifth a crowd."""
    rows = []
    for i in range(1, images + 1):
        rows.append(instance((4, 4, 16, 20), 1, i))
        if i % 2:
            rows.append(instance((26, 8, 18, 24), 2, i))
        if i % 3 == 0:
            rows.append(instance((4, 26, 16, 12), 1, i))
        if i % 5 == 0:
            rows.append(instance((0, 30, 10, 8), 2, i, iscrowd=1))
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 50} for i in range(1, images + 1)],
        "annotations": [{**row, "id": k} for k, row in enumerate(rows, 1)],
        "categories": CATEGORIES,
    }


@pytest.fixture(scope="module")
def probes():
    return make_probes(labels(), per_kind=12, seed=0)


def parts(probes, kind):
    pool, proposals, truth = probes
    for image in pool["images"]:
        if image["kind"] == kind:
            true = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
            yield image, [p for p in proposals if p["image_id"] == image["id"]], true


@pytest.mark.parametrize(
    ("kind", "right"), [("exact", True), ("jitter", True), ("dropped", False), ("duplicated", False), ("wrong class", False)]
)
def test_the_oracle_knows_the_answer(probes, kind, right):
    for _, proposals, truth in parts(probes, kind):
        assert all_right(proposals, truth, 0.6) is right


@pytest.mark.parametrize("kind", ["eroded", "dilated", "shifted"])
def test_changed_masks_are_graded_by_iou(probes, kind):
    ious = []
    for image, proposals, truth in parts(probes, kind):
        true = [a for a in truth if not a["iscrowd"]]
        assert len(proposals) == len(true)
        values = [mask_util.iou([p["segmentation"]], [t["segmentation"]], [0])[0, 0] for p, t in zip(proposals, true)]
        assert sorted(values)[1:] == [1.0] * (len(values) - 1)  # one is changed
        assert min(values) == pytest.approx(image["iou"], abs=1e-4)
        assert all_right(proposals, true, 0.6) == (min(values) >= 0.6)
        ious.append(min(values))
        changed, original = (decode(r[values.index(min(values))]["segmentation"]) for r in (proposals, true))
        if kind == "eroded":
            assert not (changed & ~original).any()
        if kind == "dilated":
            assert not (original & ~changed).any()
    assert min(ious) < 0.5 < max(ious)


def test_seeded_and_independent_of_order():
    data = labels()
    turned = {**data, "images": data["images"][::-1]}
    assert make_probes(data, 5, 1) == make_probes(turned, 5, 1) != make_probes(data, 5, 2)


def test_fewer_images_than_asked_for_and_one_class():
    pool, _, _ = make_probes(labels(2), per_kind=50, seed=0)
    assert {i["source_id"] for i in pool["images"]} == {1, 2}
    one = {**labels(2), "categories": CATEGORIES[:1]}
    one["annotations"] = [a for a in one["annotations"] if a["category_id"] == 1]
    kinds = {i["kind"] for i in make_probes(one, 3, 0)[0]["images"]}
    assert kinds == set(KINDS) - {"wrong class", "dropped", "merged", "spill-over"}  # nothing else to say, to leave, to flow into


def test_shift_and_grow():
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:5] = True
    assert shift(mask, 1, -2)[3:5, 1:3].all()
    assert shift(mask, 1, -2).sum() == 4
    assert not shift(mask, 6, 0).any()
    assert grow(mask, 1).sum() == 16
    assert (grow(grow(mask, 1), -1) == mask).all()
    assert iou(mask, grow(mask, 1)) == 0.25


def test_the_human_judge_is_right_about_all_of_them(probes):
    pool, proposals, truth = probes
    verdicts = HumanJudge(kind="human").verdicts(pool, proposals, truth, 0)
    numbers, curve, reliability = measure(pool, proposals, truth, verdicts, 0.6, Prices())
    assert numbers["accuracy"] == 1
    assert numbers["auroc"] is None  # it gives no probability
    assert numbers["threshold"] is None
    assert reliability == []
    assert {row["approved"] for row in curve if row["iou"] < 0.5} == {0}
    assert curve[-1]["approved"] == 1
    assert set(numbers["by_kind"]) == set(KINDS)
    assert sum(row["probes"] for row in curve) == sum(i["kind"] in GRADED for i in pool["images"])


def masks_of(proposals, image) -> int:
    return sum(row["image_id"] == image["id"] for row in proposals)


def test_probabilities_are_measured(probes):
    """A judge whose P is the IoU of the worst mask: perfect order where only masks change."""
    pool, proposals, truth = probes
    verdicts = [
        Verdict(i["id"], masks_of(proposals, i), True, "model", i.get("iou", 0) >= 0.6, finite_log_odds(i.get("iou", 0.0)))
        for i in pool["images"]
    ]
    numbers, curve, reliability = measure(pool, proposals, truth, verdicts, 0.6, Prices())
    assert numbers["auroc"] == 1
    assert numbers["accuracy"] == 1
    assert 0.5 < numbers["threshold"]["threshold"] < 0.75
    assert numbers["threshold"]["cost"] == 0
    assert [row["p_approve"] for row in curve] == sorted(row["p_approve"] for row in curve)
    assert sum(row["probes"] for row in reliability) == len(pool["images"])
    assert "masks" not in numbers  # it said nothing of single ones


@pytest.mark.parametrize("seed", range(20))
def test_auroc_brier_and_reliability_by_hand(seed):
    """Of every pair, of every probe and of every bin, in exact fractions; few values, so that there are ties."""
    dice = random.Random(seed)
    n = dice.choice([2, 7, 40])
    x = [dice.randint(-6, 6) / 4 for _ in range(n)]
    right = [True, False, *(dice.random() < 0.4 for _ in range(n - 2))]
    pairs = [Fraction(1 + (a > b) - (a < b), 2) for a, r in zip(x, right) for b, q in zip(x, right) if r and not q]
    assert auroc(np.array(x), np.array(right)) == round(float(sum(pairs) / len(pairs)), 4)
    p = [float(expit(v)) for v in x]
    squares = [(Fraction(v) - r) ** 2 for v, r in zip(p, right)]
    assert brier(np.array(p), np.array(right)) == round(float(sum(squares) / n), 4)
    bins = [[(Fraction(v), r) for v, r in zip(p, right) if k / 10 < v <= (k + 1) / 10] for k in range(10)]
    assert reliability(np.array(p), np.array(right)) == [
        {
            "p_approve": round(float(sum(v for v, _ in b) / len(b)), 4), "right": round(sum(r for _, r in b) / len(b), 4), "probes": len(b),
        } for b in bins if b
    ]  # fmt: skip


@pytest.mark.parametrize(("x", "right"), [([], []), ([0.2, 0.4], [True, True]), ([0.2, 0.4], [False, False])])
def test_one_outcome_alone_has_no_auroc(x, right):
    p, known = np.array(x, dtype=float), np.array(right, dtype=bool)
    assert auroc(p, known) is None
    assert brier(p, known) == {(): None, (True, True): 0.5, (False, False): 0.1}[tuple(right)]
    assert [(row["p_approve"], row["right"]) for row in reliability(p, known)] == list(zip(x, map(float, right)))


def test_a_probability_on_the_edge_of_two_bins_is_in_the_lower_one():
    rows = reliability(np.array([0.0, 0.1, 0.5, 0.55, 1.0]), np.array([True, False, True, True, False]))
    assert [(row["p_approve"], row["right"], row["probes"]) for row in rows] == [(0.05, 0.5, 2), (0.5, 1, 1), (0.55, 1, 1), (1, 0, 1)]


def by_hand(x, right, low, high, prices) -> float:
    """Cost of rejecting below `low`, approving from `high` on and asking between them."""
    cost = 0.0
    for value, is_right in zip(x, right):
        if value >= high:
            cost += 0 if is_right else prices.wrong_approval
        elif value < low:
            cost += prices.needless_rejection if is_right else 0
        else:
            cost += prices.question
    return cost / len(x)


@pytest.mark.parametrize("person", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_the_thresholds_cost_least(seed, person):
    rng = np.random.default_rng(seed)
    right = rng.random(30) < 0.5
    x = np.round(2 * (right - 0.5) + rng.normal(0, 2, 30), 1)
    prices = Prices(
        wrong_approval=float(rng.integers(0, 8)), needless_rejection=float(rng.integers(1, 5)), question=float(rng.choice([0.2, 0.7, 9]))
    )
    low, high = choose_thresholds(x, right, prices, person)
    possible = [*np.unique(x), np.inf]
    brute = min(by_hand(x, right, a, b, prices) for a in possible for b in possible if (a <= b if person else a == b))
    assert by_hand(x, right, low, high, prices) == pytest.approx(brute)
    assert costs(x, right, low, high, prices).mean() == pytest.approx(brute)
    if not person:
        assert low == high
        numbers = threshold_numbers(list(zip(x.tolist(), right.tolist(), range(30))), prices)
        assert numbers["cost"] == pytest.approx(brute, abs=1e-4)
        assert numbers["cost_always"] == pytest.approx(by_hand(x, right, -99, -99, prices), abs=1e-4)
        assert numbers["cost_never"] == pytest.approx(by_hand(x, right, np.inf, np.inf, prices), abs=1e-4)
        assert (numbers["log_odds"] is None) == (low == np.inf)


def test_a_saturated_judge_keeps_its_order():
    """P(approve) is above .999 for nearly all: to four digits it is a tie, its log-odds are not."""
    rng = np.random.default_rng(0)
    right = np.arange(200) % 2 == 0
    x = np.where(right, 12.0, 9.0) + rng.normal(0, 2, 200)
    rounded = np.round(expit(x), 4)
    true = mannwhitneyu(x[right], x[~right]).statistic / 100**2
    assert auroc(x, right) == pytest.approx(true, abs=1e-4) == pytest.approx(0.8316, abs=1e-4)
    assert auroc(rounded, right) < 0.76  # as it was
    numbers = threshold_numbers(list(zip(x.tolist(), right.tolist(), range(200))), Prices())
    assert numbers["cost"] == 0.345 < 0.5 == numbers["cost_never"]  # as it was: reject all, .5
    # set by hand, as a probability, it decides as its log-odds do
    assert ((expit(x) >= numbers["threshold"]) == (x >= numbers["log_odds"])).all()
    assert logit(numbers["threshold"]) > 12
    assert numbers["threshold"] < 1


def test_a_threshold_that_nothing_reaches_is_null():
    numbers = threshold_numbers([(40.0, False, 1), (39.0, True, 2), (50.0, False, 3)], Prices(wrong_approval=50))
    assert (numbers["threshold"], numbers["log_odds"], numbers["cost"]) == (None, None, numbers["cost_never"])
    # everything right: from the least sure one on
    assert threshold_numbers([(-3.0, True, 1), (2.0, True, 2)], Prices())["log_odds"] == -3
    # what was asked nothing about is never approved, however dear that is
    assert choose_thresholds(np.array([-np.inf, -np.inf]), np.array([True, True]), Prices(), person=False) == (np.inf, np.inf)
    assert threshold_numbers([], Prices()) is None


def test_neighbouring_floats_are_parted():
    x = np.array([1.0, np.nextafter(1.0, 2)])
    low, _ = choose_thresholds(x, np.array([False, True]), Prices(), person=False)
    assert (x >= low).tolist() == [False, True]


def test_held_out_costs_are_of_other_source_images():
    """Against loops by hand: the threshold of each fold comes from the other folds."""
    rng = np.random.default_rng(3)
    sources = rng.integers(100, 123, 80)
    right = rng.random(80) < 0.5
    x = 1.5 * right + rng.normal(0, 1, 80)
    prices = Prices()
    numbers = threshold_numbers(list(zip(x.tolist(), right.tolist(), sources.tolist())), prices)
    order = sorted(set(sources.tolist()))
    total = 0.0
    for fold in range(FOLDS):
        out = np.isin(sources, order[fold::FOLDS])
        low, high = choose_thresholds(x[~out], right[~out], prices, person=False)
        total += by_hand(x[out], right[out], low, high, prices) * out.sum()
    assert numbers["cost_held_out"] == pytest.approx(total / 80, abs=1e-4)
    assert numbers["cost_held_out"] > numbers["cost"]
    assert numbers["sources"] == len(order)
    alone = threshold_numbers([(1.0, True, 7), (-1.0, False, 7)], prices)
    assert (alone["cost_held_out"], alone["too_few"]) == (None, True)


def test_too_few_counts_source_images_not_probes():
    saved = np.array([0.6, 0.1] * 8)
    assert not too_few_probes(saved, list(range(16)))
    # the same savings in two images: mean .35, standard error .25 by hand (sums of residuals 2 and -2, 16 probes, factor sqrt 2)
    assert too_few_probes(saved, [0, 1] * 8)
    assert too_few_probes(np.full(5, np.nan), [1] * 5)
    assert not too_few_probes(np.array([0.6, 0.34] * 8), [0, 1] * 8)  # mean .47, standard error .13


def told(probes, mask, missing, accepts=lambda x: x >= 0) -> list[Verdict]:
    """Verdicts of a judge that says `mask(row)` of each proposal and `missing(kind)` of the accepted ones."""
    pool, proposals, _ = probes
    verdicts = []
    for image in pool["images"]:
        x = [mask(row) for row in proposals if row["image_id"] == image["id"]]
        accepted = [accepts(v) for v in x]
        whole = missing(image["kind"]) if any(accepted) else None
        verdicts.append(Verdict(
            image["id"], len(x), True, "model", any(accepted), whole, log_odds_mask=x, accepted=accepted, log_odds_missing=whole
        ))  # fmt: skip
    return verdicts


def test_masks_on_ignored_regions_are_neither_right_nor_wrong(probes):
    pool, proposals, truth = probes
    # three more proposals: on the crowd of the first image that has one, in its class; elsewhere; on the crowd, in another class
    i = next(a["image_id"] for a in truth["annotations"] if a["iscrowd"])
    boxes = [((0, 30, 8, 8), 2), ((40, 0, 8, 8), 2), ((0, 30, 8, 8), 1)]
    more = [*proposals, *(instance(box, category, i, score=1.0) for box, category in boxes)]
    before, after = (
        measure(pool, rows, truth, told((pool, rows, truth), lambda row: 1.0, lambda kind: 1.0), 0.6, Prices())[0]["masks"]
        for rows in (proposals, more)
    )
    assert after["probes"] == before["probes"] + 2
    assert after["right"] == pytest.approx(before["right"] * before["probes"] / after["probes"], abs=1e-4)
    seen = observations(pool, more, truth, told((pool, more, truth), lambda row: 1.0, lambda kind: 1.0), 0.6)
    assert next(p.fits for p in seen if len(p.fits) > 3 or None in p.fits)[-3:] == [None, False, False]


def test_calibration_by_hand():
    """Masks that need no change, completeness that leans to yes by 2: the threshold parts the images."""
    rng = np.random.default_rng(0)
    probes = []
    for k in range(400):
        right = k % 2 == 0
        z = float((1 if right else -1) * abs(rng.normal(2, 1)))
        probes.append(Probed(k % 40, [3.0, -3.0, None], [True, False, False], z + 2, [True, None, False], right))
    found = calibrate(probes, Prices(), "mine")
    assert found["mask"] == {"scale": 1, "shift": 0}  # one outcome alone: the ignored mask and the unparsed one teach nothing
    assert found["missing"]["shift"] < -1  # leans to yes
    assert found["cost"] == 0 < found["cost_held_out"] < 0.05
    assert (found["probes"], found["sources"], found["too_few"]) == (400, 40, False)
    assert Fitted(**found["missing"])(0.1 + 2) > found["threshold"] > Fitted(**found["missing"])(-0.1 + 2)


def test_what_cannot_be_calibrated_says_why(probes):
    pool, proposals, truth = probes
    number = len(pool["images"])

    def run(verdicts):
        return calibrate(observations(pool, proposals, truth, verdicts, 0.6), Prices(), "mine")

    with pytest.raises(
        UserError, match=rf"of {number} probes judge mine accepted none of {len(proposals)} masks.*may not know these classes"
    ):
        run(told(probes, lambda row: -4.0, lambda kind: 1.0))
    with pytest.raises(UserError, match=rf"accepted {len(proposals)} of {len(proposals)} masks, but no answer about what is missing"):
        run(told(probes, lambda row: 4.0, lambda kind: None))
    with pytest.raises(UserError, match=r"judge mine gave no P\(approve\) of single masks \(0 asked about\); it needs unit: instance"):
        run([Verdict(i["id"], masks_of(proposals, i), True, "model", True, 1.0) for i in pool["images"]])
