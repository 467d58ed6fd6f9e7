"""Points of mAP against human hours: `artifacts/report/curve.json`, and those of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlm_itl.core import typed
from vlm_itl.core.runs import called


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run on the line of an arm; the fields are the file's keys.

    Attributes:
        arm: with "(simulated)" where it is.
        round: 0 for `start`; of a drawing run its place on the line.
        added_human_hours, added_draw_hours: after the initial labels (those of the run - those of `start`).
        human_hours: in all. `draw_hours` and `human_decisions`: all on the way to the run, for other prices.
        simulated: whether the arm is.
        drawing: whether the run draws random images, and asks no judge.
    """

    arm: str
    run: str
    round: int
    added_human_hours: float
    added_draw_hours: float
    human_hours: float
    mask_AP: float | None
    box_AP: float | None
    draw_hours: float
    human_decisions: int
    simulated: bool
    drawing: bool

    @property
    def label(self) -> str:
        """How the run is called in a figure: a simulated judge's numbers are named so wherever they stand."""
        return called(self.run, self.simulated)


def read_points(path: Path) -> list[Point]:
    """What the stage `report` wrote.

    Raises:
        UserError: there is no such file, or it is none of this version's.
    """
    return typed.read(path, list[Point], "a curve's points as this version writes them; `dvc repro` makes them (stage report)")


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """A run of one of a sweep's experiments.

    Attributes:
        fraction: of the training images that are labelled at the start; None where it is not known.
        arm, round, drawing: as of `Point`.
        human_hours: in all, the initial labels included.
    """

    experiment: str
    fraction: float | None
    arm: str
    round: int
    run: str
    drawing: bool
    human_hours: float
    mask_AP: float
