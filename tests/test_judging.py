"""Matching, the judges that need no model, and the measure of judges."""

from __future__ import annotations

import gzip
import json
import math

import pytest
from conftest import ROOT, instance

from vlm_itl.core.matching import all_right, rightness
from vlm_itl.judges.calibration import finite_log_odds
from vlm_itl.judges.verdict import Verdict
from vlm_itl.metrics.judges import confusion, judge_quality
from vlm_itl.settings import AlwaysJudge, ConfidenceJudge, HumanJudge, NeverJudge, NoisyJudge, RandomJudge

BOX, FAR = (5, 5, 20, 20), (30, 20, 15, 15)
CASES = {
    "exact": ([BOX], [BOX], True),
    "good enough": ([(5, 5, 20, 16)], [BOX], True),
    "too loose": ([(5, 5, 20, 10)], [BOX], False),
    "missing": ([BOX], [BOX, FAR], False),
    "extra": ([BOX, FAR], [BOX], False),
    "two for one": ([BOX, BOX], [BOX], False),
    "two and two": ([FAR, BOX], [BOX, FAR], True),
    "nothing on something": ([], [BOX], False),
    "nothing on nothing": ([], [], True),
    "something on nothing": ([BOX], [], False),
}


@pytest.mark.parametrize("case", CASES)
def test_all_right(case):
    proposals, truth, right = CASES[case]
    assert all_right([instance(b, score=0.9) for b in proposals], [instance(b) for b in truth], 0.6) is right


def test_class_must_agree():
    assert not all_right([instance(BOX, 1)], [instance(BOX, 2)], 0.6)


def test_matching_is_the_best_one_not_the_first():
    """A proposal that fits two instances goes where the other proposal cannot: a greedy matcher fails here."""
    truth = [instance((0, 0, 20, 20)), instance((4, 0, 20, 20))]
    proposals = [instance((2, 0, 20, 20)), instance((0, 0, 19, 20))]
    for order in (proposals, proposals[::-1]):
        for reference in (truth, truth[::-1]):
            assert all_right(order, reference, 0.6)


def test_crowd_regions_are_neither_needed_nor_extra():
    crowd = instance((25, 0, 25, 40), iscrowd=1)
    assert all_right([instance(BOX)], [instance(BOX), crowd], 0.6)
    assert all_right([instance(BOX), instance((30, 5, 8, 8))], [instance(BOX), crowd], 0.6)
    assert not all_right([instance(BOX), instance((30, 5, 8, 8), 2)], [instance(BOX), crowd], 0.6)
    # an instance inside a crowd still needs its proposal
    inside = instance((30, 5, 8, 8))
    assert all_right([instance((30, 5, 8, 8))], [inside, crowd], 0.6)
    assert not all_right([], [inside, crowd], 0.6)


def test_a_proposal_on_an_ignored_region_is_neither_right_nor_wrong():
    truth = [instance(BOX), instance((25, 0, 25, 40), iscrowd=1)]
    inside, other = instance((30, 5, 8, 8)), instance((30, 5, 8, 8), 2)
    assert rightness([instance(BOX), inside, other, instance((0, 30, 5, 5))], truth, 0.6) == [True, None, False, False]
    # an instance of its own within the region counts
    assert rightness([inside], [*truth, inside], 0.6) == [True]
    assert rightness([], truth, 0.6) == []


def pool_of(n: int) -> tuple[dict, list, dict]:
    """n images; odd ones are proposed right, even ones wrong, every tenth has no proposal."""
    pool = {"images": [{"id": i} for i in range(1, n + 1)], "annotations": [], "categories": [{"id": 1, "name": "bird"}]}
    truth = {**pool, "annotations": [instance(BOX, 1, i) for i in range(1, n + 1)]}
    proposals = [instance(BOX if i % 2 else FAR, 1, i, score=0.5 + (i % 50) / 100) for i in range(1, n + 1) if i % 10]
    return pool, proposals, truth


def test_human_is_the_oracle():
    pool, proposals, truth = pool_of(20)
    verdicts = HumanJudge(kind="human").verdicts(pool, proposals, truth, 0)
    assert [v.approve for v in verdicts] == [i % 2 == 1 for i in range(1, 21)]
    assert [v.image_id for v in verdicts if not v.asked] == [10, 20]
    quality = judge_quality(verdicts, proposals, truth, 0.6)
    assert (quality.recall, quality.specificity, quality.kappa, quality.not_asked) == (1, 1, 1, 2)


def test_noisy_has_the_rates_it_was_given():
    pool, proposals, truth = pool_of(4000)
    settings = NoisyJudge(kind="noisy", recall=0.88, specificity=0.85)
    quality = judge_quality(settings.verdicts(pool, proposals, truth, 0), proposals, truth, 0.6)
    assert quality.recall == pytest.approx(0.88, abs=0.03)
    assert quality.specificity == pytest.approx(0.85, abs=0.03)


def test_the_same_question_gets_the_same_answer_and_another_seed_another():
    pool, proposals, truth = pool_of(300)
    settings = NoisyJudge(kind="noisy", recall=0.5, specificity=0.5)

    def answers(seed=0, pool=pool):
        return {v.image_id: v.approve for v in settings.verdicts(pool, proposals, truth, seed)}

    assert answers() == answers()
    assert answers() != answers(seed=1)
    half = {**pool, "images": pool["images"][150:]}
    assert answers(pool=half) == {i: a for i, a in answers().items() if i > 150}


def test_rules():
    pool, proposals, truth = pool_of(40)
    approved = {}
    for name, settings in {
        "always": AlwaysJudge(kind="always"), "never": NeverJudge(kind="never"),
        "random": RandomJudge(kind="random", p=0.5), "confidence": ConfidenceJudge(kind="confidence", threshold=0.8),
    }.items():  # fmt: skip
        approved[name] = {v.image_id for v in settings.verdicts(pool, proposals, truth, 0) if v.approve}
    assert approved["always"] == {p["image_id"] for p in proposals}  # an image without proposals has nothing to approve
    assert not approved["never"]
    assert 8 < len(approved["random"]) < 28
    assert approved["confidence"] == {31, 32, 33, 34, 35, 36, 37, 38, 39}


def test_confidence_looks_at_the_worst_proposal():
    pool = {"images": [{"id": 1}]}
    rows = [instance(BOX, score=0.95), instance(FAR, score=0.4)]
    verdict = ConfidenceJudge(kind="confidence", threshold=0.9).verdicts(pool, rows, {"annotations": []}, 0)[0]
    assert (verdict.approve, verdict.p_approve) == (False, 0.4)
    assert verdict.log_odds == pytest.approx(math.log(0.4 / 0.6))


def test_a_probability_of_0_or_1_has_finite_log_odds():
    assert finite_log_odds(1) == -finite_log_odds(0) == pytest.approx(53 * math.log(2))
    assert finite_log_odds(0.25) == pytest.approx(-math.log(3))
    pool, proposals, truth = pool_of(3)
    verdicts = RandomJudge(kind="random", p=1.0).verdicts(pool, proposals, truth, 0)
    assert [(v.approve, v.p_approve, v.log_odds > 36) for v in verdicts] == [(True, 1.0, True)] * 3


def test_only_simulated_humans_see_the_truth():
    pool, proposals, truth = pool_of(200)
    poisoned = {**truth, "annotations": [instance(FAR, 1, i) for i in range(1, 201)]}
    for settings in (ConfidenceJudge(kind="confidence", threshold=0.7), AlwaysJudge(kind="always"), RandomJudge(kind="random")):
        assert settings.verdicts(pool, proposals, truth, 0) == settings.verdicts(pool, proposals, poisoned, 0)
    human = HumanJudge(kind="human")
    assert human.verdicts(pool, proposals, truth, 0) != human.verdicts(pool, proposals, poisoned, 0)


def test_confusion_by_hand():
    pairs = [(True, True)] * 40 + [(True, False)] * 10 + [(False, True)] * 20 + [(False, False)] * 30
    numbers = confusion(pairs)
    assert (numbers["recall"], numbers["specificity"], numbers["precision"]) == (0.666667, 0.75, 0.8)
    assert (numbers["accuracy"], numbers["base_rate"]) == (0.7, 0.6)
    assert numbers["kappa"] == pytest.approx((0.7 - 0.5) / 0.5)  # p_e = .5 * .6 + .5 * .4
    assert confusion([(True, True), (False, True)])["kappa"] == 0
    assert [confusion([pair] * 3)["kappa"] for pair in ((True, True), (False, False))] == [None, None]
    assert confusion([(True, False)] * 3)["kappa"] == 0
    assert confusion([(True, False), (False, True)])["kappa"] == -1
    empty = confusion([])
    assert all(empty[k] is None for k in ("recall", "specificity", "precision", "accuracy", "base_rate", "kappa"))
    assert confusion([(True, True)])["specificity"] is None


def test_quality_by_class_and_number():
    truth = {"images": [{"id": 1}, {"id": 2}], "annotations": [instance(BOX, 1, 1), instance(BOX, 2, 2), instance(FAR, 2, 2)],
             "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "book"}, {"id": 3, "name": "zebra"}]}  # fmt: skip
    proposals = [instance(BOX, 1, 1), instance(BOX, 2, 2)]
    verdicts = [Verdict(i, 1, True, "model", True) for i in (1, 2)]
    quality = judge_quality(verdicts, proposals, truth, 0.6)
    assert quality.by_class["bird"].precision == 1
    assert quality.by_class["book"].precision == 0
    assert quality.by_class["zebra"].precision is None
    assert quality.by_instances["2"].false_approvals == 1


def test_proposals_on_ignored_regions_are_neither_right_nor_wrong():
    """One right accepted, one wrong refused, one on a region accepted and one refused: the last two count nowhere but as ignored."""
    region = instance((25, 0, 25, 40), iscrowd=1)
    truth = {"images": [{"id": 1}], "annotations": [instance((1, 1, 10, 10)), region], "categories": [{"id": 1, "name": "bird"}]}
    boxes = [(1, 1, 10, 10), (1, 20, 10, 10), (30, 5, 8, 8), (30, 20, 8, 8)]
    verdicts = [Verdict(1, 4, True, "model", True, accepted=[True, False, True, False])]
    found = judge_quality(verdicts, [instance(box) for box in boxes], truth, 0.6).by_proposal
    assert (found.asked, found.approved, found.recall, found.specificity, found.accuracy) == (2, 1, 1, 1, 1)
    assert found.ignored == 2


VERDICTS = ROOT.parent / "shared" / "data" / "ovis2-verdicts" / "verdicts.jsonl.gz"


@pytest.mark.skipif(not VERDICTS.exists(), reason="the first study's verdicts (shared/data/ovis2-verdicts) are not here")
def test_default_error_rates_are_those_of_the_first_study():
    """docs/method.md quotes both: over all answers, and over the answers where objects were declared (the oracle: IoU 0.6)."""
    import numpy as np

    from vlm_itl.core.matching import _matching_size
    from vlm_itl.settings import load

    pairs, declared = [], []
    with gzip.open(VERDICTS, "rt") as stream:
        for line in stream:
            row = json.loads(line)
            if row["prompt"] != "basic":
                continue
            right = row["n_pred"] == row["n_gt"]
            if right and row["n_pred"]:
                right = _matching_size(np.array(row["iou"]) >= 0.6) == row["n_gt"]
            pairs.append((row["approved"], right))
            if row["n_pred"]:
                declared.append(pairs[-1])
    everything, asked = confusion(pairs), confusion(declared)
    judge = load(ROOT / "params.yaml").judges["vlm-sim"]
    assert everything["recall"] == pytest.approx(judge.recall, abs=0.08)
    assert everything["specificity"] == pytest.approx(judge.specificity, abs=0.05)
    assert asked["specificity"] < 0.2  # what the overall number hides
