"""What is measured of people: seconds with intervals, agreement, and what a measured decision costs."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
from conftest import instance
from people import answer

from vlm_itl.core import typed
from vlm_itl.core.errors import UserError
from vlm_itl.judges.person.answers import FILE, Answers, Undo
from vlm_itl.judges.verdict import Verdict
from vlm_itl.loop.annotation_log import Entry
from vlm_itl.loop.policies.correct import Correct
from vlm_itl.loop.update import counted, units, update
from vlm_itl.metrics.cost import human_cost
from vlm_itl.metrics.curve import hours_at
from vlm_itl.metrics.hours import price_name
from vlm_itl.metrics.people import Measured, Median, agreement, measure, median, read_measured
from vlm_itl.settings import Run, Seconds

NONE = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "bird"}]}
ITEMS = [letter * 64 for letter in "abcdef0123456789"]


def test_a_median_s_interval_covers_as_often_as_it_says():
    rng, truth = np.random.default_rng(0), np.exp(1.0)  # the median of exp(N(1, 1)), which is skewed as times are
    for n in (6, 15, 60):
        rows = [median(np.exp(rng.normal(1, 1, n))) for _ in range(2000)]
        covered = np.mean([row.low <= truth <= row.high for row in rows])
        assert covered >= 0.945, (n, covered)
    assert (median([1, 2, 3, 4, 5]).low, median([1, 2, 3, 4, 5]).seconds) == (None, 3)
    assert (median(range(1, 7)).low, median(range(1, 7)).high) == (1, 6)  # 1 - 2/64 = .969


def test_agreement_is_a_share_with_kappa():
    found = agreement([(True, True)] * 6 + [(False, False)] * 2 + [(True, False)] + [(False, True)])
    expected = (0.7 * 0.7) + (0.3 * 0.3)
    assert (found.pairs, found.same, found.share) == (10, 8, 0.8)
    assert found.kappa == pytest.approx((0.8 - expected) / (1 - expected), abs=1e-6)
    assert found.low < 0.8 < found.high
    assert (agreement([]).share, agreement([]).kappa) == (None, None)


@pytest.fixture
def answers(tmp_path) -> Answers:
    """Ana decides on eight images with one mask, slowly on the last; on the first twice, and differently; Ben on two of them."""
    found = Answers(tmp_path / FILE)
    for k in range(8):
        found.append(answer(k, ITEMS[k], "no" if k == 1 else "yes", seconds=2.0 + k / 10 if k < 7 else 400.0))
    found.append(answer(20, ITEMS[0], "no", attempt=2, seconds=1.0))
    found.append(answer(21, ITEMS[0], "yes", reviewer="ben", seconds=3.0))
    found.append(answer(22, ITEMS[1], "yes", reviewer="ben", seconds=5.0, masks=4))
    found.append(answer(23, ITEMS[2], "skip", reviewer="ben", rendering=""))
    found.append(answer(24, ITEMS[3], "no", reviewer="ben"))
    found.append(Undo(f"{25:032x}", f"{24:032x}", "ben", "2026-01-01T00:01:00.000Z"))
    found.refresh()
    return found


def test_a_second_look_has_no_part_in_the_medians(tmp_path):
    """Neither where the first decision was taken back, nor where the item was skipped first."""
    found = Answers(tmp_path / FILE)
    found.append(answer(1, ITEMS[0], seconds=8.0))
    found.append(Undo(f"{2:032x}", f"{1:032x}", "ana", "2026-01-01T00:00:02.000Z"))
    found.append(answer(3, ITEMS[0], "no", seconds=0.4))
    found.append(answer(4, ITEMS[1], "skip", seconds=9.0))
    found.append(answer(5, ITEMS[1], seconds=0.5))
    found.append(answer(6, ITEMS[2], seconds=7.0))
    found.refresh()
    measured = measure(found, "person", {}, [], NONE, 0.6)
    assert (measured.decisions, measured.again, measured.seconds["image"]["1"].decisions) == (3, 2, 1)
    assert measured.seconds["image"]["1"].seconds == 7.0


def test_decisions_that_do_not_say_what_they_were_about_have_no_price(answers):
    measured = Measured({"person": measure(answers, "person", {}, [], NONE, 0.6)})
    with pytest.raises(UserError, match="the decisions of x-1 do not say what they were about; `dvc repro`"):
        human_cost([Entry(run="x-1", action="verify", actor="human", decisions=5)], Seconds(verify="measured"), measured)


def test_what_is_counted_of_answers(answers):
    probes = [{**instance((1, 1, 9, 9), 1, i), "score": 0.9} for i in (1, 2, 3)]
    truth = {
        **NONE,
        "images": [{"id": i} for i in (1, 2, 3)],
        "annotations": [instance((1, 1, 9, 9), 1, 1), instance((30, 20, 9, 9), 1, 2)],
    }
    own = [Verdict(1, 1, True, "human", True), Verdict(2, 1, True, "human", False), Verdict(3, 1, False, "human", False)]
    vlm = [Verdict(1, 1, True, "model", True), Verdict(2, 1, True, "model", True), Verdict(3, 1, True, "model", True)]
    found = measure(answers, "person", {"person": own, "vlm": vlm}, probes, truth, 0.6)
    assert (found.decisions, found.again, found.skipped, found.taken_back) == (11, 1, 1, 1)
    assert (found.with_themselves.pairs, found.with_themselves.same) == (1, 0)
    assert (found.with_each_other.pairs, found.with_each_other.same) == (2, 1)
    assert found.seconds["image"]["1"].seconds == round(statistics.median([2, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 400, 3]), 3)  # no second look
    assert (found.seconds["image"]["3-5"].decisions, found.seconds["image"]["3-5"].seconds) == (1, 5)
    assert (found.idle.decisions, found.idle.seconds) == (1, 400.0)  # flagged, and in the median all the same
    assert {who: row.decisions for who, row in found.by_reviewer.items()} == {"ana": 8, "ben": 2}
    assert (found.on_probes["person"].recall, found.on_probes["person"].specificity) == (1, 1)
    assert (found.on_probes["vlm"].asked, found.on_probes["vlm"].specificity) == (2, 0)  # the third a person has not answered
    assert (found.with_judges["vlm"].pairs, found.with_judges["vlm"].same) == (2, 1)
    assert set(found.with_judges) == {"vlm"}


def test_nobody_has_answered(tmp_path):
    with pytest.raises(UserError, match=r"answers.jsonl: nobody has answered yet: make review; or take 'person' out of people"):
        measure(Answers(tmp_path / FILE), "person", {}, [], NONE, 0.6)


@pytest.mark.parametrize(("verdict", "expected"), [
    (Verdict(1, 4, True, "human", True), [("image", 4)]),
    (Verdict(1, 3, True, "human", True, accepted=[True, False, True], questions=4), [("mask", 1)] * 3 + [("missing", 2)]),
    (Verdict(1, 2, True, "human", False, accepted=[False, False], questions=2), [("mask", 1)] * 2),  # a person is not asked the rest
    (Verdict(1, 2, True, "human", False, accepted=[False, False], questions=3), [("mask", 1)] * 2 + [("missing", 0)]),  # a simulated one is
    (Verdict(1, 2, True, "human", True, accepted=[True, True], questions=2), [("mask", 1), ("missing", 2)]),  # two equal masks
])  # fmt: skip
def test_decisions_behind_a_verdict(verdict, expected):
    assert units(verdict) == expected
    assert len(units(verdict)) == (verdict.questions or 1)


def test_the_log_says_what_decisions_were_about():
    rows = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 50} for i in (1, 2)]
    pool, proposals = {**NONE, "images": rows}, [{**instance((1, 1, 9, 9), 1, i), "score": 0.9} for i in (1, 1, 2)]
    verdicts = [Verdict(1, 2, True, "model", False, person=True, accepted=[True, False]), Verdict(2, 1, True, "model", True, person=False,
                                                                                                     accepted=[True])]  # fmt: skip
    truth = {**pool, "annotations": [instance((1, 1, 9, 9), 1, 1)]}
    _, _, log = update(
        "x-1", Run(judge="x", prev="start", policy="correct"), Correct(), {**NONE}, pool, proposals, verdicts, truth, [], 0.6
    )
    assert [entry.model_dump(exclude_none=True) for entry in log] == [
        {"run": "x-1", "action": "verify", "actor": "model", "judge": "x", "decisions": 2},
        {"run": "x-1", "action": "verify", "actor": "human", "judge": "x", "decisions": 1, "about": {"image": {"1": 1}}},
        {"run": "x-1", "action": "verify", "actor": "human", "judge": "x", "decisions": 1, "about": {"missing": {"1": 1}}},
    ]
    assert counted([("image", 12), ("image", 2), ("image", 12)]) == {"image": {"2": 1, "12": 2}}


def test_a_measured_decision_costs_the_median_of_its_kind(answers, tmp_path):
    found = measure(answers, "person", {}, [], NONE, 0.6)
    typed.write(tmp_path / "person.json", found)
    measured = Measured({"person": read_measured(tmp_path / "person.json")})
    one, four = found.seconds["image"]["1"].seconds, 5.0
    assert measured.seconds("image", 1) == (one, False)
    assert measured.seconds("image", 4) == (four, False)
    assert measured.seconds("image", 9) == (four, True)  # the nearest that was measured
    assert measured.seconds("image", 2) == (one, True)
    log = [
        Entry(run="x-1", action="verify", actor="human", decisions=5, about={"image": {"1": 2, "5": 2, "7": 1}}),
        Entry(run="x-1", action="verify", actor="model", decisions=9),
        Entry(run="x-1", action="draw", actor="human", purpose="labels", instances=3),
    ]  # fmt: skip
    cost = human_cost(log, Seconds(draw=60, verify="measured"), measured)
    assert cost["verify_hours"] == pytest.approx((2 * one + 3 * four) / 3600, abs=1e-6)
    assert cost["hours"] == pytest.approx((2 * one + 3 * four + 180) / 3600, abs=1e-6)
    assert (cost["decisions_like_others"], cost["human_decisions"]) == (1, 5)
    assert hours_at(cost, 60, "measured", 80) == cost["hours"]
    assert hours_at(cost, 60, 3, 80) == pytest.approx((180 + 15) / 3600)
    assert [price_name(p) for p in (1.6, "measured")] == ["1.6 s", "measured"]
    with pytest.raises(UserError, match="no decision of the unit 'mask' was measured"):
        measured.seconds("mask", 1)


def test_two_judges_are_pooled_by_their_decisions(answers):
    found = measure(answers, "person", {}, [], NONE, 0.6)
    table = {"image": {"1": Median(decisions=27, seconds=1.0, low=None, high=None)}}
    pooled = Measured({"a": found, "b": replace(found, seconds=table)})
    one = found.seconds["image"]["1"]
    assert one.decisions == 9
    assert pooled.seconds("image", 1)[0] == pytest.approx((one.seconds + 3 * 1.0) / 4)
    assert pooled.seconds("image", 4)[0] == 5.0  # the other has not decided on so many
