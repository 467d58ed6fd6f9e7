"""Drawn stand-in for COCO images of stop signs, birds, zebras and books, with exact instance masks.

Every thing is a :class:`Sprite`, drawn with polygons at ``SUPERSAMPLING`` times the final resolution.
A :class:`Canvas` stacks sprites with the painter's algorithm, to a picture and to a layer of instance
numbers alike, so a mask is what is visible of its instance.  Lengths are in nominal pixels, of which the
long side of a scene has 160 whatever its final size; y points down; angles are in radians.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from pycocotools import mask as rle  # type: ignore[import-untyped]
from tqdm import tqdm

STOP_SIGN, BIRD, ZEBRA, BOOK = 13, 16, 24, 84
CATEGORIES: list[dict[str, Any]] = [
    {"id": STOP_SIGN, "name": "stop sign", "supercategory": "outdoor"},
    {"id": BIRD, "name": "bird", "supercategory": "animal"},
    {"id": ZEBRA, "name": "zebra", "supercategory": "animal"},
    {"id": BOOK, "name": "book", "supercategory": "indoor"},
]
NOMINAL_SIDE = 160
SUPERSAMPLING = 3  # odd, so that no two instances can each cover exactly half of a pixel
MIN_AREA = 40  # nominal px^2; less visible area than this and the thing is taken out of the picture
MIN_VISIBLE = 0.12  # least visible share of a thing, likewise

Colour = tuple[int, int, int]
Points = NDArray[np.float64]  # (n, 2) corners x, y of a polygon, or nodes of a line
Rng = np.random.Generator


@dataclass(frozen=True)
class Scene:
    """One picture: image (H, W, 3) RGB, and for each instance its category id and mask (H, W)."""

    image: NDArray[np.uint8]
    category_ids: list[int]
    masks: list[NDArray[np.bool_]]


# ---------------------------------------------------------------- colours, numbers and outlines


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Colour on the way from a (share 0) to b (share 1)."""
    r, g, b_ = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return r, g, b_


def vary(rng: Rng, colour: Colour, spread: float = 14) -> Colour:
    """Colour with its brightness and, less, its hue jittered by about ``spread`` of 255."""
    r, g, b = np.clip(np.array(colour) + rng.normal(0, spread) + rng.normal(0, spread / 3, 3), 0, 255)
    return int(r), int(g), int(b)


def pick(rng: Rng, options: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
    """One of the options, by weight (uniform without weights; weights need not sum to 1)."""
    p = None if weights is None else np.array(weights) / np.sum(weights)
    return options[int(rng.choice(len(options), p=p))]


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    """Rectangle."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def oval(x: float, y: float, rx: float, ry: float, angle: float = 0.0, corners: int = 24) -> Points:
    """Ellipse about (x, y), or with few corners a regular polygon."""
    t = (np.arange(corners) + 0.5) * 2 * np.pi / corners
    return turn(np.stack([rx * np.cos(t), ry * np.sin(t)], 1), angle) + (x, y)


def turn(points: ArrayLike, angle: float) -> Points:
    """Points turned clockwise (as seen, y down) about the origin."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points, dtype=np.float64) @ np.array([[c, s], [-s, c]])


def smooth(nodes: ArrayLike, closed: bool = True, steps: int = 6) -> Points:
    """Catmull-Rom curve through the nodes."""
    p = np.asarray(nodes, dtype=np.float64)
    if closed:
        a, b, c, d = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    else:
        q = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
        a, b, c, d = q[:-3], q[1:-2], q[2:-1], q[3:]
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = a[:, None], b[:, None], c[:, None], d[:, None]
    out = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return out.reshape(-1, 2) if closed else np.concatenate([out.reshape(-1, 2), p[-1:]])


def limb(nodes: ArrayLike, widths: Sequence[float], round_ends: bool = True) -> list[Points]:
    """Thick line through the nodes; the widths are spread evenly over them."""
    p = np.asarray(nodes, dtype=np.float64)
    half = np.interp(np.linspace(0, 1, len(p)), np.linspace(0, 1, len(widths)), widths)[:, None] / 2
    along = np.gradient(p, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / (np.hypot(along[:, :1], along[:, 1:]) + 1e-9)
    body = [np.concatenate([p + normal * half, (p - normal * half)[::-1]])]
    ends = [0, len(p) - 1] if round_ends else []
    return body + [oval(p[i, 0], p[i, 1], half[i, 0], half[i, 0], corners=12) for i in ends]


def slabs(a: ArrayLike, b: ArrayLike, at: ArrayLike, thick: float, reach: float) -> list[Points]:
    """Bars of length 2 * reach across the line a-b, at these shares of its length."""
    start, end = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    along = (end - start) / np.hypot(*(end - start))
    across = np.array([-along[1], along[0]]) * reach
    mids = start + np.asarray(at)[:, None] * (end - start)
    t = along * thick / 2
    return [np.array([m + across - t, m + across + t, m - across + t, m - across - t]) for m in mids]


# ---------------------------------------------------------------- sprites and the canvas


class Sprite:
    """A picture of one thing with its silhouette; drawn in the thing's own coordinates.

    ``size`` is the length of the thing's unit in nominal px, ``reach`` how far (in units) it extends from
    its origin (x, and y), ``scale`` supersampled px per nominal px, ``foot`` where it stands (y in units).
    """

    def __init__(
        self,
        scale: float,
        size: float,
        reach: tuple[float, float],
        *,
        foot: float = 0.0,
        flip: bool = False,
        angle: float = 0.0,
        squeeze: float = 1.0,
    ) -> None:
        half = [int(np.ceil(r * size * scale)) + 2 for r in reach]
        self.origin = np.array(half, dtype=np.float64)
        self.pic = Image.new("RGB", (2 * half[0], 2 * half[1]))
        self.alpha = Image.new("L", self.pic.size)
        self.scale, self.size, self.foot = scale, size, foot * size
        self.matrix = size * scale * np.diag([-squeeze if flip else squeeze, 1.0]) @ turn(np.eye(2), angle)

    def pixels(self, polygon: Points) -> Points:
        return polygon @ self.matrix + self.origin

    def fill(self, polygons: Points | list[Points], colour: Colour) -> None:
        """Draw, and add to the silhouette."""
        self._draw(self.pic, polygons, colour)
        self._draw(self.alpha, polygons, 255)

    def paint(self, polygons: Points | list[Points], colour: Colour) -> None:
        """Draw on what is there; what goes beyond the silhouette does not show."""
        self._draw(self.pic, polygons, colour)

    def part(
        self,
        outline: Points | list[Points],
        colour: Colour,
        marks: Sequence[tuple[Points | list[Points], Colour]],
    ) -> None:
        """Like fill, with marks that show inside the outline only."""
        outlines = outline if isinstance(outline, list) else [outline]
        corners = np.concatenate([self.pixels(o) for o in outlines])
        low = np.clip(np.floor(corners.min(0)).astype(int) - 1, 0, None)
        high = np.minimum(np.ceil(corners.max(0)).astype(int) + 2, self.pic.size)
        if (high <= low).any():
            return
        extent = (int(high[0] - low[0]), int(high[1] - low[1]))
        pic, alpha = Image.new("RGB", extent, colour), Image.new("L", extent)
        self._draw(alpha, outlines, 255, low)
        for polygons, mark in marks:
            self._draw(pic, polygons, mark, low)
        at = (int(low[0]), int(low[1]))
        self.pic.paste(pic, at, alpha)
        self.alpha.paste(255, at, alpha)

    def _draw(self, image: Image.Image, polygons: Points | list[Points], ink: Any, offset: ArrayLike = 0) -> None:
        draw = ImageDraw.Draw(image)
        for polygon in polygons if isinstance(polygons, list) else [polygons]:
            draw.polygon((self.pixels(polygon) - np.asarray(offset)).ravel().tolist(), fill=ink)

    def blend(self, colour: Colour, mask: Image.Image, area: Points | list[Points] | None = None) -> None:
        """Mix in the colour by the mask (stretched over the sprite, or over the area's bounds inside it)."""
        if area is None:
            self.pic.paste(colour, (0, 0), mask.resize(self.pic.size, Image.Resampling.BICUBIC))
            return
        inside = Image.new("L", self.pic.size)
        self._draw(inside, area, 255)
        bounds = inside.getbbox()
        if bounds is not None:
            shown = ImageChops.multiply(
                mask.resize((bounds[2] - bounds[0], bounds[3] - bounds[1]), Image.Resampling.BICUBIC),
                inside.crop(bounds),
            )
            self.pic.paste(colour, bounds[:2], shown)

    def gradient(self, top: float, bottom: float, colour: Colour = (0, 0, 0), area: Points | list[Points] | None = None) -> None:
        """Mix in the colour by shares (0 to 1) that go from top to bottom."""
        ramp = np.linspace(top, bottom, 32) * 255
        self.blend(colour, Image.fromarray(np.repeat(ramp.astype(np.uint8)[:, None], 4, 1)), area)

    def texture(
        self,
        rng: Rng,
        colour: Colour,
        cell: tuple[float, float],
        share: float,
        area: Points | list[Points] | None = None,
    ) -> None:
        """Mix in the colour in blotches of about cell nominal px (x, y), by at most this share."""
        extent = np.array(self.pic.size) / self.scale
        if area is not None:
            corners = np.concatenate(area if isinstance(area, list) else [area])
            extent = (corners.max(0) - corners.min(0)) * self.size
        n = np.clip(extent / cell, 2, 400).astype(int)
        values = (rng.random((n[1], n[0])) ** 1.5 * 255 * share).astype(np.uint8)
        self.blend(colour, Image.fromarray(values), area)

    def cut(self, polygons: Points | list[Points]) -> None:
        """Take out of the silhouette."""
        self._draw(self.alpha, polygons, 0)

    def area(self) -> float:
        """Area of the silhouette in nominal px^2."""
        return float(np.count_nonzero(np.asarray(self.alpha)) / self.scale**2)

    def finish(self, rng: Rng) -> Sprite:
        """Cut to the silhouette's bounds; light from above, and a little unevenness."""
        bounds = self.alpha.getbbox()
        if bounds is not None:
            self.pic, self.alpha = self.pic.crop(bounds), self.alpha.crop(bounds)
            self.origin = self.origin - bounds[:2]
        self.gradient(0.0, float(rng.uniform(0.1, 0.4)))
        self.texture(rng, (0, 0, 0), (3, 3), float(rng.uniform(0.0, 0.25)))
        return self


@dataclass
class Layer:
    """A sprite with its origin at (x, y) nominal px; category 0 is a thing without annotation."""

    sprite: Sprite
    x: float
    y: float
    category: int = 0


class Canvas:
    """A background of width x height nominal px, and layers from back to front."""

    def __init__(self, rng: Rng, width: float, height: float, scale: float) -> None:
        self.rng, self.width, self.height, self.scale = rng, width, height, scale
        self.back = Sprite(scale, 1.0, (width / 2, height / 2))
        self.back.pic = Image.new("RGB", (round(width * scale), round(height * scale)))
        self.back.origin = np.zeros(2)
        self.layers: list[Layer] = []

    def add(self, sprite: Sprite, x: float, y: float, category: int = 0) -> None:
        self.layers.append(Layer(sprite, x, y, category))

    def stand(self, sprite: Sprite, x: float, ground: float, category: int = 0) -> None:
        """Add with the foot on the ground, a soft shadow under it."""
        self.add(sprite, x, ground - sprite.foot, category)

    def shadow(self, x: float, y: float, width: float) -> None:
        """Dark soft spot on the ground, behind what is added later."""
        spot = Sprite(self.scale, width, (0.5, 0.14))
        spot.alpha = Image.radial_gradient("L").resize(spot.pic.size).point([max(0, 100 - i) for i in range(256)])
        self.add(spot, x, y)

    def render(self) -> tuple[Image.Image, list[tuple[Layer, NDArray[np.bool_]]]]:
        """Picture at the final size, and the layers with a category with what is visible of each, (H, W)."""
        pic, ids = self.back.pic.copy(), Image.new("L", self.back.pic.size)
        for number, layer in enumerate(self.layers, 1):
            s = layer.sprite
            at = (round(layer.x * self.scale - s.origin[0]), round(layer.y * self.scale - s.origin[1]))
            pic.paste(s.pic, at, s.alpha)
            ids.paste(number if layer.category else 0, at, s.alpha.point([0] * 128 + [255] * 128))
        n, fine = SUPERSAMPLING, np.asarray(ids)
        planes = [fine[i::n, j::n].copy() for i in range(n) for j in range(n)]
        masks = [
            (layer, np.sum([plane == number for plane in planes], axis=0) * 2 > len(planes))
            for number, layer in enumerate(self.layers, 1)
            if layer.category
        ]
        return pic.reduce(SUPERSAMPLING), masks


# ---------------------------------------------------------------- the four classes

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


# ---------------------------------------------------------------- scenes


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


@dataclass(frozen=True)
class World:
    """What there is to draw: classes as COCO lists them, and scenes (drawn on a canvas at a level 0 to 2) with how often each comes."""

    description: str
    categories: list[dict[str, Any]]
    scenes: tuple[Callable[[Canvas, int], None], ...]
    weights: tuple[float, ...]


FOUR_CLASSES = World(
    "drawn scenes of stop signs, birds, zebras and books",
    CATEGORIES,
    (stop_scene, bird_scene, zebra_scene, book_scene),
    (0.25, 0.22, 0.26, 0.27),
)


def light(rng: Rng, image: NDArray[np.float32], level: int) -> NDArray[np.uint8]:
    """The picture under some light, as a camera gives it: exposure, tint, uneven light and noise."""
    h, w, _ = image.shape
    y, x = np.linspace(-0.5, 0.5, h, dtype=np.float32)[:, None], np.linspace(-0.5, 0.5, w, dtype=np.float32)
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25 + 0.1 * level)
    shade = np.float32(1) + np.float32(slope * np.cos(angle)) * x + np.float32(slope * np.sin(angle)) * y
    gain = (rng.uniform(0.85 - 0.12 * level, 1.1) * (1 + rng.normal(0, 0.03 + 0.015 * level, 3))).astype(np.float32)
    contrast = rng.uniform(0.95 - 0.1 * level, 1.1)
    lit = ((image - 128) * contrast + 128) * gain * shade[..., None]
    noise = rng.standard_normal((h, w, 3), dtype=np.float32) * np.float32(rng.uniform(1, 3 + 2 * level))
    return np.clip(lit + noise, 0, 255).astype(np.uint8)


def draw_scene(rng: np.random.Generator, long_side: int = NOMINAL_SIDE, world: World = FOUR_CLASSES) -> Scene:
    """Draw one scene.

    Args:
        rng: where all chance comes from.
        long_side: length of the longer side in px, at least 32; the scene is 4:3, 3:4 or square.
        world: what it may show.

    Returns:
        The picture and its instances (at least one), back to front; their masks are what is visible of
        them, at least ``MIN_AREA`` px each at the nominal size, and do not overlap.

    Raises:
        ValueError: the long side is too short.
    """
    if long_side < 32:
        raise ValueError(f"long_side is {long_side}, must be at least 32")
    short = round(long_side * 0.75)
    width, height = pick(rng, ((long_side, short), (short, long_side), (long_side, long_side)), (0.6, 0.22, 0.18))
    unit = long_side / NOMINAL_SIDE
    level = int(pick(rng, (0, 1, 2), (0.4, 0.4, 0.2)))
    scene = pick(rng, world.scenes, world.weights)
    while True:
        canvas = Canvas(rng, width / unit, height / unit, unit * SUPERSAMPLING)
        scene(canvas, level)
        while True:  # take out what is hardly visible, which may uncover other things
            picture, shown = canvas.render()
            hidden = {id(layer) for layer, mask in shown if mask.sum() < max(MIN_AREA, MIN_VISIBLE * layer.sprite.area()) * unit**2}
            if not hidden:
                break
            canvas.layers = [layer for layer in canvas.layers if id(layer) not in hidden]
        if shown:
            break
    if rng.random() < 0.15 + 0.15 * level:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.4 + 0.2 * level) * unit))
    image = light(rng, np.asarray(picture, np.float32), level)
    return Scene(image, [layer.category for layer, _ in shown], [mask for _, mask in shown])


def write_dataset(
    folder: Path, train_images: int, test_images: int, long_side: int, seed: int, world: World = FOUR_CLASSES
) -> None:  # fmt: skip
    """Draw a data set in COCO's layout: folder/{train,test}.json and folder/images/{train,test}/*.jpg.

    Image ids count from 1 through train and then test; image k depends on the seed, k, long_side (px,
    the longer side) and the world alone.  The same arguments give the same bytes.

    Raises:
        ValueError: a count is negative, or the long side too short.
    """
    if train_images < 0 or test_images < 0:
        raise ValueError(f"negative number of images: {train_images} train, {test_images} test")
    image_id = annotation_id = 0
    with tqdm(total=train_images + test_images, desc="drawing scenes", unit="image") as bar:
        for split, count in (("train", train_images), ("test", test_images)):
            (folder / "images" / split).mkdir(parents=True, exist_ok=True)
            images: list[dict[str, Any]] = []
            annotations: list[dict[str, Any]] = []
            for _ in range(count):
                image_id += 1
                scene = draw_scene(np.random.default_rng([seed, image_id]), long_side, world)
                name = f"{split}/{image_id:012d}.jpg"
                Image.fromarray(scene.image).save(folder / "images" / name, quality=90, subsampling=0)
                height, width = scene.image.shape[:2]
                images.append({"id": image_id, "file_name": name, "width": width, "height": height})
                for category, mask in zip(scene.category_ids, scene.masks, strict=True):
                    annotation_id += 1
                    code = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
                    annotations.append(
                        {
                            "id": annotation_id,
                            "image_id": image_id,
                            "category_id": category,
                            "segmentation": {
                                "size": [height, width],
                                "counts": code["counts"].decode("ascii"),
                            },
                            "area": float(rle.area(code)),
                            "bbox": [float(v) for v in rle.toBbox(code)],
                            "iscrowd": 0,
                        }
                    )
                bar.update()
            info = {"description": world.description, "version": "1"}
            content = {
                "info": info,
                "licenses": [],
                "images": images,
                "annotations": annotations,
                "categories": world.categories,
            }
            (folder / f"{split}.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
