"""What a tool gives back, in one form whichever tool it was, and what that makes of the proposals: kept, corrected, added, removed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pycocotools import mask as mask_util

from vlm_itl.core.coco import Rle
from vlm_itl.core.errors import UserError
from vlm_itl.drawing.work import Image
from vlm_itl.loop.drawings import MOST_INSTANCES, SAME, Drawing, Instance, Status

NEAR = 0.5  # mask IoU from which on a mask without an id of ours is that of a proposal


@dataclass(frozen=True)
class Given:
    """An instance that came back: its class, its mask, which is not empty, and the proposal that it says it was."""

    label: str
    rle: Rle
    proposal: int | None


@dataclass(frozen=True)
class Returned:
    """An image that came back.

    Attributes:
        image: whose picture it is; None: it was exported with other proposals than today's, or of another picture.
        was_opened: the tool says that somebody has worked on it. Otherwise nobody knows.
        where: what to call it in an error.
        reviewer, drawn_at, seconds: see `loop.drawings.Drawing`.
    """

    image: Image | None
    instances: list[Given]
    tool: Literal["cvat", "label-studio"]
    was_opened: bool
    where: str
    reviewer: str | None = None
    drawn_at: str | None = None
    seconds: float | None = None


def drawing_of(back: Returned, image: Image, reviewer: str | None) -> Drawing:
    """What people drew on an image.

    Args:
        reviewer: who, where it is known better than by the tool.

    Raises:
        UserError: it is about more instances than an image can have.
    """
    if len(back.instances) > MOST_INSTANCES:
        raise UserError(f"{back.where}: {len(back.instances):,} instances; at most {MOST_INSTANCES:,} are taken of an image")
    found = status_of(back.instances, image)
    instances = [Instance(status, one.label, place, one.rle) for one, (status, place) in zip(back.instances, found, strict=True)]
    counts = Counter(one.status for one in instances)
    removed = len(image.offered) - counts["kept"] - counts["corrected"]
    return Drawing(
        image.id, image.shown.image.get("md5"), image.digest, back.tool, reviewer or back.reviewer, back.drawn_at, back.seconds,
        counts["kept"], counts["corrected"], counts["added"], removed, instances,
    )  # fmt: skip


def status_of(instances: list[Given], image: Image) -> list[tuple[Status, int | None]]:
    """(status, place of the proposal or None) of each instance of an image; no proposal is two instances.

    An instance that says which proposal it was is that one; of copies, which say the same, the one with the highest mask IoU. The others
    are matched to the proposals that are left, one to one, as many pairs of mask IoU >= `NEAR` as can be and then the highest IoUs.
    """
    from scipy.optimize import linear_sum_assignment

    offered = image.offered
    if not instances or not offered:
        return [("added", None)] * len(instances)
    overlap = np.asarray(mask_util.iou([one.rle for one in instances], [rle for _, _, rle in offered], [0] * len(offered)))
    column = {place: k for k, (place, _, _) in enumerate(offered)}
    owner: dict[int, int] = {}  # instance by column
    for row, one in enumerate(instances):
        k = None if one.proposal is None else column.get(one.proposal)
        if k is not None and (k not in owner or overlap[row, k] > overlap[owner[k], k]):
            owner[k] = row
    rows = [row for row in range(len(instances)) if row not in owner.values()]
    columns = [k for k in range(len(offered)) if k not in owner]
    if rows and columns:
        left = overlap[np.ix_(rows, columns)]
        near = left >= NEAR
        for r, c in zip(*linear_sum_assignment(near * (1 + left / (1 + min(left.shape))), maximize=True), strict=True):
            if near[r, c]:
                owner[columns[c]] = rows[r]
    names = image.names
    result: list[tuple[Status, int | None]] = [("added", None)] * len(instances)
    for k, row in owner.items():
        place, proposal, _ = offered[k]
        is_same = overlap[row, k] >= SAME and instances[row].label == names[proposal["category_id"]]
        result[row] = ("kept" if is_same else "corrected", place)
    return result
