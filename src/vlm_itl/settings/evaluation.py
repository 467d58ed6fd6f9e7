"""The sections `evaluate` and `compare`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlm_itl.core.fields import Fraction, Model, Name, Seed


class Seconds(Model):
    draw: Annotated[float, Field(ge=0)] = 80
    """Seconds to draw an instance. COCO took 22 worker hours per 1,000 segmentations, which is 79.2 s each."""
    correct: Annotated[float, Field(ge=0)] = 80
    """Seconds to correct the outline or class of a proposal. No source gives this number; as long as drawing anew is an upper bound."""
    verify: Annotated[float, Field(ge=0)] | Literal["measured"] = 3.0
    """Seconds for a decision; no primary source gives this number. `measured`: what the judges in `people` took."""


class Evaluate(Model):
    judge_iou: Fraction = 0.6
    """IoU of the oracle that judges are measured against."""
    seconds: Seconds = Field(default_factory=Seconds)
    """What a person's work takes."""


class Compare(Model):
    """Arms against the reference arm: intervals over test images, and non-inferiority."""

    reference: Name = "human"
    """The judge whose arm the others are held against."""
    negative_control: Name | None = "always"
    """The judge whose arm has to come out below the reference. null: none."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """mAP that an arm may be worse and still replace the reference."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Level of the two-sided interval; .95 tests non-inferiority at 2.5 %, as is usual."""
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Power with which `images_needed` and `seeds_needed` are computed."""
    replicates: Annotated[int, Field(ge=100)] = 2000
    """Replicates of the bootstrap and of the sign-flip test."""
    seed: Seed = 0
    """Seed of the bootstrap and of the sign-flip test."""

    @model_validator(mode="after")
    def _control_is_another_judge(self) -> Compare:
        if self.negative_control == self.reference:
            raise ValueError(f"negative_control: '{self.reference}' is the reference itself; name a worse judge, or null")
        return self
