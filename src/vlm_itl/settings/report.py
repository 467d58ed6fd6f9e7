"""The sections `gallery` and `report`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vlm_itl.core.fields import Model, Seed


class Gallery(Model):
    """The page of pictures that a run's judge decided on, by whether it was right."""

    per_group: Annotated[int, Field(ge=1)] = 8
    """Images shown of each group."""
    examples: Annotated[int, Field(ge=0)] = 2
    """Images of each group that are also in the report."""
    seed: Seed = 0
    """Seed that chooses the images."""


class Report(Model):
    """Other prices under which the figures show the arms."""

    verify_seconds: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1, max_length=3)] = Field(
        default_factory=lambda: [1.6, 3.0, 9.0]
    )
    """Seconds of a person for a decision."""
    compute_price: Annotated[float, Field(ge=0)] = 1.0
    """Human hours that an hour of a judge's computing is worth."""
