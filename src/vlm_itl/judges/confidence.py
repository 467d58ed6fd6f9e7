"""The rule that believes the detector."""

from __future__ import annotations

from typing import ClassVar, Literal

from vlm_itl.core.fields import Probability
from vlm_itl.judges.base import Decision, Judge, Question, Row
from vlm_itl.judges.calibration import finite_log_odds


class ConfidenceJudge(Judge):
    """Approves when there are proposals and all have at least this detector score."""

    label: ClassVar[str] = "rule: detector confidence"

    kind: Literal["confidence"]
    threshold: Probability = 0.9
    """Detector score that every proposal has to reach."""

    def decide(self, question: Question, truth: list[Row]) -> Decision:
        """The least score stands for P(approve), uncalibrated."""
        least = min(p["score"] for p in question.proposals)
        return Decision(approve=least >= self.threshold, log_odds=finite_log_odds(least))
