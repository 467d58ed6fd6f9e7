"""Train the detector on a run's labels.

`--schedule pretrain` starts from `detector.init`; `--schedule train` continues from `--previous`, the model of the run before, unless
`train.start` is `restart`. Where nothing has been trained before, since the arm began without labels, the schedule is that of
`--untrained`, and the training starts from `detector.init`. A training that was killed goes on where it last saved its state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core import processor
from vlm_itl.core.coco import read_instances
from vlm_itl.core.files import write_json
from vlm_itl.detectors import detector
from vlm_itl.detectors.untrained import is_untrained
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={
        "labels": File("loop/{run}/labels.json", "COCO instances to train on"),
        "validation": File("artifacts/split/validation.json", "labelled images held back from training, for early stopping"),
        "images": File("artifacts/data/images", "folder of the images"),
        "config": File("${detector.config}", "the Detectron2 YAML named by detector.config"),
        "configs": File("configs", "folder of configs, with the weights of `detector.init: drawn` beside them"),
        "previous": File("loop/{prev}/model", "model folder to continue from"),
    },
    writes={
        "model": File("loop/{run}/model", "folder for the model"),
        "curve": File("loop/{run}/curve.json", "loss, learning rate and validation AP by step"),
        "metrics": File("metrics/training/{run}.json", "images trained on, optimiser steps, evaluations"),
    },
    options={
        "run": "the run whose labels these are",
        "prev": "the run before, whose model it continues from",
        "schedule": "section of params.yaml with the schedule: pretrain or train",
        "untrained": "the section instead, where `--previous` says that it is untrained",
    },
    optional=frozenset({"run", "prev", "previous", "untrained"}),
    params=("processor", "detector", "{schedule}", "{untrained}", "seed"),
    kinds=("detectors/${detector.kind}",),
)


def main(
    labels: Path, validation: Path, images: Path, config: Path, configs: Path, previous: Path | None, model: Path, curve: Path,
    metrics: Path, schedule: str, untrained: str | None, settings: dict[str, Any],
) -> None:  # fmt: skip
    processor.choose(settings["processor"])
    s = settings[schedule]
    first = previous if s.start == "continue" else None
    if previous is not None and untrained is not None and is_untrained(previous):
        s, first = settings[untrained], None
    done = detector(settings["detector"]).train(
        read_instances(labels), images, model, s, settings["seed"], first, read_instances(validation)
    )
    if done is not None:  # the first process of torchrun, or the only one
        write_json(curve, done.curve)
        write_json(metrics, done.numbers)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
