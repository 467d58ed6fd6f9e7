"""`params.yaml` as types: what may stand there, what it means, and one-line errors that name the key.

The file is read with the YAML 1.2 parser that DVC uses, so that both see the same values.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError

from .errors import UserError
from .files import read_regular
from .redact import printable

Fraction = Annotated[float, Field(gt=0, le=1)]
MAX_PIXELS = 100_000_000  # of a picture, unless `data.max_pixels` says otherwise
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]  # becomes a folder and a DVC stage name
Steps = Annotated[int, Field(ge=1, le=10**9)]  # of an optimiser
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # torch takes no larger one
MOST_VALUES = 100_000  # of a YAML file, with every alias written out; params.yaml has some hundreds
TEMPLATE = re.compile(r"\$\{([^}]*)\}")  # of dvc.yaml
MISSING = object()


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Synthetic(Model):
    train_images: Annotated[int, Field(ge=1)]
    test_images: Annotated[int, Field(ge=1)]
    long_side: Annotated[int, Field(ge=64, le=1024)] = 160  # pixels


class LocalPart(Model):
    """One COCO instances JSON and the folder its `file_name`s are relative to; both relative to `data.root`."""

    annotations: str
    images: str


class Local(Model):
    train: LocalPart
    test: LocalPart | None = None  # none: hold out `test_fraction` of the training images, seeded
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3


class Coco2017(Model):
    """COCO 2017 (`data.root` holds the annotation archive, or COCO itself); only selected pictures are fetched."""

    base_url: str | None = None  # a mirror, `file:///folder` or a folder that holds train2017/ and val2017/; none: each picture's coco_url
    allow_missing: Annotated[int, Field(ge=0)] = 0  # pictures that may be left out because they cannot be had
    connections: Annotated[int, Field(ge=1, le=64)] = 16  # requests under way at a time
    retries: Annotated[int, Field(ge=0)] = 5  # of one request, with growing pauses
    timeout: Annotated[float, Field(gt=0)] = 30  # seconds to connect, and without a byte
    deadline: Annotated[float, Field(gt=0)] = 300  # seconds for one whole picture
    hosts: list[str] = Field(default_factory=list)  # further ones that pictures may be fetched from, besides COCO's and that of base_url
    archive_md5: str = "f4bbac642086de4f52a3fdda2de5fa2c"  # as published for annotations_trainval2017.zip

    @model_validator(mode="after")
    def _no_secrets(self) -> Coco2017:
        if self.base_url and "://" in self.base_url and re.search(r"[@?#]", self.base_url):
            raise ValueError("base_url is recorded by DVC, so it holds no user, password or query; put them into ~/.netrc")
        return self


class Data(Model):
    source: Literal["synthetic", "local", "coco2017"]
    root: str  # a folder that exists; `download` depends on it
    seed: Seed = 0  # of the drawn scenes and of a held-out test part
    max_pixels: Annotated[int, Field(ge=1, lt=2**31)] = MAX_PIXELS  # a larger picture is refused before it is decoded
    synthetic: Synthetic | None = None
    local: Local | None = None
    coco2017: Coco2017 = Field(default_factory=Coco2017)

    @model_validator(mode="after")
    def _source_has_settings(self) -> Data:
        if getattr(self, self.source) is None:
            raise ValueError(f"source is {self.source}, but data.{self.source} is not given")
        return self


class Select(Model):
    """Which images take part. The defaults are the first study's rules."""

    categories: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["book", "bird", "stop sign", "zebra"])
    min_area: Annotated[float, Field(ge=0)] = 100  # square pixels of mask; smaller instances are not part of the task
    max_train_images_per_class: Annotated[int, Field(ge=1)] | None = 700
    max_test_images_per_class: Annotated[int, Field(ge=1)] | None = 70
    max_images: Annotated[int, Field(ge=1)] | None = None  # in the training and in the test part each: for trying out
    seed: Seed = 0

    @model_validator(mode="after")
    def _no_repeats(self) -> Select:
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("categories names a class twice")
        return self


class Split(Model):
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the training images
    initial_fraction: Fraction = 0.2  # of the training images that are not validation
    seed: Seed = 0


class Detector(Model):
    # mask_rcnn: Detectron2's | blobs: patches of a class's colours, in seconds; finds little, has no other key, and is to try the graph out
    kind: Literal["mask_rcnn", "blobs"] = "mask_rcnn"
    config: str  # a Detectron2 YAML
    # first weights; `drawn`: the .safetensors beside the config, learned on drawn pictures of other things (docs/model-card.md)
    init: Literal["scratch", "drawn", "imagenet", "coco"] = "scratch"
    # a file or URL that takes the place of those for `drawn`, `imagenet` and `coco`; DVC watches its name, not its content
    weights: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Annotated[int, Field(ge=1)] = 1  # that share each batch, on `cuda` one a GPU; the batch and what it teaches stay the same
    options: dict[str, Any] = Field(default_factory=dict)  # Detectron2 keys over the YAML's, e.g. SOLVER.BASE_LR: 0.01

    @property
    def drawn(self) -> str:
        """The weights of `init: drawn`: the file of the config's name, which `vlm_itl.detectors.mask_rcnn.drawn_start` makes."""
        return str(PurePosixPath(self.config).with_suffix(".safetensors"))


class EarlyStopping(Model):
    """End a training when mask AP on the validation images no longer grows; the weights of the highest AP are the model."""

    every: Annotated[int, Field(ge=1)]  # optimiser steps between evaluations; the last step is always evaluated
    patience: Annotated[int, Field(ge=1)] = 3  # evaluations in a row without a gain, counted from the end of the warm-up
    min_gain: Annotated[float, Field(ge=0)] = 0.002  # mask AP, over the best so far


class ModelLabels(Model):
    """How much a detector believes labels that a model made. By default as much as a human's."""

    min_score: Probability = 0.0  # of an annotation that is learned from; an image that loses one this way is incomplete
    background: bool = True  # whether what is unlabelled in an incomplete image is learned as background; false: nothing in it is
    weight: Annotated[float, Field(gt=0)] = 1.0  # of the loss on images that a model labelled
    mask_weight: Annotated[float, Field(ge=0)] = 1.0  # of the mask loss of their instances, apart from class and box


class Training(Model):
    """How long and how a detector trains. `schedule` says which of epochs, steps, images and growth count; others may stand there."""

    schedule: Literal["fixed_epochs", "fixed_steps", "adaptive"] = "fixed_epochs"
    epochs: Annotated[float, Field(gt=0, le=10**6)] | None = None  # fixed_epochs: passes over the labelled images
    steps: Steps | None = None  # fixed_steps: optimiser steps; adaptive: those for `images` labelled images
    images: Annotated[int, Field(ge=1, le=10**9)] | None = None  # adaptive
    growth: Annotated[float, Field(ge=0, le=1)] = 0.5  # adaptive: 0 is fixed_steps, 1 is fixed_epochs
    learning_rate: Annotated[float, Field(gt=0)] | None = None  # none: SOLVER.BASE_LR of the Detectron2 YAML
    start: Literal["continue", "restart"] = "continue"  # a run's first weights: the previous run's, or `detector.init` again
    early_stopping: EarlyStopping | None = None
    model_labels: ModelLabels = Field(default_factory=ModelLabels)

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Training:
        for name in {"fixed_epochs": ["epochs"], "fixed_steps": ["steps"], "adaptive": ["steps", "images"]}[self.schedule]:
            if getattr(self, name) is None:
                raise ValueError(f"schedule {self.schedule} needs '{name}'")
        return self

    def optimiser_steps(self, images: int, batch: int) -> int:
        """Steps of a training on so many labelled images in batches of `batch`: at least 1, rounded up.

        `fixed_epochs`: epochs x images / batch. `fixed_steps`: steps. `adaptive`: steps x (images / `self.images`) ** growth.
        """
        if self.schedule == "fixed_epochs":
            assert self.epochs is not None
            return max(1, math.ceil(self.epochs * images / batch))
        assert self.steps is not None
        if self.schedule == "fixed_steps":
            return self.steps
        assert self.images is not None
        return max(1, math.ceil(round(self.steps * (images / self.images) ** self.growth, 6)))


class Predict(Model):
    score_threshold: Probability = 0.5  # what the judge is shown and told
    test_score_threshold: Probability = 0.05  # what AP is computed from
    batch_size: Annotated[int, Field(ge=1)] = 8
    max_detections: Annotated[int, Field(ge=1)] = 100  # an image


class Teacher(Model):
    """What the foundation models that draw pseudo-labels have in common."""

    captions: dict[str, str] = Field(default_factory=dict)  # what is looked for, by class; a class that is not here: its name
    nms_iou: Fraction = 0.8  # of boxes, whatever their classes, of which the likelier alone stays
    max_detections: Annotated[int, Field(ge=1)] = 100  # an image, the likeliest
    batch_size: Annotated[int, Field(ge=1)] = 4  # images; halved where the memory runs out
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the arithmetic (mixed precision); auto: bfloat16 on a GPU


class GroundedSam2(Teacher):
    """Grounding DINO finds boxes, one class a forward pass; SAM 2 turns them into masks. Hub ids (pin the revision) or folders."""

    kind: Literal["grounded-sam2"]
    detector: str = "IDEA-Research/grounding-dino-base"  # or an MM Grounding DINO
    detector_revision: str | None = None
    segmenter: str = "facebook/sam2.1-hiera-large"
    segmenter_revision: str | None = None
    box_threshold: Probability = 0.35  # score of a box: the likeliest of the caption's tokens
    text_threshold: Probability = 0.25  # that at least one word of the caption has to reach


class Sam3(Teacher):
    """SAM 3, which finds masks by a noun phrase. A hub id (gated; pin the revision) or a folder."""

    kind: Literal["sam3"]
    model: str = "facebook/sam3"
    revision: str | None = None
    score_threshold: Probability = 0.5
    mask_threshold: Probability = 0.5  # P(mask) of a pixel


AutoLabel = Annotated[GroundedSam2 | Sam3, Field(discriminator="kind")]


class HumanJudge(Model):
    """Simulated human: approves when every instance is matched one-to-one by a same-class proposal, nothing extra."""

    kind: Literal["human"]
    iou: Fraction = 0.6
    unit: Literal["image", "instance"] = "image"  # instance: accepts each mask alone, then says whether anything is missing


class NoisyJudge(Model):
    """The simulated human with errors: a right thing is approved with P = recall, a wrong one with P = 1 - specificity.

    The thing is the image, or under `unit: instance` each mask, and that nothing is missing.
    """

    kind: Literal["noisy"]
    recall: Probability
    specificity: Probability
    iou: Fraction = 0.6
    actor: Literal["human", "model"] = "model"  # whose time it costs
    unit: Literal["image", "instance"] = "image"


class ConfidenceJudge(Model):
    """Approves when there are proposals and all have at least this detector score."""

    kind: Literal["confidence"]
    threshold: Probability = 0.9


class RandomJudge(Model):
    """Approves with probability `p`: the floor."""

    kind: Literal["random"]
    p: Probability = 0.5


class ConstantJudge(Model):
    """`always` approves everything; `never` nothing (with policy `annotate`: a human draws everything)."""

    kind: Literal["always", "never"]


class Render(Model):
    """What the pictures for a VLM look like."""

    original: bool = True  # the photograph beside the one with masks
    alpha: Probability = 0.45  # of the masks' colour
    contour: Annotated[int, Field(ge=0, le=20)] = 2  # pixels
    marks: bool = False  # the proposals' numbers
    longest: Annotated[int, Field(ge=32)] | None = 1536  # pixels; a longer side is made smaller
    margin: Annotated[float, Field(ge=0)] = 0.5  # unit instance: of the context crop, in box sides


class Server(Model):
    """An OpenAI-compatible server; several `base_urls` share the load."""

    base_urls: list[Annotated[str, Field(pattern=r"^https?://[^@?#]+$")]] = Field(default_factory=list)  # they are recorded: no secrets
    # what the servers run, such as `fp8 on vLLM 0.33`, in place of what they say in /v1/models: for servers that say nothing, or too little
    fingerprint: Annotated[str, Field(min_length=1)] | None = None
    api_key_env: str | None = None  # name of the environment variable that holds the key
    concurrency: Annotated[int, Field(ge=1)] = 32  # requests in flight
    retries: Annotated[int, Field(ge=0)] = 5  # of a question, and of a server that is away, with growing pauses
    timeout: Annotated[float, Field(gt=0)] = 120  # seconds a request, in all
    logprobs: bool = True  # ask for the likeliest first tokens; without, or where the server gives none, the text decides
    structured: bool = False  # vLLM: only the two options can be answered

    @field_validator("base_urls")
    @classmethod
    def _addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            parts = urlsplit(url)
            if not parts.hostname or parts.port == 0:  # `port` raises ValueError above 65535
                raise ValueError(f"{url} is no address of a server")
        return urls


# of `apply_chat_template`, which the back ends give themselves
TEMPLATE_ARGUMENTS = {"messages", "conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
                      "return_dict", "return_tensors", "return_assistant_tokens_mask", "processor_kwargs", "bos_token", "eos_token",
                      "pad_token", "unk_token"}  # fmt: skip


class VlmJudge(Model):
    """A vision-language model that looks at the proposals."""

    kind: Literal["vlm"]
    backend: Literal["transformers", "openai"] = "transformers"
    model: str  # hub id or folder; with `openai`, the name that the server knows
    revision: str | None = None  # of the hub's repository; pin it
    unit: Literal["image", "instance"] = "image"
    answer: Literal["probability", "text"] = "probability"
    threshold: Probability = 0.5  # P(approve) from which on it is an approval
    min_mass: Probability = (
        0.1  # of both options together at the first position; with less, the model wants to say something else: unparsed
    )
    approve: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["yes"])
    reject: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["no"])
    answer_line: Literal["first", "last"] = "first"  # of a text, the line that begins with the option
    template: dict[str, JsonValue] = Field(default_factory=dict)  # arguments of the model's chat template, e.g. enable_thinking: false
    prefill: str = ""  # text that the answer is made to begin with, e.g. an empty thought; what is judged comes after it
    max_tokens: Annotated[int, Field(ge=1)] = 128
    samples: Annotated[int, Field(ge=1)] = 1  # texts a question; their share of approvals is P(approve)
    temperature: Annotated[float, Field(gt=0)] = 0.7  # of several samples; one is greedy
    batch_size: Annotated[int, Field(ge=1)] = 4
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = False  # runs code that comes with the model
    # question, P(approve) and thresholds of images from `calibration.json` in the judge's folder; masks are accepted by `threshold`
    calibrated: bool = False
    human: HumanJudge | None = None  # with `calibrated`: who decides between rejecting and approving; costs a person's time
    render: Render = Field(default_factory=Render)
    server: Server = Field(default_factory=Server)

    @model_validator(mode="after")
    def _fits(self) -> VlmJudge:
        if {s.lower() for s in self.approve} & {s.lower() for s in self.reject}:
            raise ValueError("approve and reject share a spelling")
        if own := sorted(set(self.template) & TEMPLATE_ARGUMENTS):
            raise ValueError(f"template: {', '.join(own)}: set by this program, not here")
        if self.samples > 1 and self.answer == "probability":
            raise ValueError("samples are of texts; set answer: text")
        if self.calibrated and (self.unit, self.answer) != ("instance", "probability"):
            raise ValueError("calibrated needs unit: instance and answer: probability")
        if self.human and not self.calibrated:
            raise ValueError("human decides between two thresholds; they come with calibrated: true")
        return self

    def asking(self) -> dict[str, Any]:
        """What of these settings can change an answer, apart from the model and the question."""
        shaped = {name: value for name in ("template", "prefill") if (value := getattr(self, name))}
        if self.answer == "probability":
            return {"answer": self.answer, **shaped}
        sampling = {"samples": self.samples, "temperature": self.temperature} if self.samples > 1 else {}
        return {"answer": self.answer, "max_tokens": self.max_tokens, **sampling, **shaped}


Judge = Annotated[
    HumanJudge | NoisyJudge | ConfidenceJudge | RandomJudge | ConstantJudge | VlmJudge,
    Field(discriminator="kind"),
]


def simulated(judge: Judge) -> bool:
    """Whether a judge answers from the ground truth in somebody's place, if only where it is not sure."""
    return isinstance(judge, HumanJudge | NoisyJudge) or (isinstance(judge, VlmJudge) and judge.human is not None)


def called(name: str, is_simulated: bool) -> str:
    """A run or an arm where its numbers are shown: those of a simulated judge are never without the word."""
    return name + (" (simulated)" if is_simulated else "")


def is_model_of(verifier: str, model: str) -> bool:
    """Whether a judge's `model` is the folder that this verifier's training writes."""
    return PurePosixPath(model) == PurePosixPath("judges", verifier, "model")


class Run(Model):
    judge: Name
    prev: Name
    policy: Literal["pool", "annotate", "correct", "drop", "ground_truth"] = "pool"
    batch: Annotated[int, Field(ge=0)] | None = None  # images that this round shows the judge: the first of the pool; none: all of it
    arm: Name | None = None  # whose line the figures draw; none: the run's name without its round number


def arm_of(name: str, chosen: str | None = None) -> str:
    """The arm of a run: what `runs.<name>.arm` says, else the name without a round number (`vlm-sim-2` is of `vlm-sim`)."""
    stem, _, last = name.rpartition("-")
    return chosen or (stem if stem and last.isdigit() else name)


def chain(runs: Mapping[str, Run], name: str) -> list[str]:
    """The runs that lead to `name`, from the first after a start to `name` itself; none for a start."""
    found: list[str] = []
    while name in runs:
        found.append(name)
        name = runs[name].prev
    return found[::-1]


DRAWING = "drawing random images"  # how the line of the drawing runs is called where it is shown


def draws(run: Run, judges: Mapping[str, Judge]) -> bool:
    """Whether a human draws every image of this run, and no judge takes part."""
    return run.policy == "annotate" and judges[run.judge].kind == "never"


def drawing_runs(runs: Mapping[str, Run], judges: Mapping[str, Judge]) -> list[str]:
    """The runs that cost nothing but the drawing of random images: `draws` of them and of every run between `start` and them."""
    return [
        name for name in runs if runs[chain(runs, name)[0]].prev == "start" and all(draws(runs[one], judges) for one in chain(runs, name))
    ]


def drawing_nothing(runs: Mapping[str, Run], judges: Mapping[str, Judge]) -> str:
    """The drawing run that adds no image (`batch: 0`) in the most rounds: `start`, trained on. Where there is none, `start`: what is above
    it may then owe that to its steps alone."""
    found = [name for name in drawing_runs(runs, judges) if idle(runs, name)]
    return max(found, key=lambda name: len(chain(runs, name)), default="start")


def idle(runs: Mapping[str, Run], name: str) -> bool:
    """Whether no run on the way to `name` shows or draws an image."""
    return all(runs[one].batch == 0 for one in chain(runs, name))


class Seconds(Model):
    draw: Annotated[float, Field(ge=0)] = 80  # an instance; COCO: 22 worker hours per 1,000 segmentations = 79.2 s
    verify: Annotated[float, Field(ge=0)] = 3  # a decision; no primary source gives this number


class Evaluate(Model):
    judge_iou: Fraction = 0.6  # the oracle that judges are measured against
    seconds: Seconds = Field(default_factory=Seconds)


class Compare(Model):
    """Arms against the reference arm: intervals over test images, and non-inferiority."""

    reference: Name = "human"  # the judge whose arm the others are held against
    negative_control: Name | None = "always"  # the judge whose arm has to come out below the reference; null: none
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01  # mAP that an arm may be worse and still replace the reference
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95  # of the two-sided interval; .95 tests non-inferiority at 2.5 %, as is usual
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8  # with which images_needed and seeds_needed reckon
    replicates: Annotated[int, Field(ge=100)] = 2000  # of the bootstrap and of the sign-flip test
    seed: Seed = 0  # of both

    @model_validator(mode="after")
    def _control_is_another_judge(self) -> Compare:
        if self.negative_control == self.reference:
            raise ValueError(f"negative_control: '{self.reference}' is the reference itself; name a worse judge, or null")
        return self


class Gallery(Model):
    """The page of pictures that a run's judge decided on, by whether it was right."""

    per_group: Annotated[int, Field(ge=1)] = 8  # images shown of each group
    examples: Annotated[int, Field(ge=0)] = 2  # of them also in the report
    seed: Seed = 0  # of which are shown


class Report(Model):
    """Other prices under which the figures show the arms."""

    verify_seconds: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1, max_length=3)] = Field(
        default_factory=lambda: [1.6, 3.0, 9.0]
    )  # of a person, a decision
    compute_price: Annotated[float, Field(ge=0)] = 1.0  # human hours that an hour of a judge's computing is worth


class Prices(Model):
    """What an error of a judge, and asking a person instead, costs, in any one unit."""

    wrong_approval: Annotated[float, Field(ge=0)] = 5
    needless_rejection: Annotated[float, Field(ge=0)] = 1
    question: Annotated[float, Field(ge=0)] = 0.3  # to a person, who is always right


class Probes(Model):
    """Questions with known answers, made from initial labels that no verifier has trained on, for the judges in `probed`."""

    per_kind: Annotated[int, Field(ge=1)] = 40  # images of each kind of change
    seed: Seed = 0
    prices: Prices = Field(default_factory=Prices)
    consistency: Annotated[int, Field(ge=0)] = 40  # images, over all kinds, that a VLM is asked about again in other ways


class Lora(Model):
    """Low-rank adapters (Hu et al., ICLR 2022) instead of all weights: for models that do not fit otherwise."""

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32  # the adapters' output is scaled by alpha / rank


class HoldBack(Model):
    """Which initial images judges are measured on, and on which a detector makes mistakes for verifiers to learn from."""

    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.25  # of the initial images, for probes; no verifier trains on them
    mistakes: Annotated[float, Field(gt=0, lt=1)] = 0.25  # of them, which a detector trained on the others has not seen
    seed: Seed = 0

    @model_validator(mode="after")
    def _leaves_some(self) -> HoldBack:
        if self.held_out + self.mistakes >= 1:
            raise ValueError("held_out and mistakes leave no image to train on")
        return self


class Verifier(Model):
    """How a judge learns from the initial labels. Its pictures, prompt and options are those of the judge of that name."""

    base: Name  # the judge whose model it starts from
    steps: Steps = 200  # of the optimiser
    batch_size: Annotated[int, Field(ge=2)] = 32  # examples
    accumulate: Annotated[int, Field(ge=1)] = 1  # parts of a batch that are computed one after the other, to save memory
    learning_rate: Annotated[float, Field(gt=0)] = 0.00015
    masks: Probability = 0.6  # of the examples: about one mask; the others ask whether anything is missing
    detector: Probability = 0.3  # of the examples about a mask: the detector's own
    lora: Lora | None = None
    seed: Seed = 0  # of the examples

    @model_validator(mode="after")
    def _fits(self) -> Verifier:
        if self.batch_size % self.accumulate:
            raise ValueError("batch_size is no multiple of accumulate")
        return self


class Calibration(Model):
    """A judge with the thresholds that another one's answers to the probes give it."""

    probed: Name  # whose answers


class Settings(Model):
    """The whole of `params.yaml`."""

    seed: Seed  # of training and of simulated judges; data and split have their own: a sweep keeps the test set
    processor: Literal["avx2", "native"] = "avx2"  # what CPUs compute with: the same everywhere, or all they have (docs/method.md)
    data: Data
    select: Select
    split: Split
    detector: Detector
    pretrain: Training
    train: Training
    predict: Predict
    autolabels: dict[Name, AutoLabel] = Field(default_factory=dict)  # starts without labels: foundation models draw the first proposals
    judges: dict[Name, Judge]
    runs: dict[Name, Run]
    probes: Probes = Field(default_factory=Probes)
    probed: list[Name] = Field(default_factory=list)
    hold_back: HoldBack = Field(default_factory=HoldBack)
    verifiers: dict[Name, Verifier] = Field(default_factory=dict)  # by the judge that is trained, whose model is judges/<judge>/model
    calibrations: dict[Name, Calibration] = Field(default_factory=dict)  # by the judge that gets them
    evaluate: Evaluate
    compare: Compare = Field(default_factory=Compare)
    gallery: Gallery = Field(default_factory=Gallery)
    report: Report = Field(default_factory=Report)

    def check_runs(self) -> tuple[str, str] | None:
        """The first (key, problem) in `autolabels`, `runs` and `probed` that no single line shows, or None."""
        for name, teacher in self.autolabels.items():
            if name == "start" or name in self.runs:
                return f"autolabels.{name}", f"'{name}' is the name of another start or run; choose another"
            if unknown := [f"'{wanted}'" for wanted in teacher.captions if wanted not in self.select.categories]:
                return f"autolabels.{name}.captions", f"no class {', '.join(unknown)} in select.categories"
        starts = ["start", *self.autolabels]
        known = f"(there are: {', '.join(self.judges)})"
        for name in self.probed:
            if name not in self.judges:
                return "probed", f"no judge '{name}' in judges {known}"
        for name, verifier in self.verifiers.items():
            for key, needed in ((f"verifiers.{name}", name), (f"verifiers.{name}.base", verifier.base)):
                if not isinstance(self.judges.get(needed), VlmJudge):
                    return key, f"no judge '{needed}' of kind vlm in judges {known}"
            if verifier.base == name:
                return f"verifiers.{name}.base", "a judge cannot start from itself; name the one whose model it starts from"
        for name, calibration in self.calibrations.items():
            if name not in self.judges:
                return f"calibrations.{name}", f"no judge '{name}' in judges {known}"
            if calibration.probed not in self.probed or calibration.probed == name:
                return f"calibrations.{name}.probed", f"'{calibration.probed}' has to be another judge, and in probed"
        for name, run in self.runs.items():
            if name == "start":
                return "runs.start", "'start' is the name of the model every arm begins from; choose another"
            if run.judge not in self.judges:
                return f"runs.{name}.judge", f"no judge '{run.judge}' in judges {known}"
            judge = self.judges[run.judge]
            if isinstance(judge, VlmJudge) and judge.calibrated and run.judge not in self.calibrations:
                return f"runs.{name}.judge", f"'{run.judge}' is calibrated, so calibrations needs a line {run.judge}: {{probed: ...}}"
            if run.prev not in starts and run.prev not in self.runs:
                return f"runs.{name}.prev", f"no run '{run.prev}' in runs (there are: {', '.join([*starts, *self.runs])})"
        asked = {run.judge: f"runs.{name}.judge" for name, run in self.runs.items()} | dict.fromkeys(self.probed, "probed")
        for name, key in (asked | {verifier.base: f"verifiers.{name}.base" for name, verifier in self.verifiers.items()}).items():
            judge = self.judges[name]
            for trained in self.verifiers:
                # of another folder than its own DVC knows through the calibration alone, which says which model it was fitted on
                if isinstance(judge, VlmJudge) and is_model_of(trained, judge.model) and name != trained and not judge.calibrated:
                    return (
                        key,
                        f"'{name}' has the model that the verifier '{trained}' becomes, and DVC would not wait for it; name '{trained}'",
                    )
        if self.compare.reference not in self.judges:
            return "compare.reference", f"no judge '{self.compare.reference}' in judges (there are: {', '.join(self.judges)})"
        if self.judges[self.compare.reference].kind == "never":
            return "compare.reference", f"the judge '{self.compare.reference}' looks at nothing, so no arm can be held against it"
        if self.compare.negative_control is not None and self.compare.negative_control not in self.judges:
            return "compare.negative_control", f"no judge '{self.compare.negative_control}' in judges {known}; null: no such control"
        for name in self.runs:
            seen, current = {name}, self.runs[name].prev
            while current not in starts:
                if current in seen:
                    return f"runs.{name}.prev", f"the chain never reaches start: it comes back to '{current}'"
                seen.add(current)
                current = self.runs[current].prev
        for one, other in itertools.combinations(self.runs, 2):
            of = arm_of(one, self.runs[one].arm)
            if of == arm_of(other, self.runs[other].arm) and one not in chain(self.runs, other) and other not in chain(self.runs, one):
                problem = f"'{one}' and '{other}' would both be of the arm '{of}', and neither continues the other; give one another"
                return f"runs.{other}.arm", problem
        return None


def read_yaml(path: Path) -> Any:
    """Parse a YAML 1.2 file.

    Raises:
        UserError: the file is missing, cannot be read or is not YAML, or its aliases make too much of it ("billion laughs").
    """
    try:
        content = YAML(typ="safe").load(read_regular(path).decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (run this from the repository's top folder)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except DuplicateKeyError as error:
        key = re.sub(r'found duplicate (?:merge )?key "(.*?)"( with value .*)?', r"\1", str(error.problem), flags=re.DOTALL)
        line, first = (mark.line + 1 for mark in (error.problem_mark, error.context_mark))
        raise UserError(
            f"{path}: line {line}: duplicate key '{key}' in the mapping that begins in line {first}; keep one of them"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: not YAML for this program: its values are nested too deeply") from None
    except Exception as error:  # ruamel raises whatever a wrong date, number or tag stumbles over, beside its own errors
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split()) or type(error).__name__}") from None
    if _values(content, {}) > MOST_VALUES:
        raise UserError(f"{path}: more than {MOST_VALUES:,} values with its aliases (*name) written out, or an alias within itself")
    return content


def _values(content: Any, known: dict[int, int]) -> int:
    """How many values `content` holds with every alias written out; more than `MOST_VALUES` is not counted on, as where it holds itself."""
    if not isinstance(content, dict | list | tuple):
        return 1
    if id(content) not in known:
        known[id(content)] = MOST_VALUES + 1  # as long as it is looked through
        parts = [*content, *content.values()] if isinstance(content, dict) else content
        known[id(content)] = min(MOST_VALUES + 1, 1 + sum(_values(part, known) for part in parts))
    return known[id(content)]


def _texts(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text in `content`."""
    if isinstance(content, str):
        yield key, content
    elif isinstance(content, dict | list | tuple):
        for name, part in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _texts(part, f"{key}.{name}" if key else str(name))


def load(path: Path = Path("params.yaml")) -> Settings:
    """Read and check all of `params.yaml`.

    Raises:
        UserError: one line that names the first offending key.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a mapping of sections is expected")
    for key, text in _texts(raw):
        if "\0" in text:
            raise UserError(f"{path}: {key}: {text!r} holds a zero character, which no file, address or command line can")
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        # a discriminated union puts its tag into the location; the user's file has no such key
        kinds = {"human", "noisy", "confidence", "random", "always", "never", "vlm", "grounded-sam2", "sam3"}
        loc = [printable(str(part)) for part in first["loc"] if part != "[key]"]
        if len(loc) > 2 and loc[0] in ("judges", "autolabels") and loc[2] in kinds:
            del loc[2]
        message = first["msg"].removeprefix("Value error, ")
        # an address with a user may hold a password
        secret = "://" in str(first["input"]) and "@" in str(first["input"])
        given = "" if isinstance(first["input"], (dict, list)) or secret else f" (it says {first['input']!r})"
        if first["type"] == "extra_forbidden":
            message, given = "unknown key", ""
        raise UserError(f"{path}: {'.'.join(loc)}: {message}{given}") from None
    problem = settings.check_runs()
    if problem:
        raise UserError(f"{path}: {problem[0]}: {problem[1]}")
    if PurePosixPath(settings.detector.config).suffix not in {".yaml", ".yml"}:
        raise UserError(f"{path}: detector.config: a Detectron2 YAML file is expected ({settings.detector.config!r})")
    return settings


def pick(settings: Settings, key: str) -> Any:
    """The value at a dotted key: a section, a key of a section, one judge or one run.

    Raises:
        UserError: there is no such judge or run.
    """
    section, _, name = key.partition(".")
    value = getattr(settings, section)
    if not name:
        return value
    if isinstance(value, Model):
        return getattr(value, name)
    if name not in value:
        raise UserError(f"params.yaml: {section}: no '{name}' (there are: {', '.join(value)})")
    return value[name]


def wanted(graph: dict[str, Any], raw: dict[str, Any]) -> list[str]:
    """The dotted keys of params.yaml that DVC looks up. It knows none of the defaults above.

    Args:
        graph: content of dvc.yaml.
        raw: content of params.yaml.
    """
    keys: list[str] = []
    for stage in graph["stages"].values():
        rounds: list[dict[str, Any]] = [{}]
        if "foreach" in stage:
            (section,) = TEMPLATE.findall(stage["foreach"])
            keys.append(section)
            over = raw.get(section) or {}
            rounds = [{"key": k, "item": v} for k, v in over.items()] if isinstance(over, dict) else [{"item": v} for v in over]
        body = stage.get("do", stage)
        keys += [key for key in TEMPLATE.findall(str(body)) if key.split(".")[0] not in ("key", "item")]
        for given in rounds:
            keys += [TEMPLATE.sub(partial(_filled, given), key) for key in body.get("params", [])]
    return list(dict.fromkeys(keys))


def _filled(given: dict[str, Any], template: re.Match[str]) -> str:
    return str(_value(given, template[1]))


def _value(content: Any, key: str) -> Any:
    """What stands at a dotted key, `MISSING` where nothing does."""
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return MISSING
        content = content[part]
    return content


def needed_files(settings: Settings) -> Iterator[tuple[str, str]]:
    """(key, problem) for each file or folder that the settings name, that no stage makes and that is not there."""
    s, data = settings.detector, settings.data
    if not Path(s.config).is_file():
        yield "detector.config", f"no such file: {s.config}"
    if s.init == "drawn" and not s.weights and not Path(s.drawn).is_file():
        make = f"`python -m vlm_itl.detectors.mask_rcnn.drawn_start --config {s.config}` makes it"
        yield "detector.init", f"drawn: no such file: {s.drawn}; {make}, or use init: scratch"
    if s.weights and "://" not in s.weights and not Path(s.weights).is_file():
        yield "detector.weights", f"no such file: {s.weights}"
    if data.source != "coco2017" and not Path(data.root).is_dir():  # DVC may still have to fetch coco2017's
        yield "data.root", f"no such folder: {data.root}"
    elif data.source == "local" and data.local:
        for name, part in (("train", data.local.train), ("test", data.local.test)):
            if part and not (Path(data.root) / part.annotations).is_file():
                yield f"data.local.{name}.annotations", f"no such file: {Path(data.root) / part.annotations}"
            if part and not (Path(data.root) / part.images).is_dir():
                yield f"data.local.{name}.images", f"no such folder: {Path(data.root) / part.images}"
    asked = {run.judge: f"runs.{name}.judge" for name, run in settings.runs.items()}
    asked |= dict.fromkeys(settings.probed, "probed")
    for name, verifier in settings.verifiers.items():
        asked |= {name: f"verifiers.{name}", verifier.base: f"verifiers.{name}.base"}
    for name, key in asked.items():
        judge, prompt = settings.judges[name], Path("judges") / name / "prompt.txt"
        calibrated = isinstance(judge, VlmJudge) and judge.calibrated
        if not prompt.is_file() and not calibrated:  # a calibrated judge asks what the probed one was asked
            yield key, f"the judge '{name}' has no question; write {prompt}"
        trained_here = isinstance(judge, VlmJudge) and any(is_model_of(verifier, judge.model) for verifier in settings.verifiers)
        if isinstance(judge, VlmJudge) and judge.backend == "transformers" and not trained_here:
            yield from _model(f"judges.{name}.model", judge.model, judge.revision)
    for name, teacher in settings.autolabels.items():
        if isinstance(teacher, Sam3):
            yield from _model(f"autolabels.{name}.model", teacher.model, teacher.revision)
        else:
            yield from _model(f"autolabels.{name}.detector", teacher.detector, teacher.detector_revision)
            yield from _model(f"autolabels.{name}.segmenter", teacher.segmenter, teacher.segmenter_revision)


def _model(key: str, model: str, revision: str | None) -> Iterator[tuple[str, str]]:
    if not Path(model).is_dir() and not re.fullmatch("[0-9a-f]{40}", revision or ""):
        yield key, f"{model} is no folder here, so it is a hub id; pin its revision to a commit (40 hex digits), now {revision!r}"


def check(path: Path = Path("params.yaml"), graph: Path = Path("dvc.yaml")) -> Settings:
    """What can be known before any work: `load`, that the keys stand there that DVC will want, and that the files named are there.

    Away from a repository's top folder, where there is no dvc.yaml, only `load`.

    Raises:
        UserError: one line that names the key and what is missing.
    """
    settings = load(path)
    if not graph.exists():
        return settings
    raw = read_yaml(path)
    missing = [key for key in wanted(read_yaml(graph), raw) if _value(raw, key) is MISSING]
    if missing:
        lines = {key: json.dumps(TypeAdapter(Any).dump_python(pick(settings, key), mode="json")) for key in missing}
        add = ", ".join(f"`{key.rpartition('.')[2]}: {value}`" + (f" to {key.rpartition('.')[0]}" if "." in key else "")
                        for key, value in lines.items())  # fmt: skip
        raise UserError(f"{path}: {', '.join(missing)}: DVC watches these keys, so the file has to say them, defaults too; add {add}")
    try:
        for key, problem in needed_files(settings):
            raise UserError(f"{path}: {key}: {problem}")
    except OSError as error:  # a name too long, a folder that may not be looked into
        raise UserError(f"{path}: {error.filename}: {error.strerror}") from None
    return settings


def main() -> None:
    """Check params.yaml and what it needs before `dvc repro` starts: `python -m vlm_itl.base.settings`."""
    try:
        check()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
