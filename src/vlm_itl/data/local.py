"""`data.source: local`: any COCO instances JSON with an image folder."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vlm_itl.core.coco import Coco, by_image, empty_like, originals, subset
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_regular
from vlm_itl.core.pictures import suffix
from vlm_itl.data.instances import most_bytes, normalise, picture_path, picture_problem, read_instances, renumbered, shared
from vlm_itl.data.selection import Part, category_ids, left_out, select
from vlm_itl.data.source import Fetched, missing_root
from vlm_itl.data.unlabelled import gather

if TYPE_CHECKING:
    from vlm_itl.settings import Data, Local, LocalPart, Select


class LocalSource:
    """The user's annotations, checked, and copies of the selected pictures.

    Without a test part, `test_fraction` of all pictures, drawn with the seed, are the test set's candidates, with all their copies.
    """

    def __init__(self, data: Data) -> None:
        assert data.local is not None  # `Data` sees to it
        self.data, self.settings = data, data.local

    def check(self) -> Iterator[tuple[str, str]]:
        root = Path(self.data.root)
        if not root.is_dir():
            yield from missing_root(self.data)
            return
        for name, part in (("train", self.settings.train), ("test", self.settings.test)):
            if part and not (root / part.annotations).is_file():
                yield f"data.local.{name}.annotations", f"no such file: {root / part.annotations}"
            if part and not (root / part.images).is_dir():
                yield f"data.local.{name}.images", f"no such folder: {root / part.images}"
        for k, folder in enumerate(self.settings.pool):
            if not (root / folder).is_dir():
                yield f"data.local.pool.{k}", f"no such folder: {root / folder}"

    def fetch(self, images: Path, root: Path, choice: Select) -> Fetched:
        """Check, select and copy; see `Source.fetch`.

        Args:
            images: gets the pictures under names of our own.
            root: the folder that the paths in the settings are relative to.

        Returns:
            A part `pool` where `data.local.pool` names folders. Rows also have `original_name`, the user's, and `md5`, the content's hash.
            Of a held-out test part, what concerns the file as a whole is noted with "train".

        Raises:
            UserError: the file and the id at fault (see `vlm_itl.data.instances` and `vlm_itl.data.selection`), or a picture is in both
                parts.
        """
        settings, max_pixels = self.settings, self.data.max_pixels
        files = {"train": settings.train, "test": settings.test or settings.train}
        notes: dict[str, Counter[str]] = {"train": Counter(), "test": Counter()}
        train = _read(root, settings.train, choice, "training", notes["train"], max_pixels)
        if settings.test is None:
            train, test = _held_out(train, root, settings, self.data.seed)
        else:
            test = _read(root, settings.test, choice, "test", notes["test"], max_pixels)
        chosen = {"train": select(train, choice, "training"), "test": select(test, choice, "test")}
        for name, data in (("train", train), ("test", test)):
            notes[name].update(left_out(data, chosen[name], choice))
        chosen = renumbered(chosen)
        for name, part in files.items():
            _copy(chosen[name], root, part, images / name, max_pixels)
        both = shared(chosen["train"], chosen["test"])
        if both:
            (mine, other), more = both[0], f", and {len(both) - 1} more" if len(both) > 1 else ""
            raise UserError(
                f"{root / files['train'].annotations}: image {mine['original_id']} ({mine['original_name']}) is the same picture as image "
                f"{other['original_id']} ({other['original_name']}) of {root / files['test'].annotations}{more}: a test picture must not "
                "be trained on; take it out of one file, or leave out data.local.test and test_fraction of the training pictures is held "
                "out"
            )
        if settings.pool:
            known = {image["md5"]: f"also_{what}_pictures" for name, what in (("train", "labelled"), ("test", "test"))
                     for image in chosen[name]["images"]}  # fmt: skip
            last = max(image["id"] for data in chosen.values() for image in data["images"])
            rows, notes["pool"] = gather(
                [root / folder for folder in settings.pool], root, images / "pool", known, max_pixels, choice.max_images, choice.seed,
                last + 1,
            )  # fmt: skip
            chosen["pool"] = {**empty_like(chosen["train"]), "images": rows}
        return Fetched(chosen, notes)


def _read(root: Path, part: LocalPart, choice: Select, name: Part, notes: Counter[str], max_pixels: int) -> Coco:
    path = root / part.annotations
    instances = read_instances(path)
    ids = category_ids(instances.category_names(), choice, name, str(path))
    data, skipped = normalise(instances, ids, str(path), max_pixels)
    notes.update(skipped)
    return data


def _held_out(data: Coco, root: Path, settings: Local, seed: int) -> tuple[Coco, Coco]:
    """(training, test) candidates: a seeded share of the pictures with their copies is for testing."""
    shown = by_image(data)
    for image in data["images"]:
        if image["id"] in shown:
            source = _source(image, root, settings.train)
            with contextlib.suppress(OSError):  # matters if it is selected, and is said then
                image["md5"] = hashlib.md5(read_regular(source, most_bytes(image))).hexdigest()
    original = originals(data["images"])
    order = sorted(set(original.values()))
    random.Random(f"{seed}/test").shuffle(order)
    held_out = set(order[: round(settings.test_fraction * len(order))])
    if not held_out or len(held_out) == len(order):
        raise UserError(f"params.yaml: data.local.test_fraction leaves {len(held_out)} of {len(order)} images for testing")
    test = {i for i, first in original.items() if first in held_out}
    return subset(data, original.keys() - test), subset(data, test)


def _source(image: dict[str, Any], root: Path, part: LocalPart) -> Path:
    where = f"{root / part.annotations}: image {image.get('original_id', image['id'])}"
    return picture_path(root / part.images, image["file_name"], where)


def _copy(data: Coco, root: Path, part: LocalPart, target: Path, max_pixels: int) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for image in tqdm(data["images"], desc=f"copying {target.name} images", unit="image"):
        where = f"{root / part.annotations}: image {image['original_id']}"
        source = _source(image, root, part)
        try:
            picture = read_regular(source, most_bytes(image))
        except OSError as error:
            raise UserError(f"{where}: {source}: {error.strerror}") from None
        problem = picture_problem(picture, image, max_pixels)
        if problem:
            raise UserError(f"{where}: {source} is {problem}")
        name = f"{image['id']:012d}{suffix(picture)}"
        (target / name).write_bytes(picture)
        image.update(
            file_name=f"{target.name}/{name}", original_name=image["file_name"], md5=hashlib.md5(picture).hexdigest()
        )  # fmt: skip
