"""COCO average precision of boxes and masks, with pycocotools.

AP is the mean over IoU .50:.05:.95 of the 101-point interpolated precision, over classes with at least one test instance.

Ids in files are the user's. pycocotools stores the matched annotation's id in `dtMatches`, where 0 means "no match", and NumPy holds ids
of at most 63 bits. So it is given ids of our own, from 1 (`numbered`), and everything here and in `metrics.matches` goes through that.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vlm_itl.core.coco import Coco
from vlm_itl.core.errors import UserError


def evaluate(truth: Coco, results: list[dict[str, Any]]) -> dict[str, COCOeval]:
    """Match results and instances of boxes and masks, and accumulate.

    Args:
        truth: COCO instances; crowd regions are ignored as COCO does.
        results: COCO results with `segmentation` (RLE), `bbox` ([x, y, w, h], pixels) and `score`.

    Returns:
        {"box" | "mask": the evaluation}. Its ids are those of `numbered`.

    Raises:
        UserError: a result names an image or a class that the truth lacks.
    """
    truth, results = numbered(truth, results)
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent):
        gt = COCO()
        gt.dataset = truth
        gt.createIndex()
        # COCO.loadRes cannot take an empty list, and derives each box from its mask anyway: do what it does, for any length
        dt = COCO()
        dt.dataset = {
            "images": truth["images"],
            "categories": truth["categories"],
            "annotations": [{**r, "id": k, "iscrowd": 0, "area": r["area"]} for k, r in enumerate(results, 1)],
        }
        dt.createIndex()
        evaluations = {}
        for kind, iou_type in (("box", "bbox"), ("mask", "segm")):
            evaluations[kind] = COCOeval(gt, dt, iou_type)
            evaluations[kind].evaluate()
            evaluations[kind].accumulate()
        return evaluations


def numbered(truth: Coco, results: list[dict[str, Any]]) -> tuple[Coco, list[dict[str, Any]]]:
    """Truth and results under ids of our own, 1, 2, ...: images and classes in the order of their ids, annotations as they stand.

    The rows are copies. An image keeps the id that it had, an integer of any size, in `given_id`.

    Raises:
        UserError: a result names an image or a class that the truth lacks.
    """
    images, classes = ({given: k for k, given in enumerate(sorted(row["id"] for row in truth[of]), 1)} for of in ("images", "categories"))

    def ours(row: dict[str, Any], **more: int) -> dict[str, Any]:
        return {**row, "image_id": images[row["image_id"]], "category_id": classes[row["category_id"]], **more}

    for row in results:
        for key, known, what in (("image_id", images, "image"), ("category_id", classes, "class")):
            if row[key] not in known:
                raise UserError(f"predictions name {what} {row[key]}, which the true instances lack: the two belong to different data")
    own = {
        **truth,
        "images": [{**row, "id": images[row["id"]], "given_id": row["id"]} for row in truth["images"]],
        "categories": [{**row, "id": classes[row["id"]]} for row in truth["categories"]],
        "annotations": [ours(row, id=k) for k, row in enumerate(truth["annotations"], 1)],
    }
    return own, [ours(row) for row in results]


def numbers(evaluations: dict[str, COCOeval]) -> dict[str, Any]:
    """AP for boxes and masks.

    Returns:
        {"box" | "mask": {"AP", "AP50", "AP75", "per_class": {name: AP}}}, fractions of 1. A class without a test instance is None
        (pycocotools says -1), and so is a mean over no class.
    """
    return {kind: _numbers(evaluation) for kind, evaluation in evaluations.items()}


def average_precision(truth: Coco, results: list[dict[str, Any]]) -> dict[str, Any]:
    """`numbers` of `evaluate`."""
    return numbers(evaluate(truth, results))


def _numbers(evaluation: COCOeval) -> dict[str, Any]:
    # precision: (IoU thresholds, recall points, classes, area ranges, detection limits); area "all", 100 detections
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    thresholds = list(np.round(evaluation.params.iouThrs, 2))
    names = {row["id"]: row["name"] for row in evaluation.cocoGt.dataset["categories"]}

    def mean(values: np.ndarray) -> float | None:
        values = values[values > -1]
        return round(float(values.mean()), 6) if values.size else None

    return {
        "AP": mean(precision),
        "AP50": mean(precision[thresholds.index(0.5)]),
        "AP75": mean(precision[thresholds.index(0.75)]),
        "per_class": {names[c]: mean(precision[:, :, k]) for k, c in enumerate(evaluation.params.catIds)},
    }
