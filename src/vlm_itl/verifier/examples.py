"""Rated examples for free: questions whose answer is known, made from labels, and from a detector's proposals on labelled images.

The truth of an example comes from the oracle (`vlm_itl.core.matching`), never from how it was made: a spilled mask that still covers its
instance at the oracle's IoU is right, and one on an ignored region is neither right nor wrong, so it makes no example.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pycocotools import mask as mask_util

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.errors import UserError
from vlm_itl.core.matching import all_right, iou_matrix, rightness
from vlm_itl.probes.making import KINDS, Case

Row = dict[str, Any]

# how a mask is spoiled, how often, and the IoUs from which a degree is drawn: as near to the oracle's limit as the loop's errors are
WRONG = {"eroded": 3, "dilated": 2, "shifted": 3, "cut": 3, "spill-over": 2, "merged": 2, "wrong class": 5}
RIGHT = {"exact": 2, "jitter": 3, "eroded": 1, "dilated": 1, "shifted": 1, "cut": 1, "spill-over": 1}
TRIES = 1000  # of a change that comes out as wanted
GAP = 0.05  # of IoU on either side of the oracle's limit, where nobody could tell


@dataclass(frozen=True)
class Example:
    """A question about an image with its answer."""

    kind: Literal["mask", "missing"]
    change: str  # a kind of `vlm_itl.probes.making`, or `detector`
    image: Row
    rows: list[Row]  # the proposals it is about
    right: bool
    iou: float | None  # `mask`: with the instance of its class that it fits best


def shown(row: Row) -> Row:
    """A label's annotation, or a changed one, as a proposal."""
    rle = row["segmentation"]
    return {
        "image_id": row["image_id"], "category_id": row["category_id"], "segmentation": rle, "score": row.get("score", 1.0),
        "bbox": [float(n) for n in mask_util.toBbox(rle)], "area": float(mask_util.area(rle)),
    }  # fmt: skip


def best_iou(row: Row, truth: list[Row]) -> float:
    """The highest mask IoU of a proposal with an instance of its class; 0 where there is none."""
    same = [t for t in truth if t["category_id"] == row["category_id"] and not t["iscrowd"]]
    return round(float(iou_matrix([row], same).max()), 4) if same else 0.0


class Examples:
    """Makes examples from labels, and from proposals on some of the same images.

    Every one depends on a seed and a number alone, so that a training that was killed goes on with the ones that it would have had.
    """

    def __init__(self, labels: Coco, proposals: Sequence[Row], iou: float) -> None:
        """
        Args:
            labels: images with their true masks.
            proposals: COCO results of a detector that has not seen the images they are on.
            iou: the oracle's.
        """
        self.iou = iou
        self.images = {image["id"]: image for image in labels["images"]}
        self.truth = by_image(labels)
        self.ids = [c["id"] for c in labels["categories"]]
        self.by_class: dict[int, list[tuple[int, int]]] = {c: [] for c in self.ids}
        self.instances = {i: [a for a in rows if not a["iscrowd"]] for i, rows in self.truth.items()}
        self.instances = {i: rows for i, rows in self.instances.items() if rows}
        self.order = sorted(self.instances)
        for i, rows in sorted(self.instances.items()):
            for place, row in enumerate(rows):
                self.by_class[row["category_id"]].append((i, place))
        self.proposed = by_image([row for row in proposals if row["image_id"] in self.images])
        rated = [
            (i, k, right)
            for i, rows in sorted(self.proposed.items())
            for k, right in enumerate(rightness(rows, self.truth.get(i, []), iou))
        ]
        self.mistakes = {right: [(i, k) for i, k, r in rated if r is right] for right in (True, False)}

    def mask(self, dice: random.Random, right: bool, detector: float = 0.0) -> Example:
        """A question about one mask, right or wrong; a share `detector` of them on the detector's own proposals, where it has such."""
        if self.mistakes[right] and dice.random() < detector:
            i, k = dice.choice(self.mistakes[right])
            row = shown(self.proposed[i][k])
            return Example("mask", "detector", self.images[i], [row], right, best_iou(row, self.truth.get(i, [])))
        mix = RIGHT if right else WRONG
        for _ in range(TRIES):
            of = dice.choice([c for c in self.ids if self.by_class[c]])
            i, place = dice.choice(self.by_class[of])
            change = dice.choices(list(mix), list(mix.values()))[0]
            ious = (self.iou + GAP, 0.95) if right else (0.1, self.iou - GAP)
            rows = KINDS[change](Case(self.instances[i], place, dice, self.ids, ious))
            if rows is None:
                continue
            row = shown(rows[place])
            fits = best_iou(row, self.truth[i])
            if rightness([row], self.truth[i], self.iou)[0] is right and (change == "wrong class" or abs(fits - self.iou) >= GAP / 2):
                return Example("mask", change, self.images[i], [row], right, fits)
        raise UserError(f"verifiers: no {'right' if right else 'wrong'} mask can be made from these labels ({len(self.instances)} images)")

    def missing(self, dice: random.Random, right: bool) -> Example:
        """A question about an image: whether everything has its own box. Wrong: some are dropped, or one has two."""
        for _ in range(TRIES):
            i = dice.choice(self.order)
            instances = self.instances[i]
            rows = []
            for place in range(len(instances)):
                change = dice.choice(("exact", "jitter", "eroded", "dilated", "shifted"))
                made = KINDS[change](Case(instances, place, dice, self.ids, (self.iou + GAP, 0.95)))
                rows.append((made or instances)[place])
            change = "exact"
            if not right:
                change = "duplicated" if dice.random() < 0.15 else "dropped"
                if change == "duplicated":
                    place = dice.randrange(len(instances))
                    rows = KINDS[change](Case(rows, place, dice, self.ids, (self.iou + GAP, 0.95))) or rows
                else:
                    n = len(rows) - (1 if dice.random() < 0.6 else dice.randint(1, len(rows)))
                    rows = dice.sample(rows, max(0, n))
            if not rows:
                continue
            dice.shuffle(rows)
            if all_right(rows, self.truth[i], self.iou) is right:
                return Example("missing", change, self.images[i], [shown(r) for r in rows], right, None)
        raise UserError(
            f"verifiers: no {'complete' if right else 'incomplete'} image can be made from these labels ({len(self.order)} images)"
        )

    def draw(self, seed: int, number: int, masks: float = 0.6, detector: float = 0.0) -> Example:
        """The `number`-th example: half of them right, a share `masks` about one mask."""
        dice = random.Random(f"{seed}/{number}")
        right = number % 2 == 0
        return self.mask(dice, right, detector) if dice.random() < masks else self.missing(dice, right)
