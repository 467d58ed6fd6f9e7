"""AP, beside pycocotools used the ordinary way, and where there is nothing to measure."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest
from conftest import instance
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vlm_itl.core.errors import UserError
from vlm_itl.metrics.ap import average_precision as ap_of_matches
from vlm_itl.metrics.ap import mean_ap
from vlm_itl.metrics.detection import average_precision, evaluate
from vlm_itl.metrics.matches import from_coco
from vlm_itl.metrics.pseudo_labels import quality

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


def users_ids(images: list[int], first: int, classes: tuple[int, int] = (1, 2)):
    """Two instances an image, all found but the last image's second; annotation ids from `first`. Also a copy of it numbered from 1."""
    places = [(BOX, 0), (FAR, 1)]
    rows = [(i, box, c) for i in range(len(images)) for box, c in places]

    def made(names: list[int], of: tuple[int, int], ids: int):
        data = {
            "images": [{"id": n, "height": 40, "width": 50} for n in names],
            "annotations": [{**instance(box, of[c], names[i]), "id": ids + k} for k, (i, box, c) in enumerate(rows)],
            "categories": [{"id": of[0], "name": "bird"}, {"id": of[1], "name": "book"}],
        }
        return data, [instance(box, of[c], names[i], score=0.9 - i / 100) for i, box, c in rows[:-1]]

    return made(images, classes, first), made(list(range(1, len(images) + 1)), (1, 2), 1)


@pytest.mark.parametrize(
    ("images", "first", "classes"),
    [([1, 2, 3, 4], 0, (1, 2)), ([0, 1, 2, 3], -3, (0, 1)), ([5, 2**63, 2**64, 2**80], 2**63, (2**63, 2**70)),
     ([-7, 0, 2**63, 9**99], 0, (-1, 2**64))],
)  # fmt: skip
def test_ids_are_the_users_and_pycocotools_gets_ours(images, first, classes):
    (data, results), (renumbered, theirs) = users_ids(images, first, classes)
    data["annotations"].reverse()  # a file may be in any order
    before = copy.deepcopy(data)
    mine = evaluate(data, results)
    assert data == before
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = renumbered
        gt.createIndex()
        e = COCOeval(gt, gt.loadRes([{k: v for k, v in r.items() if k != "bbox"} for r in theirs]), "segm")
        e.evaluate()
        e.accumulate()
        e.summarize()
    assert 0.8 < e.stats[0] < 1
    assert average_precision(data, results)["mask"]["AP"] == pytest.approx(e.stats[0], abs=1e-6)
    assert quality(results, data, 0.6)["mask"]["AP"] == pytest.approx(e.stats[0], abs=1e-6)
    matches = from_coco(mine["mask"])
    assert mean_ap(ap_of_matches(matches, np.ones((1, 4), dtype=int)))[0] == pytest.approx(e.stats[0], abs=1e-9)
    assert matches.images.tolist() == [str(i) for i in sorted(images)]


def test_perfect_predictions_on_annotations_numbered_from_zero():
    """pycocotools itself takes the annotation with id 0 for no match."""
    (data, results), _ = users_ids([1, 2, 3, 4], 0)
    results.append(instance(FAR, 2, 4, score=0.5))
    assert average_precision(data, results)["mask"]["AP"] == 1


@pytest.mark.parametrize(("row", "what"), [(instance(BOX, 1, 3, score=1), "image 3"), (instance(BOX, 7, 1, score=1), "class 7")])
def test_predictions_of_other_data_are_refused(row, what):
    with pytest.raises(UserError, match=f"predictions name {what}"):
        average_precision(truth(instance(BOX)), [row])
