"""The whole comparison: who is held against whom, whether the experiment tells judges apart, and what its stage writes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from rows import arm
from test_ap import matches_of, world
from test_compare import ap_at, runs

from vlm_itl.core import typed
from vlm_itl.core.errors import UserError
from vlm_itl.core.runs import drawing_nothing, drawing_runs
from vlm_itl.metrics.compare import compare
from vlm_itl.metrics.matches import save
from vlm_itl.metrics.rows import Arm, Contrast, Place, Plan, planned, read_comparison
from vlm_itl.metrics.verdicts import BLIND, assay, corrected, plan, verdicts
from vlm_itl.settings import Compare, Run, Seconds, load

QUICK = Compare(replicates=300)
COUNTS = {"start": 90, "draw-1": 270, "ceiling": 900, "human-1": 300, "vlm-1": 240, "always-1": 90}


@pytest.fixture(scope="module")
def judges():
    from conftest import ROOT

    return load(ROOT / "params.yaml").judges


@pytest.fixture(scope="module")
def models():
    """Models that find this share of what can be found; each keeps what a worse one finds."""
    truth, results = world(0, images=40, steps=10_000)
    kept = np.random.default_rng(0).random(len(results))
    shares = {"start": 0.4, "draw-1": 0.8, "ceiling": 0.95, "human-1": 0.9, "vlm-1": 0.88, "always-1": 0.2}
    return {run: matches_of(truth, [r for r, x in zip(results, kept) if x < share]) for run, share in shares.items()}


def experiment(**more) -> dict[str, Run]:
    drawn = {name: Run(judge="never", prev="start", policy="annotate", arm=name) for name in ("draw-1", "ceiling")}
    return {**runs(human_1=("human", "start"), vlm_1=("vlm", "start"), always_1=("always", "start")), **drawn, **more}


def cost(run: str, decisions: int = 0):
    return {"drawn_instances": COUNTS[run], "human_decisions": decisions}


def made(chosen: Plan, models, settings: Compare = QUICK, prices=(9.0,)):
    costs = {run: {0: cost(run, 600 if run == "human-1" else 0)} for run in models}
    return verdicts(chosen, {run: {0: m} for run, m in models.items()}, costs, settings, Seconds(), prices)


def test_the_plan_follows_from_runs(judges):
    chosen = plan(experiment(), judges, QUICK)
    assert chosen == Plan(
        dict.fromkeys(("vlm-1", "always-1", "draw-1", "ceiling"), "human-1"), "human-1", "always-1", ["start", "draw-1", "ceiling"],
        ["human-1", "vlm-1", "always-1"],
    )  # fmt: skip
    assert set(chosen.runs) == {"start", *experiment()}
    without = plan(runs(human_1=("human", "zero-labels"), vlm_1=("vlm", "start")), judges, QUICK)
    assert (without.reference, without.no_reference) == (None, "the arm of 'human' does not begin at start")
    assert (without.control, without.no_control) == (None, "no arm of the judge 'always' in runs")
    none = plan(runs(vlm_1=("vlm", "start")), judges, QUICK.model_copy(update={"negative_control": None}))
    assert (none.arms, none.no_reference) == ({}, "no arm of the judge 'human' in runs")
    assert none.no_control == "compare.negative_control is null"
    assert none.runs == ["start", "vlm-1"]


def test_drawing_runs_know_no_judge(judges):
    """A human who draws the rest after a judge's approvals is no point of the curve, nor one who began without labels."""
    drawn = {
        "draw-1": Run(judge="never", prev="start", policy="annotate"), "draw-2": Run(judge="never", prev="draw-1", policy="annotate"),
        "after": Run(judge="never", prev="human-1", policy="annotate"), "zero": Run(judge="never", prev="teacher", policy="annotate"),
        "idle": Run(judge="never", prev="start"), "human-1": Run(judge="human", prev="start", policy="annotate"),
    }  # fmt: skip
    assert drawing_runs(drawn, judges) == ["draw-1", "draw-2"]
    assert drawing_nothing(drawn, judges) == "start"


def test_where_a_run_draws_nothing_it_stands_for_start(judges, models):
    """`start` has had fewer steps than the arms: what is above it may owe that to them alone."""
    nothing = Run(judge="never", prev="start", policy="annotate", batch=0)
    more = {"none": nothing, "none-2": nothing.model_copy(update={"prev": "none", "batch": 5})}
    assert drawing_nothing(more, judges) == "none"
    rounds = {"none": nothing, "none-2": nothing.model_copy(update={"prev": "none"})}
    assert drawing_nothing(rounds, judges) == "none-2"  # as many rounds as arms of two
    assert plan(experiment(**rounds), judges, QUICK).drawing == ["none-2", "draw-1", "ceiling"]
    assert drawing_nothing({"vlm-1": Run(judge="vlm", prev="start", policy="annotate", batch=0)}, judges) == "start"
    runs = experiment(none=nothing)
    chosen = plan(runs, judges, QUICK)
    assert chosen.drawing == ["none", "draw-1", "ceiling"]
    costs = {run: {0: cost(run)} for run in models} | {"none": {0: cost("start")}}
    longer = {**models, "none": models["vlm-1"]}
    found = verdicts(chosen, {run: {0: longer[run]} for run in chosen.runs}, costs, QUICK, Seconds(), [])
    row = compare({0: models["human-1"]}, {0: models["vlm-1"]}, QUICK)
    assert (found.assay.reference.against, found.assay.reference.difference) == ("none", row.difference)
    assert list(found.curve.points) == ["none", "draw-1", "ceiling"]
    assert planned(json.loads(json.dumps(asdict(found)))) == chosen


def test_an_experiment_that_tells_judges_apart(judges, models):
    found = made(plan(experiment(), judges, QUICK), models)
    assert (found.assay.sensitive, found.assay.reason) == (True, None)
    for part, (run, other) in {"reference": ("human-1", "start"), "negative_control": ("always-1", "human-1")}.items():
        row = compare({0: models[run]}, {0: models[other]}, QUICK)
        assert getattr(found.assay, part) == Contrast(run, other, row.difference, row.low, row.high, shown=True)
    for run in ("vlm-1", "always-1", "draw-1", "ceiling"):
        row = compare({0: models[run]}, {0: models["human-1"]}, QUICK, "human-1")
        assert replace(found.arms[run], p_holm=None, answer_holm=None) == row
    assert found.arms["always-1"].answer == "no"
    assert found.arms["always-1"].answer_holm is found.arms["ceiling"].answer_holm is None  # controls are no questions
    assert found.arms["vlm-1"].answer_holm == found.arms["vlm-1"].answer  # of one question
    json.dumps(asdict(found), allow_nan=False)
    assert planned(json.loads(json.dumps(asdict(found)))) == plan(experiment(), judges, QUICK)


def test_arms_against_the_curve_under_each_price(judges, models):
    """By hand: hours from the counts, and places on the line between two drawing runs."""
    found = made(plan(experiment(), judges, QUICK), models).curve
    ap = {run: ap_at(m, np.ones(40, dtype=int)) for run, m in models.items()}
    assert found.reason is None
    assert found.points == {
        run: Place(pytest.approx(COUNTS[run] * 80 / 3600), pytest.approx(ap[run], abs=1e-6)) for run in ("start", "draw-1", "ceiling")
    }
    assert list(found.arms) == ["human-1", "vlm-1", "always-1"]
    assert list(found.arms["human-1"].prices) == ["3 s", "9 s"]
    places = [found.points[run].hours for run in found.points]
    values = [found.points[run].mask_AP for run in found.points]
    assert values == sorted(values)
    for price, hours in (("3 s", 300 * 80 / 3600 + 0.5), ("9 s", 300 * 80 / 3600 + 1.5)):
        row = found.arms["human-1"].prices[price]
        assert row.hours == pytest.approx(hours, abs=1e-6)
        assert row.hours_saved.value == pytest.approx(np.interp(ap["human-1"], values, places) - hours, abs=1e-3)
        assert row.AP_lost.value == pytest.approx(np.interp(hours, places, values) - ap["human-1"], abs=2e-6)
    assert found.arms["vlm-1"].prices["3 s"] == found.arms["vlm-1"].prices["9 s"]  # no person decided
    below = found.arms["always-1"].prices["3 s"]
    assert (below.hours_saved.value, below.answer) == (None, "no")  # for no hours it is worse than start
    assert "less than 0.00" in below.hours_saved.beyond
    assert below.AP_lost.low > 0


def test_where_the_control_is_not_below_every_answer_is_cannot_tell(judges, models):
    blind = made(plan(experiment(), judges, QUICK), models | {"always-1": models["ceiling"]})
    assert blind.assay.sensitive is False
    assert blind.assay.reason == "always-1 is not below human-1 by more than the margin, with its whole interval"
    for row in blind.arms.values():
        assert row.answer == "cannot tell"
        assert row.answer_holm == (None if row.p_holm is None else "cannot tell")
        assert row.low is not None
        assert row.reason == BLIND
    prices = [row for arm in blind.curve.arms.values() for row in arm.prices.values()]
    assert {row.answer for row in prices} == {"cannot tell"}
    assert all(row.AP_lost.low is not None for row in prices)
    same = made(plan(experiment(), judges, QUICK), models | {"start": models["human-1"]})
    assert same.assay.reason == "human-1 is not above start by more than the margin, with its whole interval (both predict the same)"
    assert {row.reason for row in same.arms.values()} == {BLIND}
    # a reason of an arm's own stays: it is why there is no interval
    own = made(plan(experiment(), judges, QUICK), models | {"start": models["human-1"], "vlm-1": models["human-1"]})
    assert (own.arms["vlm-1"].reason, own.arms["vlm-1"].low) == ("both predict the same", None)


def test_a_control_that_is_worse_by_less_than_the_margin_shows_nothing(judges, models):
    """Else every judge would pass: also the control is then no worse by more than the margin."""
    wide = QUICK.model_copy(update={"margin": 0.9})
    blind = made(plan(experiment(), judges, wide), models, wide)
    assert blind.assay.negative_control.high < 0
    assert (blind.assay.sensitive, blind.assay.negative_control.shown) == (False, False)
    assert {row.answer for row in blind.arms.values()} == {"cannot tell"}


def test_a_part_that_is_missing_leaves_the_assay_open_unless_the_other_fails(judges, models):
    few = {name: run for name, run in experiment().items() if name not in ("always-1", "draw-1", "ceiling")}
    open_ = made(plan(few, judges, QUICK), models)
    assert (open_.assay.sensitive, open_.assay.negative_control) == (None, None)
    assert open_.assay.reason == "no arm of the judge 'always' in runs"
    assert open_.arms["vlm-1"].answer == compare({0: models["vlm-1"]}, {0: models["human-1"]}, QUICK).answer == "yes"
    assert open_.arms["vlm-1"].reason is None
    assert open_.curve.arms == {}
    assert open_.curve.reason.startswith("besides start no run in which a human draws random images")
    failed = made(plan(few, judges, QUICK), models | {"start": models["ceiling"]})
    assert failed.assay.sensitive is False
    assert assay(None, None, plan(runs(vlm_1=("vlm", "start")), judges, QUICK)).sensitive is None


def held(p_worse: float | None) -> Arm:
    return arm(p_worse=p_worse, p_holm=None, answer_holm=None)


def test_holm_over_the_questions_alone():
    """Two arms at p = .02 would both be yes; together .04 and .04 are not below .025. One of .01 is, at .02, and then .02 of the other."""
    rows = corrected({"a": held(0.02), "b": held(0.02), "control": held(0.001)}, ["a", "b"], 0.95)
    assert [(row.p_holm, row.answer_holm) for row in rows.values()] == [(0.04, "cannot tell"), (0.04, "cannot tell"), (None, None)]
    three = {"a": held(0.02), "b": held(0.01), "c": held(0.995)}
    rows = corrected(three, ["a", "b"], 0.95)
    assert [rows[run].answer_holm for run in "abc"] == ["yes", "yes", None]
    rows = corrected(three, ["a", "b", "c"], 0.95)
    assert [rows[run].answer_holm for run in "abc"] == ["cannot tell", "cannot tell", "no"]
    rows = corrected({"a": held(0.02), "b": held(None)}, ["a", "b"], 0.95)
    assert [row.answer_holm for row in rows.values()] == ["cannot tell", "cannot tell"]


def test_a_curve_of_equal_hours_is_none(judges, models):
    costs = {run: {0: {"drawn_instances": 90, "human_decisions": 0}} for run in models}
    found = verdicts(plan(experiment(), judges, QUICK), {r: {0: m} for r, m in models.items()}, costs, QUICK, Seconds(), [])
    assert found.curve.reason == "the drawing runs took no more hours than the initial labels"
    assert found.curve.arms == {}


def test_a_plan_that_is_none():
    assert planned({}) is planned({"plan": 3}) is planned({"plan": {"arms": [1]}}) is None


def test_seeds_are_pooled_everywhere(judges, models):
    truth, results = world(1, images=40, steps=10_000)
    two = {run: {1: m, 2: m} for run, m in models.items()}
    two["vlm-1"] = {1: models["vlm-1"], 2: models["human-1"]}
    costs = {run: {s: cost(run) for s in (1, 2)} for run in models}
    found = verdicts(plan(experiment(), judges, QUICK), two, costs, QUICK, Seconds(), [])
    assert {row.seeds for row in found.arms.values()} == {2}
    assert found.assay.reference.difference == pytest.approx(
        ap_at(models["human-1"], np.ones(40, dtype=int)) - ap_at(models["start"], np.ones(40, dtype=int)), abs=1e-6
    )
    vlm = found.curve.arms["vlm-1"].prices["3 s"]
    one = made(plan(experiment(), judges, QUICK), models).curve.arms
    assert vlm.hours == pytest.approx(240 * 80 / 3600, abs=1e-6)
    apart = ap_at(models["human-1"], np.ones(40, dtype=int)) - ap_at(models["vlm-1"], np.ones(40, dtype=int))
    assert vlm.AP_lost.value == pytest.approx(one["vlm-1"].prices["3 s"].AP_lost.value - apart / 2, abs=3e-6)
    with pytest.raises(UserError, match="different true instances"):
        verdicts(plan(experiment(), judges, QUICK), {**two, "always-1": dict.fromkeys((1, 2), matches_of(truth, results[:9]))}, costs,
                 QUICK, Seconds(), [])  # fmt: skip


def test_stage(tmp_path, capsys, judges, models):
    from stages.compare import main

    for run, matches in models.items():
        save(matches, tmp_path / "matches" / f"{run}.npz")
        (tmp_path / "cost").mkdir(exist_ok=True)
        (tmp_path / "cost" / f"{run}.json").write_text(json.dumps(cost(run)))

    def written(of):
        settings = {"runs": of, "judges": judges, "compare": QUICK, "evaluate.seconds": Seconds(), "report.verify_seconds": [9.0]}
        main(tmp_path / "matches", tmp_path / "cost", tmp_path / "out.json", settings)
        return json.loads((tmp_path / "out.json").read_text())

    found = written(experiment())
    assert found["arms"]["vlm-1"] == {
        **asdict(compare({0: models["vlm-1"]}, {0: models["human-1"]}, QUICK, "human-1")),
        **{key: found["arms"]["vlm-1"][key] for key in ("p_holm", "answer_holm")},
    }  # fmt: skip
    assert list(found["curve"]["arms"]["vlm-1"]["prices"]) == ["3 s", "9 s"]
    alone = written(runs(vlm_1=("vlm", "start")))
    assert (alone["arms"], alone["assay"]["sensitive"]) == ({}, None)
    assert "compare.reference" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"new-1\.npz: no such file"):
        written({**experiment(), "new-1": Run(judge="vlm", prev="start")})


def test_the_committed_comparison_is_read_and_written_again_byte_for_byte(tmp_path):
    """One definition of its fields, in the file's order."""
    from conftest import ROOT

    committed = ROOT / "metrics/comparison.json"
    typed.write(tmp_path / "again.json", read_comparison(committed))
    assert (tmp_path / "again.json").read_bytes() == committed.read_bytes()


def spoilt(change) -> dict:
    from conftest import ROOT

    content = json.loads((ROOT / "metrics/comparison.json").read_text())
    change(content)
    return content


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["arms"]["always-1"].pop("p_holm"),
        lambda c: c["arms"]["always-1"].update(low=None),  # an interval of one end
        lambda c: c["arms"]["always-1"].update(difference=None),
        lambda c: c["arms"]["always-1"].update(answer="maybe"),
        lambda c: c["arms"]["always-1"].update(images="400"),
        lambda c: c["assay"]["reference"].update(high=None),
        lambda c: c["curve"].update(paid="4 s"),  # of which no arm has an answer
        lambda c: c["plan"].update(control="gone"),
        lambda c: c["plan"].update(drawing=[]),
    ],
)
def test_a_comparison_that_does_not_hold_together_is_none(tmp_path, change):
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(spoilt(change)))
    with pytest.raises(UserError, match=r"comparison\.json: not a comparison as this version writes it"):
        read_comparison(path)
