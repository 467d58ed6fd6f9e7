"""Mask R-CNN that computes the same faster on a CPU; bench/training.py and bench/prediction.py say what it brings. Not for GPUs.

NMS does not compare boxes of different pyramid levels, which it would keep apart anyway. For prediction weights and activations lie
channels-last, which oneDNN's convolutions like better. Not for training: with torch 2.11 the backward pass of narrow layers in that layout
gave gradients that were up to some per cent off, and once broke the heap.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.proposal_generator import proposal_utils
from torchvision.ops import nms


def faster(model: Any, training: bool) -> None:
    """Prepare a model on a CPU; on another device nothing changes."""
    if model.device.type == "cpu":
        proposal_utils.batched_nms = nms_by_level
        if not training:
            model.to(memory_format=torch.channels_last)


def nms_by_level(boxes: torch.Tensor, scores: torch.Tensor, levels: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices, by falling score, of the boxes (N x 4) that NMS within their own level (N) keeps."""
    kept = [levels.new_zeros(0)]
    for level in levels.unique():
        of = (levels == level).nonzero().squeeze(1)
        kept.append(of[nms(boxes[of].float(), scores[of], iou_threshold)])
    keep = torch.cat(kept)
    return keep[scores[keep].argsort(descending=True, stable=True)]
