"""How good pseudo-labels are, as they stand."""

from __future__ import annotations

from typing import Any

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.matching import all_right, on_crowd, partners
from vlm_itl.metrics.detection import average_precision


def quality(rows: list[dict[str, Any]], truth: Coco, iou: float) -> dict[str, Any]:
    """Pseudo-labels against the truth of all images that they were drawn on.

    Args:
        rows: COCO results. Those on images without truth are only counted.
        truth: COCO instances; regions to ignore are neither to be found nor wrong to be found.
        iou: mask IoU from which on a pseudo-label is right.

    Returns:
        `box` and `mask`: see `average_precision`; what the teacher's thresholds left out counts as not found. `pseudo_labels`: how many.
        `right`: the share of them that have an instance of their class at `iou` to themselves (those on regions to ignore left out).
        `found`: the share of instances that have one to themselves.
        `images`, of them `images_without` any pseudo-label, and `images_right`: the share of images that the oracle would approve.
        Shares are fractions of 1, null of nothing. `without_truth`: pseudo-labels on images that nobody has labelled, if there are any.
    """
    known = {image["id"] for image in truth["images"]}
    unknown = sum(row["image_id"] not in known for row in rows)
    rows = [row for row in rows if row["image_id"] in known]
    shown, true = by_image(rows), by_image(truth)
    right = counted = instances = whole = 0
    for image in truth["images"]:
        mine, theirs = shown.get(image["id"], []), true.get(image["id"], [])
        paired = [place is not None for place in partners(mine, theirs, iou)]
        right += sum(paired)
        counted += sum(own or not crowd for own, crowd in zip(paired, on_crowd(mine, theirs, iou)))
        instances += sum(not g["iscrowd"] for g in theirs)
        whole += bool(mine) and all_right(mine, theirs, iou)

    def share(part: int, total: int) -> float | None:
        return round(part / total, 6) if total else None

    images = len(truth["images"])
    without = sum(image["id"] not in shown for image in truth["images"])
    return {
        **average_precision(truth, rows), "pseudo_labels": len(rows), "right": share(right, counted), "found": share(right, instances),
        "images": images, "images_without": without, "images_right": share(whole, images),
        **({"without_truth": unknown} if unknown else {}),
    }  # fmt: skip
