"""Who gets the selected images: initial labels, pool, validation, test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm_itl.core.coco import Coco, originals
from vlm_itl.core.errors import UserError
from vlm_itl.data.selection import classes_of, stratified

if TYPE_CHECKING:
    from vlm_itl.settings import Split


def split(data: Coco, settings: Split) -> tuple[set[int], set[int], set[int]]:
    """Image ids of (initial, pool, validation).

    Both follow one stratified order: validation is a prefix, the initial labels the next, so a larger initial fraction contains a smaller
    one. One image a class that no other covers goes first into the initial labels. Copies of a picture count once and stay together.

    Raises:
        UserError: a class has no instance, or the initial labels are too few to show every class.
    """
    names = {row["id"]: row["name"] for row in data["categories"]}
    shown = set().union(*classes_of(data).values())
    missing = [names[c] for c in names if c not in shown]
    if missing:
        raise UserError(f"no training image has an instance of '{missing[0]}'; take it out of select.categories or add images")
    original = originals(data["images"])
    merged = {**data, "annotations": [{**a, "image_id": original[a["image_id"]]} for a in data["annotations"]]}
    cover, spread = stratified(merged, f"{settings.seed}/split")
    images = len(cover) + len(spread)

    n_validation = round(settings.validation_fraction * images)
    n_initial = math.ceil(settings.initial_fraction * (images - n_validation) - 1e-9)
    if n_initial < len(cover):
        needed = len(cover) / max(1, images - n_validation)
        raise UserError(
            f"params.yaml: split.initial_fraction: {settings.initial_fraction} of {images - n_validation} images is {n_initial}, "
            f"too few to show every class once; at least {math.ceil(needed * 1000) / 1000} is needed"
        )
    validation, rest = spread[:n_validation], cover + spread[n_validation:]

    def with_copies(ids: list[int]) -> set[int]:
        chosen = set(ids)
        return {i for i, first in original.items() if first in chosen}

    return with_copies(rest[:n_initial]), with_copies(rest[n_initial:]), with_copies(validation)


def queue(data: Coco, seed: int) -> Coco:
    """The same images in a seeded order that nothing of their content decides. A round's batch is the first of what is left of it."""
    images = sorted(data["images"], key=lambda image: image["id"])
    order = np.random.default_rng([seed, len(images)]).permutation(len(images))
    return {**data, "images": [images[k] for k in order]}


def statistics(parts: dict[str, Coco], unlabelled: int = 0) -> dict[str, Any]:
    """Images and instances by part and class, and mask areas in square pixels (regions to ignore left out).

    Args:
        unlabelled: images of the pool that nobody has labelled. They are a part of their own, of which no more is known than their number.
    """
    result: dict[str, Any] = {}
    for part, data in parts.items():
        rows = [a for a in data["annotations"] if not a["iscrowd"]]
        areas = np.array([a["area"] for a in rows])
        result[part] = {
            "images": len(data["images"]),
            "instances": len(rows),
            "ignored_regions": len(data["annotations"]) - len(rows),
            "mask_area": {q: float(np.quantile(areas, p)) if len(areas) else None for q, p in
                          (("p05", 0.05), ("median", 0.5), ("p95", 0.95))},
            "images_per_class": {}, "instances_per_class": {},
        }  # fmt: skip
        for row in data["categories"]:
            of_class = [a for a in rows if a["category_id"] == row["id"]]
            result[part]["images_per_class"][row["name"]] = len({a["image_id"] for a in of_class})
            result[part]["instances_per_class"][row["name"]] = len(of_class)
    return result | ({"unlabelled": {"images": unlabelled}} if unlabelled else {})


def table(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """`statistics` as rows of part, class, what is counted (`images` or `instances`) and count."""
    return [
        {"part": part, "class": name, "counted": counted, "count": count}
        for part, row in numbers.items()
        for counted in ("images", "instances")
        for name, count in row.get(f"{counted}_per_class", {}).items()
    ]
