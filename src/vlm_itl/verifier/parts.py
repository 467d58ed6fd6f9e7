"""Which initial images a verifier learns from, and which it is measured on."""

from __future__ import annotations

import random

from ..coco import Coco, by_image, subset
from ..errors import UserError
from ..settings import Verifier

FEWEST = 3  # images of a part: with fewer there is nothing to measure, or to learn


def parts(labels: Coco, settings: Verifier) -> tuple[Coco, Coco, Coco]:
    """The initial labels in three seeded parts: for a detector, for its mistakes, held out.

    A detector trained on the first part proposes on the other two. The verifier learns from the first two, and is measured on the third.

    Raises:
        UserError: a part would have too few images, or a class has no instance to learn from.
    """
    drawn = sorted(i for i, rows in by_image(labels).items() if any(not a["iscrowd"] for a in rows))
    order = list(drawn)
    random.Random(f"verifier/{settings.seed}").shuffle(order)
    held = max(1, round(settings.held_out * len(order)))
    mistaken = max(1, round(settings.mistakes * len(order)))
    sizes = {"held_out": held, "mistakes": mistaken, "rest": len(order) - held - mistaken}
    for name, size in sizes.items():
        if size < FEWEST:
            raise UserError(
                f"verifier: {len(drawn)} initial images with instances are too few for probes ({size} for '{name}', {FEWEST} needed); raise "
                "split.initial_fraction, or change verifier.held_out and verifier.mistakes"
            )
    chosen = (order[held + mistaken :], order[held : held + mistaken], order[:held])
    detector, mistakes, held_out = (subset(labels, set(ids)) for ids in chosen)
    learned = {a["category_id"] for part in (detector, mistakes) for a in part["annotations"] if not a["iscrowd"]}
    for row in labels["categories"]:
        if row["id"] not in learned:
            raise UserError(
                f"verifier: no initial image to learn from shows a '{row['name']}', so there are no probes of it; raise "
                "split.initial_fraction, or leave the class out of select.categories"
            )
    return detector, mistakes, held_out


def together(*labels: Coco) -> Coco:
    """Several parts as one."""
    return {
        "images": [image for part in labels for image in part["images"]],
        "annotations": [row for part in labels for row in part["annotations"]],
        "categories": labels[0]["categories"],
    }
