"""The table and the plot's data."""

from __future__ import annotations

from conftest import ROOT

from vlm_itl.base.files import write_json
from vlm_itl.base.settings import Run, load
from vlm_itl.report import arm, curve, summarise, table


def summary_of(tmp_path, runs, judges):
    for k, name in enumerate(["start", *runs]):
        write_json(tmp_path / "detection" / f"{name}.json", {"mask": {"AP": 0.1 * k}, "box": {"AP": None}})
        labels = {"images": {"human": 5, "model": k, "ground_truth": 0}}
        write_json(tmp_path / "cost" / f"{name}.json", {"hours": 4 + k / 2, "draw_hours": 4, "human_decisions": 600 * k, "labels": labels})
        write_json(tmp_path / "training" / f"{name}.json", {"steps": 7})
        if name != "start":
            write_json(tmp_path / "asking" / f"{name}.json", {"questions": 3})
            write_json(
                tmp_path / "judge" / f"{name}.json", {"asked": 3, "approved": 0, "recall": None, "specificity": 1.0, "precision": None}
            )
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


def test_arms():
    assert [arm(n) for n in ("human-1", "vlm-sim-12", "supervised", "r-50-x")] == ["human", "vlm-sim", "supervised", "r-50-x"]


def test_an_arm_without_initial_labels_has_no_point_before_its_first_run(tmp_path):
    settings = load(ROOT / "params.yaml")
    runs = {
        "human-1": Run(judge="human", prev="start"),
        "a-1": Run(judge="always", prev="gsam2"),
        "a-2": Run(judge="always", prev="a-1"),
    }
    points = curve(summary_of(tmp_path, runs, settings.judges), runs)
    assert [(p["run"], p["round"]) for p in points if p["arm"] == "a"] == [("a-1", 1), ("a-2", 2)]
    assert [(p["run"], p["round"]) for p in points if p["arm"] != "a"] == [("start", 0), ("human-1", 1)]


def test_curve_begins_every_arm_at_start(tmp_path):
    settings = load(ROOT / "params.yaml")
    points = curve(summary_of(tmp_path, settings.runs, settings.judges), settings.runs)
    human = [p for p in points if p["arm"] == "human (simulated)"]
    assert [(p["run"], p["round"]) for p in human] == [("start", 0), ("human-1", 1), ("human-2", 2)]
    assert [p["added_human_hours"] for p in human] == [0, 0.5, 1.0]
    assert {p["arm"] for p in points if p["run"] == "start"} == {p["arm"] for p in points}
