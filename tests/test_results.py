"""`autolabels.NAME: {kind: results}`: what other programs write, in their ids and names, good and bad."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, rectangle

from vlm_itl.core.coco import decode
from vlm_itl.core.errors import UserError
from vlm_itl.settings import Results
from vlm_itl.teachers.results import Found, Places, ResultsTeacher

POOL = {
    "images": [
        {"id": 1, "file_name": "train/1.jpg", "height": 40, "width": 50, "original_id": 700, "original_name": "a/x.jpg"},
        {"id": 5, "file_name": "pool/5.jpg", "height": 40, "width": 50, "original_name": "new/b/x.jpg"},
        {"id": 6, "file_name": "pool/6.jpg", "height": 30, "width": 20, "original_name": "new/y.png"},
    ],
    "annotations": [],
    "categories": [{"id": 1, "name": "bird", "original_id": 16}, {"id": 2, "name": "book", "original_id": 84}],
}
RLE = rectangle(40, 50, 3, 4, 9, 7)
SMALL = [[1, 1, 11, 1, 11, 6, 1, 6]]


def label(root: Path, rows, images=None, **more) -> tuple[list[dict], dict]:
    (root / "results.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    if images is not None:
        (root / "images.json").write_text(json.dumps(images))
        more["images"] = "images.json"
    return ResultsTeacher.label(Results(kind="results", file="results.json", **more), POOL, root / "pictures", root)


def test_rows_of_every_form(tmp_path, capsys):
    rows = [
        {"image_id": 700, "category_id": 84, "segmentation": RLE, "score": 0.5},  # an id of the training file, as Detectron2 writes
        {"image_id": "y", "category_id": 16, "segmentation": SMALL, "score": 0.9},  # a file's name without ending, as Ultralytics writes
        {"file_name": "b/x.jpg", "image_id": 3, "category": "bird", "segmentation": RLE, "score": 0.25},
        {"file_name": "b/x.jpg", "category": "book", "segmentation": {"size": [40, 50], "counts": [0, 2000]}, "score": 1},
        {"image_id": "z.png", "category_id": 16, "segmentation": SMALL, "score": 0.9},
        {"image_id": 701, "category_id": 16, "segmentation": SMALL, "score": 0.9},
        {"image_id": "y.png", "category_id": 1, "segmentation": SMALL, "score": 0.9},
        {"image_id": "y.png", "category_id": 16, "bbox": [1, 1, 5, 5], "score": 0.9},
        {"image_id": "y.png", "category_id": 16, "segmentation": [], "score": 0.9},
        {"image_id": "y.png", "category_id": 16, "segmentation": {"size": [30, 20], "counts": [600]}, "score": 0.9},
    ]
    found, identity = label(tmp_path, rows)
    assert [(row["image_id"], row["category_id"], row["score"]) for row in found] == [(1, 2, 0.5), (5, 2, 1), (5, 1, 0.25), (6, 1, 0.9)]
    assert set(found[0]) == {"image_id", "category_id", "segmentation", "bbox", "area", "score"}
    assert (found[0]["bbox"], found[0]["area"]) == ([3, 4, 9, 7], 63)
    assert decode(found[3]["segmentation"])[1:6, 1:11].all()
    assert found[3]["area"] == 50
    assert identity["left_out"] == {"other_images": 2, "other_classes": 1, "without_mask": 3}
    said = capsys.readouterr().out
    assert "4 of 10 rows taken; left out: 2 on images that are not in the pool, 1 of classes that select.categories" in said


def test_a_file_says_what_the_ids_mean(tmp_path):
    images = {"images": [{"id": 700, "file_name": "y.png"}, {"id": 0, "file_name": "new/b/x.jpg"}, {"id": 1, "file_name": "w.png"}],
              "categories": [{"id": 0, "name": "book"}, {"id": 1, "name": "cat"}]}  # fmt: skip
    rows = [{"image_id": i, "category_id": c, "segmentation": SMALL, "score": 0.5} for i, c in ((700, 0), (0, 1), (0, 0), (1, 0), (9, 0))]
    found, identity = label(tmp_path, rows, images)
    assert [(row["image_id"], row["category_id"]) for row in found] == [(5, 2), (6, 2)]
    assert identity["left_out"] == {"other_classes": 1, "other_images": 2}


def test_thresholds(tmp_path):
    rows = [{"image_id": "y", "category_id": 16, "segmentation": SMALL, "score": s / 10} for s in (1, 5, 3, 4)]
    found, identity = label(tmp_path, rows, score_threshold=0.3, max_detections=2)
    assert [row["score"] for row in found] == [0.5, 0.4]
    assert identity["left_out"] == {"below_threshold": 1, "over_limit": 1}


GOOD = {"image_id": "y", "category_id": 16, "segmentation": SMALL, "score": 0.5}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("[", "results.json: cannot be read as JSON"),
        ("{}", "results.json: not COCO results: Expected `array`, got `object`"),
        ([{"image_id": "y", "category_id": 16}], r"not COCO results: Object missing required field `score` - at `\$\[0\]`"),
        ([GOOD, {**GOOD, "score": 7.5}], "row 1: its score is 7.5; a probability from 0 to 1 is expected"),
        ('[{"image_id": "y", "category_id": 16, "segmentation": [], "score": NaN}]', "not COCO results: Expected `float`, got `null`"),
        ([{**GOOD, "image_id": "x"}], "row 0: 'x' is 2 pictures of the pool; give more of the path"),
        ([{**GOOD, "image_id": None}], "row 0: it has neither image_id nor file_name"),
        ([{**GOOD, "segmentation": RLE}], "row 0: .*size"),
        ([{**GOOD, "segmentation": {"size": [30, 20], "counts": [-1, 601]}}], "row 0: .*negative"),
        ([{**GOOD, "segmentation": [[1e300, 1, 2, 2, 3, 3]]}], "row 0: "),
        ([{**GOOD, "segmentation": "import os"}], "row 0: .*no certain meaning"),
        (
            '[{"image_id": "y", "category_id": 16, "score": 0.5, "segmentation": [[1e999, 1, 2, 2, 3, 3]]}]',
            "row 0: its segmentation cannot",
        ),
        ([], "none of its 0 rows is a mask on an image of the pool: it is empty"),
        ([{**GOOD, "image_id": "../../etc/passwd"}], "none of its 1 rows is a mask on an image of the pool: 1 on images that are not"),
    ],
)
def test_bad_rows_are_one_line(tmp_path, rows, message):
    with pytest.raises(UserError, match=message) as error:
        label(tmp_path, rows)
    assert "\n" not in str(error.value)


def test_a_number_is_a_name_too(tmp_path):
    """Unless it means two pictures: the id of one, and the name of another."""
    more = [{"id": 7 + k, "file_name": f"pool/{k}.jpg", "height": 30, "width": 20, "original_name": name}
            for k, name in enumerate(("new/000042.jpg", "new/0700.jpg"))]  # fmt: skip
    places = Places([*POOL["images"], *more], None)
    assert [places.image(Found(0.5, image_id=i), "row 0") for i in (42, 43)] == [7, None]
    with pytest.raises(UserError, match="row 0: 700 is 2 pictures of the pool; give its file_name, or what the ids mean: images"):
        places.image(Found(0.5, image_id=700), "row 0")
    assert places.image(Found(0.5, file_name="0700.jpg", image_id=700), "row 0") == 8


def test_what_contradicts_itself_is_refused(tmp_path):
    images = {"images": [{"id": 1, "file_name": "y.png"}], "categories": [{"id": 16, "name": "bird"}]}
    row = {"image_id": 1, "category_id": 16, "segmentation": SMALL, "score": 0.5}
    assert label(tmp_path, [row], images)[0][0]["image_id"] == 6
    for what in images:
        twice = {**images, what: [*images[what], {**images[what][0], **({"name": "book"} if what == "categories" else {"file_name": "x"})}]}
        with pytest.raises(UserError, match=rf"images.json: {what}: two have the id "):
            label(tmp_path, [row], twice)
    with pytest.raises(UserError, match="row 0: its category is 'book', and its category_id 16 another class"):
        label(tmp_path, [{**row, "category": "book"}], images)
    with pytest.raises(UserError, match=r"1 of classes that select\.categories does not name"):
        label(tmp_path, [row], {**images, "categories": []})  # no other file says what its ids mean
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    with pytest.raises(UserError, match=r"autolabels: file: loop\.json leads to no file"):
        ResultsTeacher.label(Results(kind="results", file="loop.json"), POOL, tmp_path / "pictures", tmp_path)


def test_a_file_elsewhere_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "results.json").write_text(json.dumps([GOOD]))
    (tmp_path / "in/link.json").symlink_to(tmp_path / "results.json")
    for name in ("../results.json", "link.json", str(tmp_path / "results.json")):
        with pytest.raises(UserError, match="has to lie below"):
            ResultsTeacher.label(Results(kind="results", file=name), POOL, tmp_path, tmp_path / "in")


def test_no_heavy_library_is_loaded():
    code = "import sys; sys.path.insert(0, 'src'); import vlm_itl.teachers.results; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
