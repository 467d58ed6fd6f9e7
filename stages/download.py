"""Select the images that take part and bring them and their instances into artifacts/data, checked and in one form.

Not for splitting them: that is `split`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from vlm_itl.core.coco import empty_like, originals
from vlm_itl.core.files import write_json
from vlm_itl.core.redact import say
from vlm_itl.data import unlabelled
from vlm_itl.data.source import source
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={
        "root": File(
            "${data.root}", "data.root of params.yaml: the user's data, COCO's annotations, or for `synthetic` a folder with a note"
        )
    },
    writes={
        "images": File("artifacts/data/images", "folder of the images, `train/`, `test/` and `pool/`"),
        "train": File("artifacts/data/train.json", "COCO instances JSON of the selected training images"),
        "test": File("artifacts/data/test.json", "COCO instances JSON of the selected test images"),
        "pool": File("artifacts/data/pool.json", "images of the user's that nobody has labelled: COCO instances JSON without annotations"),
        "metrics": File("metrics/download.json", "images and annotations of each part, and how many were left out and why"),
    },
    params=("data", "select"),
    kinds=("sources/${data.source}",),
)


COUNTED = (
    "images", "images_without_instance", "images_over_limit", "missing_pictures", "also_test_pictures", "copies",
    "instances", "ignored_regions", "annotations_without_outline", "crowd_regions",
)  # fmt: skip


def main(root: Path, images: Path, train: Path, test: Path, pool: Path, metrics: Path, settings: dict[str, Any]) -> None:
    data, choice = settings["data"], settings["select"]
    parts, notes = source(data).fetch(images, root, choice)
    numbers = {}
    for name in ("train", "test"):
        notes[name]["copies"] = sum(i != first for i, first in originals(parts[name]["images"]).items())
        numbers[name] = {what: notes[name][what] for what in COUNTED}
        for line in account(notes[name]):
            say(f"{name}: {line}")
    if "pool" in parts:
        numbers["pool"] = {what: notes["pool"][what] for what in ("images", "images_over_limit", *unlabelled.REASONS)}
        for line in unlabelled.account(notes["pool"]):
            say(f"pool: {line}")
    write_json(train, parts["train"])
    write_json(test, parts["test"])
    write_json(pool, parts.get("pool") or empty_like(parts["train"]))
    write_json(metrics, numbers)


def account(notes: Counter[str]) -> list[str]:
    """What takes part and what does not, in sentences; the second and third always stand there, the others where they have a count."""
    n = notes
    lines = [
        f"{n['images']:,} images with {n['instances']:,} instances take part, and {n['ignored_regions']:,} regions to ignore",
        f"images left out: {n['images_without_instance']:,} without an instance that select asks for, {n['images_over_limit']:,} "
        f"above its limits, {n['missing_pictures']:,} without a picture",
        f"annotations left out: {n['annotations_without_outline']:,} without an outline (a box alone is none)",
    ]
    if n["relative_outlines"]:
        lines.append(f"the outlines of {n['relative_outlines']:,} annotations are fractions of width and height, since none goes beyond 1")
    if n["rle_all_crowd"]:
        lines.append(
            f"all {n['rle_all_crowd']:,} masks in RLE are iscrowd, which makes them regions to ignore, as in COCO's own files; if a tool "
            "marked its brush masks so, set iscrowd to 0 in the file"
        )
    if n["also_test_pictures"]:
        lines.append(f"{n['also_test_pictures']:,} images left out that are test pictures too, byte by byte")
    if n["copies"]:
        lines.append(f"{n['copies']:,} images are copies of others, byte by byte; copies stay on one side of every split")
    return lines


if __name__ == "__main__":
    STAGE.run(main, __doc__)
