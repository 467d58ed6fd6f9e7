"""Train the detector on a run's labels.

`--schedule pretrain` starts from `detector.init`; `--schedule train` continues from `--previous`, the model of the run before, unless
`train.start` is `restart`. Where nothing has been trained before, since the arm began without labels, the schedule is that of
`--untrained`, and the training starts from `detector.init`. A training that was killed goes on where it last saved its state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core import processor
from vlm_itl.core.files import read_json, write_json
from vlm_itl.detectors import detector
from vlm_itl.detectors.untrained import is_untrained
from vlm_itl.pipeline.stage import Stage

STAGE = Stage(
    reads={
        "labels": "COCO instances to train on",
        "validation": "labelled images held back from training, for early stopping",
        "images": "folder of the images",
        "config": "the Detectron2 YAML named by detector.config",
        "configs": "folder of configs, with the weights of `detector.init: drawn` beside them",
        "previous": "model folder to continue from",
    },
    writes={
        "model": "folder for the model",
        "curve": "loss, learning rate and validation AP by step",
        "metrics": "images trained on, optimiser steps, evaluations",
    },
    options={
        "schedule": "section of params.yaml with the schedule: pretrain or train",
        "untrained": "the section instead, where `--previous` says that it is untrained",
    },
    optional=frozenset({"previous", "untrained"}),
    params=("processor", "detector", "{schedule}", "{untrained}", "seed"),
    named={"config": "detector.config"},
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
    done = detector(settings["detector"]).train(read_json(labels), images, model, s, settings["seed"], first, read_json(validation))
    if done is not None:  # the first process of torchrun, or the only one
        write_json(curve, done.curve)
        write_json(metrics, done.numbers)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
