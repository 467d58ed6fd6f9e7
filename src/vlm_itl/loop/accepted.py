"""Which proposals a verdict accepts: what policies make labels of, and what a judge is measured and a verifier calibrated by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlm_itl.core.errors import UserError


def accepted_proposals(proposals: list[dict[str, Any]], accepted: Sequence[bool] | None) -> list[dict[str, Any]]:
    """The proposals of one image that a verdict accepts; a verdict on the image as a whole (None) accepts all of them.

    Raises:
        UserError: the verdict is about another number of proposals.
    """
    if accepted is not None and len(accepted) != len(proposals):
        raise UserError(f"a verdict on {len(accepted)} masks of an image with {len(proposals)} proposals: they do not belong together")
    return proposals if accepted is None else [row for row, ok in zip(proposals, accepted, strict=True) if ok]
