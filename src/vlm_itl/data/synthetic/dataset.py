"""A data set of drawn scenes: one picture with its light and its masks, and all of them with COCO's rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pycocotools import mask as rle
from tqdm import tqdm

from vlm_itl.core.coco import Coco
from vlm_itl.data.synthetic.canvas import NOMINAL_SIDE, SUPERSAMPLING, Canvas, Rng, pick
from vlm_itl.data.synthetic.scenes import FOUR_CLASSES, World

MIN_AREA = 40  # nominal px^2; less visible area than this and the thing is taken out of the picture
MIN_VISIBLE = 0.12  # least visible share of a thing, likewise


@dataclass(frozen=True)
class Scene:
    """One picture: image (H, W, 3) RGB, and for each instance its category id and mask (H, W)."""

    image: NDArray[np.uint8]
    category_ids: list[int]
    masks: list[NDArray[np.bool_]]


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


def draw_dataset(
    images: Path, train_images: int, test_images: int, long_side: int, seed: int, world: World = FOUR_CLASSES
) -> dict[str, Coco]:  # fmt: skip
    """Draw a data set's pictures into images/{train,test}/*.jpg.

    Image ids count from 1 through train and then test; image k depends on the seed, k, long_side (px,
    the longer side) and the world alone.  The same arguments give the same bytes.

    Returns:
        {"train": ..., "test": ...}, COCO instances with `file_name`s relative to images.

    Raises:
        ValueError: a count is negative, or the long side too short.
    """
    if train_images < 0 or test_images < 0:
        raise ValueError(f"negative number of images: {train_images} train, {test_images} test")
    parts: dict[str, Coco] = {}
    image_id = annotation_id = 0
    with tqdm(total=train_images + test_images, desc="drawing scenes", unit="image") as bar:
        for name, count in (("train", train_images), ("test", test_images)):
            (images / name).mkdir(parents=True, exist_ok=True)
            rows: list[dict[str, Any]] = []
            annotations: list[dict[str, Any]] = []
            for _ in range(count):
                image_id += 1
                scene = draw_scene(np.random.default_rng([seed, image_id]), long_side, world)
                file_name = f"{name}/{image_id:012d}.jpg"
                Image.fromarray(scene.image).save(images / file_name, quality=90, subsampling=0)
                height, width = scene.image.shape[:2]
                rows.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
                for category, mask in zip(scene.category_ids, scene.masks, strict=True):
                    annotation_id += 1
                    annotations.append(annotation(annotation_id, image_id, category, mask))
                bar.update()
            parts[name] = {
                "info": {"description": world.description, "version": "1"},
                "licenses": [],
                "images": rows,
                "annotations": annotations,
                "categories": world.categories,
            }
    return parts


def annotation(annotation_id: int, image_id: int, category: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's row of an instance; bbox [x, y, w, h] in px, area in px^2, mask (H, W)."""
    code = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category,
        "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode("ascii")},
        "area": float(rle.area(code)),
        "bbox": [float(v) for v in rle.toBbox(code)],
        "iscrowd": 0,
    }


def write_dataset(
    folder: Path, train_images: int, test_images: int, long_side: int, seed: int, world: World = FOUR_CLASSES
) -> None:  # fmt: skip
    """Draw a data set in COCO's layout: folder/{train,test}.json and folder/images/{train,test}/*.jpg; see `draw_dataset`."""
    for name, part in draw_dataset(folder / "images", train_images, test_images, long_side, seed, world).items():
        (folder / f"{name}.json").write_text(json.dumps(part) + "\n", encoding="utf-8")
