"""What teachers share: an instance that one found, suppression of doubles, and how a model comes onto its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torchvision.ops import nms

from vlm_itl.core.errors import UserError
from vlm_itl.core.pretrained import loading

if TYPE_CHECKING:
    from vlm_itl.settings import Teacher


@dataclass(frozen=True)
class FoundInstance:
    """An instance that a teacher found in a picture, before it is a row of COCO results."""

    index: int  # of the class
    score: float  # of the class, 0 to 1
    mask: NDArray[np.bool_]  # height x width, as the picture
    mask_score: float | None = None  # SAM 2's own estimate of the mask's IoU with the true one


def suppress(boxes: torch.Tensor, scores: torch.Tensor, iou: float, most: int) -> torch.Tensor:
    """Indices of at most `most` boxes that stay, by falling score.

    Greedy non-maximum suppression over all classes at once: each class is asked about alone, so one object may answer to several, and the
    class with the highest score gets it.

    Args:
        boxes: [x0, y0, x1, y1] in pixels, shape (boxes, 4).
        scores: shape (boxes,).
        iou: a box goes that overlaps a likelier one by more.
    """
    kept: torch.Tensor = nms(boxes, scores, iou)[:most]
    return kept


def choose_device(settings: Teacher) -> str:
    """`cuda` or `cpu`.

    Raises:
        UserError: `device: cuda`, and there is none.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("params.yaml: autolabels: device: cuda, but torch sees no GPU; use auto or cpu")
    return "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"


def mixed_precision(settings: Teacher, device: str) -> torch.autocast:
    """Mixed precision of the forward passes: weights stay as they are stored, products are of `dtype`."""
    low = device == "cuda" if settings.dtype == "auto" else settings.dtype == "bfloat16"
    return torch.autocast(device, torch.bfloat16, enabled=low)


def without_nan(values: torch.Tensor, model: str) -> torch.Tensor:
    """`values` in float32.

    Raises:
        UserError: they are no numbers, and would pass for a picture without instances.
    """
    if values.isnan().any():
        raise UserError(f"params.yaml: autolabels: {model} gives NaN; try dtype: float32")
    return values.float()


def load_processor(kind: Any, model: str, revision: str | None, key: str) -> Any:
    """What turns pictures and texts into a model's tensors; see `load_model`."""
    with loading(model, key):
        return kind.from_pretrained(model, revision=revision, trust_remote_code=False)


def load_model(kind: Any, model: str, revision: str | None, device: str, key: str) -> Any:
    """A model in evaluation mode, in float32, on `device`.

    Args:
        kind: class with `from_pretrained`.
        key: of params.yaml, for the message.

    Raises:
        UserError: it cannot be had, its weights are another model's, or it does not fit into the memory.
    """
    with loading(model, key):
        loaded, info = kind.from_pretrained(
            model, revision=revision, dtype=torch.float32, output_loading_info=True, trust_remote_code=False, use_safetensors=True
        )
    if 2 * len(info["missing_keys"]) > len(loaded.state_dict()):  # transformers would begin with random ones and only warn
        raise UserError(f"params.yaml: {key}: {model} has no weights of a {type(loaded).__name__}; is it another model's folder?")
    try:
        return loaded.to(device).eval()
    except torch.OutOfMemoryError:
        raise UserError(f"params.yaml: {key}: {model} does not fit into the memory of the {device} device; take a smaller model") from None


transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
