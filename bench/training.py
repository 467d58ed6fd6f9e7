"""Images a second in training: our loop beside a loop like Detectron2's tools/plain_train_net.py, on the same config, data and optimiser.

Both train the default detector from the same first weights on the initial labels of the default run (`dvc repro split` makes them), turn by
turn; the stock loop has what plain_train_net.py has: its data loader and mapper, its optimiser with gradient clipping, its scalars. The
optimiser is AdamW on both sides, as configs/mask_rcnn_thin_R_18_FPN.yaml says. Also shown: how far the losses of one batch are apart.
Usage: python bench/training.py [--steps 90] [--repeats 3] [--config YAML] [--device cpu|cuda] [--set KEY=VALUE ...]
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

import torch
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import proposal_utils
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage
from rates import show

from vlm_itl.detectors.mask_rcnn import training as ours
from vlm_itl.detectors.mask_rcnn.batches import batches, to_records
from vlm_itl.detectors.mask_rcnn.config import build_config, make_deterministic
from vlm_itl.detectors.mask_rcnn.speed import faster
from vlm_itl.settings import Detector, Training

STOCK_NMS = proposal_utils.batched_nms


def stock(cfg: Any, records: list[dict[str, Any]], steps: int) -> None:
    """The loop of plain_train_net.py, without its evaluation and checkpoints."""
    proposal_utils.batched_nms = STOCK_NMS
    model = build_model(cfg)
    model.train()
    if cfg.SOLVER.OPTIMIZER == "SGD":
        optimizer = build_optimizer(cfg, model)
    else:  # Detectron2 builds SGD only
        parameters = get_default_optimizer_params(
            model, weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM, weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS
        )
        make = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        optimizer = make(parameters, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)
    scheduler = build_lr_scheduler(cfg, optimizer)
    mapper = DatasetMapper(
        is_train=True, augmentations=build_augmentation(cfg, True), image_format=cfg.INPUT.FORMAT, use_instance_mask=True,
        instance_mask_format="bitmask",
    )  # fmt: skip
    loader = build_detection_train_loader(
        records, mapper=mapper, total_batch_size=cfg.SOLVER.IMS_PER_BATCH, num_workers=cfg.DATALOADER.NUM_WORKERS
    )
    with EventStorage() as storage:
        for data, _ in zip(loader, range(steps)):
            losses = model(data)
            total = sum(losses.values())
            assert torch.isfinite(total).all()
            storage.put_scalars(total_loss=total.item(), **{k: v.item() for k, v in losses.items()})
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            storage.put_scalar("lr", optimizer.param_groups[0]["lr"], smoothing_hint=False)
            scheduler.step()


def losses_apart(cfg: Any, records: list[dict[str, Any]]) -> dict[str, float]:
    """Relative difference of each loss of the first batch between the stock model and ours."""
    both = []
    for change in (lambda model: setattr(proposal_utils, "batched_nms", STOCK_NMS), lambda model: faster(model, training=True)):
        torch.manual_seed(0)
        model = build_model(cfg)
        change(model)
        model.train()
        torch.manual_seed(0)
        with EventStorage():
            both.append({name: value.item() for name, value in model(next(batches(records, cfg, 0, 0, 1))).items()})
    return {name: abs(both[1][name] / value - 1) for name, value in both[0].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--config", default="configs/mask_rcnn_thin_R_18_FPN.yaml")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--labels", type=Path, default=Path("loop/start/labels.json"))
    parser.add_argument("--images", type=Path, default=Path("artifacts/data/images"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a Detectron2 key")
    arguments = parser.parse_args()
    if not arguments.labels.exists():
        sys.exit(f"error: {arguments.labels}: no such file; dvc repro split makes it")
    options = {key: json.loads(value) for key, value in (item.split("=", 1) for item in arguments.set)}
    detector = Detector(config=arguments.config, device=arguments.device, options=options)
    labels = json.loads(arguments.labels.read_text())
    records = to_records(labels, arguments.images)
    rates: dict[str, list[float]] = {"stock Detectron2": [], "ours": []}
    make_deterministic(1)
    cfg = build_config(detector, len(labels["categories"]))
    print("losses of the first batch, relative difference:", {k: float(f"{v:.1e}") for k, v in losses_apart(cfg, records).items()})
    ours.scale_schedule(cfg, arguments.steps, None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VLM_ITL_SCRATCH"] = folder
        for _ in range(arguments.repeats):
            for name in rates:
                start = time.perf_counter()
                if name == "ours":
                    ours.train(
                        labels, arguments.images, Path(folder) / "m", detector, Training(schedule="fixed_steps", steps=arguments.steps), 1
                    )
                else:
                    make_deterministic(1)
                    stock(cfg, records, arguments.steps)
                rates[name].append(arguments.steps * cfg.SOLVER.IMS_PER_BATCH / (time.perf_counter() - start))
                if arguments.device == "cuda":
                    print(f"{name}: {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB at most")
                    torch.cuda.reset_peak_memory_stats()
    show(rates, "images/s")


if __name__ == "__main__":
    main()
