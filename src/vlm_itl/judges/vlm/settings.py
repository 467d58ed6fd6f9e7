"""The settings of a VLM judge. Light to import: what asks is in `judging`, and is loaded when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from vlm_itl.core.fields import Model, Probability
from vlm_itl.judges.base import Judge, Judged, Task
from vlm_itl.judges.human import HumanJudge


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


class VlmJudge(Judge):
    """A vision-language model that looks at the proposals."""

    label: ClassVar[str] = "vision-language model"
    computes: ClassVar[bool] = True
    looks: ClassVar[bool] = True

    kind: Literal["vlm"]
    backend: Literal["transformers", "openai"] = "transformers"
    model: str  # hub id or folder; with `openai`, the name that the server knows
    revision: str | None = None  # of the hub's repository; pin it
    prompt: str = ""  # the question; under `unit: instance` two, below [mask] and [missing]; a calibrated one can leave it out
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

    @classmethod
    def simulates(cls, settings: Mapping[str, Any]) -> bool:
        """A model is not; but where it is not sure, it may ask a simulated human."""
        return bool(settings.get("human"))

    @property
    def whose_time(self) -> Literal["human", "model", "none"]:
        return "model"

    def judge(self, task: Task) -> Judged:
        from vlm_itl.judges.vlm.judging import judge_task

        return judge_task(self, task)


def is_model_of(verifier: str, model: str) -> bool:
    """Whether a judge's `model` is the folder that this verifier's training writes."""
    return PurePosixPath(model) == PurePosixPath("judges", verifier, "model")
