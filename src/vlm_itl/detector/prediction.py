"""Instances that a trained detector predicts, as COCO results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from detectron2.structures import Instances
from pycocotools import mask as mask_util
from tqdm import tqdm

from ..coco import Coco, encode
from ..progress import Progress
from .checkpoint import key_of
from .config import load_config, make_deterministic
from .processes import gathered, rank, world
from .speed import faster
from .stream import class_ids, to_records
from .weights import load_weights

Row = dict[str, Any]


class Predictor:
    """A model folder, loaded once, that predicts data sets in batches."""

    def __init__(self, folder: Path, device: str, max_detections: int) -> None:
        make_deterministic(0)
        self.folder = folder
        self.cfg = load_config(folder, device)
        self.cfg.TEST.DETECTIONS_PER_IMAGE = max_detections
        self.model = build_model(self.cfg)
        load_weights(self.model, str(folder / "model.pth"))
        faster(self.model, training=False)

    def predict(self, data: Coco, images: Path, score_threshold: float, batch_size: int, desc: str) -> list[Row]:
        """As `predict`; a killed one, started again on the same model, data and settings, goes on after the last whole batch of each
        process.
        """
        pictures = [images / i["file_name"] for i in data["images"]]
        key = key_of([self.cfg.dump(), data["images"], score_threshold, batch_size, rank()], [self.folder / "model.pth", *pictures])
        progress = Progress("predictions", key)
        rows = predict(self.model, self.cfg, data, images, score_threshold, batch_size, desc, progress)
        progress.clear()
        return rows


def predict_sets(
    model: Path, device: str, max_detections: int, batch_size: int, images: Path, sets: list[tuple[Coco, float, str]]
) -> list[list[Row]]:
    """The rows of each of the `sets` (data, score threshold, what the progress bar says); for `launch`."""
    predictor = Predictor(model, device, max_detections)
    return [predictor.predict(data, images, threshold, batch_size, desc) for data, threshold, desc in sets]


def predict(
    model: Any, cfg: CfgNode, data: Coco, images: Path, score_threshold: float, batch_size: int, desc: str,
    progress: Progress | None = None, leave: bool = True,
) -> list[Row]:  # fmt: skip
    """Predict the images of `data`; the model is left in evaluation mode. Several processes take turns in the batches.

    Args:
        progress: where this process's finished batches are kept, and those of an earlier attempt found.
        leave: whether the progress bar stays when it is full.

    Returns:
        COCO results in the order of the images, by falling score: `image_id`, `category_id`, `segmentation` (RLE), `bbox`
        ([x, y, w, h] of the mask, pixels), `area` (square pixels), `score` (six decimals, >= `score_threshold`). Empty masks are
        left out. In processes but the first: nothing.
    """
    if not data["images"]:
        return []
    ids = class_ids(data)
    model.eval()
    model.roi_heads.box_predictor.test_score_thresh = score_threshold
    starts = range(0, len(data["images"]), batch_size)
    alike = sorted(data["images"], key=lambda i: i["height"] / i["width"])  # what is alike in shape needs little padding in a batch
    mine = [image for start in starts[rank() :: world()] for image in alike[start : start + batch_size]]
    done: list[list[Row]] = progress.load() if progress else []
    before = len(done) * batch_size
    records = to_records({**data, "images": mine[before:], "annotations": []}, images)
    with torch.no_grad(), tqdm(
        total=len(mine), initial=min(before, len(mine)), desc=desc if world() == 1 else f"{desc}, 1 of {world()} parts", unit="image",
        mininterval=2, leave=leave, disable=rank() > 0,
    ) as bar:  # fmt: skip
        for inputs in _load(records, cfg, batch_size):
            batch: list[Row] = []
            for record, outputs in zip(inputs, model(inputs), strict=True):
                batch += to_results(record["image_id"], outputs["instances"].to("cpu"), ids, score_threshold)
            if progress:
                progress.add(batch)
            done.append(batch)
            bar.update(len(inputs))
    place = {image["id"]: k for k, image in enumerate(data["images"])}
    rows = [row for part in gathered(done) for batch in part for row in batch]
    return sorted(rows, key=lambda row: place[row["image_id"]])  # stable: an image's own rows keep their order


def _load(records: list[Row], cfg: CfgNode, batch_size: int) -> Iterator[list[Row]]:
    if not records:
        return iter([])
    mapper = DatasetMapper(is_train=False, augmentations=build_augmentation(cfg, False), image_format=cfg.INPUT.FORMAT)
    sampler = torch.utils.data.SequentialSampler(records)  # Detectron2's would share them out among the processes once more
    workers = cfg.DATALOADER.NUM_WORKERS
    return iter(build_detection_test_loader(records, mapper=mapper, sampler=sampler, batch_size=batch_size, num_workers=workers))


def to_results(image_id: int, instances: Instances, ids: list[int], score_threshold: float) -> list[Row]:
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
