"""The policy `ground_truth`: the first study's leak, kept as a control."""

from __future__ import annotations

from vlm_itl.loop.policy import Outcome, Policy, Shown


class GroundTruth(Policy):
    """An approved image gets its true masks, and nobody is charged for them. A rejected one stays in the pool."""

    sees_truth = True

    def approved(self, shown: Shown) -> Outcome:
        return Outcome({"ground_truth": shown.instances})

    def rejected(self, shown: Shown) -> Outcome:
        return Outcome(stays=True)
