"""How long people take for a decision, and how far they agree: with themselves, with each other, with known answers, with other judges."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy.stats import binom

from vlm_itl.core import typed
from vlm_itl.core.coco import Coco
from vlm_itl.core.errors import UserError
from vlm_itl.judges.person.answers import Answer, Answers, Undo
from vlm_itl.judges.verdict import Verdict
from vlm_itl.metrics.intervals import Estimated, estimated
from vlm_itl.metrics.judges import BINS, cohen_kappa, judge_quality, size_bin
from vlm_itl.metrics.rows import Confusion, Share

IDLE = 10  # times the median of its unit from which on a decision is flagged as idle
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Median:
    """Visible seconds of decisions: their median, with an interval by order statistics (`median`); None where there are too few."""

    decisions: int
    seconds: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Idle:
    """Decisions whose visible seconds are more than `IDLE` times the median of their unit. They are flagged, and in every number."""

    decisions: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How many of some pairs of decisions are the same, with a 95 % Wilson interval, and Cohen's kappa; None over nothing."""

    pairs: int
    same: int
    share: float | None
    low: float | None
    high: float | None
    kappa: float | None

    @property
    def estimate(self) -> Estimated:
        return Estimated(self.share, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class People:
    """`metrics/people/<judge>.json`: answers that stand, without skips.

    Attributes:
        again: decisions on an item that their reviewer had looked at before: repeats, and what was taken back or skipped first. They are
            quicker, so they are in no number of seconds.
        skipped, taken_back: answers that are in no other count.
        hidden: seconds in which the page was hidden; they are in no other number.
        by_reviewer: seconds of each reviewer.
        seconds: by unit and number of masks shown (`size_bin`).
        with_themselves: the first two answers of a reviewer to the same item.
        with_each_other: the first answers of two reviewers to the same item.
        on_probes: this judge and every other one, on the probes that a person has answered: decisions against the known answers.
        with_judges: this judge's decisions on these probes against each other judge's.
    """

    decisions: int
    again: int
    skipped: int
    taken_back: int
    hidden: float
    idle: Idle
    by_reviewer: dict[str, Median]
    seconds: dict[str, dict[str, Median]]
    with_themselves: Agreement
    with_each_other: Agreement
    on_probes: dict[str, Confusion]
    with_judges: dict[str, Agreement]


def measure(answers: Answers, name: str, probed: Mapping[str, Sequence[Verdict]], proposals: list[dict[str, Any]], truth: Coco,
            iou: float) -> People:  # fmt: skip
    """
    Args:
        name: of the judge.
        probed: verdicts on the probes, by judge.
        proposals, truth: of the probes.
        iou: of the oracle.

    Raises:
        UserError: nobody has decided anything yet.
    """
    standing = [line for line in answers.lines if isinstance(line, Answer) and answers.standing.stands(line)]
    said = [answer for answer in standing if answer.decision != "skip"]
    if not said:
        raise UserError(f"{answers.path}: nobody has answered yet: make review; or take '{name}' out of people in params.yaml")
    first: dict[tuple[str, str], str] = {}  # looks at an item, also if what was decided then was taken back
    for answer in sorted((line for line in answers.lines if isinstance(line, Answer)), key=lambda a: a.when):
        first.setdefault((answer.reviewer, answer.item), answer.id)
    timed = [answer for answer in said if first[answer.reviewer, answer.item] == answer.id]
    by_unit = {unit: [a.seconds for a in timed if a.unit == unit] for unit in sorted({a.unit for a in timed})}
    middle = {unit: statistics.median(some) for unit, some in by_unit.items()}
    idle = [a.seconds for a in timed if a.seconds > IDLE * middle[a.unit]]
    own = {v.image_id: v for v in probed.get(name, []) if v.asked}

    def asked(verdicts: Sequence[Verdict]) -> list[Verdict]:
        return [v for v in verdicts if v.asked and v.image_id in own]

    return People(
        decisions=len(said), again=len(said) - len(timed), skipped=len(standing) - len(said),
        taken_back=sum(isinstance(line, Undo) for line in answers.lines),
        hidden=round(sum(a.hidden for a in said), 3), idle=Idle(decisions=len(idle), seconds=round(sum(idle), 3)),
        by_reviewer={who: median(a.seconds for a in timed if a.reviewer == who) for who in sorted({a.reviewer for a in timed})},
        seconds={
            unit: {size: median(a.seconds for a in timed if (a.unit, size_bin(a.masks)) == (unit, size))
                   for size in sorted({size_bin(a.masks) for a in timed if a.unit == unit})}
            for unit in by_unit
        },
        with_themselves=agreement(_twice(said)), with_each_other=agreement(_between(said)),
        on_probes={judge: _confusion(asked(verdicts), proposals, truth, iou) for judge, verdicts in probed.items() if own},
        with_judges={
            judge: agreement((own[v.image_id].approve, v.approve) for v in asked(verdicts))
            for judge, verdicts in probed.items() if own and judge != name
        },
    )  # fmt: skip


def median(seconds: Iterable[float]) -> Median:
    """The median with an interval that assumes nothing of the distribution: from the k-th smallest to the k-th largest value.

    k is the largest with P(Binomial(n, 1/2) < k) <= (1 - level) / 2 (Conover 1999, section 3.2); there is one from 6 values on.
    """
    values = sorted(seconds)
    n = len(values)
    k = int(binom.ppf((1 - LEVEL) / 2, n, 0.5))  # the smallest with P(at most k) >= the tail, so P(fewer than k) is below it
    low, high = (values[k - 1], values[n - k]) if k else (None, None)
    return Median(decisions=n, seconds=round(statistics.median(values), 3), low=low, high=high)


def agreement(pairs: Iterable[tuple[bool, bool]]) -> Agreement:
    """Of pairs of decisions."""
    some = list(pairs)
    same = Share(sum(one == other for one, other in some), len(some))
    return Agreement(pairs=same.whole, same=same.part, **estimated(same)._asdict(), kappa=cohen_kappa(some))


def _firsts(said: Sequence[Answer]) -> dict[str, dict[str, list[Answer]]]:
    """Answers by item and reviewer, the earliest first."""
    found: dict[str, dict[str, list[Answer]]] = {}
    for answer in sorted(said, key=lambda a: a.when):
        found.setdefault(answer.item, {}).setdefault(answer.reviewer, []).append(answer)
    return found


def _twice(said: Sequence[Answer]) -> list[tuple[bool, bool]]:
    return [(some[0].decision == "yes", some[1].decision == "yes")
            for people in _firsts(said).values() for some in people.values() if len(some) > 1]  # fmt: skip


def _between(said: Sequence[Answer]) -> list[tuple[bool, bool]]:
    return [(one[0].decision == "yes", other[0].decision == "yes")
            for people in _firsts(said).values() for one, other in combinations(people.values(), 2)]  # fmt: skip


def _confusion(verdicts: list[Verdict], proposals: list[dict[str, Any]], truth: Coco, iou: float) -> Confusion:
    found = judge_quality(verdicts, proposals, truth, iou)
    return Confusion(**{name: getattr(found, name) for name in Confusion.__dataclass_fields__})


class Measured:
    """What a decision of a person takes, by what was measured of some people."""

    def __init__(self, people: Mapping[str, People]) -> None:
        self.tables: dict[str, dict[str, list[Median]]] = {}
        for one in people.values():
            for unit, table in one.seconds.items():
                for size, found in table.items():
                    self.tables.setdefault(unit, {}).setdefault(size, []).append(found)

    def seconds(self, unit: str, masks: int) -> tuple[float, bool]:
        """(seconds of a decision of that unit about so many masks, whether that is from another number of masks, the nearest one).

        Of several judges' medians the mean, weighted by their decisions.

        Raises:
            UserError: nobody was measured on decisions of that unit.
        """
        table = self.tables.get(unit)
        if not table:
            known = ", ".join(self.tables) or "none"
            raise UserError(
                f"params.yaml: evaluate.seconds.verify: measured, but no decision of the unit '{unit}' was measured (there are: {known}); "
                "name a person in people who has decided so, or give seconds"
            )
        size = size_bin(masks)
        nearest = min(table, key=lambda other: (abs(BINS.index(other) - BINS.index(size)), BINS.index(other)))
        rows = table[nearest]
        return sum(row.seconds * row.decisions for row in rows) / sum(row.decisions for row in rows), nearest != size


def read_measured(path: Path) -> People:
    """What the stage `measure-people` wrote of a judge.

    Raises:
        UserError: there is no such file, or it is none of this version's.
    """
    return typed.read(path, People, "what was measured of people, as this version writes it; `dvc repro` makes it (stage measure-people)")
