"""Typed values as JSON files: a file's keys are its value's fields, in their order, and what is read is checked against them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json, write_json

T = TypeVar("T")


def write(path: Path, value: Any) -> None:
    """Write a dataclass, or lists and dicts of such; a field that is `msgspec.UNSET` is left out.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    write_json(path, msgspec.to_builtins(value))


def convert(content: Any, kind: type[T]) -> T | None:
    """Parsed JSON as a value of this type; None where it is none. Keys that the type lacks are left out."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError:
        return None


def read(path: Path, kind: type[T], what: str) -> T:
    """The value in a file.

    Args:
        what: it is and who makes it, for the error, as in `a summary as this version writes it; `dvc repro` makes it`.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    found = convert(read_json(path), kind)
    if found is None:
        raise UserError(f"{path}: not {what}")
    return found
