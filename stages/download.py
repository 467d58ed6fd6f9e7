"""Bring the pictures and their instances into artifacts/data, checked and in one form.

Not for choosing images or classes: that is `split`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.stage import Stage

STAGE = Stage(
    reads={"root": "data.root of params.yaml: the user's data, or for `synthetic` a folder with a note"},
    writes={
        "images": "folder of the images, `train/` and `test/`",
        "train": "COCO instances JSON of all training images",
        "test": "COCO instances JSON of all test images",
    },
    params=("data",),
)


def main(root: Path, images: Path, train: Path, test: Path, settings: dict[str, Any]) -> None:
    data = settings["data"]
    if data.source == "synthetic":
        from vlm_itl.data import synthetic

        s = data.synthetic
        synthetic.write_dataset(images.parent, s.train_images, s.test_images, s.long_side, data.seed)
    else:
        from vlm_itl.data import local

        for what, number in local.write_dataset(images.parent, root, data.local, data.seed).items():
            print(f"{what}: {number}")


if __name__ == "__main__":
    STAGE.run(main, __doc__)
