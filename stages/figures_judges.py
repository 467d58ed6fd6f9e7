"""Draw how good the judges are, and what they approved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.metrics.rows import read_quality
from vlm_itl.pipeline.stage import Stage
from vlm_itl.report import figures
from vlm_itl.report.figures import judges
from vlm_itl.report.points import read_points

STAGE = Stage(
    reads={"judge": "folder of judge quality, one file a run", "curve": "mAP and what it cost, a row a run and arm"},
    writes={"crowding": "recall and specificity by number of instances, SVG", "rounds": "approvals by run, SVG"},
    params=(),
    per_run={"judge": ".json"},
)


def main(judge: Path, curve: Path, crowding: Path, rounds: Path, settings: dict[str, Any]) -> None:
    points = [point for point in read_points(curve) if point.run != "start" and not point.drawing]
    quality = {point.label: read_quality(judge / f"{point.run}.json") for point in points}
    first = {point.label: quality[point.label] for point in points if point.round == 1}
    figures.save(judges.crowding(first), crowding)
    figures.save(judges.rounds(quality), rounds)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
