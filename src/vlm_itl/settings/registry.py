"""The kinds of judge that there are, one line each. It lies here since no stage depends on this folder: a new kind changes no result."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, get_args

from pydantic import Field

from vlm_itl.judges import base
from vlm_itl.judges.chance import RandomJudge
from vlm_itl.judges.confidence import ConfidenceJudge
from vlm_itl.judges.constant import AlwaysJudge, NeverJudge
from vlm_itl.judges.human import HumanJudge
from vlm_itl.judges.noisy import NoisyJudge
from vlm_itl.judges.vlm.settings import VlmJudge

KINDS: tuple[type[base.Judge], ...] = (
    HumanJudge,
    NoisyJudge,
    ConfidenceJudge,
    RandomJudge,
    AlwaysJudge,
    NeverJudge,
    VlmJudge,
)
JUDGES = {name: kind for kind in KINDS for name in get_args(kind.model_fields["kind"].annotation)}  # by what `kind` says

if TYPE_CHECKING:
    Judge = base.Judge
else:
    Judge = Annotated[reduce(or_, KINDS), Field(discriminator="kind")]
