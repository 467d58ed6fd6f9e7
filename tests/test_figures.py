"""The figures: what they show, and that the same numbers give the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT
from rows import arm, quality

from vlm_itl.core.files import read_json, write_json
from vlm_itl.core.runs import DRAWING
from vlm_itl.data.synthetic.dataset import draw_scene
from vlm_itl.judges.verdict import Verdict
from vlm_itl.report import figures
from vlm_itl.report.figures import arms, comparison, data, judges, overview
from vlm_itl.report.points import Point, SweepPoint
from vlm_itl.settings import load

HOSTILE = "$\\frac{1}{$ <b>&"


def point(arm, number, ap, hours=0.0, decisions=0, run=None, drawn=0.0):
    return Point(
        arm=arm, run=run or f"{arm}-{number}", round=number, drawing=arm == DRAWING, added_human_hours=hours, human_hours=4 + hours,
        mask_AP=ap, box_AP=None, draw_hours=4 + drawn, added_draw_hours=drawn, human_decisions=decisions, simulated=False,
    )  # fmt: skip


POINTS = [
    point("human", 0, 0.2, run="start"), point("human", 1, 0.25, 0.5, 600),
    point("vlm", 0, 0.2, run="start"), point("vlm", 1, 0.24),
    point("sim", 0, 0.2, run="start"), point("sim", 1, 0.23),
    point(DRAWING, 0, 0.2, run="start"), point(DRAWING, 1, 0.35, 6, run="some", drawn=6.0),
    point(DRAWING, 2, 0.4, 20, run="all", drawn=20.0),
]  # fmt: skip
SECONDS = {"start": 0.0, "human-1": 0.0, "vlm-1": 1800.0, "sim-1": None, "some": 0.0, "all": 0.0, "zero-1": 0.0, "drawn": 0.0}
COMPUTING = arms.Computing(SECONDS, price=2.0, decision=3.0)


def lines(axes) -> dict:
    return {line.get_label(): [tuple(map(float, xy)) for xy in line.get_xydata()] for line in axes.lines}


def test_hours_of_other_prices():
    panels = arms.prices(POINTS, [1.6, 3.0, 9.0], COMPUTING).axes
    assert [lines(p)["human"][1] for p in panels] == [pytest.approx((600 * s / 3600, 0.25)) for s in (1.6, 3, 9, 3)]
    assert [lines(p)["vlm"][1][0] for p in panels] == pytest.approx([0, 0, 0, 2 * 1800 / 3600])
    assert "sim" in lines(panels[0])
    assert "sim" not in lines(panels[3])  # what it computed is not known
    assert any("left out" in t.get_text() and "sim" in t.get_text() for t in panels[3].texts)
    assert [p.get_title() for p in panels[:3]] == ["1.6 s a decision", "3 s a decision", "9 s a decision"]


def test_other_prices_count_from_the_initial_labels_whatever_an_arm_begins_with():
    """An arm without them is left of 0; one whose first own run drew 20 hours does not lose them."""
    points = [*POINTS, point("zero", 1, 0.1, -4.2, drawn=-4.2), point("drawn", 2, 0.3, 20, 3600, run="drawn", drawn=20.0)]
    for axes, hours in zip(arms.prices(points, [1.0, 3.0, 9.0], COMPUTING).axes, (21, 23, 29, 23)):
        assert lines(axes)["zero"] == [pytest.approx((-4.2, 0.1))]
        assert lines(axes)["drawn"] == [pytest.approx((hours, 0.3))]
        assert axes.get_xlim()[0] < -4.2
        assert axes.get_xlim()[1] > hours


def test_drawing_random_images_is_a_line_in_every_panel():
    left, right = arms.hours(POINTS).axes
    assert lines(right)["human"] == [(0, 0.2), (0.5, 0.25)]
    assert lines(right)[DRAWING] == [(0, 0.2), (6, 0.35), (20, 0.4)]
    assert DRAWING in [t.get_text() for t in right.get_legend().get_texts()]
    assert [t.get_text() for t in left.get_xticklabels()] == ["vlm", "sim"]
    assert [0.2, 0.2] in [list(line.get_ydata()) for line in left.lines]  # for no hours: start's level
    for panel in arms.prices(POINTS, [1.6, 3.0, 9.0], COMPUTING).axes:
        assert lines(panel)[DRAWING] == [(0, 0.2), (6, 0.35), (20, 0.4)]
    assert lines(arms.hours([p for p in POINTS if p.drawing]).axes[1])[DRAWING]  # though no arm is there


def test_a_sweep_has_a_cluster_a_fraction_and_the_spread_of_its_seeds():
    rows = [
        SweepPoint(experiment=f"e{f}{s}", fraction=f, arm="human", round=n, human_hours=20 * f + n, mask_AP=f / 2 + s / 10, drawing=False,
                   run=f"human-{n}" if n else "start")
        for f in (0.2, 0.4) for s in (0, 1) for n in (0, 1)
    ]  # fmt: skip
    rows += [replace(row, arm="all", run="all", human_hours=9.0, mask_AP=0.3, drawing=True) for row in rows if row.round]
    axes = arms.sweep(rows).axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines if line.get_linestyle() == "--"] == [
        [[4, pytest.approx(0.15)], [9, pytest.approx(0.3)]], [[8, pytest.approx(0.25)], [9, pytest.approx(0.3)]],
    ]  # fmt: skip
    trained_on = [replace(row, arm="all", run="none", mask_AP=0.2, drawing=True) for row in rows if row.run == "start"]
    with_none = arms.sweep(rows + trained_on).axes[0]  # in place of start, at its hours
    assert [4, pytest.approx(0.2)] in [line.get_xydata().tolist()[0] for line in with_none.lines if line.get_linestyle() == "--"]
    means = [tuple(map(tuple, c.lines[0].get_xydata())) for c in axes.containers]
    assert means == [((4, pytest.approx(0.15)), (5, pytest.approx(0.15))), ((8, pytest.approx(0.25)), (9, pytest.approx(0.25)))]
    low, high = axes.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.1, 0.2))
    assert {t.get_text() for t in axes.texts} == {"20%", "40%"}
    assert axes.get_xlim()[0] < 4
    assert axes.get_xlim()[1] > 9
    assert axes.get_ylim()[0] < 0.1
    assert axes.get_ylim()[1] > 0.3


def test_crowding_has_wilson_intervals_and_no_empty_bins():
    top, bottom = judges.crowding({"a": quality(10, 8, 16, 36)}).axes
    (_, y) = top.containers[0].lines[0].get_xydata()[0]
    assert y == 0.5
    low, high = top.containers[0].lines[2][0].get_segments()[0][:, 1]
    # Wilson's formula by hand for 8 of 16
    n, p, z = 16, 0.5, 1.959964
    half = z * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5 / (1 + z * z / n)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)
    assert bottom.containers[0].lines[0].get_xydata()[0][1] == 0.9  # 18 of 20 wrong ones rejected
    assert [t.get_text() for t in bottom.get_xticklabels()] == ["1\n(16 right of 36)"]


def test_rounds_count_right_and_wrong():
    axes = judges.rounds({"a-1": quality(10, 8, 16, 36), "b-1": quality(0, 0, 16, 36)}).axes[0]
    assert [[bar.get_width() for bar in group] for group in axes.containers] == [[8, 0], [2, 0]]
    assert [t.get_text() for t in axes.texts] == ["10, 80% right", "none approved"]


def test_differences_are_in_points():
    nothing = arm(difference=None, low=None, high=None)
    figure = comparison.differences({"x-1": arm(difference=-0.02, low=-0.05, high=0.01), "broken": nothing}, {"x-1": "x-1 (simulated)"})
    assert [[pytest.approx(x) for x in line.get_xdata()] for line in figure.axes[0].lines[1:]] == [[-5, 1], [-2]]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["x-1 (simulated)\nminus human-1"]


def test_arms_without_an_interval_are_named_with_the_reason():
    none = arm(low=None, high=None, reason="both learned from the same labels")
    axes = comparison.differences({"x-1": arm(answer="no"), "y-1": none}, {}).axes[0]
    assert axes.get_title(loc="left") == "no interval, y-1: both learned from the same labels"
    assert len(axes.get_yticklabels()) == 1
    alone = comparison.differences({"y-1": none}, {}).axes[0]
    assert [t.get_text() for t in alone.texts] == ["no interval, y-1: both learned from the same labels"]


def test_answers_that_the_assay_takes_away_are_said_once():
    blind = arm(answer="cannot tell", reason="blind")
    figure = comparison.differences({"x-1": blind, "y-1": blind}, {})
    assert figure.axes[0].get_title(loc="left") == "cannot tell: blind"
    assert len(figure.axes[0].get_yticklabels()) == 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["no worse by more than 1.0 point: cannot tell"]


def test_nothing_to_draw_is_no_error(tmp_path):
    drawn = [
        arms.hours([]),
        arms.prices([], [3.0], COMPUTING),
        judges.crowding({}),
        judges.rounds({}),
        comparison.differences({}, {}),
    ]
    for k, figure in enumerate(drawn):
        figures.save(figure, tmp_path / f"{k}.svg")
        assert (tmp_path / f"{k}.svg").stat().st_size > 500


def test_names_are_text_and_never_formulas(tmp_path):
    part = {"images": 1, "instances": 1, "images_per_class": {HOSTILE: 1}, "instances_per_class": {HOSTILE: 1}, "mask_area": None}
    drawn = [arms.hours([replace(p, arm=p.arm + HOSTILE) for p in POINTS]), data.split({"initial": part}),
             judges.crowding({HOSTILE: quality(10, 8, 16, 36)}), judges.rounds({HOSTILE: quality(10, 8, 16, 36)})]  # fmt: skip
    for figure in drawn:
        figures.save(figure, tmp_path / "x.svg")  # a formula that cannot be read raises
    assert "<svg" in (tmp_path / "x.svg").read_text()


def test_names_that_xml_cannot_hold(tmp_path):
    name = "bird\x00\x1b[31m\x85\ud800\uffff\tend"
    part = {"images": 1, "instances": 1, "images_per_class": {name: 1}, "instances_per_class": {name: 1}, "mask_area": None}
    figures.save(data.split({"initial": part}), tmp_path / "x.svg")
    text = ElementTree.parse(tmp_path / "x.svg", ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True)))
    assert any("bird\ufffd\ufffd[31m\ufffd\ufffd\ufffd\ufffdend" in (e.text or "") for e in text.iter())


def test_many_arms_look_different():
    looks = figures.styles(f"arm {k}" for k in range(30))
    assert len({tuple(look.values()) for look in looks.values()}) == 30


def test_the_stage_gives_equal_bytes_in_two_processes_and_no_date(tmp_path):
    drawn = ("data-figure", "comparison-figure", "hours", "prices", "crowding", "rounds")
    (tmp_path / "judge").mkdir()
    write_json(tmp_path / "comparison.json", read_json(ROOT / "metrics/comparison.json"))
    write_json(tmp_path / "curve.json", [])
    for name, seed in (("a", "1"), ("b", "2")):
        done = subprocess.run(
            [sys.executable, "-m", "stages.figures", f"--split={ROOT / 'metrics/split.json'}", f"--judge={tmp_path / 'judge'}",
             f"--compared={tmp_path / 'comparison.json'}", f"--curve={tmp_path / 'curve.json'}",
             *(f"--{figure}={tmp_path / name}/{figure}.svg" for figure in drawn)],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    for figure in drawn:
        assert (tmp_path / f"a/{figure}.svg").read_bytes() == (tmp_path / f"b/{figure}.svg").read_bytes()
    text = (tmp_path / "a/data-figure.svg").read_text()
    assert "dc:date" not in text
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace("http://creativecommons.org", "")


def test_the_committed_numbers_can_be_drawn(tmp_path):
    statistics = read_json(ROOT / "metrics/split.json")
    axes = data.split(statistics).axes
    assert sum(bar.get_height() for group in axes[1].containers for bar in group) == sum(p["instances"] for p in statistics.values())


def test_the_readmes_picture_is_that_of_the_committed_numbers(tmp_path):
    """Drawn again from `metrics/`, the answers beside it and the scenes, which depend on their number and the data's seed alone."""
    answers = read_json(ROOT / overview.ANSWERS)
    assert [row["approve"] for row in answers] == [True, False]
    drawn = load(ROOT / "params.yaml").data
    rows = [{"id": row["image_id"], "file_name": f"{row['image_id']}.jpg", "width": 1, "height": 1} for row in answers]
    (tmp_path / "artifacts/data/images").mkdir(parents=True)
    for row in rows:
        scene = draw_scene(np.random.default_rng([drawn.seed, row["id"]]), drawn.synthetic.long_side)
        PIL.Image.fromarray(scene.image).save(tmp_path / "artifacts/data/images" / row["file_name"], quality=90, subsampling=0)
    write_json(tmp_path / "artifacts/data/train.json", {"images": rows, "annotations": [], "categories": []})
    for name in ("params.yaml", "metrics", "configs", "judges"):
        (tmp_path / name).symlink_to(ROOT / name)
    overview.draw(tmp_path, answers, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (ROOT / overview.SVG).read_bytes()


def test_the_picture_shows_an_approval_and_a_rejection():
    mask = {"size": [2, 2], "counts": "04"}
    proposals = [{"image_id": i, "segmentation": mask} for i in (1, 1, 1, 2, 2, 2, 3)]
    said = [Verdict(i, n, True, "model", i != 2, accepted=[i != 2] * n) for i, n in ((3, 1), (1, 3), (2, 3))]
    found = overview.examples(said, proposals, 0)
    assert [(row["image_id"], row["approve"], row["accepted"]) for row in found] == [(1, True, [True] * 3), (2, False, [False] * 3)]
