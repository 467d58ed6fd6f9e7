"""`data.source: local`: any COCO instances JSON with an image folder."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

from ..coco import Coco, read_instances, subset
from ..errors import UserError
from ..files import write_json
from ..settings import Local, LocalPart


def write_dataset(folder: Path, root: Path, settings: Local, seed: int) -> dict[str, int]:
    """Check the user's data and copy it into `folder` in the project's form.

    Without a test part, `test_fraction` of the images, drawn with the seed, become the test set.

    Args:
        folder: gets `train.json`, `test.json` and `images/`.
        root: the folder that the paths in `settings` are relative to.

    Returns:
        What was skipped or noted, by name.

    Raises:
        UserError: see `vlm_itl.coco.read_instances`; or nothing is left for one of the parts.
    """
    data, notes = _read(root, settings.train)
    if settings.test is None:
        order = sorted(image["id"] for image in data["images"])
        random.Random(f"{seed}/test").shuffle(order)
        held_out = set(order[: round(settings.test_fraction * len(order))])
        if not held_out or len(held_out) == len(order):
            raise UserError(f"params.yaml: data.local.test_fraction leaves {len(held_out)} of {len(order)} images for testing")
        test, data = subset(data, held_out), subset(data, set(order) - held_out)
        test_part = settings.train
    else:
        test, test_notes = _read(root, settings.test)
        notes += test_notes
        test_part = settings.test
    for name, part, rows in (("train", settings.train, data), ("test", test_part, test)):
        for image in rows["images"]:
            target = folder / "images" / name / image["file_name"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / part.images / image["file_name"], target)
            image["file_name"] = f"{name}/{image['file_name']}"
        write_json(folder / f"{name}.json", rows)
    return dict(notes)


def _read(root: Path, part: LocalPart) -> tuple[Coco, Counter[str]]:
    return read_instances(root / part.annotations, root / part.images)
