"""Instances that a trained detector predicts, as COCO results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from detectron2.structures import Instances
from pycocotools import mask as mask_util
from tqdm import tqdm

from ..base.coco import Coco, encode
from ..base.files import write_json_list
from .checkpoint import Progress, key_of
from .config import load_config, make_deterministic
from .mapper import PictureMapper
from .processes import gathered, of_first, rank, world
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

    def predict(self, data: Coco, images: Path, score_threshold: float, batch_size: int, desc: str, target: Path) -> Progress:
        """Write what `predict` returns to `target`, as a JSON list; of the rows only one batch is in memory.

        A killed one, started again on the same model, data and settings, goes on after the last whole batch of each process.

        Returns:
            This process's images, on disk, to clear when nobody needs them any more.
        """
        pictures = [images / i["file_name"] for i in data["images"]]
        key = key_of([self.cfg.dump(), data["images"], score_threshold, batch_size, rank()], [self.folder / "model.pth", *pictures])
        mine = share_of(data["images"], batch_size)
        progress = Progress(key, len(mine), batch_size)
        for batch in _batches(self.model, self.cfg, data, images, score_threshold, batch_size, desc, progress.load()):
            progress.add(batch)
        merged = progress.merged(math.ceil(len(data["images"]) / batch_size))
        of_first(lambda: write_json_list(target, in_order(merged, data["images"])))
        return progress


def predict_sets(
    model: Path, device: str, max_detections: int, batch_size: int, images: Path, sets: list[tuple[Coco, float, str, Path]]
) -> None:
    """Predict each of the `sets` (data, score threshold, what the progress bar says, where the rows go); for `launch`."""
    predictor = Predictor(model, device, max_detections)
    for progress in [predictor.predict(data, images, threshold, batch_size, desc, to) for data, threshold, desc, to in sets]:
        progress.clear()


def predict(model: Any, cfg: CfgNode, data: Coco, images: Path, score_threshold: float, batch_size: int, desc: str) -> list[Row]:
    """Predict the images of `data`; the model is left in evaluation mode. Several processes take turns in the batches.

    Returns:
        COCO results in the order of the images, by falling score: `image_id`, `category_id`, `segmentation` (RLE), `bbox`
        ([x, y, w, h] of the mask, pixels), `area` (square pixels), `score` (six decimals, >= `score_threshold`). Empty masks are
        left out. In processes but the first: nothing.
    """
    done = list(_batches(model, cfg, data, images, score_threshold, batch_size, desc, leave=False))
    place = {image["id"]: k for k, image in enumerate(data["images"])}
    rows = [row for part in gathered(done) for batch in part for image in batch for row in image]
    return sorted(rows, key=lambda row: place[row["image_id"]])  # stable: an image's own rows keep their order


def alike(images: list[Row]) -> list[Row]:
    """The images in the order of prediction: what is alike in shape needs little padding in a batch."""
    return sorted(images, key=lambda i: i["height"] / i["width"])


def share_of(images: list[Row], batch_size: int) -> list[Row]:
    """The images that this process predicts: every `world()`-th batch."""
    starts = range(rank() * batch_size, len(images), world() * batch_size)
    every = alike(images)
    return [image for start in starts for image in every[start : start + batch_size]]


def in_order(file: Path, images: list[Row]) -> Iterator[Row]:
    """The rows of a file with one line an image, in the order of prediction, in the order of the images."""
    with file.open("rb") as stream:
        starts = accumulate((len(line) for line in stream), initial=0)
        start_of = {image["id"]: start for image, start in zip(alike(images), starts)}
        for image in images:
            stream.seek(start_of[image["id"]])
            yield from json.loads(stream.readline())


def _batches(
    model: Any, cfg: CfgNode, data: Coco, images: Path, score_threshold: float, batch_size: int, desc: str,
    done: int = 0, leave: bool = True,
) -> Iterator[list[list[Row]]]:  # fmt: skip
    """The rows of each image, batch after batch of this process's, but for the first `done` images.

    Args:
        leave: whether the progress bar stays when it is full.
    """
    ids = class_ids(data)
    model.eval()
    model.roi_heads.box_predictor.test_score_thresh = score_threshold
    mine = share_of(data["images"], batch_size)
    records = to_records({**data, "images": mine[done:], "annotations": []}, images)
    with tqdm(
        total=len(mine), initial=done, desc=desc if world() == 1 else f"{desc}, 1 of {world()} parts", unit="image", mininterval=2,
        leave=leave, disable=rank() > 0 or not data["images"],
    ) as bar:  # fmt: skip
        for inputs in _load(records, cfg, batch_size):
            with torch.inference_mode():
                found = model(inputs)
            yield [to_results(x["image_id"], y["instances"].to("cpu"), ids, score_threshold) for x, y in zip(inputs, found, strict=True)]
            bar.update(len(inputs))


def _load(records: list[Row], cfg: CfgNode, batch_size: int) -> Iterator[list[Row]]:
    if not records:
        return iter([])
    mapper = PictureMapper(is_train=False, augmentations=build_augmentation(cfg, False), image_format=cfg.INPUT.FORMAT)
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
