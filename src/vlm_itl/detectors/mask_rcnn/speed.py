"""Mask R-CNN that computes the same faster on a CPU; bench/training.py and bench/prediction.py say what it brings. Not for GPUs.

NMS does not compare boxes of different pyramid levels, which it would keep apart anyway. The sampling points of an image's masks are
computed at once, so that for each mask only the sampling is left. For prediction weights and activations lie channels-last, which
oneDNN's convolutions like better. Not for training: with torch 2.11 the backward pass of narrow layers in that layout
gave gradients that were up to some per cent off, and once broke the heap.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import mask_ops
from detectron2.modeling.proposal_generator import proposal_utils
from torch.nn import functional as F
from torchvision.ops import nms


def faster(model: Any, training: bool) -> None:
    """Prepare a model on a CPU; on another device nothing changes."""
    if model.device.type == "cpu":
        proposal_utils.batched_nms = nms_by_level
        mask_ops.paste_masks_in_image = paste
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


def paste(masks: torch.Tensor, boxes: torch.Tensor, image_shape: tuple[int, int], threshold: float = 0.5) -> torch.Tensor:
    """Masks as large as the image (N x height x width, bool) of masks within their boxes (N x M x M, in [0, 1]; N x 4, pixels)."""
    height, width = image_shape
    result = torch.zeros(len(masks), height, width, dtype=torch.bool)
    if not len(masks):
        return result
    x0, y0, x1, y1 = boxes.split(1, 1)
    xs = (torch.arange(width) + 0.5 - x0) / (x1 - x0) * 2 - 1  # N x width: where in its box, from -1 to 1, a pixel's centre lies
    ys = (torch.arange(height) + 0.5 - y0) / (y1 - y0) * 2 - 1
    first, last = (boxes[:, :2].floor() - 1).clamp(min=0).int().tolist(), (boxes[:, 2:].ceil() + 1).int().tolist()
    for k, ((left, top), (right, bottom)) in enumerate(zip(first, last)):
        x, y = xs[k, left:right], ys[k, top:bottom]
        grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], 2)[None]
        torch.ge(F.grid_sample(masks[k][None, None], grid, align_corners=False)[0, 0], threshold, out=result[k, top:bottom, left:right])
    return result
