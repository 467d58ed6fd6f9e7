"""CVAT: its format "COCO 1.0", out and back.

By its documentation (docs.cvat.ai, "COCO"), and what its importer and exporter do, which are datumaro's:

- A data set is a zip with `annotations/instances_<subset>.json` and `images/<subset>/`. The subset of a task is `default`.
- Pictures are matched by name. Ids of images, categories and annotations are new in every export, and the order of classes is the task's.
  So a picture's name says which it is (`work.Image.name`), and classes go by name.
- `attributes` of an annotation come back if its label has an attribute of that name. So the labels have `proposal`, the place of the
  proposal that an instance was. CVAT leaves it empty in new instances, and copies it with copied ones.
- An RLE with a list of counts becomes a mask, on which people paint, and loses nothing. Polygons become polygons, a shape each part.
- Masks come back as RLE with `iscrowd: 1`, polygons with 0. So `iscrowd` means nothing here.
- A box comes back with an empty `segmentation`. It is refused, since a box is no outline. An empty mask was rubbed out.
- All pictures of a task come back, also those that nobody opened, and CVAT records no times. So a picture that comes back as it was
  exported counts as not looked at, unless the user says otherwise.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from pycocotools import mask as mask_util

from vlm_itl.core.coco import Rle, decode
from vlm_itl.core.errors import UserError
from vlm_itl.data.instances import Annotation, parse_instances, parsed, segmentation_of, to_rle
from vlm_itl.drawing.brush_rle import run_lengths
from vlm_itl.drawing.returned import Given, Returned
from vlm_itl.drawing.work import Image, Work

ATTRIBUTE = "proposal"
MOST_BYTES = 2**29  # of annotations in JSON: some 100,000 images
MOST_MEMBERS = 100  # files of annotations in a zip
MOST_DIRECTORY = 2**26  # bytes of a zip's list of files: half a million
MOST_ATTRIBUTES = 2**16  # bytes of the attributes of an instance
_DAY = (1980, 1, 1, 0, 0, 0)  # of all files in our zips, so that equal content is equal bytes


def labels(work: Work) -> list[dict[str, Any]]:
    """The classes as CVAT's editor of labels takes them ("Raw"), each with the attribute that says which proposal an instance was."""
    attribute = {"name": ATTRIBUTE, "input_type": "text", "mutable": False, "values": [""], "default_value": ""}
    return [{"name": name, "attributes": [attribute]} for name in work.names.values()]


def write(path: Path, images: list[Image], names: dict[int, str]) -> None:
    """A zip of pictures and proposals, as CVAT takes it for a new task of a project, or for annotations of a task.

    Raises:
        UserError: a picture is not there.
    """
    with zipfile.ZipFile(path, "w") as archive:
        text = json.dumps(content(images, names), ensure_ascii=False, allow_nan=False)
        archive.writestr(_entry("annotations/instances_default.json"), text, zipfile.ZIP_DEFLATED)
        for image in images:
            archive.writestr(_entry(f"images/default/{image.name}"), image.picture(), zipfile.ZIP_STORED)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DAY)
    entry.external_attr = 0o644 << 16
    return entry


def content(images: list[Image], names: dict[int, str]) -> dict[str, Any]:
    """The annotations: of each image the proposals that are offered, as masks."""
    number = {i: k for k, i in enumerate(names, 1)}
    rows: list[dict[str, Any]] = []
    for k, image in enumerate(images, 1):
        for place, row, rle in image.offered:
            counts = run_lengths(decode(rle).ravel(order="F")).tolist()
            rows.append({
                "id": len(rows) + 1, "image_id": k, "category_id": number[row["category_id"]],
                "segmentation": {"counts": counts, "size": list(rle["size"])}, "area": float(mask_util.area(rle)),
                "bbox": [float(n) for n in mask_util.toBbox(rle)], "iscrowd": 0,
                "attributes": {"occluded": False, ATTRIBUTE: str(place)},
            })  # fmt: skip
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [{"id": number[i], "name": name, "supercategory": ""} for i, name in names.items()],
        "images": [
            {"id": k, "width": image.size[1], "height": image.size[0], "file_name": image.name, "license": 0, "flickr_url": "",
             "coco_url": "", "date_captured": 0}
            for k, image in enumerate(images, 1)
        ],
        "annotations": rows,
    }  # fmt: skip


def unzipped(path: Path) -> Iterator[tuple[bytes, str]]:
    """(content, what to call it) of each file of annotations in a zip. Nothing is written, and pictures are not looked at.

    Raises:
        UserError: it is no zip, is a bomb, or holds no annotations.
    """
    with path.open("rb") as stream:
        _check_directory(stream.read, stream.seek, path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if re.fullmatch(r"instances_[^/]*\.json", PurePosixPath(one.filename).name)]
            if not members:
                raise UserError(f"{path}: no annotations/instances_*.json in it; export the task from CVAT as COCO 1.0")
            if len(members) > MOST_MEMBERS:
                raise UserError(f"{path}: {len(members):,} files of annotations; at most {MOST_MEMBERS} are read")
            for member in members:
                where = f"{path}: {member.filename}"
                with archive.open(member) as opened:
                    text = opened.read(MOST_BYTES + 1)  # whatever the list says
                if len(text) > MOST_BYTES:
                    raise UserError(f"{where}: more than {MOST_BYTES:,} bytes; export fewer images at a time")
                yield text, where
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, lzma and bz2 have errors of their own
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{path}: {error.strerror}") from None
        raise UserError(f"{path}: no whole zip: {error or type(error).__name__}") from None


def _check_directory(read: Any, seek: Any, path: Path) -> None:
    """Refuse a list of files that would fill the memory. It is said at a zip's end (APPNOTE 6.3, section 4.3.16)."""
    size = seek(0, 2)
    seek(max(0, size - 2**16 - 22))
    end = read()
    place = len(end)
    while (place := end.rfind(b"PK\5\6", 0, place)) >= 0:  # what follows it is a comment of the length that it says
        if place + 22 + int.from_bytes(end[place + 20 : place + 22], "little") == len(end):
            break
    large = end[max(0, place - 20) : max(0, place - 16)] == b"PK\6\7"  # the 64-bit form, whose numbers stand elsewhere
    if place >= 0 and (large or int.from_bytes(end[place + 12 : place + 16], "little") > MOST_DIRECTORY):
        raise UserError(f"{path}: a zip of too many files; export it without images (CVAT: Save images off)")


class _Attributed(msgspec.Struct, gc=False):
    id: int
    attributes: msgspec.Raw = msgspec.Raw(b"null")


class _AttributedFile(msgspec.Struct):
    annotations: list[_Attributed]


def read(text: bytes, where: str, work: Work) -> Iterator[Returned]:
    """The images of a file of annotations, with what is drawn on them.

    Args:
        where: what to call the file in an error.

    Raises:
        UserError: it is no COCO file, has other pictures, sizes or classes, or an instance without an outline.
    """
    data = parse_instances(text, where)
    hints = {row.id: row.attributes for row in parsed(text, _AttributedFile, where, "COCO instances").annotations}
    names = {row.id: row.name for row in data.categories}
    rows: dict[int, list[Annotation]] = {}
    for row in data.annotations:
        rows.setdefault(row.image_id, []).append(row)
    for one in data.images:
        place = f"{where}: image '{one.file_name}'"
        image = work.find(one.file_name, (one.height, one.width), place)
        given = []
        for row in rows.get(one.id, []) if image is not None else []:
            which = f"{place}: annotation {row.id}"
            label, rle = work.known(names[row.category_id], which), outline(row, (one.height, one.width), which)
            if rle is not None:
                given.append(Given(label, rle, proposal(hints[row.id])))
        yield Returned(image, given, "cvat", False, place)


def outline(row: Annotation, size: tuple[int, int], where: str) -> Rle | None:
    """The mask of an annotation; None of one from which all was taken away.

    Raises:
        UserError: it never had one, or what it has means nothing certain.
    """
    segmentation = segmentation_of(row.segmentation, where)
    if not segmentation or segmentation == [[]]:
        raise UserError(f"{where}: it is a box without an outline; draw it as a mask or a polygon")
    rle = to_rle(segmentation, size, where)
    if rle is None:
        raise UserError(f"{where}: its polygon has fewer than three corners; draw it as a mask or a polygon")
    return rle if mask_util.area(rle) else None


def proposal(attributes: msgspec.Raw) -> int | None:
    """Which proposal an annotation says it was: the place that we wrote, as CVAT or anybody else writes a number or a text."""
    if len(bytes(attributes)) > MOST_ATTRIBUTES:
        return None
    try:
        value = msgspec.json.decode(attributes)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None
    text = str(value.get(ATTRIBUTE, "")) if isinstance(value, dict) else ""
    return int(text.removesuffix(".0")) if re.fullmatch(r"[0-9]{1,9}([.]0)?", text) else None
