"""How many of a run's labels are right, by people who looked at a random sample: on a pool without truth there is no other number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vlm_itl.core import typed
from vlm_itl.core.files import md5
from vlm_itl.core.redact import say
from vlm_itl.judges.person.answers import Answer
from vlm_itl.metrics.intervals import Estimated, estimated
from vlm_itl.metrics.rows import Share

AS_WRITTEN = "an audit as this version writes it; remove it and let `make audit RUN=...` count again"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What people said of a random sample of images that the judge approved, or of those that it rejected.

    Attributes:
        images: that the judge decided so; the sample is of these.
        looked_at: images of the sample that a person has answered.
        right: of these, by the person: nothing missing, wrong or extra.
        share: `right` / `looked_at`, with its 95 % Wilson interval `low` to `high`; None before anybody has looked. The interval takes the
            pool as without end, so it is a little too wide where most of it was looked at.
        reasons: why not, where the person said so.
    """

    images: int
    looked_at: int
    right: int
    share: float | None
    low: float | None
    high: float | None
    reasons: dict[str, int]

    @property
    def estimate(self) -> Estimated:
        return Estimated(self.share, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """`metrics/audit/<run>.json`.

    Attributes:
        verdicts: md5 of the run's verdicts that were audited.
        reviewers: who looked.
        approved: `share` is the precision of the labels, image by image.
        rejected: `share` is how many of the rejected images were right as they were.
    """

    run: str
    verdicts: str
    reviewers: list[str]
    approved: Sample
    rejected: Sample


def sample(images: int, answers: Iterable[Answer]) -> Sample:
    """Count the answers to a sample of so many images."""
    said = list(answers)
    right = Share(sum(answer.decision == "yes" for answer in said), len(said))
    return Sample(
        images=images, looked_at=right.whole, right=right.part, **estimated(right)._asdict(),
        reasons=dict(sorted(Counter(answer.reason for answer in said if answer.reason).items())),
    )  # fmt: skip


def file_of(run: str) -> Path:
    """Where a run's audit stands."""
    return Path(f"metrics/audit/{run}.json")


def current(run: str) -> Audit | None:
    """What people said of a sample of this run's labels; None where nobody has, or the verdicts have changed since, which is said.

    Raises:
        UserError: the file is none of this version's.
    """
    path, verdicts = file_of(run), Path("loop", run, "verdicts.jsonl")
    if not path.exists():
        return None
    found = typed.read(path, Audit, AS_WRITTEN)
    if not verdicts.exists() or found.verdicts != md5(verdicts):
        say(f"{path}: the verdicts are others since, so the audit is left out: make audit RUN={run}")
        return None
    return found
