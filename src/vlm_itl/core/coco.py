"""The one form in which the project passes masks on: COCO instances with compressed RLE masks of the image's size.

`vlm_itl.data.instances` brings other people's files into it. Format: the "Object Detection" section of COCO's data format page.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_util

Rle = dict[str, Any]  # {"size": [height, width], "counts": str}
Coco = dict[str, Any]  # {"images": [...], "annotations": [...], "categories": [...]}


def encode(mask: NDArray[np.bool_]) -> Rle:
    """RLE of a boolean mask of shape (height, width)."""
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode(rle: Rle) -> NDArray[np.bool_]:
    """Boolean mask of shape (height, width)."""
    mask: NDArray[np.bool_] = mask_util.decode(rle).astype(bool)
    return mask


def result(image_id: int, category_id: int, mask: NDArray[np.bool_] | Rle, score: float) -> dict[str, Any]:
    """A row of COCO results: what a model says of one instance. `bbox` is [x, y, w, h] of the mask, in pixels."""
    rle = mask if isinstance(mask, dict) else encode(mask)
    return {
        "image_id": image_id, "category_id": category_id, "segmentation": rle, "bbox": [float(n) for n in mask_util.toBbox(rle)],
        "area": float(mask_util.area(rle)), "score": round(score, 6),
    }  # fmt: skip


def empty_like(data: Coco) -> Coco:
    """The same categories, no images and no annotations."""
    return {"images": [], "annotations": [], "categories": data["categories"]}


def subset(data: Coco, image_ids: set[int]) -> Coco:
    """The images of `image_ids` and their annotations, in the order of `data`."""
    return {
        "images": [image for image in data["images"] if image["id"] in image_ids],
        "annotations": [a for a in data["annotations"] if a["image_id"] in image_ids],
        "categories": data["categories"],
    }


def first(data: Coco, images: int | None) -> Coco:
    """So many images, the first ones, and their annotations; None: all."""
    return data if images is None else subset(data, {image["id"] for image in data["images"][:images]})


def originals(images: list[dict[str, Any]]) -> dict[int, int]:
    """For each image the lowest id of those with the same content (`md5` of its row), which is its own where it is no copy.

    Copies of a picture must not lie on two sides of a split.
    """
    first: dict[str, int] = {}
    for image in sorted(images, key=lambda image: image["id"]):
        if "md5" in image:
            first.setdefault(image["md5"], image["id"])
    return {image["id"]: first[image["md5"]] if "md5" in image else image["id"] for image in images}


def without_truth(images: list[dict[str, Any]], truth: Coco) -> list[dict[str, Any]]:
    """Of these images those that have no truth: nobody has labelled them, so it is not known what they show, if anything."""
    known = {image["id"] for image in truth["images"]}
    return [image for image in images if image["id"] not in known]


def by_image(data: Coco | list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Annotations (or results) by image id; images without any are absent."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in data if isinstance(data, list) else data["annotations"]:
        rows.setdefault(row["image_id"], []).append(row)
    return rows
