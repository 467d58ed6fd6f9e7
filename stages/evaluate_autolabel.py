"""Measure pseudo-labels against the truth, before any judge and any detector: AP by class, and how many are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.coco import read_instances, read_results
from vlm_itl.core.files import write_json
from vlm_itl.metrics.pseudo_labels import quality
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={
        "proposals": File("loop/{name}/proposals.json", "the pseudo-labels"),
        "truth": File("artifacts/split/truth.json", "ground truth of the images that they were drawn on"),
    },
    writes={
        "metrics": File(
            "metrics/autolabel/{name}.json", "AP of boxes and masks, shares of right pseudo-labels, of found instances and of right images"
        )
    },
    options={"name": "the teacher's name in params.yaml"},
    params=("evaluate.judge_iou",),
)


def main(proposals: Path, truth: Path, metrics: Path, settings: dict[str, Any]) -> None:
    write_json(metrics, quality(read_results(proposals), read_instances(truth), settings["evaluate.judge_iou"]))


if __name__ == "__main__":
    STAGE.run(main, __doc__)
