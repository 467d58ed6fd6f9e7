"""Bring all runs together: one summary, and the data of the plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core import typed
from vlm_itl.metrics.rows import read_comparison
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.report import summary as report

STAGE = Stage(
    reads={
        "detection": File("metrics/detection", "folder of AP, one file a run"),
        "cost": File("metrics/cost", "folder of labels and hours, one file a run"),
        "judge": File("metrics/judge", "folder of judge quality, one file a run"),
        "training": File("metrics/training", "folder of training sizes, one file a run"),
        "asking": File("metrics/asking", "folder of what the judges were asked, one file a run"),
        "comparison": File("metrics/comparison.json", "assay, a row a compared arm, arms against the drawing curve"),
    },
    writes={
        "summary": File("metrics/summary.json", "the numbers of the table, by run"),
        "headline": File(
            "metrics/headline.json", "assay, mask AP and hours by run, hours saved and mAP lost by arm: what to compare first"
        ),
        "curve": File("artifacts/report/curve.json", "mAP against human hours, a row a run and arm"),
    },
    params=("runs", "judges"),
    per_run=dict.fromkeys(("detection", "cost", "judge", "training", "asking"), ".json"),
    kinds=("judges/", "policies/"),  # whether one is simulated, takes part, draws
)


def main(
    detection: Path, cost: Path, judge: Path, training: Path, asking: Path, comparison: Path, summary: Path, headline: Path, curve: Path,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    runs, judges = settings["runs"], settings["judges"]
    numbers = report.summarise(runs, judges, detection, cost, judge, training, asking)
    typed.write(summary, numbers)
    typed.write(headline, report.headline(numbers, read_comparison(comparison)))
    typed.write(curve, report.curve(numbers, runs, judges))


if __name__ == "__main__":
    STAGE.run(main, __doc__)
