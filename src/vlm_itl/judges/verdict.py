"""What a judge says of one image, and the file of it: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import first_problem
from vlm_itl.core.files import read_jsonl, write_jsonl
from vlm_itl.judges.calibration import probability

Count = Annotated[int, Field(ge=0)]
Unit = Literal["image", "mask", "missing"]  # of a question: all proposals as a whole; one alone; whether others are missing


@dataclass(frozen=True)
class Verdict:
    """One image's verdict. The order of the fields is that of the keys in the file.

    Attributes:
        proposals: how many were shown.
        asked: False where there were none: there is nothing to approve, it costs nothing and stays unapproved.
        actor: whose time it took: `human`, `model` (a VLM or its stand-in) or `none` (a rule).
        log_odds: of P(approve); None where the judge gives none.
        answer: raw text; None where there is none.
        outcome: of an answer that was read: `approve`, `reject`, `unparsed`; None where nothing was asked.
        reason: what stood beside the option, or a person's.
        option_mass: probability of both options together at the first position of the answer.
        person: whether a person decided, of a judge that may pass images on; None for any other.
        unparsed: how many of the image's answers were; None of a judge whose answers are not read.
        accepted: for each proposal, of a judge that decides on every one; None for any other.
        log_odds_mask: for each proposal; None of a judge that gives none of single masks.
        log_odds_missing: that nothing is missing.
        questions: how many it took, of a judge that decides on every proposal; None for any other, which takes one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # of a line in the file

    image_id: int
    proposals: Count
    asked: bool
    actor: Literal["human", "model", "none"]
    approve: bool
    log_odds: float | None = None
    answer: str | None = None
    outcome: Literal["approve", "reject", "unparsed"] | None = None
    reason: str = ""
    option_mass: float | None = None
    person: bool | None = None
    unparsed: Count | None = None
    accepted: list[bool] | None = None
    log_odds_mask: list[float | None] | None = None
    log_odds_missing: float | None = None
    questions: Count | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: it contradicts itself.
        """
        if not self.asked and (self.approve or any(self.accepted or [])):
            raise ValueError("approved without a question")
        for name in ("accepted", "log_odds_mask"):
            given = getattr(self, name)
            if given is not None and len(given) != self.proposals:
                raise ValueError(f"{name}: {len(given)} for {self.proposals} proposals")
        if self.questions is not None and self.questions > self.proposals + 1:  # one a mask, one for completeness
            raise ValueError(f"questions: {self.questions} about {self.proposals} proposals")

    @property
    def decisions(self) -> int:
        """Answered questions behind it, if it was asked about."""
        return 1 if self.questions is None else self.questions

    @property
    def p_approve(self) -> float | None:
        """P(approve) for people to read, to four digits."""
        return probability(self.log_odds)

    @property
    def p_mask(self) -> list[float | None] | None:
        """P(accept) of each proposal, likewise."""
        return None if self.log_odds_mask is None else [probability(x) for x in self.log_odds_mask]

    @property
    def p_missing(self) -> float | None:
        """P(nothing is missing), likewise."""
        return probability(self.log_odds_missing)

    def row(self) -> dict[str, Any]:
        """As it stands in the file. A key that says nothing of this kind of judge is left out."""
        has = {
            "outcome": self.unparsed is not None, "reason": self.unparsed is not None or self.reason != "",
            "option_mass": self.unparsed is not None, "person": self.person is not None,
            "unparsed": self.unparsed is not None, "accepted": self.accepted is not None,
            "log_odds_mask": self.log_odds_mask is not None, "log_odds_missing": self.log_odds_mask is not None,
            "questions": self.questions is not None,
        }  # fmt: skip
        row = {f.name: getattr(self, f.name) for f in fields(self) if has.get(f.name, True)} | {"p_approve": self.p_approve}
        return row if self.log_odds_mask is None else row | {"p_mask": self.p_mask, "p_missing": self.p_missing}


DERIVED = ("p_approve", "p_mask", "p_missing")  # for people who read the file; they are made from the log-odds again
_ROW = TypeAdapter(Verdict)


def read(path: Path) -> list[Verdict]:
    """The verdicts in a file.

    Raises:
        UserError: a line is no JSON object, no verdict as this version writes it, or the second one of an image.
    """
    verdicts: dict[int, Verdict] = {}
    for number, row in enumerate(read_jsonl(path), 1):
        given = {key: _whole(value) for key, value in row.items() if key not in DERIVED}
        try:
            verdict = _ROW.validate_json(json.dumps(given))
        except ValidationError as error:
            raise _torn(f"{path}:{number}", first_problem(error)) from None
        if verdict.image_id in verdicts:
            raise _torn(f"{path}:{number}", f"a second verdict on image {verdict.image_id}")
        verdicts[verdict.image_id] = verdict
    return list(verdicts.values())


def _torn(where: str, why: str) -> UserError:
    return UserError(f"{where}: {why}; `dvc repro` makes the verdicts again (stage judge)")


def check_about(
    verdicts: Iterable[Verdict], proposals: Mapping[int, Sequence[Any]], images: Iterable[Mapping[str, Any]] | None = None
) -> None:
    """Hold verdicts against what they are about: what is approved becomes labels, and every decision is charged.

    Args:
        proposals: by image id; images without any are absent.
        images: COCO rows of the judged batch; None where it is not at hand.

    Raises:
        UserError: a verdict is about another number of proposals, or verdicts and images are not one to one.
    """
    said = set()
    for verdict in verdicts:
        there = len(proposals.get(verdict.image_id, ()))
        if verdict.proposals != there:
            raise _torn(f"image {verdict.image_id}", f"a verdict on {verdict.proposals} proposals, and {there} are there")
        said.add(verdict.image_id)
    if images is not None and (apart := said ^ {image["id"] for image in images}):
        i = min(apart)
        raise _torn(f"image {i}", "a verdict, but it is not in this batch" if i in said else "it is in this batch, without a verdict")


def _whole(value: Any) -> Any:
    """A text with a question mark for what UTF-8 cannot hold (half a surrogate pair, which JSON can); anything else as it is."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def write(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Write one verdict a line."""
    write_jsonl(path, (verdict.row() for verdict in verdicts))
