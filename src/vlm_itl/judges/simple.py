"""The judges that need no model: simulated humans, detector confidence, chance.

Every one looks at all proposals of one image and decides on the image as a whole; simulated humans can decide on every mask.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.matching import all_right, missed, on_crowd, partners
from vlm_itl.judges.calibration import finite_log_odds
from vlm_itl.settings import ConfidenceJudge, HumanJudge, NoisyJudge, RandomJudge


@dataclass(frozen=True)
class Question:
    """What a judge is asked about one image."""

    image_id: int
    proposals: list[dict[str, Any]]
    prompt: str
    seed: int

    def dice(self) -> random.Random:
        """A generator that depends on all that is asked and on nothing else: the same question gets the same answer."""
        content = json.dumps([self.seed, self.image_id, self.prompt, self.proposals], sort_keys=True)
        return random.Random(hashlib.sha256(content.encode()).digest())


@dataclass(frozen=True)
class Decision:
    approve: bool
    log_odds: float | None = None  # of approval, where the judge gives a probability
    answer: str | None = None
    accepted: list[bool] | None = None  # for each proposal, where the judge decides on every one


def human(question: Question, truth: list[dict[str, Any]], settings: HumanJudge) -> Decision:
    """Simulated human without errors: `vlm_itl.core.matching.all_right`, or each mask and then whether anything is missing."""
    if settings.unit == "image":
        return Decision(approve=all_right(question.proposals, truth, settings.iou))
    accepted = right_masks(question.proposals, truth, settings.iou)
    return Decision(approve=complete(question.proposals, accepted, truth, settings.iou), accepted=accepted)


def right_masks(proposals: list[dict[str, Any]], truth: list[dict[str, Any]], iou: float) -> list[bool]:
    """For each proposal of one image whether an instance is its own (`partners`), or it lies on an ignored region of its class."""
    own, free = partners(proposals, truth, iou), on_crowd(proposals, truth, iou)
    return [place is not None or crowd for place, crowd in zip(own, free, strict=True)]


def complete(proposals: list[dict[str, Any]], accepted: list[bool], truth: list[dict[str, Any]], iou: float) -> bool:
    """Whether every instance of one image has an accepted mask of its own."""
    kept = [row for row, ok in zip(proposals, accepted, strict=True) if ok]
    return all(g.get("iscrowd", 0) for g in missed(kept, truth, iou))


def simulated_person(truth: Coco, settings: HumanJudge) -> Callable[[int, list[dict[str, Any]]], bool]:
    """A simulated human whom another judge asks about an image's proposals."""
    instances = by_image(truth)
    return lambda image_id, rows: all_right(rows, instances.get(image_id, []), settings.iou)


def noisy(question: Question, truth: list[dict[str, Any]], settings: NoisyJudge) -> Decision:
    """Simulated judge with errors, independent from question to question (a real one errs by content)."""
    dice = question.dice()

    def approves(right: bool) -> bool:
        return dice.random() < (settings.recall if right else 1 - settings.specificity)

    if settings.unit == "image":
        return Decision(approve=approves(all_right(question.proposals, truth, settings.iou)))
    accepted = [approves(right) for right in right_masks(question.proposals, truth, settings.iou)]
    return Decision(approve=approves(complete(question.proposals, accepted, truth, settings.iou)), accepted=accepted)


def confidence(question: Question, settings: ConfidenceJudge) -> Decision:
    """All proposals at or above the threshold; the least score stands for P(approve), uncalibrated."""
    least = min(p["score"] for p in question.proposals)
    return Decision(approve=least >= settings.threshold, log_odds=finite_log_odds(least))


def coin(question: Question, settings: RandomJudge) -> Decision:
    """Approve by chance."""
    return Decision(approve=question.dice().random() < settings.p, log_odds=finite_log_odds(settings.p))
