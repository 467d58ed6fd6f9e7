"""Settings for own data as the guide says: copied, edited in the lines marked HERE, run by real DVC on a data set of other classes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image, ImageDraw
from pipeline import Clone, yaml

pytestmark = pytest.mark.pipeline

CLASSES = {90001: "wine glass", 3: "Łódź's boat", 17: "unused"}


def draw(folder: Path, number: int) -> None:
    """Pictures of one or two bright shapes on dark ground: `folder`/it's all.json and the pictures in `folder`/my pictures/."""
    rng = random.Random(0)
    images, annotations = [], []
    (folder / "my pictures").mkdir(parents=True)
    for k in range(number):
        width, height = rng.choice([(96, 64), (64, 96)])
        picture = Image.new("RGB", (width, height), (rng.randrange(40), rng.randrange(40), 30))
        name, image = f'picture {k}\'s "copy".{"png" if k % 3 else "jpg"}', 10**9 - 7 * k
        for side in range(1 + k % 2):
            x, y, w, h = (rng.randrange(2, 8) + side * width // 2, rng.randrange(4, 12), rng.randrange(18, 22), rng.randrange(24, 40))
            tall = rng.random() < 0.5
            outline = [x, y, x + w, y, x + w, y + h, x, y + h] if tall else [x, y + h, x + w // 2, y, x + w, y + h]
            ImageDraw.Draw(picture).polygon(outline, fill=(230, 210, 90) if tall else (90, 200, 230))
            annotations.append({
                "id": len(annotations), "image_id": image, "category_id": 90001 if tall else 3, "segmentation": [outline],
                "bbox": [x, y, w, h], "area": w * h if tall else w * h / 2, "iscrowd": 0,
            })  # fmt: skip
        picture.save(folder / "my pictures" / name)
        images.append({"id": image, "file_name": name, "width": width, "height": height})
    rows = {"images": images, "annotations": annotations, "categories": [{"id": i, "name": n} for i, n in CLASSES.items()]}
    (folder / "it's all.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Clone:
    folder = tmp_path_factory.mktemp("own") / "own study"
    data = folder.parent / "Anna's data; $HOME"
    draw(data, 24)

    def change(params: dict) -> None:
        params.clear()
        params.update(yaml.load((ROOT / "presets/own-data.yaml").read_text()))
        params["data"]["root"] = str(data)
        params["data"]["local"] = {"train": {"annotations": "it's all.json", "images": "my pictures"}, "test_fraction": 0.3}
        params["select"]["categories"] = ["wine glass", "Łódź's boat"]
        # and a detector that a CPU trains in seconds
        params["detector"] |= {"config": "configs/mask_rcnn_thin_R_18_FPN.yaml", "init": "scratch", "device": "cpu"}
        params["pretrain"].update(epochs=1, learning_rate=0.002)
        params["train"].update(epochs=0.5, learning_rate=0.001)
        params["predict"].update(score_threshold=0.001, max_detections=2)  # an untrained detector is sure of nothing
        params["split"]["initial_fraction"] = 0.5

    return Clone(folder, change, audited=True)


def repro(work: Clone) -> subprocess.CompletedProcess[str]:
    """What `make repro` does after the set-up."""
    return work.run(
        sys.executable, "-m", "vlm_itl.experiments.repro", check=False, PYTHONPATH=os.pathsep.join(("src", work.env["PYTHONPATH"]))
    )


def test_it_runs_as_it_is(work):
    done = repro(work)
    assert done.returncode == 0, done.stdout
    summary = work.json("metrics/summary.json")
    assert set(summary) == {"start", "human-1", "confidence-1", "always-1", "draw-none", "supervised"}
    assert summary["always-1"]["approved"] == summary["always-1"]["asked"] > 0
    assert all(row["mask_AP"] is not None for row in summary.values())
    assert set(work.json("metrics/comparison.json")["arms"]) == {"confidence-1", "always-1", "draw-none", "supervised"}
    assert {c["name"] for c in work.json("loop/start/labels.json")["categories"]} == {"wine glass", "Łódź's boat"}
    images = work.json("artifacts/data/train.json")["images"] + work.json("artifacts/data/test.json")["images"]
    assert len(images) == 24
    done = work.run(sys.executable, "-m", "vlm_itl.report.page", PYTHONPATH="src")
    assert "missing" not in done.stdout
    work.commit("ran")


def test_stages_open_only_what_they_declare(work):
    """With Mask R-CNN, which reads a config and may fetch weights."""
    assert {stage for stage, _ in work.opened()} >= {"pretrain", "train@human-1", "predict@human-1"}
    assert work.undeclared() == []


def test_an_arm_that_fails_does_so_alone(work):
    """A VLM switched on whose server is down: the other new arm is trained and measured, and the last lines say what is what."""
    port = "9"  # the port named discard, on which nobody listens

    def change(params: dict) -> None:
        server = {"base_urls": [f"http://127.0.0.1:{port}/v1"], "retries": 0, "timeout": 5}
        question = "[mask]\nIs this right? {options}\n\n[missing]\nIs that all? {options}\n"
        params["judges"]["masks"] = {"kind": "vlm", "backend": "openai", "model": "none", "unit": "instance", "prompt": question}
        params["judges"]["masks"]["server"] = server
        params["runs"] |= {"masks-1": {"judge": "masks", "prev": "start"}, "masks-2": {"judge": "masks", "prev": "masks-1"}}
        params["runs"] |= {"random-1": {"judge": "random", "prev": "start", "policy": "annotate"}}

    work.settings(change)
    done = repro(work)
    assert done.returncode not in (0, 130)
    assert work.json("metrics/detection/random-1.json")["mask"]["AP"] is not None
    *_, complete, incomplete, failed, then = done.stdout.splitlines()
    assert complete == "complete: human-1, confidence-1, always-1, draw-none, supervised, random-1"
    assert incomplete == "not complete: masks-1, masks-2"
    assert failed.startswith("failed: judge@masks-1: ")
    assert f"127.0.0.1:{port}" in failed
    assert then.startswith("the report waits for all runs: ")
    assert f"error: {failed.removeprefix('failed: judge@masks-1: ')}" in done.stdout.splitlines()  # where it happened, too


def test_a_run_that_was_tried_and_thrown_away_leaves_nothing(work):
    """Its files lie in folders that others depend on; a colleague's clone, with the cache, has nothing to do."""
    assert (work.folder / "artifacts/matches/random-1.npz").exists()
    work.run("git", "checkout", "-q", "params.yaml", "dvc.lock")
    # a slightly other state, so that all of the report is made anew beside the leftovers
    work.settings(lambda p: p["compare"].update(replicates=100))
    done = repro(work)
    assert done.returncode == 0, done.stdout
    assert "removed artifacts/matches/random-1.npz: params.yaml has no such run" in done.stdout
    assert not [path for path in (work.folder / "metrics").rglob("random-1.json")]
    recorded = yaml.load(work.text("dvc.lock"))["stages"]
    (matches,) = (dep for dep in recorded["compare"]["deps"] if dep["path"] == "artifacts/matches")
    assert matches["nfiles"] == 6
    work.commit("another comparison")
    clone = work.folder.parent / "colleague"
    shutil.copytree(work.folder / ".git", clone / ".git")
    run = lambda *words: subprocess.run(words, cwd=clone, env=work.env, capture_output=True, text=True, check=True).stdout  # noqa: E731
    run("git", "checkout", "-q", "-f", ".")
    run("dvc", "config", "--local", "cache.dir", str(work.folder / ".dvc/cache"))
    run("dvc", "checkout", "dvc.yaml")
    assert run("dvc", "status", "dvc.yaml") == "Data and pipelines are up to date.\n"
    assert "Running stage" not in run("dvc", "repro")
    assert run("git", "status", "--porcelain") == ""


def test_the_lines_to_change_are_marked():
    text = (ROOT / "presets/own-data.yaml").read_text()
    marked = [line.split(":")[0].strip() for line in text.splitlines() if re.search("# HERE: ", line)]
    assert marked == ["root", "local", "categories"]
