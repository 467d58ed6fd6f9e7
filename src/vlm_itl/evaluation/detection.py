"""COCO average precision of boxes and masks, with pycocotools.

AP is the mean over IoU .50:.05:.95 of the 101-point interpolated precision, over classes with at least one test instance.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..base.coco import Coco


def evaluate(truth: Coco, results: list[dict[str, Any]]) -> dict[str, COCOeval]:
    """Match results and instances of boxes and masks, and accumulate.

    Args:
        truth: COCO instances; crowd regions are ignored as COCO does.
        results: COCO results with `segmentation` (RLE), `bbox` ([x, y, w, h], pixels) and `score`.

    Returns:
        {"box" | "mask": the evaluation}.
    """
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
