"""Draw how good the judges are, and what they approved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.files import read_json
from vlm_itl.pipeline.stage import Stage
from vlm_itl.report import figures
from vlm_itl.report.figures import judges

STAGE = Stage(
    reads={"judge": "folder of judge quality, one file a run", "curve": "mAP and what it cost, a row a run and arm"},
    writes={"crowding": "recall and specificity by number of instances, SVG", "rounds": "approvals by run, SVG"},
    params=(),
    per_run={"judge": ".json"},
)


def main(judge: Path, curve: Path, crowding: Path, rounds: Path, settings: dict[str, Any]) -> None:
    points = [row for row in read_json(curve) if row["run"] != "start" and not row["drawing"]]
    label = figures.labels(points)
    quality = {label[row["run"]]: read_json(judge / f"{row['run']}.json") for row in points}
    first = {label[row["run"]]: quality[label[row["run"]]] for row in points if row["round"] == 1}
    figures.save(judges.crowding(first), crowding)
    figures.save(judges.rounds(quality), rounds)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
