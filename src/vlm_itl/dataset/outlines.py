"""Polygons along the edges of a mask's pixels, which give the very same mask when they are filled again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int]  # x, y of a corner of the pixel grid


def polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """COCO polygons, [x1, y1, x2, y2, ...] each, of a mask of shape (height, width); none of an empty one.

    Parts that touch at a corner alone are polygons of their own. COCO's polygons cannot have holes, so the mask is cut into bands of rows
    that leave no hole whole. `pycocotools` fills them to the same mask.
    """
    outer, holes = loops(mask)
    cuts = [0]  # the fewest: a hole is cut as late as possible, and only if no cut for another one has met it
    for first, last in sorted(((min(y for _, y in hole), max(y for _, y in hole)) for hole in holes), key=lambda rows: rows[1]):
        if cuts[-1] <= first:
            cuts.append(last)
    if holes:
        bands = pairwise([*cuts, len(mask)])
        outer = [[(x, y + begin) for x, y in loop] for begin, end in bands for loop in loops(mask[begin:end])[0]]
    return [[float(n) for corner in loop for n in corner] for loop in outer]


def loops(mask: NDArray[np.bool_]) -> tuple[list[list[Corner]], list[list[Corner]]]:
    """(outer edges, edges of holes) of a mask, as loops of corners where the direction changes.

    Every edge between a pixel of the mask and another has the mask on its right. So outer edges run clockwise as seen, y down, and those
    of holes the other way.
    """
    padded = np.pad(mask, 1)
    follows: dict[Corner, list[Corner]] = {}

    def add(has_edge: NDArray[np.bool_], begin: Corner, end: Corner) -> None:
        for y, x in np.argwhere(has_edge).tolist():
            follows.setdefault((x + begin[0], y + begin[1]), []).append((x + end[0], y + end[1]))

    inside = padded[1:-1, 1:-1]
    add(inside & ~padded[:-2, 1:-1], (0, 0), (1, 0))  # upper edges, to the right
    add(inside & ~padded[1:-1, 2:], (1, 0), (1, 1))  # right ones, down
    add(inside & ~padded[2:, 1:-1], (1, 1), (0, 1))  # lower ones, to the left
    add(inside & ~padded[1:-1, :-2], (0, 1), (0, 0))  # left ones, up
    outer: list[list[Corner]] = []
    holes: list[list[Corner]] = []
    while follows:
        start = next(iter(follows))
        loop = [start]
        corner, before = _step(follows, start, (0, 0))
        while corner != start or _right(follows.get(start, []), start, before) is not None:
            loop.append(corner)
            corner, before = _step(follows, corner, before)
        turns = [here for last, here, after in zip([loop[-1], *loop], loop, [*loop[1:], start]) if _way(last, here) != _way(here, after)]
        (outer if _area(turns) > 0 else holes).append(turns)
    return outer, holes


def _step(follows: dict[Corner, list[Corner]], corner: Corner, before: Corner) -> tuple[Corner, Corner]:
    """Take an edge from a corner: (its end, its direction). Where two pixels touch there, a turn to the right stays with the same one."""
    ways = follows[corner]
    after = ways.pop(_right(ways, corner, before) or 0)
    if not ways:
        del follows[corner]
    return after, _way(corner, after)


def _right(ways: list[Corner], corner: Corner, before: Corner) -> int | None:
    """Which of the edges from a corner turns to the right, None if none does."""
    return next((k for k, way in enumerate(ways) if _way(corner, way) == (-before[1], before[0])), None)


def _way(one: Corner, other: Corner) -> Corner:
    return other[0] - one[0], other[1] - one[1]


def _area(loop: list[Corner]) -> float:
    """Above 0 of a loop that runs clockwise, y down (the shoelace formula)."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(loop, [*loop[1:], loop[0]])) / 2
