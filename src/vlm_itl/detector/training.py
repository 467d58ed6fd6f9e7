"""Training Mask R-CNN for a number of epochs on COCO labels.

A plain loop on the model of Detectron2's tools/plain_train_net.py. It is not for several GPUs and does not resume; one process trains one
run from the start of its schedule to the end.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.data.detection_utils import build_augmentation
from detectron2.data.samplers import TrainingSampler
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from tqdm import tqdm

from ..coco import Coco, by_image
from ..errors import UserError
from ..files import replacing
from ..settings import Detector, Training
from .config import build_config, class_ids, make_deterministic
from .weights import initial_weights, load_weights


def to_records(data: Coco, images: Path) -> list[dict[str, Any]]:
    """Detectron2's dataset dicts. Crowd regions stay in, marked: the mapper drops them as it does for COCO."""
    index = {c: k for k, c in enumerate(class_ids(data))}
    rows = by_image(data)
    return [
        {
            "file_name": str(images / image["file_name"]),
            "image_id": image["id"], "height": image["height"], "width": image["width"],
            "annotations": [
                {"bbox": a["bbox"], "bbox_mode": BoxMode.XYWH_ABS, "category_id": index[a["category_id"]],
                 "segmentation": dict(a["segmentation"]), "iscrowd": a["iscrowd"]}
                for a in rows.get(image["id"], [])
            ],
        }
        for image in data["images"]
    ]  # fmt: skip


def train(labels: Coco, images: Path, model_folder: Path, detector: Detector, training: Training, seed: int, previous: Path | None) -> int:
    """Train and write `model_folder/model.pth` (a Detectron2 checkpoint) and `config.yaml`.

    Args:
        labels: COCO instances; may hold images without annotations (they teach background).
        images: the folder of the images.
        previous: a model folder to continue from; None starts from `detector.init`.

    Returns:
        The number of optimiser steps.

    Raises:
        UserError: no labels, unusable weights, or a loss that is not finite.
    """
    if not any(not a["iscrowd"] for a in labels["annotations"]):
        raise UserError("there is no labelled instance to train on")
    make_deterministic(seed)
    cfg = build_config(detector, len(labels["categories"]))
    batch = cfg.SOLVER.IMS_PER_BATCH
    steps = max(1, math.ceil(training.epochs * len(labels["images"]) / batch))
    cfg.SOLVER.MAX_ITER = steps
    cfg.SOLVER.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, steps // 5)
    if training.learning_rate is not None:
        cfg.SOLVER.BASE_LR = training.learning_rate
    model = build_model(cfg)
    load_weights(model, str(previous / "model.pth") if previous else initial_weights(detector, cfg))
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    records = to_records(labels, images)
    loader = build_detection_train_loader(
        records,
        mapper=DatasetMapper(
            is_train=True, augmentations=build_augmentation(cfg, True), image_format=cfg.INPUT.FORMAT,
            use_instance_mask=True, instance_mask_format="bitmask",
        ),
        sampler=TrainingSampler(len(records), seed=seed),
        total_batch_size=batch,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )  # fmt: skip
    model.train()
    with EventStorage(), tqdm(total=steps, desc=f"training on {len(records)} images", unit="step", mininterval=2) as bar:
        for step, inputs in zip(range(steps), loader):
            try:
                losses = model(inputs)
            except FloatingPointError:  # Detectron2 looks at its region proposals
                losses = {"loss": torch.tensor(torch.nan)}
            loss = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(loss):
                parts = ", ".join(f"{name} {value.item():.3g}" for name, value in losses.items())
                raise UserError(
                    f"the loss is not finite at step {step + 1} of {steps} ({parts}); lower train.learning_rate or pretrain.learning_rate"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    save(model, cfg, model_folder)
    return steps


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """SOLVER.OPTIMIZER with the learning rate, weight decay and gradient clipping of SOLVER.

    Raises:
        UserError: the optimiser is neither SGD nor ADAMW.
    """
    if cfg.SOLVER.OPTIMIZER == "SGD":
        return build_sgd(cfg, model)
    if cfg.SOLVER.OPTIMIZER != "ADAMW":
        raise UserError(f"SOLVER.OPTIMIZER: SGD or ADAMW is expected, not {cfg.SOLVER.OPTIMIZER!r}")
    parameters = get_default_optimizer_params(
        model, weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM, weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS
    )
    adamw = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
    return adamw(parameters, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)


def save(model: torch.nn.Module, cfg: CfgNode, folder: Path) -> None:
    """Write weights and config; no paths of this machine, no device, so that equal trainings give equal bytes."""
    clean = cfg.clone()
    clean.MODEL.WEIGHTS, clean.OUTPUT_DIR, clean.MODEL.DEVICE = "", "", "cpu"
    # given a path, torch writes its name (here a temporary one) into the file
    with replacing(folder / "model.pth") as temporary, open(temporary, "wb") as file:
        torch.save({"model": model.state_dict()}, file)
    with replacing(folder / "config.yaml") as temporary:
        temporary.write_text(clean.dump())
