"""Drawn scenes of things that are none of the four classes, for a detector to learn from before it meets those.

They are to `synthetic` what COCO's other classes are to four of them: the same world and the same way of drawing, other things in it.
Horses, trees, cars, road signs and ornaments stand unlabelled in the scenes of the four classes; here they are what is labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .synthetic import (
    Canvas,
    Colour,
    Points,
    Rng,
    Sprite,
    World,
    board,
    box,
    car,
    ground,
    leaves,
    limb,
    meadow,
    mix,
    ornament,
    other_sign,
    oval,
    pick,
    post,
    quadruped,
    room,
    sky,
    slabs,
    smooth,
    spread,
    street,
    tree,
    tufts,
    turn,
    vary,
    waterside,
)

TREE, CAR, ROAD_SIGN, HORSE, ORNAMENT, BOTTLE, BOAT, AEROPLANE, CAT, BUTTERFLY, BALLOON, PACKET, FLOWER, PERSON = range(1, 15)
NAMES = ("tree", "car", "road sign", "horse", "ornament", "bottle", "boat", "aeroplane", "cat", "butterfly", "balloon", "packet", "flower",
         "person")  # fmt: skip
CATEGORIES: list[dict[str, Any]] = [{"id": k, "name": name, "supercategory": "thing"} for k, name in enumerate(NAMES, 1)]
PAINT: list[Colour] = [(190, 40, 40), (40, 80, 150), (235, 235, 230), (45, 110, 70), (215, 175, 60), (70, 70, 78), (200, 110, 50)]


# ---------------------------------------------------------------- things that `synthetic` has no sprite of


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


def cat(rng: Rng, scale: float, length: float) -> Sprite:
    """Cat that sits or walks, plain, spotted or tabby; unit: the length of its trunk."""
    s = Sprite(scale, length, (1.2, 1.1), foot=0.5, flip=rng.random() < 0.5, angle=rng.normal(0, 0.06))
    coat = vary(rng, pick(rng, ((215, 130, 60), (60, 58, 62), (235, 230, 222), (140, 130, 125), (120, 90, 65))))
    dark, sits = mix(coat, (30, 22, 18), 0.6), rng.random() < 0.5
    kind = pick(rng, ("plain", "tabby", "spotted"))
    tilt, plump = -rng.uniform(0.6, 1.1) if sits else 0.0, rng.uniform(0.8, 1.2)
    tail = np.array([(-0.4, 0.0), (-0.75, 0.1 + rng.normal(0, 0.1)), (-0.85, -0.3), (-0.7 + rng.normal(0, 0.1), -0.6)])
    s.fill(limb(smooth(turn(tail, tilt * 0.3) + (0, 0.25 if sits else 0), closed=False), (0.12, 0.1, 0.08)), coat)
    for x in (0.2, 0.34) if sits else (-0.4, -0.28, 0.28, 0.4):
        s.fill(limb([(x, 0.0), (x + rng.normal(0, 0.06), 0.47)], (0.18, 0.1)), mix(coat, dark, rng.uniform(0, 0.3)))
    trunk = smooth(np.array([(0.5, -0.16), (0.2, -0.24), (-0.3, -0.22), (-0.52, 0), (-0.45, 0.25), (0, 0.2), (0.42, 0.2)]) * (1, plump))
    bars = slabs((-0.5, 0), (0.5, 0), np.linspace(0.05, 0.95, 8), 0.05, rng.uniform(0.1, 0.3))
    spots = [oval(*rng.uniform((-0.5, -0.25), (0.5, 0.25)), *rng.uniform(0.05, 0.2, 2)) for _ in range(4)]
    marks: list[Points] = {"plain": [], "tabby": bars, "spotted": spots}[kind]
    s.part(turn(trunk, tilt), coat, [([turn(mark, tilt) for mark in marks], dark)] if marks else [])
    head = turn([(0.56, -0.2)], tilt * 0.6)[0]
    for side in (-1, 1):
        s.fill(np.array([(side * 0.2, -0.02), (side * 0.19, -0.32), (side * 0.03, -0.18)]) + head, mix(coat, dark, 0.3))
        s.fill(oval(head[0], head[1], 0.23, 0.2), coat)
    s.paint([oval(head[0] + x, head[1] - 0.03, 0.035, 0.045) for x in (-0.08, 0.1)], (60, 110, 50))
    s.paint(oval(head[0] + 0.02, head[1] + 0.07, 0.04, 0.03), (190, 110, 110))
    return s.finish(rng)


def butterfly(rng: Rng, scale: float, span: float) -> Sprite:
    """Butterfly or moth, its wings spread or half closed; unit: its span."""
    s = Sprite(scale, span, (0.75, 0.75), angle=rng.normal(0, 0.6), squeeze=rng.uniform(0.45, 1))
    wing, edge = vary(rng, pick(rng, PAINT)), vary(rng, pick(rng, ((30, 28, 30), (80, 50, 40), (240, 235, 220))))
    high, low, ring = rng.uniform(0.25, 0.45), rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.6)
    for side in (-1, 1):
        for outline in (
            [(0.02, 0.05), (0.3, 0.08), (0.36, low), (0.2, low + 0.06)],
            [(0.02, 0.04), (0.14, -high * 0.8), (0.48, -high), (0.46, -0.08), (0.25, 0.06)],
        ):
            shape = smooth(np.array(outline) * (side, 1))
            middle = shape.mean(0)
            s.part(shape, edge, [(middle + (shape - middle) * 0.75, wing), (oval(middle[0], middle[1], 0.1 * ring, 0.1 * ring), edge)])
    s.fill(limb([(0, -0.18), (0, 0.2)], (0.06, 0.05, 0.03)), (40, 32, 30))
    s.fill([limb([(0, -0.18), (side * 0.1, -0.36)], [0.02])[0] for side in (-1, 1)], (40, 32, 30))
    return s.finish(rng)


def balloon(rng: Rng, scale: float, radius: float) -> Sprite:
    """Hot-air balloon, plain, striped or banded; unit: the radius of its envelope."""
    s = Sprite(scale, radius, (1.1, 2.0))
    one, other = vary(rng, pick(rng, PAINT)), vary(rng, pick(rng, PAINT))
    wide = [(x, 0.9 + 0.1 * abs(x)) for x in (-0.35, 0.35)]
    for x, y in wide:
        s.fill(limb([(x, y), (x * 0.6, 1.5)], [0.04]), (90, 75, 55))
    s.fill(box(-0.25, 1.45, 0.25, 1.8), vary(rng, (135, 95, 55)))
    outline = smooth([(0, -1), (0.7, -0.72), (1, -0.05), (0.75, 0.6), (0.35, 1.0), (-0.35, 1.0), (-0.75, 0.6), (-1, -0.05), (-0.7, -0.72)])
    n = int(rng.integers(3, 8))
    stripes = [limb(smooth([(0, -1), (x, 0), (0.35 * x, 1)], closed=False), (0.05, 1.0 / n, 0.05))[0] for x in np.linspace(-0.85, 0.85, n)]
    bands = [box(-2, y, 2, y + rng.uniform(0.1, 0.3)) for y in rng.uniform(-0.8, 0.7, 2)]
    s.part(outline, one, [(pick(rng, (stripes, bands, [oval(0, 0, 0.4, 0.4)])), other)])
    return s.finish(rng)


def packet(rng: Rng, scale: float, width: float, height: float) -> Sprite:
    """Box of goods with its side and its print; origin at the middle of its lower edge; unit: 1 px."""
    deep, w = width * rng.uniform(0.08, 0.35), width / 2
    s = Sprite(scale, 1.0, (w + deep + 2, height * 1.2 + 2), flip=rng.random() < 0.5)
    colour = vary(rng, pick(rng, [*PAINT, (175, 135, 90)]), 14)
    ink = mix(colour, pick(rng, ((250, 245, 230), (20, 20, 25))), 0.85)
    up = deep * rng.uniform(0.2, 0.6)
    s.fill(np.array([(w, 0), (w + deep, -up), (w + deep, -height - up), (w, -height)]), mix(colour, (0, 0, 0), 0.4))
    s.fill(np.array([(-w, -height), (-w + deep, -height - up), (w + deep, -height - up), (w, -height)]), mix(colour, (255, 255, 255), 0.3))
    s.fill(box(-w, -height, w, 0), colour)
    y = height * rng.uniform(0.55, 0.85)
    s.paint(
        pick(rng, (oval(0, -height * 0.35, w * 0.6, height * 0.2), box(-w, -height * 0.5, w, -height * 0.2))),
        vary(rng, pick(rng, PAINT), 20),
    )
    s.paint([box(x, -y, x + 1.5, -y + 2) for x in np.arange(-w * 0.7, w * 0.7, 2.2)], ink)
    return s.finish(rng)


def flower(rng: Rng, scale: float, height: float) -> Sprite:
    """Flower on its stem; origin at its foot; unit: its height."""
    s = Sprite(scale, height, (0.7, 1.3))
    green, petal = vary(rng, (75, 130, 60)), vary(rng, pick(rng, [*PAINT, (230, 130, 180), (150, 90, 190)]))
    top = np.array([rng.normal(0, 0.12), -rng.uniform(0.75, 0.95)])
    s.fill(limb(smooth([(0, 0), (top[0] * 0.2, -0.4), top], closed=False), [0.05]), green)
    for side in (-1, 1):
        s.fill(oval(side * 0.16, -rng.uniform(0.15, 0.4), 0.19, 0.06, -side * rng.uniform(0.2, 0.9)), green)
    n, r = int(rng.integers(5, 10)), rng.uniform(0.15, 0.26)
    for k in range(n):
        at = turn([(r * 0.75, 0)], 2 * np.pi * k / n)[0] + top
        s.fill(oval(at[0], at[1], r * 0.6, r * 0.35, 2 * np.pi * k / n), vary(rng, petal, 10))
    s.fill(oval(top[0], top[1], r * 0.45, r * 0.45), vary(rng, (220, 180, 60)))
    return s.finish(rng)


def person(rng: Rng, scale: float, height: float) -> Sprite:
    """Person who stands or walks; unit: the height."""
    s = Sprite(scale, height, (0.5, 1.1), flip=rng.random() < 0.5)
    shirt, trousers, skin = (vary(rng, pick(rng, colours)) for colours in (PAINT, PAINT, ((225, 180, 150), (150, 105, 75), (95, 65, 50))))
    step, swing = rng.uniform(0, 0.14), rng.uniform(0.02, 0.22)
    for side in (-1, 1):
        s.fill(limb([(side * 0.03, -0.5), (side * step * 0.7, -0.25), (side * step, -0.02)], (0.13, 0.09, 0.07)), trousers)
        s.fill(box(side * step - 0.04, -0.04, side * step + 0.08, 0), (45, 38, 35))
        arm = [(side * 0.06, -0.76), (side * swing, -0.6), (side * swing + 0.05, -0.45)]
        s.fill(limb(arm, (0.07, 0.05)), mix(shirt, (0, 0, 0), 0.2))
        s.fill(oval(*arm[-1], 0.03, 0.03), skin)
    bars = [box(-1, y, 1, y + 0.03) for y in np.arange(-0.8, -0.45, 0.07)]
    s.part(smooth([(-0.08, -0.8), (0.08, -0.8), (0.1, -0.6), (0.08, -0.45), (-0.08, -0.45), (-0.1, -0.6)]), shirt,
           [(bars, mix(shirt, (245, 245, 245), 0.6))] if rng.random() < 0.3 else [])  # fmt: skip
    s.fill(oval(0.01, -0.9, 0.07, 0.085), skin)
    s.paint(box(-1, -1.2, 1, -0.92), vary(rng, pick(rng, ((40, 30, 25), (190, 150, 80), (120, 60, 40)))))
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


def some(c: Canvas, level: int, counts: tuple[int, int, int]) -> int:
    """How many things: about the count of the level, one at least."""
    return 1 + int(c.rng.poisson(counts[level] - 1))


def sized(c: Canvas, level: int) -> float:
    """The size of a thing, smaller at higher levels, px."""
    return float(c.rng.uniform(*((45, 75), (30, 52), (18, 38))[level]))


def standing(c: Canvas, kind: int, size: float) -> tuple[Sprite, int, float]:
    """A thing that stands, its category, and its width."""
    rng, scale = c.rng, c.scale
    if kind == HORSE:
        return quadruped(rng, scale, size, striped=False), kind, 1.5 * size
    if kind == CAR:
        return car(rng, scale, 1.3 * size), kind, 1.3 * size
    if kind in (BOTTLE, PACKET):
        tall = 1.2 * size
        width = tall * rng.uniform(*((0.2, 0.45) if kind == BOTTLE else (0.25, 1.3)))
        return (bottle if kind == BOTTLE else packet)(rng, scale, width, tall), kind, width
    draw, width = {
        CAT: (cat, 1.4), ORNAMENT: (ornament, 0.9), FLOWER: (flower, 0.6), PERSON: (person, 0.5), TREE: (tree, 0.6),
    }[kind]  # fmt: skip
    tall = size * {CAT: 0.7, PERSON: 1.4, TREE: 1.4}.get(kind, 1.0)
    return draw(rng, scale, tall), kind, width * tall


def flying(c: Canvas, n: int, level: int, bottom: float, kinds: Sequence[int]) -> None:
    """Things in the air, above y = bottom."""
    rng = c.rng
    sizes = [sized(c, level) for _ in range(n)]
    for size, x in zip(sizes, spread(c, [1.2 * v for v in sizes], 0.4), strict=True):
        kind = pick(rng, kinds)
        draw, share = {AEROPLANE: (aeroplane, 1.2), BUTTERFLY: (butterfly, 0.9), BALLOON: (balloon, 0.5)}[kind]
        c.add(draw(rng, c.scale, size * share), x, rng.uniform(min(size / 2, bottom / 2), max(bottom - size / 2, bottom / 2)), kind)


def country(c: Canvas, level: int) -> None:
    """Horses, cats, people and flowers in a meadow with trees, perhaps signs, and things in the air."""
    rng = c.rng
    horizon, grass = meadow(c, clutter=0)
    for _ in range(rng.poisson((0.5, 1.0, 1.5)[level])):
        far = tree(rng, c.scale, rng.uniform(25, 70), grass[0] > 140)
        c.stand(far, rng.uniform(0, c.width), horizon + rng.uniform(2, 12), TREE)
    if rng.random() < 0.3:
        flying(c, 1, 2, max(horizon, 30), (AEROPLANE, BALLOON, BUTTERFLY))
    kinds = pick(rng, ((HORSE,), (HORSE, CAT, PERSON), (FLOWER,), (CAT, FLOWER, PERSON)), (0.4, 0.2, 0.2, 0.2))
    herd = [standing(c, pick(rng, kinds), sized(c, level)) for _ in range(some(c, level, (2, 3, 5)))]
    stand_all(c, herd, horizon + 14, level, grass)
    if rng.random() < 0.2:
        signs(c, 1, level)
    in_front(c, level)


def town(c: Canvas, level: int) -> None:
    """Cars, people, cats, trees and signs in a street."""
    rng = c.rng
    edge = street(c)
    c.layers.clear()  # its own cars, trees and signs have no labels
    for _ in range(rng.poisson((0.4, 0.8, 1.2)[level])):
        c.stand(tree(rng, c.scale, rng.uniform(35, 80)), rng.uniform(0, c.width), edge - 2, TREE)
    things = [standing(c, pick(rng, (CAR, PERSON, CAT), (0.5, 0.35, 0.15)), sized(c, level)) for _ in range(some(c, level, (2, 2, 4)))]
    stand_all(c, things, edge + 2, level, (110, 125, 80))
    signs(c, int(rng.integers(*((0, 2), (0, 3), (1, 4))[level])), level)
    in_front(c, level)


def shore(c: Canvas, level: int) -> None:
    """Boats on the water, perhaps something in the air."""
    rng = c.rng
    horizon, beach, water = waterside(c)
    lengths = [sized(c, level) for _ in range(some(c, level, (2, 3, 5)))]
    for length, x in sorted(zip(lengths, spread(c, lengths, 0.4), strict=True)):
        y = max(rng.uniform(horizon + 6, max(beach - 3, horizon + 7)), length * 0.7)
        c.shadow(x, y, length * 1.2)
        c.stand(boat(rng, c.scale, length), x, y, BOAT)
        waves = Sprite(c.scale, length, (1, 0.2))
        waves.fill(oval(0, 0.02, 0.6, 0.02), mix(water, (255, 255, 255), 0.4))
        c.add(waves, x, y)
    if rng.random() < 0.4:
        flying(c, 1, 2, max(horizon, 30), (AEROPLANE, BALLOON, BUTTERFLY))
    in_front(c, level)


def air(c: Canvas, level: int) -> None:
    """Aeroplanes, balloons and butterflies in the sky or before green; or cats on a branch."""
    rng = c.rng
    if rng.random() < 0.6:
        sky(c, c.height)
    else:
        ground(c, 0, vary(rng, pick(rng, ((70, 100, 60), (110, 130, 90), (100, 95, 80)))), (16, 16))
    for _ in range(rng.poisson(0.5)):
        c.stand(tree(rng, c.scale, rng.uniform(40, 90)), rng.uniform(0, c.width), c.height + rng.uniform(0, 12), TREE)
    if rng.random() < 0.25:
        y = c.height * rng.uniform(0.55, 0.85)
        twig = Sprite(c.scale, 1.0, (c.width, 10))
        twig.fill(limb([(-c.width, 0), (c.width, 0)], [rng.uniform(3, 7)]), vary(rng, (95, 75, 58)))
        c.add(twig.finish(rng), c.width / 2, y)
        cats = [standing(c, CAT, sized(c, level)) for _ in range(some(c, level, (1, 2, 4)))]
        for (sprite, kind, _), x in zip(cats, spread(c, [width for _, _, width in cats], 0.3), strict=True):
            c.stand(sprite, x, y, kind)
    else:
        kinds = pick(rng, ((AEROPLANE,), (BUTTERFLY,), (BALLOON,), (AEROPLANE, BUTTERFLY, BALLOON)))
        flying(c, some(c, level, (1, 3, 6)), level, c.height, kinds)
    in_front(c, level)


def indoors(c: Canvas, level: int) -> None:
    """Bottles, packets, ornaments and cats, side by side on shelves or strewn over a table."""
    rng = c.rng
    wood = room(c)
    if rng.random() < (0.4, 0.5, 0.7)[level]:
        shelves = (1, 2, 2 if c.height < c.width else 3)[level]
        pitch = c.height / shelves
        for k in range(shelves):
            base = pitch * (k + 1) - rng.uniform(6, 9)
            board(c, base, base + 4, wood)
            x, tall, gap = rng.uniform(2, 30), min(pitch - 12, rng.uniform(35, 75)), pick(rng, (0.5, 8))
            kinds = pick(rng, ((BOTTLE,), (PACKET,), (BOTTLE, PACKET, ORNAMENT)))
            for _ in range(some(c, level, (3, 4, 6))):
                sprite, kind, width = standing(c, pick(rng, kinds), tall * rng.uniform(0.6, 0.8))
                if x + width > c.width:
                    break
                c.add(sprite, x + width / 2, base, kind)
                x += width + rng.uniform(0, gap)
        return
    top = c.height * rng.uniform(0.45, 0.65)
    board(c, top, c.height, wood)
    kinds = (BOTTLE, ORNAMENT, PACKET, CAT, FLOWER)
    things = [standing(c, pick(rng, kinds, (0.25, 0.3, 0.3, 0.1, 0.05)), sized(c, level)) for _ in range(some(c, level, (2, 4, 6)))]
    stand_all(c, things, top + 8, level if rng.random() < 0.3 else 0, wood)


WORLD = World(
    f"drawn scenes of other things: {', '.join(c['name'] for c in CATEGORIES)}",
    CATEGORIES,
    (country, town, shore, air, indoors),
    (0.24, 0.16, 0.12, 0.2, 0.28),
)
