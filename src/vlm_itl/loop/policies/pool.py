"""The policy `pool`."""

from __future__ import annotations

from vlm_itl.loop.policy import Outcome, Policy, Shown


class Pool(Policy):
    """A rejected image stays in the pool for the next round."""

    def rejected(self, shown: Shown) -> Outcome:
        return Outcome(stays=True)
