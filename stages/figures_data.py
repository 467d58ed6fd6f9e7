"""Draw what the data holds and how it was split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.files import read_json
from vlm_itl.pipeline.stage import Stage
from vlm_itl.report import figures
from vlm_itl.report.figures import data

STAGE = Stage(
    reads={"split": "statistics of the parts"},
    writes={"figure": "images, instances and sizes by class and part, SVG"},
    params=(),
)


def main(split: Path, figure: Path, settings: dict[str, Any]) -> None:
    figures.save(data.split(read_json(split)), figure)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
