"""The policy `drop`."""

from __future__ import annotations

from vlm_itl.loop.policy import Outcome, Policy, Shown


class Drop(Policy):
    """A rejected image leaves, without labels."""

    def rejected(self, shown: Shown) -> Outcome:
        return Outcome()
