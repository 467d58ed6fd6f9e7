"""Draw mAP against human hours, as paid and under other prices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.pipeline.stage import Stage
from vlm_itl.report import figures
from vlm_itl.report.figures import arms
from vlm_itl.report.points import read_points

STAGE = Stage(
    reads={"curve": "mAP and what it cost, a row a run and arm"},
    writes={"hours": "mAP against human hours, SVG", "prices": "the same under other prices, SVG"},
    params=("report.verify_seconds",),
)


def main(curve: Path, hours: Path, prices: Path, settings: dict[str, Any]) -> None:
    points = read_points(curve)
    figures.save(arms.hours(points), hours)
    figures.save(arms.prices(points, settings["report.verify_seconds"]), prices)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
