"""The sections `detector`, `pretrain`, `train` and `predict`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vlm_itl.core.fields import KindOf, Model, Probability, Steps
from vlm_itl.registry import DETECTORS


class Detector(Model):
    kind: Annotated[str, KindOf(DETECTORS)] = "mask_rcnn"
    """`mask_rcnn`: Detectron2's. `blobs`: patches of a class's colours, in seconds. It finds little, has no other key, and is to try the
    graph out."""
    config: str
    """A Detectron2 YAML file."""
    init: Literal["scratch", "drawn", "imagenet", "coco"] = "scratch"
    """The first weights. `drawn`: the `.safetensors` beside the config, learned on drawn pictures of other things (docs/model-card.md)."""
    weights: str | None = None
    """A file or URL that takes the place of those for `drawn`, `imagenet` and `coco`. DVC watches its name, not its content."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it computes; `auto`: on a GPU if there is one."""
    processes: Annotated[int, Field(ge=1)] = 1
    """Processes that share each batch in equal parts, on `cuda` one a GPU. The batch stays the whole one. Each normalises its losses,
    and under `NORM: BN` its activations, over its own part; the mean of their gradients makes the step (docs/architecture.md, Training)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Detectron2 keys over the YAML's, such as `SOLVER.BASE_LR: 0.01`."""


class EarlyStopping(Model):
    """End a training when mask AP on the validation images no longer grows; the weights of the highest AP are the model."""

    every: Annotated[int, Field(ge=1)]
    """Optimiser steps between evaluations; the last step is always evaluated."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Evaluations in a row without a gain, counted from the end of the warm-up."""
    min_gain: Annotated[float, Field(ge=0)] = 0.002
    """Gain of mask AP over the best so far that counts as one."""


class ModelLabels(Model):
    """How much a detector believes labels that a model made. By default as much as a human's."""

    min_score: Probability = 0.0
    """Score of an annotation from which on it is learned from. An image that loses one this way is incomplete."""
    background: bool = True
    """Whether what is unlabelled in an incomplete image is learned as background. false: nothing in it is."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the loss on images that a model labelled."""
    mask_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the mask loss of their instances, apart from class and box."""


class Training(Model):
    """How long and how a detector trains. `schedule` says which of epochs, steps, images and growth count; others may stand there."""

    schedule: Literal["fixed_epochs", "fixed_steps", "adaptive"] = "fixed_epochs"
    """Which of the next four keys count; the others may stand there."""
    epochs: Annotated[float, Field(gt=0, le=10**6)] | None = None
    """`fixed_epochs`: passes over the labelled images."""
    steps: Steps | None = None
    """`fixed_steps`: optimiser steps. `adaptive`: those for `images` labelled images."""
    images: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """`adaptive`: the number of labelled images that `steps` is for."""
    growth: Annotated[float, Field(ge=0, le=1)] = 0.5
    """`adaptive`: 0 is `fixed_steps`, 1 is `fixed_epochs`."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of the optimiser. null: `SOLVER.BASE_LR` of the Detectron2 YAML."""
    start: Literal["continue", "restart"] = "continue"
    """A run's first weights: the previous run's, or `detector.init` again."""
    early_stopping: EarlyStopping | None = None
    """Ends a training when mask AP on the validation images no longer grows. null: every step is taken."""
    model_labels: ModelLabels = Field(default_factory=ModelLabels)
    """How much a detector believes labels that a model made."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Training:
        for name in {"fixed_epochs": ["epochs"], "fixed_steps": ["steps"], "adaptive": ["steps", "images"]}[self.schedule]:
            if getattr(self, name) is None:
                raise ValueError(f"schedule {self.schedule} needs '{name}'")
        return self


class Predict(Model):
    score_threshold: Probability = 0.5
    """Score from which on a mask is shown to the judge and told to it."""
    test_score_threshold: Probability = 0.05
    """Score from which on a mask counts for AP."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images a forward pass."""
    max_detections: Annotated[int, Field(ge=1)] = 100
    """Most masks an image."""
