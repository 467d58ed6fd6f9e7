"""How much the detector believes labels that a model made: what it learns from, as what, and how strongly."""

from __future__ import annotations

from typing import Any

import torch

from ..coco import Coco
from ..settings import ModelLabels


def believed(labels: Coco, settings: ModelLabels) -> Coco:
    """The labels without a model's annotations below `min_score`; an image that loses one is marked `incomplete`."""
    doubted = {a["image_id"] for a in labels["annotations"] if a.get("source") == "model" and a["score"] < settings.min_score}
    return {
        **labels,
        "images": [{**i, "incomplete": True} if i["id"] in doubted else i for i in labels["images"]],
        "annotations": [a for a in labels["annotations"] if a.get("source") != "model" or a["score"] >= settings.min_score],
    }


class Losses:
    """The model's training losses of a batch, as `ModelLabels` wants them. With its defaults they are Detectron2's own.

    In an incomplete image under `background: false` no anchor and no proposal is a negative example: those are left out of the loss, not
    counted as anything. Under a `weight` other than 1 the images that a model labelled and the others pass through the model one after the
    other and count by their number, as labelled and unlabelled images do in Unbiased Teacher (Liu et al. 2021); batch normalisation then
    sees them apart.
    """

    def __init__(self, model: Any, settings: ModelLabels) -> None:
        self.model, self.settings = model, settings
        self._background: list[bool] = []  # of the images in the model at the moment
        rpn, heads = model.proposal_generator, model.roi_heads
        label_anchors, label_proposals = rpn.label_and_sample_anchors, heads.label_and_sample_proposals

        def anchors(*arguments: Any) -> Any:
            labels, boxes = label_anchors(*arguments)
            for label, background in zip(labels, self._background, strict=True):
                if not background:
                    label[label == 0] = -1
            return labels, boxes

        def proposals(*arguments: Any) -> Any:
            sampled = label_proposals(*arguments)
            return [p if bg else p[p.gt_classes < heads.num_classes] for p, bg in zip(sampled, self._background, strict=True)]

        if not settings.background:
            rpn.label_and_sample_anchors, heads.label_and_sample_proposals = anchors, proposals

    def __call__(self, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if self.settings.weight == 1.0:
            return self._of(inputs)
        total: dict[str, torch.Tensor] = {}
        for by_model, factor in ((False, 1.0), (True, self.settings.weight)):
            part = [x for x in inputs if x["by_model"] == by_model]
            if part:
                for name, value in self._of(part).items():
                    total[name] = total.get(name, 0.0) + value * (factor * len(part) / len(inputs))
        return total

    def _of(self, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self._background = [not x["incomplete"] for x in inputs]
        return self.model(inputs)  # type: ignore[no-any-return]
