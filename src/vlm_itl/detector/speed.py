"""Two pieces of Mask R-CNN that compute the same faster on a CPU; bench/training.py says what it brings.

torchvision's RoIAlign goes backwards on one core, and its NMS compares boxes of different pyramid levels that it then keeps apart. Not for
GPUs, where neither matters.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torchvision
from detectron2.layers import ROIAlign
from detectron2.modeling.proposal_generator import proposal_utils
from torchvision.ops import nms

Tensor = torch.Tensor
_threads = ThreadPoolExecutor(torch.get_num_threads())  # torch's operators leave Python's lock while they compute


def faster(model: Any) -> None:
    """Exchange both in a model on a CPU; on another device nothing changes."""
    if model.device.type != "cpu":
        return
    for pooler in (model.roi_heads.box_pooler, getattr(model.roi_heads, "mask_pooler", None)):
        if pooler is not None:
            pooler.level_poolers = torch.nn.ModuleList(
                ThreadedROIAlign(p.output_size, p.spatial_scale, p.sampling_ratio, p.aligned) for p in pooler.level_poolers
            )
    proposal_utils.batched_nms = nms_by_level


class ThreadedROIAlign(ROIAlign):
    """Detectron2's ROIAlign, whose backward pass shares the images among threads."""

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        return _Align.apply(input, rois.to(input.dtype), self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)  # type: ignore[no-any-return]


class _Align(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool) -> Tensor:
        ctx.save_for_backward(rois)
        ctx.shape, ctx.size, ctx.scale, ctx.ratio, ctx.aligned = features.shape, size, scale, ratio, aligned
        return torchvision.ops.roi_align(features, rois, size, scale, ratio, aligned)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (rois,) = ctx.saved_tensors
        images, channels, height, width = ctx.shape

        def part(first: int, last: int) -> Tensor:
            mine = (rois[:, 0] >= first) & (rois[:, 0] < last)
            moved = rois[mine] - torch.tensor([first, 0, 0, 0, 0], dtype=rois.dtype)
            return torch.ops.torchvision._roi_align_backward(  # type: ignore[no-any-return]
                gradient[mine], moved, ctx.scale, *ctx.size, last - first, channels, height, width, ctx.ratio, ctx.aligned
            )

        workers = min(torch.get_num_threads(), images)
        bounds = [images * k // workers for k in range(workers + 1)]
        return torch.cat(list(_threads.map(part, bounds[:-1], bounds[1:]))), None, None, None, None, None


def nms_by_level(boxes: Tensor, scores: Tensor, levels: Tensor, iou_threshold: float) -> Tensor:
    """Indices, by falling score, of the boxes (N x 4) that NMS within their own level (N) keeps."""
    kept = []
    for level in levels.unique():
        of = (levels == level).nonzero().squeeze(1)
        kept.append(of[nms(boxes[of].float(), scores[of], iou_threshold)])
    keep = torch.cat(kept) if kept else levels
    return keep[scores[keep].argsort(descending=True, stable=True)]
