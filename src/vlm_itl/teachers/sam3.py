"""SAM 3: masks of all instances of a noun phrase (Carion et al. 2025, "SAM 3: Segment Anything with Concepts")."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from transformers import Sam3Model, Sam3Processor

from vlm_itl.core.pictures import Pixels
from vlm_itl.core.pretrained import identity
from vlm_itl.teachers.labelling import Model
from vlm_itl.teachers.pseudo_labels import FoundInstance, choose_device, load_model, load_processor, mixed_precision, suppress, without_nan

if TYPE_CHECKING:
    from vlm_itl.settings import Sam3

MODEL = "autolabels: model"  # key of params.yaml


class Sam3Teacher(Model):
    """One class after the other on one encoding of the picture, then suppression over all of them."""

    def __init__(self, settings: Sam3, captions: list[str]) -> None:
        """Raises:
        UserError: a hub id without a revision, or `device: cuda` and there is none.
        """
        self.settings, self.captions = settings, captions
        self.device = choose_device(settings)
        self.identity = identity(settings.model, settings.revision, MODEL)

    @functools.cached_property
    def loaded(self) -> tuple[Any, Any]:
        """(processor, model), of SAM 3's image part: the published weights hold the video model, too."""
        s = self.settings
        processor = load_processor(Sam3Processor, s.model, s.revision, MODEL)
        return processor, load_model(Sam3Model, s.model, s.revision, self.device, MODEL)

    @torch.inference_mode()
    def find(self, pictures: list[Pixels]) -> list[list[FoundInstance]]:
        """The instances in each picture; none is fine."""
        s, (processor, model) = self.settings, self.loaded
        sizes = [picture.shape[:2] for picture in pictures]
        encoded = processor(images=pictures, return_tensors="pt").to(self.device)
        with mixed_precision(s, self.device):
            vision = model.get_vision_features(encoded["pixel_values"])
        by_class = []
        for caption in self.captions:
            text = processor(text=[caption] * len(pictures), return_tensors="pt").to(self.device)
            with mixed_precision(s, self.device):
                outputs = model(vision_embeds=vision, input_ids=text["input_ids"], attention_mask=text["attention_mask"])
            for name in ("pred_logits", "pred_boxes", "pred_masks", "presence_logits"):
                outputs[name] = without_nan(outputs[name], s.model)
            by_class.append(processor.post_process_instance_segmentation(
                outputs, threshold=s.score_threshold, mask_threshold=s.mask_threshold, target_sizes=sizes
            ))  # fmt: skip
        result = []
        for answers in zip(*by_class):
            boxes, scores = (torch.cat([answer[name].cpu() for answer in answers]) for name in ("boxes", "scores"))
            origin = [(k, place) for k, answer in enumerate(answers) for place in range(len(answer["scores"]))]
            stay = suppress(boxes, scores, s.nms_iou, s.max_detections)
            result.append([
                FoundInstance(k, float(scores[index]), answers[k]["masks"][place].bool().cpu().numpy())
                for index in stay.tolist() for k, place in [origin[index]]
            ])  # fmt: skip
        return result
