"""The table and the plot's data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from rows import arm, numbers, quality

from vlm_itl.core import timing, typed
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json
from vlm_itl.core.runs import DRAWING
from vlm_itl.metrics.rows import Against, Assay, Comparison, Drawing, Estimate, Judged, Plan, read_comparison, read_quality
from vlm_itl.report.points import read_points
from vlm_itl.report.summary import (  # fmt: skip
    answers,
    computed_before,
    computing,
    curve,
    decided_nothing,
    headline,
    main,
    preparations,
    read_summary,
    summarise,
    table,
)
from vlm_itl.settings import Calibration, NoisyJudge, Run, Settings, Verifier, VlmJudge, load


def summary_of(tmp_path, runs, judges, asking=None):
    """`asking`: of a run, instead of three questions."""
    for k, name in enumerate(["start", *runs]):
        write_json(tmp_path / "detection" / f"{name}.json", {"mask": {"AP": 0.1 * k}, "box": {"AP": None}})
        labels = {"images": {"human": 5, "model": k, "mixed": 0, "ground_truth": 0}}
        write_json(tmp_path / "cost" / f"{name}.json", {"hours": 4 + k / 2, "draw_hours": 4, "human_decisions": 600 * k, "labels": labels})
        write_json(tmp_path / "training" / f"{name}.json", {"steps": 7})
        if name != "start":
            write_json(tmp_path / "asking" / f"{name}.json", (asking or {}).get(name, {"questions": 3}))
            typed.write(tmp_path / "judge" / f"{name}.json", quality(approved=0, right=0, oracle=0, asked=3))
    return summarise(runs, judges, *(tmp_path / kind for kind in ("detection", "cost", "judge", "training", "asking")))


def test_table_names_simulated_judges_and_shows_absent_numbers(tmp_path):
    settings = load(ROOT / "params.yaml")
    runs = settings.runs | {f"{judge}-1": Run(judge=judge, prev="start") for judge in ("vlm", "vlm-sim", "bands")}
    rows = table(summary_of(tmp_path, runs, settings.judges)).splitlines()[2:]
    assert len(rows) == 1 + len(runs)
    for row in rows:
        name = row.split()[0]
        judge = runs[name].judge if name != "start" else "never"
        assert ("(simulated)" in row) == (judge in ("human", "vlm-sim", "bands")), row
        assert " - " in row  # box AP, absent: neither 0 nor nan
        assert "nan" not in row


def test_an_arm_without_initial_labels_has_no_point_before_its_first_run(tmp_path):
    settings = load(ROOT / "params.yaml")
    runs = {
        "human-1": Run(judge="human", prev="start"),
        "a-1": Run(judge="always", prev="gsam2"),
        "a-2": Run(judge="always", prev="a-1"),
    }
    points = curve(summary_of(tmp_path, runs, settings.judges), runs, settings.judges)
    assert [(p.run, p.round) for p in points if p.arm == "a"] == [("a-1", 1), ("a-2", 2)]
    assert [(p.run, p.round) for p in points if p.arm != "a"] == [("start", 0), ("human-1", 1)]


def test_curve_begins_every_arm_at_start(tmp_path):
    settings = load(ROOT / "presets/first-study.yaml")
    points = curve(summary_of(tmp_path, settings.runs, settings.judges), settings.runs, settings.judges)
    human = [p for p in points if p.arm == "human (simulated)"]
    assert [(p.run, p.round) for p in human] == [("start", 0), ("human-1", 1), ("human-2", 2)]
    assert [p.added_human_hours for p in human] == [0, 0.5, 1.0]
    assert {p.arm for p in points if p.run == "start"} == {p.arm for p in points}


def test_hours_after_the_initial_labels_are_against_start_whatever_the_chain(tmp_path):
    """By hand, start 4.2 h: an arm without initial labels draws nothing; an annotate run after human-1 draws 20 h more."""
    judges = load(ROOT / "params.yaml").judges
    runs = {
        "human-1": Run(judge="human", prev="start"), "drawn": Run(judge="never", prev="human-1", policy="annotate"),
        "zero-1": Run(judge="always", prev="gsam2", policy="drop"),
    }  # fmt: skip
    summary = summary_of(tmp_path, runs, judges)
    for name, hours in {"start": 4.2, "human-1": 4.2, "drawn": 24.2, "zero-1": 0.0}.items():
        summary[name] = replace(summary[name], draw_hours=hours, human_hours=hours, human_decisions=0)
    points = {p.run: p for p in curve(summary, runs, judges)}
    assert {run: (p.added_draw_hours, p.added_human_hours) for run, p in points.items()} == {
        "start": (0, 0), "human-1": (0, 0), "drawn": (20, 20), "zero-1": (-4.2, -4.2),
    }  # fmt: skip
    assert [points[run].round for run in runs] == [1, 2, 1]


def test_drawing_runs_are_one_line_by_their_hours(tmp_path):
    """The order of `runs` does not matter, and a human who draws after a judge's approvals is another arm."""
    judges = load(ROOT / "params.yaml").judges
    drawn = {name: Run(judge="never", prev="start", policy="annotate", arm=name) for name in ("all", "third")}
    runs = {**drawn, "human-1": Run(judge="human", prev="start"), "after": Run(judge="never", prev="human-1", policy="annotate")}
    summary = summary_of(tmp_path, runs, judges)
    for name, hours in {"start": 2.0, "all": 24.0, "third": 7.0}.items():
        summary[name] = replace(summary[name], human_hours=hours, draw_hours=hours)
    points = curve(summary, runs, judges)
    assert [(p.run, p.round, p.added_human_hours) for p in points if p.drawing] == [
        ("start", 0, 0),
        ("third", 1, 5),
        ("all", 2, 22),
    ]
    assert {p.arm for p in points if p.drawing} == {DRAWING}
    runs["none"] = Run(judge="never", prev="start", policy="annotate", batch=0)
    summary["none"] = replace(summary["start"], mask_AP=0.3)
    trained_on = [p for p in curve(summary, runs, judges) if p.drawing]
    assert [(p.run, p.round, p.added_human_hours) for p in trained_on] == [("none", 0, 0), ("third", 1, 5), ("all", 2, 22)]
    assert [(p.arm, p.run) for p in points if not p.drawing] == [
        ("human (simulated)", "start"), ("human (simulated)", "human-1"), ("after", "after"),
    ]  # fmt: skip


def compared(sensitive=True, reason=None, above="no", curve_arms=None, changes=None) -> Comparison:
    priced = Against(5.0, Estimate(-1.5, -3.0, None, "high beyond"), Estimate(0.01, 0.002, 0.02), "no")
    judged = Judged(0.4, {"3 s": replace(priced, answer=above), "9 s": priced})
    return Comparison(
        Assay(sensitive, reason, None, None), {"vlm-1": arm(**{"difference": -0.002, "low": -0.019, "high": 0.016} | (changes or {}))},
        Drawing("no run draws", "3 s", {"vlm-1": judged} if curve_arms is None else curve_arms, {}), Plan({}, None, None, ["start"], []),
    )  # fmt: skip


def test_headline_numbers(tmp_path):
    summary = {"start": numbers(mask_AP=0.2, human_hours=2.0), "vlm-1": numbers(mask_AP=0.4, human_hours=5.0)}
    typed.write(tmp_path / "headline.json", headline(summary, compared()))
    ends = {"value": -1.5, "low": -3.0, "high": None}
    assert json.loads((tmp_path / "headline.json").read_text()) == {
        "assay": "yes", "mask_AP": {"start": 0.2, "vlm-1": 0.4}, "human_hours": {"start": 2.0, "vlm-1": 5.0},
        "hours_saved": {"vlm-1": {"3 s": ends, "9 s": ends}},
        "AP_lost": {"vlm-1": {price: {"value": 0.01, "low": 0.002, "high": 0.02} for price in ("3 s", "9 s")}},
    }  # fmt: skip
    assert [headline(summary, compared(one)).assay for one in (False, None)] == ["no", "not shown"]


def test_the_committed_files_are_read_and_written_again_byte_for_byte(tmp_path):
    """Each has one definition of its keys, in the file's order; the headline follows from the two."""
    metrics = ROOT / "metrics"
    summary, comparison = read_summary(metrics / "summary.json"), read_comparison(metrics / "comparison.json")
    written = {"summary": summary, "headline": headline(summary, comparison)}
    for name, value in written.items():
        typed.write(tmp_path / f"{name}.json", value)
        assert (tmp_path / f"{name}.json").read_bytes() == (metrics / f"{name}.json").read_bytes()
    for path in (metrics / "judge").glob("*.json"):
        typed.write(tmp_path / path.name, read_quality(path))
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_summary_follows_from_the_committed_files():
    settings = load(ROOT / "params.yaml")
    folders = (ROOT / "metrics" / kind for kind in ("detection", "cost", "judge", "training", "asking"))
    assert summarise(settings.runs, settings.judges, *folders) == read_summary(ROOT / "metrics/summary.json")


def test_points_are_read_as_they_were_written(tmp_path):
    settings = load(ROOT / "params.yaml")
    points = curve(read_summary(ROOT / "metrics/summary.json"), settings.runs, settings.judges)
    typed.write(tmp_path / "curve.json", points)
    assert read_points(tmp_path / "curve.json") == points
    assert list(json.loads((tmp_path / "curve.json").read_text())[0]) == [
        "arm", "run", "round", "added_human_hours", "added_draw_hours", "human_hours", "mask_AP", "box_AP", "draw_hours",
        "human_decisions", "simulated", "drawing",
    ]  # fmt: skip
    write_json(tmp_path / "curve.json", [{"arm": "human"}])
    with pytest.raises(UserError, match=r"curve\.json: not a curve's points as this version writes them; `dvc repro`"):
        read_points(tmp_path / "curve.json")


def test_answers_in_the_order_of_proof():
    names = {"human-1": "human-1 (simulated)"}
    assert answers(compared(None, "no control in runs"), names) == [
        "Can this experiment tell judges apart? not shown: no control in runs",
        "At equal hours, better than drawing random images: no arm; approval does not pay here",
        "Of these two trained models, vlm-1 is no worse than human-1 (simulated) by more than 1.0 point: cannot tell "
        "(-0.2 points (-1.9 to +1.6))",
    ]  # fmt: skip
    assert answers(compared(above="yes"), names)[1] == "At equal hours, better than drawing random images: vlm-1"
    nothing = {"difference": None, "low": None, "high": None, "reason": "no test image shows an instance"}
    without = answers(compared(curve_arms={}, changes=nothing), names)
    assert without[1] == "No drawing curve: no run draws"
    assert without[2].endswith("cannot tell (no test image shows an instance)")
    alike = answers(compared(changes={"difference": 0.0, "low": None, "high": None, "reason": "both predict the same"}), names)
    assert alike[2].endswith("cannot tell (+0.0 points; both predict the same)")


def test_a_comparison_of_another_version_is_one_line(tmp_path):
    write_json(tmp_path / "comparison.json", {"vlm-1": {"against": "human-1"}})
    with pytest.raises(UserError, match=r"comparison\.json: not a comparison as this version writes it; `dvc repro`"):
        read_comparison(tmp_path / "comparison.json")


@pytest.mark.parametrize("change", [{"unparsed": 3, "questions": None}, {"steps": None}, {"mask_AP": "0.3"}, {"simulated": 1}])
def test_a_summary_that_does_not_hold_together_is_one_line(tmp_path, change):
    content = json.loads((ROOT / "metrics/summary.json").read_text())
    content["start"].update(change)
    write_json(tmp_path / "summary.json", content)
    with pytest.raises(UserError, match=r"summary\.json: not a summary as this version writes it"):
        read_summary(tmp_path / "summary.json")


def test_an_arm_of_its_own_is_a_line_of_its_own(tmp_path):
    judges = load(ROOT / "params.yaml").judges
    runs = {"qwen-8": Run(judge="always", prev="start", arm="qwen-8"), "qwen-72": Run(judge="always", prev="start", arm="qwen-72")}
    assert {p.arm for p in curve(summary_of(tmp_path, runs, judges), runs, judges)} == {"qwen-8", "qwen-72"}


JUDGES = {
    "shelf": VlmJudge(kind="vlm", model="some/model", unit="instance"),
    "sure": VlmJudge(kind="vlm", model="some/model", unit="instance", calibrated=True),
    "learner": VlmJudge(kind="vlm", model="judges/learner/model", unit="instance"),
    "learner-sure": VlmJudge(kind="vlm", model="./judges/learner/model", unit="instance", calibrated=True),
    "sim": NoisyJudge(kind="noisy", recall=1, specificity=1),
    "always": load(ROOT / "params.yaml").judges["always"],
}
CALIBRATIONS = {"sure": Calibration(probed="shelf"), "learner-sure": Calibration(probed="learner")}


def measured(tmp_path, monkeypatch, took: dict[str, tuple[float, int]]) -> None:
    """A working tree with these outputs, of which these seconds on so many machines were measured here."""
    monkeypatch.chdir(tmp_path)
    for path, (seconds, machines) in took.items():
        write_json(Path(path), path)  # each another content
        timing.record(Path(path), seconds, machines)


def with_runs(runs: dict, **more) -> Settings:
    return load(ROOT / "params.yaml").model_copy(update={"runs": runs, "judges": JUDGES, **more})


PREPARED = {
    "artifacts/probes/shelf/verdicts.jsonl": (30.0, 2), "artifacts/probes/learner/verdicts.jsonl": (7.0, 1),
    "metrics/verifier/learner/held_out.json": (50.0, 2),
}  # fmt: skip
LEARNS = {"calibrations": CALIBRATIONS, "verifiers": {"learner": Verifier(base="shelf")}}


def test_what_a_judge_computed_before_its_first_verdict(tmp_path, monkeypatch):
    """Probes that only measure a judge (here: shelf, learner) belong to no arm of it."""
    measured(tmp_path, monkeypatch, PREPARED)
    assert preparations(JUDGES, JUDGES, *LEARNS.values(), timing.of_output) == {
        "shelf": {}, "sure": {"probes of shelf": 60}, "learner": {"training of learner": 100},
        "learner-sure": {"probes of learner": 7, "training of learner": 100}, "sim": {}, "always": {},
    }  # fmt: skip


def test_preparation_is_charged_once_an_arm_and_shown_in_its_price(tmp_path, monkeypatch):
    runs = {
        "sure-1": Run(judge="sure", prev="start"), "sure-2": Run(judge="sure", prev="sure-1"), "other": Run(judge="sure", prev="start"),
        "learner-1": Run(judge="learner", prev="start"), "mixed": Run(judge="learner-sure", prev="learner-1"),
        "sim-1": Run(judge="sim", prev="start"), "after-1": Run(judge="always", prev="sim-1"),
    }  # fmt: skip
    asked = {f"loop/{name}/verdicts.jsonl": (2.0, 3) for name in runs if name not in ("sim-1", "after-1")}
    measured(tmp_path, monkeypatch, PREPARED | asked)
    rows = computing(with_runs(runs, **LEARNS), timing.of_output)
    assert {name: row["preparation_seconds"] for name, row in rows.items()} == {
        "start": 0, "sure-1": 60, "sure-2": 0, "other": 60, "learner-1": 100, "mixed": 7, "sim-1": 0, "after-1": 0,
    }  # fmt: skip
    assert [rows[name]["judge_seconds"] for name in ("start", "sure-1", "sim-1", "after-1")] == [0, 6, None, 0]
    assert computed_before(runs, rows) == {
        "start": 0, "sure-1": 66, "sure-2": 72, "other": 66, "learner-1": 106, "mixed": 119, "sim-1": None, "after-1": None,
    }  # fmt: skip


def test_what_was_measured_elsewhere_is_not_known(tmp_path, monkeypatch):
    runs = {"learner-1": Run(judge="learner", prev="start")}
    measured(tmp_path, monkeypatch, {"loop/learner-1/verdicts.jsonl": (2.0, 1)})
    write_json(tmp_path / "metrics/verifier/learner/held_out.json", "trained elsewhere")
    rows = computing(with_runs(runs, **LEARNS), timing.of_output)
    assert rows["learner-1"] == {"judge_seconds": 2, "preparation_seconds": None}
    assert computed_before(runs, rows) == {"start": 0, "learner-1": None}
    write_json(tmp_path / "loop/learner-1/verdicts.jsonl", "another version, from a remote")
    assert computing(with_runs(runs, **LEARNS), timing.of_output)["learner-1"]["judge_seconds"] is None


def test_unparsed_answers_are_those_of_the_questions(tmp_path):
    runs = {"shelf-1": Run(judge="shelf", prev="start"), "always-1": Run(judge="always", prev="start")}
    rows = summary_of(tmp_path, runs, JUDGES, {"shelf-1": {"questions": 797, "unparsed": 774}})
    assert [(row.questions, row.unparsed) for row in rows.values()] == [(None, None), (797, 774), (3, None)]
    lines = table(rows).splitlines()
    assert "774 of 797" in lines[3]
    assert [" of " in line for line in lines[2:]] == [False, True, False]


def test_who_decided_nothing():
    def labelled(human, model):
        return numbers(images_human=human, images_model=model)

    runs = {
        "a-1": Run(judge="x", prev="start"), "a-2": Run(judge="x", prev="a-1"), "b-1": Run(judge="x", prev="start"),
        "b-2": Run(judge="x", prev="b-1"), "c": Run(judge="never", prev="start", policy="annotate"),
        "zero-1": Run(judge="x", prev="teacher"), "zero-2": Run(judge="x", prev="zero-1"), "new": Run(judge="x", prev="start"),
    }  # fmt: skip
    summary = {
        "start": labelled(72, 0), "a-1": labelled(72, 0), "a-2": labelled(72, 0), "b-1": labelled(72, 0), "b-2": labelled(72, 5),
        "c": labelled(360, 0), "zero-1": labelled(0, 0), "zero-2": labelled(0, 9),
    }  # fmt: skip
    assert decided_nothing(summary, runs) == {"a-1", "a-2", "b-1", "zero-1"}
    assert decided_nothing({}, runs) == set()


def test_the_readme_shows_the_committed_numbers():
    summary = json.loads((ROOT / "metrics/summary.json").read_text())
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    header = next(row for row in rows if row[0] == "run")
    shown = {row[0].split()[0]: dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)}
    for name, measured in summary.items():
        row = shown[name]
        assert ("(simulated)" in row["run"]) == measured["simulated"]
        for column, key, digits in (("mask AP", "mask_AP", 3), ("box AP", "box_AP", 3), ("human hours", "human_hours", 2)):
            assert row[column] == f"{measured[key]:.{digits}f}", (name, column)
        for column, key in (("images by human", "images_human"), ("by model", "images_model"), ("steps", "steps")):
            assert row[column] == str(measured[key]), (name, column)


def test_committed_metrics_are_of_runs_that_there_are():
    """Files of runs that are gone would lie in folders that stages depend on."""
    settings = load(ROOT / "params.yaml")
    for folder in ("asking", "cost", "detection", "judge", "training"):
        kept = {path.stem for path in (ROOT / "metrics" / folder).glob("*.json")}
        assert kept <= {"start", *settings.runs}, folder
    assert {path.stem for path in (ROOT / "metrics/probes").glob("*.json")} <= set(settings.probed)


def test_the_table_by_hand_is_of_the_runs_of_params_yaml(tmp_path, monkeypatch, capsys):
    """After a failed stage the summary that lies there is the committed one's."""
    settings = load(ROOT / "params.yaml")
    rows = summary_of(tmp_path, settings.runs, settings.judges)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    typed.write(tmp_path / "metrics/summary.json", rows)
    shutil.copy(ROOT / "metrics/comparison.json", tmp_path / "metrics")
    main([])
    assert capsys.readouterr().out.startswith(table(rows) + "\n\n")
    nothing = {name: row if row.asked is None else replace(row, asked=0) for name, row in rows.items()}
    typed.write(tmp_path / "metrics/summary.json", nothing)
    main([])
    assert "\n\nNo judge saw a proposal: no score reached predict.score_threshold (0.5)" in capsys.readouterr().out
    last = list(rows)[-1]
    typed.write(tmp_path / "metrics/summary.json", {name: row for name, row in rows.items() if name != last})
    with pytest.raises(SystemExit, match=rf"^error: metrics/summary.json: has the runs start, .*, and params.yaml start, .*, {last}: .*"):
        main([])
    (tmp_path / "metrics/summary.json").write_text("{")
    with pytest.raises(SystemExit, match=r"^error: metrics/summary\.json: cannot be read as JSON"):
        main([])
    assert capsys.readouterr().out == ""
