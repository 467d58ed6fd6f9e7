"""What a data set holds: a run's labels under ids of their own, each with where it comes from and how sure its judge was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from vlm_itl.core.coco import Coco, Rle, by_image, decode
from vlm_itl.dataset.outlines import polygons
from vlm_itl.judges.verdict import Verdict

if TYPE_CHECKING:
    from vlm_itl.settings import Run

Row = dict[str, Any]
Masks = Literal["rle", "polygons"]
Said = Mapping[str, list[Verdict]]  # by run, the first one first
Sure = dict[tuple[int, int, str], Row]  # by image id, category id and RLE counts of a proposal: p_approve, p_mask


def certainty(runs: Mapping[str, Run], said: Said, proposals: Callable[[str], list[Row]]) -> Sure:
    """How sure the judges of a run and of those before it were of what they let in.

    Args:
        said: their verdicts.
        proposals: reads those of a run.

    Returns:
        For each proposal `p_approve` of its image and `p_mask` of the mask, where the judge gives them.
    """
    sure: Sure = {}
    for name, verdicts in said.items():
        shown = by_image(proposals(runs[name].prev))
        for verdict in verdicts:
            numbers = {} if verdict.p_approve is None else {"p_approve": verdict.p_approve}
            for k, row in enumerate(shown.get(verdict.image_id, [])):
                single = verdict.p_mask[k] if verdict.p_mask else None
                sure[key(row)] = numbers | ({} if single is None else {"p_mask": single})
    return sure


def key(row: Row) -> tuple[int, int, str]:
    """What a proposal and the label made of it have in common."""
    return row["image_id"], row["category_id"], row["segmentation"]["counts"]


def content(run: str, labels: Coco, sure: Sure, masks: Masks) -> Coco:
    """COCO instances of the labels, in their order. Images keep their ids, which count from 1 and are those of the project's other files.

    An image's and an annotation's `attributes` say where it comes from: `source` (who drew), `run`, and of a model's masks `judge`, `score`
    (the detector's), `p_approve` and `p_mask`. CVAT and datumaro read attributes there. Regions to ignore keep `iscrowd: 1`, and stay RLE.
    """
    classes = {row["id"]: k for k, row in enumerate(labels["categories"], 1)}
    images = [
        {
            "id": image["id"], "file_name": file_name(image), "width": image["width"],
            "height": image["height"], "attributes": {"source": image["source"], "run": image["run"]},
            **({"original_name": image["original_name"]} if "original_name" in image else {}),
        }
        for image in labels["images"]
    ]  # fmt: skip
    annotations = [
        {
            "id": k, "image_id": row["image_id"], "category_id": classes[row["category_id"]],
            "segmentation": outline(row["segmentation"], masks if not row["iscrowd"] else "rle"), "area": row["area"], "bbox": row["bbox"],
            "iscrowd": row["iscrowd"], "attributes": provenance(row, sure),
        }
        for k, row in enumerate(labels["annotations"], 1)
    ]  # fmt: skip
    categories = [{"id": classes[row["id"]], "name": row["name"], "supercategory": row.get("supercategory", "")}
                  for row in labels["categories"]]  # fmt: skip
    return {"info": {"description": f"labels of the run {run}"}, "images": images, "annotations": annotations, "categories": categories}


def instances(labels: Coco) -> dict[str, list[tuple[str, Rle]]]:
    """(class, mask) of the labels that are no regions to ignore, by the name of their picture in the data set."""
    names, rows = {row["id"]: row["name"] for row in labels["categories"]}, by_image(labels)
    return {
        file_name(image): [(names[row["category_id"]], row["segmentation"]) for row in rows.get(image["id"], []) if not row["iscrowd"]]
        for image in labels["images"]
    }


def file_name(image: Row) -> str:
    """A picture's name in the data set, as COCO names them."""
    return f"{image['id']:012d}{PurePath(image['file_name']).suffix}"


def outline(rle: Rle, masks: Masks) -> Rle | list[list[float]]:
    return rle if masks == "rle" else polygons(decode(rle))


def provenance(row: Row, sure: Sure) -> Row:
    """Where an annotation comes from; what is not known is left out."""
    known = {name: row[name] for name in ("source", "run", "judge", "score") if row.get(name) is not None}
    return known | (sure.get(key(row), {}) if "judge" in known else {})  # what a person who drew has kept, a judge had rejected


def counted(data: Coco) -> dict[str, Row]:
    """By class: `images` that show it, `instances`, and how many of these by source: `human`, `model`, `ground_truth`."""
    single: Sequence[Row] = [row for row in data["annotations"] if not row["iscrowd"]]
    table = {}
    for category in data["categories"]:
        own = [row for row in single if row["category_id"] == category["id"]]
        sources = Counter(row["attributes"]["source"] for row in own)
        table[category["name"]] = {
            "images": len({row["image_id"] for row in own}), "instances": len(own),
            **{source: sources[source] for source in ("human", "model", "ground_truth")},
        }  # fmt: skip
    return table
