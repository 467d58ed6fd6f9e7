"""The runs side by side: summary numbers, the table, and the data of the plot of mAP against human hours."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json
from vlm_itl.core.redact import say
from vlm_itl.core.runs import DRAWING, arm_of, called, chain, drawing_nothing, drawing_runs, draws
from vlm_itl.metrics.verdicts import is_comparison
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


def summarise(
    runs: dict[str, Run], judges: dict[str, Judge], detection: Path, cost: Path, judge: Path, training: Path, asking: Path
) -> dict[str, dict[str, Any]]:
    """One flat row of numbers a run, `start` first, then the runs of params.yaml in their order.

    `questions` and `unparsed` (of them) are the judge's, by `metrics/asking`, and counted nowhere else; None where nothing is parsed.
    Only files of runs that params.yaml has are read.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name in ["start", *runs]:
        ap, price = read_json(detection / f"{name}.json"), read_json(cost / f"{name}.json")
        quality, asked = {}, {}
        if name != "start" and not draws(runs[name], judges):
            quality, asked = read_json(judge / f"{name}.json"), read_json(asking / f"{name}.json")
        row = {
            "mask_AP": ap["mask"]["AP"],
            "box_AP": ap["box"]["AP"],
            "human_hours": price["hours"],
            "draw_hours": price["draw_hours"],
            "human_decisions": price["human_decisions"],
            "images_human": price["labels"]["images"]["human"],
            "images_model": price["labels"]["images"]["model"],
            "images_mixed": price["labels"]["images"]["mixed"],
            "images_ground_truth": price["labels"]["images"]["ground_truth"],
            "steps": read_json(training / f"{name}.json")["steps"],
            "asked": quality.get("asked"),
            "approved": quality.get("approved"),
            "questions": asked.get("questions"),
            "unparsed": asked.get("unparsed"),
            "judge_recall": quality.get("recall"),
            "judge_specificity": quality.get("specificity"),
            "label_precision": quality.get("precision"),
        }
        rows[name] = row | {"simulated": name != "start" and judges[runs[name].judge].simulated}
    return rows


def added(numbers: Iterable[float | None]) -> float | None:
    """The sum; None if one of them is not known."""
    known = list(numbers)
    return None if None in known else round(sum((n for n in known if n is not None), 0.0), 6)


def decided_nothing(summary: dict[str, dict[str, Any]], runs: dict[str, Run]) -> set[str]:
    """The runs after which no judge of their arm has approved or handed on an image: they trained on what they began with.

    A run from labels has those of `start`; one from a start without labels has none.
    """

    def labelled(run: str) -> int:
        return sum(summary[run].get(f"images_{source}") or 0 for source in ("human", "model", "mixed", "ground_truth"))

    there = [name for name in runs if name in summary and "start" in summary]
    return {name for name in there if labelled(name) == (labelled("start") if runs[chain(runs, name)[0]].prev == "start" else 0)}


def headline(summary: dict[str, dict[str, Any]], comparison: dict[str, Any]) -> dict[str, Any]:
    """What to look at first, for `dvc metrics diff`.

    Returns:
        `assay`, see `tells_judges_apart`; `mask_AP` and `human_hours` by run; `hours_saved` and `AP_lost` by arm and price of a decision,
        each with `value`, `low` and `high`.
    """
    arms = comparison["curve"]["arms"]

    def estimates(measure: str) -> dict[str, Any]:
        return {
            run: {price: {end: found[measure][end] for end in ("value", "low", "high")} for price, found in arm["prices"].items()}
            for run, arm in arms.items()
        }

    return {
        "assay": tells_judges_apart(comparison),
        **{measure: {run: numbers[measure] for run, numbers in summary.items()} for measure in ("mask_AP", "human_hours")},
        **{measure: estimates(measure) for measure in ("hours_saved", "AP_lost")},
    }


# metrics of a run that any table shows, with what each may be
NUMBERS = ("mask_AP", "box_AP", "human_hours", "draw_hours", "human_decisions", "images_human", "images_model", "images_mixed",
           "images_ground_truth", "steps", "asked", "approved", "questions", "unparsed", "judge_recall", "judge_specificity",
           "label_precision")  # fmt: skip


def read_summary(path: Path) -> dict[str, dict[str, Any]]:
    """What the stage `report` wrote (`summarise`).

    Raises:
        UserError: there is no such file, or it is none of this version's.
    """
    content = read_json(path)
    whole = isinstance(content, dict) and all(
        isinstance(row, dict)
        and isinstance(row.get("simulated"), bool)
        and all(key in row and (row[key] is None or type(row[key]) in (int, float)) for key in NUMBERS)
        and (row["unparsed"] is None or row["questions"] is not None)
        for row in content.values()
    )
    if not whole:
        raise UserError(f"{path}: not a summary as this version writes it; `dvc repro` makes it (stage report)")
    return content


def read_comparison(path: Path) -> dict[str, Any]:
    """What the stage `compare` wrote.

    Raises:
        UserError: there is no such file, or it is none of this version's.
    """
    content = read_json(path)
    if not is_comparison(content):
        raise UserError(f"{path}: not a comparison as this version writes it; `dvc repro` makes it (stage compare)")
    return content


def tells_judges_apart(comparison: dict[str, Any]) -> str:
    """Whether the experiment can tell a good judge from a bad one: `yes`, `no`, `not shown`."""
    return {True: "yes", False: "no"}.get(comparison["assay"]["sensitive"], "not shown")


def beats_drawing(comparison: dict[str, Any]) -> dict[str, list[str]]:
    """Arms that are above the drawing curve by more than the interval, by price of a decision."""
    arms = comparison["curve"]["arms"]
    prices = dict.fromkeys(price for arm in arms.values() for price in arm["prices"])
    return {price: [run for run, arm in arms.items() if arm["prices"][price]["answer"] == "yes"] for price in prices}


def pays(comparison: dict[str, Any]) -> str | None:
    """Whether any arm is above the drawing curve at the price that is paid: `yes`, `no`, `cannot tell`; None where there is no arm."""
    arms, paid = comparison["curve"]["arms"], comparison["curve"]["paid"]
    found = {arm["prices"][paid]["answer"] for arm in arms.values()}
    return next((answer for answer in ("yes", "cannot tell", "no") if answer in found), None)


PAYS = {"no": "approval does not pay here", "cannot tell": "approval does not pay here, as far as this experiment can tell"}


def answers(comparison: dict[str, Any], names: dict[str, str]) -> list[str]:
    """The verdicts in words for a terminal, in the order of proof.

    Args:
        comparison: of one seed.
        names: how a run is called.
    """

    def points(row: dict[str, Any]) -> str:
        ends = "" if row["low"] is None or row["high"] is None else f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
        return f"{100 * row['difference']:+.1f} points{ends}"

    why = comparison["assay"]["reason"]
    lines = [f"Can this experiment tell judges apart? {tells_judges_apart(comparison)}" + (f": {why}" if why else "")]
    curve = comparison["curve"]
    if curve["arms"]:
        paid = beats_drawing(comparison)[curve["paid"]]
        lines.append(
            f"At equal hours, better than drawing random images: {', '.join(names.get(run, run) for run in paid) or 'no arm'}"
            + ("" if paid else f"; {PAYS[pays(comparison) or 'no']}")
        )
    else:
        lines.append(f"No drawing curve: {curve['reason']}")
    for run, row in comparison["arms"].items():
        detail = row["reason"] or ""
        if row["difference"] is not None:
            detail = points(row) + (f"; {detail}" if detail else "")
        margin = f"{100 * row['margin']:.1f} {'point' if row['margin'] == 0.01 else 'points'}"
        lines.append(
            f"Of these two trained models, {names.get(run, run)} is no worse than {names.get(row['against'], row['against'])} "
            f"by more than {margin}: {row['answer']}" + (f" ({detail})" if detail else "")
        )
    return lines


def labels(runs: dict[str, Run], judges: dict[str, Judge]) -> dict[str, str]:
    """How a run is called in a figure: a simulated judge's numbers are named so wherever they stand."""
    return {name: called(name, judges[run.judge].simulated) for name, run in runs.items()}


def curve(summary: dict[str, dict[str, Any]], runs: dict[str, Run], judges: dict[str, Judge]) -> list[dict[str, Any]]:
    """Points of the plot; an arm that begins at `start` has that as its first. One that began without labels has no such point, and its
    hours after the initial labels can be below zero: those that it did not need. The drawing runs are one line, `DRAWING`, by their hours,
    with `start` as its first point where no run draws nothing (`drawing_nothing`).

    Returns:
        Rows of `arm` (with "(simulated)" where it is), `run`, `round` (0 for `start`; of a drawing run its place on the line), `drawing`,
        `human_hours` in all, `added_human_hours` and `added_draw_hours` after the initial labels (those of the run - those of `start`),
        `mask_AP` and `box_AP`; for other prices, all on the way to the run, `draw_hours` and `human_decisions`; whether the arm is
        `simulated`.
    """

    def point(name: str, run: str) -> dict[str, Any]:
        numbers, start, way = summary[run], summary["start"], chain(runs, run)
        return {
            "arm": called(arm_of(name, runs[name].arm), summary[name]["simulated"]), "run": run, "round": len(way),
            "added_human_hours": round(numbers["human_hours"] - start["human_hours"], 6),
            "added_draw_hours": round(numbers["draw_hours"] - start["draw_hours"], 6),
            **{key: numbers[key] for key in ("human_hours", "mask_AP", "box_AP", "draw_hours", "human_decisions")},
            "simulated": summary[name]["simulated"],
        }  # fmt: skip

    drawn = sorted(drawing_runs(runs, judges), key=lambda name: float(summary[name]["human_hours"]))
    first = [(drawn[0], "start")] if drawn and drawing_nothing(runs, judges) == "start" else []
    line = [
        point(name, run) | {"arm": DRAWING, "round": place, "drawing": True}
        for place, (name, run) in enumerate([*first, *zip(drawn, drawn)])
    ]
    judged = [name for name in runs if name not in drawn]
    return line + [
        point(name, run) | {"drawing": False} for name in judged for run in ((["start"] if runs[name].prev == "start" else []) + [name])
    ]


def with_computing(
    points: list[dict[str, Any]], runs: dict[str, Run], computed: dict[str, dict[str, float | None]]
) -> list[dict[str, Any]]:  # fmt: skip
    """The points of `curve`, each with `judge_seconds` of all on the way to its run: the judges' questions and their preparation, None if
    one is not known."""
    return [
        {**point, "judge_seconds": added(seconds for run in chain(runs, point["run"]) for seconds in computed[run].values())}
        for point in points
    ]


def table(summary: dict[str, dict[str, Any]]) -> str:
    """The summary for a terminal; `-` where there is nothing to measure."""
    mixed = any(r["images_mixed"] for r in summary.values())  # only under the policy `correct`
    columns: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
        "mask AP": (".3f", lambda r: r["mask_AP"]), "box AP": (".3f", lambda r: r["box_AP"]),
        "images by human": ("", lambda r: r["images_human"]), "by model": ("", lambda r: r["images_model"]),
        **({"by both": ("", lambda r: r["images_mixed"])} if mixed else {}), "human hours": (".2f", lambda r: r["human_hours"]),
        "asked": ("", lambda r: r["asked"]), "approved": ("", lambda r: r["approved"]), "unparsed": ("", unparsed),
        "judge recall": (".2f", lambda r: r["judge_recall"]), "specificity": (".2f", lambda r: r["judge_specificity"]),
        "steps": ("", lambda r: r["steps"]),
    }  # fmt: skip
    rows = [[called(name, r["simulated"]), *(value(r) for _, value in columns.values())] for name, r in summary.items()]
    return tabulate(rows, headers=["run", *columns], floatfmt=("", *(form for form, _ in columns.values())), missingval="-")


def unparsed(row: dict[str, Any]) -> str | None:
    """How many of a run's questions got an answer that says neither yes nor no, as in "774 of 797"; None where nothing is parsed."""
    return None if row.get("unparsed") is None else f"{row['unparsed']:,} of {row['questions']:,}"


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
        asked = [row["asked"] for row in summary.values() if row["asked"] is not None]
        if asked and not any(asked):
            said.insert(0, f"No judge saw a proposal: no score reached predict.score_threshold ({settings.predict.score_threshold}), "
                           "or the pool is empty; a longer training or a lower threshold may help")  # fmt: skip
    except UserError as error:
        sys.exit(f"error: {error}")
    for row in [*table(summary).splitlines(), "", *said]:
        say(row)


if __name__ == "__main__":
    main()
