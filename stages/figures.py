"""Draw the figures of the report: the data, the comparison of the arms, mAP against hours, the judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.files import read_json
from vlm_itl.metrics.rows import read_comparison, read_quality
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.report import figures
from vlm_itl.report.figures import arms, comparison, data, judges
from vlm_itl.report.points import read_points

STAGE = Stage(
    reads={
        "split": File("metrics/split.json", "statistics of the parts"),
        "judge": File("metrics/judge", "folder of judge quality, one file a run"),
        "compared": File("metrics/comparison.json", "assay, a row a compared arm, arms against the drawing curve"),
        "curve": File("artifacts/report/curve.json", "mAP and what it cost, a row a run and arm"),
    },
    writes={
        "data_figure": File("artifacts/report/data.svg", "images, instances and sizes by class and part"),
        "comparison_figure": File("artifacts/report/comparison.svg", "differences and intervals"),
        "hours": File("artifacts/report/hours.svg", "mAP against human hours"),
        "prices": File("artifacts/report/prices.svg", "the same under other prices"),
        "crowding": File("artifacts/report/crowding.svg", "recall and specificity by number of instances"),
        "rounds": File("artifacts/report/rounds.svg", "approvals by run"),
    },
    params=("report.verify_seconds",),
    per_run={"judge": ".json"},
)


def main(
    split: Path,
    judge: Path,
    compared: Path,
    curve: Path,
    data_figure: Path,
    comparison_figure: Path,
    hours: Path,
    prices: Path,
    crowding: Path,
    rounds: Path,
    settings: dict[str, Any],
) -> None:
    figures.save(data.split(read_json(split)), data_figure)
    points = read_points(curve)
    labels = {point.run: point.label for point in points if point.run != "start"}
    figures.save(comparison.differences(read_comparison(compared).arms, labels), comparison_figure)
    figures.save(arms.hours(points), hours)
    figures.save(arms.prices(points, settings["report.verify_seconds"]), prices)
    judged = [point for point in points if point.run != "start" and not point.drawing]
    quality = {point.label: read_quality(judge / f"{point.run}.json") for point in judged}
    figures.save(judges.crowding({point.label: quality[point.label] for point in judged if point.round == 1}), crowding)
    figures.save(judges.rounds(quality), rounds)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
