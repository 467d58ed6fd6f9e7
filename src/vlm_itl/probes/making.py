"""Probes: questions with known answers, made from labels, to measure and calibrate a judge without any further label.

A probe is a labelled image with its true masks as proposals and one of them changed. It is written as one more image of a pool, so that any
judge can be asked about probes as about anything else, and the oracle says which are right.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_util
from scipy import ndimage

from vlm_itl.core.coco import Coco, by_image, decode, encode

Mask = NDArray[np.bool_]
Row = dict[str, Any]
IOUS = (0.2, 0.8)  # with the true mask, of changes that have a degree


def make_probes(labels: Coco, per_kind: int, seed: int) -> tuple[Coco, list[Row], Coco]:
    """Pool, proposals and truth of the probes, as the stages of the loop have them.

    For each kind `per_kind` images are drawn, and in each one instance:

    | kind | change |
    | --- | --- |
    | `exact` | none |
    | `jitter` | an edge of about 2 % of the instance's size more or less, as between two annotators |
    | `eroded`, `dilated`, `shifted` | the same shape smaller, larger or elsewhere, down to an IoU drawn between .2 and .8 |
    | `cut` | what lies on one side of a straight line |
    | `spill-over` | together with the nearer part of the neighbour, down to such an IoU |
    | `merged` | together with the nearest instance of its class |
    | `dropped` | left out; only where another instance is left |
    | `duplicated` | proposed twice, the second time jittered |
    | `wrong class` | another class |

    Returns:
        The pool (each image with `kind`, `source_id` and, where a mask was changed, `iou` with the true one), proposals with score 1, and
        truth. Every choice depends on the seed, the kind and the image, not on the order of the labels.
    """
    rows = by_image(labels)
    images = {image["id"]: image for image in labels["images"]}
    drawable = sorted(i for i, anns in rows.items() if any(not a["iscrowd"] for a in anns))
    pool: Coco = {"images": [], "annotations": [], "categories": labels["categories"]}
    truth: Coco = {**pool, "images": pool["images"], "annotations": []}
    proposals: list[Row] = []
    ids = [c["id"] for c in labels["categories"]]
    for kind, change in KINDS.items():
        order = list(drawable)
        random.Random(f"{seed}/{kind}").shuffle(order)
        made = 0
        for i in order:
            if made == per_kind:
                break
            generator = random.Random(f"{seed}/{kind}/{i}")
            instances = [a for a in rows[i] if not a["iscrowd"]]
            chosen = generator.randrange(len(instances))
            changed = change(Case(instances, chosen, generator, ids, IOUS))
            if changed is None:
                continue
            made += 1
            number = len(pool["images"]) + 1
            row = {**images[i], "id": number, "kind": kind, "source_id": i}
            if kind in GRADED:
                row["iou"] = round(
                    float(mask_util.iou([changed[chosen]["segmentation"]], [instances[chosen]["segmentation"]], [0])[0, 0]), 4
                )
            pool["images"].append(row)
            truth["annotations"] += [{**a, "image_id": number, "id": len(truth["annotations"]) + k} for k, a in enumerate(rows[i], 1)]
            proposals += [{
                "image_id": number, "category_id": a["category_id"], "segmentation": a["segmentation"], "score": 1.0,
                "bbox": [float(n) for n in mask_util.toBbox(a["segmentation"])], "area": float(mask_util.area(a["segmentation"])),
            } for a in changed]  # fmt: skip
    return pool, proposals, truth


class Case(NamedTuple):
    """What a change has to go by."""

    instances: list[Row]  # of one image, no crowds
    chosen: int  # the place of the one to change
    generator: random.Random
    category_ids: list[int]  # of all classes
    ious: tuple[float, float]  # from where the IoU with the true mask is drawn, for graded changes


Change = Callable[[Case], list[Row] | None]  # None where it cannot be made


def _replaced(case: Case, mask: Mask) -> list[Row] | None:
    if not mask.any():
        return None
    return [{**a, "segmentation": encode(mask)} if k == case.chosen else a for k, a in enumerate(case.instances)]


def _mask(case: Case) -> Mask:
    return decode(case.instances[case.chosen]["segmentation"])


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks, 0 where both are empty."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0


def grow(mask: Mask, pixels: int) -> Mask:
    """A mask with an edge of that many pixels more, or, if negative, less (8-neighbours)."""
    if pixels == 0:
        return mask
    change = ndimage.binary_dilation if pixels > 0 else ndimage.binary_erosion
    grown: Mask = change(mask, structure=np.ones((3, 3)), iterations=abs(pixels))
    return grown


def shift(mask: Mask, dy: int, dx: int) -> Mask:
    """A mask moved by that many pixels; what leaves the image is lost."""
    result = np.zeros_like(mask)
    h, w = mask.shape
    if abs(dy) < h and abs(dx) < w:
        result[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)] = mask[
            max(0, -dy) : h + min(0, -dy), max(0, -dx) : w + min(0, -dx)
        ]
    return result


def _exact(case: Case) -> list[Row]:
    return list(case.instances)


def _jittered(mask: Mask, generator: random.Random) -> Mask:
    edge = max(1, round(0.02 * float(np.sqrt(mask.sum()))))
    changed = grow(mask, generator.choice((-edge, edge)))
    return changed if changed.any() else mask


def _jitter(case: Case) -> list[Row] | None:
    return _replaced(case, _jittered(_mask(case), case.generator))


def _until(step: Callable[[Mask, int], Mask], limit: int = 200) -> Change:
    """Change more and more until the IoU falls to a target; the last mask that is not empty where it never does."""

    def change(case: Case) -> list[Row] | None:
        mask = _mask(case)
        target = case.generator.uniform(*case.ious)
        result = mask
        for n in range(1, limit):
            changed = step(mask, n)
            if not changed.any() or (changed == result).all():
                break
            result = changed
            if iou(result, mask) <= target:
                break
        return None if (result == mask).all() else _replaced(case, result)

    return change


def _shifted(case: Case) -> list[Row] | None:
    angle = case.generator.uniform(0, 2 * np.pi)
    return _until(lambda mask, n: shift(mask, round(n * np.sin(angle)), round(n * np.cos(angle))))(case)


def _cut(case: Case) -> list[Row] | None:
    """One side of a straight line."""
    angle = case.generator.uniform(0, 2 * np.pi)
    mask = _mask(case)
    y, x = np.nonzero(mask)
    place = y * np.sin(angle) + x * np.cos(angle)
    kept = np.zeros_like(mask)
    side = place <= np.quantile(place, case.generator.uniform(*case.ious))
    kept[y[side], x[side]] = True
    return _replaced(case, kept)


def _near(case: Case, same_class: bool) -> Mask | None:
    """The mask of the instance that lies nearest, box centre to box centre."""
    me = case.instances[case.chosen]
    others = [a for k, a in enumerate(case.instances) if k != case.chosen and (a["category_id"] == me["category_id"] or not same_class)]
    if not others:
        return None

    def centre(row: Row) -> NDArray[np.float64]:
        x, y, w, h = mask_util.toBbox(row["segmentation"])
        return np.array([x + w / 2, y + h / 2])

    return decode(min(others, key=lambda a: float(np.hypot(*(centre(a) - centre(me)))))["segmentation"])


def _merged(case: Case) -> list[Row] | None:
    neighbour = _near(case, same_class=True)
    return None if neighbour is None else _replaced(case, _mask(case) | neighbour)


def _spilled(case: Case) -> list[Row] | None:
    """Over the nearer part of a neighbour, until the IoU falls to the target, or over all of it."""
    neighbour, mask = _near(case, same_class=False), _mask(case)
    if neighbour is None or not (neighbour & ~mask).any():
        return None
    area, target = int(mask.sum()), case.generator.uniform(*case.ious)
    wanted = round(area / target) - area  # IoU = area / (area + spilled)
    distance = np.where(neighbour & ~mask, ndimage.distance_transform_edt(~mask), np.inf)
    limit = np.sort(distance[np.isfinite(distance)])[: max(1, wanted)][-1]
    return _replaced(case, mask | (distance <= limit))


def _dropped(case: Case) -> list[Row] | None:
    return [a for k, a in enumerate(case.instances) if k != case.chosen] or None


def _duplicated(case: Case) -> list[Row] | None:
    twin = _jittered(_mask(case), case.generator)
    return [*case.instances, {**case.instances[case.chosen], "segmentation": encode(twin)}]


def _wrong_class(case: Case) -> list[Row] | None:
    others = [c for c in case.category_ids if c != case.instances[case.chosen]["category_id"]]
    if not others:
        return None
    return [{**a, "category_id": case.generator.choice(others)} if k == case.chosen else a for k, a in enumerate(case.instances)]


KINDS: dict[str, Change] = {
    "exact": _exact,
    "jitter": _jitter,
    "eroded": _until(lambda mask, n: grow(mask, -n)),
    "dilated": _until(grow),
    "shifted": _shifted,
    "cut": _cut,
    "spill-over": _spilled,
    "merged": _merged,
    "dropped": _dropped,
    "duplicated": _duplicated,
    "wrong class": _wrong_class,
}
GRADED = ("exact", "jitter", "eroded", "dilated", "shifted", "cut", "spill-over", "merged")  # kinds with the IoU of a changed mask
