"""Patches of a class's colours: a detector without a network, which learns and predicts in seconds.

It is there to try the graph out, and as the shortest example of a kind. Training counts how often each colour lies in each class and beside
all of them. A pixel then belongs to the class that its colour speaks for most, and an instance is a connected patch of such pixels; its
score is their mean probability. It finds little on photographs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from vlm_itl.core.coco import Coco, by_image, decode, result
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json, write_json
from vlm_itl.core.pictures import read_picture
from vlm_itl.detectors import NO_STOPPING, Row, ToPredict, Trained
from vlm_itl.detectors.labels import believed, check

if TYPE_CHECKING:
    from vlm_itl import settings

SIDE = 160  # pixels of the longer side, in which patches are looked for
LEVELS = 8  # of each colour channel
SMALLEST = 12  # pixels of a patch
FILE = "counts.json"
Counts = NDArray[np.float64]  # (1 + classes, LEVELS ** 3): pixels by class, the first row beside all of them, and by colour


class Blobs:
    """See `vlm_itl.detectors.Detector`. A model folder holds `counts.json`."""

    def __init__(self, chosen: settings.Detector) -> None:
        self.settings = chosen

    def train(
        self, labels: Coco, images: Path, model: Path, training: settings.Training, seed: int, previous: Path | None = None,
        validation: Coco | None = None,
    ) -> Trained:  # fmt: skip
        """Count colours, on top of what `previous` has counted. Neither seed nor schedule plays a part; each image is one step."""
        if training.early_stopping:
            raise UserError("early_stopping is not for detector.kind: blobs")
        learned = believed(labels, training.model_labels)
        check(learned)
        categories = sorted(c["id"] for c in learned["categories"])
        counts = np.zeros((1 + len(categories), LEVELS**3))
        if previous is not None:
            counts += read_counts(previous, categories)
        rows = by_image(learned)
        for image in tqdm(learned["images"], desc="counting colours", unit="image", disable=None):
            colours = colours_of(read_picture(images / image["file_name"]))
            where = np.zeros(colours.shape, dtype=int)
            for row in sorted(rows.get(image["id"], []), key=lambda row: -float(row["area"])):  # what is smaller lies on top
                if not row["iscrowd"]:
                    where[resized(decode(row["segmentation"]), colours.shape)] = 1 + categories.index(row["category_id"])
            np.add.at(counts, (where.ravel(), colours.ravel()), 1)
        write_json(model / FILE, {"categories": categories, "counts": counts.tolist()})
        steps = len(learned["images"])
        return Trained({"images": steps, "steps": steps, "planned": steps, **NO_STOPPING}, [])

    def predict(self, model: Path, images: Path, sets: list[ToPredict], predict: settings.Predict) -> str | None:
        said = None
        for data, threshold, desc, target in sets:
            categories = sorted(c["id"] for c in data["categories"])
            counts = read_counts(model, categories)
            found: list[Row] = []
            highest = 0.0
            for image in tqdm(data["images"], desc=desc, unit="image", disable=None):
                own = patches(read_picture(images / image["file_name"]), counts)[: predict.max_detections]
                highest = max([highest, *(score for score, _, _ in own)])
                found += [result(image["id"], categories[place], mask, score) for score, place, mask in own if score >= threshold]
            write_json(target, found)
            if data["images"] and not found and said is None:
                said = f"{desc}: no instance of {len(data['images'])} images has a score of {threshold} or more; the highest is {highest}"
        return said


def read_counts(model: Path, categories: list[int]) -> Counts:
    """Raises:
    UserError: the folder is no model of this kind, or one of other classes.
    """
    content = read_json(model / FILE)
    if content["categories"] != categories:
        raise UserError(f"{model}: it knows the classes {content['categories']}, and these images have {categories}")
    return np.array(content["counts"])


def colours_of(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(height, width), at most SIDE of them: the place of each pixel's colour among LEVELS ** 3."""
    picture = PIL.Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE), PIL.Image.Resampling.BOX)
    level = np.asarray(picture).astype(int) * LEVELS // 256
    return np.asarray(level @ [LEVELS**2, LEVELS, 1])


def resized(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask at another (height, width)."""
    height, width = shape
    return np.asarray(PIL.Image.fromarray(mask).resize((width, height), PIL.Image.Resampling.NEAREST), dtype=np.bool_)


def patches(pixels: NDArray[np.uint8], counts: Counts) -> list[tuple[float, int, NDArray[np.bool_]]]:
    """Connected patches of one class each, as (score, place of the class, mask), the surest first."""
    colours = colours_of(pixels)
    probability = ((counts + 1) / (counts + 1).sum(axis=0))[:, colours]  # of the class, by colour; a colour never seen says nothing
    probability = np.stack([ndimage.uniform_filter(one, 3) for one in probability])
    best = probability.argmax(axis=0)
    found = []
    for place in range(len(counts) - 1):
        numbered, patch_count = ndimage.label(best == 1 + place)
        for number in range(1, patch_count + 1):
            patch = numbered == number
            if patch.sum() >= SMALLEST:
                score = round(float(probability[1 + place][patch].mean()), 6)
                found.append((score, place, resized(patch, pixels.shape[:2])))
    return sorted(found, key=lambda one: -one[0])
