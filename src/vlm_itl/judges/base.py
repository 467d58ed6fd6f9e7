"""What every kind of judge is: its settings, how it decides, and what the stages and the report have to know of it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vlm_itl.core.coco import Coco, by_image, empty_like, without_truth
from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import Model
from vlm_itl.judges.verdict import Verdict

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What a judge may use.

    Attributes:
        pool: the images to judge.
        proposals: COCO results; all of an image's proposals are judged together.
        images: the folder that `file_name`s are relative to.
        truth: reads the ground truth of those images of the pool that have one; `known` is what a simulated human asks for.
        folder: the judge's own.
        answers: the folder that keeps answers for the next time.
        seed: of the simulated randomness.
        run: the run's name; None where the pool is no run's, as of probes.
    """

    pool: Coco
    proposals: list[Row]
    images: Path
    truth: Callable[[], Coco]
    folder: Path
    answers: Path
    seed: int
    run: str | None = None

    def known(self) -> Coco:
        """The truth of all images of the pool, for simulated humans only.

        Raises:
            UserError: some have none.
        """
        truth = self.truth()
        if unknown := without_truth(self.pool["images"], truth):
            raise UserError(
                f"params.yaml: judges: a simulated human answers from labels, and {len(unknown):,} of {len(self.pool['images']):,} images "
                "have none; take a judge that needs none, or a person (docs/guides/own-data.md)"
            )
        return truth


@dataclass(frozen=True)
class Judged:
    """What came of it: verdicts by ascending image id, what identifies the judge, and what it took (`questions` and whatever else)."""

    verdicts: list[Verdict]
    identity: Row
    took: Row


@dataclass(frozen=True)
class Question:
    """What a judge that needs no model is asked about one image."""

    image_id: int
    proposals: list[Row]
    seed: int

    def generator(self) -> random.Random:
        """A random generator that depends on all that is asked and on nothing else: the same question gets the same answer."""
        content = json.dumps([self.seed, self.image_id, self.proposals], sort_keys=True)
        return random.Random(hashlib.sha256(content.encode()).digest())


@dataclass(frozen=True)
class Decision:
    approve: bool
    log_odds: float | None = None  # of approval, where the judge gives a probability
    accepted: list[bool] | None = None  # for each proposal, where the judge decides on every one


class Judge(Model):
    """A line of `judges` in params.yaml. A kind derives from this, says what it is, and defines `decide`, or all of `judge`."""

    label: ClassVar[str]  # the kind in words, where it is shown
    computes: ClassVar[bool] = False  # whether it takes machine time worth counting, or stands for one that does
    looks: ClassVar[bool] = False  # whether it is a VLM, which looks at pictures
    takes_part: ClassVar[bool] = True  # False: it stands where no judge is asked at all
    examples: ClassVar[bool] = True  # whether the report shows cases of it; it need not where everybody knows what it decides

    kind: str

    @classmethod
    def simulates(cls, settings: Mapping[str, Any]) -> bool:
        """Whether a judge of this kind with these settings, as they stand in params.yaml, answers from the ground truth in somebody's
        place, if only where it is not sure."""
        return False

    @property
    def simulated(self) -> bool:
        """`simulates` of this judge."""
        return self.simulates(dict(self))

    @property
    def whose_time(self) -> Literal["human", "model", "none"]:
        """Whose time a decision takes: a person's, a model's (a VLM or its stand-in), nobody's (a rule)."""
        return "none"

    def decide(self, question: Question, truth: list[Row]) -> Decision:
        """Decide on one image with proposals.

        Args:
            truth: its instances, for simulated humans only.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither `decide` nor `judge`")

    def verdicts(self, pool: Coco, proposals: list[Row], truth: Coco, seed: int) -> list[Verdict]:
        """One verdict for each image of the pool, by ascending image id. An image without proposals is not asked about."""
        shown, instances, result = by_image(proposals), by_image(truth), []
        for i in sorted(image["id"] for image in pool["images"]):
            rows = shown.get(i, [])
            decision = self.decide(Question(i, rows, seed), instances.get(i, [])) if rows else Decision(approve=False)
            questions = None if decision.accepted is None else len(rows) + 1  # one a mask, one for completeness
            result.append(Verdict(
                i, len(rows), bool(rows), self.whose_time, decision.approve, decision.log_odds, accepted=decision.accepted,
                questions=questions,
            ))  # fmt: skip
        return result

    def judge(self, task: Task) -> Judged:
        """Judge a pool.

        Raises:
            UserError: it cannot; the message says what to do.
        """
        truth = task.known() if self.simulated else empty_like(task.pool)
        verdicts = self.verdicts(task.pool, task.proposals, truth, task.seed)
        questions = sum(v.decisions for v in verdicts if v.asked)
        return Judged(verdicts, self.model_dump(), {"questions": questions})
