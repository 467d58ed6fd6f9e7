"""The scenes of the four classes: what stands where in a picture, and how often each scene comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_itl.data.synthetic.canvas import Canvas, Colour, Layer, Rng, Sprite, box, limb, mix, oval, pick, smooth, vary
from vlm_itl.data.synthetic.surroundings import (
    board,
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
from vlm_itl.data.synthetic.things import (
    BIRD,
    BOOK,
    CATEGORIES,
    STOP_SIGN,
    ZEBRA,
    cover,
    flying_bird,
    lying_book,
    open_book,
    perched_bird,
    quadruped,
    spine,
    stop_sign,
    swimming_bird,
    wading_bird,
)


@dataclass(frozen=True)
class World:
    """What there is to draw: classes as COCO lists them, and scenes (drawn on a canvas at a level 0 to 2) with how often each comes."""

    description: str
    categories: list[dict[str, Any]]
    scenes: tuple[Callable[[Canvas, int], None], ...]
    weights: tuple[float, ...]


def spread(c: Canvas, widths: Sequence[float], tight: float) -> list[float]:
    """Places x for things of these widths side by side, nearer together the tighter (0 to 1)."""
    order = c.rng.permutation(len(widths))
    total = sum(widths)
    room_left = max(c.width - total * (1 - 0.5 * tight), c.width * 0.15)
    gaps = c.rng.dirichlet(np.ones(len(widths) + 1)) * room_left
    squeeze = min(1.0, (c.width - room_left) / total)
    places, x = [0.0] * len(widths), 0.0
    for i, gap in zip(order, gaps[:-1], strict=True):
        x += gap + widths[i] * squeeze
        places[i] = x - widths[i] * squeeze / 2
    return places


def zebra_scene(c: Canvas, level: int) -> None:
    """Zebras in the savanna, perhaps with horses and birds; harder means more, smaller and hidden ones."""
    rng = c.rng
    horizon, grass = meadow(c)
    n = int(pick(rng, ((1, 1, 1, 2), (2, 2, 3), (3, 4, 5))[level]))
    size = ((55, 80), (36, 56), (28, 48))[level]
    lengths = [float(min(rng.uniform(*size), c.width * 0.52, c.height * 0.6)) for _ in range(n)]
    kinds = [True] * n
    if rng.random() < (0.1, 0.3, 0.4)[level]:
        lengths, kinds = [*lengths, rng.uniform(25, 40)], [*kinds, False]
    places = spread(c, [1.5 * v for v in lengths], (0.0, 0.3, 0.8)[level])
    herd = sorted(zip(lengths, places, kinds, strict=True))
    for length, x, striped in herd:
        low = max(horizon + 6, 1.1 * length + 2)
        y = float(np.clip(low + (c.height - low) * rng.uniform(0.1, 0.85), low, c.height + 0.1 * length * level))
        c.shadow(x, y, length * 1.3)
        c.stand(quadruped(rng, c.scale, length, striped), x, y, ZEBRA if striped else 0)
        if rng.random() < (0.15, 0.4, 0.6)[level]:
            c.add(tufts(rng, c.scale, length * 1.5, length * rng.uniform(0.15, 0.4), grass), x, y + 1)
    if rng.random() < 0.16:
        birds(c, horizon, grass, 1 + int(rng.integers(2)), (12, 18), "any")
    if level == 2 and rng.random() < 0.5:
        c.add(
            post(rng, c.scale, rng.uniform(4, 8), c.height + 10, (85, 68, 52)),
            rng.uniform(20, c.width - 20),
            c.height + 5,
        )
    if level and rng.random() < 0.3:
        c.add(leaves(rng, c.scale, rng.uniform(20, 40)), rng.uniform(0, c.width), rng.uniform(0, 15))


def birds(c: Canvas, horizon: float, grass: Colour, n: int, size: tuple[float, float], way: str) -> None:
    """Add n birds that fly above or stand below the horizon."""
    rng = c.rng
    sizes = [float(rng.uniform(*size)) for _ in range(n)]
    for length, x in sorted(zip(sizes, spread(c, [1.8 * v for v in sizes], 0.3), strict=True)):
        if way == "fly" or (way == "any" and rng.random() < 0.5):
            y = rng.uniform(min(length, horizon), max(horizon * 0.9, length + 4))
            c.add(flying_bird(rng, c.scale, length), x, y, BIRD)
        else:
            y = rng.uniform(max(horizon + 8, length * 1.6), c.height - 3)
            draw: Callable[[Rng, float, float], Sprite] = pick(rng, (perched_bird, wading_bird), (0.75, 0.25))
            c.shadow(x, y, length)
            c.stand(draw(rng, c.scale, length), x, y, BIRD)
            if rng.random() < 0.3:
                c.add(tufts(rng, c.scale, length, length * 0.3, grass), x, y + 2)


def bird_scene(c: Canvas, level: int) -> None:
    """Birds on a branch, in the air, on water, a beach or a meadow."""
    rng = c.rng
    n = int(pick(rng, ((1,), (1, 2, 3), (4, 5, 6, 8))[level]))
    size = ((48, 72), (34, 50), (20, 32))[level]
    place = pick(rng, ("branch", "air", "water", "beach", "meadow", "street"), (3, 2.5, 2, 1.5, 1.5, 0.8))
    sizes = [float(rng.uniform(*size)) for _ in range(n)]
    if place == "branch":
        if rng.random() < 0.5:
            sky(c, c.height)
        else:
            ground(c, 0, vary(rng, pick(rng, ((70, 100, 60), (110, 130, 90), (100, 95, 80)))), (16, 16))
        rise, mid = rng.normal(0, 8), c.height * rng.uniform(0.55, 0.85)
        twig = Sprite(c.scale, 1.0, (c.width, 40))
        nodes = smooth([(-c.width / 2 - 10, rise), (0, 0), (c.width / 2 + 10, -rise)], closed=False)
        twig.fill(limb(nodes, (rng.uniform(4, 8), rng.uniform(2, 4))), vary(rng, (95, 75, 58)))
        c.add(twig.finish(rng), c.width / 2, mid)
        for length, x in zip(sizes, spread(c, [1.6 * v for v in sizes], 0.3), strict=True):
            y = mid + float(np.interp(x - c.width / 2, nodes[:, 0], nodes[:, 1]))
            c.stand(perched_bird(rng, c.scale, length), x, max(y, length), BIRD)
        for _ in range(rng.poisson((0.7, 1.3, 2)[level])):
            c.add(leaves(rng, c.scale, rng.uniform(14, 30)), rng.uniform(0, c.width), rng.uniform(0, c.height))
    elif place == "air":
        sky(c, c.height)
        if rng.random() < 0.5:
            c.add(tree(rng, c.scale, rng.uniform(50, 90)), rng.uniform(0, c.width), c.height + 10)
        for length, x in zip(sizes, spread(c, [2.2 * v for v in sizes], 0.3), strict=True):
            y = rng.uniform(min(length, c.height / 2), max(c.height - length, c.height / 2))
            c.add(flying_bird(rng, c.scale, length * 0.85), x, y, BIRD)
    elif place in ("water", "beach"):
        horizon, beach, water = waterside(c)
        for length, x in sorted(zip(sizes, spread(c, [1.8 * v for v in sizes], 0.3), strict=True)):
            y = max(rng.uniform(horizon + 8, beach - 4), length * 1.1)
            if place == "water" and y < beach:
                c.shadow(x, y + 1, length * 1.6)
                c.stand(swimming_bird(rng, c.scale, length), x, y, BIRD)
                rings = Sprite(c.scale, length, (1, 0.2))
                rings.fill(oval(0, 0.03, 0.75, 0.025), mix(water, (255, 255, 255), 0.4))
                c.add(rings, x, y)
            else:
                y = rng.uniform(max(beach - 12, length * 1.7), max(c.height - 3, length * 1.7 + 1))
                c.shadow(x, y, length)
                draw = pick(rng, (perched_bird, wading_bird))
                c.stand(draw(rng, c.scale, length), x, y, BIRD)
    else:
        horizon, grass = meadow(c) if place == "meadow" else (street(c), (120, 125, 90))
        birds(c, horizon, grass, n, size, "any" if place == "meadow" else "stand")
        if place == "meadow" and rng.random() < 0.25:
            length = rng.uniform(30, 45)
            y = c.height * rng.uniform(0.7, 0.95)
            c.layers.insert(
                0,
                Layer(
                    zebra := quadruped(rng, c.scale, length),
                    rng.uniform(25, c.width - 25),
                    y - zebra.foot,
                    ZEBRA,
                ),
            )


def stop_scene(c: Canvas, level: int) -> None:
    """A stop sign on its pole in a street or in the country; harder means smaller, hidden, with other signs."""
    rng = c.rng
    if rng.random() < 0.6:
        street(c)
        grass = vary(rng, (110, 135, 70))
    else:
        _, grass = meadow(c, 1.5)
    for i in range(2 if rng.random() < 0.04 else 1):
        radius = rng.uniform(*((25, 42), (16, 26), (12, 18))[level]) * (0.7 if i else 1)
        x = rng.uniform(radius, c.width - radius)
        y = rng.uniform(radius * 0.9, max(c.height - radius * 1.5, radius))
        steel = vary(rng, pick(rng, ((140, 142, 145), (95, 98, 95), (120, 90, 65))))
        c.add(post(rng, c.scale, max(2.0, radius * 0.14), c.height * 1.3, steel), x, y + c.height * 1.25)
        c.add(stop_sign(rng, c.scale, radius), x, y, STOP_SIGN)
        if rng.random() < 0.3:
            plate = Sprite(c.scale, radius, (0.7, 0.25))
            plate.fill(box(-0.6, -0.18, 0.6, 0.18), vary(rng, (225, 225, 220)))
            plate.paint(box(-0.4, -0.05, 0.4, 0.05), (40, 40, 40))
            c.add(plate.finish(rng), x, y + radius * 1.25)
        if level == 2 or rng.random() < 0.2:
            side = rng.uniform(-1, 1) * radius
            if rng.random() < 0.6:
                c.add(
                    leaves(rng, c.scale, radius * rng.uniform(0.7, 1.1)),
                    x + side,
                    y + rng.uniform(-1, 1) * radius,
                )
            else:
                c.add(
                    post(rng, c.scale, radius * 0.35, c.height * 1.3, vary(rng, (90, 75, 60))),
                    x + side,
                    c.height * 1.2,
                )
    if rng.random() < 0.17:
        birds(c, c.height * 0.4, grass, 1, (15, 24), "fly")
    if level and rng.random() < 0.4:
        u, v = rng.uniform(10, c.width - 10), c.height * rng.uniform(0.3, 0.6)
        c.add(post(rng, c.scale, 2, c.height, (130, 132, 135)), u, v + c.height)
        c.add(other_sign(rng, c.scale, rng.uniform(10, 18)), u, v)


def row(c: Canvas, x: float, base: float, n: int, tall: float, wide: float) -> float:
    """Books side by side on a shelf at y = base, from x to the right; returns where they end."""
    rng = c.rng
    even = rng.random() < 0.3
    for i in range(n):
        width, height = wide * rng.uniform(0.65, 1.35), tall * (0.95 if even else rng.uniform(0.7, 1.0))
        lean = -rng.uniform(0.1, 0.3) if i == n - 1 and n > 1 and rng.random() < 0.4 else 0.0
        shift = np.sin(-lean) * height if lean else 0.0
        if x + width + shift > c.width + wide * 0.5:
            break
        c.add(spine(rng, c.scale, width, height, lean), x + width / 2 + shift, base, BOOK)
        x += width + shift + pick(rng, (0.0, rng.uniform(0.3, 1.0)))
    return x


def pile(c: Canvas, x: float, base: float, n: int, wide: float, thick: float) -> None:
    """Books one on the other, around x."""
    for i in range(n):
        height = thick * c.rng.uniform(0.7, 1.3)
        if base - height < 2:
            break
        width = wide * c.rng.uniform(0.8, 1.1) * (1 - 0.02 * i)
        c.add(lying_book(c.rng, c.scale, width, height), x + c.rng.normal(0, wide * 0.04), base, BOOK)
        base -= height


def book_scene(c: Canvas, level: int) -> None:
    """Books in rows on shelves, or piled, open and lying on a table."""
    rng = c.rng
    wood = room(c)
    n = int(rng.integers(*((1, 5), (3, 8), (7, 14))[level]))
    if rng.random() < (0.35, 0.5, 0.75)[level]:
        shelves = 1 if n < 5 else 2 if n < 11 or c.height < c.width else 3
        pitch = c.height / shelves
        for k, share in enumerate(rng.multinomial(n, [1 / shelves] * shelves)):
            base = pitch * (k + 1) - rng.uniform(6, 9)
            board(c, base, base + 4, wood)
            wide = min((c.width - 25) / max(share, 3) * 0.8, rng.uniform(11, 20))
            tall = min(pitch - 12, rng.uniform(45, 80))
            x = rng.uniform(4, max(5, c.width - 8 - share * wide))
            end = row(c, x, base, int(share), tall, wide)
            for u in (x - 16, end + 16):
                if 10 < u < c.width - 8 and rng.random() < 0.5:
                    c.add(ornament(rng, c.scale, min(tall, rng.uniform(20, 36))), u, base)
            if level and rng.random() < 0.3:
                c.add(ornament(rng, c.scale, tall * rng.uniform(0.35, 0.6)), rng.uniform(x, end), base + 1)
        return
    top = c.height * rng.uniform(0.45, 0.65)
    board(c, top, c.height, wood)
    left = n
    spots = list(rng.permutation(np.linspace(0.2, 0.8, 2 if n < 4 else 3)) * c.width)
    wide = c.width / len(spots)
    for i, x in enumerate(spots):
        base = rng.uniform(top + 8, c.height - 4)
        last = i == len(spots) - 1
        kind = "pile" if left > 2 * (len(spots) - i) else pick(rng, ("pile", "open", "cover", "row"))
        take = min(
            left,
            1 if kind in ("open", "cover") else int(np.ceil(left if last else left * rng.uniform(0.4, 0.8))),
        )
        if take == 0:
            if rng.random() < 0.7:
                c.add(ornament(rng, c.scale, rng.uniform(22, 40)), x, base)
            continue
        c.shadow(x, base, wide)
        if kind == "open":
            s = open_book(rng, c.scale, min(wide * 1.2, rng.uniform(50, 85)))
            c.stand(s, x, base, BOOK)
        elif kind == "cover":
            c.stand(cover(rng, c.scale, rng.uniform(38, 62)), x, base, BOOK)
        elif kind == "row":
            row(c, x - take * 5, base, take, rng.uniform(38, 60), 10)
        else:
            pile(
                c,
                x,
                base,
                take,
                min(wide * 1.1, rng.uniform(45, 80)),
                min(rng.uniform(9, 15), (base - 6) / take),
            )
        left -= take
    if level and rng.random() < 0.5:
        c.add(
            ornament(rng, c.scale, rng.uniform(22, 36)),
            rng.uniform(10, c.width - 10),
            rng.uniform(top + 10, c.height),
        )


FOUR_CLASSES = World(
    "drawn scenes of stop signs, birds, zebras and books",
    CATEGORIES,
    (stop_scene, bird_scene, zebra_scene, book_scene),
    (0.25, 0.22, 0.26, 0.27),
)
