"""What a detector learns from: the labels, as far as it believes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_itl.core.coco import Coco
from vlm_itl.core.errors import UserError

if TYPE_CHECKING:
    from vlm_itl.settings import ModelLabels


def believed(labels: Coco, settings: ModelLabels) -> Coco:
    """The labels without a model's annotations below `min_score`; an image that loses one is marked `incomplete`."""
    doubted = {a["image_id"] for a in labels["annotations"] if a.get("source") == "model" and a["score"] < settings.min_score}
    return {
        **labels,
        "images": [{**i, "incomplete": True} if i["id"] in doubted else i for i in labels["images"]],
        "annotations": [a for a in labels["annotations"] if a.get("source") != "model" or a["score"] >= settings.min_score],
    }


def check(labels: Coco) -> None:
    """Raises:
    UserError: there is nothing to learn from.
    """
    if not any(not a["iscrowd"] for a in labels["annotations"]):
        raise UserError("there is no labelled instance to train on; in an arm that began without labels: its judge has approved none")
