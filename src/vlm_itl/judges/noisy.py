"""The simulated human with errors, which can stand for a VLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from vlm_itl.core.fields import Fraction, Probability
from vlm_itl.core.matching import all_right
from vlm_itl.judges.base import Decision, Judge, Question, Row
from vlm_itl.judges.human import complete, right_masks


class NoisyJudge(Judge):
    """The simulated human with errors: a right thing is approved with P = recall, a wrong one with P = 1 - specificity.

    The thing is the image, or under `unit: instance` each mask, and that nothing is missing.
    """

    label: ClassVar[str] = "simulated judge with errors"
    computes: ClassVar[bool] = True

    kind: Literal["noisy"]
    recall: Probability
    """P(approve) of a right thing."""
    specificity: Probability
    """P(reject) of a wrong thing."""
    iou: Fraction = 0.6
    """Mask IoU from which on a proposal stands for an instance."""
    actor: Literal["human", "model"] = "model"
    """Whose time a decision costs."""
    unit: Literal["image", "instance"] = "image"
    """Decides on the image as a whole, or on each mask alone and then whether anything is missing."""

    @classmethod
    def simulates(cls, settings: Mapping[str, Any]) -> bool:
        return True

    @property
    def whose_time(self) -> Literal["human", "model", "none"]:
        return self.actor

    def decide(self, question: Question, truth: list[Row]) -> Decision:
        """Errors are independent from question to question (a real judge errs by content)."""
        generator = question.generator()

        def approves(right: bool) -> bool:
            return generator.random() < (self.recall if right else 1 - self.specificity)

        if self.unit == "image":
            return Decision(approve=approves(all_right(question.proposals, truth, self.iou)))
        accepted = [approves(right) for right in right_masks(question.proposals, truth, self.iou)]
        return Decision(approve=approves(complete(question.proposals, accepted, truth, self.iou)), accepted=accepted)
