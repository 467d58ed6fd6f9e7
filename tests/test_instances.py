"""Bad data is refused with file and id, or skipped and counted where COCO practice is to skip."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import dataset, rectangle
from PIL import Image
from pycocotools import mask as mask_util

from vlm_itl.core.coco import decode
from vlm_itl.core.errors import UserError
from vlm_itl.data.instances import normalise, parse_instances, picture_problem, read_instances, renumbered, to_rle
from vlm_itl.data.local import LocalSource
from vlm_itl.data.selection import category_ids
from vlm_itl.settings import Data, Local, Select


def read(path):
    """All categories of a file."""
    instances = read_instances(path)
    return normalise(instances, {c.id for c in instances.categories}, str(path))


def prepare(path, images, target):
    """The local source on this file as training data, and a good one as test data."""
    test = path.parent / "good"
    test.mkdir(exist_ok=True)
    Image.fromarray(np.full((40, 50, 3), 9, dtype=np.uint8)).save(test / "t.png")
    rows = [{"id": k, "image_id": 1, "category_id": c, "segmentation": rectangle(40, 50, 1, 1, 5, 5)} for k, c in ((1, 7), (2, 9))]
    categories = [{"id": 7, "name": "bird"}, {"id": 9, "name": "book"}]
    content = {"images": [{"id": 1, "file_name": "t.png", "height": 40, "width": 50}], "annotations": rows, "categories": categories}
    (path.parent / "good.json").write_text(json.dumps(content))
    parts = {name: {"annotations": f.name, "images": i.name} for name, f, i in
             (("train", path, images), ("test", path.parent / "good.json", test))}  # fmt: skip
    data = Data(source="local", root=str(path.parent), local=Local(**parts))
    return LocalSource(data).fetch(target, path.parent, Select(categories=["bird", "book"], min_area=0))


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
    assert [i["file_name"] for i in parts["train"]["images"]] == ["train/000000000001.jpg", "train/000000000002.jpg"]
    assert [i["file_name"] for i in parts["test"]["images"]] == ["test/000000000003.png"]
    assert [i["original_name"] for i in parts["train"]["images"]] == ["a.jpg", "b.jpg"]
    for image in parts["train"]["images"]:
        assert (tmp_path / "out" / image["file_name"]).read_bytes() == (images / image["original_name"]).read_bytes()
    assert [notes[part]["crowd_regions"] for part in ("train", "test")] == [1, 0]


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


REFUSED = {
    "an image twice": (lambda d: d["images"].append(d["images"][0]), r"instances.json: images: id 1 is there twice"),
    "an annotation twice": (lambda d: d["annotations"].append(d["annotations"][0]), r"annotations: id 1 is there twice"),
    "a category twice": (lambda d: d["categories"].append(d["categories"][0]), r"categories: id 7 is there twice"),
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
        r"annotation 3: its RLE counts '.*' are no list of whole numbers, and no text",
    ),
    "polygon of words": (
        lambda d: d["annotations"][0].update(segmentation=[["a"] * 6]), r"annotation 1: its segmentation .* no certain meaning"
    ),
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


@pytest.mark.parametrize("outline", [[], [[]], [[1, 2, 3, 4]], [[1, 2]], [[5, 5, 5, 5, 5, 5]], None, [[100, 100, 120, 100, 120, 120]]])
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
    assert picture_problem((images / "a.jpg").read_bytes(), {"height": 40, "width": 50}) is None
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


SQUARE = [5, 5, 25, 5, 25, 25, 5, 25]
PAIRS = [[5, 5], [25, 5], [25, 25], [5, 25]]
OBJECTS = [{"x": 5, "y": 5}, {"x": 25, "y": 5}, {"x": 25, "y": 25.0}, {"x": 5, "y": 25}]
COLUMNS = {"size": [40, 50], "counts": [200, 200, 1600]}
FORMS = {
    "COCO's": ([SQUARE], 400), "flat": (SQUARE, 400), "pairs": (PAIRS, 400), "nested pairs": ([PAIRS], 400),
    "point objects": (OBJECTS, 400),
    "nested point objects": ([OBJECTS], 400), "two parts": ([SQUARE, [30, 30, 40, 30, 40, 40, 30, 40]], 500), "RLE": (COLUMNS, 200),
    "RLE in a list": ([COLUMNS], 200), "two RLEs in a list": ([COLUMNS, rectangle(40, 50, 20, 0, 1, 40)], 240),
    "counts of whole floats": ({"size": [40, 50], "counts": [200.0, 200, 1600]}, 200),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms_whose_meaning_is_certain_are_read(form):
    outline, area = FORMS[form]
    assert mask_util.area(to_rle(outline, (40, 50), "x")) == area


UNKNOWN = {
    "several rings of pairs": ([PAIRS, PAIRS], "no certain meaning"),
    "an odd number": ([[1, 2, 3, 4, 5, 6, 7]], "has 7 numbers, which are no pairs"),
    "five numbers": ([[1, 2, 3, 4, 5]], "has 5 numbers"),
    "triples": ([[1, 2, 0], [9, 2, 0], [9, 9, 0]], "has 3 numbers"),
    "text": ("5,5 25,5 25,25", "no certain meaning"), "a number": (3, "no certain meaning"), "true": (True, "no certain meaning"),
    "numbers as text": ([[str(n) for n in SQUARE]], "no certain meaning"),
    "a null among the numbers": ([[5, 5, None, 5, 25, 25]], "no certain meaning"),
    "a polygon and an RLE": ([SQUARE, COLUMNS], "no certain meaning"),
    "points with names of their own": ([{"lat": 1, "lon": 2}] * 3, "no certain meaning"),
    "no counts": ({"size": [40, 50]}, "RLE counts None are no list of whole numbers"),
    "negative counts": ({"size": [40, 50], "counts": [300, -100, 1800]}, "negative in places"),
    "counts of text": ({"size": [40, 50], "counts": ["200", "200", "1600"]}, "no list of whole numbers"),
    "a null count": ({"size": [40, 50], "counts": [200, None, 1800]}, "no list of whole numbers"),
    "a count of true": ({"size": [40, 50], "counts": [True, 1999]}, "no list of whole numbers"),
    "half a pixel": ({"size": [40, 50], "counts": [0.5, 1999.5]}, "no list of whole numbers"),
    "counts beyond 32 bits": ({"size": [40, 50], "counts": [2**32 + 200, 200, 1600]}, "counts 4294969296 pixels, the image has 2000"),
    "counts that wrap to the right sum": ({"size": [40, 50], "counts": [2**32 - 100, 100, 2000]}, "counts 4294969296 pixels"),
    "no size": ({"counts": [2000]}, "for size None"),
    "a corner far away": ([[5, 5, 1e8, 5, 25, 25]], "more than 1,048,576 pixels away"),
    "a corner at 2^31": ([[5, 5, 2**31, 5, 25, 25]], "pixels away"), "a corner at 10^300": ([[5, 5, 10**300, 5, 25, 25]], "pixels away"),
    "a corner nowhere": ([[math.nan, 5, 1e308, 5, 25, 25]], "pixels away"),
    "back and forth": ([[0, 0, 1e6, 1e6] * 5], "more than 2,097,152 pixels long"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_has_no_certain_meaning_is_refused(case):
    outline, message = UNKNOWN[case]
    with pytest.raises(UserError, match=message) as error:
        to_rle(outline, (40, 50), "x.json: annotation 5")
    assert str(error.value).startswith("x.json: annotation 5: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def text_of(runs: list[int], groups: int = 0) -> str:
    """Compressed RLE of up to three runs, each in at least so many groups of 5 bits."""
    text = ""
    for run in runs:
        used = 0
        while True:
            group, run, used = run & 31, run >> 5, used + 1
            more = run != 0 or bool(group & 16) or used < groups
            text += chr(48 + group + 32 * more)
            if not more:
                break
    return text


def test_compressed_rle_with_more_groups_than_it_needs_reads_as_its_numbers_say():
    """pycocotools shifts a 32-bit number by 35 and more, so such a text gave it other runs, or runs past the end."""
    rle = to_rle({"size": [40, 50], "counts": text_of([200, 200, 1600], groups=9)}, (40, 50), "x")
    assert rle["counts"] == text_of([200, 200, 1600])
    assert decode(rle)[:, 5:10].all()
    assert decode(rle).sum() == 200
    with pytest.raises(UserError, match="RLE counts 4294969296 pixels"):
        to_rle({"size": [40, 50], "counts": text_of([200, 2**32 + 200, 1600])}, (40, 50), "x")


def test_an_image_too_large_for_pycocotools_is_refused_if_it_matters(raw_coco):
    """2^62 pixels ended in SIGFPE."""
    path, _, _ = raw_coco
    edit(path, lambda d: d["images"][2].update(height=2**31, width=2**31))
    assert len(read(path)[0]["annotations"]) == 3  # nothing is annotated on it
    edit(path, lambda d: d["images"][0].update(height=2**31, width=2**31))
    with pytest.raises(UserError, match=r"image 1: 2147483648 x 2147483648 pixels are more than data.max_pixels .* \(100,000,000\)"):
        read(path)
    with pytest.raises(UserError, match=r"more than data.max_pixels of params.yaml allows \(1,999\)"):
        normalise(read_instances(path), {9}, "x", 1999)


def test_fractions_of_width_and_height(raw_coco):
    """Where every polygon lies within 0 and 1; one beyond, or an RLE, and they are pixels, too small to enclose anything."""
    path, _, _ = raw_coco
    unit = [0.1, 0.125, 0.5, 0.125, 0.5, 0.625, 0.1, 0.625]

    def relative(d):
        d["annotations"] = [{"id": k, "image_id": 1, "category_id": 7, "segmentation": [unit], "area": 0.2} for k in (1, 2)]

    edit(path, relative)
    data, notes = read(path)
    assert [(a["area"], a["bbox"]) for a in data["annotations"]] == [(400.0, [5, 5, 20, 20])] * 2
    assert notes["relative_outlines"] == 2
    for other in ([SQUARE], COLUMNS):
        edit(path, lambda d, other=other: d["annotations"][1].update(segmentation=other))
        data, notes = read(path)
        assert max(mask_util.area(a["segmentation"]) for a in data["annotations"] if a["id"] == 1) <= 1
        assert notes["relative_outlines"] == 0


@pytest.mark.parametrize(
    ("segmentation", "message"), [("[[1e999, 5, 25, 5, 25, 25]]", "Number out of range"), ("[" * 5000 + "]" * 5000, "recursion")]
)
def test_a_segmentation_that_cannot_be_read_is_named(raw_coco, segmentation, message):
    path, _, data = raw_coco
    data["annotations"][0]["segmentation"] = "HERE"
    path.write_text(json.dumps(data).replace('"HERE"', segmentation))
    with pytest.raises(UserError, match=rf"annotation 1: its segmentation cannot be read: .*{message}|JSON: .*recursion"):
        read(path)


def test_json_as_other_programs_write_it(raw_coco):
    """A byte-order mark, UTF-16, and NaN and infinity where there is no number."""
    _, _, content = raw_coco
    content["categories"][0]["name"] = "Vögel"
    plain = json.dumps(content, ensure_ascii=False)
    expected, _ = normalise(parse_instances(plain.encode(), "x"), {7, 9}, "x")
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        assert normalise(parse_instances(plain.encode(encoding), "x"), {7, 9}, "x")[0] == expected, encoding
    content["annotations"][0].update(area=float("nan"), score=float("inf"))
    data, _ = normalise(parse_instances(json.dumps(content).encode(), "x"), {7, 9}, "x")
    assert data["annotations"][0]["area"] == 400  # of the pixels, since the file gives none
    content["annotations"][0]["segmentation"][0][3] = float("nan")
    with pytest.raises(UserError, match=r"x: annotation 1: its segmentation \[\[5, 5, 25, None, .* no certain meaning"):
        normalise(parse_instances(json.dumps(content).encode(), "x"), {7}, "x")
    content["images"][0]["height"] = float("nan")
    with pytest.raises(UserError, match=r"x: not COCO instances: Expected `int`, got `null` - at `\$.images"):
        parse_instances(json.dumps(content).encode(), "x")
    half = b'{"images": [{"id": 1, "file_name": "\\ud800", "height": 4, "width": 4}], "annotations": [], "categories": []}'
    for wrong in (half, b"\xff\xfe{", b'{"images": ' + b"[" * 100_000):
        with pytest.raises(UserError, match=r"x: (cannot be read as JSON|not COCO instances): .+"):
            parse_instances(wrong, "x")


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(UserError, match=rf"{path}: cannot be read: not a regular file"):
            read_instances(path)


def test_of_categories_with_one_name_the_used_one_counts(raw_coco):
    path, _, _ = raw_coco
    edit(path, lambda d: d["categories"].insert(0, {"id": 3, "name": "bird"}))
    assert read_instances(path).category_names() == [(7, "bird"), (9, "book")]
    choice = Select(categories=["bird"])
    assert category_ids(read_instances(path).category_names(), choice, "training") == {7}
    edit(path, lambda d: d["annotations"][1].update(category_id=3))
    with pytest.raises(UserError, match=r"training data has the class 'bird' under the ids 3 and 7 in x.json: give"):
        category_ids(read_instances(path).category_names(), choice, "training", "x.json")
    assert category_ids(read_instances(path).category_names(), Select(categories=["book"]), "training") == {9}


def test_ids_become_our_own_from_one_in_the_order_of_the_files():
    first = dataset({2**63: [1], 0: [2], -5: [1]})
    first["annotations"] = [{**a, "id": a["id"] - 1} for a in first["annotations"]]
    second = {**dataset({0: [9]}), "categories": [{"id": 9, "name": "bird"}, {"id": 2**70, "name": "book"}]}
    parts = renumbered({"train": first, "test": second})
    assert [(i["id"], i["original_id"]) for i in parts["train"]["images"]] == [(3, 2**63), (2, 0), (1, -5)]
    assert [(i["id"], i["original_id"]) for i in parts["test"]["images"]] == [(4, 0)]
    rows = [(a["id"], a["image_id"], a["category_id"], a["original_id"]) for p in ("train", "test") for a in parts[p]["annotations"]]
    assert rows == [(1, 3, 1, 0), (2, 2, 2, 1), (3, 1, 1, 2), (4, 4, 1, 1)]
    names = [[(c["id"], c["name"]) for c in parts[p]["categories"]] for p in ("train", "test")]
    assert names == [[(1, "bird"), (2, "book"), (3, "zebra")], [(1, "bird"), (2, "book")]]
