"""Which images take part: classes, minimum area, images a class, images in all. Nowhere else is an image chosen."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from vlm_itl.core.coco import Coco, by_image, subset
from vlm_itl.core.errors import UserError

if TYPE_CHECKING:
    from vlm_itl.settings import Select

Part = Literal["training", "test"]


def category_ids(categories: Iterable[tuple[int, str]], settings: Select, part: Part, where: str | None = None) -> set[int]:
    """Ids of the chosen classes.

    Args:
        where: the file, for an error.

    Raises:
        UserError: the data has no classes of these names, or two of one.
    """
    ids: dict[str, list[int]] = {}
    for i, name in categories:
        ids.setdefault(name, []).append(i)
    file = f" in {where}" if where else ""
    if unknown := [f"'{name}'" for name in settings.categories if name not in ids]:
        raise UserError(f"params.yaml: select.categories: {part} data has no class {', '.join(unknown)} (it has: {', '.join(ids)}){file}")
    for name in settings.categories:
        if len(ids[name]) > 1:
            raise UserError(
                f"{part} data has the class '{name}' under the ids {' and '.join(map(str, ids[name]))}{file}: "
                "give all its annotations one of them"
            )
    return {ids[name][0] for name in settings.categories}


def select(data: Coco, settings: Select, part: Part) -> Coco:
    """Images with at least one instance of the chosen classes, and only those classes' annotations.

    Instances below `min_area` are not part of the task: they become regions to ignore (`iscrowd`), like COCO's own crowd regions, which
    stay. Neither is an instance to find, and a detection on one is neither right nor wrong. At most `max_*_images_per_class` images of a
    class are drawn, class by class; an image drawn for one class stays with all its instances, so another class can end above the limit,
    as in the first study. `max_images` then keeps that many, with the classes' frequencies.

    Raises:
        UserError: a category is unknown, no image is left, or `max_images` cannot show every class.
    """
    wanted = category_ids(((row["id"], row["name"]) for row in data["categories"]), settings, part)
    kept = [{**a, "iscrowd": int(a["iscrowd"] or a["area"] < settings.min_area)} for a in data["annotations"] if a["category_id"] in wanted]
    images_of: dict[int, set[int]] = {c: set() for c in wanted}
    for a in kept:
        if not a["iscrowd"]:
            images_of[a["category_id"]].add(a["image_id"])
    limits: dict[Part, int | None] = {"training": settings.max_train_images_per_class, "test": settings.max_test_images_per_class}
    chosen: set[int] = set()
    for c in sorted(wanted):
        order = sorted(images_of[c])
        random.Random(f"{settings.seed}/select/{part}/{c}").shuffle(order)
        chosen.update(order[: limits[part]])
    if not chosen:
        smaller = Counter(a["category_id"] for a in kept)
        annotated = ", ".join(f"{row['name']} {smaller[row['id']]}" for row in data["categories"] if row["id"] in wanted)
        crowds = sum(bool(a["iscrowd"]) for a in data["annotations"] if a["category_id"] in wanted)
        raise UserError(
            f"params.yaml: select: no {part} image has an instance of {', '.join(settings.categories)} of at least "
            f"{settings.min_area:g} square pixels that is no crowd (annotations of any size: {annotated}; iscrowd: {crowds})"
        )
    categories = [row for row in data["categories"] if row["id"] in wanted]
    result = subset({**data, "annotations": kept, "categories": categories}, chosen)
    if settings.max_images is not None and len(chosen) > settings.max_images:
        cover, spread = stratified(result, f"{settings.seed}/max_images/{part}")
        if len(cover) > settings.max_images:
            raise UserError(
                f"params.yaml: select.max_images: {settings.max_images} {part} images cannot show every class; {len(cover)} can"
            )
        result = subset(result, set((cover + spread)[: settings.max_images]))
    return result


def left_out(data: Coco, chosen: Coco, settings: Select) -> dict[str, int]:
    """What `select` did with the images of `data`, and with the instances on the `chosen` ones."""
    names = {row["id"]: row["name"] for row in data["categories"]}
    shows = {
        a["image_id"]
        for a in data["annotations"]
        if names[a["category_id"]] in settings.categories and not a["iscrowd"] and a["area"] >= settings.min_area
    }
    return {
        "images": len(chosen["images"]),
        "images_without_instance": len(data["images"]) - len(shows),
        "images_over_limit": len(shows) - len(chosen["images"]),
        "instances": sum(not a["iscrowd"] for a in chosen["annotations"]),
        "ignored_regions": sum(bool(a["iscrowd"]) for a in chosen["annotations"]),
    }


def stratified(data: Coco, seed: str) -> tuple[list[int], list[int]]:
    """(cover, spread): all image ids in a seeded order in which every prefix of `spread` has nearly the classes' frequencies.

    `cover` is one image a class that no other of them shows, rarest class first. The rest is grouped by the rarest class shown, each group
    is shuffled, and the groups are interleaved in proportion.
    """
    classes = classes_of(data)
    images_of = Counter(c for shown in classes.values() for c in shown)
    rarity = sorted(images_of, key=lambda c: (images_of[c], c))
    order = sorted(classes)
    random.Random(seed).shuffle(order)
    cover: list[int] = []
    for c in rarity:
        if not any(c in classes[i] for i in cover):
            cover.append(next(i for i in order if c in classes[i]))
    groups: dict[int, list[int]] = {c: [] for c in rarity}
    for i in order:
        if i not in cover:
            groups[next(c for c in rarity if c in classes[i])].append(i)
    place = {i: ((k + 0.5) / len(group), rarity.index(c)) for c, group in groups.items() for k, i in enumerate(group)}
    return cover, sorted(place, key=lambda i: place[i])


def classes_of(data: Coco) -> dict[int, set[Any]]:
    """Category ids by image id, regions to ignore left out."""
    return {i: {a["category_id"] for a in rows if not a["iscrowd"]} for i, rows in by_image(data).items()}
