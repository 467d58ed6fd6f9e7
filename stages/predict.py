"""Predict a run's pool (the proposals that a judge will see) and the test images (for AP)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.files import read_json, write_json
from vlm_itl.stage import Stage

STAGE = Stage(
    reads={
        "model": "model folder",
        "pool": "images without labels",
        "test": "test images",
        "images": "folder of the images",
    },
    writes={
        "proposals": "COCO results on the pool, cut at predict.score_threshold",
        "predictions": "COCO results on the test images",
    },
    params=("predict", "detector.device"),
)


def main(model: Path, pool: Path, test: Path, images: Path, proposals: Path, predictions: Path, settings: dict[str, Any]) -> None:
    from vlm_itl.detector.prediction import Predictor

    s = settings["predict"]
    predictor = Predictor(model, settings["detector.device"], s.max_detections)
    write_json(proposals, predictor.predict(read_json(pool), images, s.score_threshold, s.batch_size, "predicting the pool"))
    # the test images' ground truth is not looked at
    tests = {**read_json(test), "annotations": []}
    write_json(predictions, predictor.predict(tests, images, s.test_score_threshold, s.batch_size, "predicting test images"))


if __name__ == "__main__":
    STAGE.run(main, __doc__)
