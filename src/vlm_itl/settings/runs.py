"""The section `runs`: one line an iteration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlm_itl.core.fields import Model, Name


class Run(Model):
    judge: Name
    """Who decides on the proposals."""
    prev: Name
    """The run whose model, labels and proposals it continues from; the first one continues from `start` or a name in `autolabels`."""
    policy: Literal["pool", "annotate", "correct", "drop", "ground_truth"] = "pool"
    batch: Annotated[int, Field(ge=0)] | None = None
    """Images that this round shows the judge: the first of the pool. null: all of it."""
    arm: Name | None = None
    """The arm whose line the figures draw. null: the run's name without its round number."""
