"""Select the images that take part and bring them and their instances into artifacts/data, checked and in one form.

Not for splitting them: that is `split`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from vlm_itl.base.files import read_json, write_json
from vlm_itl.base.stage import Stage
from vlm_itl.selection import select

STAGE = Stage(
    reads={"root": "data.root of params.yaml: the user's data, COCO's annotations, or for `synthetic` a folder with a note"},
    writes={
        "images": "folder of the images, `train/` and `test/`",
        "train": "COCO instances JSON of the selected training images",
        "test": "COCO instances JSON of the selected test images",
        "metrics": "annotations and pictures left out",
    },
    params=("data", "select"),
    named={"root": "data.root"},
)


def main(root: Path, images: Path, train: Path, test: Path, metrics: Path, settings: dict[str, Any]) -> None:
    data, choice = settings["data"], settings["select"]
    notes: Counter[str] = Counter()
    if data.source == "synthetic":
        from vlm_itl.data import synthetic

        s = data.synthetic
        synthetic.write_dataset(images.parent, s.train_images, s.test_images, s.long_side, data.seed)
        parts = {"train": select(read_json(train), choice, "training"), "test": select(read_json(test), choice, "test")}
    elif data.source == "local":
        from vlm_itl.data import local

        parts, notes = local.prepare(images, root, data.local, choice, data.seed)
    else:
        from vlm_itl.data import coco2017

        parts, notes = coco2017.prepare(images, root, data.coco2017, choice)
    write_json(train, parts["train"])
    write_json(test, parts["test"])
    write_json(metrics, {what: notes[what] for what in ("annotations_without_outline", "crowd_regions", "missing_pictures")})


if __name__ == "__main__":
    STAGE.run(main, __doc__)
