"""Pictures that nobody has labelled: which take part, and that nothing pretends to know what they show."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import instance, rectangle
from PIL import Image

from vlm_itl.core.coco import without_truth
from vlm_itl.core.errors import UserError
from vlm_itl.data.local import LocalSource
from vlm_itl.data.source import Fetched
from vlm_itl.judges.base import Task
from vlm_itl.judges.verdict import Verdict
from vlm_itl.loop.policies.annotate import Annotate
from vlm_itl.loop.policies.pool import Pool
from vlm_itl.loop.update import update
from vlm_itl.metrics.judges import judge_quality
from vlm_itl.metrics.pseudo_labels import quality
from vlm_itl.report.gallery import collect
from vlm_itl.settings import AlwaysJudge, Data, Gallery, HumanJudge, Local, Run, Select


def picture(file: Path, seed: int, size: tuple[int, int] = (40, 50)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(file)


@pytest.fixture
def root(tmp_path) -> Path:
    """A labelled training picture, a test picture, and a folder of others."""
    root = tmp_path / "data"
    for part, seed in (("train", 1), ("test", 2)):
        picture(root / part / "a.png", seed)
        rows = {"images": [{"id": 7, "file_name": "a.png", "height": 40, "width": 50}], "categories": [{"id": 3, "name": "bird"}],
                "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "segmentation": rectangle(40, 50, 3, 4, 9, 7)}]}  # fmt: skip
        (root / f"{part}.json").write_text(json.dumps(rows))
    return root


def fetch(root: Path, *pool: str, **more) -> Fetched:
    parts = {name: {"annotations": f"{name}.json", "images": name} for name in ("train", "test")}
    data = Data(source="local", root=str(root), local=Local(**parts, pool=list(pool)), **more.pop("data", {}))
    return LocalSource(data).fetch(root.parent / "out", root, Select(categories=["bird"], min_area=0, **more))


def test_pictures_of_all_formats_and_folders_join_and_others_are_counted(root, capsys):
    for k, name in enumerate(("new/b.PNG", "new/deep/er/c.jpg", "more/d.webp", "more/e.tiff", "more/f.bmp", "more/g.gif")):
        picture(root / name, 10 + k)
    (root / "new/notes.txt").write_text("no picture")
    (root / "new/.DS_Store").write_text("")
    picture(root / "new/.hidden/h.png", 3)
    (root / "more/torn.jpg").write_bytes((root / "new/deep/er/c.jpg").read_bytes()[:400])
    (root / "new/same as train.png").write_bytes((root / "train/a.png").read_bytes())
    (root / "new/same as test.png").write_bytes((root / "test/a.png").read_bytes())
    (root / "more/same as b.png").write_bytes((root / "new/b.PNG").read_bytes())
    outside = root.parent / "secret.png"
    picture(outside, 99)
    (root / "new/link.png").symlink_to(outside)
    (root / "new/linked").symlink_to(root.parent)
    (root / "new/loop.png").symlink_to(root / "new/loop.png")
    parts, notes = fetch(root, "new", "more")
    rows = parts["pool"]["images"]
    assert [row["original_name"] for row in rows] == ["more/d.webp", "more/e.tiff", "more/f.bmp", "more/g.gif", "more/same as b.png",
                                                      "new/deep/er/c.jpg"]  # fmt: skip
    assert [row["id"] for row in rows] == [3, 4, 5, 6, 7, 8]
    assert parts["pool"]["annotations"] == []
    assert parts["pool"]["categories"] == parts["train"]["categories"]
    for row in rows:
        assert (root.parent / "out" / row["file_name"]).read_bytes() == (root / row["original_name"]).read_bytes()
    assert sorted(os.listdir(root.parent / "out/pool")) == [Path(row["file_name"]).name for row in rows]
    assert notes["pool"] == Counter(
        images=6, other_files=1, hidden_files=1, links_out=2, unreadable_pictures=1, also_test_pictures=1, also_labelled_pictures=1,
        copies=1, images_over_limit=0,
    )  # fmt: skip
    assert "torn.jpg is not a whole picture" in capsys.readouterr().out


def test_a_limit_draws_by_the_seed(root):
    for k in range(9):
        picture(root / f"new/{k}.png", 20 + k)
    drawn = [[row["original_name"] for row in fetch(root, "new", max_images=4, seed=seed).parts["pool"]["images"]] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] == sorted(drawn[0])
    assert drawn[0] != drawn[2]
    assert [len(names) for names in drawn] == [4, 4, 4]
    assert fetch(root, "new", max_images=4).notes["pool"]["images_over_limit"] == 5


@pytest.mark.parametrize("content", [{}, {"notes.txt": b"x"}, {"a.png": b"no picture"}])
def test_a_folder_without_a_picture_is_an_error(root, content):
    (root / "new").mkdir()
    for name, value in content.items():
        (root / "new" / name).write_bytes(value)
    with pytest.raises(UserError, match=r"new: no picture here can take part \(data.local.pool\)"):
        fetch(root, "new")


def test_a_picture_too_large_is_left_out_before_it_is_decoded(root, capsys):
    picture(root / "new/small.png", 5)
    picture(root / "new/large.png", 6, (200, 200))
    parts, notes = fetch(root, "new", data={"max_pixels": 5000})
    assert [row["original_name"] for row in parts["pool"]["images"]] == ["new/small.png"]
    assert notes["pool"]["unreadable_pictures"] == 1
    assert "more than data.max_pixels" in capsys.readouterr().out


def test_a_hostile_name_reaches_no_terminal_raw(root, capsys):
    (root / "new").mkdir()
    (root / "new/\x1b[31mred.png").write_bytes(b"no picture")
    picture(root / "new/b.png", 5)
    (root / os.fsdecode(b"new/\xff.png")).write_bytes((root / "new/b.png").read_bytes() + b"more")
    names = [row["original_name"] for row in fetch(root, "new").parts["pool"]["images"]]
    assert names == ["new/b.png", "new/?.png"]
    assert "\x1b" not in capsys.readouterr().out


ROWS = [{"id": 1, "file_name": "1.png", "height": 40, "width": 50}, {"id": 2, "file_name": "2.png", "height": 40, "width": 50}]
BOX = (3, 4, 9, 7)
CATEGORIES = [{"id": 1, "name": "bird"}]
POOL = {"images": ROWS, "annotations": [], "categories": CATEGORIES}
TRUTH = {"images": ROWS[:1], "annotations": [instance(BOX)], "categories": CATEGORIES}  # of the first alone
PROPOSALS = [{**instance(BOX), "score": 0.9}, {**instance(BOX, 1, 2), "score": 0.8}]


def task(tmp_path, pool=POOL) -> Task:
    return Task(pool, PROPOSALS, tmp_path, lambda: TRUTH, tmp_path, tmp_path, 0)


def test_a_simulated_human_refuses_and_a_rule_does_not_ask(tmp_path):
    assert [row["id"] for row in without_truth(ROWS, TRUTH)] == [2]
    with pytest.raises(UserError, match="a simulated human answers from labels, and 1 of 2 images have none"):
        HumanJudge(kind="human").judge(task(tmp_path))
    (verdict,) = HumanJudge(kind="human").judge(task(tmp_path, {**POOL, "images": ROWS[:1]})).verdicts
    assert verdict.approve
    assert all(v.approve for v in AlwaysJudge(kind="always").judge(task(tmp_path)).verdicts)


VERDICTS = [Verdict(1, 1, True, "none", True), Verdict(2, 1, True, "none", False)]


def test_a_policy_that_looks_at_the_truth_refuses():
    empty = {**POOL, "images": []}
    run = Run(judge="x", prev="start", policy="annotate")
    with pytest.raises(UserError, match=r"runs.x-1.policy: annotate takes what a simulated human draws from labels, and 1 of 2 images"):
        update("x-1", run, Annotate(), empty, POOL, PROPOSALS, VERDICTS, TRUTH, [], 0.6)
    labels, left, _ = update("x-1", run, Pool(), empty, POOL, PROPOSALS, VERDICTS, None, [], 0.6)
    assert [row["id"] for row in labels["images"]] == [1]
    assert [row["id"] for row in left["images"]] == [2]
    one = run.model_copy(update={"batch": 1})
    first = update("x-1", one, Annotate(), empty, POOL, PROPOSALS, VERDICTS[:1], TRUTH, [], 0.6)
    assert [row["id"] for row in first[0]["images"]] == [1]


def test_measures_are_over_images_with_truth_and_count_the_others():
    found = judge_quality(VERDICTS, PROPOSALS, TRUTH, 0.6)
    assert (found.asked, found.without_truth, found.approved, found.recall) == (1, 1, 1, 1.0)
    nothing = judge_quality(VERDICTS, PROPOSALS, {**TRUTH, "images": [], "annotations": []}, 0.6)
    assert (nothing.asked, nothing.without_truth, nothing.recall, nothing.kappa) == (0, 2, None, None)
    numbers = quality([{**row, "bbox": [0, 0, 1, 1], "area": 1} for row in PROPOSALS], TRUTH, 0.6)
    assert (numbers["images"], numbers["without_truth"], numbers["pseudo_labels"]) == (1, 1, 1)


def test_the_gallery_has_a_group_for_them(tmp_path):
    for row in ROWS:
        picture(tmp_path / row["file_name"], row["id"])
    content = collect(VERDICTS, PROPOSALS, POOL, TRUTH, tmp_path, AlwaysJudge(kind="always"), 0.6, Gallery())
    counts = {group.name: group.count for group in content.groups}
    assert counts == {"right": 1, "partly right": 0, "wrong": 0, "no truth": 1}
    (card,) = content.groups[-1].cards
    assert [p.caption for p in card.pictures] == ["Photograph", "As judged"]
    assert (card.outcome, card.instances, card.proposals[0].state) == ("its truth is not known", [], "not known")
