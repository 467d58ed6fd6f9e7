"""The data path on real COCO photographs: polygons, crowd regions, RLE and every category. Skipped where they are not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import PHOTOS, ROOT
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from ruamel.yaml import YAML

from vlm_itl.data.instances import normalise, picture_problem, read_instances
from vlm_itl.data.local import LocalSource
from vlm_itl.settings import Data, Local, Select, load

pytestmark = pytest.mark.skipif(not PHOTOS.exists(), reason=f"no COCO photographs in ../{PHOTOS.relative_to(ROOT.parent)}")
CLASSES = ["person", "chair", "car", "book", "bird"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder in which `download` and `split` have run on the photographs."""
    folder = tmp_path_factory.mktemp("photos")
    yaml = YAML(typ="safe")
    params = yaml.load((ROOT / "params.yaml").read_text())
    params["data"] = {
        "source": "local", "root": str(PHOTOS),
        "local": {"train": {"annotations": "instances.json", "images": "images"}, "test_fraction": 0.3},
    }  # fmt: skip
    params["select"].update(categories=CLASSES, min_area=100)
    params["split"]["initial_fraction"] = 0.4
    yaml.dump(params, folder / "params.yaml")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    data = [f"--{n}={folder / 'data' / f}" for n, f in (("images", "images"), ("train", "train.json"), ("test", "test.json"))]
    download = [sys.executable, "-m", "stages.download", *data, f"--metrics={folder / 'download.json'}"]
    subprocess.run(download, cwd=folder, env=env, check=True)
    out = ("labels", "pool", "ledger", "unlabelled", "truth", "validation", "test-split", "metrics", "plot")
    subprocess.run(
        [sys.executable, "-m", "stages.split", *data[1:], *(f"--{n}={folder / n}.json" for n in out)], cwd=folder, env=env, check=True
    )
    return folder


def read(path):
    return json.loads(path.read_text())


def test_every_instance_arrives_with_its_own_mask(tmp_path):
    original = COCO(str(PHOTOS / "instances.json"))
    choice = Select(
        categories=[c["name"] for c in original.cats.values()], min_area=0, max_train_images_per_class=None, max_test_images_per_class=None
    )
    part = {"annotations": "instances.json", "images": "images"}
    data = Data(source="local", root=str(PHOTOS), local=Local(train=part, test_fraction=0.3))
    parts, notes = LocalSource(data).fetch(tmp_path, PHOTOS, choice)
    train, test = parts["train"], parts["test"]
    ours = {a["original_id"]: a for a in train["annotations"] + test["annotations"]}
    shown = {a["image_id"] for a in original.anns.values() if not a["iscrowd"]}
    assert set(ours) == {a["id"] for a in original.anns.values() if a["image_id"] in shown}
    assert sum(a["iscrowd"] for a in ours.values()) == notes["train"]["crowd_regions"] > 0
    for key, row in ours.items():
        # the same rasterisation as pycocotools', whatever form the annotation had
        expected = original.annToRLE(original.anns[key])
        assert mask_util.iou([row["segmentation"]], [expected], [0])[0, 0] == 1, key
        assert row["area"] == original.anns[key]["area"]
    assert {i["original_id"] for i in train["images"]} | {i["original_id"] for i in test["images"]} == shown
    assert sorted(i["id"] for i in train["images"] + test["images"]) == list(range(1, len(shown) + 1))


def test_what_was_written_reads_as_good_data(work):
    for part in ("train", "test"):
        instances = read_instances(work / f"data/{part}.json")
        data, notes = normalise(instances, {c.id for c in instances.categories}, part)
        assert {what for what, n in notes.items() if n} <= {"crowd_regions"}
        assert len(data["images"]) > 50
        for image in data["images"]:
            assert picture_problem((work / "data/images" / image["file_name"]).read_bytes(), image) is None


def test_split_keeps_crowds_as_regions_to_ignore(work):
    metrics = read(work / "metrics.json")
    assert set(metrics) == {"initial", "pool", "validation", "test"}
    for part in ("initial", "pool", "test"):
        assert all(metrics[part]["instances_per_class"][c] for c in CLASSES), part
    assert sum(m["ignored_regions"] for m in metrics.values()) > 0
    assert {c["name"] for c in read(work / "labels.json")["categories"]} == set(CLASSES)


def test_judging_real_instances(work):
    """Ground truth as proposals is right; one instance fewer is not, unless it is a region to ignore."""

    truth, pool = read(work / "truth.json"), read(work / "pool.json")
    settings = load(ROOT / "params.yaml").judges["human"]
    proposals = [{**a, "score": 0.9} for a in truth["annotations"] if not a["iscrowd"]]
    verdicts = settings.verdicts(pool, proposals, truth, 0)
    assert all(v.approve == v.asked for v in verdicts)
    assert sum(v.asked for v in verdicts) > 30
    first = verdicts[0].image_id
    fewer = [p for p in proposals if p["image_id"] != first] + [p for p in proposals if p["image_id"] == first][1:]
    assert not settings.verdicts(pool, fewer, truth, 0)[0].approve


def test_truncated_photograph_is_named(work, tmp_path):
    root = tmp_path / "in"
    shutil.copytree(PHOTOS, root)
    victim = root / "images" / read(work / "data/train.json")["images"][0]["original_name"]
    victim.write_bytes(victim.read_bytes()[:5000])
    params = (work / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace(str(PHOTOS), str(root)))
    done = subprocess.run(
        [sys.executable, "-m", "stages.download", f"--images={tmp_path / 'o/i'}", f"--train={tmp_path / 'o/a'}",
         f"--test={tmp_path / 'o/b'}", f"--metrics={tmp_path / 'o/m'}"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert victim.name in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "o/a").exists()
