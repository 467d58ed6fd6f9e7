"""Do other programs read a data set as it was written?

pycocotools is asked here. supervision and datumaro want older libraries than the project has, so `make readers` gives them an environment
of their own, in which this module runs as a program: `python -m vlm_itl.dataset.readers FOLDER` prints what they read, as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from vlm_itl.core.coco import Rle, encode
from vlm_itl.core.errors import UserError

Instances = dict[str, list[tuple[str, Rle]]]  # by file name: (class, mask) of each instance that is no region to ignore
ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".venv-readers/bin/python"
ANNOTATIONS, IMAGES = Path("annotations/instances_default.json"), Path("images/default")  # where COCO's readers look


@dataclass(frozen=True)
class Reading:
    """What a program read.

    Attributes:
        version: of the program; None where it is not installed, and then nothing else is known.
        iou: the least IoU of a mask with the one that was written.
    """

    program: str
    version: str | None
    images: int = 0
    instances: int = 0
    iou: float | None = None


def read_again(folder: Path, wanted: Instances) -> list[Reading]:
    """Read a data set with each program that is there and compare.

    Args:
        wanted: what it holds. pycocotools is held against it, and the others against pycocotools.

    Raises:
        UserError: a program finds other images, classes or numbers of instances.
    """
    own = compared(wanted, "pycocotools", by_pycocotools, folder)
    if not PYTHON.exists():
        return [own, *(Reading(program, None) for program in READERS)]
    done = subprocess.run(
        [PYTHON, "-m", __name__, folder], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}
    )
    if done.returncode:
        raise UserError(f"{folder}: {(done.stderr.strip().splitlines() or ['the readers of make readers ended without a word'])[-1]}")
    return [own, *(Reading(**row) for row in json.loads(done.stdout.splitlines()[-1]))]


def compared(wanted: Instances, program: str, read: Callable[[Path], Instances], folder: Path) -> Reading:
    try:
        installed = version(program)
    except PackageNotFoundError:
        return Reading(program, None)
    found = read(folder)
    classes = {name: sorted(label for label, _ in rows) for name, rows in wanted.items()}
    if classes != {name: sorted(label for label, _ in rows) for name, rows in found.items()}:
        raise UserError(f"{folder}: {program} {installed} reads other images or classes than were written; please report it")
    least = 1.0
    for name, rows in wanted.items():
        for label, mask in rows:
            of_class = [other for theirs, other in found[name] if theirs == label]
            least = min(least, float(mask_util.iou([mask], of_class, [0] * len(of_class)).max()))
    return Reading(program, installed, len(found), sum(map(len, found.values())), round(least, 4))


def by_pycocotools(folder: Path) -> Instances:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
        data = COCO(str(folder / ANNOTATIONS))
    found: Instances = {}
    for image in data.dataset["images"]:
        rows = data.loadAnns(data.getAnnIds(imgIds=[image["id"]], iscrowd=False))
        found[image["file_name"]] = [(data.cats[row["category_id"]]["name"], data.annToRLE(row)) for row in rows]
    return found


def by_supervision(folder: Path) -> Instances:
    import supervision

    read: Any = supervision.DetectionDataset.from_coco(str(folder / IMAGES), str(folder / ANNOTATIONS), force_masks=True)
    found: Instances = {}
    for path, detections in read.annotations.items():
        crowd = detections.data.get("iscrowd", np.zeros(len(detections)))
        masks = detections.mask if detections.mask is not None else []
        found[Path(path).name] = [
            (read.classes[k], encode(mask)) for k, mask, ignored in zip(detections.class_id, masks, crowd, strict=True) if not ignored
        ]
    return found


def by_datumaro(folder: Path) -> Instances:
    os.environ.setdefault("DATUMARO_TELEMETRY", "0")
    import datumaro

    read: Any = datumaro.Dataset.import_from(str(folder), "coco_instances")
    names = [label.name for label in read.categories()[datumaro.AnnotationType.label].items]
    sizes = {row["file_name"]: (row["height"], row["width"]) for row in json.loads((folder / ANNOTATIONS).read_text())["images"]}
    found: Instances = {}
    for item in read:
        name = Path(item.media.path).name
        parts: dict[int, tuple[str, list[Rle]]] = {}  # a mask of several polygons is a group of annotations
        for row in item.annotations:
            if row.attributes.get("is_crowd") or row.type == datumaro.AnnotationType.bbox:  # which it makes beside each mask
                continue
            if row.type == datumaro.AnnotationType.polygon:
                rles = mask_util.frPyObjects([row.points], *sizes[name])
            else:
                rles = [encode(np.asarray(row.image).astype(bool))]
            parts.setdefault(row.group, (names[row.label], []))[1].extend(rles)
        found[name] = [(label, mask_util.merge(rles)) for label, rles in parts.values()]
    return found


READERS: dict[str, Callable[[Path], Instances]] = {"supervision": by_supervision, "datumaro": by_datumaro}


def main(folder: Path) -> None:
    wanted = by_pycocotools(folder)
    try:
        found = [asdict(compared(wanted, name, read, folder)) for name, read in READERS.items()]
    except UserError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
