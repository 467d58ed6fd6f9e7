"""Mask R-CNN that computes the same faster on a CPU; bench/training.py says what it brings. Not for GPUs.

Weights and activations lie channels-last, which oneDNN's convolutions like better, and NMS does not compare boxes of different pyramid
levels, which it would keep apart anyway. Both change a loss by rounding only; where two scores are that close, another proposal may be
drawn.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.proposal_generator import proposal_utils
from torchvision.ops import nms


def faster(model: Any) -> None:
    """Prepare a model on a CPU; on another device nothing changes."""
    if model.device.type == "cpu":
        model.to(memory_format=torch.channels_last)
        proposal_utils.batched_nms = nms_by_level


def nms_by_level(boxes: torch.Tensor, scores: torch.Tensor, levels: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices, by falling score, of the boxes (N x 4) that NMS within their own level (N) keeps."""
    kept = [levels.new_zeros(0)]
    for level in levels.unique():
        of = (levels == level).nonzero().squeeze(1)
        kept.append(of[nms(boxes[of].float(), scores[of], iou_threshold)])
    keep = torch.cat(kept)
    return keep[scores[keep].argsort(descending=True, stable=True)]
