"""Which proposals match which instances, one to one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_util


def iou_matrix(proposals: list[dict[str, Any]], instances: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Mask IoU, shape (proposals, instances); a crowd instance divides by the proposal's own area, as COCO does."""
    if not proposals or not instances:
        return np.zeros((len(proposals), len(instances)))
    return np.asarray(
        mask_util.iou(
            [p["segmentation"] for p in proposals],
            [g["segmentation"] for g in instances],
            [int(g.get("iscrowd", 0)) for g in instances],
        )
    )


def all_right(proposals: list[dict[str, Any]], truth: list[dict[str, Any]], iou: float) -> bool:
    """Whether the proposals of one image are what a perfect annotator would draw.

    Every instance has its own same-class proposal at mask IoU >= `iou`, and no proposal is left over. A proposal on a crowd region of its
    class (IoU, by the proposal's area, >= `iou`) is neither needed nor extra. For IoU > 0.5 and masks that do not overlap the matching is
    unique; otherwise a maximum bipartite matching decides, so that no order of proposals matters.
    """
    instances = [g for g in truth if not g.get("iscrowd", 0)]
    crowds = [g for g in truth if g.get("iscrowd", 0)]
    fits = (iou_matrix(proposals, instances) >= iou) & _same_class(proposals, instances)
    on_crowd = ((iou_matrix(proposals, crowds) >= iou) & _same_class(proposals, crowds)).any(axis=1)
    if len(proposals) - int(on_crowd.sum()) > len(instances) or len(proposals) < len(instances):
        return False
    # every instance needs a proposal, and every proposal off the crowds needs an instance
    return _matching_size(fits) == len(instances) and _matching_size(fits[~on_crowd]) == int((~on_crowd).sum())


def matched(proposals: list[dict[str, Any]], truth: list[dict[str, Any]], iou: float) -> list[bool]:
    """For each proposal of one image whether an instance of its class has mask IoU >= `iou` with it; two may share one instance."""
    instances = [g for g in truth if not g.get("iscrowd", 0)]
    fits = (iou_matrix(proposals, instances) >= iou) & _same_class(proposals, instances)
    return [bool(row.any()) for row in fits]


def _same_class(proposals: list[dict[str, Any]], instances: list[dict[str, Any]]) -> NDArray[np.bool_]:
    left = np.array([p["category_id"] for p in proposals], dtype=int)
    right = np.array([g["category_id"] for g in instances], dtype=int)
    return left[:, None] == right[None, :]


def _matching_size(allowed: NDArray[np.bool_]) -> int:
    from scipy.optimize import linear_sum_assignment

    if not allowed.size:
        return 0
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return int(allowed[rows, columns].sum())
