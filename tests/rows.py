"""Rows of files for tests of what shows them: whole ones, of which a test says only what it is about."""

from __future__ import annotations

from typing import Any

from vlm_itl.metrics.rows import Arm, Confusion, Quality
from vlm_itl.report.summary import Row

ARM: dict[str, Any] = {
    "against": "human-1", "mask_AP": 0.28, "against_mask_AP": 0.3, "difference": -0.02, "low": -0.05, "high": 0.01, "standard_error": 0.01,
    "p": 0.2, "p_worse": 0.3, "answer": "cannot tell", "reason": None, "images_needed": 1234, "seeds_needed": None, "images": 120,
    "seeds": 1, "resampled": "images", "margin": 0.01, "level": 0.95, "power": 0.8, "replicates": 2000, "p_holm": 0.6,
    "answer_holm": "cannot tell",
}  # fmt: skip
ROW: dict[str, Any] = {
    "mask_AP": 0.3, "box_AP": None, "human_hours": 4.0, "draw_hours": 4.0, "human_decisions": 0, "images_human": 72, "images_model": 0,
    "images_mixed": 0, "images_ground_truth": 0, "steps": 4, "asked": None, "approved": None, "questions": None, "unparsed": None,
    "judge_recall": None, "judge_specificity": None, "label_precision": None, "simulated": False,
}  # fmt: skip


def arm(**changes: Any) -> Arm:
    """A row of a comparison."""
    return Arm(**(ARM | changes))


def numbers(**changes: Any) -> Row:
    """A row of a summary."""
    return Row(**(ROW | changes))


def counts(approved: int, right: int, oracle: int, asked: int) -> dict[str, Any]:
    """Of a judge: the counts that rates are made of, and no rates."""
    return {
        "asked": asked, "approved": approved, "oracle_approves": oracle, "true_approvals": right, "false_approvals": approved - right,
        **dict.fromkeys(("recall", "specificity", "precision", "accuracy", "base_rate", "kappa")),
    }  # fmt: skip


def quality(approved: int, right: int, oracle: int, asked: int) -> Quality:
    """A judge's, all on images of one instance."""
    own = counts(approved, right, oracle, asked)
    return Quality(not_asked=0, **own, by_class={}, by_instances={"0": Confusion(**counts(0, 0, 0, 0)), "1": Confusion(**own)})
