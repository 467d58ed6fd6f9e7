"""The data set of a run: what is written is what was labelled, in every program that reads it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, instance
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pipeline import yaml
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from vlm_itl.core.coco import decode, encode
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json
from vlm_itl.dataset.content import instances
from vlm_itl.dataset.outlines import loops, polygons
from vlm_itl.dataset.readers import PYTHON, compared, read_again
from vlm_itl.dataset.writing import main, plain
from vlm_itl.judges import verdict
from vlm_itl.loop import annotation_log
from vlm_itl.loop.labels import add

HOSTILE = "<script>alert(1)</script> | \x1b[31m `x`"


@settings(deadline=None, derandomize=True)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_polygons_fill_to_the_same_mask(mask):
    found = polygons(mask)
    if not mask.any():
        assert found == []
        return
    height, width = mask.shape
    filled = mask_util.decode(mask_util.merge(mask_util.frPyObjects(found, height, width))).astype(bool)
    np.testing.assert_array_equal(filled, mask)


@pytest.mark.parametrize("size", [(1200, 5), (81, 81)])
def test_many_holes(size):
    """One under the other, and in a grid."""
    mask = np.ones(size, bool)
    mask[1:-1:2, 1:-1:2] = False
    filled = mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons(mask), *size))).astype(bool)
    np.testing.assert_array_equal(filled, mask)


def test_a_ring_has_a_hole_and_two_polygons():
    ring = np.ones((5, 6), bool)
    ring[2, 2:4] = False
    outer, holes = loops(ring)
    assert outer == [[(0, 0), (6, 0), (6, 5), (0, 5)]]
    assert [sorted(loop) for loop in holes] == [[(2, 2), (2, 3), (4, 2), (4, 3)]]
    assert len(polygons(ring)) == 2


CATEGORIES = [{"id": 13, "name": "stop sign"}, {"id": 84, "name": HOSTILE}]


@pytest.fixture
def loop(tmp_path, monkeypatch) -> Path:
    """A repository with a run of two approved images, one drawn and one that shows nothing."""
    monkeypatch.chdir(tmp_path)
    params = yaml.load((ROOT / "params.yaml").read_text())
    params["judges"] = {"sure": {"kind": "confidence"}}
    params["runs"] = {"sure-1": {"judge": "sure", "prev": "start", "policy": "pool"}}
    params["select"]["categories"] = ["stop sign", HOSTILE]
    params["probed"], params["calibrations"], params["compare"] = [], {}, {"reference": "sure", "negative_control": None}
    yaml.dump(params, Path("params.yaml"))
    rows = [{"id": i, "file_name": f"train/{i}.png", "height": 40, "width": 50, "original_name": f"<b>{i}.png"} for i in (30, 7, 12, 5)]
    for row in rows:
        path = Path("artifacts/data/images", row["file_name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (50, 40), (row["id"], 0, 0)).save(path)
    labels = {"images": [], "annotations": [], "categories": CATEGORIES}
    add(labels, rows[0], {"human": [instance((1, 1, 20, 20), 13, 30), instance((0, 0, 9, 9), 84, 30, iscrowd=1)]}, run="start")
    proposals = [{**instance((1, 1, 20, 20), 13, 7), "score": 0.9}, {**instance((25, 5, 9, 12), 84, 7), "score": 0.8},
                 {**instance((2, 3, 7, 6), 84, 12), "score": 0.95}]  # fmt: skip
    add(labels, rows[1], {"model": proposals[:2]}, run="sure-1", judge="sure")
    add(labels, rows[2], {"model": proposals[2:]}, run="sure-1", judge="sure")
    add(labels, rows[3], {"human": []}, run="sure-1")
    write_json(Path("loop/sure-1/labels.json"), labels)
    annotation_log.write(Path("loop/sure-1/ledger.json"), [])
    write_json(Path("loop/start/proposals.json"), proposals)
    verdict.write(Path("loop/sure-1/verdicts.jsonl"), [
        verdict.Verdict(7, 2, True, "model", True, 2.0, unparsed=0, accepted=[True, True], log_odds_mask=[3.0, 1.0], log_odds_missing=2.0),
        verdict.Verdict(12, 1, True, "none", True, 0.5),
    ])  # fmt: skip
    return tmp_path


def annotations(folder: Path) -> dict:
    return json.loads((folder / "annotations/instances_default.json").read_text())


@pytest.mark.parametrize("masks", ["rle", "polygons"])
def test_what_is_written_is_what_was_labelled(loop, masks, capsys):
    main(["--run", "sure-1", "--masks", masks])
    data, labels = annotations(Path("artifacts/dataset")), json.loads(Path("loop/sure-1/labels.json").read_text())
    assert [row["id"] for row in data["images"]] == [30, 7, 12, 5]  # as in all other files of the project
    assert [row["file_name"] for row in data["images"]][:2] == ["000000000030.png", "000000000007.png"]
    assert [row["id"] for row in data["annotations"]] == [1, 2, 3, 4, 5]
    assert [(row["id"], row["name"]) for row in data["categories"]] == [(1, "stop sign"), (2, HOSTILE)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO("artifacts/dataset/annotations/instances_default.json")
    for row, label in zip(data["annotations"], labels["annotations"], strict=True):
        np.testing.assert_array_equal(coco.annToMask(row).astype(bool), decode(label["segmentation"]))
        assert isinstance(row["segmentation"], list) == (masks == "polygons" and not row["iscrowd"])
    for row, image in zip(data["images"], labels["images"], strict=True):
        written = Path("artifacts/dataset/images/default", row["file_name"])
        assert written.read_bytes() == Path("artifacts/data/images", image["file_name"]).read_bytes()
        assert row["original_name"] == image["original_name"]
    by = [row["attributes"] for row in data["annotations"]]
    assert by[0] == {"source": "human", "run": "start"}
    assert by[2] == {"source": "model", "run": "sure-1", "judge": "sure", "score": 0.9, "p_approve": 0.8808, "p_mask": 0.9526}
    assert by[4] == {"source": "model", "run": "sure-1", "judge": "sure", "score": 0.95, "p_approve": 0.6225}
    assert "artifacts/dataset: 4 images, 5 annotations" in capsys.readouterr().out


def test_names_mean_nothing_to_markdown_and_html():
    assert plain("<b> & c | `x`_") == r"&lt;b&gt; &amp; c \| \`x\`\_"
    assert "\x1b" not in plain("\x1b")
    assert plain(3) == 3


def test_how_sure_a_judge_was_is_said_of_what_it_let_in_alone(loop):
    """A mask that a person who drew has kept was rejected."""
    labels = json.loads(Path("loop/sure-1/labels.json").read_text())
    labels["annotations"][2]["judge"] = None
    Path("loop/sure-1/labels.json").write_text(json.dumps(labels))
    main(["--run", "sure-1"])
    rows = [row["attributes"] for row in annotations(Path("artifacts/dataset"))["annotations"]]
    assert rows[2] == {"source": "model", "run": "sure-1", "score": 0.9}
    assert rows[4]["p_approve"] == 0.6225


def test_the_card_says_how_it_came_to_be_and_obeys_no_name(loop):
    main(["--run", "sure-1"])
    card = Path("artifacts/dataset/README.md").read_text()
    assert "4 images with 4 instances. 1 were drawn by a person" in card
    assert "| stop sign | 2 | 2 | 1 | 1 |" in card
    assert "| sure-1 | sure | rule: detector confidence | pool | 2 | 2 |" in card
    assert "\x1b" not in card
    assert "<script" not in card
    assert len([row for row in card.splitlines() if "alert" in row]) == 1  # a row of a table, not two


def test_nothing_changes_where_something_is_wrong(loop, capsys):
    main(["--run", "sure-1"])
    before = annotations(Path("artifacts/dataset"))
    Path("artifacts/data/images/train/12.png").unlink()
    with pytest.raises(SystemExit, match=r"^error: artifacts/data/images/train/12.png: No such file"):
        main(["--run", "sure-1"])
    with pytest.raises(SystemExit, match=r"^error: params.yaml: runs: no run 'other' \(there are: sure-1\)"):
        main(["--run", "other"])
    with pytest.raises(SystemExit, match=r"^error: loop/start/labels.json: no such file; `dvc repro` makes it"):
        main(["--run", "start"])
    with pytest.raises(SystemExit, match=r"^error: loop: is there already"):
        main(["--run", "sure-1", "--to", "loop"])
    assert annotations(Path("artifacts/dataset")) == before
    assert sorted(os.listdir("artifacts")) == ["data", "dataset"]  # nothing half written is left


@pytest.mark.parametrize("copy", [[], ["--copy"]])
def test_another_picture_than_was_labelled_does_not_get_in(loop, copy, tmp_path):
    path = Path("artifacts/data/images/train/12.png")
    other = tmp_path / "other.png"
    PIL.Image.new("RGB", (50, 41)).save(other)
    for content in (b"hello", other.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(SystemExit, match=rf"^error: {path}: .*; `dvc repro` brings the picture back \(stage download\)$"):
            main(["--run", "sure-1", *copy])
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(SystemExit, match=rf"^error: {path}: "):
        main(["--run", "sure-1", *copy])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SystemExit, match=rf"^error: {path}: not a regular file"):
        main(["--run", "sure-1", *copy])
    assert not Path("artifacts/dataset").exists()


def test_settings_that_changed_since_are_named(loop):
    """The card speaks of today's params.yaml, and the labels may be of another."""
    stage = {
        "cmd": "x", "params": {"params.yaml": {"predict": {"score_threshold": 0.9}, "seed": 1}},
        "outs": [{"path": "loop/sure-1/labels.json"}],
    }  # fmt: skip
    yaml.dump({"schema": "2.0", "stages": {"update@sure-1": stage}}, Path("dvc.lock"))
    main(["--run", "sure-1"])
    assert "These settings have changed since the labels were made, and the line above is about today's: predict." in (
        Path("artifacts/dataset/README.md").read_text()
    )


def test_links_share_the_pictures_and_copies_do_not(loop):
    main(["--run", "sure-1"])
    main(["--run", "sure-1", "--to", "copied", "--copy"])
    original = os.stat("artifacts/data/images/train/30.png")
    assert os.stat("artifacts/dataset/images/default/000000000030.png").st_ino == original.st_ino
    assert os.stat("copied/images/default/000000000030.png").st_ino != original.st_ino


@pytest.mark.skipif(not (PYTHON.parents[1] / ".ready").exists(), reason="supervision and datumaro are not installed: make readers")
def test_other_programs_read_the_same(loop):
    main(["--run", "sure-1"])
    labelled = instances(json.loads(Path("loop/sure-1/labels.json").read_text()))
    rows = {row.program: row for row in read_again(Path("artifacts/dataset"), labelled)}
    assert set(rows) == {"pycocotools", "supervision", "datumaro"}
    assert [(row.images, row.instances, row.iou) for row in rows.values()] == [(4, 4, 1.0)] * 3
    main(["--run", "sure-1", "--to", "outlines", "--masks", "polygons"])
    rows = {row.program: row for row in read_again(Path("outlines"), labelled)}
    assert (rows["datumaro"].iou, rows["pycocotools"].iou) == (1.0, 1.0)
    assert rows["supervision"].iou > 0.7  # it fills an outline a pixel wider


def test_a_program_that_reads_something_else_is_an_error():
    mask = encode(np.ones((3, 3), bool))
    wanted = {"1.png": [("bird", mask)], "2.png": []}
    for found in ({"1.png": [("bird", mask)]}, {"1.png": [("book", mask)], "2.png": []}, {"1.png": [("bird", mask)] * 2, "2.png": []}):
        with pytest.raises(UserError, match="reads other images or classes than were written"):
            compared(wanted, "pycocotools", lambda _, found=found: found, Path("x"))
    half = encode(np.ones((3, 3), bool) & (np.arange(3) < 1))
    assert compared(wanted, "pycocotools", lambda _: {"1.png": [("bird", half)], "2.png": []}, Path("x")).iou == 0.3333
