"""Few labelled pictures and folders of unlabelled ones, through real DVC to the page: no number is made of what nobody knows."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from pipeline import Clone, yaml
from test_own_data import draw

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Clone:
    folder = tmp_path_factory.mktemp("unlabelled")
    data = folder / "my data"
    draw(data, 18)
    draw(folder / "others", 34)  # the first 18 are the same pictures again
    shutil.move(folder / "others/my pictures", data / "new ones")
    labels = json.loads((folder / "others/it's all.json").read_text())
    # what another program has found, by the names of the files
    names = {row["id"]: row["file_name"] for row in labels["images"]}
    found = [{"file_name": names[row["image_id"]], "category_id": row["category_id"], "segmentation": row["segmentation"], "score": 0.8}
             for row in labels["annotations"]]  # fmt: skip
    (data / "found.json").write_text(json.dumps(found))

    def change(params: dict) -> None:
        params.clear()
        params.update(yaml.load((ROOT / "presets/own-data.yaml").read_text()))
        params["data"]["root"] = str(data)
        params["data"]["local"] = {
            "train": {"annotations": "it's all.json", "images": "my pictures"}, "test_fraction": 0.3, "pool": ["new ones"],
        }  # fmt: skip
        params["select"]["categories"] = ["wine glass", "Łódź's boat"]
        params["split"]["initial_fraction"] = 1.0
        params["detector"] |= {"kind": "blobs", "config": "configs/mask_rcnn_thin_R_18_FPN.yaml", "init": "scratch", "device": "cpu"}
        params["predict"].update(score_threshold=0.02)
        params["autolabels"] = {"mine": {"kind": "results", "file": "found.json"}}
        params["runs"] = {
            "confidence-1": {"judge": "confidence", "prev": "start", "policy": "pool", "batch": 10},
            "confidence-2": {"judge": "confidence", "prev": "confidence-1", "policy": "drop"},
            "mine-1": {"judge": "always", "prev": "mine", "policy": "drop"},
        }
        params["judges"]["confidence"]["threshold"] = 0.05

    return Clone(folder / "study", change, audited=True)


def test_it_runs_to_the_page(work):
    work.repro()
    pool, truth = work.json("loop/start/pool.json"), work.json("artifacts/split/truth.json")
    assert len(pool["images"]) == 16  # the copies of labelled pictures are left out
    assert work.json("metrics/download.json")["pool"]["images"] == 16
    copies = work.json("metrics/download.json")["pool"]
    assert copies["also_test_pictures"] + copies["also_labelled_pictures"] == 18
    assert not {row["id"] for row in pool["images"]} & {row["id"] for row in truth["images"]}
    assert work.json("metrics/split.json")["unlabelled"] == {"images": 16}
    quality = work.json("metrics/judge/confidence-1.json")
    assert (quality["asked"], quality["without_truth"]) == (0, 10 - quality["not_asked"])
    assert quality["recall"] is None
    assert work.json("metrics/autolabel/mine.json")["without_truth"] > 0
    labels = work.json("loop/mine-1/labels.json")
    assert {row["file_name"].partition("/")[0] for row in labels["images"]} == {"train", "pool"}
    done = work.run(sys.executable, "-m", "vlm_itl.report.page", PYTHONPATH="src")
    assert done.returncode == 0
    page = work.text("artifacts/report/index.html")
    assert "not known" in page
    gallery = work.text("loop/confidence-1/gallery.html")
    assert "Nobody has labelled these images" in gallery
    done = work.run(sys.executable, "-m", "vlm_itl", "dataset", "--run", "mine-1", PYTHONPATH="src")
    assert f"artifacts/dataset: {len(labels['images'])} images, {len(labels['annotations'])} annotations" in done.stdout
    assert "| mine-1 | always | rule: approves everything | drop |" in work.text("artifacts/dataset/README.md")
    work.commit("ran")


def test_stages_open_only_what_they_declare(work):
    assert work.undeclared() == []


@pytest.mark.parametrize(("run", "message"), [
    ({"judge": "human", "prev": "start", "policy": "pool"}, "a simulated human answers from labels, and 16 of 16 images have none"),
    ({"judge": "always", "prev": "start", "policy": "correct"}, "runs.x-1.policy: correct takes what a simulated human draws from labels"),
])  # fmt: skip
def test_whoever_needs_the_truth_says_so(work, run, message):
    work.settings(lambda p: p["runs"].update({"x-1": run}))
    done = work.run("dvc", "repro", "update@x-1", check=False)
    assert done.returncode != 0
    assert message in done.stdout
    work.run("git", "checkout", "-q", "params.yaml")


def test_new_pictures_join_and_what_was_approved_stays(work):
    """Another picture in the folder: `download` runs again, and what follows from it."""
    data = Path(work.run("python", "-c", "import yaml; print(yaml.safe_load(open('params.yaml'))['data']['root'])").stdout.strip())
    shutil.copy(data / "new ones" / sorted(p.name for p in (data / "new ones").iterdir())[0], data / "new ones/copy of one.png")
    assert work.repro("split") == {"download"}  # a copy changes nothing that follows
