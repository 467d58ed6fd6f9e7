"""COCO instances JSON: reading it with suspicion, and the one form in which the project passes masks on.

After `read_instances` every annotation has a compressed RLE mask of the image's size, an `area` and a `bbox` of floats, and `iscrowd`.
Format: the "Object Detection" section of COCO's data format page.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pycocotools import mask as mask_util
from tqdm import tqdm

from .errors import UserError
from .files import read_json

Rle = dict[str, Any]  # {"size": [height, width], "counts": str}
Coco = dict[str, Any]  # {"images": [...], "annotations": [...], "categories": [...]}


def encode(mask: NDArray[np.bool_]) -> Rle:
    """RLE of a boolean mask of shape (height, width)."""
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode(rle: Rle) -> NDArray[np.bool_]:
    """Boolean mask of shape (height, width)."""
    return mask_util.decode(rle).astype(bool)


def empty_like(data: Coco) -> Coco:
    """The same categories, no images and no annotations."""
    return {"images": [], "annotations": [], "categories": data["categories"]}


def subset(data: Coco, image_ids: set[int]) -> Coco:
    """The images of `image_ids` and their annotations, in the order of `data`."""
    return {
        "images": [image for image in data["images"] if image["id"] in image_ids],
        "annotations": [a for a in data["annotations"] if a["image_id"] in image_ids],
        "categories": data["categories"],
    }


def by_image(data: Coco | list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Annotations (or results) by image id; images without any are absent."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in data if isinstance(data, list) else data["annotations"]:
        rows.setdefault(row["image_id"], []).append(row)
    return rows


def read_instances(path: Path, images: Path) -> tuple[Coco, Counter[str]]:
    """Read and check an instances JSON against its image folder.

    As COCO's own tools do, annotations without a usable outline are skipped, and counted; whatever else is wrong is refused, since it
    means that the file is not what the user thinks it is. Crowd regions are kept, marked `iscrowd`.

    Args:
        path: instances JSON with polygons, uncompressed or compressed RLE.
        images: the folder that each `file_name` is relative to.

    Returns:
        The data with normalised annotations, and how many of what were skipped or noted.

    Raises:
        UserError: names the file and the id at fault.
    """
    raw = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(raw, dict) or not isinstance(raw.get(key), list):
            raise UserError(f"{path}: not COCO instances: no list '{key}'")
        for row in raw[key]:
            if not isinstance(row, dict) or not isinstance(row.get("id"), int):
                raise UserError(f"{path}: an entry of '{key}' has no integer id")
        repeated = [i for i, n in Counter(row["id"] for row in raw[key]).items() if n > 1]
        if repeated:
            raise UserError(f"{path}: {key}: id {repeated[0]} is there twice")
    categories = {row["id"]: row.get("name") for row in raw["categories"]}
    if any(not isinstance(name, str) for name in categories.values()) or len(set(categories.values())) < len(categories):
        raise UserError(f"{path}: categories need a distinct name each")
    sizes: dict[int, tuple[int, int]] = {}
    for row in tqdm(raw["images"], desc=f"checking images of {path.name}", unit="image", disable=None):
        sizes[row["id"]] = check_image(path, images, row)
    notes: Counter[str] = Counter()
    annotations = []
    for row in raw["annotations"]:
        where = f"{path}: annotation {row['id']}"
        if row.get("image_id") not in sizes:
            raise UserError(f"{where}: image {row.get('image_id')!r} is not in the file")
        if row.get("category_id") not in categories:
            raise UserError(f"{where}: category {row.get('category_id')!r} is not in the file")
        rle = to_rle(row.get("segmentation"), sizes[row["image_id"]], where)
        area = float(mask_util.area(rle)) if rle else 0.0
        if rle is None or area == 0:
            notes["annotations skipped: no usable outline"] += 1
            continue
        crowd = int(bool(row.get("iscrowd", 0)))
        # in COCO's own files the area of the polygon, not of its pixels
        given = float(row["area"]) if isinstance(row.get("area"), (int, float)) else None
        notes["crowd regions"] += crowd
        annotations.append({
            "id": row["id"], "image_id": row["image_id"], "category_id": row["category_id"], "segmentation": rle,
            "area": given if given and given > 0 else area, "bbox": [float(n) for n in mask_util.toBbox(rle)], "iscrowd": crowd,
        })  # fmt: skip
    labelled = {row["image_id"] for row in annotations}
    notes["images without annotations"] = sum(1 for i in sizes if i not in labelled)
    kept = [
        {"id": row["id"], "file_name": row["file_name"], "height": sizes[row["id"]][0], "width": sizes[row["id"]][1]}
        for row in raw["images"]
    ]
    data = {
        "images": kept,
        "annotations": annotations,
        "categories": [{"id": i, "name": categories[i]} for i in sorted(categories)],
    }
    return data, notes


def check_image(path: Path, images: Path, row: dict[str, Any]) -> tuple[int, int]:
    """Decode the image of an `images` entry and return its (height, width).

    Raises:
        UserError: it is missing, outside `images`, cannot be decoded to the end, or has another size than the entry says.
    """
    where = f"{path}: image {row['id']}"
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: no file_name")
    file = images / name
    if PurePosixPath(name).is_absolute() or not file.resolve().is_relative_to(images.resolve()):
        raise UserError(f"{where}: file_name {name!r} leaves the image folder {images}")
    try:
        with Image.open(file) as image:
            image.load()
            # Detectron2 turns pictures by their EXIF orientation when it reads them: compare what it will see.
            width, height = ImageOps.exif_transpose(image).size
    except FileNotFoundError:
        raise UserError(f"{where}: no file {file}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{where}: {file} is not a whole picture: {error}") from None
    if (row.get("height"), row.get("width")) != (height, width):
        raise UserError(f"{where}: {file} is {width} x {height} pixels, the annotation says {row.get('width')} x {row.get('height')}")
    return height, width


def to_rle(segmentation: Any, size: tuple[int, int], where: str) -> Rle | None:
    """Compressed RLE of any COCO segmentation; None where polygons enclose nothing.

    Raises:
        UserError: an RLE of another size than the image, or something that is no segmentation.
    """
    height, width = size
    if isinstance(segmentation, list):
        polygons = [p for p in segmentation if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]
        if not polygons:
            return None
        try:
            rle = mask_util.merge(mask_util.frPyObjects([[float(n) for n in p] for p in polygons], height, width))
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: its polygon is not a list of numbers: {error}") from None
    elif isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            raise UserError(f"{where}: its RLE is for size {segmentation.get('size')}, the image is {[height, width]} (h, w)")
        counts = segmentation.get("counts")
        if isinstance(counts, list):
            if sum(counts) != height * width:
                raise UserError(f"{where}: its RLE counts {sum(counts)} pixels, the image has {height * width}")
            rle = mask_util.frPyObjects(segmentation, height, width)
        elif isinstance(counts, str) and _string_rle_pixels(counts) == height * width:
            rle = {"size": [height, width], "counts": counts.encode("ascii")}
        else:
            raise UserError(f"{where}: its RLE does not cover the image")
    else:
        return None
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def _string_rle_pixels(counts: str) -> int:
    """Pixels that a compressed RLE string covers, or -1 if it is malformed.

    pycocotools does not check this and reads past the end. Encoding (cocoapi, maskApi.c, rleToString): LEB128-like groups of 5 bits plus
    a continuation bit, offset by 48; from the fourth run on, each is stored as the difference to the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for char in counts:
        group = ord(char) - 48
        if not 0 <= group < 64:
            return -1
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            if runs[-1] < 0:
                return -1
            value = shift = 0
    return sum(runs) if shift == 0 else -1
