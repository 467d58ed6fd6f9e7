"""Bad data is refused with file and id, or skipped and counted where COCO practice is to skip."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import rectangle
from PIL import Image
from pycocotools import mask as mask_util

from vlm_itl.base.coco import decode
from vlm_itl.base.errors import UserError
from vlm_itl.base.settings import Local, Select
from vlm_itl.data import local
from vlm_itl.data.instances import normalise, parse_instances, read_instances, to_rle


def read(path):
    """All categories of a file."""
    instances = read_instances(path)
    return normalise(instances, {c.id for c in instances.categories}, str(path))


def prepare(path, images, target):
    """The local source on this file, both as training and as test data."""
    part = {"annotations": path.name, "images": images.name}
    choice = Select(categories=["bird", "book"], min_area=0)
    return local.prepare(target, path.parent, Local(train=part, test=part), choice, 0)


def test_good_data_is_normalised(raw_coco):
    path, _, _ = raw_coco
    data, notes = read(path)
    assert [a["id"] for a in data["annotations"]] == [1, 2, 3]
    assert [a["iscrowd"] for a in data["annotations"]] == [0, 1, 0]
    assert [mask_util.area(a["segmentation"]) for a in data["annotations"]] == [400, 200, 200]
    assert [a["area"] for a in data["annotations"]] == [400.0, 200.0, 200.0]
    assert data["annotations"][2]["bbox"] == [3, 4, 20, 10]
    assert decode(data["annotations"][1]["segmentation"])[:, 10:15].all()
    assert notes == {"crowd_regions": 1}
    assert [i["id"] for i in data["images"]] == [1, 2, 3]


def test_other_categories_are_not_looked_at(raw_coco):
    path, _, _ = raw_coco
    edit(path, lambda d: d["annotations"][0].update(segmentation=[["a"] * 6]))
    data, _ = normalise(read_instances(path), {9}, str(path))
    assert [a["id"] for a in data["annotations"]] == [2, 3]
    assert data["categories"] == [{"id": 9, "name": "book"}]


def test_selected_pictures_are_copied(raw_coco, tmp_path):
    path, images, _ = raw_coco
    (images / "empty.png").write_bytes(b"not looked at: no instance of a chosen class is on it")
    parts, notes = prepare(path, images, tmp_path / "out")
    assert [i["file_name"] for i in parts["train"]["images"]] == ["train/a.jpg", "train/b.jpg"]
    assert [i["file_name"] for i in parts["test"]["images"]] == ["test/a.jpg", "test/b.jpg"]
    for image in parts["train"]["images"] + parts["test"]["images"]:
        assert (tmp_path / "out" / image["file_name"]).read_bytes() == (images / image["file_name"].split("/")[1]).read_bytes()
    assert notes["crowd_regions"] == 2


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


REFUSED = {
    "an image twice": (lambda d: d["images"].append(d["images"][0]), r"instances.json: images: id 1 is there twice"),
    "an annotation twice": (lambda d: d["annotations"].append(d["annotations"][0]), r"annotations: id 1 is there twice"),
    "a category twice": (lambda d: d["categories"].append(d["categories"][0]), r"categories: id 7 is there twice"),
    "a category name twice": (lambda d: d["categories"][1].update(name="bird"), r"distinct name"),
    "an unknown image": (lambda d: d["annotations"][0].update(image_id=99), r"annotation 1: image 99 is not in the file"),
    "an unknown category": (lambda d: d["annotations"][0].update(category_id=99), r"annotation 1: category 99 is not in the file"),
    "another size": (
        lambda d: (d["annotations"].pop(1), d["images"][0].update(width=51)), r"image 1: .*a.jpg is 50 x 40 pixels, .* says 51 x 40"
    ),
    "a missing picture": (lambda d: d["images"][1].update(file_name="c.jpg"), r"image 2: .*c.jpg: No such file"),
    "a way out": (lambda d: d["images"][1].update(file_name="../images/b.jpg.png/../../x.jpg"), r"image 2: .*leaves the image folder"),
    "an absolute name": (lambda d: d["images"][1].update(file_name="/etc/passwd"), r"image 2: .*leaves the image folder"),
    "RLE of another size": (
        lambda d: d["annotations"][2].update(segmentation=rectangle(50, 40, 1, 1, 5, 5)),
        r"annotation 3: its RLE is for size \[50, 40\]",
    ),
    "RLE that is too short": (
        lambda d: d["annotations"][1]["segmentation"].update(counts=[1, 2, 3]), r"annotation 2: its RLE counts 6 pixels"
    ),
    "RLE text cut short": (
        lambda d: d["annotations"][2]["segmentation"].update(counts=d["annotations"][2]["segmentation"]["counts"][:4]),
        r"annotation 3: its RLE does not cover the image",
    ),
    "polygon of words": (lambda d: d["annotations"][0].update(segmentation=[["a"] * 6]), r"annotation 1: its polygon"),
    "no annotations list": (lambda d: d.pop("annotations"), r"not COCO instances: .*missing required field `annotations`"),
    "an image without a name": (lambda d: d["images"][0].pop("file_name"), r"missing required field `file_name` - at `\$.images"),
    "a file name twice": (lambda d: d["images"][1].update(file_name="a.jpg"), r"file_name 'a.jpg' is there twice"),
    "a negative height": (lambda d: d["images"][0].update(height=-5), r"`int` >= 1 - at `\$.images"),
    "an id of letters": (lambda d: d["annotations"][0].update(id="x"), r"Expected `int`, got `str` - at `\$.annotations"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(raw_coco, tmp_path, case):
    path, images, _ = raw_coco
    change, message = REFUSED[case]
    edit(path, change)
    with pytest.raises(UserError, match=message) as error:
        prepare(path, images, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_symbolic_link_out_of_the_folder_is_refused(raw_coco, tmp_path):
    path, images, _ = raw_coco
    (images / "b.jpg").rename(tmp_path / "outside.jpg")
    (images / "b.jpg").symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(UserError, match="leaves the image folder"):
        prepare(path, images, tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 10, 0.6])
def test_truncated_or_corrupt_picture_is_refused(raw_coco, tmp_path, keep):
    path, images, _ = raw_coco
    whole = (images / "a.jpg").read_bytes()
    (images / "a.jpg").write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match=r"image 1: .*a.jpg is not a (whole )?picture"):
        prepare(path, images, tmp_path / "out")


def test_not_json(tmp_path):
    (tmp_path / "x.json").write_text('{"images": [')
    with pytest.raises(UserError, match=r"x\.json: cannot be read as JSON"):
        read_instances(tmp_path / "x.json")
    with pytest.raises(UserError, match=r"none\.json: cannot be read: No such file"):
        read_instances(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"bytes: cannot be read as JSON|bytes: not COCO"):
        parse_instances(b'{"images": ["\xff\xfe"]}', "bytes")


@pytest.mark.parametrize(
    "outline", [[], [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [[5, 5, 5, 5, 5, 5]], None, [[100, 100, 120, 100, 120, 120]]]
)
def test_unusable_outlines_are_skipped_and_counted(raw_coco, outline):
    path, _, _ = raw_coco
    edit(path, lambda d: d["annotations"][0].update(segmentation=outline))
    data, notes = read(path)
    assert notes["annotations_without_outline"] == 1
    assert [a["id"] for a in data["annotations"]] == [2, 3]


def test_a_degenerate_part_does_not_cost_the_whole_polygon(raw_coco):
    path, _, _ = raw_coco
    edit(path, lambda d: d["annotations"][0]["segmentation"].append([1, 1, 2, 2]))
    data, _ = read(path)
    assert mask_util.area(data["annotations"][0]["segmentation"]) == 400


def test_grey_pictures_and_exif_orientation(raw_coco, tmp_path):
    """The size that counts is the one Detectron2 sees: after turning by EXIF orientation."""
    path, images, _ = raw_coco
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(np.zeros((50, 40), dtype=np.uint8)).save(images / "a.jpg", exif=exif)
    prepare(path, images, tmp_path / "out")
    Image.fromarray(np.zeros((40, 50), dtype=np.uint8)).save(images / "a.jpg", exif=exif)
    with pytest.raises(UserError, match="40 x 50 pixels"):
        prepare(path, images, tmp_path / "out")


def test_rle_text_agrees_with_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(200):
        h, w = rng.integers(1, 40, 2)
        mask = rng.random((h, w)) < rng.random()
        rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert to_rle({"size": [int(h), int(w)], "counts": rle["counts"].decode()}, (int(h), int(w)), "x")
        assert (decode(to_rle({"size": [int(h), int(w)], "counts": rle["counts"].decode()}, (int(h), int(w)), "x")) == mask).all()
