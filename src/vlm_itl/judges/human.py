"""The simulated human without errors: the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.fields import Fraction
from vlm_itl.core.matching import all_right, missed, on_crowd, partners
from vlm_itl.judges.base import Decision, Judge, Question, Row


class HumanJudge(Judge):
    """Simulated human: approves when every instance is matched one-to-one by a same-class proposal, nothing extra."""

    label: ClassVar[str] = "simulated human"
    examples: ClassVar[bool] = False

    kind: Literal["human"]
    """A simulated human is the only one who can stand in for a person."""
    iou: Fraction = 0.6
    """Mask IoU from which on a proposal stands for an instance."""
    unit: Literal["image", "instance"] = "image"
    """Decides on the image as a whole, or on each mask alone and then whether anything is missing."""

    @classmethod
    def simulates(cls, settings: Mapping[str, Any]) -> bool:
        return True

    @property
    def whose_time(self) -> Literal["human", "model", "none"]:
        return "human"

    def decide(self, question: Question, truth: list[Row]) -> Decision:
        """`vlm_itl.core.matching.all_right`, or each mask and then whether anything is missing."""
        if self.unit == "image":
            return Decision(approve=all_right(question.proposals, truth, self.iou))
        accepted = right_masks(question.proposals, truth, self.iou)
        return Decision(approve=complete(question.proposals, accepted, truth, self.iou), accepted=accepted)

    def person(self, truth: Coco) -> Callable[[int, list[Row]], bool]:
        """Whom another judge asks about an image's proposals."""
        instances = by_image(truth)
        return lambda image_id, rows: all_right(rows, instances.get(image_id, []), self.iou)


def right_masks(proposals: list[Row], truth: list[Row], iou: float) -> list[bool]:
    """For each proposal of one image whether an instance is its own (`partners`), or it lies on an ignored region of its class."""
    own, free = partners(proposals, truth, iou), on_crowd(proposals, truth, iou)
    return [place is not None or crowd for place, crowd in zip(own, free, strict=True)]


def complete(proposals: list[Row], accepted: list[bool], truth: list[Row], iou: float) -> bool:
    """Whether every instance of one image has an accepted mask of its own."""
    kept = [row for row, ok in zip(proposals, accepted, strict=True) if ok]
    return all(g.get("iscrowd", 0) for g in missed(kept, truth, iou))
