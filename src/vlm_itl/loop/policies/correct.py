"""The policy `correct`."""

from __future__ import annotations

from dataclasses import replace

from vlm_itl.core.matching import missed
from vlm_itl.loop.policy import Drawn, Outcome, Policy, Shown


class Correct(Policy):
    """The accepted masks of a rejected image stay; a human looks, and draws the instances that none of them matches.

    The look is charged, also where nothing is missing. A human judge who decides on every mask has looked already.
    """

    sees_truth = True
    draws = True

    def rejected(self, shown: Shown) -> Outcome:
        kept = shown.accepted
        drawn = missed(kept, shown.instances, shown.iou)
        return Outcome({"model": kept, "human": drawn}, drawn=drawn or None, looked=not has_looked(shown))

    def drawn(self, shown: Shown, people: Drawn) -> Outcome:
        return replace(super().drawn(shown, people), looked=not has_looked(shown))


def has_looked(shown: Shown) -> bool:
    """Whether the judge was a human who decided on every mask, and so has looked for missing ones."""
    verdict = shown.verdict
    return verdict is not None and verdict.asked and verdict.actor == "human" and verdict.accepted is not None
