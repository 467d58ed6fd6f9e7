"""The detector without a network, and the seam that it stands behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, instance
from PIL import Image

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json
from vlm_itl.detectors import ToPredict, detector
from vlm_itl.metrics.detection import evaluate, numbers
from vlm_itl.registry import DETECTORS
from vlm_itl.settings import EarlyStopping, load

SETTINGS = load(ROOT / "params.yaml")
COLOURS = {1: (220, 40, 40), 2: (40, 40, 220)}


@pytest.fixture
def data(tmp_path: Path) -> tuple[dict, Path]:
    """Red and blue rectangles on green, 40 x 50."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(1, 9):
        pixels = np.full((40, 50, 3), (60, 160, 60), dtype=np.uint8)
        for c, x in ((1, 3), (2, 28)):
            y = int(rng.integers(2, 18))
            pixels[y : y + 18, x : x + 16] = COLOURS[c]
            annotations.append(instance((x, y, 16, 18), c, i, id=len(annotations) + 1))
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 50})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]}, tmp_path


def blobs():
    return detector(SETTINGS.detector.model_copy(update={"kind": "blobs"}))


def predict(model: Path, data: dict, images: Path, threshold: float = 0.05) -> tuple[list, str | None]:
    target = model / "predictions.json"
    said = blobs().predict(model, images, [ToPredict({**data, "annotations": []}, threshold, "predicting", target)], SETTINGS.predict)
    return read_json(target), said


def test_it_learns_colours(data, tmp_path):
    labels, images = data
    done = blobs().train(labels, images, tmp_path / "m", SETTINGS.train, 1)
    assert (done.numbers["images"], done.numbers["steps"]) == (8, 8)
    found, said = predict(tmp_path / "m", labels, images)
    assert said is None
    assert numbers(evaluate(labels, found))["mask"]["AP"] == pytest.approx(1)
    again = blobs().train(labels, images, tmp_path / "n", SETTINGS.train, 2)
    assert again == done
    assert (tmp_path / "n/counts.json").read_bytes() == (tmp_path / "m/counts.json").read_bytes()


def test_it_goes_on_from_what_it_knew(data, tmp_path):
    """One class in the first labels, the other in the second: with both in mind it finds both."""
    labels, images = data
    halves = [{**labels, "annotations": [a for a in labels["annotations"] if a["category_id"] == c]} for c in (1, 2)]
    blobs().train(halves[0], images, tmp_path / "a", SETTINGS.train, 1)
    assert {row["category_id"] for row in predict(tmp_path / "a", labels, images)[0]} == {1}
    blobs().train(labels, images, tmp_path / "b", SETTINGS.train, 1, previous=tmp_path / "a")
    counts = [np.array(read_json(tmp_path / name / "counts.json")["counts"]) for name in "ab"]
    assert counts[1].sum() == 2 * counts[0].sum()
    assert (counts[1] >= counts[0]).all()


def test_a_model_says_how_far_it_is_from_the_threshold(data, tmp_path):
    labels, images = data
    blobs().train(labels, images, tmp_path / "m", SETTINGS.train, 1)
    found, said = predict(tmp_path / "m", labels, images, threshold=1.0)
    assert found == []
    assert said.startswith("predicting: no instance of 8 images has a score of 1.0 or more; the highest is 0.9")


def test_what_it_cannot_do_is_an_error(data, tmp_path):
    labels, images = data
    stopping = SETTINGS.train.model_copy(update={"early_stopping": EarlyStopping(every=1)})
    with pytest.raises(UserError, match=r"early_stopping is not for detector\.kind: blobs"):
        blobs().train(labels, images, tmp_path / "m", stopping, 1)
    with pytest.raises(UserError, match="no labelled instance to train on"):
        blobs().train({**labels, "annotations": []}, images, tmp_path / "m", SETTINGS.train, 1)
    blobs().train(labels, images, tmp_path / "m", SETTINGS.train, 1)
    other = {**labels, "categories": [{"id": 3, "name": "green"}]}
    with pytest.raises(UserError, match=r"knows the classes \[1, 2\], and these images have \[3\]"):
        predict(tmp_path / "m", other, images)


@pytest.mark.parametrize("kind", DETECTORS)
def test_every_kind_has_a_class_and_a_setting(kind):
    chosen = SETTINGS.detector.model_copy(update={"kind": kind})
    assert type(chosen).model_validate(chosen.model_dump()).kind == kind
    assert callable(detector(chosen).train)
    assert callable(detector(chosen).predict)
