"""The back end `transformers`, in the processes of a cluster (`VLM_ITL_ENGINE`): a question goes there without its pictures."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from vlm_itl import engine
from vlm_itl.judges.vlm.questions import Answer, Question
from vlm_itl.judges.vlm.settings import VlmJudge
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend


class Elsewhere:
    """See `vlm_itl.judges.vlm.questions.Backend`. Its identity is that of the back end: the answers are the same."""

    def __init__(self, settings: VlmJudge, where: engine.Engine) -> None:
        self.settings, self.where = settings, where
        here = TransformersBackend(settings)  # loads nothing by itself
        self.identity: dict[str, Any] = here.identity
        self.versions: dict[str, Any] = here.versions
        self.batch_size = here.batch_size

    def ask(self, questions: Iterable[tuple[int, Question]]) -> Iterator[tuple[int, Answer]]:
        """In batches of `batch_size`, in order."""
        source, underway = iter(questions), deque[list[int]]()

        def batches() -> Iterator[list[Question]]:
            while batch := list(itertools.islice(source, self.batch_size)):
                underway.append([number for number, _ in batch])
                yield [question.without_pixels() for _, question in batch]

        for answers in engine.values(self.where, partial(Worker, self.settings), batches(), "batches of questions"):
            yield from zip(underway.popleft(), answers, strict=True)


class Worker:
    """Answers batches of questions."""

    def __init__(self, settings: VlmJudge) -> None:
        self.backend = TransformersBackend(settings)

    def __call__(self, batch: list[Question]) -> list[Answer]:
        answers = dict(self.backend.ask((k, question.with_pixels()) for k, question in enumerate(batch)))
        return [replace(answers[k], machine=engine.machine()) for k in range(len(batch))]
