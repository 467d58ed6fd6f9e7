"""A detector small enough to train in seconds, and eleven pictures to train it on."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from conftest import ROOT, rectangle
from PIL import Image

from vlm_itl.settings import Detector, Training

SMALL = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8, "MODEL.FPN.OUT_CHANNELS": 16, "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8, "MODEL.RPN.POST_NMS_TOPK_TEST": 20, "SOLVER.IMS_PER_BATCH": 2,
}  # fmt: skip


def detector(**more) -> Detector:
    options = {**SMALL, **more.pop("options", {})}
    return Detector(**{"config": str(ROOT / "configs/mask_rcnn_thin_R_18_FPN.yaml"), "device": "cpu", "options": options, **more})


def steps(number: int, **more) -> Training:
    """A training of so many steps."""
    return Training(schedule="fixed_steps", steps=number, learning_rate=0.002, **more)


def predicted(model: Path, data: dict, images: Path, threshold: float, batch_size: int, most: int = 5, device: str = "cpu") -> list[dict]:
    """The rows that the predict stage would write."""
    from vlm_itl.detectors.mask_rcnn.prediction import predict_sets

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.json"
        predict_sets(model, device, most, batch_size, images, [(data, threshold, "test", target)])
        return json.loads(target.read_text())


def pictures(folder: Path) -> tuple[dict, Path]:
    """(labels, images): eight pictures with a bright rectangle, two without anything, one with only a crowd region."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for k in range(1, 12):
        height, width = (48, 64) if k % 2 else (64, 48)
        picture = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        if k <= 8 or k == 11:
            x, y, w, h = (int(n) for n in (*rng.integers(2, 14, 2), *rng.integers(15, 30, 2)))
            picture[y : y + h, x : x + w] = 220
            annotations.append({
                "id": k, "image_id": k, "category_id": 16 if w > h else 84, "segmentation": rectangle(height, width, x, y, w, h),
                "bbox": [float(x), float(y), float(w), float(h)], "area": float(w * h), "iscrowd": int(k == 11), "source": "human",
            })  # fmt: skip
        Image.fromarray(picture).save(folder / f"{k}.png")
        images.append({"id": k, "file_name": f"{k}.png", "height": height, "width": width})
    categories = [{"id": 16, "name": "bird"}, {"id": 84, "name": "book"}]
    return {"images": images, "annotations": annotations, "categories": categories}, folder
