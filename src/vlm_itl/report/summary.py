"""The runs side by side: summary numbers, the table, and the data of the plot of mAP against human hours."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tabulate import tabulate

from vlm_itl.core import typed
from vlm_itl.core.errors import UserError
from vlm_itl.core.redact import say
from vlm_itl.core.runs import DRAWING, arm_of, called, chain, drawing_nothing, drawing_runs, draws, round_of
from vlm_itl.metrics.rows import (
    Against,
    Answer,
    Arm,
    Asked,
    Comparison,
    Cost,
    Detection,
    Estimate,
    Steps,
    read_comparison,
    read_quality,
    read_row,
    span,
)
from vlm_itl.report.points import Point
from vlm_itl.settings import Calibration, Judge, Run, Settings, Verifier, VlmJudge, is_model_of, load

Preparation = dict[str, float | None]  # what a judge computed before its first verdict: {part: seconds}, None where it is not known
Timed = Callable[[str], float | None]  # machine seconds behind the output at a path, None where they were not measured here


def preparations(
    names: Iterable[str], judges: dict[str, Judge], calibrations: dict[str, Calibration], verifiers: dict[str, Verifier], timed: Timed
) -> dict[str, Preparation]:
    """What these judges computed before their first verdict; nothing for one that is no model.

    The questions about probes that its thresholds come from, and the training of the verifier whose model it is. Questions about probes
    that only measure a judge belong to no arm. The detectors are nobody's computing, here as elsewhere.

    Args:
        names: of the judges.
    """
    found: dict[str, Preparation] = {}
    for name in names:
        judge, parts = judges[name], found.setdefault(name, {})
        if not isinstance(judge, VlmJudge):
            continue
        if judge.calibrated and name in calibrations:
            probed = calibrations[name].probed
            parts[f"probes of {probed}"] = timed(f"artifacts/probes/{probed}/verdicts.jsonl")
        for verifier in verifiers:
            if is_model_of(verifier, judge.model):
                parts[f"training of {verifier}"] = timed(f"metrics/verifier/{verifier}/held_out.json")
    return found


def computing(settings: Settings, timed: Timed) -> dict[str, dict[str, float | None]]:
    """What the judge of each run computed, `start` included. It is in no summary: measured seconds are no stage's output.

    `judge_seconds`: of the run's questions. `preparation_seconds`: what its judge computed before (`preparations`), and no run on the way
    to it has been charged for: an arm pays once. Both are 0 for a rule, None where it is not known (a simulated VLM, another machine).
    """
    runs, judges = settings.runs, settings.judges
    prepared = preparations((run.judge for run in runs.values()), judges, settings.calibrations, settings.verifiers, timed)
    rows: dict[str, dict[str, float | None]] = {"start": {"judge_seconds": 0.0, "preparation_seconds": 0.0}}
    for name, run in runs.items():
        paid = {part for earlier in chain(runs, name)[:-1] for part in prepared[runs[earlier].judge]}
        rows[name] = {
            "judge_seconds": timed(f"loop/{name}/verdicts.jsonl") if judges[run.judge].computes else 0.0,
            "preparation_seconds": added(seconds for part, seconds in prepared[run.judge].items() if part not in paid),
        }
    return rows


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run in `metrics/summary.json`: the numbers that any table shows, null what there is not; the fields are the file's keys.

    Attributes:
        human_hours, draw_hours, human_decisions: of all on the way to the run.
        images_human, images_model, images_mixed, images_ground_truth: labelled images by who drew their masks.
        steps: of the training.
        questions, unparsed: the judge's, by `metrics/asking`, and counted nowhere else; `unparsed` null where nothing is parsed.
        simulated: whether its judge is.
    """

    mask_AP: float | None
    box_AP: float | None
    human_hours: float
    draw_hours: float
    human_decisions: int
    images_human: int
    images_model: int
    images_mixed: int
    images_ground_truth: int
    steps: int
    asked: int | None
    approved: int | None
    questions: int | None
    unparsed: int | None
    judge_recall: float | None
    judge_specificity: float | None
    label_precision: float | None
    simulated: bool

    def __post_init__(self) -> None:
        if self.unparsed is not None and self.questions is None:
            raise ValueError("unparsed answers of no questions")

    @property
    def labelled(self) -> int:
        """Images with labels, whosever."""
        return self.images_human + self.images_model + self.images_mixed + self.images_ground_truth

    @property
    def unparsed_of(self) -> str | None:
        """How many questions got an answer that says neither yes nor no, as in "774 of 797"; None where nothing is parsed."""
        return None if self.unparsed is None else f"{self.unparsed:,} of {self.questions:,}"


Summary = Mapping[str, Row]  # `start` first, then the runs of params.yaml in their order


def summarise(
    runs: dict[str, Run], judges: dict[str, Judge], detection: Path, cost: Path, judge: Path, training: Path, asking: Path
) -> dict[str, Row]:
    """The row of every run, from the files that its stages wrote. Only files of runs that params.yaml has are read."""
    rows: dict[str, Row] = {}
    for name in ["start", *runs]:
        ap, price = read_row(detection / f"{name}.json", Detection), read_row(cost / f"{name}.json", Cost)
        judged = name != "start" and not draws(runs[name], judges)
        quality = read_quality(judge / f"{name}.json") if judged else None
        asked = read_row(asking / f"{name}.json", Asked) if judged else Asked()
        images = price.labels.images
        rows[name] = Row(
            mask_AP=ap.mask.AP,
            box_AP=ap.box.AP,
            human_hours=price.hours,
            draw_hours=price.draw_hours + price.correct_hours,
            human_decisions=price.human_decisions,
            images_human=images.human,
            images_model=images.model,
            images_mixed=images.mixed,
            images_ground_truth=images.ground_truth,
            steps=read_row(training / f"{name}.json", Steps).steps,
            asked=quality.asked_in_all if quality else None,
            approved=quality.approved_in_all if quality else None,
            questions=asked.questions,
            unparsed=asked.unparsed,
            judge_recall=quality.recall if quality else None,
            judge_specificity=quality.specificity if quality else None,
            label_precision=quality.precision if quality else None,
            simulated=name != "start" and judges[runs[name].judge].simulated,
        )
    return rows


def added(numbers: Iterable[float | None]) -> float | None:
    """The sum; None if one of them is not known."""
    known = list(numbers)
    return None if None in known else round(sum((n for n in known if n is not None), 0.0), 6)


def decided_nothing(summary: Summary, runs: dict[str, Run]) -> set[str]:
    """The runs after which no judge of their arm has approved or handed on an image: they trained on what they began with.

    A run from labels has those of `start`; one from a start without labels has none.
    """
    there = [name for name in runs if name in summary and "start" in summary]
    return {
        name for name in there if summary[name].labelled == (summary["start"].labelled if runs[chain(runs, name)[0]].prev == "start" else 0)
    }


@dataclass(frozen=True)
class Ends:
    """An estimate without words."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Headline:
    """`metrics/headline.json`: what to look at first, for `dvc metrics diff`.

    Attributes:
        assay: `Assay.answer`.
        mask_AP, human_hours: by run.
        hours_saved, AP_lost: by arm and price of a decision.
    """

    assay: str
    mask_AP: dict[str, float | None]
    human_hours: dict[str, float]
    hours_saved: dict[str, dict[str, Ends]]
    AP_lost: dict[str, dict[str, Ends]]


def headline(summary: Summary, comparison: Comparison) -> Headline:
    """What to look at first."""
    arms = comparison.curve.arms

    def estimates(measure: Callable[[Against], Estimate]) -> dict[str, dict[str, Ends]]:
        def ends(found: Estimate) -> Ends:
            return Ends(found.value, found.low, found.high)

        return {run: {price: ends(measure(found)) for price, found in arm.prices.items()} for run, arm in arms.items()}

    return Headline(
        comparison.assay.answer, {run: row.mask_AP for run, row in summary.items()},
        {run: row.human_hours for run, row in summary.items()}, estimates(lambda found: found.hours_saved),
        estimates(lambda found: found.AP_lost),
    )  # fmt: skip


def read_summary(path: Path) -> dict[str, Row]:
    """What the stage `report` wrote (`summarise`).

    Raises:
        UserError: there is no such file, or it is none of this version's.
    """
    return typed.read(path, dict[str, Row], "a summary as this version writes it; `dvc repro` makes it (stage report)")


def beats_drawing(comparison: Comparison) -> dict[str, list[str]]:
    """Arms that are above the drawing curve by more than the interval, by price of a decision."""
    arms = comparison.curve.arms
    prices = dict.fromkeys(price for arm in arms.values() for price in arm.prices)
    return {price: [run for run, arm in arms.items() if arm.prices[price].answer == "yes"] for price in prices}


def pays(comparison: Comparison) -> Answer | None:
    """Whether any arm is above the drawing curve at the price that is paid: `yes`, `no`, `cannot tell`; None where there is no arm."""
    found = {arm.prices[comparison.curve.paid].answer for arm in comparison.curve.arms.values()}
    order: tuple[Answer, ...] = ("yes", "cannot tell", "no")
    return next((answer for answer in order if answer in found), None)


PAYS = {"no": "approval does not pay here", "cannot tell": "approval does not pay here, as far as this experiment can tell"}


def answers(comparison: Comparison, names: dict[str, str]) -> list[str]:
    """The verdicts in words for a terminal, in the order of proof.

    Args:
        comparison: of one seed.
        names: how a run is called.
    """

    def points(row: Arm) -> str | None:
        if row.difference is None:
            return None
        known = span(row)
        return f"{100 * row.difference:+.1f} points" + (f" ({100 * known.low:+.1f} to {100 * known.high:+.1f})" if known else "")

    assay, curve = comparison.assay, comparison.curve
    lines = [f"Can this experiment tell judges apart? {assay.answer}" + (f": {assay.reason}" if assay.reason else "")]
    if curve.arms:
        paid = beats_drawing(comparison)[curve.paid]
        lines.append(
            f"At equal hours, better than drawing random images: {', '.join(names.get(run, run) for run in paid) or 'no arm'}"
            + ("" if paid else f"; {PAYS[pays(comparison) or 'no']}")
        )
    else:
        lines.append(f"No drawing curve: {curve.reason}")
    for run, row in comparison.arms.items():
        detail = "; ".join(word for word in (points(row), row.reason) if word)
        margin = f"{100 * row.margin:.1f} {'point' if row.margin == 0.01 else 'points'}"
        lines.append(
            f"Of these two trained models, {names.get(run, run)} is no worse than {names.get(row.against, row.against)} "
            f"by more than {margin}: {row.answer}" + (f" ({detail})" if detail else "")
        )
    return lines


def labels(runs: dict[str, Run], judges: dict[str, Judge]) -> dict[str, str]:
    """How a run is called in a figure: a simulated judge's numbers are named so wherever they stand."""
    return {name: called(name, judges[run.judge].simulated) for name, run in runs.items()}


def curve(summary: Summary, runs: dict[str, Run], judges: dict[str, Judge]) -> list[Point]:
    """Points of the plot; an arm that begins at `start` has that as its first. One that began without labels has no such point, and its
    hours after the initial labels can be below zero: those that it did not need. The drawing runs are one line, `DRAWING`, by their hours,
    with `start` as its first point where no run draws nothing (`drawing_nothing`).
    """

    def point(name: str, run: str) -> Point:
        numbers, start = summary[run], summary["start"]
        return Point(
            arm=called(arm_of(name, runs[name].arm), summary[name].simulated), run=run, round=round_of(runs, run),
            added_human_hours=round(numbers.human_hours - start.human_hours, 6),
            added_draw_hours=round(numbers.draw_hours - start.draw_hours, 6),
            human_hours=numbers.human_hours, mask_AP=numbers.mask_AP, box_AP=numbers.box_AP, draw_hours=numbers.draw_hours,
            human_decisions=numbers.human_decisions, simulated=summary[name].simulated, drawing=False,
        )  # fmt: skip

    drawn = sorted(drawing_runs(runs, judges), key=lambda name: summary[name].human_hours)
    first = [(drawn[0], "start")] if drawn and drawing_nothing(runs, judges) == "start" else []
    line = [
        replace(point(name, run), arm=DRAWING, round=place, drawing=True) for place, (name, run) in enumerate([*first, *zip(drawn, drawn)])
    ]
    judged = [name for name in runs if name not in drawn]
    return line + [point(name, run) for name in judged for run in ((["start"] if runs[name].prev == "start" else []) + [name])]


def computed_before(runs: dict[str, Run], computed: dict[str, dict[str, float | None]]) -> dict[str, float | None]:
    """Machine seconds of all on the way to a run, by run: the judges' questions and their preparation, None if one is not known.

    Args:
        computed: see `computing`.
    """
    return {run: added(seconds for one in chain(runs, run) for seconds in computed[one].values()) for run in computed}


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        show: a row's value in it, None where there is nothing to measure.
        form: of a float, as `format` has it.
        needed: whether the column is there.
    """

    heading: str
    show: Callable[[Row], float | str | None]
    form: str = ""
    needed: Callable[[Iterable[Row]], bool] = lambda rows: True


COLUMNS = (
    Column("mask AP", lambda row: row.mask_AP, ".3f"),
    Column("box AP", lambda row: row.box_AP, ".3f"),
    Column("images by human", lambda row: row.images_human),
    Column("by model", lambda row: row.images_model),
    Column("by both", lambda row: row.images_mixed, needed=lambda rows: any(row.images_mixed for row in rows)),  # the policy `correct`
    Column("human hours", lambda row: row.human_hours, ".2f"),
    Column("asked", lambda row: row.asked),
    Column("approved", lambda row: row.approved),
    Column("unparsed", lambda row: row.unparsed_of),
    Column("judge recall", lambda row: row.judge_recall, ".2f"),
    Column("specificity", lambda row: row.judge_specificity, ".2f"),
    Column("steps", lambda row: row.steps),
)


def table(summary: Summary) -> str:
    """The summary for a terminal; `-` where there is nothing to measure."""
    columns = [column for column in COLUMNS if column.needed(summary.values())]
    rows = [[called(name, row.simulated), *(column.show(row) for column in columns)] for name, row in summary.items()]
    headings, forms = ["run", *(column.heading for column in columns)], ("", *(column.form for column in columns))
    return str(tabulate(rows, headers=headings, floatfmt=forms, missingval="-"))


def main(argv: list[str] | None = None) -> None:
    """Print the table of the last summary, and the answers. Where a stage failed, that is of other runs'."""
    argparse.ArgumentParser(prog="vlm-itl report", description=main.__doc__).parse_args(argv)
    path = Path("metrics/summary.json")
    try:
        settings = load()
        summary, runs = read_summary(path), ["start", *settings.runs]
        if list(summary) != runs:
            raise UserError(
                f"{path}: has the runs {', '.join(summary)}, and params.yaml {', '.join(runs)}: the report of these is not made yet; "
                "run `make repro`, whose last lines say what failed"
            )
        said = answers(read_comparison(Path("metrics/comparison.json")), labels(settings.runs, settings.judges))
        asked = [row.asked for row in summary.values() if row.asked is not None]
        if asked and not any(asked):
            said.insert(0, f"No judge saw a proposal: no score reached predict.score_threshold ({settings.predict.score_threshold}), "
                           "or the pool is empty; a longer training or a lower threshold may help")  # fmt: skip
    except UserError as error:
        sys.exit(f"error: {error}")
    for row in [*table(summary).splitlines(), "", *said]:
        say(row)


if __name__ == "__main__":
    main()
