"""What a run, one line of `runs` in params.yaml, is to the others: its arm, its rounds, how it is called where it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, TypeVar

from vlm_itl.core.errors import UserError
from vlm_itl.registry import POLICIES

if TYPE_CHECKING:
    from vlm_itl.loop.policy import Policy
    from vlm_itl.settings import Judge, Run

T = TypeVar("T")


def line_of(runs: Mapping[str, Run], name: str) -> Run:
    """The line of a run that somebody names.

    Raises:
        UserError: there is no such run.
    """
    if not name:
        raise UserError(f"which run? RUN=... of make, --run of vlm-itl (there are: {', '.join(runs)})")
    if name not in runs:
        raise UserError(f"params.yaml: runs: no run '{name}' (there are: {', '.join(runs)})")
    return runs[name]


def made(run: str, name: str, read: Callable[[Path], T]) -> T:
    """A file that the stages of a run have written.

    Raises:
        UserError: it is not there.
    """
    path = Path("loop", run, name)
    if not path.exists():
        raise UserError(f"{path}: no such file; `dvc repro` makes it (or `dvc pull`, where somebody else has made it)")
    return read(path)


def called(name: str, is_simulated: bool) -> str:
    """A run or an arm where its numbers are shown: those of a simulated judge are never without the word."""
    return name + (" (simulated)" if is_simulated else "")


def arm_of(name: str, chosen: str | None = None) -> str:
    """The arm of a run: what `runs.<name>.arm` says, else the name without a round number (`vlm-sim-2` is of `vlm-sim`)."""
    stem, _, last = name.rpartition("-")
    return chosen or (stem if stem and last.isdigit() else name)


def chain(runs: Mapping[str, Run], name: str) -> list[str]:
    """The runs that lead to `name`, from the first after a start to `name` itself; none for a start."""
    found: list[str] = []
    while name in runs:
        found.append(name)
        name = runs[name].prev
    return found[::-1]


def round_of(runs: Mapping[str, Run], name: str) -> int:
    """A run's round: 1 for the first after a start, 0 for a start."""
    return len(chain(runs, name))


DRAWING = "drawing random images"  # how the line of the drawing runs is called where it is shown


def draws(run: Run, judges: Mapping[str, Judge]) -> bool:
    """Whether a human draws every image of this run, and no judge takes part."""
    policy: type[Policy] = resolve_name(POLICIES[run.policy])
    return policy.draws_rejected and not judges[run.judge].takes_part


def drawing_runs(runs: Mapping[str, Run], judges: Mapping[str, Judge]) -> list[str]:
    """The runs that cost nothing but the drawing of random images: `draws` of them and of every run between `start` and them."""
    return [
        name for name in runs if runs[chain(runs, name)[0]].prev == "start" and all(draws(runs[one], judges) for one in chain(runs, name))
    ]


def drawing_nothing(runs: Mapping[str, Run], judges: Mapping[str, Judge]) -> str:
    """The drawing run that adds no image (`batch: 0`) in the most rounds: `start`, trained on. Where there is none, `start`: what is above
    it may then owe that to its steps alone."""
    found = [name for name in drawing_runs(runs, judges) if idle(runs, name)]
    return max(found, key=lambda name: round_of(runs, name), default="start")


def idle(runs: Mapping[str, Run], name: str) -> bool:
    """Whether no run on the way to `name` shows or draws an image."""
    return all(runs[one].batch == 0 for one in chain(runs, name))
