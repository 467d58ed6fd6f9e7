"""Fixtures: a small checked COCO data set, made on the spot."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that looks for a model on the hub finds out at once that it is not there

import numpy as np
import pytest
from browser import PROGRAM, Browser
from PIL import Image

from vlm_itl.core.coco import encode

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "coco-photos"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one clone stay in one of pytest-xdist's workers: making the clone is most of the work."""
    for item in items:
        if item.get_closest_marker("pipeline"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def clear_proxies(monkeypatch) -> None:
    """So that loopback servers are asked directly."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def hearing_ctrl_c(words: list[str]) -> list[str]:
    """The command, to which SIGINT means what it means in a terminal. A shell ignores it in what it starts in the background, which a
    test run may be, and children inherit that."""
    script = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", script, *words]


def rectangle(height: int, width: int, x: int, y: int, w: int, h: int) -> dict:
    """RLE of a filled rectangle."""
    mask = np.zeros((height, width), dtype=bool)
    mask[y : y + h, x : x + w] = True
    return encode(mask)


def instance(box: tuple[int, int, int, int], category_id: int = 1, image_id: int = 1, **more) -> dict:
    """An annotation or result that is a rectangle in a 40 x 50 (height x width) image."""
    x, y, w, h = box
    return {
        "image_id": image_id, "category_id": category_id, "segmentation": rectangle(40, 50, x, y, w, h),
        "bbox": [float(n) for n in box], "area": float(w * h), "iscrowd": 0, **more,
    }  # fmt: skip


def dataset(images: dict[int, list[int]]) -> dict:
    """{image id: category ids of its instances}."""
    rows = [instance((1, 1, 20, 20), c, i) for i, classes in images.items() for c in classes]
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 50} for i in images],
        "annotations": [{**row, "id": k} for k, row in enumerate(rows, 1)],
        "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "book"}, {"id": 3, "name": "zebra"}],
    }


@pytest.fixture
def raw_coco(tmp_path: Path) -> tuple[Path, Path, dict]:
    """(path, images, content) of a valid instances file with polygons, both kinds of RLE, a crowd and an image without annotations."""
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.jpg", "empty.png"):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(images / name)
    counts = [0] * 0 + [40 * 10, 40 * 5, 40 * 35]  # columns 10 to 14
    data = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "height": 40, "width": 50},
            {"id": 2, "file_name": "b.jpg", "height": 40, "width": 50},
            {"id": 3, "file_name": "empty.png", "height": 40, "width": 50},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]], "area": 400, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 9, "segmentation": {"size": [40, 50], "counts": counts}, "iscrowd": 1},
            {"id": 3, "image_id": 2, "category_id": 9, "segmentation": rectangle(40, 50, 3, 4, 20, 10), "iscrowd": 0},
        ],
        "categories": [{"id": 7, "name": "bird"}, {"id": 9, "name": "book"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    return path, images, data


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One that also hears what pages write to its console."""
    if not PROGRAM:
        pytest.skip("no Chromium here (apt-get install chromium)")
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        running.call("Log.enable")
        running.call("Runtime.enable")
        yield running
