"""The section `autolabels`: foundation models that draw the first proposals, or a file of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlm_itl.core.fields import Fraction, Model, Probability


class Teacher(Model):
    """What the foundation models that draw pseudo-labels have in common."""

    captions: dict[str, str] = Field(default_factory=dict)
    """What is looked for, by class. A class that is not here: its name."""
    nms_iou: Fraction = 0.8
    """IoU of boxes, whatever their classes, of which the likelier alone stays."""
    max_detections: Annotated[int, Field(ge=1)] = 100
    """Most masks an image, the likeliest."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """Images a forward pass; halved where the memory runs out."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it computes; `auto`: on a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the arithmetic (mixed precision). `auto`: bfloat16 on a GPU."""


class GroundedSam2(Teacher):
    """Grounding DINO finds boxes, one class a forward pass; SAM 2 turns them into masks. Hub ids (pin the revision) or folders."""

    kind: Literal["grounded-sam2"]
    detector: str = "IDEA-Research/grounding-dino-base"
    """A Grounding DINO or an MM Grounding DINO."""
    detector_revision: str | None = None
    """Commit of the hub's repository; pin it."""
    segmenter: str = "facebook/sam2.1-hiera-large"
    """A SAM 2."""
    segmenter_revision: str | None = None
    """Commit of the hub's repository; pin it."""
    box_threshold: Probability = 0.35
    """Score from which on a box counts: that of the likeliest of the caption's tokens."""
    text_threshold: Probability = 0.25
    """Score that at least one word of the caption has to reach."""


class Sam3(Teacher):
    """SAM 3, which finds masks by a noun phrase. A hub id (gated; pin the revision) or a folder."""

    kind: Literal["sam3"]
    model: str = "facebook/sam3"
    """A SAM 3: a hub id or a folder."""
    revision: str | None = None
    """Commit of the hub's repository; pin it."""
    score_threshold: Probability = 0.5
    """Score from which on a mask counts."""
    mask_threshold: Probability = 0.5
    """P(mask) from which on a pixel belongs to the mask."""


class Results(Model):
    """What another program has found: a file of COCO results below `data.root`, checked like data."""

    kind: Literal["results"]
    file: str
    """The COCO results JSON, relative to `data.root`: a list of rows, each of a mask."""
    images: str | None = None
    """A COCO JSON, relative to `data.root`, whose `images` and `categories` the rows' ids mean. null: see docs/guides/own-data.md."""
    score_threshold: Probability = 0
    """Score from which on a mask counts."""
    max_detections: Annotated[int, Field(ge=1)] = 100
    """Most masks an image, the likeliest."""


AutoLabel = Annotated[GroundedSam2 | Sam3 | Results, Field(discriminator="kind")]
