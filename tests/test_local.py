"""`data.source: local`: files of strangers, with ids, names, classes and paths of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, rectangle
from PIL import Image
from ruamel.yaml import YAML

from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import MAX_PIXELS
from vlm_itl.data.local import LocalSource
from vlm_itl.data.source import Fetched
from vlm_itl.settings import Data, Local, Select

CHOICE = Select(categories=["bird", "book"], min_area=0)


def fetch(images: Path, root: Path, settings: Local, choice: Select, seed: int, max_pixels: int = MAX_PIXELS) -> Fetched:
    data = Data(source="local", root=str(root), seed=seed, max_pixels=max_pixels, local=settings)
    return LocalSource(data).fetch(images, root, choice)


def picture(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(file)


def part(root: Path, name: str, numbers: dict[str, int], images: dict[int, str], seed: int = 0) -> dict[str, str]:
    """Write `name`.json and its pictures, one instance of each class of `numbers` on each of `images`; returns the settings."""
    annotations = []
    for k, (i, file_name) in enumerate(images.items()):
        picture(root / name / file_name, seed + k)
        annotations += [
            {"id": len(annotations) + n, "image_id": i, "category_id": c, "segmentation": rectangle(40, 50, 3 + 15 * n, 4, 9, 7)}
            for n, c in enumerate(numbers.values())
        ]
    content = {
        "images": [{"id": i, "file_name": file_name, "height": 40, "width": 50} for i, file_name in images.items()],
        "annotations": annotations, "categories": [{"id": c, "name": name} for name, c in numbers.items()],
    }  # fmt: skip
    (root / f"{name}.json").write_text(json.dumps(content))
    return {"annotations": f"{name}.json", "images": name}


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture
def both(tmp_path) -> Local:
    """Two files below tmp_path/in that number the classes otherwise, with annotation and image ids from 0 and beyond 63 bits."""
    root = tmp_path / "in"
    root.mkdir()
    return Local(
        train=part(root, "train", {"bird": 0, "book": 5, "cat": 6}, {0: "a.png", -7: "b.png", 2**64: "c.png"}),
        test=part(root, "test", {"book": 1, "cat": 2, "bird": 5}, {0: "a.png", 2**63: "b.png"}, seed=50),
    )


def test_classes_are_matched_by_name_and_ids_are_ours(both, tmp_path):
    parts, _ = fetch(tmp_path / "out", tmp_path / "in", both, CHOICE, 0)
    numbers = [{c["name"]: c["id"] for c in data["categories"]} for data in parts.values()]
    assert numbers == [{"bird": 1, "book": 2}] * 2
    for data, bird in ((parts["train"], 0), (parts["test"], 2)):
        # `bird` is the first instance on every training image, the third on every test image
        boxes = {tuple(a["bbox"]) for a in data["annotations"] if a["category_id"] == 1}
        assert boxes == {(3.0 + 15 * bird, 4.0, 9.0, 7.0)}
    for kind in ("images", "annotations"):
        ids = [row["id"] for data in parts.values() for row in data[kind]]
        assert sorted(ids) == list(range(1, len(ids) + 1))
    files = {row["original_id"]: row["original_name"] for row in parts["train"]["images"]}
    assert files == {0: "a.png", -7: "b.png", 2**64: "c.png"}
    for name, data in parts.items():
        for row in data["images"]:
            assert row["file_name"] == f"{name}/{row['id']:012d}.png"
            copy, source = tmp_path / "out" / row["file_name"], tmp_path / "in" / name / row["original_name"]
            assert copy.read_bytes() == source.read_bytes()


def test_a_class_that_one_file_lacks_is_named_with_the_file(both, tmp_path):
    edit(tmp_path / "in/test.json", lambda d: d["categories"][2].update(name="birds"))
    with pytest.raises(UserError, match=rf"test data has no class 'bird' \(it has: book, cat, birds\) in {tmp_path}/in/test.json"):
        fetch(tmp_path / "out", tmp_path / "in", both, CHOICE, 0)


def test_one_file_as_training_and_as_test_data_is_refused(both, tmp_path):
    same = Local(train=both.train, test=both.train)
    with pytest.raises(UserError, match=r"train.json: image 0 \(a.png\) is the same picture as image 0 \(a.png\) of .*n.json, and 2 more"):
        fetch(tmp_path / "out", tmp_path / "in", same, CHOICE, 0)


def test_a_test_picture_among_the_training_pictures_is_refused_whatever_its_name(both, tmp_path):
    (tmp_path / "in/test/b.png").write_bytes((tmp_path / "in/train/c.png").read_bytes())
    with pytest.raises(UserError) as error:
        fetch(tmp_path / "out", tmp_path / "in", both, CHOICE, 0)
    first, second = f"{tmp_path}/in/train.json: image {2**64} (c.png)", f"image {2**63} (b.png) of {tmp_path}/in/test.json"
    assert str(error.value).startswith(
        f"{first} is the same picture as {second}: a test picture must not be trained on; take it out of one"
    )
    assert "test_fraction" in str(error.value)


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_held_out_together(tmp_path, seed):
    """Ten pictures, each of them three times: under another name, and under the same with `./` before it."""
    names = {k: f"{k}.png" for k in range(10)}
    train = part(tmp_path, "train", {"bird": 1, "book": 2}, names)
    for k in range(10):
        (tmp_path / f"train/copy {k}.png").write_bytes((tmp_path / f"train/{k}.png").read_bytes())

    def thrice(d):
        for k, name in ((10, "copy {}.png"), (20, "./{}.png")):
            d["images"] += [{**i, "id": i["id"] + k, "file_name": name.format(i["id"])} for i in d["images"][:10]]
            d["annotations"] += [{**a, "id": a["id"] + 2 * k, "image_id": a["image_id"] + k} for a in d["annotations"][:20]]

    edit(tmp_path / "train.json", thrice)
    parts, _ = fetch(tmp_path / "out", tmp_path, Local(train=train, test_fraction=0.3), CHOICE, seed)
    held_out = {i["original_id"] for i in parts["test"]["images"]}
    assert len(held_out) == 9
    assert held_out == {k + more for k in held_out for more in (0, 10, 20) if k < 10}
    assert {i["original_id"] for i in parts["train"]["images"]} == set(range(30)) - held_out


def test_the_held_out_images_are_those_of_before(tmp_path):
    """Copies aside, the draw goes by the ids of the file as it always has."""
    import random

    train = part(tmp_path, "train", {"bird": 1, "book": 2}, {k: f"{k}.png" for k in range(3, 23)})
    parts, _ = fetch(tmp_path / "out", tmp_path, Local(train=train, test_fraction=0.3), CHOICE, 4)
    order = list(range(3, 23))
    random.Random("4/test").shuffle(order)
    assert {i["original_id"] for i in parts["test"]["images"]} == set(order[:6])


def bitmap(marker: Path) -> str:
    """An X bitmap of 50 x 40 pixels, which Pillow can read, and a Python program that makes a file."""
    bits = "0x00, " * 280
    return f'#define a_width 50\n#define a_height 40\n"""a_bits[] = {{\n{bits}}};\n"""\nopen({str(marker)!r}, "w").close()\n'


@pytest.mark.parametrize("name", ["inner/../../../src/loaded.py", "../src/loaded.py", "inner/../x.png", "/src/loaded.py"])
def test_a_name_cannot_write_over_code(both, tmp_path, name):
    """`inner` is a link that leads deeper into the image folder, so the source lies inside it, and the target lay in `src`."""
    code, marker, images = tmp_path / "src" / "loaded.py", tmp_path / "executed", tmp_path / "in" / "train"
    code.parent.mkdir()
    code.write_text("pass\n")
    for inside in ("x.png", "src/loaded.py", "deep/er/src/loaded.py", "deep/src/loaded.py"):
        picture(images / Path(inside).with_suffix(".png"), 1)
        (images / inside).with_suffix(".png").rename(images / inside)
        if inside.endswith(".py"):
            (images / inside).write_text(bitmap(marker))
    (images / "deep/er/and").mkdir()
    (images / "inner").symlink_to(images / "deep/er/and")
    edit(tmp_path / "in/train.json", lambda d: d["images"][0].update(file_name=name))
    with pytest.raises(UserError, match=r"image 0: file_name .* leaves the image folder"):
        fetch(tmp_path / "images", tmp_path / "in", both, CHOICE, 0)
    subprocess.run([sys.executable, str(code)], check=True)
    assert not marker.exists()
    assert code.read_text() == "pass\n"


def test_a_picture_that_is_also_a_program_is_no_picture(both, tmp_path):
    marker = tmp_path / "executed"
    (tmp_path / "in/train/a.png").write_text(bitmap(marker))
    with Image.open(tmp_path / "in/train/a.png") as opened:
        assert opened.size == (50, 40)  # for Pillow it is one
    with pytest.raises(UserError, match=r"image 0: .*a.png is not a picture \(JPEG, PNG"):
        fetch(tmp_path / "out", tmp_path / "in", both, CHOICE, 0)


def test_a_link_at_the_target_is_not_followed_out(both, tmp_path):
    """What was at the target before is not written through."""
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / "in/train/b.png").unlink()
    (tmp_path / "in/train/b.png").symlink_to(victim)
    with pytest.raises(UserError, match=r"image -7: file_name 'b.png' leaves the image folder"):
        fetch(tmp_path / "out", tmp_path / "in", both, CHOICE, 0)
    assert victim.read_text() == "mine"


NAMES = {
    "a NUL": ("a\0.png", r"image 0: file_name 'a\\x00.png' leads to no file: "),
    "nothing": ("", r"image 0: .*/train: not a regular file"),
    "longer than a name may be": ("a" * 300, r"image 0: .*(File name too long)"),
    "links in a circle": ("circle", r"image 0: .*(circle' leads to no file: |Too many levels of symbolic links)"),
    "a pipe": ("pipe", r"image 0: .*/train/pipe: not a regular file"),
    "a folder": ("folder", r"image 0: .*/train/folder: not a regular file"),
    "far too many bytes": ("sparse", r"image 0: .*/train/sparse: 10,000,000,000 bytes, at most 16,793,216 are expected"),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_of_no_picture(both, tmp_path, case):
    name, message = NAMES[case]
    images = tmp_path / "in" / "train"
    os.mkfifo(images / "pipe")
    (images / "folder").mkdir()
    (images / "circle").symlink_to(images / "circle")
    with (images / "sparse").open("wb") as stream:
        stream.truncate(10_000_000_000)
    edit(tmp_path / "in/train.json", lambda d: d["images"][0].update(file_name=name))
    with pytest.raises(UserError, match=message) as error:
        fetch(tmp_path / "out", tmp_path / "in", both, CHOICE, 0)
    assert "\n" not in str(error.value)
    held_out = Local(train=both.train, test_fraction=0.4)  # hashes all pictures first
    with pytest.raises(UserError, match=message):
        fetch(tmp_path / "out", tmp_path / "in", held_out, CHOICE, 0)


def test_a_device_is_not_read(both, tmp_path):
    """The image folder itself may lie anywhere, /dev too."""
    edit(tmp_path / "in/train.json", lambda d: d["images"][0].update(file_name="zero"))
    with pytest.raises(UserError, match=r"image 0: .*/dev/zero: not a regular file"):
        fetch(tmp_path / "out", tmp_path / "in", Local(train={**both.train.model_dump(), "images": "/dev"}, test=both.test), CHOICE, 0)


def test_larger_pictures_than_allowed_are_refused_with_the_setting(both, tmp_path):
    with pytest.raises(UserError, match=r"image 0: 50 x 40 pixels are more than data.max_pixels of params.yaml allows \(1,999\)"):
        fetch(tmp_path / "out", tmp_path / "in", both, CHOICE, 0, 1999)
    Image.new("1", (3000, 1000)).save(tmp_path / "in/train/a.png")  # the annotation says 50 x 40
    with pytest.raises(UserError, match=r"image 0: .*a.png is a picture of 3000 x 1000 pixels, more than data.max_pixels"):
        fetch(tmp_path / "out", tmp_path / "in", both, CHOICE, 0, 2000)


def stage(folder: Path, root: str, settings: dict, **data) -> subprocess.CompletedProcess:
    """`download` in `folder` as DVC runs it, on these settings of `data.local`."""
    yaml = YAML(typ="safe")
    params = yaml.load((ROOT / "params.yaml").read_text())
    params["data"] = {"source": "local", "root": root, "local": settings, **data}
    params["select"] = {"categories": ["bird", "book"], "min_area": 0}
    yaml.dump(params, folder / "params.yaml")
    out = [f"--{n}=out/{f}" for n, f in (("images", "images"), ("train", "train.json"), ("test", "test.json"), ("metrics", "m.json"))]
    command = [sys.executable, "-m", "stages.download", *out]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


NAME = 'it\'s 100% "bird" #1 $HOME; Vögel?.png'


def test_any_path_works_as_itself_and_what_is_left_out_is_said(tmp_path):
    root = tmp_path / 'a "root" #2 & ünïcode\'s'
    root.mkdir()
    train = part(root, "tr'ain #1 ä", {"bird": 1, "book": 2}, {1: NAME, 2: f"under/{NAME}", 3: "c.png"})
    test = part(root, 'te"st', {"bird": 1, "book": 2}, {1: NAME}, seed=70)
    picture(root / train["images"] / "copy.png", 0)

    def change(d):
        d["images"].append({"id": 9, "file_name": "copy.png", "height": 40, "width": 50})
        d["images"].append({"id": 10, "file_name": "nothing on it.png", "height": 40, "width": 50})
        d["annotations"].append({"id": 90, "image_id": 9, "category_id": 1, "segmentation": rectangle(40, 50, 1, 1, 9, 9)})
        d["annotations"].append({"id": 91, "image_id": 9, "category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": []})
        d["annotations"].append({"id": 92, "image_id": 9, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 1})

    edit(root / train["annotations"], change)
    done = stage(tmp_path, str(root), {"train": train, "test": test})
    assert done.returncode == 0, done.stderr
    images = json.loads((tmp_path / "out/train.json").read_text())["images"]
    assert [i["original_name"] for i in images] == [NAME, f"under/{NAME}", "c.png", "copy.png"]
    assert sorted(p.name for p in (tmp_path / "out/images/train").iterdir()) == [f"{k:012d}.png" for k in range(1, 5)]
    assert done.stdout.splitlines() == [
        "train: 4 images with 7 instances take part, and 1 regions to ignore",
        "train: images left out: 1 without an instance that select asks for, 0 above its limits, 0 without a picture",
        "train: annotations left out: 1 without an outline (a box alone is none)",
        "train: 1 images are copies of others, byte by byte; copies stay on one side of every split",
        "test: 1 images with 2 instances take part, and 0 regions to ignore",
        "test: images left out: 0 without an instance that select asks for, 0 above its limits, 0 without a picture",
        "test: annotations left out: 0 without an outline (a box alone is none)",
    ]
    assert json.loads((tmp_path / "out/m.json").read_text())["train"] == {
        "images": 4, "images_without_instance": 1, "images_over_limit": 0, "missing_pictures": 0, "also_test_pictures": 0, "copies": 1,
        "instances": 7, "ignored_regions": 1, "annotations_without_outline": 1, "crowd_regions": 1,
    }  # fmt: skip


def test_brush_masks_that_are_all_crowds_get_a_line(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    settings = Local(train=part(root, "train", {"bird": 1, "book": 2}, {k: f"{k}.png" for k in range(1, 4)}), test_fraction=0.4)
    square = [[30, 30, 40, 30, 40, 40]]

    def all_crowds(d):
        for row in d["annotations"]:
            row["iscrowd"] = 1

    edit(root / "train.json", all_crowds)
    done = stage(tmp_path, str(root), settings.model_dump())
    assert done.returncode == 1
    assert "no training image has an instance of bird, book" in done.stderr
    assert "(annotations of any size: bird 2, book 2; iscrowd: 4)" in done.stderr

    def polygons(d):
        d["annotations"] += [{"id": 50 + i, "image_id": i, "category_id": c, "segmentation": square} for i, c in ((1, 1), (2, 1), (3, 1))]

    edit(root / "train.json", polygons)
    done = stage(tmp_path, str(root), settings.model_dump())
    assert done.returncode == 0, done.stderr
    assert "train: all 6 masks in RLE are iscrowd, which makes them regions to ignore" in done.stdout


def test_a_picture_of_no_certain_range_stops_download_in_one_line(tmp_path):
    settings = {"train": part(tmp_path, "train", {"bird": 1, "book": 2}, {1: "a.tif"}),
                "test": part(tmp_path, "test", {"bird": 1, "book": 2}, {1: "a.png"}, seed=9)}  # fmt: skip
    Image.fromarray(np.random.default_rng(0).random((40, 50)).astype(np.float32)).save(tmp_path / "train/a.tif")
    done = stage(tmp_path, str(tmp_path), settings)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/train.json: image 1: {tmp_path}/train/a.tif is a picture of Pillow's mode F, ")
    assert last.endswith("save it with 8 bits a channel, or 16 bits grey")
    assert "Traceback" not in done.stderr


def test_names_of_files_and_classes_reach_the_terminal_escaped(tmp_path):
    title = "\x1b]0;owned\x07"  # sets a terminal's title
    root = tmp_path / "in"
    root.mkdir()
    settings = {"train": part(root, f"train{title}", {"bird": 1, "book": 2, f"cat{title}": 3}, {1: f"a{title}.png"}),
                "test": part(root, "test", {"bird": 1, "book": 2}, {1: "a.png"}, seed=9)}  # fmt: skip
    done = stage(tmp_path, str(root), settings)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    (root / f"train{title}/a{title}.png").write_bytes(b"no picture")
    done = stage(tmp_path, str(root), settings)
    assert done.returncode == 1
    assert "\\x1b]0;owned\\x07" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300, "../pipe"])
def test_annotations_that_are_no_file_are_one_line(both, tmp_path, name):
    """Without dvc.yaml, as in a program of one's own, nobody has looked at the path before."""
    os.mkfifo(tmp_path / "pipe")
    settings = both.model_copy(update={"train": both.train.model_copy(update={"annotations": name})})
    with pytest.raises(UserError, match=r"cannot be read: (no file can have this name|File name too long|not a regular file)"):
        fetch(tmp_path / "out", tmp_path / "in", settings, CHOICE, 0)
    done = stage(tmp_path, str(tmp_path / "in"), {"train": {"annotations": "a\0b", "images": "train"}})
    assert (done.returncode, done.stderr.count("\n"), "zero character" in done.stderr) == (1, 1, True), done.stderr
