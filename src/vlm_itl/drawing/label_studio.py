"""Label Studio: tasks with predictions out, its export "JSON" back.

By its documentation (labelstud.io, "Import pre-annotated data", "Label Studio JSON format", "BrushLabels", "Local storage") and by
label-studio-sdk 2.1:

- A task is `data`, which comes back as it was, and `predictions`, which an annotator begins with. So `data.picture` is the name by which
  an image is known again.
- A region of a `BrushLabels` tag is a mask in a run-length code of its own (`brush_rle`). The export as COCO loses masks.
- Corners of a polygon are in percent of width and height.
- A region keeps its `id` from a prediction to an annotation. So an id is `<image id>-<place of the proposal>`.
- An annotation says whether it was skipped (`was_cancelled`), how many seconds it took (`lead_time`), when (`created_at`), and who did it
  (`completed_by`, a number, or a row with an e-mail address). Only the number is kept, never an address.
- A task may have several annotations. The one that was written last is taken.
- Pictures of the server's own disk come from `/data/local-files/?d=PATH`, relative to a root that it is told. The folder of the export
  lies in that root.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote
from xml.etree import ElementTree

import msgspec
from pycocotools import mask as mask_util

from vlm_itl.core.coco import Rle, decode, encode
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import replacing
from vlm_itl.data.instances import parsed, to_rle
from vlm_itl.drawing import brush_rle
from vlm_itl.drawing.returned import Given, Returned
from vlm_itl.drawing.work import Image, Work

MOST_BYTES = 2**31  # of a file: a painted pixel takes up to 16 bytes there
FILES = "/data/local-files/?d="  # where its server has pictures of its own disk
KINDS = {"brushlabels": "brush", "polygonlabels": "polygon"}  # of regions that we take: by the tag of the configuration
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def configuration(names: list[str]) -> str:
    """The labeling configuration: a brush and a polygon for each class.

    Raises:
        UserError: XML cannot hold the name of a class.
    """
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true", zoomControl="true")
    for tag, name in (("BrushLabels", "brush"), ("PolygonLabels", "polygon")):
        tool = ElementTree.SubElement(view, tag, name=name, toName="image")
        for label in names:
            if NO_XML.search(label):
                raise UserError(f"Label Studio cannot show the class '{label}', whose name has characters that XML forbids; --format cvat")
            ElementTree.SubElement(tool, "Label", value=label)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def write(path: Path, images: list[Image], names: dict[int, str], run: str, folder: str) -> None:
    """The tasks, one a line of a JSON list.

    Args:
        folder: of the pictures, relative to the root that the server is told.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        before = "[\n"
        for image in images:
            stream.write(before + json.dumps(task(image, names, run, folder), ensure_ascii=False, allow_nan=False))
            before = ",\n"
        stream.write("[]\n" if before == "[\n" else "\n]\n")


def task(image: Image, names: dict[int, str], run: str, folder: str) -> dict[str, Any]:
    """An image, with the proposals that are offered as brush masks."""
    regions = [
        {
            "id": f"{image.id}-{place}", "type": "brushlabels", "from_name": "brush", "to_name": "image",
            "original_width": image.size[1], "original_height": image.size[0], "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_rle.encode(decode(rle)), "brushlabels": [names[row["category_id"]]]},
        }
        for place, row, rle in image.offered
    ]  # fmt: skip
    data = {"image": FILES + quote(f"{folder}/{image.name}"), "picture": image.name, "run": run, "md5": image.shown.image.get("md5")}
    return {"data": data, "predictions": [{"model_version": run, "result": regions}] if regions else []}


class _Value(msgspec.Struct):
    """Of a region. The code of a mask stays undecoded: a view into the bytes that were parsed."""

    format: str | None = None
    rle: msgspec.Raw = msgspec.Raw(b"null")
    points: msgspec.Raw = msgspec.Raw(b"null")
    brushlabels: list[str] = []
    polygonlabels: list[str] = []


class _Region(msgspec.Struct):
    type: str
    id: str | int | None = None
    value: _Value | None = None
    original_width: int | None = None
    original_height: int | None = None
    image_rotation: float | None = 0


class _Person(msgspec.Struct):
    id: int | None = None


class _Annotation(msgspec.Struct):
    result: list[_Region] = []
    was_cancelled: bool | None = False
    completed_by: msgspec.Raw = msgspec.Raw(b"null")
    created_at: str | None = None
    updated_at: str | None = None
    lead_time: float | None = None


class _Data(msgspec.Struct):
    picture: str | None = None
    md5: str | None = None
    run: str | None = None


class _Task(msgspec.Struct):
    data: _Data
    annotations: list[_Annotation] | None = None
    id: int | str | None = None


Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
Percent = Annotated[float, msgspec.Meta(ge=-(10**6), le=10**6)]


def read(text: bytes, where: str, work: Work) -> Iterator[Returned | str]:
    """The tasks of an export, each an image with what is drawn on it, or why it is not taken: `skipped`, `untouched`.

    Raises:
        UserError: it is no such export, or has other pictures, sizes or classes, or something that is no mask.
    """
    tasks = parsed(text, list[_Task], where, "Label Studio's JSON (the format JSON, not JSON-MIN or CSV)")
    seen: set[str] = set()
    for number, task in enumerate(tasks):
        place = f"{where}: task {number if task.id is None else task.id}"
        if task.data.picture is None:
            raise UserError(f"{place}: no data.picture; it is none of the tasks in label-studio.json")
        place += f" ('{task.data.picture}')"
        if task.data.picture in seen:
            raise UserError(f"{place}: another task is about the same picture; delete one of them in Label Studio")
        seen.add(task.data.picture)
        if task.annotations is None:
            raise UserError(f"{place}: a task as it was exported from here; import the file that Label Studio's Export, JSON gives")
        if task.data.run not in (None, work.run):
            raise UserError(f"{place}: it was exported from the run '{task.data.run}'; name that one")
        image = work.find(task.data.picture, None, place)
        if image is not None and task.data.md5 not in (None, image.shown.image.get("md5")):
            raise UserError(f"{place}: its data.md5 is not that of the picture")
        if image is None:
            yield Returned(None, [], "label-studio", True, place)
            continue
        done = [one for one in task.annotations if not one.was_cancelled]
        if not done:
            yield "skipped" if task.annotations else "untouched"
            continue
        last = max(done, key=lambda one: _instant(one.updated_at or one.created_at))
        masks = [region.id for region in last.result if region.type in KINDS and region.id is not None]
        if doubled := [name for name, number in Counter(masks).items() if number > 1]:
            raise UserError(f"{place}: two regions have the id {doubled[0]}")
        given = [one for region in last.result for one in _given(region, image, work, place)]
        seconds = last.lead_time if last.lead_time is not None and 0 <= last.lead_time <= 10**7 else None
        yield Returned(image, given, "label-studio", True, place, _person(last.completed_by), _moment(last.created_at), seconds)


def _given(region: _Region, image: Image, work: Work, place: str) -> list[Given]:
    """The region as an instance; none of one from which all was rubbed out, and of what is no region."""
    where = f"{place}: region {region.id}"
    if region.type == "relation":
        return []
    if region.type not in KINDS:
        raise UserError(f"{where}: a region of the type '{region.type}'; a brush or a polygon of label-studio-config.xml is expected")
    if region.value is None:
        raise UserError(f"{where}: it has no value, so there is no mask")
    if region.image_rotation:
        raise UserError(f"{where}: the picture was turned by {region.image_rotation:g} degrees; turn it back")
    size = region.original_height, region.original_width
    if size != image.size:
        raise UserError(f"{where}: the picture is {size[1]} x {size[0]} there, and {image.size[1]} x {image.size[0]} here")
    labels = region.value.brushlabels if region.type == "brushlabels" else region.value.polygonlabels
    if len(labels) != 1:
        raise UserError(f"{where}: it has {len(labels)} classes; one is expected")
    rle = _brush(region.value, image, where) if region.type == "brushlabels" else _polygon(region.value, image, where)
    return [Given(work.known(labels[0], where), rle, _proposal(region.id, image))] if mask_util.area(rle) else []


def _brush(value: _Value, image: Image, where: str) -> Rle:
    if value.format != "rle":
        raise UserError(f"{where}: its format is '{value.format}'; 'rle' is expected")
    try:
        return encode(brush_rle.decode(bytes(msgspec.json.decode(value.rle, type=list[Byte])), *image.size))
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UserError(f"{where}: {error}") from None


def _polygon(value: _Value, image: Image, where: str) -> Rle:
    height, width = image.size
    try:
        points = msgspec.json.decode(value.points, type=list[tuple[Percent, Percent]])
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UserError(f"{where}: its points cannot be read: {error}") from None
    rle = to_rle([[n for x, y in points for n in (x * width / 100, y * height / 100)]], image.size, where)
    if rle is None:
        raise UserError(f"{where}: its polygon has fewer than three corners")
    return rle


def _proposal(name: str | int | None, image: Image) -> int | None:
    match = re.fullmatch(r"([0-9]{1,12})-([0-9]{1,9})", str(name))
    return int(match[2]) if match and int(match[1]) == image.id else None


def _person(raw: msgspec.Raw) -> str | None:
    """A number of Label Studio's, which says who it was there and nothing else; None of anything else."""
    try:
        who = msgspec.json.decode(raw, type=int | _Person | None)
    except (ValueError, RecursionError):
        return None
    number = who.id if isinstance(who, _Person) else who
    return f"label-studio-{number}" if number is not None and 0 <= number < 10**9 else None


def _instant(text: str | None) -> float:
    """Seconds since 1970; of what is no time, before all times."""
    try:
        when = datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return -math.inf
    return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()


def _moment(text: str | None) -> str | None:
    """A time as it was written, if it is one."""
    try:
        datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return text if text and re.fullmatch(r"[0-9T:.Z+ -]{10,40}", text) else None
