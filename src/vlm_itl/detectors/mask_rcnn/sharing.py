"""What makes a batch that several processes share one batch: batch normalisation, padding and gradients over all of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.structures import ImageList
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from vlm_itl.detectors.mask_rcnn.processes import largest, total, world


def share(model: Any) -> None:
    """Prepare a model for training on shares; in a single process nothing changes.

    All processes begin with the first one's weights. Names in the state dict stay, so that the result loads into an ordinary model.
    """
    if world() == 1:
        return
    for value in model.state_dict().values():
        dist.broadcast(value, 0)
    for module in model.modules():
        if type(module) is torch.nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
    preprocess = model.preprocess_image

    def padded(inputs: list[dict[str, Any]]) -> ImageList:
        """As without, to the size of the whole batch: anchors and normalisation reach into the padding."""
        images = preprocess(inputs)
        if not model.training:
            return images
        height, width = images.tensor.shape[-2:]
        most = largest(torch.tensor([height, width])).tolist()
        return ImageList(F.pad(images.tensor, (0, most[1] - width, 0, most[0] - height)), images.image_sizes)

    model.preprocess_image = padded


class SharedBatchNorm(torch.nn.BatchNorm2d):
    """Batch normalisation in training by the statistics of all processes' inputs, of which each may have any number.

    Detectron2's NaiveSyncBatchNorm counts each process alike and keeps the biased variance; torch's SyncBatchNorm needs a GPU.
    """

    counts = True  # whether this process's input is part of the batch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x C x H x W to the same."""
        if not self.training:
            return super().forward(x)
        y = x.float()
        sums = [value.sum((0, 2, 3), dtype=torch.float64) for value in (y, y.square())]  # the difference of large sums is small
        own = torch.cat([*sums, sums[0].new_tensor([y.numel() // self.num_features])])
        mean, square, number = all_reduce(own * float(self.counts)).split([self.num_features, self.num_features, 1])
        number = number.detach().clamp(min=1)
        mean = mean / number
        variance = (square / number - mean.square()).clamp(min=0).float()
        mean = mean.float()
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_((variance * number / (number - 1).clamp(min=1)).float(), momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (y * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, all in one message."""
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    mean = total(torch.cat([g.flatten() for g in gradients])) / world()
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients])):
        gradient.copy_(part.view(gradient.shape))
