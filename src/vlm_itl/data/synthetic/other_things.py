"""Drawn scenes of things that are none of the four classes, for a detector to learn from before it meets those.

They are to `scenes` what COCO's other classes are to four of them: the same world and the same way of drawing, other things in it.
Horses, trees, cars, road signs and ornaments stand unlabelled in the scenes of the four classes; here they are what is labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlm_itl.data.synthetic.canvas import Canvas, Colour, Rng, Sprite, box, limb, mix, oval, pick, smooth, vary
from vlm_itl.data.synthetic.scenes import World, spread
from vlm_itl.data.synthetic.surroundings import (
    board,
    car,
    ground,
    leaves,
    meadow,
    ornament,
    other_sign,
    post,
    room,
    sky,
    street,
    tree,
    tufts,
    waterside,
)
from vlm_itl.data.synthetic.things import quadruped

TREE, CAR, ROAD_SIGN, HORSE, ORNAMENT, BOTTLE, BOAT, AEROPLANE = range(1, 9)
CATEGORIES: list[dict[str, Any]] = [
    {"id": TREE, "name": "tree", "supercategory": "outdoor"},
    {"id": CAR, "name": "car", "supercategory": "vehicle"},
    {"id": ROAD_SIGN, "name": "road sign", "supercategory": "outdoor"},
    {"id": HORSE, "name": "horse", "supercategory": "animal"},
    {"id": ORNAMENT, "name": "ornament", "supercategory": "indoor"},
    {"id": BOTTLE, "name": "bottle", "supercategory": "indoor"},
    {"id": BOAT, "name": "boat", "supercategory": "vehicle"},
    {"id": AEROPLANE, "name": "aeroplane", "supercategory": "vehicle"},
]
PAINT: list[Colour] = [(190, 40, 40), (40, 80, 150), (235, 235, 230), (45, 110, 70), (215, 175, 60), (70, 70, 78), (200, 110, 50)]


# ---------------------------------------------------------------- things that stand in no scene of the four classes


def bottle(rng: Rng, scale: float, width: float, height: float) -> Sprite:
    """Bottle or jar with a label; origin at the middle of its foot; unit: 1 px."""
    s = Sprite(scale, 1.0, (width / 2 + 2, height + 2))
    glass, w = vary(rng, pick(rng, [*PAINT, (50, 90, 60), (120, 75, 40)])), width / 2
    shoulder, neck = rng.uniform(0.5, 0.85) * height, w * rng.uniform(0.3, 0.7)
    half = [(w, 0), (w, -shoulder), (neck, -shoulder - 0.1 * height), (neck, -height)]
    s.fill(np.array([*half, *[(-x, y) for x, y in half[::-1]]]), glass)
    s.paint(box(-neck, -height, neck, -height * 0.93), vary(rng, pick(rng, PAINT)))
    s.paint(box(-w, -shoulder * 0.8, w, -shoulder * rng.uniform(0.2, 0.5)), vary(rng, (232, 222, 196), 20))
    s.paint([box(-w * 0.6, -shoulder * y, w * 0.6, -shoulder * y + 1) for y in (0.6, 0.7)], mix(glass, (20, 20, 25), 0.5))
    s.paint(box(-w * 0.8, -height, -w * 0.55, 0), mix(glass, (255, 255, 255), 0.35))
    return s.finish(rng)


def boat(rng: Rng, scale: float, length: float) -> Sprite:
    """Sailing boat or steamer, cut off at the water line; unit: its length."""
    s = Sprite(scale, length, (0.6, 1.1), foot=0.12, flip=rng.random() < 0.5)
    hull, other = vary(rng, pick(rng, PAINT)), vary(rng, pick(rng, PAINT))
    if rng.random() < 0.5:
        tall = rng.uniform(0.6, 1.0)
        s.fill(limb([(0, 0), (0, -tall)], [0.03]), (90, 70, 50))
        s.fill(np.array([(0.03, -tall), (0.42, -0.08), (0.03, -0.08)]), mix(other, (245, 245, 240), 0.6))
        s.fill(np.array([(-0.03, -tall * 0.9), (-0.35, -0.08), (-0.03, -0.08)]), mix(other, (245, 245, 240), 0.3))
    else:
        s.fill(box(0.0, -0.4, 0.12, -0.1), other)
        s.fill(box(-0.25, -0.22, 0.25, 0), (228, 226, 220))
        s.paint([oval(x, -0.13, 0.035, 0.035) for x in (-0.17, -0.05, 0.07, 0.19)], (60, 75, 90))
    s.part(np.array([(-0.5, -0.06), (0.55, -0.1), (0.42, 0.12), (-0.42, 0.12)]), hull, [(box(-1, 0.05, 1, 0.2), mix(hull, (0, 0, 0), 0.4))])
    return s.finish(rng)


def aeroplane(rng: Rng, scale: float, length: float) -> Sprite:
    """Aeroplane from the side or from below; unit: its length."""
    s = Sprite(scale, length, (0.7, 0.7), flip=rng.random() < 0.5, angle=rng.normal(0, 0.25))
    body, other = vary(rng, pick(rng, PAINT)), vary(rng, pick(rng, PAINT))
    span, sweep, below = rng.uniform(0.3, 0.55), rng.uniform(0, 0.25), rng.random() < 0.5
    for side in (-1, 1) if below else (1,):
        s.fill(np.array([(0.12, 0), (-0.02 - sweep, span), (-0.12 - sweep, span), (-0.1, 0)]) * (1, side * (1 if below else 0.6)), other)
    for side in (-1, 1) if below else (-1,):
        s.fill(np.array([(-0.36, 0), (-0.48, 0.2), (-0.54, 0.2), (-0.48, 0)]) * (1, side), other)
    s.fill(smooth([(0.5, 0), (0.35, -0.08), (-0.3, -0.07), (-0.52, -0.02), (-0.3, 0.06), (0.35, 0.08)]), body)
    s.paint([box(x, -0.03, x + 0.025, 0.0) for x in np.arange(-0.3, 0.35, 0.07)], mix(body, (20, 30, 45), 0.7))
    return s.finish(rng)


# ---------------------------------------------------------------- scenes


def stand_all(c: Canvas, things: Sequence[tuple[Sprite, int, float]], top: float, level: int, grass: Colour) -> None:
    """Put things (sprite, category, width) on the ground between y = top and the lower edge, the farther ones first."""
    rng = c.rng
    places = spread(c, [width for _, _, width in things], (0.0, 0.3, 0.8)[level])
    feet = [float(rng.uniform(min(top, c.height - 4), c.height - 2)) for _ in things]
    for y, x, (sprite, category, width) in sorted(zip(feet, places, things, strict=True), key=lambda placed: placed[0]):
        c.shadow(x, y, width)
        c.stand(sprite, x, y, category)
        if rng.random() < (0.1, 0.3, 0.5)[level]:
            c.add(tufts(rng, c.scale, width, width * rng.uniform(0.1, 0.3), grass), x, y + 1)


def in_front(c: Canvas, level: int) -> None:
    """Perhaps a trunk or leaves before everything."""
    rng = c.rng
    if level == 2 and rng.random() < 0.4:
        c.add(post(rng, c.scale, rng.uniform(4, 8), c.height + 10, (85, 68, 52)), rng.uniform(20, c.width - 20), c.height + 5)
    if level and rng.random() < 0.4:
        c.add(leaves(rng, c.scale, rng.uniform(15, 35)), rng.uniform(0, c.width), rng.uniform(0, c.height))


def signs(c: Canvas, n: int, level: int) -> None:
    """Road signs on their posts."""
    rng = c.rng
    for _ in range(n):
        radius = rng.uniform(*((22, 36), (14, 24), (9, 16))[level])
        x, y = rng.uniform(radius, c.width - radius), rng.uniform(radius, max(c.height * 0.65, radius + 1))
        c.add(post(rng, c.scale, max(2.0, radius * 0.14), c.height * 1.3, vary(rng, (125, 122, 118))), x, y + c.height * 1.25)
        c.add(other_sign(rng, c.scale, radius), x, y, ROAD_SIGN)


def country(c: Canvas, level: int) -> None:
    """Horses, trees and signs in a meadow."""
    rng = c.rng
    horizon, grass = meadow(c, clutter=0)
    for _ in range(rng.poisson((0.5, 1.2, 2.0)[level])):
        height = rng.uniform(25, 70)
        c.stand(tree(rng, c.scale, height, grass[0] > 140), rng.uniform(0, c.width), horizon + rng.uniform(2, 12), TREE)
    size = ((50, 75), (32, 52), (24, 44))[level]
    lengths = [
        float(min(rng.uniform(*size), c.width * 0.5, c.height * 0.55)) for _ in range(rng.integers(*((1, 3), (1, 4), (2, 6))[level]))
    ]
    herd = [(quadruped(rng, c.scale, v, striped=False), HORSE, 1.5 * v) for v in lengths]
    stand_all(c, herd, max(horizon + 6, 1.1 * max(lengths)), level, grass)
    if rng.random() < 0.25:
        signs(c, 1, level)
    in_front(c, level)


def town(c: Canvas, level: int) -> None:
    """Cars, trees and signs in a street."""
    rng = c.rng
    edge = street(c)
    c.layers.clear()  # its own cars, trees and signs have no labels
    for _ in range(rng.poisson((0.4, 0.8, 1.5)[level])):
        c.stand(tree(rng, c.scale, rng.uniform(35, 80)), rng.uniform(0, c.width), edge - 2, TREE)
    size = ((60, 95), (40, 62), (26, 45))[level]
    cars = [float(rng.uniform(*size)) for _ in range(rng.integers(*((1, 2), (1, 3), (2, 5))[level]))]
    stand_all(c, [(car(rng, c.scale, v), CAR, v) for v in cars], edge + 2, level, (110, 125, 80))
    signs(c, int(rng.integers(*((1, 2), (0, 3), (1, 4))[level])), level)
    in_front(c, level)


def shore(c: Canvas, level: int) -> None:
    """Boats on the water, perhaps an aeroplane above."""
    rng = c.rng
    horizon, beach, water = waterside(c)
    size = ((55, 80), (32, 52), (18, 36))[level]
    lengths = [float(rng.uniform(*size)) for _ in range(rng.integers(*((1, 3), (2, 5), (3, 8))[level]))]
    for length, x in sorted(zip(lengths, spread(c, lengths, 0.4), strict=True)):
        y = max(rng.uniform(horizon + 6, max(beach - 3, horizon + 7)), length * 0.7)
        c.shadow(x, y, length * 1.2)
        c.stand(boat(rng, c.scale, length), x, y, BOAT)
        waves = Sprite(c.scale, length, (1, 0.2))
        waves.fill(oval(0, 0.02, 0.6, 0.02), mix(water, (255, 255, 255), 0.4))
        c.add(waves, x, y)
    if rng.random() < 0.3:
        c.add(aeroplane(rng, c.scale, rng.uniform(20, 35)), rng.uniform(15, c.width - 15), rng.uniform(10, 35), AEROPLANE)
    in_front(c, level)


def air(c: Canvas, level: int) -> None:
    """Aeroplanes in the sky or before trees."""
    rng = c.rng
    if rng.random() < 0.7:
        sky(c, c.height)
    else:
        ground(c, 0, vary(rng, pick(rng, ((70, 100, 60), (110, 130, 90), (100, 95, 80)))), (16, 16))
    for _ in range(rng.poisson(0.6)):
        c.stand(tree(rng, c.scale, rng.uniform(40, 90)), rng.uniform(0, c.width), c.height + rng.uniform(0, 12), TREE)
    size = ((60, 95), (38, 60), (20, 38))[level]
    lengths = [float(rng.uniform(*size)) for _ in range(rng.integers(*((1, 2), (1, 4), (4, 8))[level]))]
    for length, x in zip(lengths, spread(c, lengths, 0.4), strict=True):
        y = rng.uniform(min(length / 2, c.height / 2), max(c.height - length / 2, c.height / 2))
        c.add(aeroplane(rng, c.scale, length), x, y, AEROPLANE)
    in_front(c, level)


def indoors(c: Canvas, level: int) -> None:
    """Bottles and ornaments, side by side on shelves or strewn over a table."""
    rng = c.rng
    wood = room(c)
    if rng.random() < (0.4, 0.5, 0.7)[level]:
        shelves = (1, 2, 2 if c.height < c.width else 3)[level]
        pitch = c.height / shelves
        for k in range(shelves):
            base = pitch * (k + 1) - rng.uniform(6, 9)
            board(c, base, base + 4, wood)
            x, tall = rng.uniform(4, 30), min(pitch - 12, rng.uniform(35, 75))
            for _ in range(rng.integers(*((2, 5), (2, 6), (3, 8))[level])):
                width = rng.uniform(8, 20)
                if x + width > c.width:
                    break
                if rng.random() < 0.7:
                    c.add(bottle(rng, c.scale, width, tall * rng.uniform(0.6, 1)), x + width / 2, base, BOTTLE)
                else:
                    width = 1.3 * (high := min(tall, rng.uniform(20, 45)) * 0.7)
                    c.add(ornament(rng, c.scale, high), x + width / 2, base, ORNAMENT)
                x += width + pick(rng, (0.5, rng.uniform(1, 12)))
        return
    top = c.height * rng.uniform(0.45, 0.65)
    board(c, top, c.height, wood)
    things = []
    for _ in range(rng.integers(*((1, 3), (3, 6), (5, 10))[level])):
        high = rng.uniform(*((45, 75), (28, 50), (18, 36))[level])
        if rng.random() < 0.4:
            width = high * rng.uniform(0.25, 0.45)
            things.append((bottle(rng, c.scale, width, high), BOTTLE, width))
        else:
            things.append((ornament(rng, c.scale, high), ORNAMENT, high))
    stand_all(c, things, top + 8, 0, wood)


WORLD = World(
    f"drawn scenes of other things: {', '.join(c['name'] for c in CATEGORIES)}",
    CATEGORIES,
    (country, town, shore, air, indoors),
    (0.24, 0.2, 0.12, 0.16, 0.28),
)
