"""What a policy is: it says what becomes of each image of a round, by what was proposed there and what the judge said of it.

A policy is a class in a file of `vlm_itl.loop.policies` and a line in `vlm_itl.registry`. No other code knows its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vlm_itl.judges.verdict import Verdict
from vlm_itl.loop.accepted import accepted_proposals
from vlm_itl.loop.labels import Source

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Shown:
    """One image of a round, and all that a policy may know of it.

    Attributes:
        image: its COCO row.
        proposals: its COCO results; none where the detector found nothing.
        verdict: what the judge said; None where no judge took part. An image without proposals was not asked about.
        truth: its true COCO annotations, with regions to ignore; None for a policy that does not see them.
        iou: mask IoU from which on a mask stands for an instance.
    """

    image: dict[str, Any]
    proposals: Rows
    verdict: Verdict | None
    truth: Rows | None
    iou: float

    @property
    def is_approved(self) -> bool:
        return self.verdict is not None and self.verdict.approve

    @property
    def accepted(self) -> Rows:
        """The proposals that the verdict accepts. A verdict on the image as a whole accepts all or none."""
        if self.verdict is None or (self.verdict.accepted is None and not self.verdict.approve):
            return []
        return accepted_proposals(self.proposals, self.verdict.accepted)

    @property
    def offered(self) -> list[int]:
        """Places of the proposals that a person who draws begins with: the accepted ones of a judge of single masks, else all."""
        decided = None if self.verdict is None else self.verdict.accepted
        accepted_proposals(self.proposals, decided)  # raises where they do not belong together
        return [k for k in range(len(self.proposals)) if decided is None or decided[k]]

    @property
    def instances(self) -> Rows:
        """The true annotations, for a policy that sees them.

        Raises:
            TypeError: the policy does not say that it does.
        """
        if self.truth is None:
            raise TypeError("this policy looks at the truth: its class has to say sees_truth = True")
        return self.truth


@dataclass(frozen=True)
class Drawn:
    """What people made of one image, as COCO annotations.

    Attributes:
        kept: proposals as they were, with their scores.
        corrected: what became of proposals with another outline or class.
        added: what no proposal had found.
        removed: how many proposals are gone.
    """

    kept: Rows
    corrected: Rows
    added: Rows
    removed: int


@dataclass(frozen=True)
class Outcome:
    """What becomes of one image, and which work of a human the log has to charge.

    Attributes:
        labels: its annotations by source, in their order. The last source stands for an image without any. None: it gets no labels.
        stays: without labels, it stays in the pool. Otherwise it leaves, and the log says so.
        drawn: the annotations that a human drew; those of regions to ignore cost nothing. None: nobody drew on this image.
        looked: a human looked for missing instances, which is one decision.
        corrected: the annotations that a human made of proposals.
        removed: how many proposals a human took away.
        by_people: real people drew, so that no judge has let in what they kept.
    """

    labels: Mapping[Source, Rows] | None = None
    stays: bool = False
    drawn: Rows | None = None
    looked: bool = False
    corrected: Sequence[dict[str, Any]] = field(default_factory=tuple)
    removed: int = 0
    by_people: bool = False

    @property
    def leaves(self) -> bool:
        return self.labels is None and not self.stays


class Policy(ABC):
    """What becomes of the images of a round.

    Attributes:
        sees_truth: it may look at the true annotations: a simulated human draws them, or they leak.
        draws: a human draws on rejected images, so that real people can (`drawn_by: people`), who never see the truth.
        draws_rejected: a human draws every rejected image, all of it. With a judge that rejects everything this is drawing random images.
    """

    sees_truth: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    draws_rejected: ClassVar[bool] = False

    def approved(self, shown: Shown) -> Outcome:
        """What becomes of an approved image: by default its accepted proposals become labels."""
        return Outcome({"model": shown.accepted})

    @abstractmethod
    def rejected(self, shown: Shown) -> Outcome:
        """What becomes of an image that was rejected, or not asked about."""

    def drawn(self, shown: Shown, people: Drawn) -> Outcome:
        """What becomes of a rejected image on which real people have drawn, under a policy that `draws`."""
        by_hand = [*people.corrected, *people.added]
        return Outcome(
            {"model": people.kept, "human": by_hand}, drawn=people.added, corrected=people.corrected, removed=people.removed, by_people=True
        )
