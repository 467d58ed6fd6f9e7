"""The drawn data: COCO's form, exact masks, and the same bytes for the same seed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util

from vlm_itl.data.instances import normalise, picture_problem, read_instances
from vlm_itl.data.synthetic import dataset, things

pytestmark = pytest.mark.filterwarnings("error")


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def scenes() -> list[dataset.Scene]:
    return [dataset.draw_scene(np.random.default_rng([7, k])) for k in range(60)]


def test_data_set_is_valid_coco(tmp_path: Path) -> None:
    dataset.write_dataset(tmp_path, 5, 3, 96, seed=3)
    ids = set()
    for part, number in (("train", 5), ("test", 3)):
        data, notes = normalise(read_instances(tmp_path / f"{part}.json"), {13, 16, 24, 84}, part)
        assert not sum(notes.values())
        assert len(data["images"]) == number
        assert [(c["id"], c["name"]) for c in data["categories"]] == [(13, "stop sign"), (16, "bird"), (24, "zebra"), (84, "book")]
        for image in data["images"]:
            assert max(image["width"], image["height"]) == 96
            assert picture_problem((tmp_path / "images" / image["file_name"]).read_bytes(), image) is None
            with Image.open(tmp_path / "images" / image["file_name"]) as picture:
                assert (picture.format, picture.size) == ("JPEG", (image["width"], image["height"]))
        for row in data["annotations"]:
            assert row["area"] == mask_util.area(row["segmentation"])
            assert row["bbox"] == list(mask_util.toBbox(row["segmentation"]))
        ids |= {image["id"] for image in data["images"]}
    assert len(ids) == 8  # train and test share no id


def test_same_seed_same_bytes_and_more_images_keep_the_first(tmp_path: Path) -> None:
    for name, number, seed in (("a", 3, 1), ("b", 3, 1), ("more", 5, 1), ("other", 3, 2)):
        dataset.write_dataset(tmp_path / name, number, 0, 96, seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a" / "images") != digest(tmp_path / "other" / "images")
    first = sorted((tmp_path / "a/images/train").iterdir())
    assert [p.read_bytes() for p in first] == [(tmp_path / "more/images/train" / p.name).read_bytes() for p in first]


def test_masks_do_not_overlap_and_are_not_slivers(scenes: list[dataset.Scene]) -> None:
    for scene in scenes:
        assert scene.masks
        assert np.sum(scene.masks, axis=0).max() == 1
        assert min(m.sum() for m in scene.masks) >= dataset.MIN_AREA
        assert all(m.shape == scene.image.shape[:2] for m in scene.masks)


def test_masks_follow_the_picture(scenes: list[dataset.Scene]) -> None:
    """A stop sign is red where its mask is and not around it; a wrong or shifted mask would not separate the two."""
    inside, outside = [], []
    for scene in scenes:
        for category, mask in zip(scene.category_ids, scene.masks, strict=True):
            if category != things.STOP_SIGN or mask.sum() < 400:
                continue
            r, g, b = (scene.image[..., k].astype(float) for k in range(3))
            redness = r - (g + b) / 2
            rows, columns = np.nonzero(mask)
            frame = np.zeros_like(mask)
            frame[max(rows.min() - 3, 0) : rows.max() + 4, max(columns.min() - 3, 0) : columns.max() + 4] = True
            inside.append(redness[mask].mean())
            outside.append(redness[frame & ~mask].mean())
    assert len(inside) >= 5
    assert np.median(inside) > 40
    assert np.median(np.array(inside) - np.array(outside)) > 40


def test_counts_are_like_cocos(scenes: list[dataset.Scene]) -> None:
    """Books cluster, stop signs stand alone: the first study's images, at most 700 a class, held 2,632 books and 771 stop signs."""
    per_image = {c: [n for s in scenes if (n := s.category_ids.count(c))] for c in (13, 16, 24, 84)}
    mean = {c: np.mean(n) for c, n in per_image.items()}
    assert mean[13] < 1.2 < mean[16] < mean[84]
    assert mean[84] > 3
    assert all(len(n) >= 8 for n in per_image.values())


def test_varied(scenes: list[dataset.Scene]) -> None:
    areas = np.array([m.sum() for s in scenes for m in s.masks])
    assert np.percentile(areas, 90) > 5 * np.percentile(areas, 10)
    brightness = [s.image.mean() for s in scenes]
    assert np.std(brightness) > 15
    assert len({s.image.shape for s in scenes}) == 3


def test_long_side_is_checked() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        dataset.draw_scene(np.random.default_rng(0), 20)
