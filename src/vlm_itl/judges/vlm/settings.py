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
from vlm_itl.judges.rendering import Render


class Server(Model):
    """An OpenAI-compatible server; several `base_urls` share the load."""

    base_urls: list[Annotated[str, Field(pattern=r"^https?://[^@?#]+$")]] = Field(default_factory=list)
    """Addresses up to `/v1`. DVC records them, so they hold no user, password or query."""
    fingerprint: Annotated[str, Field(min_length=1)] | None = None
    """What the servers run, such as `fp8 on vLLM 0.33`, for servers whose `/v1/models` says too little. null: what they say there."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key."""
    concurrency: Annotated[int, Field(ge=1)] = 32
    """Requests under way at a time."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Further tries of one question, and of a server that is away, with growing pauses."""
    timeout: Annotated[float, Field(gt=0)] = 120
    """Seconds for one request in all."""
    logprobs: bool = True
    """Asks for the likeliest first tokens. Where there are none, the text decides."""
    structured: bool = False
    """Lets a vLLM server answer with the two options only."""

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
    """Where the model runs: in this process, or behind an OpenAI-compatible server."""
    model: str
    """Hub id or folder; behind a server, the name that the server knows."""
    revision: str | None = None
    """Commit of the hub's repository; pin it."""
    prompt: str = ""
    """The question; under `unit: instance` two, below the lines [mask] and [missing]. A calibrated judge may leave it out."""
    unit: Literal["image", "instance"] = "image"
    """Asks about the image as a whole, or about each mask alone and then whether anything is missing."""
    answer: Literal["probability", "text"] = "probability"
    """Decides by P(approve) at the answer's first position, or by the text."""
    threshold: Probability = 0.5
    """P(approve) from which on an answer is an approval."""
    min_mass: Probability = 0.1
    """Least probability of both options together at the first position. With less the answer counts as unparsed."""
    approve: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["yes"])
    """Spellings of the approving option."""
    reject: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["no"])
    """Spellings of the rejecting option."""
    answer_line: Literal["first", "last"] = "first"
    """Which line of a text begins with the option."""
    template: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of the model's chat template, such as `enable_thinking: false`."""
    prefill: str = ""
    """Text that the answer is made to begin with, such as an empty thought; what comes after it is judged."""
    max_tokens: Annotated[int, Field(ge=1)] = 128
    """Most tokens of a text."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Texts for one question; their share of approvals is P(approve)."""
    temperature: Annotated[float, Field(gt=0)] = 0.7
    """Sampling temperature of several texts; a single one is greedy."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """Questions a forward pass; halved where the memory runs out."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model computes. `auto`: on a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights. `auto`: that of the published ones."""
    trust_remote_code: bool = False
    """Runs code that comes with the model: only for a model that you have read."""
    calibrated: bool = False
    """Takes the question, P(approve) and thresholds of images from the `calibration.json` of its folder; `threshold` accepts masks."""
    human: HumanJudge | None = None
    """With `calibrated`: who decides between rejecting and approving, at the price of a person's time."""
    render: Render = Field(default_factory=Render)
    """What the pictures look like."""
    server: Server = Field(default_factory=Server)
    """With `backend: openai`."""

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
