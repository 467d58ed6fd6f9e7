"""Which images of a run wait for people to draw on them, and how their pictures are called outside."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from pkgutil import resolve_name
from typing import Any

from vlm_itl.core.coco import Rle, read_instances, read_results
from vlm_itl.core.errors import UserError
from vlm_itl.core.pictures import IMAGES
from vlm_itl.core.runs import line_of, made
from vlm_itl.data.instances import recorded_picture
from vlm_itl.judges import verdict
from vlm_itl.loop import drawings
from vlm_itl.loop.drawings import Drawing
from vlm_itl.loop.policy import Policy, Shown
from vlm_itl.loop.update import shown_in
from vlm_itl.registry import POLICIES
from vlm_itl.settings import Settings

NAME = re.compile(r"(\d{12})-([0-9a-f]{16})(\.[A-Za-z0-9]{1,5})?")  # of a picture outside


@dataclass(frozen=True)
class Image:
    """An image that the judge of a run rejected, or was not asked about.

    Attributes:
        digest: of what is shown to who draws on it.
        drawing: what people have drawn on it, if that was begun with what is shown today.
        names: of the classes, by id.
    """

    shown: Shown
    digest: str
    drawing: Drawing | None
    names: dict[int, str]

    @property
    def id(self) -> int:
        number: int = self.shown.image["id"]
        return number

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.shown.image["height"], self.shown.image["width"]

    @property
    def name(self) -> str:
        """Of its picture outside: its id, and a part of the digest, so that a name tells whether what comes back is stale."""
        ending = PurePath(self.shown.image["file_name"]).suffix
        return f"{self.id:012d}-{self.digest[:16]}{ending if re.fullmatch(r'[.][A-Za-z0-9]{1,5}', ending) else ''}"

    @property
    def offered(self) -> list[tuple[int, dict[str, Any], Rle]]:
        """(place among the image's proposals, proposal, its mask), of those that a person begins with."""
        rows = [(k, self.shown.proposals[k]) for k in self.shown.offered]
        return [(k, row, row["segmentation"]) for k, row in rows]

    def picture(self) -> bytes:
        """See `recorded_picture`."""
        return recorded_picture(IMAGES, self.shown.image)


@dataclass(frozen=True)
class Work:
    """What people draw in a run.

    Attributes:
        images: that are to be drawn, drawn ones too, by id.
        others: ids of the round's images that are not to be drawn.
        stale: ids of the images whose drawing was begun with something else than is shown today.
        names: of the classes, by id.
        folder: of the run's drawings.
        is_used: the run takes drawings (`drawn_by: people`); otherwise a simulated human stands in.
    """

    run: str
    images: dict[int, Image]
    others: set[int]
    stale: list[int]
    names: dict[int, str]
    folder: Path
    is_used: bool

    def find(self, name: str, size: tuple[int, int] | None, where: str) -> Image | None:
        """The image whose picture is called so outside; None where it was exported with something else than is shown today.

        Args:
            name: the end of a path counts; tools put folders before it.
            size: (height, width) as it came back; None where that stands elsewhere.

        Raises:
            UserError: it is no picture of this run, or of another size.
        """
        match = NAME.fullmatch(re.split(r"[/\\]", name)[-1])
        if match is None or not (int(match[1]) in self.images or int(match[1]) in self.others):
            raise UserError(f"{where}: it is no picture that was exported from the run '{self.run}'")
        image = self.images.get(int(match[1]))
        if image is None or not image.digest.startswith(match[2]):
            return None
        if size not in (None, image.size):
            there, here = (f"{width} x {height}" for height, width in (size, image.size))
            raise UserError(f"{where}: the picture is {there} pixels there, and {here} here")
        return image

    def known(self, label: str, where: str) -> str:
        """The name of a class.

        Raises:
            UserError: there is no such class.
        """
        if label not in self.names.values():
            raise UserError(f"{where}: its class is '{label}' (there are: {', '.join(self.names.values())})")
        return label

    @property
    def then(self) -> str:
        """What comes after the last drawing."""
        return "dvc repro" if self.is_used else f"write drawn_by: people into runs.{self.run} of params.yaml, then dvc repro"

    @property
    def waiting(self) -> list[Image]:
        return [image for image in self.images.values() if image.drawing is None]


def opened(settings: Settings, run: str) -> Work:
    """What people draw in a run of params.yaml.

    Raises:
        UserError: there is no such run, nobody draws in it, or its judge has not decided yet.
    """
    line = line_of(settings.runs, run)
    policy: type[Policy] = resolve_name(POLICIES[line.policy])
    if not policy.draws:
        raise UserError(f"params.yaml: runs.{run}.policy: under '{line.policy}' nobody draws; take annotate or correct")
    pool, proposals = made(line.prev, "pool.json", read_instances), made(line.prev, "proposals.json", read_results)
    verdicts = made(run, "verdicts.jsonl", verdict.read)
    names: dict[int, str] = {row["id"]: row["name"] for row in pool["categories"]}
    folder = drawings.FOLDER / run
    everything = shown_in(line, pool, proposals, verdicts, None, settings.evaluate.judge_iou)
    rejected = [shown for shown in everything if not shown.is_approved]
    found, stale = drawings.fresh(folder, rejected, names)
    images = {one.image["id"]: Image(one, drawings.digest(one, names), found.get(one.image["id"]), names) for one in rejected}
    others = {shown.image["id"] for shown in everything} - images.keys()
    return Work(run, images, others, stale, names, folder, line.drawn_by == "people")
