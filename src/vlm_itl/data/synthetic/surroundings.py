"""What the labelled things stand among: things of no class, and the backgrounds."""

from __future__ import annotations

import numpy as np

from vlm_itl.data.synthetic.canvas import Canvas, Colour, Rng, Sprite, box, limb, mix, oval, pick, smooth, vary

# ---------------------------------------------------------------- things of no class


def tree(rng: Rng, scale: float, height: float, flat: bool = False) -> Sprite:
    """Tree, with the flat crown of an acacia if asked for; unit: its height."""
    s = Sprite(scale, height, (0.7, 1.1))
    bark, green = (
        vary(rng, (90, 68, 50)),
        vary(rng, pick(rng, ((60, 105, 50), (85, 120, 60), (110, 115, 60)))),
    )
    s.fill(limb([(0, 0), (rng.normal(0, 0.03), -0.7)], (0.09, 0.05)), bark)
    for i in range(12):
        x, y = rng.normal(0, 0.24 if flat else 0.14), -0.75 + rng.normal(0, 0.04 if flat else 0.11)
        r = rng.uniform(0.1, 0.17)
        s.fill(
            oval(x, y, r * (1.6 if flat else 1), r * (0.6 if flat else 1), corners=11),
            mix(green, (0, 0, 0), 0.03 * (12 - i)),
        )
    s.texture(rng, (20, 35, 15), (3, 3), 0.4)
    s.texture(rng, mix(green, (250, 250, 200), 0.4), (3, 3), 0.6)
    return s.finish(rng)


def tufts(rng: Rng, scale: float, width: float, height: float, colour: Colour) -> Sprite:
    """Grass blades along a width; origin at the ground; unit: 1 px."""
    s = Sprite(scale, 1.0, (width / 2 + height, height * 1.3))
    for x in rng.uniform(-width / 2, width / 2, int(width * 0.9) + 4):
        tip = (x + rng.normal(0, height / 4), -height * rng.uniform(0.5, 1.2))
        s.fill(np.array([(x - 0.9, 3), tip, (x + 0.9, 3)]), vary(rng, colour, 16))
    return s


def leaves(rng: Rng, scale: float, size: float) -> Sprite:
    """Twig with leaves that comes into the picture; unit: its length."""
    s = Sprite(scale, size, (1.2, 1.2), angle=rng.uniform(-0.5, 0.5))
    green = vary(rng, pick(rng, ((60, 115, 50), (95, 130, 55), (170, 110, 50))))
    s.fill(limb([(-1, 0), (1, 0)], (0.05, 0.02)), (85, 65, 48))
    for x in np.linspace(-0.9, 0.9, 11):
        side = rng.choice((-1, 1))
        s.fill(oval(x + 0.06, side * 0.12, 0.16, 0.06, side * rng.uniform(0.4, 1.2), 12), vary(rng, green, 14))
    return s.finish(rng)


def car(rng: Rng, scale: float, length: float) -> Sprite:
    """Car from the side; unit: its length."""
    s = Sprite(scale, length, (0.55, 0.45), foot=0.2, flip=rng.random() < 0.5)
    colour = vary(rng, pick(rng, ((170, 40, 40), (50, 80, 140), (220, 220, 222), (60, 62, 66), (200, 170, 60))))
    s.fill(
        smooth(
            [
                (-0.5, 0.1),
                (-0.48, -0.08),
                (-0.32, -0.12),
                (-0.2, -0.27),
                (0.12, -0.27),
                (0.28, -0.1),
                (0.48, -0.05),
                (0.5, 0.1),
            ],
            steps=3,
        ),
        colour,
    )
    s.paint(np.array([(-0.26, -0.11), (-0.17, -0.23), (0.1, -0.23), (0.21, -0.11)]), (70, 85, 95))
    for x in (-0.29, 0.28):
        s.fill(oval(x, 0.1, 0.1, 0.1), (25, 25, 28))
        s.paint(oval(x, 0.1, 0.05, 0.05), (150, 150, 150))
    return s.finish(rng)


def post(rng: Rng, scale: float, width: float, height: float, colour: Colour) -> Sprite:
    """Upright post or trunk; origin at its foot; unit: 1 px."""
    s = Sprite(scale, 1.0, (width + height * 0.05, height + 2), angle=rng.normal(0, 0.02))
    s.fill(box(-width / 2, -height, width / 2, 0), colour)
    s.paint(box(width * 0.15, -height, width / 2, 0), mix(colour, (0, 0, 0), 0.3))
    return s.finish(rng)


def other_sign(rng: Rng, scale: float, radius: float) -> Sprite:
    """Round or three-cornered or square road sign that is not a stop sign; unit: its radius."""
    s = Sprite(scale, radius, (1.1, 1.1))
    red, white, blue = vary(rng, (195, 30, 35)), vary(rng, (238, 238, 234)), vary(rng, (30, 70, 150))
    corners, rim, inner = pick(rng, ((24, red, white), (24, red, red), (3, red, white), (4, blue, blue), (24, blue, blue)))
    angle = pick(rng, (-np.pi / 6, np.pi / 6)) if corners == 3 else 0.0  # one corner up, or down
    s.fill(oval(0, 0, 1, 1, angle, corners), rim)
    s.paint(oval(0, 0, 0.7, 0.7, angle, corners), inner)
    s.paint(
        pick(rng, (box(-0.5, -0.13, 0.5, 0.13), box(-0.12, -0.4, 0.12, 0.35))),
        (20, 20, 20) if inner == white else white,
    )
    return s.finish(rng)


def ornament(rng: Rng, scale: float, height: float) -> Sprite:
    """Vase, plant, mug, box, lamp or globe on a shelf; origin at its foot; unit: its height."""
    s = Sprite(scale, height, (0.7, 1.1))
    colour = vary(rng, pick(rng, ((190, 120, 90), (80, 130, 140), (225, 220, 210), (170, 60, 60), (90, 90, 100))))
    kind = pick(rng, ("vase", "plant", "mug", "carton", "lamp", "globe"))
    if kind in ("vase", "plant"):
        for _ in range(14 if kind == "plant" else 4):
            tip = (rng.normal(0, 0.22), -rng.uniform(0.65, 1.05))
            s.fill(
                limb(smooth([(0, -0.4), (tip[0] * 0.3, -0.6), tip], closed=False), (0.02, 0.09, 0.02)),
                vary(rng, (70, 125, 60)),
            )
        s.fill(
            smooth([(-0.12, 0), (-0.22, -0.25), (-0.1, -0.48), (0.1, -0.48), (0.22, -0.25), (0.12, 0)]),
            colour,
        )
    elif kind == "mug":
        s.fill([oval(0.3, -0.32, 0.2, 0.2)], mix(colour, (0, 0, 0), 0.2))
        s.fill(box(-0.3, -0.65, 0.3, 0), colour)
        s.paint(oval(0, -0.62, 0.28, 0.06), mix(colour, (0, 0, 0), 0.5))
    elif kind == "carton":
        s.fill(box(-0.45, -0.6, 0.45, 0), (175, 135, 90))
        s.fill(np.array([(-0.45, -0.6), (-0.3, -0.78), (0.6, -0.78), (0.45, -0.6)]), (200, 160, 112))
        s.fill(np.array([(0.45, 0), (0.6, -0.18), (0.6, -0.78), (0.45, -0.6)]), (140, 105, 70))
        s.paint(box(-0.06, -0.8, 0.06, 0), (215, 190, 140))
    elif kind == "lamp":
        s.fill([box(-0.03, -0.7, 0.03, 0), oval(0, 0, 0.2, 0.05)], (80, 75, 70))
        s.fill(
            np.array([(-0.18, -1), (0.18, -1), (0.34, -0.6), (-0.34, -0.6)]),
            mix(colour, (255, 240, 190), 0.6),
        )
    else:
        s.fill(box(-0.12, -0.1, 0.12, 0), (90, 65, 45))
        s.part(
            oval(0, -0.45, 0.36, 0.36),
            (70, 120, 175),
            [
                (
                    oval(rng.uniform(-0.3, 0.3), rng.uniform(-0.7, -0.2), 0.15, 0.1, rng.normal()),
                    (120, 150, 80),
                )
                for _ in range(4)
            ],
        )
    return s.finish(rng)


# ---------------------------------------------------------------- backgrounds


def sky(c: Canvas, bottom: float) -> None:
    """Sky with clouds down to y = bottom."""
    area = box(0, 0, c.width, bottom)
    blue = pick(c.rng, ((110, 160, 215), (150, 185, 220), (190, 200, 210), (225, 190, 160), (90, 130, 190)))
    c.back.fill(area, vary(c.rng, blue))
    c.back.gradient(0.0, 0.6, (235, 232, 222), area)
    if c.rng.random() < 0.6:
        c.back.texture(c.rng, (250, 250, 250), (40, 12), 0.9, area)


def ground(c: Canvas, top: float, colour: Colour, cell: tuple[float, float] = (3, 1.5)) -> None:
    """Textured ground from y = top down."""
    area = box(0, top, c.width, c.height)
    c.back.fill(area, colour)
    c.back.texture(c.rng, mix(colour, (0, 0, 0), 0.45), (28, 7), 0.6, area)
    c.back.texture(c.rng, mix(colour, (0, 0, 0), 0.5), cell, c.rng.uniform(0.3, 0.75), area)
    c.back.texture(c.rng, mix(colour, (255, 255, 230), 0.5), cell, 0.6, area)


GRASS: list[Colour] = [(175, 155, 85), (120, 145, 70), (150, 150, 80), (95, 130, 60), (190, 170, 115)]


def meadow(c: Canvas, clutter: float = 1.0) -> tuple[float, Colour]:
    """Sky, hills, trees and grass; returns the horizon's y and the colour of the grass."""
    horizon, grass = c.height * c.rng.uniform(0.2, 0.48), vary(c.rng, pick(c.rng, GRASS))
    sky(c, horizon + 2)
    x = np.linspace(-10, c.width + 10, 9)
    ridge = smooth(np.stack([x, horizon - c.rng.uniform(0, 16, 9)], 1), closed=False)
    hill = np.concatenate([ridge, [(c.width + 10, horizon + 3), (-10, horizon + 3)]])
    c.back.fill(hill, mix(vary(c.rng, (95, 120, 95)), (190, 200, 205), c.rng.uniform(0.1, 0.7)))
    ground(c, horizon, grass)
    flat = grass[0] > 140
    for _ in range(c.rng.poisson(2.5 * clutter)):
        c.add(
            tree(c.rng, c.scale, c.rng.uniform(18, 50), flat),
            c.rng.uniform(0, c.width),
            horizon + c.rng.uniform(1, 8),
        )
    return horizon, grass


def street(c: Canvas) -> float:
    """Houses, pavement and road, with cars, trees and lamps; returns the y of the pavement's edge."""
    rng, edge = c.rng, c.height * c.rng.uniform(0.62, 0.8)
    sky(c, edge)
    x = -rng.uniform(0, 20)
    while x < c.width:
        wide, top = rng.uniform(25, 60), edge - rng.uniform(0.35, 0.95) * edge
        wall = vary(
            rng,
            pick(rng, ((170, 120, 100), (200, 190, 170), (150, 150, 155), (140, 95, 80), (205, 200, 195))),
        )
        house = box(x, top, x + wide, edge)
        c.back.fill(house, wall)
        c.back.texture(rng, mix(wall, (0, 0, 0), 0.5), (3, 2), 0.5, house)
        pane, step = mix((60, 75, 90), wall, rng.uniform(0, 0.3)), rng.uniform(9, 13)
        c.back.paint(
            [
                box(u, v, u + step * 0.45, v + step * 0.6)
                for v in np.arange(top + 5, edge - step, step * 1.2)
                for u in np.arange(x + 4, x + wide - step * 0.5, step)
            ],
            pane,
        )
        x += wide + pick(rng, (0, 0, rng.uniform(5, 30)))
    ground(c, edge - 5, vary(rng, (165, 162, 155)), (2, 2))
    ground(c, edge + 4, vary(rng, (90, 90, 95)), (2, 1))
    for _ in range(rng.poisson(0.8)):
        c.add(tree(rng, c.scale, rng.uniform(35, 80)), rng.uniform(0, c.width), edge - 2)
    for _ in range(rng.poisson(0.9)):
        c.stand(car(rng, c.scale, rng.uniform(35, 60)), rng.uniform(0, c.width), edge + rng.uniform(4, 14))
    if rng.random() < 0.4:
        lamp = vary(rng, (70, 72, 75))
        c.add(post(rng, c.scale, 2, rng.uniform(60, 100), lamp), rng.uniform(0, c.width), edge)
    if rng.random() < 0.35:
        u, v, r = rng.uniform(10, c.width - 10), edge - rng.uniform(30, 50), rng.uniform(6, 12)
        c.add(post(rng, c.scale, 1.6, edge - v, (130, 132, 135)), u, edge)
        c.add(other_sign(rng, c.scale, r), u, v)
    return edge


def waterside(c: Canvas) -> tuple[float, float, Colour]:
    """Sky, far shore, water and often a beach; returns the y of the horizon and of the beach, and the water."""
    rng, horizon = c.rng, c.height * c.rng.uniform(0.1, 0.35)
    sky(c, horizon + 1)
    if rng.random() < 0.6:
        c.back.fill(box(0, horizon - rng.uniform(2, 9), c.width, horizon + 1), vary(rng, (80, 105, 80)))
    water = vary(rng, pick(rng, ((70, 115, 145), (95, 130, 130), (60, 95, 120), (110, 140, 165), (85, 105, 80))))
    ground(c, horizon, water, (9, 1.5))
    beach = c.height * (rng.uniform(0.6, 0.8) if rng.random() < 0.5 else 1.0)
    if beach < c.height:
        c.back.fill(box(0, beach - 2, c.width, beach + 1), (225, 232, 235))
        ground(c, beach, vary(rng, pick(rng, ((205, 185, 145), (150, 140, 125)))), (2, 2))
    return horizon, beach, water


def room(c: Canvas) -> Colour:
    """Wall with paper or panels, perhaps with a picture; returns a wood colour."""
    rng = c.rng
    wall = vary(
        rng,
        pick(
            rng,
            (
                (205, 195, 175),
                (150, 165, 175),
                (185, 160, 140),
                (120, 135, 120),
                (225, 222, 215),
                (90, 80, 75),
            ),
        ),
    )
    area = box(0, 0, c.width, c.height)
    c.back.fill(area, wall)
    if rng.random() < 0.4:
        c.back.paint([box(x, 0, x + 4, c.height) for x in np.arange(0, c.width, 9)], mix(wall, (255, 255, 255), 0.15))
    c.back.texture(rng, mix(wall, (0, 0, 0), 0.5), (60, 60), 0.7, area)
    c.back.texture(rng, mix(wall, (0, 0, 0), 0.5), (2, 2), 0.25, area)
    if rng.random() < 0.4:
        x, y, a, b = (
            rng.uniform(10, c.width - 40),
            rng.uniform(2, 25),
            rng.uniform(22, 45),
            rng.uniform(18, 35),
        )
        c.back.paint(box(x - 2, y - 2, x + a + 2, y + b + 2), (70, 50, 35))
        c.back.paint(box(x, y, x + a, y + b), vary(rng, (150, 170, 180)))
        c.back.paint(box(x, y + b * 0.6, x + a, y + b), vary(rng, (110, 130, 80)))
    return vary(rng, pick(rng, ((140, 95, 60), (95, 65, 45), (190, 150, 105), (215, 212, 205))))


def board(c: Canvas, top: float, bottom: float, wood: Colour) -> None:
    """Shelf board or table top, with grain."""
    area = box(0, top, c.width, bottom)
    c.back.paint(area, wood)
    c.back.texture(c.rng, mix(wood, (40, 20, 0), 0.5), (50, 1.2), 0.5, area)
    c.back.paint(box(0, bottom, c.width, bottom + 2), mix(wood, (0, 0, 0), 0.6))
