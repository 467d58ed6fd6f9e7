"""What a person is shown and asked, and the key by which an answer is found again: of the content of both, not of names or ids.

No picture is drawn to make a key, so a hundred thousand items are known within seconds.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import md5
from vlm_itl.judges.verdict import Unit

if TYPE_CHECKING:
    from vlm_itl.judges.person.judge import PersonJudge
    from vlm_itl.judges.rendering import Render

Row = dict[str, Any]

VERSION = 1  # of what the page asks and how it shows it; another one opens every item again
TEXTS: dict[Unit, str] = {
    "image": "Is everything marked right? Each thing of these classes once, under its name, with a mask that fits it.",
    "mask": "Is this one {name}, and does the mask cover all of it and nothing else?",
    "missing": "Is everything found? Each thing of these classes has its own box.",
}
UNUSED: dict[Unit, set[str]] = {  # of `Render`, what such a picture does not show
    "image": {"margin"}, "mask": {"original"}, "missing": {"original", "alpha", "contour", "marks", "margin"},
}  # fmt: skip
_JSON = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True)
class Item:
    """A question to a person.

    Attributes:
        kind: what is asked.
        image: the row of the picture, with `md5`.
        shown: the proposals that are drawn, in the order of their colours; of `mask` exactly one.
        names: of all classes, by id.
    """

    kind: Unit
    image: Row
    shown: tuple[Row, ...]
    names: Mapping[int, str]

    @property
    def question(self) -> tuple[str, str, str]:
        """What is asked: a text, the class that it names or nothing, and the rest of the text."""
        before, named, after = TEXTS[self.kind].partition("{name}")
        return before, named and self.declared[0], after

    @property
    def declared(self) -> list[str]:
        """The class of each proposal that is shown."""
        return [self.names[row["category_id"]] for row in self.shown]

    @property
    def called(self) -> str:
        """The picture's name, for people."""
        return str(self.image.get("original_name") or self.image["file_name"])[:1024]


def key(item: Item, judge: PersonJudge) -> str:
    """sha256 of all that can change an answer: the picture, the proposals drawn on it, the question, and how both are shown."""
    classes = () if item.kind == "mask" else tuple(item.names.values())
    masks = [[name, row["segmentation"]["size"], row["segmentation"]["counts"]] for name, row in zip(item.declared, item.shown)]
    begin = _begin(item.kind, item.question, classes, judge.render)
    return hashlib.sha256(f"{begin}, {_JSON(item.image['md5'])}, {_JSON(masks)}]".encode()).hexdigest()


@functools.cache
def _begin(kind: Unit, question: tuple[str, str, str], classes: tuple[str, ...], render: Render) -> str:
    """What the keys of many items begin with: JSON of a list without its end."""
    look = {name: value for name, value in vars(render).items() if name not in UNUSED[kind]}
    return _JSON([VERSION, kind, question, classes, look])[:-1]


class Case:
    """An image with proposals, and the items that are asked about it: one, or each mask and then whether anything is missing."""

    def __init__(self, image: Row, shown: Sequence[Row], names: Mapping[int, str], judge: PersonJudge) -> None:
        self.image, self.shown, self.names, self.judge = image, tuple(shown), names, judge

    @cached_property
    def keys(self) -> list[str]:
        """Of the items that depend on no answer: the image's, or each mask's. Two equal masks are one item."""
        return [key(self.item(k), self.judge) for k in range(1 if self.judge.unit == "image" else len(self.shown))]

    def item(self, k: int) -> Item:
        """The item of the k-th of `keys`."""
        if self.judge.unit == "image":
            return Item("image", self.image, self.shown, self.names)
        return Item("mask", self.image, (self.shown[k],), self.names)

    def rest(self, accepted: Sequence[bool]) -> tuple[str, Item] | None:
        """Whether anything is missing beside the accepted masks, with its key; None where there are none, or nobody is asked that."""
        kept = tuple(row for row, ok in zip(self.shown, accepted, strict=True) if ok)
        if self.judge.unit == "image" or not kept:
            return None
        item = Item("missing", self.image, kept, self.names)
        return key(item, self.judge), item


def cases(pool: Coco, proposals: list[Row], images: Path, judge: PersonJudge) -> Iterator[Case]:
    """The images of a pool that have proposals, in its order.

    Args:
        images: the folder that `file_name`s are relative to.

    Raises:
        UserError: a picture cannot be read, whose row does not say the md5 of its content.
    """
    shown, names = by_image(proposals), {row["id"]: row["name"] for row in pool["categories"]}
    known: dict[str, str] = {}  # probes show one picture several times
    for image in pool["images"]:
        if rows := shown.get(image["id"]):
            if "md5" not in image:  # of drawn pictures
                name = image["file_name"]
                known[name] = known.get(name) or _md5(images / name)
                image = {**image, "md5": known[name]}
            yield Case(image, rows, names, judge)


def _md5(path: Path) -> str:
    try:
        return md5(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; `dvc repro` brings the picture back (stage download)") from None
