"""Pseudo-labels that another program has found: a file of COCO results, checked like anybody's data."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from vlm_itl.core.coco import Coco, result
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_regular
from vlm_itl.core.redact import say
from vlm_itl.data.instances import Category, parsed, segmentation_of, to_rle
from vlm_itl.teachers.teacher import Row

if TYPE_CHECKING:
    from vlm_itl.settings import Results


class Found(msgspec.Struct, gc=False):
    """A row of the file. The outline stays undecoded: a view into the bytes that were parsed."""

    score: float
    image_id: int | str | None = None
    file_name: str | None = None
    category_id: int | None = None
    category: str | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class Named(msgspec.Struct, gc=False):
    """An entry of `images` of the file that says what the rows' ids mean."""

    id: int
    file_name: str


class Names(msgspec.Struct):
    """That file; whatever else it holds is left out."""

    images: list[Named]
    categories: list[Category]


MOST_BYTES = 2**31  # of a file: some ten million masks
REASONS = {
    "other_images": "on images that are not in the pool", "other_classes": "of classes that select.categories does not name",
    "without_mask": "without a mask (a box alone is none)", "below_threshold": "below score_threshold",
    "over_limit": "above max_detections an image",
}  # fmt: skip


class ResultsTeacher:
    """Reads what another program found.

    A row's image is that of its `file_name`, or of its `image_id`. A whole number is an id of `images`, where the settings name such a
    file, and else of the labelled training file, or a picture's name: 42 means `000042.jpg`. A text is a file's name: a path from its end
    on, with or without the ending. `birds/0001.jpg`, `0001.jpg` and `0001` mean `photos/birds/0001.jpg`, unless they mean another picture
    as well.
    """

    @classmethod
    def label(cls, settings: Results, data: Coco, images: Path, root: Path) -> tuple[list[Row], Row]:
        """See `vlm_itl.teachers.teacher.Teacher`.

        Raises:
            UserError: a file is not what it should be, or lies outside `data.root`; a name means two pictures; no mask is left.
        """
        path = below(root, settings.file, "file")
        content = read_regular(path, MOST_BYTES)
        rows = parsed(content, list[Found], str(path), "COCO results")
        names: Names | None = None
        if settings.images is not None:
            other = below(root, settings.images, "images")
            names = parsed(read_regular(other, MOST_BYTES), Names, str(other), "a COCO file with images and categories")
            for what, ids in (("images", [row.id for row in names.images]), ("categories", [row.id for row in names.categories])):
                if doubled := [i for i, number in Counter(ids).items() if number > 1]:
                    raise UserError(f"{other}: {what}: two have the id {doubled[0]}, so it is not known which one a row means")
        places = Places(data["images"], names.images if names else None)
        classes = class_numbers(data, names.categories if names else None)
        sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
        notes: Counter[str] = Counter()
        found: dict[int, list[Row]] = {}
        for number, row in enumerate(rows):
            where = f"{path}: row {number}"
            if not 0 <= row.score <= 1:
                raise UserError(f"{where}: its score is {row.score:g}; a probability from 0 to 1 is expected")
            image, category = places.image(row, where), classes.get(row.category if row.category is not None else row.category_id)
            if row.category is not None and row.category_id is not None and classes.get(row.category_id, category) != category:
                raise UserError(f"{where}: its category is '{row.category}', and its category_id {row.category_id} another class")
            if image is None or category is None:
                notes["other_images" if image is None else "other_classes"] += 1
                continue
            if row.score < settings.score_threshold:
                notes["below_threshold"] += 1
                continue
            rle = to_rle(segmentation_of(row.segmentation, where), sizes[image], where)
            if rle is None:
                notes["without_mask"] += 1
                continue
            made = result(image, category, rle, row.score)
            if not made["area"]:
                notes["without_mask"] += 1
                continue
            found.setdefault(image, []).append(made)
        for image, some in found.items():
            some.sort(key=lambda row: -row["score"])
            notes["over_limit"] += max(0, len(some) - settings.max_detections)
            found[image] = some[: settings.max_detections]
        left_out = ", ".join(f"{notes[what]:,} {words}" for what, words in REASONS.items() if notes[what])
        if not found:
            raise UserError(f"{path}: none of its {len(rows):,} rows is a mask on an image of the pool: {left_out or 'it is empty'}")
        say(f"{path}: {sum(map(len, found.values())):,} of {len(rows):,} rows taken" + (f"; left out: {left_out}" if left_out else ""))
        identity = {**settings.model_dump(), "md5": hashlib.md5(content).hexdigest(), "rows": len(rows), "left_out": dict(+notes)}
        return [row for image in data["images"] for row in found.get(image["id"], [])], identity


def below(root: Path, name: str, key: str) -> Path:
    """A file below `data.root`, which DVC watches.

    Raises:
        UserError: it lies elsewhere.
    """
    path = root / name
    try:
        is_below = path.resolve().is_relative_to(root.resolve())
    except (RuntimeError, ValueError, OSError) as error:  # links in a circle, a NUL
        raise UserError(f"params.yaml: autolabels: {key}: {name} leads to no file: {error}") from None
    if not is_below:
        raise UserError(f"params.yaml: autolabels: {key}: {name} has to lie below data.root ({root}), which DVC watches")
    return path


class Places:
    """Which image of the pool a row means."""

    def __init__(self, images: list[Row], named: list[Named] | None) -> None:
        """
        Args:
            images: rows of the pool.
            named: what the file's ids mean; None: ids of the labelled training file.
        """
        self.by_name: dict[str, set[int]] = {}
        self.by_number: dict[int, set[int]] = {}
        for image in images:
            name = str(image.get("original_name", image["file_name"]))
            for ending in endings(name):
                self.by_name.setdefault(ending, set()).add(image["id"])
            if re.fullmatch("[0-9]{1,18}", stem := PurePosixPath(name).stem):  # Ultralytics writes 000042.jpg as 42
                self.by_number.setdefault(int(stem), set()).add(image["id"])
            if "original_id" in image:
                self.by_number.setdefault(image["original_id"], set()).add(image["id"])
        self.names = None if named is None else {row.id: row.file_name for row in named}

    def image(self, row: Found, where: str) -> int | None:
        """Its id, None of an image that is not in the pool.

        Raises:
            UserError: the row names no image, or a name that two pictures have.
        """
        name = row.image_id if row.file_name is None else row.file_name
        if name is None:
            raise UserError(f"{where}: it has neither image_id nor file_name")
        if isinstance(name, int) and self.names is not None:
            if name not in self.names:
                return None
            name = self.names[name]
        if isinstance(name, int):
            found, better = self.by_number.get(name, set()), "give its file_name, or what the ids mean: images"
        else:
            found, better = self.by_name.get(name.removeprefix("./"), set()), "give more of the path"
        if len(found) > 1:
            raise UserError(f"{where}: {name!r} is {len(found)} pictures of the pool; {better}")
        return next(iter(found), None)


def endings(name: str) -> Iterable[str]:
    """What a picture may be called: its path from any folder on, with and without the ending of the file."""
    parts = PurePosixPath(name).parts
    for start in range(len(parts)):
        path = PurePosixPath(*parts[start:])
        yield str(path)
        if path.suffix:
            yield str(path.with_suffix(""))


def class_numbers(data: Coco, categories: list[Category] | None) -> dict[Any, int]:
    """Our category ids by the file's, and by name: what the file's ids mean, or else the ids of the labelled training file."""
    by_name = {row["name"]: row["id"] for row in data["categories"]}
    ids = {row.id: by_name[row.name] for row in categories or [] if row.name in by_name}
    if categories is None:
        ids = {row.get("original_id", row["id"]): row["id"] for row in data["categories"]}
    return {**ids, **by_name}
