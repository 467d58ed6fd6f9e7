"""A small repository in which people draw, and what their tools give back: files edited as CVAT and Label Studio would write them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from conftest import ROOT, rectangle
from people import A, B, C, world
from ruamel.yaml import YAML

from vlm_itl.core.coco import decode, encode
from vlm_itl.core.files import read_json, write_json
from vlm_itl.drawing import brush_rle
from vlm_itl.drawing.brush_rle import run_lengths
from vlm_itl.judges import verdict
from vlm_itl.judges.verdict import Verdict

NAMES = ("bird", 'stop "sign" <&> é')
BOXES = {1: [A, B], 2: [A, B, C], 3: [], 4: [A]}  # image 1 is approved, and 4 is not in the batch
SIZE = (40, 50)


def people_draw(folder: Path, policy: str = "annotate", accepted: list[bool] | None = None, **run: Any) -> Path:
    """The top folder of a run `x`, whose judge has approved image 1 and rejected 2; 3 has no proposals."""
    pool, proposals = world(folder / "artifacts/data/images", BOXES, NAMES)
    write_json(folder / "loop/start/pool.json", pool)
    write_json(folder / "loop/start/proposals.json", proposals)
    (folder / "loop/x").mkdir(parents=True)
    said = [
        Verdict(1, 2, True, "model", True),
        Verdict(2, 3, True, "model", False, accepted=accepted),
        Verdict(3, 0, False, "model", False),
    ]
    verdict.write(folder / "loop/x/verdicts.jsonl", said)
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params["runs"]["x"] = {"judge": "vlm", "prev": "start", "policy": policy, "batch": 3, "drawn_by": "people", **run}
    with (folder / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(params, stream)
    return folder


def mask(box: tuple[int, int, int, int]) -> np.ndarray:
    return decode(rectangle(*SIZE, *box))


class Cvat:
    """What CVAT holds after an import: it renumbers all, knows masks as masks, and keeps `proposal` because its labels have it."""

    def __init__(self, archive: Path) -> None:
        with zipfile.ZipFile(archive) as opened:
            assert opened.testzip() is None
            given = json.loads(opened.read("annotations/instances_default.json"))
            self.pictures = {name: opened.read(name) for name in opened.namelist() if name.startswith("images/default/")}
        self.names = {row["id"]: row["name"] for row in given["categories"]}
        files = {row["id"]: row["file_name"] for row in given["images"]}
        assert {f"images/default/{name}" for name in files.values()} == set(self.pictures)
        self.sizes = {row["file_name"]: (row["height"], row["width"]) for row in given["images"]}
        self.shapes: dict[str, list[dict[str, Any]]] = {name: [] for name in files.values()}
        for row in given["annotations"]:
            assert row["iscrowd"] == 0
            flat = np.repeat(np.arange(len(row["segmentation"]["counts"])) % 2, row["segmentation"]["counts"]).astype(bool)
            shape = {"label": self.names[row["category_id"]], "mask": flat.reshape(row["segmentation"]["size"][::-1]).T,
                     "proposal": row["attributes"]["proposal"]}  # fmt: skip
            self.shapes[files[row["image_id"]]].append(shape)

    def of(self, image_id: int) -> list[dict[str, Any]]:
        return next(shapes for name, shapes in self.shapes.items() if name.startswith(f"{image_id:012d}-"))

    def content(self, prefix: str = "") -> dict[str, Any]:
        """COCO 1.0, as datumaro writes it."""
        labels = sorted({*self.names.values(), *(s["label"] for shapes in self.shapes.values() for s in shapes)}, reverse=True)
        annotations = []
        for k, shapes in enumerate(self.shapes.values(), 7):
            for shape in shapes:
                row = {"id": len(annotations) + 1, "image_id": k, "category_id": labels.index(shape["label"]) + 1, "bbox": [1, 2, 3, 4],
                       "area": 12.0, "attributes": {"occluded": False, "proposal": shape.get("proposal", "")}}  # fmt: skip
                if "mask" in shape:
                    counts = run_lengths(shape["mask"].ravel(order="F")).tolist()
                    row |= {"segmentation": {"counts": counts, "size": list(shape["mask"].shape)}, "iscrowd": 1}
                else:
                    row |= {"segmentation": shape["polygons"], "iscrowd": 0}
                annotations.append(row)
        return {
            "licenses": [], "info": {}, "categories": [{"id": k, "name": name, "supercategory": ""} for k, name in enumerate(labels, 1)],
            "images": [{"id": k, "width": self.sizes[name][1], "height": self.sizes[name][0], "file_name": prefix + name, "license": 0}
                       for k, name in enumerate(self.shapes, 7)],
            "annotations": annotations,
        }  # fmt: skip

    def export(self, path: Path, prefix: str = "") -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("annotations/instances_default.json", json.dumps(self.content(prefix)))
        return path


class LabelStudio:
    """Tasks with an annotation made of each prediction, as who opens and submits them gets."""

    def __init__(self, tasks: Path) -> None:
        self.tasks = [{**task, "id": 100 + k, "annotations": []} for k, task in enumerate(read_json(tasks))]

    def of(self, image_id: int) -> dict[str, Any]:
        return next(task for task in self.tasks if task["data"]["picture"].startswith(f"{image_id:012d}-"))

    def submit(self, image_id: int, regions: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
        """An annotation of these regions, else of the prediction's as they are."""
        task = self.of(image_id)
        predicted = task["predictions"][0]["result"] if task["predictions"] else []
        annotation = {
            "id": 1, "completed_by": 3, "result": json.loads(json.dumps(predicted)) if regions is None else regions, "was_cancelled": False,
            "ground_truth": False, "created_at": "2026-03-01T10:00:00.123456Z", "updated_at": "2026-03-01T10:00:00.123456Z",
            "lead_time": 12.5, **more,
        }  # fmt: skip
        task["annotations"].append(annotation)
        return annotation

    def export(self, path: Path) -> Path:
        path.write_text(json.dumps(self.tasks))
        return path


def brush(label: str, of: np.ndarray, name: str = "xYz_1") -> dict[str, Any]:
    """A region that somebody painted."""
    return {
        "id": name, "type": "brushlabels", "from_name": "brush", "to_name": "image", "original_width": SIZE[1], "original_height": SIZE[0],
        "image_rotation": 0, "origin": "manual", "value": {"format": "rle", "rle": brush_rle.encode(of), "brushlabels": [label]},
    }  # fmt: skip


def polygon(label: str, points: list[list[float]], name: str = "xYz_2") -> dict[str, Any]:
    """A region whose corners somebody set, in percent."""
    value = {"points": points, "closed": True, "polygonlabels": [label]}
    return {
        "id": name, "type": "polygonlabels", "from_name": "polygon", "to_name": "image", "original_width": SIZE[1],
        "original_height": SIZE[0], "image_rotation": 0, "value": value,
    }  # fmt: skip


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def masks(folder: Path, image_id: int) -> list[tuple[str, str, int | None, np.ndarray]]:
    """(status, class, proposal, mask) of each instance of a drawing."""
    content = read_json(folder / f"drawings/x/{image_id:012d}.json")
    return [(one["status"], one["label"], one["proposal"], decode(one["segmentation"])) for one in content["instances"]]


def rle(of: np.ndarray) -> dict[str, Any]:
    return encode(of)
