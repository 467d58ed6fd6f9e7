"""People draw in the middle of a real DVC run: it stops in one line, and goes on with what came back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from drawing_world import Cvat, LabelStudio
from pipeline import Clone, ran, shrink

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Clone:
    def change(params: dict) -> None:
        shrink(params)
        params["runs"] = {
            "people-1": {"judge": "confidence", "prev": "start", "policy": "annotate", "batch": 6, "drawn_by": "people"},
            "other-1": {"judge": "human", "prev": "start", "policy": "annotate"},
            "people-2": {"judge": "never", "prev": "people-1", "policy": "correct", "batch": 2, "drawn_by": "people"},
        }
        params["judges"]["confidence"]["threshold"] = 0.9999

    return Clone(tmp_path_factory.mktemp("drawing") / "work", change, audited=True)


def command(work: Clone, *words: str) -> str:
    return work.run(sys.executable, "-m", "vlm_itl", *words, PYTHONPATH="src").stdout


def test_people_draw_and_the_run_goes_on(work):
    said = work.run("dvc", "repro", "--keep-going", check=False)
    assert said.returncode != 0
    assert "error: people-1: 6 of 6 images wait to be drawn: make export RUN=people-1" in said.stdout
    assert "evaluate@other-1" in ran(said.stdout)  # the other arm goes on

    # out, edited in both tools, and back
    assert "6 of 6 images" in command(work, "export", "--run", "people-1")
    folder = work.folder / "artifacts/export/people-1"
    cvat = Cvat(folder / "cvat.zip")
    ids = sorted(int(name[:12]) for name in cvat.shapes)
    proposals = {i: len(cvat.of(i)) for i in ids}
    two = next(i for i in ids if proposals[i])
    shapes = cvat.of(two)
    shapes[0]["mask"][20:30, 20:30] ^= True
    shapes.append({"label": "bird", "polygons": [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0]]})
    assert "1 images are drawn" in command(work, "import", "--run", "people-1", "--reviewer", "ana", "--", _export(cvat, work, two))
    studio = LabelStudio(folder / "label-studio.json")
    for i in ids:
        if i != two:
            studio.submit(i, [] if i == ids[-1] else None)
    path = studio.export(work.folder / "back.json")
    assert "next: dvc repro" in command(work, "import", "--run", "people-1", "--", str(path))
    work.commit("drawn")

    ran_now = work.repro("evaluate@people-1")
    assert {"update@people-1", "train@people-1", "predict@people-1", "evaluate@people-1"} <= ran_now
    assert not {"judge@people-1", "pretrain"} & ran_now
    labels = work.json("loop/people-1/labels.json")
    drawn = {row["id"]: row["source"] for row in labels["images"] if row["run"] == "people-1"}
    assert sorted(drawn) == ids
    own = [row for row in work.json("loop/people-1/ledger.json") if row["run"] == "people-1" and row["actor"] == "human"]
    assert [(row["action"], row["images"], row["instances"]) for row in own] == [
        ("draw", 6, 1),
        ("correct", 1 + bool(proposals[ids[-1]]), 1),
    ]
    cost = work.json("metrics/cost/people-1.json")
    assert cost["drawn_instances"] == work.json("metrics/cost/start.json")["drawn_instances"] + 1
    assert cost["corrected_instances"] == 1
    assert "corrected_instances" not in work.json("metrics/cost/other-1.json")
    assert work.repro("evaluate@people-1") == set()

    assert work.undeclared() == []


def test_the_next_round_draws_on_what_is_proposed_then(work):
    work.run("dvc", "repro", "--keep-going", "update@people-2", check=False)
    command(work, "export", "--run", "people-2")
    cvat = Cvat(work.folder / "artifacts/export/people-2/cvat.zip")
    said = command(work, "import", "--run", "people-2", "--finished", "--", _export(cvat, work, None))
    assert "2 images are drawn" in said
    assert "update@people-2" in work.repro("update@people-2")
    # another person's other proposals: what was drawn is stale, and nothing is made of it
    work.settings(lambda params: params["predict"].update(max_detections=1, score_threshold=0.5))
    said = work.run("dvc", "repro", "update@people-2", check=False).stdout
    assert "are of another picture or of other proposals than today's, so they are not used" in said
    assert "images wait to be drawn: make export RUN=people-1" in said


def test_drawings_are_in_git(work):
    listed = work.run("git", "ls-files", "drawings").stdout.splitlines()
    assert "drawings/.gitkeep" in listed
    assert len([name for name in listed if name.startswith("drawings/people-1/")]) == 6


def _export(cvat: Cvat, work: Clone, image_id: int | None) -> str:
    """All that is there, or one image."""
    if image_id is not None:
        cvat.shapes = {name: shapes for name, shapes in cvat.shapes.items() if int(name[:12]) == image_id}
    return str(cvat.export(Path(work.folder.parent) / "back.zip"))
