"""Judges: from the proposals of a pool to one verdict an image."""

from __future__ import annotations

from typing import Any

from ..base.coco import Coco, by_image
from ..base.settings import ConfidenceJudge, ConstantJudge, HumanJudge, Judge, NoisyJudge, RandomJudge, VlmJudge
from . import simple

Verdict = dict[str, Any]


def judge(pool: Coco, proposals: list[dict[str, Any]], truth: Coco, prompt: str, settings: Judge, seed: int) -> list[Verdict]:
    """One verdict for each image of the pool, by ascending image id.

    An image without proposals is not asked about: there is nothing to approve, it costs nothing and stays unapproved.

    Args:
        pool: the images to judge.
        proposals: COCO results; all of an image's proposals are judged together.
        truth: the pool's ground truth, used by the simulated humans (`human`, `noisy`) and by no other judge.
        prompt: what the judge is asked. A simulated judge does not understand it, but another prompt is another question to it.
        seed: of the simulated randomness.

    Returns:
        Rows of `image_id`, `proposals` (how many were shown), `asked`, `actor` (`human`, `model` or `none`: whose time it took),
        `approve`, `p_approve` (null where the judge gives none), `answer` (raw text, null where there is none).
    """
    shown = by_image(proposals)
    instances = by_image(truth)
    verdicts = []
    for image_id in sorted(image["id"] for image in pool["images"]):
        rows = shown.get(image_id, [])
        asked = bool(rows)
        decision = simple.Decision(approve=False)
        if asked:
            question = simple.Question(image_id, rows, prompt, seed)
            match settings:
                case HumanJudge():
                    decision = simple.human(question, instances.get(image_id, []), settings)
                case NoisyJudge():
                    decision = simple.noisy(question, instances.get(image_id, []), settings)
                case ConfidenceJudge():
                    decision = simple.confidence(question, settings)
                case RandomJudge():
                    decision = simple.coin(question, settings)
                case ConstantJudge():
                    decision = simple.Decision(approve=settings.kind == "always")
                case VlmJudge():
                    raise TypeError("a VLM looks at pictures: vlm_itl.judging.vlm.judge")
        verdicts.append({
            "image_id": image_id, "proposals": len(rows), "asked": asked, "actor": actor(settings),
            "approve": decision.approve, "p_approve": decision.p_approve, "answer": decision.answer,
        })  # fmt: skip
    return verdicts


def actor(settings: Judge) -> str:
    """Whose time a decision of this judge takes: `human`, `model` (a VLM or its stand-in) or `none` (a rule)."""
    if isinstance(settings, HumanJudge):
        return "human"
    return settings.actor if isinstance(settings, NoisyJudge) else "none"
