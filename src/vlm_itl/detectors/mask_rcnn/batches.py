"""From labels to the batch of step k, which follows from the seed and k alone: no state to save, and no matter who loads it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from detectron2.structures import BoxMode
from detectron2.utils import comm

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.detectors.mask_rcnn.mapper import PictureMapper

Sample = dict[str, Any]
KEPT_BYTES = 512 * 2**20  # of ready samples, in each loading process


def class_ids(data: Coco) -> list[int]:
    """COCO category ids in the order of the detector's class indices."""
    return sorted(row["id"] for row in data["categories"])


def to_records(data: Coco, images: Path) -> list[dict[str, Any]]:
    """Detectron2's dataset dicts. Crowd regions stay in, marked: the mapper drops them as it does for COCO."""
    index = {c: k for k, c in enumerate(class_ids(data))}
    rows = by_image(data)
    return [
        {
            "file_name": str(images / image["file_name"]),
            "image_id": image["id"], "height": image["height"], "width": image["width"],
            "by_model": image.get("source") == "model", "incomplete": image.get("incomplete", False),
            "annotations": [
                {"bbox": a["bbox"], "bbox_mode": BoxMode.XYWH_ABS, "category_id": index[a["category_id"]],
                 "segmentation": dict(a["segmentation"]), "iscrowd": a["iscrowd"], "by_model": a.get("source") == "model"}
                for a in rows.get(image["id"], [])
            ],
        }
        for image in data["images"]
    ]  # fmt: skip


class Resize(T.ResizeShortestEdge):
    """Detectron2's, but each side keeps two pixels at least. At MAX_SIZE a picture of 1500 x 3 would keep none, and a single one cannot be
    flipped: numpy takes the result for contiguous, and torch does not take its stride."""

    def get_transform(self, image: np.ndarray) -> Any:
        transform = super().get_transform(image)
        for side in ("new_h", "new_w"):
            if hasattr(transform, side):  # none at MIN_SIZE 0
                setattr(transform, side, max(2, getattr(transform, side)))
        return transform


def augmentations(cfg: CfgNode, is_train: bool) -> list[Any]:
    """Detectron2's of the config."""
    made = build_augmentation(cfg, is_train)
    return [Resize(a.short_edge_length, a.max_size, a.sample_style) if isinstance(a, T.ResizeShortestEdge) else a for a in made]


def derived_seed(seed: int, *what: object) -> int:
    """A 32-bit seed of its own for each thing."""
    return int.from_bytes(hashlib.sha256(repr((seed, *what)).encode()).digest()[:4], "big")


def order(landscape: Sequence[bool], batch: int, seed: int, grouped: bool) -> Iterator[list[tuple[int, int]]]:
    """Endless batches of (place, index): one seeded permutation of the images after the other.

    Args:
        landscape: for each image whether it is wider than high.
        grouped: only images of one such kind share a batch, which saves padding (Detectron2's ASPECT_RATIO_GROUPING).

    Returns:
        `place` counts the images in the order of the permutations; an image in a batch that is not full yet waits for it.
    """
    waiting: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    places = itertools.count()
    for epoch in itertools.count():
        for index in np.random.default_rng((seed, epoch)).permutation(len(landscape)).tolist():
            group = waiting[landscape[index] and grouped]
            group.append((next(places), index))
            if len(group) == batch:
                yield list(group)
                group.clear()


class Samples(torch.utils.data.Dataset[dict[str, Any]]):
    """What Detectron2's mapper makes of a record, by (place, index), and its `place`, which decides how it is resized and flipped.

    Samples are kept up to `KEPT_BYTES`: small pictures in one size are read, resized and flipped once, not once an epoch. They are shared,
    so a model must not write into its inputs (Detectron2's does not).
    """

    def __init__(self, records: list[dict[str, Any]], cfg: CfgNode, seed: int) -> None:
        self.records, self.seed = records, seed
        self.augmentations = augmentations(cfg, is_train=True)
        self.mapper = PictureMapper(
            is_train=True, augmentations=[], image_format=cfg.INPUT.FORMAT, use_instance_mask=True, instance_mask_format="bitmask"
        )
        self.kept: dict[tuple[Any, ...], Sample] = {}
        self.room = KEPT_BYTES

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, at: tuple[int, int]) -> Sample:
        place, index = at
        record = self.records[index]
        np.random.seed(derived_seed(self.seed, "place", place))  # Detectron2's augmentations draw from numpy's global generator
        transforms, height, width = [], record["height"], record["width"]
        for augmentation in self.augmentations:
            # they ask an image for its shape only
            transforms.append(augmentation.get_transform(np.broadcast_to(np.uint8(0), (height, width, 3))))
            height, width = getattr(transforms[-1], "new_h", height), getattr(transforms[-1], "new_w", width)
        key = (index, height, width, *(type(t).__name__ for t in transforms))
        sample = self.kept.get(key)
        if sample is None:
            self.mapper.augmentations = T.AugmentationList(transforms)
            sample = self.mapper(record)
            masks = sample["instances"].gt_masks.tensor.numel() if len(sample["instances"]) else 0
            size = sample["image"].numel() + masks
            if size <= self.room:
                self.room -= size
                self.kept[key] = sample
        return {**sample, "place": place}


def batches(records: list[dict[str, Any]], cfg: CfgNode, seed: int, first: int, last: int) -> Iterator[list[Sample]]:
    """This process's equal share of the batches of SOLVER.IMS_PER_BATCH samples, of steps `first` (counted from 0) to `last` - 1."""
    landscape = [r["width"] > r["height"] for r in records]
    steps = order(landscape, cfg.SOLVER.IMS_PER_BATCH, seed, cfg.DATALOADER.ASPECT_RATIO_GROUPING)
    size = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    mine = slice(comm.get_rank() * size, (comm.get_rank() + 1) * size)
    loader: Any = torch.utils.data.DataLoader(
        Samples(records, cfg, seed),
        batch_sampler=(batch[mine] for batch in itertools.islice(steps, first, last)),  # any iterable will do
        collate_fn=list,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        generator=torch.Generator(),  # or making an iterator would draw from the global one
    )
    return iter(loader)
