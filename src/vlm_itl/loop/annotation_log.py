"""The annotation log, `ledger.json`: who drew or verified how much of what, in order. Hours are counted from it and from nothing else."""

from __future__ import annotations

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


Log = list[Entry]
FORM = TypeAdapter(Log)


def drawn(run: str, purpose: Literal["labels", "validation"], images: list[list[dict[str, Any]]]) -> Entry:
    """A human has drawn these COCO annotations, a list an image. Regions to ignore (`iscrowd`) are no instances."""
    instances = sum(not row.get("iscrowd", 0) for rows in images for row in rows)
    return Entry(run=run, action="draw", actor="human", purpose=purpose, images=len(images), instances=instances)


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
