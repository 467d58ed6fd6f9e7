"""The section `runs`: one line an iteration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlm_itl.core.fields import KindOf, Model, Name
from vlm_itl.registry import POLICIES


class Run(Model):
    judge: Name
    """Who decides on the proposals."""
    prev: Name
    """The run whose model, labels and proposals it continues from; the first one continues from `start` or a name in `autolabels`."""
    policy: Annotated[str, KindOf(POLICIES)] = "pool"
    """What the verdicts of the judge do to images and labels."""
    drawn_by: Literal["simulated", "people"] = "simulated"
    """Who draws, under a policy where a human does: labels that are known stand in, or real people draw (docs/guides/drawing.md)."""
    batch: Annotated[int, Field(ge=0)] | None = None
    """Images that this round shows the judge: the first of the pool. null: all of it."""
    arm: Name | None = None
    """The arm whose line the figures draw. null: the run's name without its round number."""
