"""Train Mask R-CNN on a run's labels.

`--schedule pretrain` starts from `detector.init`; `--schedule train` continues from `--previous`, the model of the run before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.files import read_json, write_json
from vlm_itl.stage import Stage

STAGE = Stage(
    reads={
        "labels": "COCO instances to train on",
        "images": "folder of the images",
        "config": "the Detectron2 YAML named by detector.config",
        "previous": "model folder to continue from",
    },
    writes={"model": "folder for model.pth and config.yaml", "metrics": "images trained on and optimiser steps"},
    options={"schedule": "section of params.yaml with the schedule: pretrain or train"},
    optional=frozenset({"previous"}),
    params=("detector", "{schedule}", "seed"),
)


def main(
    labels: Path, images: Path, config: Path, previous: Path | None, model: Path, metrics: Path, schedule: str,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    from vlm_itl.detector.training import train

    data = read_json(labels)
    steps = train(data, images, model, settings["detector"], settings[schedule], settings["seed"], previous)
    write_json(metrics, {"images": len(data["images"]), "steps": steps})


if __name__ == "__main__":
    STAGE.run(main, __doc__)
