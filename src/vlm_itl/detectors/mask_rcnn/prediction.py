"""Instances that a trained detector predicts, as COCO results.

An image's prediction depends on the image alone: only images that the model pads to one shape share a batch. (Padding reaches into the
features beside it: beside a larger image a score moved by .107.) What a batch still changes is rounding, since torch picks a convolution by
the number of images: scores move by about 1e-7, below the six decimals that are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MapDataset
from detectron2.modeling import build_model
from detectron2.structures import ImageList, Instances
from detectron2.utils import comm
from tqdm import tqdm

from vlm_itl import engine
from vlm_itl.core.coco import Coco, result
from vlm_itl.core.files import write_json_list
from vlm_itl.detectors import ToPredict
from vlm_itl.detectors.mask_rcnn.batches import augmentations, class_ids, to_records
from vlm_itl.detectors.mask_rcnn.checkpoint import Progress, key_of
from vlm_itl.detectors.mask_rcnn.config import load_config, make_deterministic
from vlm_itl.detectors.mask_rcnn.mapper import PictureMapper
from vlm_itl.detectors.mask_rcnn.processes import of_first
from vlm_itl.detectors.mask_rcnn.speed import faster
from vlm_itl.detectors.mask_rcnn.weights import load_weights
from vlm_itl.resume.progress import value_of

Row = dict[str, Any]
Batch = list[list[Row]]  # of each image its COCO results
LOOKED_AT = 100  # images, evenly over a set without a proposal, for the highest score


class Predictor:
    """A model folder, loaded once, that predicts data sets in batches."""

    def __init__(self, folder: Path, device: str, max_detections: int) -> None:
        make_deterministic(0)
        self.folder, self.device = folder, device
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
        rank = comm.get_rank()
        key = key_of([self.cfg.dump(), data["images"], score_threshold, batch_size, rank], [self.folder / "model.pth", *pictures])
        every = batches(self.model, self.cfg, data["images"], batch_size)
        mine = every[rank :: comm.get_world_size()]
        progress = Progress(key, [len(batch) for batch in mine])
        for batch in self.found(data, images, score_threshold, mine, desc, progress.load()):
            progress.add(batch)
        merged = progress.merged(len(every))
        of_first(lambda: write_json_list(target, in_order(merged, every, data["images"])))
        return progress

    def found(self, data: Coco, images: Path, score_threshold: float, mine: list[list[Row]], desc: str, done: int) -> Iterator[Batch]:
        """The rows of each image, batch after batch but for the first `done`: by this process, or the nodes that `VLM_ITL_ENGINE` names."""
        where = engine.chosen()
        if where.kind == "local":
            yield from _found(self.model, self.cfg, data, images, score_threshold, mine, desc, done)
            return
        load = partial(
            Worker, self.folder, self.device, self.cfg.TEST.DETECTIONS_PER_IMAGE, data["categories"], images.resolve(), score_threshold
        )
        with tqdm(total=sum(map(len, mine)), initial=sum(map(len, mine[:done])), desc=desc, unit="image", mininterval=2) as bar:
            for batch in engine.values(where, load, mine[done:], "batches of images"):
                yield batch
                bar.update(len(batch))

    def nothing_found(self, data: Coco, images: Path, score_threshold: float, batch_size: int, desc: str) -> str:
        """How far from the threshold the scores are, by up to `LOOKED_AT` images."""
        some = data["images"][:: -(-len(data["images"]) // LOOKED_AT)]
        rows = predict(self.model, self.cfg, {**data, "images": some}, images, 0.0, batch_size, "looking for the highest score")
        best = max((row["score"] for row in rows), default=0.0)
        return (
            f"{desc}: no instance of {len(data['images'])} images has a score of {score_threshold} or more; "
            f"the highest score is {best} (in {len(some)} images)"
        )


class Worker:
    """Predicts batches of images, on a node that may be another machine."""

    def __init__(
        self, folder: Path, device: str, max_detections: int, categories: list[Row], images: Path, score_threshold: float
    ) -> None:  # fmt: skip
        self.predictor = Predictor(folder, device, max_detections)
        self.categories, self.images, self.score_threshold = categories, images, score_threshold

    def __call__(self, batch: list[Row]) -> Batch:
        predictor, data = self.predictor, {"images": batch, "annotations": [], "categories": self.categories}
        return next(_found(predictor.model, predictor.cfg, data, self.images, self.score_threshold, [batch], show=False))


def predict_sets(model: Path, device: str, max_detections: int, batch_size: int, images: Path, sets: list[ToPredict]) -> str | None:
    """Predict each of the `sets`; for `launch`.

    Returns:
        `nothing_found` of the first set whose images have nothing that reaches the threshold.
    """
    predictor = Predictor(model, device, max_detections)
    done = [predictor.predict(data, images, threshold, batch_size, desc, to) for data, threshold, desc, to in sets]
    note = None
    for data, threshold, desc, target in sets:
        if data["images"] and of_first(lambda: target.stat().st_size < len("[{}]")):  # noqa: B023
            note = predictor.nothing_found(data, images, threshold, batch_size, desc)
            break
    for progress in done:
        progress.clear()
    return note


def predict(model: Any, cfg: CfgNode, data: Coco, images: Path, score_threshold: float, batch_size: int, desc: str) -> list[Row]:
    """Predict the images of `data`; the model is left in evaluation mode. Several processes take turns in the batches.

    Returns:
        COCO results in the order of the images, by falling score: `image_id`, `category_id`, `segmentation` (RLE), `bbox`
        ([x, y, w, h] of the mask, pixels), `area` (square pixels), `score` (six decimals, >= `score_threshold`). Empty masks are
        left out. In processes but the first: nothing.
    """
    mine = batches(model, cfg, data["images"], batch_size)[comm.get_rank() :: comm.get_world_size()]
    done = list(_found(model, cfg, data, images, score_threshold, mine, desc, leave=False))
    place = {image["id"]: k for k, image in enumerate(data["images"])}
    rows = [row for part in comm.gather(done) for batch in part for image in batch for row in image]
    return sorted(rows, key=lambda row: place[row["image_id"]])  # stable: an image's own rows keep their order


def batches(model: Any, cfg: CfgNode, images: list[Row], batch_size: int) -> list[list[Row]]:
    """The images in the order of prediction, in batches of at most `batch_size` that the model pads to one shape."""
    (resize,) = augmentations(cfg, is_train=False)

    @cache
    def padded(height: int, width: int) -> tuple[int, ...]:
        """The shape in which an image of this size passes through the model."""
        transform = resize.get_transform(np.broadcast_to(np.uint8(0), (height, width, 3)))
        image = torch.empty(getattr(transform, "new_h", height), getattr(transform, "new_w", width), device="meta")
        backbone = model.backbone
        return tuple(
            ImageList.from_tensors([image], backbone.size_divisibility, padding_constraints=backbone.padding_constraints).tensor.shape
        )

    groups: dict[tuple[int, ...], list[Row]] = {}
    for image in images:
        groups.setdefault(padded(image["height"], image["width"]), []).append(image)
    return [group[k : k + batch_size] for _, group in sorted(groups.items()) for k in range(0, len(group), batch_size)]


def in_order(file: Path, every: list[list[Row]], images: list[Row]) -> Iterator[Row]:
    """The rows of a file with one line an image, in the order of the batches, in the order of the images."""
    with file.open("rb") as stream:
        starts = accumulate((len(line) for line in stream), initial=0)
        start_of = {image["id"]: start for image, start in zip((image for batch in every for image in batch), starts)}
        for image in images:
            stream.seek(start_of[image["id"]])
            yield from value_of(stream.readline())


def _found(
    model: Any, cfg: CfgNode, data: Coco, images: Path, score_threshold: float, mine: list[list[Row]], desc: str = "",
    done: int = 0, leave: bool = True, show: bool = True,
) -> Iterator[Batch]:  # fmt: skip
    """The rows of each image, batch after batch of `mine`, this process's, but for the first `done`.

    Args:
        leave: whether the progress bar stays when it is full.
        show: whether there is one.
    """
    ids = class_ids(data)
    model.eval()
    model.roi_heads.box_predictor.test_score_thresh = score_threshold
    with tqdm(
        total=sum(map(len, mine)), initial=sum(map(len, mine[:done])),
        desc=desc if comm.get_world_size() == 1 else f"{desc}, 1 of {comm.get_world_size()} parts",
        unit="image", mininterval=2, leave=leave, disable=not show or not comm.is_main_process() or not data["images"],
    ) as bar:  # fmt: skip
        for inputs in _load(data, images, cfg, mine[done:]):
            with torch.inference_mode():
                found = model(inputs)
            yield [to_results(x["image_id"], y["instances"].to("cpu"), ids, score_threshold) for x, y in zip(inputs, found, strict=True)]
            bar.update(len(inputs))


def _load(data: Coco, images: Path, cfg: CfgNode, mine: list[list[Row]]) -> Iterator[list[Row]]:
    """The inputs of the model, batch after batch."""
    records = to_records({**data, "images": [image for batch in mine for image in batch], "annotations": []}, images)
    mapper = PictureMapper(is_train=False, augmentations=augmentations(cfg, is_train=False), image_format=cfg.INPUT.FORMAT)
    ends = list(accumulate(map(len, mine)))
    loader: Any = torch.utils.data.DataLoader(
        MapDataset(records, mapper),
        batch_sampler=[list(range(end - len(batch), end)) for batch, end in zip(mine, ends)],
        collate_fn=list,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        generator=torch.Generator(),  # or making an iterator would draw from the global one
    )
    return iter(loader)


def to_results(image_id: int, instances: Instances, ids: list[int], score_threshold: float) -> list[Row]:
    """COCO results of one image from Detectron2's `Instances` (masks N x H x W, bool)."""
    rows = []
    for mask, score, index in zip(instances.pred_masks.numpy(), instances.scores.tolist(), instances.pred_classes.tolist()):
        score = round(score, 6)
        if score < score_threshold or not np.any(mask):
            continue
        rows.append(result(image_id, ids[index], mask, score))
    return rows
