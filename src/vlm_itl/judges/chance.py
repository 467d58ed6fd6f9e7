"""The rule that throws a coin: the floor."""

from __future__ import annotations

from typing import ClassVar, Literal

from vlm_itl.core.fields import Probability
from vlm_itl.judges.base import Decision, Judge, Question, Row
from vlm_itl.judges.calibration import finite_log_odds


class RandomJudge(Judge):
    """Approves with probability `p`."""

    label: ClassVar[str] = "rule: chance"

    kind: Literal["random"]
    p: Probability = 0.5
    """Probability of an approval."""

    def decide(self, question: Question, truth: list[Row]) -> Decision:
        return Decision(approve=question.generator().random() < self.p, log_odds=finite_log_odds(self.p))
