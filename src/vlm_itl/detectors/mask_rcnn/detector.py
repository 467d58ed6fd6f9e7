"""Mask R-CNN as one of the detectors: its training and prediction, in as many processes as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vlm_itl import engine
from vlm_itl.core.coco import Coco
from vlm_itl.detectors import ToPredict, Trained
from vlm_itl.detectors.mask_rcnn.prediction import predict_sets
from vlm_itl.detectors.mask_rcnn.processes import launch
from vlm_itl.detectors.mask_rcnn.training import train

if TYPE_CHECKING:
    from vlm_itl import settings


class MaskRcnn:
    """See `vlm_itl.detectors.Detector`. A model folder holds `model.pth`, a checkpoint of Detectron2, and `config.yaml`."""

    def __init__(self, chosen: settings.Detector) -> None:
        self.settings = chosen

    def train(
        self, labels: Coco, images: Path, model: Path, training: settings.Training, seed: int, previous: Path | None = None,
        validation: Coco | None = None,
    ) -> Trained | None:  # fmt: skip
        s = self.settings
        done: Trained | None = launch(train, s.processes, s.device, labels, images, model, s, training, seed, previous, validation)
        return done

    def predict(self, model: Path, images: Path, sets: list[ToPredict], predict: settings.Predict) -> str | None:
        s = self.settings
        processes = 1 if engine.chosen().kind != "local" else s.processes  # it brings its own
        said: str | None = launch(
            predict_sets, processes, s.device, model, s.device, predict.max_detections, predict.batch_size, images, sets
        )
        return said
