"""From numbered examples to what a model takes: pictures and text through its own processor, and which tokens are the right answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from vlm_itl.core.coco import Coco
from vlm_itl.judges.vlm.composing import Composer
from vlm_itl.judges.vlm.questions import Question
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
from vlm_itl.settings import VlmJudge
from vlm_itl.verifier.examples import Example


@dataclass(frozen=True)
class Batch:
    """Examples and the tensors of their questions, left-padded, on the CPU."""

    examples: list[Example]
    inputs: dict[str, torch.Tensor]
    right: torch.Tensor  # (examples,), bool


class Batches(IterableDataset[Batch]):
    """Batch after batch of examples `draw(0)`, `draw(1)`, ..., from step `first` to before step `last`."""

    def __init__(
        self, draw: Callable[[int], Example], question: Callable[[Example], Question], backend: TransformersBackend, size: int, first: int,
        last: int,
    ) -> None:  # fmt: skip
        self.draw, self.question, self.backend, self.size, self.first, self.last = draw, question, backend, size, first, last

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.first, self.last):
            examples = [self.draw(step * self.size + k) for k in range(self.size)]
            inputs = self.backend.tensors([self.question(example) for example in examples])
            yield Batch(examples, dict(inputs), torch.tensor([example.right for example in examples]))


def loader(batches: Batches) -> DataLoader[Batch]:
    """Made one process ahead, since drawing takes as long as a small model's step."""
    return DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4, multiprocessing_context="fork")


class Asking:
    """How an example becomes a question: the judge's own prompt and drawing."""

    def __init__(self, labels: Coco, images: Path, prompt: str, settings: VlmJudge) -> None:
        self.composer = Composer(labels, [], images, prompt, settings)

    def __call__(self, example: Example) -> Question:
        return self.composer.question(example.kind, example.image, example.rows)


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
