"""Which images take part, and who gets them: initial labels, pool, validation, test."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np

from .coco import Coco, by_image, subset
from .errors import UserError
from .settings import Split


def select(data: Coco, settings: Split, max_images_per_class: int | None, seed: int, name: str) -> Coco:
    """Images with at least one instance of the chosen classes, and only those classes' annotations.

    Instances below `min_area` are not part of the task: they become regions to ignore (`iscrowd`), like COCO's own crowd regions, which
    stay. Neither is an instance to find, and a detection on one is neither right nor wrong. At most `max_images_per_class` images of a
    class are drawn, class by class; an image drawn for one class stays with all its instances, so another class can end above the limit,
    as in the first study.

    Raises:
        UserError: a category is unknown, or no image is left.
    """
    ids = {row["name"]: row["id"] for row in data["categories"]}
    unknown = [c for c in settings.categories if c not in ids]
    if unknown:
        raise UserError(f"params.yaml: split.categories: {name} data has no class '{unknown[0]}' (it has: {', '.join(ids)})")
    wanted = {ids[c] for c in settings.categories}
    kept = [{**a, "iscrowd": int(a["iscrowd"] or a["area"] < settings.min_area)} for a in data["annotations"] if a["category_id"] in wanted]
    images_of: dict[int, set[int]] = {c: set() for c in wanted}
    for a in kept:
        if not a["iscrowd"]:
            images_of[a["category_id"]].add(a["image_id"])
    chosen: set[int] = set()
    for c in sorted(wanted):
        order = sorted(images_of[c])
        random.Random(f"{seed}/select/{name}/{c}").shuffle(order)
        chosen.update(order[:max_images_per_class])
    if not chosen:
        raise UserError(f"no {name} image has an instance of {', '.join(settings.categories)} of at least {settings.min_area} px")
    categories = [row for row in data["categories"] if row["id"] in wanted]
    return subset({**data, "annotations": kept, "categories": categories}, chosen)


def split(data: Coco, settings: Split, seed: int) -> tuple[set[int], set[int], set[int]]:
    """Image ids of (initial, pool, validation).

    Images are grouped by the rarest class they show, each group is shuffled, and the groups are interleaved in proportion, so that every
    prefix of the order has nearly the classes' frequencies. Validation is a prefix; the initial labels are the next prefix, so a larger
    initial fraction contains a smaller one. One image a class that no other covers goes first into the initial labels.

    Raises:
        UserError: a class has no instance, or the initial labels are too few to show every class.
    """
    names = {row["id"]: row["name"] for row in data["categories"]}
    classes = {i: {a["category_id"] for a in rows if not a["iscrowd"]} for i, rows in by_image(data).items()}
    images_of = Counter(c for shown in classes.values() for c in shown)
    missing = [names[c] for c in names if not images_of[c]]
    if missing:
        raise UserError(f"no training image has an instance of '{missing[0]}'; take it out of split.categories or add images")
    rarity = sorted(names, key=lambda c: (images_of[c], c))
    order = sorted(classes)
    random.Random(f"{seed}/split").shuffle(order)

    cover: list[int] = []
    for c in rarity:
        if not any(c in classes[i] for i in cover):
            cover.append(next(i for i in order if c in classes[i]))
    groups: dict[int, list[int]] = {c: [] for c in rarity}
    for i in order:
        if i not in cover:
            groups[next(c for c in rarity if c in classes[i])].append(i)
    place = {i: ((k + 0.5) / len(group), rarity.index(c)) for c, group in groups.items() for k, i in enumerate(group)}
    spread = sorted(place, key=lambda i: place[i])

    n_validation = round(settings.validation_fraction * len(order))
    n_initial = math.ceil(settings.initial_fraction * (len(order) - n_validation) - 1e-9)
    if n_initial < len(cover):
        needed = len(cover) / max(1, len(order) - n_validation)
        raise UserError(
            f"params.yaml: split.initial_fraction: {settings.initial_fraction} of {len(order) - n_validation} images is {n_initial}, "
            f"too few to show every class once; at least {math.ceil(needed * 1000) / 1000} is needed"
        )
    validation, rest = spread[:n_validation], cover + spread[n_validation:]
    return set(rest[:n_initial]), set(rest[n_initial:]), set(validation)


def statistics(parts: dict[str, Coco]) -> dict[str, Any]:
    """Images and instances by part and class, and mask areas in square pixels (regions to ignore left out)."""
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
    return result
