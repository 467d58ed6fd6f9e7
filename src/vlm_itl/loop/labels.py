"""What labels are: COCO instances of which every image and annotation says where it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from pycocotools import mask as mask_util

from vlm_itl.core.coco import Coco, by_image

Source = Literal["human", "model", "ground_truth"]


class Annotation(TypedDict):
    """A COCO annotation with its provenance."""

    id: int
    image_id: int
    category_id: int
    segmentation: dict[str, Any]  # RLE
    area: float  # of the mask, pixels
    bbox: list[float]  # x, y, width, height, pixels
    iscrowd: int
    source: Source
    run: str


class ModelAnnotation(Annotation):
    """A proposal that became a label."""

    score: float  # of the detector
    judge: str | None  # whose verdict let it in


def add(labels: Coco, image: dict[str, Any], rows: Mapping[Source, list[dict[str, Any]]], *, run: str, judge: str | None = None) -> None:
    """Append an image and its annotations, with their provenance, under new annotation ids.

    The image's own `source` is that of its annotations, and `mixed` where they have several.

    Args:
        rows: annotations by source; the last source stands for an image that has none.
        judge: whose verdict let in those of a model.
    """
    sources = [source for source, own in rows.items() if own] or list(rows)[-1:]
    labels["images"].append({**image, "source": sources[0] if len(sources) == 1 else "mixed", "run": run})
    for source, row in ((source, row) for source, own in rows.items() for row in own):
        labels["annotations"].append(_annotation(len(labels["annotations"]) + 1, image["id"], row, source, run, judge))


def _annotation(number: int, image_id: int, row: dict[str, Any], source: Source, run: str, judge: str | None) -> Annotation:
    label: Annotation = {
        "id": number, "image_id": image_id, "category_id": row["category_id"],
        "segmentation": row["segmentation"], "area": float(mask_util.area(row["segmentation"])),
        "bbox": [float(n) for n in mask_util.toBbox(row["segmentation"])], "iscrowd": row.get("iscrowd", 0),
        "source": source, "run": run,
    }  # fmt: skip
    return label if source != "model" else ModelAnnotation(**label, score=row["score"], judge=judge)


def fingerprint(labels: Coco) -> str:
    """What of labels a detector can learn from, as a hash: images and masks with class, source and score, in any order.

    Two arms whose labels have one fingerprint have learned the same, whichever run and judge brought it.
    """
    rows = by_image(labels)

    def mask(row: dict[str, Any]) -> list[Any]:
        return [row["category_id"], row["segmentation"], row["iscrowd"], row["source"], row.get("score")]

    def image(row: dict[str, Any]) -> list[Any]:
        return [row["id"], row["source"], sorted(json.dumps(mask(a), sort_keys=True) for a in rows.get(row["id"], []))]

    return hashlib.md5("\n".join(sorted(json.dumps(image(row)) for row in labels["images"])).encode()).hexdigest()


def counts(labels: Coco) -> dict[str, dict[str, int]]:
    """Labelled images and instances by source."""
    result = {"images": dict.fromkeys(("human", "model", "mixed", "ground_truth"), 0),
              "instances": dict.fromkeys(("human", "model", "ground_truth"), 0)}  # fmt: skip
    for image in labels["images"]:
        result["images"][image["source"]] += 1
    for row in labels["annotations"]:
        result["instances"][row["source"]] += not row["iscrowd"]
    return result
