"""Grounded SAM 2: Grounding DINO finds boxes by a text, SAM 2 fills them with masks (Ren et al. 2024, "Grounded SAM")."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torchvision.ops import clip_boxes_to_image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, Sam2Model, Sam2Processor

from vlm_itl.core.pictures import Pixels
from vlm_itl.core.pretrained import identity
from vlm_itl.teachers.labelling import Model
from vlm_itl.teachers.pseudo_labels import FoundInstance, choose_device, load_model, load_processor, mixed_precision, suppress, without_nan

if TYPE_CHECKING:
    from vlm_itl.settings import GroundedSam2

DETECTOR, SEGMENTER = "autolabels: detector", "autolabels: segmenter"  # keys of params.yaml


class GroundedSam2Teacher(Model):
    """Boxes for one class after the other, suppression over all of them, then masks."""

    def __init__(self, settings: GroundedSam2, captions: list[str]) -> None:
        """Raises:
        UserError: a hub id without a revision, or `device: cuda` and there is none.
        """
        self.settings, self.captions = settings, [sentence(caption) for caption in captions]
        self.device = choose_device(settings)
        models = [
            identity(settings.detector, settings.detector_revision, DETECTOR),
            identity(settings.segmenter, settings.segmenter_revision, SEGMENTER),
        ]
        self.identity = {
            f"{name}{suffix}": model[key]
            for name, model in zip(("detector", "segmenter"), models)
            for key, suffix in (("model", ""), ("revision", "_revision"))
        }

    @functools.cached_property
    def detector(self) -> tuple[Any, Any]:
        """(processor, model)"""
        s = self.settings
        processor = load_processor(AutoProcessor, s.detector, s.detector_revision, DETECTOR)
        return processor, load_model(AutoModelForZeroShotObjectDetection, s.detector, s.detector_revision, self.device, DETECTOR)

    @functools.cached_property
    def segmenter(self) -> tuple[Any, Any]:
        """(processor, model), of SAM 2's image part: published folders hold its video model, whose weights contain it."""
        s = self.settings
        processor = load_processor(Sam2Processor, s.segmenter, s.segmenter_revision, SEGMENTER)
        return processor, load_model(Sam2Model, s.segmenter, s.segmenter_revision, self.device, SEGMENTER)

    @torch.inference_mode()
    def find(self, pictures: list[Pixels]) -> list[list[FoundInstance]]:
        """The instances in each picture; none is fine."""
        s = self.settings
        prepared = self.detector[0](images=pictures, return_tensors="pt").to(self.device)  # once for all classes
        sizes = [picture.shape[:2] for picture in pictures]
        by_class = [self.boxes(prepared, sizes, caption) for caption in self.captions]
        kept = []
        for answers in zip(*by_class):
            boxes, scores = (torch.cat(part) for part in zip(*answers))
            classes = torch.cat([torch.full((len(part),), k) for k, (part, _) in enumerate(answers)])
            stay = suppress(boxes, scores, s.nms_iou, s.max_detections)
            kept.append((boxes[stay], scores[stay].tolist(), classes[stay].tolist()))
        drawn = self.masks(pictures, [boxes for boxes, _, _ in kept])
        return [
            [FoundInstance(k, score, mask, fit) for k, score, mask, fit in zip(classes, scores, masks.numpy(), fits, strict=True)]
            for (_, scores, classes), (masks, fits) in zip(kept, drawn, strict=True)
        ]

    def boxes(self, prepared: Any, sizes: list[tuple[int, int]], caption: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each picture ([x0, y0, x1, y1] in pixels within it, shape (boxes, 4); scores, shape (boxes,)) of one class, on the CPU.

        Args:
            prepared: the processor's tensors of the pictures.
            sizes: (height, width) of each.
        """
        s, (processor, model) = self.settings, self.detector
        words = processor(text=[caption] * len(sizes), return_tensors="pt").to(self.device)
        with mixed_precision(s, self.device):
            outputs = model(**prepared, **words)
        for name in ("logits", "pred_boxes"):
            outputs[name] = without_nan(outputs[name], s.detector)
        answers = processor.post_process_grounded_object_detection(
            outputs, words["input_ids"], threshold=s.box_threshold, text_threshold=s.text_threshold, target_sizes=sizes
        )
        result = []
        for answer, size in zip(answers, sizes):
            texts = answer["text_labels"][: len(answer["scores"])]  # of no box there is one text, an empty one
            named = torch.tensor([self.is_word(text) for text in texts], dtype=torch.bool)
            result.append((clip_boxes_to_image(answer["boxes"].cpu()[named], size), answer["scores"].cpu()[named]))
        return result

    def is_word(self, text: str) -> bool:
        """Whether there is more in a text than special tokens and full stops, which can be likely too."""
        for token in self.detector[0].tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return any(character.isalnum() for character in text)

    def masks(self, pictures: list[Pixels], boxes: list[torch.Tensor]) -> list[tuple[torch.Tensor, list[float]]]:
        """For each picture (a mask a box, shape (boxes, height, width), bool; the model's estimates of their IoU), on the CPU.

        The pictures share one pass of the large image encoder. Boxes of several pictures cannot share one of the small mask decoder: the
        processor wants as many of each, and it knows no padding.
        """
        s, (processor, model) = self.settings, self.segmenter
        result = [(torch.zeros((0, *picture.shape[:2]), dtype=torch.bool), list[float]()) for picture in pictures]
        with_boxes = [k for k, some in enumerate(boxes) if len(some)]
        if not with_boxes:
            return result
        inputs = processor(images=[pictures[k] for k in with_boxes], return_tensors="pt").to(self.device)
        with mixed_precision(s, self.device):
            embeddings = model.get_image_embeddings(inputs["pixel_values"])
        for place, k in enumerate(with_boxes):
            size = inputs["original_sizes"][place : place + 1]
            prompt = processor(input_boxes=[boxes[k].tolist()], original_sizes=size, return_tensors="pt").to(self.device)
            with mixed_precision(s, self.device):
                outputs = model(
                    image_embeddings=[level[place : place + 1] for level in embeddings], input_boxes=prompt["input_boxes"],
                    multimask_output=False,
                )  # fmt: skip
            [masks] = processor.post_process_masks([without_nan(outputs.pred_masks[0], s.segmenter)], size)
            result[k] = (masks[:, 0].cpu(), outputs.iou_scores[0, :, 0].float().cpu().tolist())
        return result


def sentence(caption: str) -> str:
    """As Grounding DINO was taught: lower case, ending in a full stop."""
    return caption.lower().strip().rstrip(".") + "."
