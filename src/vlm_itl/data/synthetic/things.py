"""The things of the four classes: stop signs, birds, zebras (and horses, which are drawn alike) and books."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from vlm_itl.data.synthetic.canvas import Colour, Points, Rng, Sprite, box, limb, mix, oval, pick, slabs, smooth, turn, vary

STOP_SIGN, BIRD, ZEBRA, BOOK = 13, 16, 24, 84
CATEGORIES: list[dict[str, Any]] = [
    {"id": STOP_SIGN, "name": "stop sign", "supercategory": "outdoor"},
    {"id": BIRD, "name": "bird", "supercategory": "animal"},
    {"id": ZEBRA, "name": "zebra", "supercategory": "animal"},
    {"id": BOOK, "name": "book", "supercategory": "indoor"},
]

LETTERS: dict[str, list[list[tuple[float, float]]]] = {  # strokes in a cell from (-1, -1) to (1, 1)
    "S": [
        [
            (0.9, -0.7),
            (0.3, -1),
            (-0.5, -1),
            (-0.9, -0.6),
            (-0.6, -0.15),
            (0.6, 0.15),
            (0.9, 0.6),
            (0.5, 1),
            (-0.3, 1),
            (-0.9, 0.7),
        ]
    ],
    "T": [[(-1, -1), (1, -1)], [(0, -1), (0, 1)]],
    "O": [[(0, -1), (0.7, -0.8), (0.95, 0), (0.7, 0.8), (0, 1), (-0.7, 0.8), (-0.95, 0), (-0.7, -0.8), (0, -1)]],
    "P": [[(-0.8, 1), (-0.8, -1), (0.4, -1), (0.9, -0.55), (0.4, 0), (-0.8, 0)]],
}


def stop_sign(rng: Rng, scale: float, radius: float) -> Sprite:
    """Red octagon with white rim and STOP; unit: the radius to a corner."""
    s = Sprite(scale, radius, (1.1, 1.1), angle=rng.normal(0, 0.1), squeeze=pick(rng, (1, rng.uniform(0.6, 1))))
    worn = rng.random() < 0.3
    red = vary(rng, pick(rng, ((190, 20, 30), (205, 30, 30), (165, 15, 28))), 10)
    white = vary(rng, (238, 236, 232), 8)
    if worn:
        red, white = mix(red, (205, 150, 140), rng.uniform(0.15, 0.55)), mix(white, (190, 180, 160), 0.5)
    s.fill(oval(0, 0, 1.08, 1.08, corners=8), white)
    s.paint(oval(0, 0, 0.97, 0.97, corners=8), red)
    for letter, x in zip("STOP", (-0.6, -0.2, 0.2, 0.6), strict=True):
        for stroke in LETTERS[letter]:
            nodes = np.array(stroke) * (0.13, 0.27) + (x, 0)
            for a, b in pairwise(nodes):
                s.paint(limb([a, b], [0.1]), white)
    if worn:
        s.texture(rng, pick(rng, ((120, 70, 40), (225, 215, 205), (60, 50, 45))), (radius / 3,) * 2, 0.8)
        if rng.random() < 0.4:
            x, y = rng.uniform(-0.5, 0.5, 2)
            s.paint(turn(box(-0.16, -0.12, 0.16, 0.12), rng.normal()) + (x, y), vary(rng, (150, 160, 150), 60))
    return s.finish(rng)


def quadruped(rng: Rng, scale: float, length: float, striped: bool = True) -> Sprite:
    """Zebra, or without stripes a horse; looks to either side; unit: the length of the trunk."""
    pose = pick(rng, ("stand", "graze", "walk"))
    s = Sprite(scale, length, (1.2, 1.0), foot=0.78, flip=rng.random() < 0.5, angle=rng.normal(0, 0.03))
    light = vary(rng, pick(rng, ((238, 234, 226), (225, 214, 195), (205, 186, 158))), 6)
    dark = vary(rng, (32, 28, 28), 8)
    if not striped:
        light = vary(rng, pick(rng, ((120, 70, 40), (95, 60, 40), (70, 50, 42), (160, 110, 65))), 8)
        dark = mix(light, (20, 15, 12), 0.65)
    n = int(np.clip(length / 4.2, 7, 12))

    def striped_part(outline: Points | list[Points], marks: list[Points], base: Colour = light) -> None:
        s.part(outline, base, [(marks, dark)] if striped else [])

    swing = rng.uniform(0.12, 0.26) if pose == "walk" else rng.uniform(0, 0.06)
    hips = [(-0.36, -swing, True), (0.31, swing, True), (-0.42, swing, False), (0.37, -swing, False)]

    def leg(x: float, step: float, far: bool) -> None:
        knee = (x + step * 0.4 + (-0.03 if x < 0 else 0.03), 0.42)
        nodes = smooth([(x, 0.02), knee, (x + step, 0.76)], closed=False)
        base = mix(light, (60, 55, 50), 0.3) if far else light
        bars = [box(x - 0.5, y, x + 0.5, y + 0.032) for y in np.arange(0.16, 0.68, 0.075)]
        striped_part(limb(nodes, (0.25 if x < 0 else 0.2, 0.095, 0.065)), bars, base)
        s.fill(box(x + step - 0.04, 0.7, x + step + 0.045, 0.79), mix(dark, (60, 50, 40), 0.4))

    tail = smooth([(-0.5, -0.12), (-0.6, 0.05), (-0.6 + rng.normal(0, 0.06), 0.3)], closed=False)
    for hip in hips[:2]:
        leg(*hip)
    s.fill(limb(tail, (0.05, 0.035)), light)
    s.fill(limb(tail[7:] + (0, 0.08), (0.04, 0.08, 0.03)), dark)
    trunk = smooth(
        [
            (-0.53, -0.04),
            (-0.42, -0.23),
            (-0.12, -0.22),
            (0.15, -0.2),
            (0.36, -0.26),
            (0.52, -0.08),
            (0.45, 0.12),
            (0.15, 0.2),
            (-0.15, 0.21),
            (-0.38, 0.17),
            (-0.51, 0.1),
        ]
    )
    marks = []
    for t in np.linspace(0, 1, n):
        top, lean = -0.56 + 1.06 * t, 0.42 * (1 - t) ** 2
        nodes = [(top, -0.34), (top + 0.3 * lean + 0.02, -0.08), (top + lean, rng.uniform(0.12, 0.2))]
        wide = 0.52 / n * rng.uniform(0.85, 1.15)
        marks += limb(smooth(nodes, closed=False, steps=4), (wide, wide, wide * 0.3), round_ends=False)
    striped_part(trunk, marks)
    for hip in hips[2:]:
        leg(*hip)
    if pose == "graze":
        poll, drop = np.array([0.78 + rng.normal(0, 0.03), 0.3]), rng.uniform(1.2, 1.6)
    else:
        poll, drop = (
            np.array([0.72 + rng.normal(0, 0.04), -0.52 + rng.normal(0, 0.05)]),
            rng.uniform(0.3, 0.8),
        )
    muzzle = poll + 0.32 * np.array([np.cos(drop), np.sin(drop)])
    root = np.array([0.36, -0.1])
    shares = np.linspace(0.12, 0.95, 7 if n > 8 else 5)
    bars = slabs(root, poll, shares, 0.05, 0.4)
    up = np.array([poll[1] - root[1], root[0] - poll[0]]) / np.hypot(*(poll - root))
    up = up if up[1] < 0 else -up
    crest = [root + up * 0.2, (root + poll) / 2 + up * 0.16, poll + up * 0.09]
    striped_part(limb(smooth(crest, closed=False), (0.1, 0.12, 0.07)), bars)
    striped_part(limb(smooth([root, (root + poll) / 2, poll], closed=False), (0.4, 0.26, 0.18)), bars)
    ahead = (muzzle - poll) / 0.32
    for side in (-0.04, 0.04):
        ear = poll - ahead * 0.03 + up * 0.1 + ahead * side
        s.part(
            limb([poll, ear, ear + up * 0.06 - ahead * 0.03], (0.07, 0.07, 0.03)),
            light,
            [(oval(ear[0] + up[0] * 0.06, ear[1] + up[1] * 0.06, 0.03, 0.03), dark)],
        )
    bars = slabs(poll, muzzle, (0.2, 0.42, 0.62), 0.035, 0.3)
    striped_part(limb([poll, poll + 0.5 * (muzzle - poll), muzzle], (0.19, 0.16, 0.1)), bars)
    s.paint(limb([muzzle - 0.03 * ahead, muzzle + 0.02 * ahead], (0.12, 0.1)), mix(dark, (60, 50, 45), 0.4))
    eye = poll + 0.09 * ahead - 0.03 * np.array([-ahead[1], ahead[0]])
    s.paint(oval(eye[0], eye[1], 0.022, 0.022), (15, 12, 12))
    return s.finish(rng)


PLUMAGE: list[tuple[Colour, Colour, Colour]] = [  # back, belly, beak
    ((110, 75, 50), (215, 110, 60), (80, 70, 60)),
    ((60, 105, 185), (225, 228, 230), (40, 40, 45)),
    ((28, 28, 34), (40, 40, 48), (30, 30, 30)),
    ((150, 158, 168), (240, 240, 240), (235, 180, 50)),
    ((185, 30, 40), (205, 50, 50), (235, 130, 50)),
    ((135, 105, 75), (205, 190, 165), (90, 75, 60)),
    ((45, 150, 60), (150, 200, 70), (220, 90, 50)),
    ((95, 105, 125), (140, 140, 155), (70, 65, 70)),
    ((220, 190, 40), (245, 220, 90), (225, 140, 60)),
    ((30, 130, 150), (230, 130, 60), (40, 40, 40)),
    ((30, 30, 35), (240, 240, 238), (40, 40, 40)),
    ((240, 240, 238), (248, 248, 246), (240, 160, 60)),
    ((85, 60, 42), (130, 100, 75), (230, 190, 70)),
]


def perched_bird(rng: Rng, scale: float, length: float) -> Sprite:
    """Bird that sits or stands, seen from the side; unit: the length of the trunk."""
    back, belly, beak = (vary(rng, c, 8) for c in pick(rng, PLUMAGE))
    tilt, plump = -rng.uniform(0.1, 0.9), rng.uniform(0.85, 1.25)
    s = Sprite(scale, length, (1.2, 1.1), foot=0.55, flip=rng.random() < 0.5)
    leg = mix(beak, (70, 55, 45), 0.4)
    for x in (-0.06, 0.1):
        s.fill(limb([(x, 0.1), (x, 0.52)], [0.05]), leg)
        s.fill(limb([(x - 0.04, 0.54), (x + 0.12, 0.54)], [0.05]), leg)
    fan = rng.uniform(0.05, 0.12)
    s.fill(
        turn([(-0.4, -0.14), (-1.0, 0.06 - fan), (-1.03, 0.06 + fan), (-0.4, 0.12)], tilt),
        mix(back, (0, 0, 0), 0.25),
    )
    trunk = smooth(
        np.array(
            [
                (0.44, -0.1),
                (0.25, -0.27),
                (-0.1, -0.24),
                (-0.45, -0.1),
                (-0.6, 0.02),
                (-0.35, 0.13),
                (0.0, 0.27),
                (0.32, 0.22),
            ]
        )
        * (1, plump)
    )
    under = smooth([(0.6, -0.1), (0.2, 0.02), (-0.2, 0.08), (-0.6, 0.06), (-0.3, 0.5), (0.4, 0.5)])
    s.part(turn(trunk, tilt), back, [(turn(under, tilt), belly)])
    head = turn([(0.42, -0.2)], tilt)[0] + (0.02, -0.04)
    r = rng.uniform(0.19, 0.25)
    bill = rng.uniform(0.14, 0.36)
    s.fill(np.array([(r * 0.7, -0.1), (r + bill, 0.03), (r * 0.75, 0.1)]) + head, beak)
    s.part(oval(head[0], head[1], r, r), back, [(oval(head[0] + 0.05, head[1] + 0.17, 0.2, 0.13), belly)])
    if rng.random() < 0.2:
        s.fill(np.array([(0.08, -r * 0.8), (-r - 0.1, -r - 0.16), (-r * 0.8, -0.05)]) + head, back)
    s.paint(oval(head[0] + r * 0.4, head[1] - 0.04, 0.05, 0.05), (235, 230, 210))
    s.paint(oval(head[0] + r * 0.42, head[1] - 0.04, 0.035, 0.035), (10, 10, 10))
    wing = smooth([(0.24, -0.12), (0.0, -0.2), (-0.4, -0.1), (-0.78, 0.08), (-0.3, 0.14), (0.1, 0.1)])
    dark = mix(back, (0, 0, 0), 0.35) if sum(back) > 160 else mix(back, (120, 120, 140), 0.3)
    s.fill(turn(wing, tilt), dark)
    for y in (0.02, 0.07):
        s.paint(limb(turn([(0.05, y - 0.05), (-0.5, y)], tilt), [0.025]), mix(dark, belly, 0.5))
    return s.finish(rng)


def flying_bird(rng: Rng, scale: float, length: float) -> Sprite:
    """Bird with spread wings, from the side or from below; unit: the length of the trunk."""
    back, belly, beak = (vary(rng, c, 8) for c in pick(rng, PLUMAGE))
    side = rng.random() < 0.5
    s = Sprite(scale, length, (1.8, 1.6), flip=rng.random() < 0.5, angle=rng.normal(-0.1, 0.25))
    tip = mix(back, (15, 15, 18), rng.uniform(0.3, 1))
    span = rng.uniform(0.9, 1.25)

    def wing(root: float, lift: float, sweep: float, shade: float) -> None:
        """Wing that grows from the back at x = root, raised by lift, its tip moved by sweep along x."""
        nodes = np.array(
            [
                (root + 0.24, 0),
                (root + 0.3 + sweep * 0.3, lift * 0.45),
                (root + sweep, lift),
                (root + sweep * 0.8 - 0.16, lift * 0.8),
                (root + sweep * 0.4 - 0.28, lift * 0.45),
                (root - 0.26, 0),
            ]
        )
        outline = smooth(nodes)
        edge = np.array([(-3, lift * 0.66), (3, lift * 0.66), (3, lift * 2), (-3, lift * 2)])
        feathers = slabs((0, lift * 0.3), (0.0, lift * 0.62), (0.2, 0.9), 0.03, 2)
        base = mix(back, (0, 0, 0), shade)
        s.part(outline, base, [(feathers, mix(base, belly, 0.4)), (edge, tip)])

    up = pick(rng, (-1.0, 1.0), (0.75, 0.25)) if side else 1.0
    lift = span * up * rng.uniform(0.8, 1.2)
    if side:
        wing(0.05, lift * 0.95, rng.uniform(0.1, 0.5), 0.35)
    else:
        wing(0.05, lift, rng.uniform(-0.5, 0.0), 0.0)
        wing(0.05, -lift, rng.uniform(-0.5, 0.0), 0.0)
    fan = rng.uniform(0.08, 0.2)
    s.fill(
        np.array([(-0.35, -0.08), (-0.85, -fan), (-0.8, 0), (-0.85, fan), (-0.35, 0.08)]),
        mix(back, (0, 0, 0), 0.2),
    )
    trunk = smooth([(0.5, -0.06), (0.2, -0.17), (-0.2, -0.14), (-0.52, 0), (-0.2, 0.14), (0.2, 0.18), (0.5, 0.08)])
    s.fill(np.array([(0.6, -0.07), (0.84, 0.02), (0.6, 0.07)]), beak)
    s.part(trunk, back, [(smooth([(0.6, 0.03), (0, 0.04), (-0.6, 0.03), (0, 0.6)]), belly)] if side else [])
    s.fill(oval(0.52, -0.02, 0.15, 0.13), back if rng.random() < 0.6 else belly)
    if side:
        s.paint(oval(0.57, -0.05, 0.03, 0.03), (10, 10, 10))
        wing(-0.05, lift, rng.uniform(-0.5, 0.0), 0.0)
    return s.finish(rng)


def wading_bird(rng: Rng, scale: float, length: float) -> Sprite:
    """Heron, flamingo, stork or the like on long legs; unit: the length of the trunk."""
    coat = vary(rng, pick(rng, ((140, 150, 165), (240, 150, 150), (242, 242, 240), (90, 70, 75), (235, 235, 232))), 8)
    beak = vary(rng, pick(rng, ((220, 170, 60), (60, 55, 55), (210, 80, 50))), 8)
    s = Sprite(scale, length, (1.25, 1.6), foot=1.05, flip=rng.random() < 0.5)
    leg = mix(beak, (80, 70, 60), 0.5)
    step = rng.uniform(0.02, 0.25)
    for x in (-step, step):
        s.fill(limb([(x * 0.3, 0.1), (x * 0.6 - 0.04, 0.55), (x, 1.03)], [0.06]), leg)
        s.fill(limb([(x, 1.03), (x + 0.16, 1.04)], [0.05]), leg)
    high = rng.uniform(0.75, 1.15)
    bend = smooth([(0.32, -0.1), (0.58, -0.3 * high), (0.42, -0.65 * high), (0.56, -1.0 * high)], closed=False)
    if rng.random() < 0.25:  # looks for food
        bend = smooth([(0.32, -0.1), (0.62, -0.25), (0.82, 0.05), (0.85, 0.4)], closed=False)
        bill = bend[-1] + np.array([(-0.05, 0), (0.07, 0), (0.0, 0.42)])
    else:
        bill = bend[-1] + np.array([(0.05, -0.07), (0.05, 0.07), (0.55, rng.uniform(0.02, 0.2))])
    trunk = smooth([(0.4, -0.14), (0.1, -0.26), (-0.3, -0.14), (-0.68, 0.1), (-0.25, 0.2), (0.15, 0.22), (0.4, 0.08)])
    s.fill(trunk, coat)
    s.fill(bill, beak)
    s.fill(limb(bend, (0.2, 0.11, 0.1)), coat)
    s.fill(oval(bend[-1, 0] + 0.03, bend[-1, 1], 0.12, 0.1), coat)
    s.paint(oval(bend[-1, 0] + 0.05, bend[-1, 1] - 0.02, 0.03, 0.03), (10, 10, 10))
    dark = mix(coat, (20, 20, 30), rng.uniform(0.15, 0.6))
    s.fill(smooth([(0.18, -0.12), (-0.25, -0.1), (-0.72, 0.14), (-0.25, 0.12), (0.1, 0.08)]), dark)
    return s.finish(rng)


def swimming_bird(rng: Rng, scale: float, length: float) -> Sprite:
    """Duck, swan or gull on the water, cut off at the water line; unit: the length of the trunk."""
    coats = (
        ((120, 90, 60), (95, 70, 50)),
        ((240, 240, 238), (240, 240, 238)),
        ((150, 145, 140), (30, 100, 60)),
        ((40, 40, 45), (40, 40, 45)),
        ((235, 235, 235), (60, 50, 50)),
    )
    coat, hood = (vary(rng, c, 8) for c in pick(rng, coats))
    beak = vary(rng, pick(rng, ((230, 160, 40), (220, 90, 40), (90, 90, 60))), 8)
    s = Sprite(scale, length, (1.1, 1.2), foot=0.16, flip=rng.random() < 0.5)
    tall = rng.uniform(0.3, 0.9)
    neck = smooth([(0.4, 0.0), (0.5, -0.3 * tall), (0.4, -0.65 * tall), (0.5, -0.2 - 0.7 * tall)], closed=False)
    head = neck[-1]
    s.fill(np.array([(0.08, -0.07), (0.34, 0.02), (0.3, 0.08), (0.05, 0.08)]) + head, beak)
    s.part(limb(neck, (0.3, 0.16, 0.17)), coat, [(box(-1, -2, 2, -0.45 * tall), hood)])
    s.fill(oval(head[0], head[1], 0.15, 0.13), hood)
    s.paint(oval(head[0] + 0.05, head[1] - 0.03, 0.03, 0.03), (10, 10, 10) if sum(hood) > 200 else (220, 200, 90))
    line = [
        (0.56, -0.05),
        (0.3, -0.16),
        (-0.2, -0.2),
        (-0.5, -0.17),
        (-0.78, -0.3),
        (-0.66, 0.02),
        (-0.55, 0.18),
        (0, 0.2),
        (0.45, 0.18),
    ]
    s.fill(smooth(line), coat)
    wing = smooth([(0.22, -0.1), (-0.2, -0.14), (-0.66, -0.2), (-0.4, 0.06), (0.05, 0.08)])
    s.fill(wing, mix(coat, (40, 35, 35), rng.uniform(0.15, 0.5)))
    s.cut(box(-2, 0.16, 2, 2))
    return s.finish(rng)


CLOTH: list[Colour] = [
    (150, 30, 35),
    (30, 60, 120),
    (35, 95, 60),
    (210, 180, 60),
    (60, 40, 80),
    (225, 215, 195),
    (40, 40, 45),
    (190, 90, 40),
    (70, 130, 160),
    (130, 80, 50),
    (200, 200, 205),
    (175, 60, 110),
]
PAGES: Colour = (232, 222, 196)


def spine(rng: Rng, scale: float, width: float, height: float, angle: float = 0.0) -> Sprite:
    """Closed book that shows its spine, upright; origin at the middle of its lower edge; unit: 1 px."""
    s = Sprite(scale, 1.0, (width + height * abs(np.sin(angle)) + 1, height * 1.1 + 2), angle=angle)
    colour = vary(rng, pick(rng, CLOTH), 14)
    ink = mix(colour, pick(rng, ((240, 225, 170), (245, 245, 240), (20, 20, 25))), 0.8)
    w = width / 2
    s.fill(smooth([(-w, 0), (-w, -height), (0, -height - width * 0.06), (w, -height), (w, 0)], steps=1), colour)
    for y in rng.uniform(0.06, 0.94, int(rng.integers(1, 4))):
        thick = pick(rng, (0.02, 0.03, 0.1))
        s.paint(box(-w, -height * (y + thick), w, -height * y), mix(colour, ink, 0.75))
    low, high = sorted(rng.uniform(0.2, 0.85, 2))
    if rng.random() < 0.75:  # title along the spine, as a row of blots
        for y in np.arange(low, max(high, low + 0.25), 2.2 / height):
            s.paint(box(-w * 0.35, -height * y - 1.4, w * rng.uniform(0, 0.5), -height * y), ink)
    else:
        s.paint(box(-w * 0.7, -height * (low + 0.15), w * 0.7, -height * low), ink)
    for x in (-w, w * 0.75):  # the round back catches less light at its edges
        s.paint(box(x, -height - 1, x + w * 0.25, 0), mix(colour, (0, 0, 0), 0.35))
    return s.finish(rng)


def lying_book(rng: Rng, scale: float, width: float, thick: float) -> Sprite:
    """Closed book that lies, seen from its spine or its pages; origin as spine; unit: 1 px."""
    s = Sprite(scale, 1.0, (width / 2 + 2, thick + 2), angle=rng.normal(0, 0.008))
    colour = vary(rng, pick(rng, CLOTH), 14)
    w = width / 2
    s.fill(box(-w, -thick, w, 0), colour)
    if rng.random() < 0.4:  # pages between the covers
        s.paint(box(-w + 1, -thick * 0.82, w + 1, -thick * 0.18), vary(rng, PAGES, 8))
        s.paint(
            [box(-w + 1, y, w, y + 0.3) for y in -thick * np.linspace(0.25, 0.75, 4)],
            mix(PAGES, colour, 0.35),
        )
    else:
        ink = mix(colour, pick(rng, ((240, 225, 170), (245, 245, 240))), 0.8)
        for x in rng.uniform(0.04, 0.96, 2):
            s.paint(box(-w + width * x, -thick, -w + width * x + width * 0.04, 0), ink)
        for x in np.arange(-w * rng.uniform(0.2, 0.7), w * rng.uniform(0.1, 0.6), 2.2):
            s.paint(box(x, -thick * rng.uniform(0.6, 0.75), x + 1.5, -thick * 0.3), ink)
    s.gradient(0.0, 0.45)
    return s.finish(rng)


def cover(rng: Rng, scale: float, height: float) -> Sprite:
    """Closed book that shows its front and the edge of its pages; lies askew or stands; unit: its height."""
    s = Sprite(scale, height, (0.75, 0.75), foot=0.5, angle=pick(rng, (0, rng.normal(0, 0.25))))
    colour = vary(rng, pick(rng, CLOTH), 14)
    ink = mix(colour, pick(rng, ((245, 240, 225), (250, 220, 120))), 0.85)
    w, lean = rng.uniform(0.32, 0.4), rng.uniform(-0.12, 0.12)
    front = np.array([(-w + lean, -0.46), (w + lean, -0.46), (w - lean, 0.42), (-w - lean, 0.42)])
    s.fill(front + (0.04, 0.07), mix(colour, (0, 0, 0), 0.4))
    s.paint(front + (0.025, 0.05), vary(rng, PAGES, 8))
    s.fill(front, colour)
    s.paint(box(-w - 0.2, -0.5, -w + 0.07, 0.5), mix(colour, (0, 0, 0), 0.25))
    for y, wide in ((-0.34, 0.22), (-0.25, 0.14)):
        s.paint([box(x, y, x + 0.035, y + 0.055) for x in np.arange(-wide, wide, 0.05)], ink)
    picture = pick(rng, (oval(0, 0.08, 0.17, 0.17), box(-0.18, -0.1, 0.18, 0.24), oval(0, 0.1, 0.2, 0.2, corners=3)))
    s.paint(picture, vary(rng, pick(rng, CLOTH), 20))
    s.paint(box(-0.15, 0.32, 0.15, 0.35), ink)
    return s.finish(rng)


def open_book(rng: Rng, scale: float, width: float) -> Sprite:
    """Open book with lines of text; unit: its width."""
    s = Sprite(scale, width, (0.6, 0.5), foot=0.3, angle=rng.normal(0, 0.15))
    colour, page = vary(rng, pick(rng, CLOTH), 14), vary(rng, (240, 234, 216), 6)
    tall, lean = rng.uniform(0.26, 0.4), rng.uniform(0, 0.08)
    s.fill(
        np.array([(-0.5 + lean, -tall + 0.03), (0.5 - lean, -tall + 0.03), (0.54, 0.28), (-0.54, 0.28)]),
        colour,
    )
    for side in (-1, 1):
        leaf = np.array(
            [
                (0, -tall + 0.06),
                (0.16, -tall - 0.03),
                (0.47 - lean, -tall + 0.02),
                (0.51, 0.23),
                (0.2, 0.19),
                (0, 0.27),
            ]
        )
        lines = [
            np.array(
                [
                    (0.07, y + 0.01),
                    (0.2, y - 0.03),
                    (0.43, y),
                    (0.43, y + 0.022),
                    (0.2, y - 0.008),
                    (0.07, y + 0.032),
                ]
            )
            * (side, 1)
            for y in np.arange(-tall + 0.1, 0.16, 0.055)
        ]
        fold = box(-0.05, -1, 0.05, 1)
        marks: list[tuple[Points | list[Points], Colour]] = [
            (fold, mix(page, (60, 50, 40), 0.35)),
            (lines, mix(page, (40, 40, 45), 0.6)),
        ]
        if rng.random() < 0.4:
            marks.append((box(0.12, -tall + 0.1, 0.4, -tall + 0.28) * (side, 1), vary(rng, pick(rng, CLOTH), 20)))
        s.part(leaf * (side, 1), page, marks)
    return s.finish(rng)
