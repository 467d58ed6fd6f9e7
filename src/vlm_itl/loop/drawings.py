"""What people drew: `drawings/<run>/<image id>.json`, a file an image, in git, and the one place that reads and writes it.

A drawing is about a picture and the proposals that it was begun with (`digest`). Where either is another by now it is stale, and not used.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pycocotools import mask as mask_util
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import Reviewer, first_problem
from vlm_itl.core.files import read_regular, write_json
from vlm_itl.data.instances import to_rle
from vlm_itl.loop.policy import Drawn, Shown

Row = dict[str, Any]
Status = Literal["kept", "corrected", "added"]

FOLDER = Path("drawings")
MOST_BYTES = 2**26  # of a file; ours have some kilobytes an instance
MOST_INSTANCES = 10_000  # of an image
SAME = 0.99  # mask IoU from which on a mask is the proposal's: what a tool's own forms do to its edge is no correction
VERSION = 1  # of what a digest is made of

Count = Annotated[int, Field(ge=0, le=MOST_INSTANCES)]
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Instance:
    """One instance that people left or drew.

    Attributes:
        status: `kept` is a proposal as it was, `corrected` one with another outline or class, `added` none.
        label: name of the class.
        proposal: place of that proposal among the image's; None of an added one.
        segmentation: compressed RLE.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    status: Status
    label: str
    proposal: Count | None
    segmentation: Row


@dataclass(frozen=True)
class Drawing:
    """One image as people left it; without instances there is nothing on it. The order of the fields is that of the keys in the file.

    Attributes:
        image: its id.
        md5: of the picture; None where its row has none, as those that the project draws itself.
        shown: what it was begun with: `digest`.
        tool: `cvat` or `label-studio`.
        reviewer: who drew; None where nobody said so.
        drawn_at: when, as the tool wrote it; None where it does not tell.
        seconds: how long it took, by the tool; None where it does not tell.
        kept, corrected, added, removed: how many instances of each `Status`, and proposals that are gone.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    image: Annotated[int, Field(ge=0)]
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None
    shown: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tool: Literal["cvat", "label-studio"]
    reviewer: Reviewer | None
    drawn_at: Annotated[str, Field(pattern=r"^[0-9T:.Z+ -]{10,40}$")] | None
    seconds: Annotated[float, Field(ge=0, le=10**7)] | None
    kept: Count
    corrected: Count
    added: Count
    removed: Count
    instances: Annotated[list[Instance], Field(max_length=MOST_INSTANCES)]


_FORM = TypeAdapter(Drawing)


def digest(shown: Shown, names: Mapping[int, str]) -> str:
    """sha256 of what a person begins with: the picture, and the class and mask of each proposal that is offered, with its place.

    Args:
        names: of the classes, by id.
    """
    image = shown.image
    offered = [(k, shown.proposals[k]) for k in shown.offered]
    masks = [[k, names[row["category_id"]], row["segmentation"]["size"], row["segmentation"]["counts"]] for k, row in offered]
    content = [VERSION, image.get("md5") or image["file_name"], image["height"], image["width"], masks]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def path_of(folder: Path, image_id: int) -> Path:
    """Where a drawing lies; `folder` is that of a run."""
    return folder / f"{image_id:012d}.json"


def write(folder: Path, drawing: Drawing) -> None:
    """Write a drawing in place of one that is there.

    Raises:
        ValueError: it is none that could be read again.
    """
    _FORM.validate_json(json.dumps(asdict(drawing)))
    write_json(path_of(folder, drawing.image), asdict(drawing))


def read(path: Path) -> Drawing:
    """The drawing in a file.

    Raises:
        UserError: it is none as this version writes it, or contradicts itself.
    """
    try:
        drawing = _FORM.validate_json(read_regular(path, MOST_BYTES))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; remove the file and import the image again") from None
    found = Counter(one.status for one in drawing.instances)
    proposals = [one.proposal for one in drawing.instances if one.proposal is not None]
    if (found["kept"], found["corrected"], found["added"]) != (drawing.kept, drawing.corrected, drawing.added):
        raise UserError(f"{path}: its counts are not those of its instances; remove the file and import the image again")
    if len(set(proposals)) < len(proposals) or any((one.proposal is None) != (one.status == "added") for one in drawing.instances):
        raise UserError(f"{path}: its instances do not say which proposals they were; remove the file and import the image again")
    return drawing


def fresh(folder: Path, rejected: Iterable[Shown], names: Mapping[int, str]) -> tuple[dict[int, Drawing], list[int]]:
    """Drawings of these images that were begun with what would be shown today, by image id; and ids of those with a stale one.

    Raises:
        UserError: a file is no drawing.
    """
    found, stale = {}, []
    for shown in rejected:
        i = shown.image["id"]
        path = path_of(folder, i)
        if path.exists():
            drawing = read(path)
            if (drawing.image, drawing.shown) == (i, digest(shown, names)):
                found[i] = drawing
            else:
                stale.append(i)
    return found, stale


def rows(drawing: Drawing, shown: Shown, ids: Mapping[str, int], where: str) -> Drawn:
    """A fresh drawing as COCO annotations. What was kept is the proposal itself, with its score.

    Args:
        ids: of the classes, by name.
        where: what to call the drawing in an error.

    Raises:
        UserError: it has a class, a size or a proposal that is not there.
    """
    size = shown.image["height"], shown.image["width"]
    parts: dict[Status, list[Row]] = {"kept": [], "corrected": [], "added": []}
    for number, one in enumerate(drawing.instances):
        place = f"{where}: instance {number}"
        if one.label not in ids:
            raise UserError(f"{place}: no class '{one.label}' (there are: {', '.join(ids)})")
        if one.proposal is not None and one.proposal not in shown.offered:
            raise UserError(f"{place}: proposal {one.proposal} was not shown")
        rle = to_rle(one.segmentation, size, place)
        if rle is None or not mask_util.area(rle):
            raise UserError(f"{place}: its mask is empty")
        if one.status == "kept":
            assert one.proposal is not None  # `read` sees to it
            proposal = shown.proposals[one.proposal]
            overlap = float(mask_util.iou([rle], [proposal["segmentation"]], [0])[0, 0])
            if ids[one.label] != proposal["category_id"] or overlap < SAME:
                raise UserError(
                    f"{place}: it is not the proposal {one.proposal} that it says was kept; remove the file and import it again"
                )
            parts["kept"].append(proposal)
        else:
            parts[one.status].append({"image_id": shown.image["id"], "category_id": ids[one.label], "segmentation": rle, "iscrowd": 0})
    if drawing.kept + drawing.corrected + drawing.removed != len(shown.offered):
        raise UserError(f"{where}: it counts other proposals than the {len(shown.offered)} that were shown")
    return Drawn(parts["kept"], parts["corrected"], parts["added"], drawing.removed)
