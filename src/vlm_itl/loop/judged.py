"""What the loop asks of a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Protocol, cast


class Judged(Protocol):
    """A judge's verdict on one image."""

    @property
    def image_id(self) -> int: ...

    @property
    def asked(self) -> bool:
        """Whether there was a question: not about an image without proposals."""

    @property
    def actor(self) -> str:
        """Whose time it took: `human`, `model` or `none`."""

    @property
    def approve(self) -> bool: ...

    @property
    def accepted(self) -> Sequence[bool] | None:
        """For each proposal whether the judge accepts it; None where it decides on the image as a whole."""

    @property
    def questions(self) -> int | None:
        """How many decisions it took; None: one."""

    @property
    def person(self) -> bool | None:
        """Whether the judge passed the image on to a person; None where it never does."""


def judged(rows: Iterable[dict[str, Any]]) -> list[Judged]:
    """Verdicts from the rows of `verdicts.jsonl`."""
    absent = {"accepted": None, "questions": None, "person": None}
    return [cast(Judged, SimpleNamespace(**(absent | row))) for row in rows]
