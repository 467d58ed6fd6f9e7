"""What the sections of `params.yaml` are made of: `settings` declares them, a kind of judge or policy declares its own."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]  # becomes a folder and a DVC stage name
Steps = Annotated[int, Field(ge=1, le=10**9)]  # of an optimiser
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # torch takes no larger one
MAX_PIXELS = 100_000_000  # of a picture, unless `data.max_pixels` says otherwise


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
