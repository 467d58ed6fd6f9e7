"""Images a second in prediction: ours in batches, and Detectron2's `DefaultPredictor`, one image at a time, turn by turn.

Both read the pictures from disk, run the same weights and end with RLE masks. It asks for `loop/start/model` and the test images
(`dvc repro predict-start` makes them). Usage: python bench/prediction.py [--batch-size 8] [--repeats 3] [--device cpu|cuda]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from detectron2.layers import mask_ops
from detectron2.modeling.proposal_generator import proposal_utils
from rates import show

from vlm_itl.detectors.mask_rcnn.batches import class_ids
from vlm_itl.detectors.mask_rcnn.config import load_config
from vlm_itl.detectors.mask_rcnn.prediction import Predictor, to_results
from vlm_itl.detectors.mask_rcnn.speed import faster

STOCK = proposal_utils.batched_nms, mask_ops.paste_masks_in_image
THRESHOLD = 0.05


def stock_predictor(model: Path, device: str) -> DefaultPredictor:
    cfg: CfgNode = load_config(model, device)
    cfg.MODEL.WEIGHTS = str(model / "model.pth")
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = THRESHOLD
    cfg.DATASETS.TEST = ()
    return DefaultPredictor(cfg)


def stock(predictor: DefaultPredictor, data: dict[str, Any], images: Path) -> list[dict[str, Any]]:
    proposal_utils.batched_nms, mask_ops.paste_masks_in_image = STOCK
    rows = []
    for image in data["images"]:
        outputs = predictor(read_image(str(images / image["file_name"]), format="BGR"))
        rows += to_results(image["id"], outputs["instances"].to("cpu"), class_ids(data), THRESHOLD)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("loop/start/model"))
    parser.add_argument("--data", type=Path, default=Path("artifacts/split/test.json"))
    parser.add_argument("--images", type=Path, default=Path("artifacts/data/images"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if not (arguments.model / "model.pth").exists():
        sys.exit(f"error: {arguments.model}: no model; dvc repro predict-start makes it")
    data = json.loads(arguments.data.read_text())
    ours, theirs = Predictor(arguments.model, arguments.device, 100), stock_predictor(arguments.model, arguments.device)
    rates: dict[str, list[float]] = {"Detectron2's DefaultPredictor": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VLM_ITL_SCRATCH"] = folder
        for _ in range(arguments.repeats):
            for name in rates:
                start = time.perf_counter()
                if name == "ours":
                    faster(ours.model, training=False)  # which the other way has undone
                    progress = ours.predict(data, arguments.images, THRESHOLD, arguments.batch_size, "ours", Path(folder) / "rows.json")
                    progress.clear()
                else:
                    other = stock(theirs, data, arguments.images)
                rates[name].append(len(data["images"]) / (time.perf_counter() - start))
        mine = json.loads((Path(folder) / "rows.json").read_text())
    print(f"instances at score {THRESHOLD} or more: {len(other)} and {len(mine)} (in batches they differ by rounding)")
    show(rates, "images/s")


if __name__ == "__main__":
    main()
