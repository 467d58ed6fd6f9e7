"""Make the weights that `detector.init: drawn` begins with, from nothing, on drawn pictures of things that are none of the four classes.

    python -m vlm_itl.tools.drawn_start

The counterpart of what weights of COCO's learned from 860,000 instances that somebody drew: here thousands of drawn instances by nobody.
The predictors of class, box and mask, which belong to the classes, are left out of the file. docs/model-card.md says more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from vlm_itl.core.redact import say
from vlm_itl.data.synthetic.dataset import write_dataset
from vlm_itl.data.synthetic.other_things import WORLD
from vlm_itl.detectors.mask_rcnn.prediction import Predictor, predict
from vlm_itl.detectors.mask_rcnn.shipped import drawn_weights
from vlm_itl.detectors.mask_rcnn.training import train
from vlm_itl.metrics.detection import average_precision
from vlm_itl.settings import Detector, Training

PREDICTORS = ("roi_heads.box_predictor.", "roi_heads.mask_head.predictor.")  # of class, box and mask: they belong to the classes
HELD_OUT = 200  # further pictures, which the weights are measured on


def make(config: Path, out: Path, pictures: int, steps: int, rate: float | None, seed: int) -> dict[str, Any]:
    """Draw pictures, train from scratch and write the weights in half precision.

    Args:
        rate: the learning rate; None: the config's.

    Returns:
        `instances` learned from, the `parameters` and `bytes` of the file, and box and mask AP on further pictures.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, model = Path(folder, "data"), Path(folder, "model")
        write_dataset(data, pictures, HELD_OUT, 160, seed, WORLD)
        seen, others = (json.loads((data / f"{part}.json").read_text(encoding="utf-8")) for part in ("train", "test"))
        model.mkdir()
        training = Training(schedule="fixed_steps", steps=steps, learning_rate=rate)
        train(seen, data / "images", model, Detector(config=str(config), device="cpu"), training, seed)
        trained = Predictor(model, "cpu", 100)
        rows = predict(trained.model, trained.cfg, {**others, "annotations": []}, data / "images", 0.05, 8, "measuring")
    # contiguous: the predictor's layout is channels-last; the count of batches is no weight
    kept = {
        name: value.half().contiguous()
        for name, value in trained.model.state_dict().items()
        if not name.startswith(PREDICTORS) and not name.endswith("num_batches_tracked")
    }
    save_file(kept, out)
    found = average_precision(others, rows)
    return {
        "instances": len(seen["annotations"]), "parameters": sum(value.numel() for value in kept.values()), "bytes": out.stat().st_size,
        "box_AP": found["box"]["AP"], "mask_AP": found["mask"]["AP"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/mask_rcnn_thin_R_18_FPN.yaml"), help="the detector's")
    parser.add_argument("--out", type=Path, help="the weights, .safetensors; beside the config where it is left out")
    parser.add_argument("--pictures", type=int, default=1600)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--learning-rate", type=float, help="the config's where it is left out")
    parser.add_argument("--seed", type=int, default=2000, help="of pictures, weights and batches; not that of an experiment's data")
    a = parser.parse_args()
    say(str(make(a.config, a.out or Path(drawn_weights(str(a.config))), a.pictures, a.steps, a.learning_rate, a.seed)))


if __name__ == "__main__":
    main()
