"""Which code a stage uses, so that DVC runs it again when that changes, and only then.

A module uses itself, all that it imports wherever in the file, and the packages in which these lie (Python runs their `__init__`). Imports
for type checkers alone do not count. `vlm_itl.settings` does not count either: it holds declarations, and DVC watches the values. Nor
does `vlm_itl.registry`: what settings choose, such as a kind of judge, is loaded by its name there and has a list of its own.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import grimp

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_regular

ROOT = Path(__file__).resolve().parents[3]  # of src/vlm_itl/core/code.py
LISTS = Path("artifacts/code")  # written by the stage `code`
LINE = re.compile(r"([0-9a-f]{32})  ((?:src/vlm_itl|stages)(?:/[A-Za-z0-9_]+)*/[A-Za-z0-9_]+\.py)")  # of a list
MOST_BYTES = 2**20  # of a list
DECLARATIONS = ("vlm_itl.settings", "vlm_itl.registry")


def used_by(*modules: str) -> list[Path]:
    """Files of this project that the modules use, below `ROOT`, sorted.

    Args:
        modules: full names, of `vlm_itl` or `stages`.
    """
    graph = imports(*sorted({module.partition(".")[0] for module in modules} | {"vlm_itl"}))
    found, waiting = set[str](), list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.find_modules_directly_imported_by(name)
            if "." in name:
                waiting.append(name.rpartition(".")[0])
    return sorted(file_of(name) for name in found)


@functools.cache
def imports(*packages: str) -> grimp.ImportGraph:
    """Which module imports which, but for declarations and type checkers."""
    graph = grimp.build_graph(*packages, cache_dir=None, exclude_type_checking_imports=True)
    for name in [name for name in graph.modules if f"{name}.".startswith(tuple(f"{one}." for one in DECLARATIONS))]:
        graph.remove_module(name)
    return graph


def file_of(module: str) -> Path:
    """The file of a module of this project."""
    base = ROOT / ("" if module.partition(".")[0] == "stages" else "src") / module.replace(".", "/")
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def listing(files: Iterable[Path]) -> str:
    """A line a file, its MD5 and its path below `ROOT`: what `md5sum --check` reads."""
    return "".join(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}\n" for path in files)


def check(lists: Iterable[Path]) -> None:
    """Raises:
    UserError: a file is no list, or code is not as it says. DVC would record the list, and the stage would run something else.
    """
    files = [file for path in lists for file in (sorted(path.glob("*.md5")) if path.is_dir() else [path])]
    for path in filter(Path.exists, files):  # DVC sees to it that they are there
        try:
            rows = [LINE.fullmatch(row) for row in read_regular(path, MOST_BYTES).decode().splitlines()]
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}; `dvc repro` lists the code anew") from None
        if not rows or not all(rows):
            raise UserError(f"{path}: no list of code; `dvc repro` lists it anew")
        for row in filter(None, rows):
            md5, name = row.groups()
            if not (ROOT / name).is_file() or hashlib.md5((ROOT / name).read_bytes()).hexdigest() != md5:
                raise UserError(f"{name}: changed since the stage `code` listed it in {path}; run `dvc repro`, which lists it anew")
