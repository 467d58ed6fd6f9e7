"""What a policy is: it says what becomes of each image of a round, by what was proposed there and what the judge said of it.

A policy is a class in a file of `vlm_itl.loop.policies` and a line in `vlm_itl.registry`. No other code knows its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
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
    def instances(self) -> Rows:
        """The true annotations, for a policy that sees them.

        Raises:
            TypeError: the policy does not say that it does.
        """
        if self.truth is None:
            raise TypeError("this policy looks at the truth: its class has to say sees_truth = True")
        return self.truth


@dataclass(frozen=True)
class Outcome:
    """What becomes of one image, and which work of a human the log has to charge.

    Attributes:
        labels: its annotations by source, in their order. The last source stands for an image without any. None: it gets no labels.
        stays: without labels, it stays in the pool. Otherwise it leaves, and the log says so.
        drawn: the annotations that a human drew; those of regions to ignore cost nothing. None: nobody drew on this image.
        looked: a human looked for missing instances, which is one decision.
    """

    labels: Mapping[Source, Rows] | None = None
    stays: bool = False
    drawn: Rows | None = None
    looked: bool = False

    @property
    def leaves(self) -> bool:
        return self.labels is None and not self.stays


class Policy(ABC):
    """What becomes of the images of a round.

    Attributes:
        sees_truth: it may look at the true annotations: a human draws them, or they leak.
        draws_rejected: a human draws every rejected image, all of it. With a judge that rejects everything this is drawing random images.
        by_mask: it makes a difference whether a judge decides on single masks.
    """

    sees_truth: ClassVar[bool] = False
    draws_rejected: ClassVar[bool] = False
    by_mask: ClassVar[bool] = False

    def approved(self, shown: Shown) -> Outcome:
        """What becomes of an approved image: by default its accepted proposals become labels."""
        return Outcome({"model": shown.accepted})

    @abstractmethod
    def rejected(self, shown: Shown) -> Outcome:
        """What becomes of an image that was rejected, or not asked about."""
