"""From a Detectron2 YAML and our settings to a Detectron2 config."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import yaml
from detectron2.config import CfgNode, get_cfg

from vlm_itl.core.errors import UserError
from vlm_itl.detectors.mask_rcnn import backbone  # noqa: F401  (registers the small backbone)

if TYPE_CHECKING:
    from vlm_itl.settings import Detector


def default_config() -> CfgNode:
    """Detectron2's defaults and one key of ours: SOLVER.OPTIMIZER, SGD (Detectron2's only one) or ADAMW."""
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "SGD"
    return cfg


def build_config(settings: Detector, classes: int) -> CfgNode:
    """The config of a model with `classes` classes.

    Raises:
        UserError: see `merge_file`; one of `detector.options` is not understood by Detectron2, or there is no GPU for `device: cuda`.
    """
    if not Path(settings.config).is_file():
        raise UserError(f"params.yaml: detector.config: no file {settings.config}")
    cfg = default_config()
    merge_file(cfg, Path(settings.config))
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


def merge_file(cfg: CfgNode, file: Path) -> None:
    """Merge a YAML and the files that its `_BASE_` names into `cfg`. Only data is read: Detectron2 itself would run `!!python` tags, and
    fetch a `_BASE_` from a server.

    Raises:
        UserError: a file is no such data or not understood by Detectron2, or a `_BASE_` lies outside of the folder of `file` and of the
            working directory.
    """
    _check_bases(file, [file.resolve().parent, Path.cwd()], ())
    try:
        cfg.merge_from_file(str(file), allow_unsafe=False)
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(f"{file}: not a Detectron2 config: {error}") from None


def _check_bases(file: Path, inside: list[Path], above: tuple[Path, ...]) -> None:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file}: not a config of plain YAML values: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: not a Detectron2 config: keys and values are expected")
    bases = values.get("_BASE_", [])
    for base in bases if isinstance(bases, list) else [bases]:
        try:
            named = file.parent / Path(str(base)).expanduser()  # as Detectron2 finds it
            path = named.resolve()
            found = "://" not in str(base) and any(path.is_relative_to(folder) for folder in inside) and path.is_file()
        except (ValueError, OSError, RuntimeError):  # a NUL, a name too long, nobody's home, links in a circle
            found = False
        if not found:
            raise UserError(f"{file}: _BASE_: {base}: no file in the folder of the config or in the working directory")
        if path in above:
            raise UserError(f"{file}: _BASE_: {base}: a circle")
        _check_bases(named, inside, (*above, file.resolve()))


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
        UserError: the folder holds no config, see `merge_file`, or there is no GPU for `cuda`.
    """
    file = model / "config.yaml"
    if not file.is_file():
        raise UserError(f"{file}: no such file: {model} is not a model written by the train stage")
    cfg = default_config()
    merge_file(cfg, file)
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
