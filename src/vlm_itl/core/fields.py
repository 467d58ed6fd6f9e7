"""What the sections of `params.yaml` are made of: `settings` declares them, a kind of judge or policy declares its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

Fraction = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
NAME = "[A-Za-z0-9][A-Za-z0-9_-]*"
Name = Annotated[str, Field(pattern=f"^{NAME}$")]  # becomes a folder and a DVC stage name
LONGEST_NAME = 64  # characters, of a person
Reviewer = Annotated[Name, Field(max_length=LONGEST_NAME)]
Steps = Annotated[int, Field(ge=1, le=10**9)]  # of an optimiser
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # torch takes no larger one
MAX_PIXELS = 100_000_000  # of a picture, unless `data.max_pixels` says otherwise


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, as `place.in.it: what is expected`."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}".removeprefix(": ")


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


@dataclass(frozen=True)
class KindOf:
    """A name in a part of `vlm_itl.registry`, as pydantic says `Literal`; the registry is looked at when a value comes."""

    registry: Mapping[str, str]

    def known(self, name: object) -> object:
        if not isinstance(name, str) or name not in self.registry:
            *others, last = map(repr, self.registry)
            raise ValueError(f"Input should be {', '.join(others)} or {last}")
        return name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self.known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "enum": [*self.registry]}
