"""From numbered examples to what a model takes: pictures and text through its own processor, and which tokens are the right answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from vlm_itl.core.coco import Coco
from vlm_itl.judges.vlm.composing import Composer
from vlm_itl.judges.vlm.questions import Question
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
from vlm_itl.settings import VlmJudge
from vlm_itl.verifier.examples import Example

# of a DataLoader: made one process ahead, since drawing takes as long as a small model's step
WORKER: dict[str, Any] = {"num_workers": 1, "prefetch_factor": 4, "multiprocessing_context": "fork"}


class Drawn(Dataset[Example]):
    """The examples `draw(0)`, `draw(1)`, ..., so many of them; each depends on its number alone, wherever a training goes on."""

    def __init__(self, draw: Callable[[int], Example], number: int) -> None:
        self.draw, self.number = draw, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, number: int) -> Example:
        return self.draw(number)


class Asking:
    """How an example becomes a question: the judge's own prompt and drawing."""

    def __init__(self, labels: Coco, images: Path, prompt: str, settings: VlmJudge) -> None:
        self.composer = Composer(labels, [], images, prompt, settings)

    def __call__(self, example: Example) -> Question:
        return self.composer.question(example.kind, example.image, example.rows)


class Collating:
    """How examples become a batch: the tensors of their questions, left-padded, on the CPU, and `right`, (examples,), bool."""

    def __init__(self, question: Callable[[Example], Question], backend: TransformersBackend) -> None:
        self.question, self.backend = question, backend

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        inputs = self.backend.tensors([self.question(example) for example in examples])
        return {**inputs, "right": torch.tensor([example.right for example in examples])}


def answer_loss(logits: torch.Tensor, right: torch.Tensor, approve: list[int], reject: list[int]) -> torch.Tensor:
    """Mean over a batch of -log of the probability that the whole vocabulary leaves to the spellings of the right option.

    So the model learns to answer with an option at all (its mass) and which (P(approve)), the two numbers that a judge reads.

    Args:
        logits: at the answer's first position, (examples, vocabulary).
        right: (examples,), bool.
        approve, reject: the options' tokens.
    """
    logits = logits.float()
    sides = torch.stack([logits[:, reject].logsumexp(-1), logits[:, approve].logsumexp(-1)], -1)
    return (logits.logsumexp(-1) - sides.gather(-1, right.long()[:, None])[:, 0]).mean()


def first_logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits at the answer's first position, (examples, vocabulary); the last one, since questions are padded on the left."""
    logits: torch.Tensor = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
    return logits
