"""The policy `correct`."""

from __future__ import annotations

from vlm_itl.core.matching import missed
from vlm_itl.loop.policy import Outcome, Policy, Shown


class Correct(Policy):
    """The accepted masks of a rejected image stay; a human looks, and draws the instances that none of them matches.

    The look is charged, also where nothing is missing. A human judge who decides on every mask has looked already.
    """

    sees_truth = True
    by_mask = True

    def rejected(self, shown: Shown) -> Outcome:
        kept, verdict = shown.accepted, shown.verdict
        drawn = missed(kept, shown.instances, shown.iou)
        has_looked = verdict is not None and verdict.asked and verdict.actor == "human" and verdict.accepted is not None
        return Outcome({"model": kept, "human": drawn}, drawn=drawn or None, looked=not has_looked)
