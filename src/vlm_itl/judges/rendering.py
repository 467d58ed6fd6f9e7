"""From a photograph and proposals to the pictures that a judge sees. What is drawn is what is declared: every proposal, no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray
from pycocotools import mask as mask_util
from pydantic import Field

from vlm_itl.core.fields import Model, Probability
from vlm_itl.core.pictures import Pixels
from vlm_itl.judges.verdict import Unit

GAP = 8  # pixels of white between two pictures beside each other

# distinct from each other on light and on dark ground; after Kelly (1965), "Twenty-two colors of maximum contrast", without black and white
COLOURS = np.array(
    [
        (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240), (240, 50, 230),
        (210, 245, 60), (250, 190, 212), (0, 128, 128), (220, 190, 255), (170, 110, 40), (128, 0, 0), (170, 255, 195), (0, 0, 128),
    ],
    dtype=np.uint8,
)  # fmt: skip


class Render(Model):
    """What the pictures for a VLM or a person look like."""

    original: bool = True
    """Shows the photograph beside the one with masks."""
    alpha: Probability = 0.45
    """Opacity of the masks' colour."""
    contour: Annotated[int, Field(ge=0, le=20)] = 2
    """Width of the line around a mask, in pixels."""
    marks: bool = False
    """Writes each proposal's number on its mask."""
    longest: Annotated[int, Field(ge=32)] | None = 1536
    """Longer side of a picture in pixels; a longer one is made smaller. null: never."""
    margin: Annotated[float, Field(ge=0)] = 0.5
    """What the context crop of a single mask shows around its box on each side, in box sides."""


def colour(index: int) -> NDArray[np.uint8]:
    """RGB of the index-th proposal: `COLOURS`, then ever darker ones."""
    rgb: NDArray[np.uint8] = (COLOURS[index % len(COLOURS)] * 0.6 ** (index // len(COLOURS))).astype(np.uint8)
    return rgb


def compose(kind: Unit, pixels: Pixels, rows: Sequence[dict[str, Any]], settings: Render) -> list[PIL.Image.Image]:
    """The pictures of a question about these proposals (`mask`: exactly one), for a model and for a person alike."""
    if kind == "mask":
        [row] = rows
        context = crop(boxes(pixels, rows), row, settings.margin)
        pictures = [context, crop(overlay(pixels, rows, settings), row, 0.1)]
    elif kind == "missing":
        pictures = [boxes(pixels, rows)]
    else:
        drawn = overlay(pixels, rows, settings)
        pictures = [beside(pixels, drawn) if settings.original else drawn]
    return [settle(picture, settings.longest) for picture in pictures]


def overlay(pixels: Pixels, rows: Sequence[dict[str, Any]], settings: Render, numbers: Sequence[int] | None = None) -> Pixels:
    """The photograph with each proposal's mask in a colour of its own, blended, with a full contour, and its number where asked for.

    Args:
        numbers: from 0, one a row, where a row's colour and number are not those of its place.
    """
    numbers = range(len(rows)) if numbers is None else numbers
    result = pixels.copy()
    places = []
    levels = np.arange(256)
    for index, row in zip(numbers, rows):
        mask, (x, y) = cut(row["segmentation"])
        part = result[y : y + mask.shape[0], x : x + mask.shape[1]]
        edge = contour(mask, settings.contour)
        for channel, shade in enumerate(colour(index)):
            # a table of the 256 blends and a masked copy: several times faster than arithmetic on the chosen pixels
            blend = (levels * (1 - settings.alpha) + shade * settings.alpha).astype(np.uint8)
            np.copyto(part[..., channel], blend[part[..., channel]], where=mask)
            np.copyto(part[..., channel], shade, where=edge)
        if settings.marks:
            places.append(mark(mask, x, y))
    if settings.marks:
        picture = PIL.Image.fromarray(result)
        draw = PIL.ImageDraw.Draw(picture)
        font = PIL.ImageFont.load_default(max(10, min(pixels.shape[:2]) // 20))
        for index, place in zip(numbers, places):
            draw.text(place, str(index + 1), fill="white", stroke_fill="black", stroke_width=2, anchor="mm", font=font)
        result = np.array(picture)
    return result


def boxes(pixels: Pixels, rows: Sequence[dict[str, Any]], width: int = 2) -> Pixels:
    """The photograph with each proposal's box in a colour of its own."""
    picture = PIL.Image.fromarray(pixels)
    draw = PIL.ImageDraw.Draw(picture)
    for index, row in enumerate(rows):
        x, y, w, h = row["bbox"]
        draw.rectangle((x, y, max(x, x + w - 1), max(y, y + h - 1)), outline=tuple(colour(index).tolist()), width=width)
    return np.array(picture)


def crop(pixels: Pixels, row: dict[str, Any], margin: float, shortest: int = 224) -> Pixels:
    """The part of a picture around a proposal's box, `margin` box sides wider on every side, enlarged to a shorter side of `shortest`."""
    x, y, w, h = row["bbox"]
    height, width = pixels.shape[:2]
    left, right = int(max(0, x - margin * w)), int(min(width, np.ceil(x + w + margin * w)))
    top, bottom = int(max(0, y - margin * h)), int(min(height, np.ceil(y + h + margin * h)))
    part = PIL.Image.fromarray(pixels[top : max(bottom, top + 1), left : max(right, left + 1)])
    # a sliver is not enlarged into a wall: the longer side stays within four times `shortest`
    scale = min(shortest / min(part.size), 4 * shortest / max(part.size))
    if scale > 1:
        part = part.resize((round(part.width * scale), round(part.height * scale)), PIL.Image.Resampling.BICUBIC)
    return np.array(part)


def beside(*pictures: Pixels, gap: int = GAP) -> Pixels:
    """Pictures from left to right on white, top-aligned."""
    height = max(p.shape[0] for p in pictures)
    width = sum(p.shape[1] for p in pictures) + gap * (len(pictures) - 1)
    result = np.full((height, width, 3), 255, dtype=np.uint8)
    left = 0
    for picture in pictures:
        result[: picture.shape[0], left : left + picture.shape[1]] = picture
        left += picture.shape[1] + gap
    return result


def cut(rle: dict[str, Any]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The part of a mask within its own box, and the box's left upper corner (x, y)."""
    x, y, w, h = (int(n) for n in mask_util.toBbox(rle))
    return mask_util.decode(rle)[y : y + h, x : x + w].astype(bool), (x, y)


def contour(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Pixels of the mask that lie within `width` of its edge (4-neighbours); outside the array counts as outside the mask."""
    inner = np.pad(mask, width)
    for _ in range(width):
        smaller = inner.copy()
        smaller[1:] &= inner[:-1]
        smaller[:-1] &= inner[1:]
        smaller[:, 1:] &= inner[:, :-1]
        smaller[:, :-1] &= inner[:, 1:]
        inner = smaller
    return mask & ~inner[width : width + mask.shape[0], width : width + mask.shape[1]]


def mark(mask: NDArray[np.bool_], x: int, y: int) -> tuple[int, int]:
    """(x, y) of the pixel of a cut-out mask that is nearest to its centroid: the number lies on its own mask, bent ones too."""
    if not mask.any():
        return x, y
    rows, columns = np.arange(mask.shape[0]), np.arange(mask.shape[1])
    n = mask.sum()
    distance = (rows - mask.sum(1) @ rows / n)[:, None] ** 2 + (columns - mask.sum(0) @ columns / n) ** 2
    row, column = np.unravel_index(np.argmin(np.where(mask, distance, np.inf)), mask.shape)
    return x + int(column), y + int(row)


def settle(pixels: Pixels, longest: int | None) -> PIL.Image.Image:
    """As a picture, made smaller where its longer side exceeds `longest` pixels."""
    picture = PIL.Image.fromarray(pixels)
    if longest is not None and max(picture.size) > longest:
        picture.thumbnail((longest, longest), PIL.Image.Resampling.LANCZOS)
    return picture
