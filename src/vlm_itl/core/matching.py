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
    fits = (iou_matrix(proposals, instances) >= iou) & same_class(proposals, instances)
    free = np.array(on_crowd(proposals, truth, iou), dtype=bool)
    if len(proposals) - int(free.sum()) > len(instances) or len(proposals) < len(instances):
        return False
    # every instance needs a proposal, and every proposal off the crowds needs an instance
    return _matching_size(fits) == len(instances) and _matching_size(fits[~free]) == int((~free).sum())


def on_crowd(proposals: list[dict[str, Any]], truth: list[dict[str, Any]], iou: float) -> list[bool]:
    """For each proposal of one image whether it lies on a crowd region of its class (IoU, by the proposal's area, >= `iou`)."""
    crowds = [g for g in truth if g.get("iscrowd", 0)]
    fits = (iou_matrix(proposals, crowds) >= iou) & same_class(proposals, crowds)
    return [bool(row.any()) for row in fits]


def matched(proposals: list[dict[str, Any]], truth: list[dict[str, Any]], iou: float) -> list[bool]:
    """For each proposal of one image whether an instance of its class has mask IoU >= `iou` with it; two may share one instance."""
    instances = [g for g in truth if not g.get("iscrowd", 0)]
    fits = (iou_matrix(proposals, instances) >= iou) & same_class(proposals, instances)
    return [bool(row.any()) for row in fits]


def rightness(proposals: list[dict[str, Any]], truth: list[dict[str, Any]], iou: float) -> list[bool | None]:
    """For each proposal of one image, looked at alone, whether it is right: what every measure of single masks counts by.

    True: an instance of its class has mask IoU >= `iou` with it; two proposals may share one instance. None: no instance has, but it lies
    on an ignored region of its class (`on_crowd`), so it is neither right nor wrong and no measure counts it. False: neither.
    """
    return [
        True if fits else None if crowd else False
        for fits, crowd in zip(matched(proposals, truth, iou), on_crowd(proposals, truth, iou), strict=True)
    ]


def partners(
    proposals: list[dict[str, Any]], truth: list[dict[str, Any]], iou: float, accepted: list[bool] | None = None
) -> list[int | None]:
    """For each proposal of one image the place in `truth` of the instance that is its own, or None.

    One to one, same class, mask IoU >= `iou`, and as many pairs as can be; of several such matchings one that pairs accepted proposals off
    the crowds first, then accepted ones on them, then those with the highest IoU. So the accepted proposals are `all_right` exactly if each
    of them has a partner or lies on a crowd region, and no instance is without an accepted partner.

    Args:
        accepted: the proposals that a verdict accepts; None: all.
    """
    from scipy.optimize import linear_sum_assignment

    places = [k for k, g in enumerate(truth) if not g.get("iscrowd", 0)]
    if not proposals or not places:
        return [None] * len(proposals)
    instances = [truth[k] for k in places]
    overlap = iou_matrix(proposals, instances)
    fits = (overlap >= iou) & same_class(proposals, instances)
    accepted = [True] * len(proposals) if accepted is None else accepted
    first = np.array([0 if not ok else 1 if crowd else 2 for ok, crowd in zip(accepted, on_crowd(proposals, truth, iou))])
    # a pair more outweighs any priorities, and a priority any IoUs
    most = min(overlap.shape) + 1
    gain = fits * (3 * most + first[:, None] + overlap / most)
    result: list[int | None] = [None] * len(proposals)
    for row, column in zip(*linear_sum_assignment(gain, maximize=True)):
        if fits[row, column]:
            result[row] = places[column]
    return result


def missed(proposals: list[dict[str, Any]], truth: list[dict[str, Any]], iou: float) -> list[dict[str, Any]]:
    """The rows of one image's truth that no proposal has to itself (`partners`): instances that are missing, and regions to ignore."""
    found = set(partners(proposals, truth, iou))
    return [row for place, row in enumerate(truth) if place not in found]


def shared_numbers(own: list[int | None], instances: int) -> list[int]:
    """A number for each of so many instances of one image: its proposal's place, or, where it has none, one that no proposal has.

    Args:
        own: what `partners` says of the proposals.
    """
    finder = {place: k for k, place in enumerate(own) if place is not None}
    unused = iter(range(len(own), len(own) + instances))
    return [finder[place] if place in finder else next(unused) for place in range(instances)]


def same_class(proposals: list[dict[str, Any]], instances: list[dict[str, Any]]) -> NDArray[np.bool_]:
    """Which pairs are of one class, shape (proposals, instances). Class ids are the user's, integers of any size."""
    same = [p["category_id"] == g["category_id"] for p in proposals for g in instances]
    return np.array(same, dtype=bool).reshape(len(proposals), len(instances))


def _matching_size(allowed: NDArray[np.bool_]) -> int:
    from scipy.optimize import linear_sum_assignment

    if not allowed.size:
        return 0
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return int(allowed[rows, columns].sum())
