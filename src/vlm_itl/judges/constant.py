"""The rules that decide without looking."""

from __future__ import annotations

from typing import ClassVar, Literal

from vlm_itl.judges.base import Decision, Judge, Question, Row


class AlwaysJudge(Judge):
    """Approves everything."""

    label: ClassVar[str] = "rule: approves everything"
    examples: ClassVar[bool] = False

    kind: Literal["always"]

    def decide(self, question: Question, truth: list[Row]) -> Decision:
        return Decision(approve=True)


class NeverJudge(Judge):
    """Approves nothing; with policy `annotate` a human draws everything."""

    label: ClassVar[str] = "rule: rejects everything"
    takes_part: ClassVar[bool] = False
    examples: ClassVar[bool] = False

    kind: Literal["never"]

    def decide(self, question: Question, truth: list[Row]) -> Decision:
        return Decision(approve=False)
