"""AP, beside pycocotools used the ordinary way, and where there is nothing to measure."""

from __future__ import annotations

import contextlib
import io

import pytest
from conftest import instance
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vlm_itl.evaluation.detection import average_precision

BOX, FAR = (5, 5, 20, 20), (30, 20, 15, 15)


def truth(*rows):
    return {
        "images": [{"id": i, "height": 40, "width": 50} for i in (1, 2)],
        "annotations": [{**row, "id": k} for k, row in enumerate(rows, 1)],
        "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "book"}],
    }


def test_perfect_and_absent_class():
    result = average_precision(truth(instance(BOX)), [instance(BOX, score=0.9)])
    assert result["mask"]["AP"] == result["box"]["AP"] == 1
    assert result["mask"]["per_class"] == {"bird": 1, "book": None}


def test_no_predictions_is_zero_and_no_truth_is_null():
    assert average_precision(truth(instance(BOX)), [])["mask"]["AP"] == 0
    assert average_precision(truth(), [instance(BOX, score=0.5)])["mask"]["AP"] is None
    assert average_precision(truth(), [])["box"] == {"AP": None, "AP50": None, "AP75": None, "per_class": {"bird": None, "book": None}}


def test_a_crowd_is_not_an_instance_to_find():
    crowd = instance((25, 0, 25, 40), iscrowd=1)
    assert average_precision(truth(instance(BOX), crowd), [instance(BOX, score=0.9), instance(FAR, score=0.95)])["mask"]["AP"] == 1
    assert average_precision(truth(crowd), [])["mask"]["AP"] is None


def test_agrees_with_pycocotools_on_its_own():
    data = truth(instance(BOX), instance(FAR, 2), instance(FAR, 1, 2), instance((0, 0, 10, 10), 1, 2))
    results = [
        instance((6, 6, 20, 20), score=0.9), instance(FAR, 1, score=0.8), instance((31, 21, 15, 15), 2, score=0.3),
        instance((30, 22, 15, 15), 1, 2, score=0.6), instance((0, 0, 6, 10), 1, 2, score=0.7),
    ]  # fmt: skip
    mine = average_precision(data, results)
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = data
        gt.createIndex()
        for kind, name in (("segm", "mask"), ("bbox", "box")):
            keep = {"image_id", "category_id", "score", "segmentation" if kind == "segm" else "bbox"}
            dt = gt.loadRes([{k: v for k, v in r.items() if k in keep} for r in results])
            e = COCOeval(gt, dt, kind)
            e.evaluate()
            e.accumulate()
            e.summarize()
            assert mine[name]["AP"] == pytest.approx(e.stats[0], abs=1e-6)
            assert mine[name]["AP50"] == pytest.approx(e.stats[1], abs=1e-6)
            assert mine[name]["AP75"] == pytest.approx(e.stats[2], abs=1e-6)
    assert 0 < mine["mask"]["AP"] < 1
