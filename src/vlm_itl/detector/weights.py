"""Where a detector's first weights come from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode

from ..base.errors import UserError
from ..base.settings import Detector

# Detectron2's names; its checkpointer downloads them on first use
IMAGENET = {50: "detectron2://ImageNetPretrained/MSRA/R-50.pkl", 101: "detectron2://ImageNetPretrained/MSRA/R-101.pkl"}
COCO = {
    50: "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    101: "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml",
}


def initial_weights(settings: Detector, cfg: CfgNode) -> str:
    """The file or URL that `detector.init` stands for; "" for `scratch`.

    Raises:
        UserError: the model zoo has no such weights for this backbone.
    """
    if settings.init == "scratch":
        return ""
    if settings.weights:
        return settings.weights
    depth = cfg.MODEL.RESNETS.DEPTH
    known = IMAGENET if settings.init == "imagenet" else COCO
    if depth not in known or cfg.MODEL.BACKBONE.NAME != "build_resnet_fpn_backbone":
        raise UserError(
            f"params.yaml: detector.init: Detectron2's model zoo has no {settings.init} weights for {settings.config}; "
            "set detector.weights to a file, or use init: scratch"
        )
    if settings.init == "imagenet":
        return IMAGENET[depth]
    from detectron2 import model_zoo  # slow to import

    return model_zoo.get_checkpoint_url(COCO[depth])


def load_weights(model: torch.nn.Module, source: str) -> None:
    """Load a checkpoint into `model`; layers of another shape (the class heads) keep their values, as Detectron2 does.

    `source` is a Detectron2 checkpoint (.pth, .pkl), a torchvision ResNet state dict (a plain pickle of tensors), or a URL or model-zoo
    name that Detectron2 fetches.

    Raises:
        UserError: it cannot be found, fetched or read, or none of its layers fits.
    """
    if not source:
        return
    local = Path(source)
    if "://" not in source and not local.exists():
        raise UserError(f"{source}: no such weights file (params.yaml: detector.weights)")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        state = _torchvision_resnet(local) if "://" not in source else None
        if state is not None:
            model.load_state_dict(state, strict=False)
        else:
            DetectionCheckpointer(model).load(source)
    except (OSError, RuntimeError, pickle.UnpicklingError, ValueError) as error:
        raise UserError(
            f"{source}: these weights could not be fetched or read ({' '.join(str(error).split())[:200]}); without a network, download "
            "them elsewhere and set detector.weights to the file"
        ) from None
    if all(torch.equal(value, before[name]) for name, value in model.state_dict().items()):
        raise UserError(f"{source}: no layer of it fits the model of detector.config")


def _torchvision_resnet(path: Path) -> dict[str, Any] | None:
    """State dict under Detectron2's names if `path` holds a torchvision ResNet, else None.

    Renaming as in Detectron2's tools/convert-torchvision-to-d2.py: layerN -> res(N+1), downsample -> shortcut, bnN -> convN.norm.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return None  # Detectron2's own .pkl holds numpy arrays
    if not isinstance(state, dict) or "layer1.0.conv1.weight" not in state:
        return None
    renamed = {}
    for name, value in state.items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        if not name.startswith("layer"):
            name = f"stem.{name}"
        for k in (1, 2, 3, 4):
            name = name.replace(f"layer{k}", f"res{k + 1}")
        for k in (1, 2, 3):
            name = name.replace(f"bn{k}", f"conv{k}.norm")
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        renamed[f"backbone.bottom_up.{name}"] = value
    return renamed
