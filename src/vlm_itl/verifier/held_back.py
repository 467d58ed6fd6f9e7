"""Which initial images a verifier learns from, and which it is measured on."""

from __future__ import annotations

import random

from vlm_itl.core.coco import Coco, by_image, originals, subset
from vlm_itl.core.errors import UserError
from vlm_itl.settings import HoldBack

FEWEST = 3  # images to learn from, and to measure on


def divide(labels: Coco, settings: HoldBack) -> tuple[Coco, Coco, Coco]:
    """The initial labels in three seeded parts: for a detector, for its mistakes, held out.

    A detector trained on the first part proposes on the other two. A verifier learns from the first two, and is measured on the third. Of
    very few images a part may be empty. Copies of a picture count once and stay together.
    """
    drawn = {i for i, rows in by_image(labels).items() if any(not a["iscrowd"] for a in rows)}
    original = originals([image for image in labels["images"] if image["id"] in drawn])
    order = sorted(set(original.values()))
    random.Random(f"hold back/{settings.seed}").shuffle(order)
    held = round(settings.held_out * len(order))
    mistaken = round(settings.mistakes * len(order))
    detector, mistakes, held_out = (
        subset(labels, {i for i, first in original.items() if first in ids})
        for ids in map(set, (order[held + mistaken :], order[held : held + mistaken], order[:held]))
    )
    return detector, mistakes, held_out


def check(fit: Coco, held_out: Coco) -> None:
    """Raises:
    UserError: there are too few images to learn from or to measure on, or a class has no instance to learn from.
    """
    for name, part in (("to learn from", fit), ("held out", held_out)):
        if len(part["images"]) < FEWEST:
            raise UserError(
                f"verifiers: {len(part['images'])} initial images {name} are too few for probes, {FEWEST} are needed; raise "
                "split.initial_fraction or change hold_back"
            )
    learned = {a["category_id"] for a in fit["annotations"] if not a["iscrowd"]}
    for row in fit["categories"]:
        if row["id"] not in learned:
            raise UserError(
                f"verifiers: no initial image to learn from shows a '{row['name']}', so there are no probes of it; raise "
                "split.initial_fraction, or leave the class out of select.categories"
            )


def together(*labels: Coco) -> Coco:
    """Several parts as one."""
    return {
        "images": [image for part in labels for image in part["images"]],
        "annotations": [row for part in labels for row in part["annotations"]],
        "categories": labels[0]["categories"],
    }
