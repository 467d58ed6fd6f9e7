"""What the files of `metrics/` that several rooms read look like: a comparison, and how good a judge is. Their keys are the fields here.

Nothing is computed here that needs a model or a match, so a figure that shows a file depends on no code that made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from vlm_itl.core import typed

Answer = Literal["yes", "no", "cannot tell"]


class Span(NamedTuple):
    """A difference with its interval."""

    difference: float
    low: float
    high: float


def span(row: Arm | Contrast) -> Span | None:
    """The row's difference and interval, None where it has no interval.

    Raises:
        ValueError: it has half an interval, or one of no difference.
    """
    if row.low is None and row.high is None:
        return None
    if row.difference is None or row.low is None or row.high is None:
        raise ValueError("an interval has two ends, and a difference between them")
    return Span(row.difference, row.low, row.high)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A run against the run that it is held against, mAP as a fraction of 1; null what cannot be estimated, and `reason` says why.

    Attributes:
        against: the other run.
        difference: `mask_AP` - `against_mask_AP`, with the ends of its interval and its standard error.
        p: of the test by sign flips. `p_worse`: of "worse by `margin` or more". `p_holm`: that over all questions.
        answer: is it no worse by more than `margin`? `answer_holm`: the same over all questions, null of an arm that is none.
        images_needed, seeds_needed: from how many on `yes` is to be expected if the two are equal.
    """

    against: str
    mask_AP: float | None
    against_mask_AP: float | None
    difference: float | None
    low: float | None
    high: float | None
    standard_error: float | None
    p: float | None
    p_worse: float | None
    answer: Answer
    reason: str | None
    images_needed: int | None
    seeds_needed: int | None
    images: int
    seeds: int
    resampled: str
    margin: float
    level: float
    power: float
    replicates: int
    p_holm: float | None
    answer_holm: Answer | None

    def __post_init__(self) -> None:
        span(self)  # raises where there is half of one


@dataclass(frozen=True)
class Contrast:
    """A difference that the experiment has to show: `run` - `against`."""

    run: str
    against: str
    difference: float | None
    low: float | None
    high: float | None
    shown: bool  # that its whole interval lies on its side of 0, beyond the margin

    def __post_init__(self) -> None:
        span(self)  # raises where there is half of one


@dataclass(frozen=True)
class Assay:
    """Assay sensitivity (ICH E10, 2000, section 1.5): could this experiment have told a good judge from a bad one?

    Attributes:
        sensitive: the reference is above the run that draws nothing and the negative control below the reference, each by more than the
            margin, with its whole interval. An experiment that cannot show so much would pass a useless judge, too. False where one of them
            is not; None where none fails and one is missing: then it was not shown.
        reason: why it is not, or was not shown, in words.
        reference, negative_control: the two; None where one is missing.
    """

    sensitive: bool | None
    reason: str | None
    reference: Contrast | None
    negative_control: Contrast | None

    @property
    def answer(self) -> Literal["yes", "no", "not shown"]:
        """Whether the experiment can tell a good judge from a bad one."""
        return "not shown" if self.sensitive is None else "yes" if self.sensitive else "no"


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; null what the curve's range does not give, and `beyond` says so."""

    value: float | None
    low: float | None
    high: float | None
    beyond: str | None = None


@dataclass(frozen=True)
class Against:
    """An arm against the drawing curve under one price of a decision.

    Attributes:
        hours: human hours of the arm's last run, mean over seeds.
        hours_saved: hours of drawing until the arm's mAP - the arm's hours. Above 0: the arm is cheaper.
        AP_lost: mAP of drawing for the arm's hours - the arm's mAP. Below 0: the arm is better.
        answer: is the arm above the curve? `yes` and `no`: above or below it by more than the interval.
    """

    hours: float
    hours_saved: Estimate
    AP_lost: Estimate
    answer: Answer


@dataclass(frozen=True)
class Place:
    """A drawing run on the curve, means over seeds."""

    hours: float
    mask_AP: float | None


@dataclass(frozen=True)
class Judged:
    """An arm against the curve, by price of a decision."""

    mask_AP: float | None
    prices: dict[str, Against]


@dataclass(frozen=True)
class Drawing:
    """The drawing curve and the arms against it.

    Attributes:
        reason: why there is none, in words.
        paid: the price at which the hours of all other files are.
        points: the curve's runs as they came out.
    """

    reason: str | None
    paid: str
    arms: dict[str, Judged]
    points: dict[str, Place]

    def __post_init__(self) -> None:
        if not all(self.paid in arm.prices for arm in self.arms.values()):
            raise ValueError("an arm has no answer at the price that is paid")


@dataclass(frozen=True)
class Plan:
    """Who is held against whom.

    Attributes:
        arms: {last run of an arm: the reference arm's run that it is held against}.
        reference: the reference arm's last run, if it begins at `start`; None where there is none.
        control: the negative control's run, a key of `arms`; None where there is none.
        drawing: runs of the drawing curve, the one that draws nothing first (`drawing_nothing`).
        judged: last runs of the other arms, the reference among them: those that are held against the curve.
        no_reference, no_control: why there is none, in words.
    """

    arms: dict[str, str]
    reference: str | None
    control: str | None
    drawing: list[str]
    judged: list[str]
    no_reference: str | None = None
    no_control: str | None = None

    def __post_init__(self) -> None:
        if not self.drawing or not (self.control is None or self.control in self.arms):
            raise ValueError("no plan: the curve has no run, or the control is held against nothing")

    @property
    def nothing_drawn(self) -> str:
        """The run that adds no labels; the reference has to end above it."""
        return self.drawing[0]

    @property
    def runs(self) -> list[str]:
        """All runs whose models are needed."""
        named = [*self.arms, *self.arms.values(), *([self.reference] if self.reference else []), *self.drawing, *self.judged]
        return list(dict.fromkeys(named))


@dataclass(frozen=True)
class Comparison:
    """`metrics/comparison.json`: what the stage `compare` found."""

    assay: Assay
    arms: dict[str, Arm]
    curve: Drawing
    plan: Plan


def read_comparison(path: Path) -> Comparison:
    """What the stage `compare` wrote.

    Raises:
        UserError: there is no such file, or it is none of this version's.
    """
    return typed.read(path, Comparison, "a comparison as this version writes it; `dvc repro` makes it (stage compare)")


def planned(comparison: dict[str, Any]) -> Plan | None:
    """The plan in the content of a comparison of any version, or None of one that an earlier version wrote."""
    return typed.convert(comparison.get("plan"), Plan)


@dataclass(frozen=True)
class MeanAp:
    """Average precision, a fraction of 1; None over no class."""

    AP: float | None


@dataclass(frozen=True)
class Detection:
    """`metrics/detection/<run>.json`, what other stages read of it."""

    box: MeanAp
    mask: MeanAp


@dataclass(frozen=True)
class Images:
    """Labelled images by who drew their masks."""

    human: int
    model: int
    mixed: int
    ground_truth: int


@dataclass(frozen=True)
class Labelled:
    images: Images


@dataclass(frozen=True)
class Cost:
    """`metrics/cost/<run>.json`, what other stages read of it (`vlm_itl.metrics.cost.human_cost`)."""

    hours: float
    draw_hours: float
    human_decisions: int
    labels: Labelled
    correct_hours: float = 0.0


@dataclass(frozen=True)
class Steps:
    """`metrics/training/<run>.json`, what other stages read of it."""

    steps: int


@dataclass(frozen=True)
class Asked:
    """`metrics/asking/<run>.json`, what other stages read of it; `unparsed` None where nothing is parsed."""

    questions: int | None = None
    unparsed: int | None = None


F = TypeVar("F", Detection, Cost, Steps, Asked)


def read_row(path: Path, kind: type[F]) -> F:
    """A run's numbers.

    Raises:
        UserError: there is no such file, or it is none of this version's.
    """
    return typed.read(path, kind, "numbers of a run as this version writes them; `dvc repro` makes them")


class Share(NamedTuple):
    """A share as a count of a count."""

    part: int
    whole: int


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A judge's decisions against the oracle's: counts, and the rates that `judges.confusion` gives, None over nothing."""

    asked: int
    approved: int
    oracle_approves: int
    true_approvals: int
    false_approvals: int
    recall: float | None
    specificity: float | None
    precision: float | None
    accuracy: float | None
    base_rate: float | None
    kappa: float | None

    @property
    def shares(self) -> dict[str, Share]:
        """What `accuracy`, `recall`, `specificity` and `precision` are shares of, for their intervals."""
        wrong = self.asked - self.oracle_approves
        return {
            "accuracy": Share(self.true_approvals + wrong - self.false_approvals, self.asked),
            "recall": Share(self.true_approvals, self.oracle_approves),
            "specificity": Share(wrong - self.false_approvals, wrong),
            "precision": Share(self.true_approvals, self.approved),
        }


@dataclass(frozen=True, kw_only=True)
class Proposals(Confusion):
    """The same of single proposals; the ignored ones are in no other count."""

    ignored: int


@dataclass(frozen=True, kw_only=True)
class _Batch:
    not_asked: int  # images without proposals


@dataclass(frozen=True, kw_only=True)
class Quality(Confusion, _Batch):  # in this order the file begins with `not_asked`
    """`metrics/judge/<run>.json`: how good a run's judge was on the images that it was asked about and whose truth is known.

    Attributes:
        by_class: of the images that show a class in truth; an image with two classes counts in both.
        by_instances: by number of true instances in the image.
        by_proposal: of a judge that decides on every proposal; absent of any other.
        without_truth: images that it was asked about and nobody has labelled, which are in no other count; absent where there are none.
        approved_without_truth: of these.
    """

    by_class: dict[str, Confusion]
    by_instances: dict[str, Confusion]
    by_proposal: Proposals | msgspec.UnsetType = msgspec.UNSET
    without_truth: int | msgspec.UnsetType = msgspec.UNSET
    approved_without_truth: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def unknown(self) -> int:
        """Images that it was asked about and nobody has labelled."""
        return 0 if self.without_truth is msgspec.UNSET else self.without_truth

    @property
    def asked_in_all(self) -> int:
        return self.asked + self.unknown

    @property
    def approved_in_all(self) -> int:
        return self.approved + (0 if self.approved_without_truth is msgspec.UNSET else self.approved_without_truth)


def read_quality(path: Path) -> Quality:
    """What the stage `evaluate` wrote of a run's judge.

    Raises:
        UserError: there is no such file, or it is none of this version's.
    """
    return typed.read(path, Quality, "a judge's quality as this version writes it; `dvc repro` makes it (stage evaluate)")
