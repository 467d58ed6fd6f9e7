"""Pseudo-labels beside the truth, some images of each class, as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.coco import read_instances, read_results
from vlm_itl.core.files import replacing
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.report.contact_sheet import draw

STAGE = Stage(
    reads={
        "proposals": File("loop/{name}/proposals.json", "the pseudo-labels"),
        "truth": File("artifacts/split/truth.json", "ground truth of the images that they were drawn on"),
        "images": File("artifacts/data/images", "folder of the images"),
    },
    writes={"picture": File("loop/{name}/contact_sheet.jpg", "the picture, JPEG")},
    options={"name": "the teacher's name in params.yaml"},
    params=("evaluate.judge_iou", "gallery"),
)


def main(proposals: Path, truth: Path, images: Path, picture: Path, settings: dict[str, Any]) -> None:
    drawn = draw(read_results(proposals), read_instances(truth), images, settings["evaluate.judge_iou"], settings["gallery"])
    with replacing(picture) as temporary:
        drawn.save(temporary, "JPEG", quality=88, subsampling=0)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
