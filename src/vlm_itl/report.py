"""The runs side by side: summary numbers, the table, and the data of the plot of mAP against human hours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from .base.files import read_json
from .base.settings import Calibration, Judge, Run, Settings, Verifier, VlmJudge, arm_of, called, chain, is_model_of, simulated

RULES = ("human", "confidence", "random", "always", "never")  # kinds of judge that compute nothing worth counting


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
            "judge_seconds": 0.0 if judges[run.judge].kind in RULES else timed(f"loop/{name}/verdicts.jsonl"),
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
        if name != "start":
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
        rows[name] = row | {"simulated": name != "start" and simulated(judges[runs[name].judge])}
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


def headline(summary: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What to look at first, for `dvc metrics diff`: {measure: {run: number}}."""
    return {measure: {run: numbers[measure] for run, numbers in summary.items()} for measure in ("mask_AP", "human_hours")}


def labels(runs: dict[str, Run], judges: dict[str, Judge]) -> dict[str, str]:
    """How a run is called in a figure: a simulated judge's numbers are named so wherever they stand."""
    return {name: called(name, simulated(judges[run.judge])) for name, run in runs.items()}


def draws_everything(run: Run, judges: dict[str, Judge]) -> bool:
    """Whether a human draws the whole pool in this run: the supervised ceiling."""
    return run.policy == "annotate" and judges[run.judge].kind == "never"


def curve(summary: dict[str, dict[str, Any]], runs: dict[str, Run]) -> list[dict[str, Any]]:
    """Points of the plot; an arm that begins at `start` has that as its first. One that began without labels has no such point, and its
    hours after the initial labels can be below zero: those that it did not need.

    Returns:
        Rows of `arm` (with "(simulated)" where it is), `run`, `round` (0 for `start`), `human_hours` in all, `added_human_hours` and
        `added_draw_hours` after the initial labels (those of the run - those of `start`), `mask_AP` and `box_AP`; for other prices, all
        on the way to the run, `draw_hours` and `human_decisions`; whether the arm is `simulated`.
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

    return [point(name, run) for name in runs for run in ((["start"] if runs[name].prev == "start" else []) + [name])]


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
    headers = ["run", "mask AP", "box AP", "images by human", "by model", "by both", "human hours", "asked", "approved", "unparsed",
               "judge recall", "specificity", "steps"]  # fmt: skip
    rows = [
        [called(name, r["simulated"]), r["mask_AP"], r["box_AP"], r["images_human"], r["images_model"], r["images_mixed"],
         r["human_hours"], r["asked"], r["approved"], unparsed(r), r["judge_recall"], r["judge_specificity"], r["steps"]]
        for name, r in summary.items()
    ]  # fmt: skip
    formats = ("", ".3f", ".3f", "", "", "", ".2f", "", "", "", ".2f", ".2f", "")
    return tabulate(rows, headers=headers, floatfmt=formats, missingval="-")


def unparsed(row: dict[str, Any]) -> str | None:
    """How many of a run's questions got an answer that says neither yes nor no, as in "774 of 797"; None where nothing is parsed."""
    return None if row.get("unparsed") is None else f"{row['unparsed']:,} of {row['questions']:,}"


def main() -> None:
    """Print the table of the committed or last summary: `python -m vlm_itl.report`."""
    print(table(read_json(Path("metrics/summary.json"))))


if __name__ == "__main__":
    main()
