"""Reading other people's COCO instances JSON, and their pictures, with suspicion.

After `normalise` every annotation has a compressed RLE mask of the image's size, an `area` and a `bbox` of floats, and `iscrowd`.
"""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec
import PIL.Image
import PIL.ImageOps
from pycocotools import mask as mask_util

from ..base.coco import Coco, Rle
from ..base.errors import UserError

Pixels = Annotated[int, msgspec.Meta(ge=1)]


class Image(msgspec.Struct, gc=False):
    """An entry of `images`; sizes in pixels."""

    id: int
    file_name: str
    height: Pixels
    width: Pixels
    coco_url: str | None = None


class Annotation(msgspec.Struct, gc=False):
    """An entry of `annotations`. The outline stays undecoded: a view into the bytes that were parsed."""

    id: int
    image_id: int
    category_id: int
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    area: float | None = None
    iscrowd: int | bool = 0


class Category(msgspec.Struct):
    """An entry of `categories`."""

    id: int
    name: str


class Instances(msgspec.Struct):
    """A parsed instances JSON; whatever else it holds is left out."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]

    def category_names(self) -> list[tuple[int, str]]:
        """(id, name) of every category, by id."""
        return sorted((c.id, c.name) for c in self.categories)


def read_instances(path: Path) -> Instances:
    """Read and check an instances JSON file.

    Raises:
        UserError: the file cannot be read, or see `parse_instances`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_instances(content, str(path))


def parse_instances(content: bytes | bytearray, where: str) -> Instances:
    """Parse an instances JSON and check its ids and references.

    The result keeps `content` alive. A file with COCO's 118,287 training images and 860,001 annotations peaks at 0.9 GiB, with the
    outlines decoded to Python lists at 3 (`bench/annotations.py`).

    Args:
        where: what to call the file in an error.

    Raises:
        UserError: names the file and the id at fault.
    """
    try:
        data = msgspec.json.decode(content, type=Instances)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: not COCO instances: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: cannot be read as JSON: {error}") from None
    rows: tuple[tuple[str, list[Any]], ...] = (
        ("images", data.images), ("annotations", data.annotations), ("categories", data.categories)
    )  # fmt: skip
    for key, entries in rows:
        if len({row.id for row in entries}) < len(entries):
            repeated = next(i for i, n in Counter(row.id for row in entries).items() if n > 1)
            raise UserError(f"{where}: {key}: id {repeated} is there twice")
    if len({row.file_name for row in data.images}) < len(data.images):
        repeated = next(name for name, n in Counter(row.file_name for row in data.images).items() if n > 1)
        raise UserError(f"{where}: images: file_name {repeated!r} is there twice")
    if len({c.name for c in data.categories}) < len(data.categories):
        raise UserError(f"{where}: categories need a distinct name each")
    images, categories = {row.id for row in data.images}, {row.id for row in data.categories}
    for row in data.annotations:
        if row.image_id not in images:
            raise UserError(f"{where}: annotation {row.id}: image {row.image_id} is not in the file")
        if row.category_id not in categories:
            raise UserError(f"{where}: annotation {row.id}: category {row.category_id} is not in the file")
    return data


def normalise(data: Instances, categories: set[int], where: str) -> tuple[Coco, Counter[str]]:
    """The annotations of some categories in the project's form, with all images.

    As COCO's own tools do, annotations without a usable outline are skipped, and counted; whatever else is wrong is refused, since it
    means that the file is not what the user thinks it is. Crowd regions are kept, marked `iscrowd`.

    Args:
        data: polygons, uncompressed or compressed RLE.
        categories: ids; annotations of others are not looked at.
        where: what to call the file in an error.

    Returns:
        The data, and how many of what were skipped or noted.

    Raises:
        UserError: names the file and the annotation at fault.
    """
    sizes = {row.id: (row.height, row.width) for row in data.images}
    notes: Counter[str] = Counter()
    annotations = []
    for row in data.annotations:
        if row.category_id not in categories:
            continue
        rle = to_rle(msgspec.json.decode(row.segmentation), sizes[row.image_id], f"{where}: annotation {row.id}")
        area = float(mask_util.area(rle)) if rle else 0.0
        if rle is None or area == 0:
            notes["annotations_without_outline"] += 1
            continue
        crowd = int(bool(row.iscrowd))
        notes["crowd_regions"] += crowd
        annotations.append({
            "id": row.id, "image_id": row.image_id, "category_id": row.category_id, "segmentation": rle,
            # in COCO's own files the area of the polygon, not of its pixels
            "area": row.area if row.area and row.area > 0 else area,
            "bbox": [float(n) for n in mask_util.toBbox(rle)], "iscrowd": crowd,
        })  # fmt: skip
    result = {
        "images": [{"id": row.id, "file_name": row.file_name, "height": row.height, "width": row.width} for row in data.images],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in data.category_names() if i in categories],
    }
    return result, notes


def picture_path(folder: Path, image: dict[str, Any], where: str) -> Path:
    """The file of an `images` row.

    Raises:
        UserError: it lies outside `folder`.
    """
    file = folder / image["file_name"]
    if PurePosixPath(image["file_name"]).is_absolute() or not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{where}: image {image['id']}: file_name {image['file_name']!r} leaves the image folder {folder}")
    return file


def picture_problem(picture: bytes, image: dict[str, Any]) -> str | None:
    """Why these bytes are not the picture of an `images` row, or None: they must decode to the end and have the row's size."""
    try:
        with PIL.Image.open(BytesIO(picture)) as opened:
            opened.load()
            # Detectron2 turns pictures by their EXIF orientation when it reads them: compare what it will see.
            width, height = PIL.ImageOps.exif_transpose(opened).size
    except PIL.UnidentifiedImageError:
        return f"not a picture ({len(picture)} bytes)"
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        return f"not a whole picture: {error}"
    if (image["height"], image["width"]) != (height, width):
        return f"{width} x {height} pixels, the annotation says {image['width']} x {image['height']}"
    return None


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
