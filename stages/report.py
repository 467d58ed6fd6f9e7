"""Bring all runs together: one summary, and the data of the plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl import report
from vlm_itl.base.files import write_json
from vlm_itl.base.stage import Stage

STAGE = Stage(
    reads={
        "detection": "folder of AP, one file a run",
        "cost": "folder of labels and hours, one file a run",
        "judge": "folder of judge quality, one file a run",
        "training": "folder of training sizes, one file a run",
        "asking": "folder of what the judges were asked, one file a run",
    },
    writes={
        "summary": "the numbers of the table, by run",
        "headline": "mask AP and human hours alone, by run: what to compare first",
        "curve": "mAP against human hours, a row a run and arm",
    },
    params=("runs", "judges"),
    per_run=dict.fromkeys(("detection", "cost", "judge", "training", "asking"), ".json"),
)


def main(
    detection: Path, cost: Path, judge: Path, training: Path, asking: Path, summary: Path, headline: Path, curve: Path,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    runs = settings["runs"]
    numbers = report.summarise(runs, settings["judges"], detection, cost, judge, training, asking)
    write_json(summary, numbers)
    write_json(headline, report.headline(numbers))
    write_json(curve, report.curve(numbers, runs))


if __name__ == "__main__":
    STAGE.run(main, __doc__)
