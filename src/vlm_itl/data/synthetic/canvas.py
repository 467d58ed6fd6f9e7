"""Drawing: colours, outlines, sprites, and the canvas that stacks them.

Every thing is a :class:`Sprite`, drawn with polygons at ``SUPERSAMPLING`` times the final resolution.
A :class:`Canvas` stacks sprites with the painter's algorithm, to a picture and to a layer of instance
numbers alike, so a mask is what is visible of its instance.  Lengths are in nominal pixels, of which the
long side of a scene has ``NOMINAL_SIDE`` whatever its final size; y points down; angles are in radians.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageChops, ImageDraw

NOMINAL_SIDE = 160
SUPERSAMPLING = 3  # odd, so that no two instances can each cover exactly half of a pixel

Colour = tuple[int, int, int]
Points = NDArray[np.float64]  # (n, 2) corners x, y of a polygon, or nodes of a line
Rng = np.random.Generator


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
    return np.add(turn(np.stack([rx * np.cos(t), ry * np.sin(t)], 1), angle), (x, y))


def turn(points: ArrayLike, angle: float) -> Points:
    """Points turned clockwise (as seen, y down) about the origin."""
    c, s = np.cos(angle), np.sin(angle)
    turned: Points = np.asarray(points, dtype=np.float64) @ np.array([[c, s], [-s, c]])
    return turned


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
