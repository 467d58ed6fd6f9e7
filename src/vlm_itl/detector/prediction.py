"""Instances that a trained detector predicts, as COCO results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from detectron2.structures import Instances
from pycocotools import mask as mask_util
from tqdm import tqdm

from ..coco import Coco, encode
from .config import class_ids, load_config, make_deterministic
from .training import to_records
from .weights import load_weights


class Predictor:
    """A model folder, loaded once, that predicts data sets in batches."""

    def __init__(self, folder: Path, device: str, max_detections: int) -> None:
        make_deterministic(0)
        self.cfg = load_config(folder, device)
        self.cfg.TEST.DETECTIONS_PER_IMAGE = max_detections
        self.model = build_model(self.cfg)
        load_weights(self.model, str(folder / "model.pth"))
        self.model.eval()

    def predict(self, data: Coco, images: Path, score_threshold: float, batch_size: int, desc: str) -> list[dict[str, Any]]:
        """Predict the images of `data`.

        Returns:
            COCO results in the order of the images, by falling score: `image_id`, `category_id`, `segmentation` (RLE), `bbox`
            ([x, y, w, h] of the mask, pixels), `area` (square pixels), `score` (six decimals, >= `score_threshold`). Empty masks are
            left out.
        """
        ids = class_ids(data)
        if not data["images"]:
            return []
        for predictor in (
            self.model.roi_heads.box_predictor
            if isinstance(self.model.roi_heads.box_predictor, torch.nn.ModuleList)
            else [self.model.roi_heads.box_predictor]
        ):
            predictor.test_score_thresh = score_threshold
        loader = build_detection_test_loader(
            [{**record, "annotations": []} for record in to_records({**data, "annotations": []}, images)],
            mapper=DatasetMapper(is_train=False, augmentations=build_augmentation(self.cfg, False), image_format=self.cfg.INPUT.FORMAT),
            batch_size=batch_size,
            num_workers=self.cfg.DATALOADER.NUM_WORKERS,
        )
        rows: list[dict[str, Any]] = []
        with torch.no_grad(), tqdm(total=len(data["images"]), desc=desc, unit="image", mininterval=2) as bar:
            for batch in loader:
                for inputs, outputs in zip(batch, self.model(batch)):
                    rows += to_results(inputs["image_id"], outputs["instances"].to("cpu"), ids, score_threshold)
                bar.update(len(batch))
        return rows


def to_results(image_id: int, instances: Instances, ids: list[int], score_threshold: float) -> list[dict[str, Any]]:
    """COCO results of one image from Detectron2's `Instances` (masks N x H x W, bool)."""
    rows = []
    for mask, score, index in zip(instances.pred_masks.numpy(), instances.scores.tolist(), instances.pred_classes.tolist()):
        score = round(score, 6)
        if score < score_threshold or not np.any(mask):
            continue
        rle = encode(mask)
        rows.append({
            "image_id": image_id, "category_id": ids[index], "segmentation": rle,
            "bbox": [float(n) for n in mask_util.toBbox(rle)], "area": float(mask_util.area(rle)), "score": score,
        })  # fmt: skip
    return rows
