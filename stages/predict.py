"""Predict a run's pool (the proposals that a judge will see) and the test images (for AP)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core import processor
from vlm_itl.core.coco import read_instances
from vlm_itl.core.redact import say
from vlm_itl.detectors import ToPredict, detector
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={
        "model": File("loop/{run}/model", "model folder"),
        "pool": File("loop/{run}/pool.json", "images without labels"),
        "test": File("artifacts/split/test.json", "test images", "run"),
        "images": File("artifacts/data/images", "folder of the images"),
    },
    writes={
        "proposals": File("loop/{run}/proposals.json", "COCO results on the pool, cut at predict.score_threshold"),
        "predictions": File("loop/{run}/predictions.json", "COCO results on the test images"),
    },
    options={"run": "the run whose pool and test images are predicted; none: only what `--pool` says"},
    optional=frozenset({"run", "test", "predictions"}),
    params=("processor", "predict", "detector"),
    kinds=("detectors/${detector.kind}",),
)


def main(
    model: Path, pool: Path, test: Path | None, images: Path, proposals: Path, predictions: Path | None, settings: dict[str, Any]
) -> None:  # fmt: skip
    processor.choose(settings["processor"])
    s = settings["predict"]
    sets = [ToPredict(read_instances(pool), s.score_threshold, "predicting the pool", proposals)]
    if test is not None and predictions is not None:
        # the test images' ground truth is not looked at
        unlabelled = {**read_instances(test), "annotations": []}
        sets.append(ToPredict(unlabelled, s.test_score_threshold, "predicting test images", predictions))
    nothing = detector(settings["detector"]).predict(model, images, sets, s)
    if nothing:
        say(f"{nothing}; a lower threshold (predict), a longer training (pretrain, train) or better weights (detector.init) may help")


if __name__ == "__main__":
    STAGE.run(main, __doc__)
