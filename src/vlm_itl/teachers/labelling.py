"""Pseudo-labels by foundation models: batches, memory, and going on after a kill."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from vlm_itl import engine
from vlm_itl.core.coco import Coco, result
from vlm_itl.core.code import used_by
from vlm_itl.core.errors import UserError
from vlm_itl.core.pictures import Pixels, read_picture
from vlm_itl.core.redact import say
from vlm_itl.resume.progress import Progress, digest_of
from vlm_itl.teachers.pseudo_labels import FoundInstance

if TYPE_CHECKING:
    from vlm_itl.settings import GroundedSam2, Sam3

Row = dict[str, Any]
VERSIONS = ("torch", "torchvision", "transformers", "tokenizers", "numpy", "pillow", "pycocotools")


class Model(ABC):
    """A foundation model that draws, loaded when the first pictures come."""

    device: str
    identity: Row  # models, revisions

    @abstractmethod
    def __init__(self, settings: Any, captions: list[str]) -> None:
        """
        Args:
            captions: what is looked for, by class.

        Raises:
            UserError: a hub id without a revision, or `device: cuda` and there is none.
        """

    @abstractmethod
    def find(self, pictures: list[Pixels]) -> list[list[FoundInstance]]:
        """The instances on each picture."""

    @classmethod
    def label(cls, settings: GroundedSam2 | Sam3, data: Coco, images: Path, root: Path) -> tuple[list[Row], Row]:
        """Find the instances of the classes of `data` on its images. What is annotated there is not looked at.

        One that was killed, started again on the same images, models and settings, goes on after the last whole batch. A batch for which
        the memory does not suffice is halved, and so are the later ones.

        Returns:
            See `vlm_itl.teachers.teacher.Teacher`; with SAM 2 rows have `mask_score`, its own estimate of the mask's IoU. Empty masks are
            left out.

        Raises:
            UserError: a model cannot be had, or a single image is too much for the memory.
        """
        captions = [settings.captions.get(row["name"], row["name"]) for row in data["categories"]]
        ids = [row["id"] for row in data["categories"]]
        teacher = cls(settings, captions)
        identity = {
            **settings.model_dump(exclude={"device", "batch_size"}),
            "captions": dict(zip((r["name"] for r in data["categories"]), captions)),
            **teacher.identity, "versions": {name: version(name) for name in VERSIONS},
        }  # fmt: skip
        package = used_by(__name__, cls.__module__)
        pictures = [images / i["file_name"] for i in data["images"]]
        machine = [teacher.device, torch.get_num_threads(), torch.cuda.get_device_name() if teacher.device == "cuda" else "cpu"]
        progress = Progress("autolabels", digest_of([identity, data["images"], ids, settings.batch_size, machine], [*package, *pictures]))
        done: dict[int, list[Row]] = {i: rows for batch in progress.load() for i, rows in batch}
        by_shape = sorted(data["images"], key=lambda i: i["height"] / i["width"])  # what is alike in shape needs little padding in a batch
        waiting, size = [image for image in by_shape if image["id"] not in done], settings.batch_size
        batches = [waiting[k : k + size] for k in range(0, len(waiting), size)]
        load = partial(Worker, cls, settings, captions, ids, images.resolve())
        with tqdm(total=len(by_shape), initial=len(done), desc="drawing pseudo-labels", unit="image", mininterval=2) as bar:
            for rows in engine.values(engine.chosen(), load, batches, "batches of images"):
                progress.add(rows)
                done |= dict(rows)
                bar.update(len(rows))
        progress.clear()
        return [row for image in data["images"] for row in done[image["id"]]], identity


class Worker:
    """Finds the instances on batches of images, on a node that may be another machine."""

    def __init__(self, kind: type[Model], settings: GroundedSam2 | Sam3, captions: list[str], ids: list[int], images: Path) -> None:
        """
        Args:
            ids: category ids, by class.
            images: the folder that `file_name`s are relative to.
        """
        self.teacher, self.ids, self.images, self.size = kind(settings, captions), ids, images, settings.batch_size

    def __call__(self, batch: list[Row]) -> list[tuple[int, list[Row]]]:
        """(id, COCO results) of each image."""
        found: list[tuple[int, list[Row]]] = []
        while len(found) < len(batch):
            part = batch[len(found) : len(found) + self.size]
            instances = found_unless_too_much(self.teacher.find, [read_picture(self.images / image["file_name"]) for image in part])
            if instances is None:
                self.size = smaller_batch(len(part), self.teacher.device)
            else:
                found += [(image["id"], to_results(image["id"], some, self.ids)) for image, some in zip(part, instances, strict=True)]
        return found


def found_unless_too_much(
    find: Callable[[list[Pixels]], list[list[FoundInstance]]], batch: list[Pixels]
) -> list[list[FoundInstance]] | None:
    """What `find` finds, or None where the memory does not suffice: only then is the error gone, with the tensors that it holds."""
    try:
        return find(batch)
    except torch.OutOfMemoryError:
        return None


def smaller_batch(size: int, device: str) -> int:
    """The size of the next batches, after one of `size` was too much.

    Raises:
        UserError: it was a single image.
    """
    if size == 1:
        raise UserError("params.yaml: autolabels: out of memory on a single image; dtype: bfloat16 or smaller models need less")
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    say(f"out of memory with {size} images at a time; {size // 2} from here on")
    return size // 2


def to_results(image_id: int, instances: list[FoundInstance], ids: list[int]) -> list[Row]:
    """COCO results of one image, by falling score.

    Args:
        ids: category ids, by class.
    """
    rows = []
    for one in sorted(instances, key=lambda one: -one.score):
        if not one.mask.any():
            continue
        of_mask = {} if one.mask_score is None else {"mask_score": round(one.mask_score, 6)}
        rows.append(result(image_id, ids[one.index], one.mask, one.score) | of_mask)
    return rows
