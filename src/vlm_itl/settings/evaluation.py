"""The sections `evaluate` and `compare`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from vlm_itl.core.fields import Fraction, Model, Name, Seed


class Seconds(Model):
    draw: Annotated[float, Field(ge=0)] = 80  # an instance; COCO: 22 worker hours per 1,000 segmentations = 79.2 s
    verify: Annotated[float, Field(ge=0)] = 3  # a decision; no primary source gives this number


class Evaluate(Model):
    judge_iou: Fraction = 0.6  # the oracle that judges are measured against
    seconds: Seconds = Field(default_factory=Seconds)


class Compare(Model):
    """Arms against the reference arm: intervals over test images, and non-inferiority."""

    reference: Name = "human"  # the judge whose arm the others are held against
    negative_control: Name | None = "always"  # the judge whose arm has to come out below the reference; null: none
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01  # mAP that an arm may be worse and still replace the reference
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95  # of the two-sided interval; .95 tests non-inferiority at 2.5 %, as is usual
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8  # with which images_needed and seeds_needed reckon
    replicates: Annotated[int, Field(ge=100)] = 2000  # of the bootstrap and of the sign-flip test
    seed: Seed = 0  # of both

    @model_validator(mode="after")
    def _control_is_another_judge(self) -> Compare:
        if self.negative_control == self.reference:
            raise ValueError(f"negative_control: '{self.reference}' is the reference itself; name a worse judge, or null")
        return self
