"""From a Detectron2 YAML and our settings to a Detectron2 config."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg

from ..base.errors import UserError
from ..base.settings import Detector
from . import backbone  # noqa: F401  (registers the small backbone)


def default_config() -> CfgNode:
    """Detectron2's defaults and one key of ours: SOLVER.OPTIMIZER, SGD (Detectron2's only one) or ADAMW."""
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "SGD"
    return cfg


def build_config(settings: Detector, classes: int) -> CfgNode:
    """The config of a model with `classes` classes.

    Raises:
        UserError: the YAML or one of `detector.options` is not understood by Detectron2, or there is no GPU for `device: cuda`.
    """
    if not Path(settings.config).is_file():
        raise UserError(f"params.yaml: detector.config: no file {settings.config}")
    cfg = default_config()
    try:
        cfg.merge_from_file(settings.config)
    except (KeyError, ValueError, AssertionError) as error:
        raise UserError(f"{settings.config}: not a Detectron2 config: {error}") from None
    if settings.init == "scratch" and cfg.MODEL.RESNETS.NORM == "FrozenBN":
        _thaw(cfg)
    cfg.merge_from_list(["MODEL.ROI_HEADS.NUM_CLASSES", classes, "INPUT.MASK_FORMAT", "bitmask", "OUTPUT_DIR", "", "MODEL.WEIGHTS", ""])
    for key, value in settings.options.items():
        try:
            cfg.merge_from_list([key, value])
        except (KeyError, ValueError, AssertionError) as error:
            raise UserError(f"params.yaml: detector.options: {key}: {error}") from None
    cfg.MODEL.DEVICE = choose_device(settings.device)
    return cfg


def choose_device(asked: str) -> str:
    """`cuda` or `cpu` for `auto`, `cpu` or `cuda`.

    Raises:
        UserError: `cuda`, and there is none.
    """
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError("params.yaml: detector.device: cuda, but torch sees no GPU; use auto or cpu")
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def _thaw(cfg: CfgNode) -> None:
    """Frozen batch normalisation and frozen layers make sense on pretrained weights only; without, train all of it, with group
    normalisation (He, Girshick, Dollár 2019, "Rethinking ImageNet Pre-training"; Detectron2's scratch_mask_rcnn_R_50_FPN_3x_gn)."""
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    for part in (cfg.MODEL.RESNETS, cfg.MODEL.FPN, cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD):
        part.NORM = "GN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False


def load_config(model: Path, device: str) -> CfgNode:
    """The config beside a trained model, on `device` (`auto`, `cpu` or `cuda`).

    Raises:
        UserError: the folder holds no config, or there is no GPU for `cuda`.
    """
    file = model / "config.yaml"
    if not file.exists():
        raise UserError(f"{file}: no such file: {model} is not a model written by the train stage")
    cfg = default_config()
    cfg.merge_from_file(str(file))
    cfg.MODEL.DEVICE = choose_device(device)
    return cfg


def make_deterministic(seed: int) -> None:
    """Seed every generator a training uses and ask torch for deterministic algorithms (a warning where a GPU kernel has none)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    # a search for bugs, not needed for equal results; costs 5 % of the time
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
