"""The section `runs`: one line an iteration."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from vlm_itl.core.fields import KindOf, Model, Name
from vlm_itl.registry import POLICIES

if TYPE_CHECKING:
    from vlm_itl.loop.policy import Policy


class Run(Model):
    judge: Name
    """Who decides on the proposals."""
    prev: Name
    """The run whose model, labels and proposals it continues from; the first one continues from `start` or a name in `autolabels`."""
    policy: Annotated[str, KindOf(POLICIES)] = "pool"
    """What becomes of an image that the judge rejects."""
    batch: Annotated[int, Field(ge=0)] | None = None
    """Images that this round shows the judge: the first of the pool. null: all of it."""
    arm: Name | None = None
    """The arm whose line the figures draw. null: the run's name without its round number."""

    @property
    def draws_rejected(self) -> bool:
        """Whether a human draws every image that the judge rejects, all of it: what the policy's class says."""
        policy: type[Policy] = resolve_name(POLICIES[self.policy])
        return policy.draws_rejected
