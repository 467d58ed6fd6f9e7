"""COCO AP of resampled test images, from matches made once.

An image that a resample holds m times counts m times, as if the data set held m copies of it. Matching does not depend on the other
images, so it stays as it is and only the curves of precision over recall are accumulated again, with weights. What makes that cheap:

- Detections are sorted by score once, whatever the weights. The copies of one detection stand together.
- Precision falls between true positives, so only they matter to its envelope: the sums are taken over all detections once for all IoU
  thresholds and looked up at the true positives of each.
- The 101 recall thresholds need no search: recall is a count over a count, and how many thresholds a count reaches is a table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlm_itl.metrics.matches import Matches

RECALL = np.linspace(0.0, 1.0, 101)  # COCO's
CELLS = 2_000_000  # numbers in a block's largest array: what bounds the memory (8 bytes each, a handful of such arrays)


def average_precision(
    matches: Matches, multiplicities: NDArray[np.integer], detections: NDArray[np.integer] | None = None
) -> NDArray[np.float64]:
    """AP of R resamples, equal to pycocotools' on a data set in which each image is repeated.

    Args:
        matches: of I images, K classes, T thresholds.
        multiplicities: (R, I), how often each resample holds each image.
        detections: (R, I), if the images' detections count otherwise than their instances (see `swapped`).

    Returns:
        (R, K, T). NaN for a class without an instance in a resample. Where one image has several detections of a class with the same score,
        their order in copies of the image is arbitrary; here copies of a detection are neighbours.
    """
    replicates = len(multiplicities)
    weights = multiplicities if detections is None else detections
    result = np.full((replicates, len(matches.classes), len(matches.thresholds)), np.nan)
    starts = np.searchsorted(matches.category, np.arange(len(matches.classes) + 1))
    for k in range(len(matches.classes)):
        mine = slice(starts[k], starts[k + 1])
        order = np.argsort(-matches.score[mine], kind="mergesort")
        image = matches.image[mine][order]
        found, ignored = matches.found[:, mine][:, order], matches.ignored[:, mine][:, order]
        instances = matches.instances[k].astype(np.int64)
        block = max(1, CELLS // max(1, len(order), int(instances.sum())))
        for first in range(0, replicates, block):
            rows = slice(first, first + block)
            total = multiplicities[rows] @ instances
            some = total > 0
            if some.any():
                values = np.full((len(total), len(found)), np.nan)
                values[some] = _accumulate(weights[rows][some].astype(np.int32)[:, image], found, ignored, total[some])
                result[rows, k] = values
    return result


def _accumulate(
    weights: NDArray[np.int32], found: NDArray[np.bool_], ignored: NDArray[np.bool_], instances: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(R, T) AP of one class: weights (R, D) of detections by descending score, found and ignored (T, D), instances (R,), above 0."""
    replicates = len(weights)
    result = np.zeros((replicates, len(found)))
    seen = np.cumsum(weights, axis=1)
    # how many of RECALL are reached by c of n instances; the comparison is pycocotools': recall as a quotient, not smaller than a threshold
    width = int(instances.max()) + 1
    totals, which = np.unique(instances, return_inverse=True)
    reached = np.searchsorted(RECALL, np.arange(width) / totals[:, None], side="right").astype(np.int16)
    reached_at = (which * width)[:, None]
    for t in range(len(found)):
        at = np.flatnonzero(found[t])
        if not len(at):
            continue
        true = np.cumsum(weights[:, at], axis=1)
        counted = seen[:, at]
        skip = np.flatnonzero(ignored[t])
        if len(skip):
            skipped = np.concatenate([np.zeros((replicates, 1), dtype=np.int64), np.cumsum(weights[:, skip], axis=1)], axis=1)
            counted = counted - skipped[:, np.searchsorted(skip, at)]
        precision = true / (counted + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        thresholds = np.diff(reached.ravel()[true + reached_at], axis=1, prepend=0)  # that each true positive is the first to reach
        result[:, t] = np.einsum("rm,rm->r", envelope, thresholds, dtype=np.float64) / len(RECALL)
    return result


def mean_ap(ap: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,) mAP of (R, K, T): the mean over thresholds and over the classes that a resample has; NaN where it has none."""
    by_class = ap.mean(axis=2)
    present = ~np.isnan(by_class)
    mean = np.full(len(ap), np.nan)
    np.divide(np.where(present, by_class, 0).sum(axis=1), present.sum(axis=1), out=mean, where=present.any(axis=1))
    return mean


def swapped(a: Matches, b: Matches) -> Matches:
    """Two models on the same images as one `Matches`, so that each image can take its detections from either.

    The images of `b` follow those of `a`. With `detections` of shape (R, 2 I) that hold 1 for the chosen model of each image and 0 for the
    other, and `multiplicities` that hold 1 for the images of `a` and 0 for those of `b`, `average_precision` gives the chosen mixture.
    """
    category = np.concatenate([a.category, b.category])
    order = np.argsort(category, kind="mergesort")
    return Matches(
        a.thresholds, a.classes, np.concatenate([a.images, b.images]), np.concatenate([a.instances, b.instances], axis=1),
        np.concatenate([a.image, b.image + np.int32(len(a.images))])[order], category[order],
        np.concatenate([a.score, b.score])[order], np.concatenate([a.found, b.found], axis=1)[:, order],
        np.concatenate([a.ignored, b.ignored], axis=1)[:, order],
    )  # fmt: skip
