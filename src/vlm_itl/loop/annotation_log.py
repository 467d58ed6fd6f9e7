"""The annotation log, `ledger.json`: who drew or verified how much of what, in order. Hours are counted from it and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import Model, first_problem
from vlm_itl.core.files import read_json, write_json
from vlm_itl.judges.verdict import Unit

Count = Annotated[int, Field(ge=0, lt=2**53)]  # which any program that reads JSON can hold


class Entry(Model):
    """One action of one run. The file has the keys in this order, and lacks those that are None.

    Attributes:
        run: in which run; `start` before the first.
        actor: whose time it took: `human`, `model`, or `none` (a rule).
        purpose: what a drawing is for.
        judge: by whose verdicts.
        images: drawn, corrected or dropped images.
        instances: drawn or corrected instances, without regions to ignore.
        decisions: answered questions.
        about: of a person's decisions, how many there are by unit (`image`, `mask`, `missing`) and number of masks shown.
        removed: proposals that a human took away while correcting.
        kept: proposals that real people who drew let stand, of a drawing of theirs.
    """

    run: str
    action: Literal["draw", "correct", "verify", "drop"]
    actor: Literal["human", "model", "none"]
    purpose: Literal["labels", "validation"] | None = None
    judge: str | None = None
    images: Count | None = None
    instances: Count | None = None
    decisions: Count | None = None
    about: dict[Unit, dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Count]] | None = None
    removed: Count | None = None
    kept: Count | None = None


Log = list[Entry]
FORM = TypeAdapter(Log)


@dataclass(frozen=True)
class DrawnCounts:
    """What real people did in a run that they drew in: images, and instances that they kept, corrected, added or removed."""

    images: int
    kept: int
    corrected: int
    added: int
    removed: int


def drawing_in(log: Log, run: str) -> DrawnCounts | None:
    """None where a simulated human drew, or nobody."""
    own = [entry for entry in log if entry.run == run]
    drew = [entry for entry in own if entry.kept is not None]
    corrected = [entry for entry in own if entry.action == "correct"]
    if not drew:
        return None
    return DrawnCounts(
        sum(entry.images or 0 for entry in drew), sum(entry.kept or 0 for entry in drew), sum(entry.instances or 0 for entry in corrected),
        sum(entry.instances or 0 for entry in drew), sum(entry.removed or 0 for entry in corrected),
    )  # fmt: skip


def drawn(
    run: str, purpose: Literal["labels", "validation"], images: list[list[dict[str, Any]]], kept: int | None = None
) -> Entry:  # fmt: skip
    """A human has drawn these COCO annotations, a list an image. Regions to ignore (`iscrowd`) are no instances.

    Args:
        kept: of real people.
    """
    instances = sum(not row.get("iscrowd", 0) for rows in images for row in rows)
    return Entry(run=run, action="draw", actor="human", purpose=purpose, images=len(images), instances=instances, kept=kept)


def read(path: Path) -> Log:
    """Read a run's log.

    Raises:
        UserError: there is no such file, or it is no annotation log.
    """
    try:
        return FORM.validate_python(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: no annotation log: {first_problem(error)}; `dvc repro` writes it anew") from None


def write(path: Path, log: Log) -> None:
    write_json(path, [entry.model_dump(exclude_none=True) for entry in log])
