"""Reading other people's COCO instances JSON, and their pictures, with suspicion.

After `normalise` every annotation has a compressed RLE mask of the image's size, an `area` and a `bbox` of floats, and `iscrowd`; after
`renumbered` also ids of the project's own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from io import BytesIO
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

import msgspec
from pycocotools import mask as mask_util

from vlm_itl.core.coco import Coco, Rle
from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import MAX_PIXELS
from vlm_itl.core.files import read_regular
from vlm_itl.core.pictures import UnreadablePictureError, decode

T = TypeVar("T")
Pixels = Annotated[int, msgspec.Meta(ge=1)]

# pycocotools counts in 32 bits, walks along every outline in steps of a fifth of a pixel, and checks nothing
FARTHEST = 2**20  # pixels from the origin that a corner may lie
LONGEST = 2**21  # pixels that an outline may be long
MOST_BITS = 40  # of a number in a compressed RLE
MOST_OUTLINE = 2**24  # bytes of the text of a segmentation


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
    iscrowd: int | bool | None = 0


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
        """(id, name) of every category, by id; of several with one name those that have annotations, or else the first."""
        names = Counter(c.name for c in self.categories)
        used = {row.category_id for row in self.annotations} if len(names) < len(self.categories) else set()
        kept: dict[str, list[int]] = {}
        for c in sorted(self.categories, key=lambda c: (c.id not in used, c.id)):
            if names[c.name] == 1 or c.id in used or c.name not in kept:
                kept.setdefault(c.name, []).append(c.id)
        return sorted((i, name) for name, ids in kept.items() for i in ids)


def read_instances(path: Path) -> Instances:
    """Read and check an instances JSON file.

    Raises:
        UserError: the file cannot be read, or see `parse_instances`.
    """
    try:
        content = read_regular(path)
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
    data = parsed(content, Instances, where, "COCO instances")
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
    images, categories = {row.id for row in data.images}, {row.id for row in data.categories}
    for row in data.annotations:
        if row.image_id not in images:
            raise UserError(f"{where}: annotation {row.id}: image {row.image_id} is not in the file")
        if row.category_id not in categories:
            raise UserError(f"{where}: annotation {row.id}: category {row.category_id} is not in the file")
    return data


def parsed(content: bytes | bytearray, form: type[T], where: str, what: str) -> T:
    """JSON of strangers as typed rows.

    Args:
        form: a type of msgspec's.
        where, what: for an error, the file and what is expected there.

    Raises:
        UserError: it is no JSON, or of another form.
    """
    try:
        return msgspec.json.decode(content, type=form)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: not {what}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            return msgspec.json.decode(_strict_json(content), type=form)
        except msgspec.ValidationError as error:
            raise UserError(f"{where}: not {what}: {error}") from None
        except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise UserError(f"{where}: cannot be read as JSON: {error}") from None
    except RecursionError as error:
        raise UserError(f"{where}: cannot be read as JSON: {error}") from None


def _strict_json(content: bytes | bytearray) -> bytes:
    """JSON as other programs write it, in JSON's own terms: UTF-16 and byte-order marks to UTF-8, NaN and infinity to null.

    Python's parser takes three times the memory, so this is for what msgspec refuses.
    """
    raw = bytes(content)
    value = json.loads(raw.decode(json.detect_encoding(raw)), parse_constant=lambda _: None)
    return msgspec.json.encode(value)


def normalise(data: Instances, categories: set[int], where: str, max_pixels: int = MAX_PIXELS) -> tuple[Coco, Counter[str]]:
    """The annotations of some categories in the project's form, with all images.

    As COCO's own tools do, annotations without a usable outline are skipped, and counted; whatever else is wrong is refused, since it
    means that the file is not what the user thinks it is. Crowd regions are kept, marked `iscrowd`. Where every polygon lies between 0
    and 1, and there is no RLE, they are in fractions of width and height.

    Args:
        data: polygons in the forms of `polygons`, uncompressed or compressed RLE.
        categories: ids; annotations of others are not looked at.
        where: what to call the file in an error.
        max_pixels: of an image.

    Returns:
        The data, with the ids of the file, and how many of what were skipped or noted.

    Raises:
        UserError: names the file and the annotation at fault.
    """
    sizes = {row.id: (row.height, row.width) for row in data.images}
    notes: Counter[str] = Counter()
    rows = [row for row in data.annotations if row.category_id in categories]
    relative = _relative(rows)
    masks = [0, 0]  # in RLE: of instances, of crowd regions
    annotations = []
    for row in rows:
        height, width = sizes[row.image_id]
        if height * width > max_pixels:
            raise UserError(
                f"{where}: image {row.image_id}: {width} x {height} pixels are more than data.max_pixels of params.yaml allows "
                f"({max_pixels:,})"
            )
        outline = segmentation_of(row.segmentation, f"{where}: annotation {row.id}")
        rle = to_rle(outline, (height, width), f"{where}: annotation {row.id}", relative)
        area = float(mask_util.area(rle)) if rle else 0.0
        if rle is None or area == 0:
            notes["annotations_without_outline"] += 1
            continue
        crowd = int(bool(row.iscrowd))
        notes["crowd_regions"] += crowd
        masks[crowd] += _is_rle(outline)
        notes["relative_outlines"] += relative
        annotations.append({
            "id": row.id, "image_id": row.image_id, "category_id": row.category_id, "segmentation": rle,
            # in COCO's own files the area of the polygon, not of its pixels
            "area": row.area if row.area and row.area > 0 and not relative else area,
            "bbox": [float(n) for n in mask_util.toBbox(rle)], "iscrowd": crowd,
        })  # fmt: skip
    notes["rle_all_crowd"] = masks[1] if not masks[0] else 0
    result = {
        "images": [{"id": row.id, "file_name": row.file_name, "height": row.height, "width": row.width} for row in data.images],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in data.category_names() if i in categories],
    }
    return result, +notes  # without what there is none of


def renumbered(parts: dict[str, Coco]) -> dict[str, Coco]:
    """The parts under ids of the project's own, from 1, one set for all parts; a row keeps its file's as `original_id`.

    Strangers' ids may be 0, negative or of any length, and files may number one class differently: categories are matched by name, in
    the order of the first part's ids. Images are counted through the parts in the order of their ids, so what is seeded and goes by
    ascending ids comes out as it would with the file's.
    """
    first = next(iter(parts.values()))["categories"]
    number = {row["name"]: k for k, row in enumerate(sorted(first, key=lambda row: row["id"]), 1)}
    image_ids, annotation_ids = count(1), count(1)
    result = {}
    for part, data in parts.items():
        images = {i: next(image_ids) for i in sorted(image["id"] for image in data["images"])}
        names = {row["id"]: row["name"] for row in data["categories"]}
        result[part] = {
            "images": [{**row, "id": images[row["id"]], "original_id": row["id"]} for row in data["images"]],
            "annotations": [
                {**row, "id": next(annotation_ids), "image_id": images[row["image_id"]], "category_id": number[names[row["category_id"]]],
                 "original_id": row["id"]}
                for row in data["annotations"]
            ],
            "categories": sorted(
                ({**row, "id": number[row["name"]], "original_id": row["id"]} for row in data["categories"]), key=lambda row: row["id"]
            ),
        }  # fmt: skip
    return result


def shared(train: Coco, test: Coco) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows of training and of test images that are the same picture, byte by byte."""
    tested = {image["md5"]: image for image in test["images"]}
    return [(image, tested[image["md5"]]) for image in train["images"] if image["md5"] in tested]


def picture_path(folder: Path, name: str, where: str) -> Path:
    """The file that a stranger's `file_name` means below `folder`.

    Raises:
        UserError: it lies outside `folder`, or can be no file's name.
    """
    pure = PurePosixPath(name)
    try:
        file = folder / pure
        if pure.is_absolute() or ".." in pure.parts or not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{where}: file_name {name!r} leaves the image folder {folder}")
    except (ValueError, OSError, RuntimeError) as error:  # a NUL, half a surrogate pair, a name too long, links in a circle
        raise UserError(f"{where}: file_name {name!r} leads to no file: {error}") from None
    return file


def most_bytes(image: dict[str, Any]) -> int:
    """How large the file of a picture of that size may be."""
    return most_bytes_of(int(image["height"]) * int(image["width"]))


def most_bytes_of(pixels: int) -> int:
    """How large the file of a picture of so many pixels may be: four channels of 16 bits each, and 16 MiB for what else is in it."""
    return 8 * pixels + 2**24


def recorded_picture(folder: Path, image: dict[str, Any]) -> bytes:
    """The file of a picture, the very one that was judged.

    Args:
        image: its row; the `md5` of drawn pictures may be absent.

    Raises:
        UserError: it is not there, or another one.
    """
    path = folder / image["file_name"]
    try:
        content = read_regular(path, most_bytes(image))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; `dvc repro` brings the picture back (stage download)") from None
    if image.get("md5") not in (None, hashlib.md5(content).hexdigest()):
        raise UserError(f"{path}: it is no longer the picture that was judged; `dvc repro` brings that back (stage download)")
    return content


def picture_problem(picture: bytes, image: dict[str, Any], max_pixels: int = MAX_PIXELS) -> str | None:
    """Why these bytes are not the picture of an `images` row, or None: they must decode to the end and have the row's size."""
    try:
        height, width = decode(BytesIO(picture), max_pixels).shape[:2]
    except UnreadablePictureError as error:
        return str(error)
    if (image["height"], image["width"]) != (height, width):
        return f"{width} x {height} pixels, the annotation says {image['width']} x {image['height']}"
    return None


def segmentation_of(raw: msgspec.Raw, where: str) -> Any:
    """A segmentation that was left undecoded, for `to_rle`.

    Raises:
        UserError: it is no JSON, or longer than any mask.
    """
    if len(bytes(raw)) > MOST_OUTLINE:  # nested lists take fifty times their text
        raise UserError(f"{where}: its segmentation has {len(bytes(raw)):,} bytes; at most {MOST_OUTLINE:,} are read")
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UserError(f"{where}: its segmentation cannot be read: {error}") from None


def to_rle(segmentation: Any, size: tuple[int, int], where: str, relative: bool = False) -> Rle | None:
    """Compressed RLE of a segmentation; None where it encloses nothing.

    Args:
        segmentation: None, polygons in the forms of `polygons`, an RLE (counts as numbers or as text), or a list of RLEs.
        size: (height, width).
        relative: polygons are in fractions of width and height.

    Raises:
        UserError: an RLE of another size than the image, or something that has no certain meaning.
    """
    if segmentation is None:
        return None
    try:
        if _is_rle(segmentation):
            parts = [_from_runs(part, size) for part in ([segmentation] if isinstance(segmentation, dict) else segmentation)]
        else:
            parts = _from_polygons(segmentation, size, relative)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    if not parts:
        return None
    rle = parts[0] if len(parts) == 1 else mask_util.merge(parts)
    return {"size": [size[0], size[1]], "counts": rle["counts"].decode("ascii")}


def _is_rle(segmentation: Any) -> bool:
    """Whether this is an RLE, or a list of them, right or wrong."""
    if isinstance(segmentation, list):
        return bool(segmentation) and all(isinstance(part, dict) and "counts" in part for part in segmentation)
    return isinstance(segmentation, dict)


def polygons(outline: Any) -> list[list[float]]:
    """Polygons as COCO has them, [x1, y1, x2, y2, ...] each, of the forms whose meaning is certain.

    | form | meaning |
    | --- | --- |
    | [[x1, y1, x2, y2, ...], ...] | COCO's: parts of one mask |
    | [x1, y1, x2, y2, ...] | one polygon |
    | [[x1, y1], [x2, y2], ...], [{"x": x1, "y": y1}, ...] | one polygon |
    | one of these two in another pair of brackets | one polygon; several are refused, which may be parts or holes |

    Raises:
        ValueError: another form, or something else than numbers.
    """
    if _numbers(outline):
        result = [outline]
    elif _points(outline):
        result = [_flat(outline)]
    elif isinstance(outline, list) and len(outline) == 1 and _points(outline[0]):
        result = [_flat(outline[0])]
    elif isinstance(outline, list) and all(_numbers(part) for part in outline):
        result = outline
    else:
        raise ValueError(
            f"its segmentation {_short(outline)} has no certain meaning; COCO's is a list of polygons of numbers, "
            "[[x1, y1, x2, y2, ...], ...], or an RLE"
        )
    for polygon in result:
        if len(polygon) % 2:
            raise ValueError(f"its polygon {_short(polygon)} has {len(polygon)} numbers, which are no pairs of x and y")
        if not all(abs(n) <= FARTHEST for n in polygon):  # nor does NaN, which no comparison holds for
            raise ValueError(f"its polygon {_short(polygon)} goes more than {FARTHEST:,} pixels away")
    return result


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and set(map(type, value)) <= {int, float}


def _points(value: Any) -> bool:
    """Whether this is a list of [x, y] or of {"x": x, "y": y}, one at least."""
    return isinstance(value, list) and bool(value) and all(
        (_numbers(p) and len(p) == 2) or (isinstance(p, dict) and p.keys() == {"x", "y"} and _numbers(list(p.values()))) for p in value
    )  # fmt: skip


def _flat(points: list[Any]) -> list[float]:
    return [n for p in points for n in ((p["x"], p["y"]) if isinstance(p, dict) else p)]


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "(nested too deeply to be shown)"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _relative(rows: list[Annotation]) -> bool:
    """Whether all the polygons, of which there is one, lie between 0 and 1; looks no further than the first that does not."""
    seen = False
    for row in rows:
        try:
            outline = segmentation_of(row.segmentation, "")
            numbers = [] if outline is None or _is_rle(outline) else [n for part in polygons(outline) for n in part]
        except (ValueError, UserError):
            return False  # refused later, by its id
        if _is_rle(outline) or (numbers and not 0 <= min(numbers) <= max(numbers) <= 1):
            return False
        seen = seen or any(numbers)
    return seen


def _from_polygons(outline: Any, size: tuple[int, int], relative: bool) -> list[Rle]:
    """RLEs of those polygons that have three corners; see `polygons`."""
    height, width = size
    drawable = []
    for polygon in polygons(outline):
        if len(polygon) < 6:
            continue
        corners = [n * (height if k % 2 else width) for k, n in enumerate(polygon)] if relative else [float(n) for n in polygon]
        if len(corners) * (max(corners) - min(corners)) > LONGEST:  # no shorter than the outline, and quicker to tell
            closed = [*corners, *corners[:2]]
            if sum(max(abs(a - b), abs(c - d)) for a, b, c, d in zip(closed[::2], closed[2::2], closed[1::2], closed[3::2])) > LONGEST:
                raise ValueError(f"its polygon {_short(polygon)} is more than {LONGEST:,} pixels long")
        drawable.append(corners)
    return mask_util.frPyObjects(drawable, height, width) if drawable else []


def _from_runs(rle: dict[str, Any], size: tuple[int, int]) -> Rle:
    """An RLE anew from its runs, which pycocotools would take unchecked."""
    height, width = size
    if rle.get("size") != [height, width]:
        raise ValueError(f"its RLE is for size {_short(rle.get('size'))}, the image is {[height, width]} (h, w)")
    counts = rle.get("counts")
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(n) is int or (type(n) is float and n.is_integer()) for n in runs):
        raise ValueError(f"its RLE counts {_short(counts)} are no list of whole numbers, and no text of COCO's")
    runs = [int(n) for n in runs]
    if any(n < 0 for n in runs):
        raise ValueError(f"its RLE counts {_short(counts)} are negative in places")
    if sum(runs) != height * width:
        raise ValueError(f"its RLE counts {sum(runs)} pixels, the image has {height * width}")
    compressed: Rle = mask_util.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return compressed


def _runs(counts: str) -> list[int] | None:
    """The runs of a compressed RLE string, or None if it is malformed.

    Encoding (cocoapi, maskApi.c, rleToString): LEB128-like groups of 5 bits plus a continuation bit, offset by 48; from the fourth run on,
    each is stored as the difference to the run two before. pycocotools reads past the end of a malformed one, and other runs than these
    from groups beyond 32 bits.
    """
    runs: list[int] = []
    value = shift = 0
    for char in counts:
        group = ord(char) - 48
        if not 0 <= group < 64:
            return None
        if shift > MOST_BITS:  # a run is no longer than an image has pixels; and longer numbers take time that grows with their square
            return None
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if shift == 0 else None
