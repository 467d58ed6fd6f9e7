"""Where a detector's first weights come from, and whether they were made for what its config says.

A file of weights is data: arrays are read, and anything else that a pickle may name is refused, so that no code in it runs.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import pickle
import zipfile
from collections import OrderedDict
from functools import reduce
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import HTTPURLHandler, OneDrivePathHandler, file_lock, get_cache_dir
from safetensors.torch import load_file

from vlm_itl.core.errors import UserError
from vlm_itl.core.redact import say
from vlm_itl.data.fetch import download
from vlm_itl.detectors.mask_rcnn.config import default_config, merge_file
from vlm_itl.detectors.mask_rcnn.shipped import drawn_weights

if TYPE_CHECKING:
    from vlm_itl.settings import Detector

# Detectron2's names; its checkpointer downloads them on first use
IMAGENET = {50: "detectron2://ImageNetPretrained/MSRA/R-50.pkl", 101: "detectron2://ImageNetPretrained/MSRA/R-101.pkl"}
COCO = {
    50: "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    101: "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml",
}
COCO_URLS = "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation/mask_rcnn_R_"

ZOO = "https://dl.fbaipublicfiles.com/"
MOST_BYTES = 4 * 2**30  # of a file that is fetched; the model zoo's largest have about 1 GiB
TIMEOUT, DEADLINE = 30.0, 3600.0  # seconds to connect and without a byte, and for the whole file

# What a backbone was trained on, as keys of a config. torchvision: RGB in [0, 1], normalised, a bottleneck's stride in its 3 x 3.
TORCHVISION = {
    "INPUT.FORMAT": "RGB", "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53], "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
}  # fmt: skip
# Caffe's (MSRA's), on which Detectron2's R-50 and R-101 rest: BGR in [0, 255] less the mean, the stride in the first 1 x 1
CAFFE = {
    "INPUT.FORMAT": "BGR", "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675], "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
}  # fmt: skip


class Http(HTTPURLHandler):
    """How Detectron2's files come from servers: iopath's own handler has no limit in size or time."""

    def _get_local_path(self, path: str, force: bool = False, cache_dir: str | None = None, **more: Any) -> str:
        """The file of a URL in iopath's cache ($FVCORE_CACHE, or ~/.torch/iopath_cache), fetched if it is not there.

        The model zoo's have iopath's names. Others lie by the hash of the whole URL: no server's file is taken for another's.

        Raises:
            OSError: see `download`.
        """
        self._check_kwargs(more)
        name, folder = PurePosixPath(urlsplit(path).path), Path(get_cache_dir(cache_dir))
        if path.startswith(ZOO) and ".." not in name.parts:
            file = folder / name.relative_to("/")
        else:
            file = folder / hashlib.sha256(path.encode()).hexdigest() / (name.name or "file")
        file.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(str(file)):  # several processes load at a time
            if force or not file.is_file():
                download(path, file, MOST_BYTES, TIMEOUT, DEADLINE)
        return str(file)


class OneDrive(OneDrivePathHandler, Http):
    """iopath's, whose files `Http` fetches."""


for handler in (Http(), OneDrive()):
    PathManager.register_handler(handler, allow_override=True)


def initial_weights(settings: Detector, cfg: CfgNode) -> str:
    """The file or URL that `detector.init` stands for; "" for `scratch`.

    Raises:
        UserError: the model zoo has no such weights for this backbone.
    """
    if settings.init == "scratch":
        return ""
    if settings.weights:
        return settings.weights
    if settings.init == "drawn":
        return drawn_weights(settings.config)
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

    url: str = model_zoo.get_checkpoint_url(COCO[depth])
    return url


def load_weights(model: torch.nn.Module, source: str) -> None:
    """Load a checkpoint into `model`; layers of another shape (the class heads) keep their values, as in Detectron2.

    Args:
        source: a file (see `read_weights`) of a Detectron2 model or a torchvision ResNet, or a URL or model-zoo name for Detectron2.

    Raises:
        UserError: it cannot be found, fetched or read, it was made for other pixels or layers than the model's, or no layer fits.
    """
    if not source:
        return
    if "://" not in source and not Path(source).is_file():
        raise UserError(f"{source}: no such weights file (params.yaml: detector.init, detector.weights)")
    try:
        file = Path(PathManager.get_local_path(source) if "://" in source else source)
        checkpoint = read_weights(file)
        _compare(source, made_for(source, file, checkpoint), built_for(model))
        if _of_torchvision(checkpoint):
            return _load_torchvision(model, checkpoint["model"], source)
        incompatible = DetectionCheckpointer(model)._load_model(checkpoint)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{source}: these weights could not be fetched or read ({' '.join(str(error).split())[:200]}); without a network, download "
            "them elsewhere and set detector.weights to the file"
        ) from None
    # the count is no weight, and torch fills it in
    own = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    fresh = [name for name in own if name in incompatible.missing_keys]
    if len(fresh) == len(own):
        raise UserError(f"{source}: no layer of it fits the model of detector.config")
    for names, what in ((fresh, "of the model begin untrained"), (incompatible.unexpected_keys, "of the file are not used")):
        if names:
            say(f"{source}: {len(names)} layers {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")


# what a pickle of arrays names, by numpy's present module names
PICKLED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict, ("_codecs", "encode"): codecs.encode,
    ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
    ("numpy._core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("numpy._core.multiarray", "scalar"): np.float32(0).__reduce__()[0],
    ("numpy._core.numeric", "_frombuffer"): np.zeros(0).__reduce_ex__(5)[0],
}  # fmt: skip


class Arrays(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers; anything else that a pickle names is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        """Raises:
        UnpicklingError: it is none of those.
        """
        known = PICKLED.get((module.replace("numpy.core.", "numpy._core."), name))
        if known is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array and was not run")
        return known


def read_weights(file: Path) -> dict[str, Any]:
    """A checkpoint as Detectron2's checkpointer takes it: `model`, which is names to arrays, and `__author__`, `matching_heuristics`.

    Args:
        file: .safetensors, a file of `torch.save`, or a plain pickle of numpy arrays (the model zoo's .pkl).

    Raises:
        ValueError: it is none of those, is damaged, or names anything but arrays.
    """
    try:
        loaded = _parse(file)
    except OSError:
        raise
    except Exception as error:  # there is no end to what a damaged file can raise
        raise ValueError(str(error) or type(error).__name__) from None
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}, not weights by name")
    if "blobs" in loaded or "conv1_w" in loaded:  # Caffe2's, of Detectron or ImageNet
        weights = {name: value for name, value in loaded.get("blobs", loaded).items() if not str(name).endswith("_momentum")}
        return {"model": _arrays(weights), "__author__": "Caffe2", "matching_heuristics": True}
    if "model_state" in loaded:  # pycls
        weights = {name: value for name, value in loaded["model_state"].items() if not str(name).endswith("num_batches_tracked")}
        return {"model": _arrays(weights), "__author__": "pycls", "matching_heuristics": True}
    kept = {key: loaded[key] for key in ("__author__", "matching_heuristics") if key in loaded}
    return {"model": _arrays(loaded.get("model", loaded)), **kept}


def _parse(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            loaded = Arrays(stream, encoding="latin1").load()
        if loaded != torch.serialization.MAGIC_NUMBER:  # which torch.save put first before version 1.6
            return loaded
    return torch.load(file, map_location="cpu", weights_only=True)


def _arrays(weights: Any) -> dict[str, Any]:
    """Those of the values that are arrays.

    Raises:
        ValueError: there are none, or one holds what is no number: a training would end at its first step and blame its learning rate.
    """
    found = {n: v for n, v in weights.items() if isinstance(v, np.ndarray | torch.Tensor)} if isinstance(weights, dict) else {}
    if not found:
        raise ValueError("it holds no weights by name")
    for name, value in found.items():
        if isinstance(value, torch.Tensor):
            finite = not value.is_floating_point() or bool(value.float().isfinite().all())
        else:
            finite = value.dtype.kind != "f" or bool(np.isfinite(value).all())
        if not finite:
            raise ValueError(f"{name} holds NaN or infinity")
    return found


def _of_torchvision(checkpoint: dict[str, Any]) -> bool:
    return "layer1.0.conv1.weight" in checkpoint["model"]


def made_for(source: str, file: Path, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Keys of a config to the values with which the weights were trained, as far as that is certain.

    From the config beside a trained model or of the weights' own name, the names of the weights, or the address in the model zoo.
    """
    weights, author = checkpoint["model"], checkpoint.get("__author__")
    if _of_torchvision(checkpoint) or author == "torchvision":
        return TORCHVISION
    if source.startswith(COCO_URLS):
        return CAFFE
    if author == "Caffe2":
        # group normalisation and grouped convolutions (ResNeXt) are not MSRA's: their scale and stride differ
        block = weights.get("res2_0_branch2b_w", np.zeros((1, 1)))
        of_msra = not any(name.endswith("_gn_s") for name in weights) and block.shape[0] == block.shape[1]
        return CAFFE if of_msra else {key: CAFFE[key] for key in ("INPUT.FORMAT", "MODEL.PIXEL_MEAN")}
    for config in (file.with_name("config.yaml"), file.with_suffix(".yaml")):
        if config.is_file():
            trained = default_config()
            try:
                merge_file(trained, config)
            except UserError:  # somebody else's
                return {}
            return {key: reduce(getattr, key.split("."), trained) for key in CAFFE}
    return {}


def built_for(model: Any) -> dict[str, Any]:
    """The same keys, of a model; no stride where there is no bottleneck."""
    built = {
        "INPUT.FORMAT": model.input_format,
        "MODEL.PIXEL_MEAN": [round(x, 3) for x in model.pixel_mean.flatten().tolist()],
        "MODEL.PIXEL_STD": [round(x, 3) for x in model.pixel_std.flatten().tolist()],
    }
    for module in model.modules():
        if isinstance(module, BottleneckBlock) and module.stride > 1:
            built["MODEL.RESNETS.STRIDE_IN_1X1"] = module.conv1.stride[0] > 1
    return built


def _compare(source: str, wanted: dict[str, Any], built: dict[str, Any]) -> None:
    """Raises:
    UserError: the weights were trained on pixels or layers that the model has otherwise.
    """

    def same(a: Any, b: Any) -> bool:  # published means differ in their decimals
        return bool(np.allclose(a, b, rtol=0, atol=1) if isinstance(a, list) else a == b)

    wrong = {key: value for key, value in wanted.items() if key in built and not same(value, built[key])}
    if wrong:
        given = {key: built[key] for key in wrong}
        raise UserError(
            f"{source}: these weights were not trained with {json.dumps(given)}, as detector.config has it; they need "
            f"detector.options: {json.dumps(wrong)}"
        )


def _load_torchvision(model: torch.nn.Module, state: dict[str, Any], source: str) -> None:
    """Load a torchvision ResNet as the backbone below an FPN.

    Renaming as in Detectron2's tools/convert-torchvision-to-d2.py: layerN -> res(N+1), downsample -> shortcut, bnN -> convN.norm.

    Raises:
        UserError: the backbone has other layers.
    """
    below, renamed = "backbone.bottom_up.", {}
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
        renamed[below + name] = torch.as_tensor(value)
    own = {name for name in model.state_dict() if name.startswith(below) and not name.endswith("num_batches_tracked")}
    other = sorted(own ^ set(renamed))
    if other:
        raise UserError(
            f"{source}: a torchvision ResNet of other layers than the backbone of detector.config ({len(other)} differ, as "
            f"{other[0].removeprefix(below)}): see MODEL.RESNETS.DEPTH and NORM"
        )
    model.load_state_dict(renamed, strict=False)
