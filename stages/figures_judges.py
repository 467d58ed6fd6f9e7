"""Draw how good the judges are, and what they approved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl import figures, report
from vlm_itl.base.files import read_json
from vlm_itl.base.settings import draws
from vlm_itl.base.stage import Stage
from vlm_itl.figures import judges

STAGE = Stage(
    reads={"judge": "folder of judge quality, one file a run"},
    writes={"crowding": "recall and specificity by number of instances, SVG", "rounds": "approvals by run, SVG"},
    params=("runs", "judges"),
    per_run={"judge": ".json"},
)


def main(judge: Path, crowding: Path, rounds: Path, settings: dict[str, Any]) -> None:
    runs = {name: run for name, run in settings["runs"].items() if not draws(run, settings["judges"])}
    label = report.labels(runs, settings["judges"])
    quality = {name: read_json(judge / f"{name}.json") for name in runs}
    first = {label[name]: quality[name] for name, run in runs.items() if run.prev == "start"}
    figures.save(judges.crowding(first), crowding)
    figures.save(judges.rounds({label[name]: quality[name] for name in runs}), rounds)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
