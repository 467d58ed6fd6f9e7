"""Predict a run's pool (the proposals that a judge will see) and the test images (for AP)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core import processor
from vlm_itl.core.files import read_json
from vlm_itl.core.redact import say
from vlm_itl.detectors import ToPredict, detector
from vlm_itl.pipeline.stage import Stage

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
    optional=frozenset({"test", "predictions"}),
    params=("processor", "predict", "detector"),
)


def main(
    model: Path, pool: Path, test: Path | None, images: Path, proposals: Path, predictions: Path | None, settings: dict[str, Any]
) -> None:  # fmt: skip
    processor.choose(settings["processor"])
    s = settings["predict"]
    sets = [ToPredict(read_json(pool), s.score_threshold, "predicting the pool", proposals)]
    if test is not None and predictions is not None:
        # the test images' ground truth is not looked at
        unlabelled = {**read_json(test), "annotations": []}
        sets.append(ToPredict(unlabelled, s.test_score_threshold, "predicting test images", predictions))
    nothing = detector(settings["detector"]).predict(model, images, sets, s)
    if nothing:
        say(f"{nothing}; a lower threshold (predict), a longer training (pretrain, train) or better weights (detector.init) may help")


if __name__ == "__main__":
    STAGE.run(main, __doc__)
