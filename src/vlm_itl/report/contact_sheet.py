"""The contact sheet, a picture of samples: pseudo-labels to the left, the true masks to the right, some images of each class."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.matching import partners, shared_numbers
from vlm_itl.core.pictures import Pixels, read_picture
from vlm_itl.judges import rendering
from vlm_itl.settings import Gallery, Render

Row = dict[str, Any]
WIDTH, GAP, LINE = 256, 8, 18  # pixels: of each of a sample's two pictures at most, between samples, of a line of text
INK = "#202020"


def choose(truth: Coco, settings: Gallery) -> dict[str, list[Row]]:
    """For each class at most `per_group` images that show it, by class name; no image twice.

    Their order depends on the seed and the image ids alone.
    """
    rows = by_image(truth)
    order = sorted(truth["images"], key=lambda i: hashlib.sha256(f"{settings.seed} {i['id']}".encode()).digest())
    chosen_ids: set[int] = set()
    chosen: dict[str, list[Row]] = {}
    for category in truth["categories"]:
        shows = [
            image
            for image in order
            if image["id"] not in chosen_ids
            and any(a["category_id"] == category["id"] and not a["iscrowd"] for a in rows.get(image["id"], []))
        ]
        chosen[category["name"]] = shows[: settings.per_group]
        chosen_ids |= {image["id"] for image in chosen[category["name"]]}
    return chosen


def draw(proposals: list[Row], truth: Coco, images: Path, iou: float, settings: Gallery) -> PIL.Image.Image:
    """A column a class, a sample a row. An instance has the colour of its pseudo-label; where two colours differ, something is missing.

    Args:
        images: the folder that `file_name`s are relative to.
        iou: mask IoU from which on a pseudo-label and an instance of its class belong together.
    """
    shown, true = by_image(proposals), by_image(truth)
    columns = []
    for name, some in choose(truth, settings).items():
        cells = [text(f"{name}: pseudo-labels and truth")]
        for image in some:
            mine, theirs = shown.get(image["id"], []), true.get(image["id"], [])
            pair = sample(read_picture(images / image["file_name"]), mine, theirs, iou)
            count = sum(not a["iscrowd"] for a in theirs)
            cells.append(stacked([pair, text(f"image {image['id']}: {len(mine)} drawn, {count} true")], 0))
        columns.append(stacked(cells, GAP))
    return PIL.Image.fromarray(rendering.beside(*columns, gap=2 * GAP))


def sample(pixels: Pixels, proposals: list[Row], truth: list[Row], iou: float) -> Pixels:
    """Two pictures of one image, no wider than `WIDTH` each."""
    numbers = shared_numbers(partners(proposals, truth, iou), len(truth))
    pair = (rendering.overlay(pixels, proposals, Render()), rendering.overlay(pixels, truth, Render(), numbers))
    return rendering.beside(*(np.array(rendering.settle(part, WIDTH)) for part in pair), gap=2)


def text(line: str) -> Pixels:
    """A line of text, dark on white."""
    font = PIL.ImageFont.load_default(12)
    picture = PIL.Image.new("RGB", (round(font.getlength(line)) + 4, LINE), "white")
    PIL.ImageDraw.Draw(picture).text((2, 2), line, fill=INK, font=font)
    return np.array(picture)


def stacked(pictures: list[Pixels], gap: int) -> Pixels:
    """Pictures from top to bottom on white, left-aligned."""
    width = max(p.shape[1] for p in pictures)
    result = np.full((sum(p.shape[0] + gap for p in pictures), width, 3), 255, dtype=np.uint8)
    top = 0
    for picture in pictures:
        result[top : top + picture.shape[0], : picture.shape[1]] = picture
        top += picture.shape[0] + gap
    return result
