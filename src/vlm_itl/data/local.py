"""`data.source: local`: any COCO instances JSON with an image folder."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from ..base.coco import Coco, subset
from ..base.errors import UserError
from ..base.settings import Local, LocalPart, Select
from ..selection import Part, category_ids, select
from .instances import normalise, picture_path, picture_problem, read_instances


def prepare(images: Path, root: Path, settings: Local, choice: Select, seed: int) -> tuple[dict[str, Coco], Counter[str]]:
    """Check the user's annotations, select, and copy the selected pictures.

    Without a test part, `test_fraction` of all images, drawn with the seed, are the test set's candidates.

    Args:
        images: gets the pictures, `train/` and `test/`.
        root: the folder that the paths in `settings` are relative to.

    Returns:
        {"train": ..., "test": ...} with `file_name`s relative to `images`, and what was skipped or noted.

    Raises:
        UserError: the file and the id at fault; see `vlm_itl.data.instances` and `vlm_itl.selection`.
    """
    train, notes = _read(root / settings.train.annotations, choice, "training")
    if settings.test is None:
        order = sorted(image["id"] for image in train["images"])
        random.Random(f"{seed}/test").shuffle(order)
        held_out = set(order[: round(settings.test_fraction * len(order))])
        if not held_out or len(held_out) == len(order):
            raise UserError(f"params.yaml: data.local.test_fraction leaves {len(held_out)} of {len(order)} images for testing")
        test, train = subset(train, held_out), subset(train, set(order) - held_out)
    else:
        test, test_notes = _read(root / settings.test.annotations, choice, "test")
        notes += test_notes
    chosen = {"train": select(train, choice, "training"), "test": select(test, choice, "test")}
    _copy(chosen["train"], root, settings.train, images / "train")
    _copy(chosen["test"], root, settings.test or settings.train, images / "test")
    return chosen, notes


def _read(path: Path, choice: Select, part: Part) -> tuple[Coco, Counter[str]]:
    instances = read_instances(path)
    return normalise(instances, category_ids(instances.category_names(), choice, part), str(path))


def _copy(data: Coco, root: Path, part: LocalPart, target: Path) -> None:
    where = str(root / part.annotations)
    for image in tqdm(data["images"], desc=f"copying images of {Path(part.annotations).name}", unit="image"):
        source = picture_path(root / part.images, image, where)
        try:
            picture = source.read_bytes()
        except OSError as error:
            raise UserError(f"{where}: image {image['id']}: {source}: {error.strerror}") from None
        problem = picture_problem(picture, image)
        if problem:
            raise UserError(f"{where}: image {image['id']}: {source} is {problem}")
        copy = target / image["file_name"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(picture)
        image["file_name"] = f"{target.name}/{image['file_name']}"
