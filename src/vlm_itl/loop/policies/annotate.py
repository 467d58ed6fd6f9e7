"""The policy `annotate`."""

from __future__ import annotations

from vlm_itl.loop.policy import Outcome, Policy, Shown


class Annotate(Policy):
    """A human draws all instances of a rejected image, and is charged for them."""

    sees_truth = True
    draws = True
    draws_rejected = True

    def rejected(self, shown: Shown) -> Outcome:
        return Outcome({"human": shown.instances}, drawn=shown.instances)
