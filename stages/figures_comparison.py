"""Draw the differences of the arms with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.metrics.rows import read_comparison
from vlm_itl.pipeline.stage import Stage
from vlm_itl.report import figures
from vlm_itl.report.figures import comparison as drawing
from vlm_itl.report.points import read_points

STAGE = Stage(
    reads={
        "comparison": "assay, a row a compared arm, arms against the drawing curve",
        "curve": "mAP and what it cost, a row a run and arm",
    },
    writes={"figure": "differences and intervals, SVG"},
    params=(),
)


def main(comparison: Path, curve: Path, figure: Path, settings: dict[str, Any]) -> None:
    labels = {point.run: point.label for point in read_points(curve) if point.run != "start"}
    figures.save(drawing.differences(read_comparison(comparison).arms, labels), figure)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
