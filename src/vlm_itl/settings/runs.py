"""The section `runs`: one line an iteration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlm_itl.core.fields import Model, Name


class Run(Model):
    judge: Name
    prev: Name
    policy: Literal["pool", "annotate", "correct", "drop", "ground_truth"] = "pool"
    batch: Annotated[int, Field(ge=0)] | None = None  # images that this round shows the judge: the first of the pool; none: all of it
    arm: Name | None = None  # whose line the figures draw; none: the run's name without its round number
