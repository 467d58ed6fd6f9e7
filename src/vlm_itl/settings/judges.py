"""The section `judges`: its classes stand with what they do, in `vlm_itl.judges`, one line each in the registry."""

from __future__ import annotations

from functools import reduce
from operator import or_
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from vlm_itl.judges import base
from vlm_itl.registry import JUDGES as PLACES

JUDGES: dict[str, type[base.Judge]] = {kind: resolve_name(place) for kind, place in PLACES.items()}

if TYPE_CHECKING:
    Judge = base.Judge
else:
    Judge = Annotated[reduce(or_, JUDGES.values()), Field(discriminator="kind")]
