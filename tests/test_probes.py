"""Probes have known answers, and the numbers drawn from them are right."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import instance
from pycocotools import mask as mask_util
from scipy.stats import mannwhitneyu

from vlm_itl.base.coco import decode
from vlm_itl.base.settings import HumanJudge, Prices
from vlm_itl.evaluation.probes import auroc, brier, choose_threshold, measure
from vlm_itl.judging import judge
from vlm_itl.judging.probes import GRADED, KINDS, grow, iou, make_probes, shift
from vlm_itl.matching import all_right

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
    verdicts = judge(pool, proposals, truth, "", HumanJudge(kind="human"), 0)
    numbers, curve, reliability = measure(pool, proposals, truth, verdicts, 0.6, Prices())
    assert numbers["accuracy"] == 1
    assert numbers["auroc"] is None  # it gives no probability
    assert numbers["threshold"] is None
    assert reliability == []
    assert {row["approved"] for row in curve if row["iou"] < 0.5} == {0}
    assert curve[-1]["approved"] == 1
    assert set(numbers["by_kind"]) == set(KINDS)
    assert sum(row["probes"] for row in curve) == sum(i["kind"] in GRADED for i in pool["images"])


def test_probabilities_are_measured(probes):
    """A judge whose P is the IoU of the worst mask: perfect order where only masks change."""
    pool, proposals, truth = probes
    verdicts = [
        {"image_id": i["id"], "approve": i.get("iou", 0) >= 0.6, "p_approve": i.get("iou", 0.0), "p_mask": [i.get("iou", 0.0)]}
        for i in pool["images"]
    ]
    numbers, curve, reliability = measure(pool, proposals, truth, verdicts, 0.6, Prices())
    assert numbers["auroc"] == 1
    assert numbers["accuracy"] == 1
    assert 0.5 < numbers["threshold"]["threshold"] < 0.75
    assert numbers["threshold"]["cost"] == 0
    assert [row["p_approve"] for row in curve] == sorted(row["p_approve"] for row in curve)
    assert sum(row["probes"] for row in reliability) == len(pool["images"])
    assert "masks" in numbers


@pytest.mark.parametrize("seed", range(20))
def test_auroc_and_brier_against_scipy(seed):
    rng = np.random.default_rng(seed)
    p, right = rng.integers(0, 6, 50) / 5, rng.random(50) < 0.4
    expected = mannwhitneyu(p[right], p[~right]).statistic / (right.sum() * (~right).sum())
    assert auroc(p, right) == pytest.approx(expected, abs=1e-4)
    assert brier(p, right) == pytest.approx(np.mean([(a - b) ** 2 for a, b in zip(p, right)]), abs=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_costs_least(seed):
    rng = np.random.default_rng(seed)
    right = rng.random(40) < 0.5
    p = np.round(np.clip(0.5 + 0.2 * (right - 0.5) + rng.normal(0, 0.2, 40), 0, 1), 2)
    prices = Prices(wrong_approval=float(rng.integers(0, 8)), needless_rejection=float(rng.integers(1, 5)))
    chosen = choose_threshold(list(zip(p.tolist(), right.tolist())), prices)

    def cost(threshold: float) -> float:
        approved = p >= threshold
        return float((approved & ~right).sum() * prices.wrong_approval + (~approved & right).sum() * prices.needless_rejection) / 40

    assert chosen["cost"] == pytest.approx(min(cost(t) for t in [*np.unique(p), 1.01]), abs=1e-4)
    if chosen["threshold"] < 1:
        assert cost(chosen["threshold"]) == pytest.approx(chosen["cost"], abs=1e-4)
    assert chosen["cost_always"] == pytest.approx(cost(0), abs=1e-4)
    assert chosen["cost_never"] == pytest.approx(cost(1.01), abs=1e-4)
