"""The losses of a batch, where the detector may believe labels that a model made less than a human's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import Instances

from vlm_itl.detectors.mask_rcnn.batches import Sample, derived_seed

if TYPE_CHECKING:
    from vlm_itl.settings import ModelLabels


class Losses(torch.nn.Module):
    """The model's training losses of a batch, as `ModelLabels` wants them. With its defaults they are Detectron2's own.

    The anchors and proposals of an image are sampled by a generator seeded with (seed, place). Where several processes share the batch,
    each computes the losses of its part alone. It is a module around the model, so that a step is one forward pass of
    DistributedDataParallel, however often the model is called in it.

    In an incomplete image under `background: false` no anchor and no proposal is a negative example: those are left out of the loss, not
    counted as anything. Under a `weight` other than 1 the images that a model labelled and the others pass through the model one after the
    other and count by their number, as labelled and unlabelled images do in Unbiased Teacher (Liu et al. 2021); batch normalisation then
    sees them apart.

    Under a `mask_weight` other than 1 the mask loss is sum(w l) / n over the n foreground regions, l being a region's own loss and w the
    weight where a model made its instance, else 1. At 0 a model's instance teaches class and box alone.
    """

    model: Any

    def __init__(self, model: Any, settings: ModelLabels, seed: int = 0) -> None:
        super().__init__()
        self.model, self.settings, self.seed = model, settings, seed
        self._inputs: list[Sample] = []  # in the model at the moment
        self._turn: Iterator[Sample] = iter(())  # Detectron2 samples one image after the other
        rpn, heads = model.proposal_generator, model.roi_heads
        label_anchors, label_proposals = rpn.label_and_sample_anchors, heads.label_and_sample_proposals

        def anchors(*arguments: Any) -> tuple[list[Any], list[Any]]:
            self._turn = iter(self._inputs)
            labels, boxes = label_anchors(*arguments)
            for sample, label in zip(self._inputs, labels, strict=True):
                if not self._background(sample):
                    label[label == 0] = -1
            return labels, boxes

        def proposals(*arguments: Any) -> list[Any]:
            self._turn = iter(self._inputs)
            return [
                chosen if self._background(sample) else chosen[chosen.gt_classes < heads.num_classes]
                for sample, chosen in zip(self._inputs, label_proposals(*arguments), strict=True)
            ]

        rpn.label_and_sample_anchors, heads.label_and_sample_proposals = anchors, proposals
        if settings.mask_weight != 1.0:
            heads.mask_head.forward = self._mask_loss(heads.mask_head)
        rpn._subsample_labels = self._seeded("anchors", rpn._subsample_labels)
        heads._sample_proposals = self._seeded("proposals", heads._sample_proposals)

    def _seeded(self, what: str, sample: Callable[..., Any]) -> Callable[..., Any]:
        def draw(*arguments: Any) -> Any:
            number = derived_seed(self.seed, what, next(self._turn)["place"])
            torch.default_generator.manual_seed(number)  # torch.manual_seed takes a hundred times as long
            if torch.cuda.is_initialized():
                torch.cuda.manual_seed(number)
            return sample(*arguments)

        return draw

    def _mask_loss(self, head: Any) -> Callable[..., Any]:
        forward = head.forward

        def weighted(features: torch.Tensor, regions: list[Instances]) -> Any:
            if not head.training:
                return forward(features, regions)
            logits = head.layers(features)
            of_model = torch.cat([r.gt_by_model if len(r) else torch.zeros(0, dtype=torch.bool) for r in regions]).to(logits.device)
            loss = logits.sum() * 0
            for made, weight in ((False, 1.0), (True, self.settings.mask_weight)):
                part = of_model == made
                if part.any():
                    chosen = [r[r.gt_by_model == made] for r in regions if len(r)]
                    loss = loss + mask_rcnn_loss(logits[part], chosen) * (weight * part.sum() / len(part))
            return {"loss_mask": loss * head.loss_weight}

        return weighted

    def _background(self, sample: Sample) -> bool:
        return self.settings.background or not sample["incomplete"]

    def forward(self, inputs: list[Sample]) -> dict[str, torch.Tensor]:
        if self.settings.weight == 1.0:
            return self._of(inputs)
        losses: dict[str, torch.Tensor] = {}
        for by_model, factor in ((False, 1.0), (True, self.settings.weight)):
            part = [x for x in inputs if x["by_model"] == by_model]
            if part:
                for name, value in self._of(part).items():
                    losses[name] = losses.get(name, 0.0) + value * (factor * (len(part) / len(inputs)))
        return losses

    def _of(self, inputs: list[Sample]) -> dict[str, torch.Tensor]:
        """The losses of images that pass through the model together."""
        self._inputs = inputs
        return self.model(inputs)  # type: ignore[no-any-return]
