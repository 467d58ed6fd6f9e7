"""The runs side by side: summary numbers, the table, and the data of the plot of mAP against human hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tabulate import tabulate

from .base.files import read_json
from .base.settings import Judge, Run, simulated

RULES = ("human", "confidence", "random", "always", "never")  # kinds of judge that compute nothing worth counting


def summarise(
    runs: dict[str, Run], judges: dict[str, Judge], detection: Path, cost: Path, judge: Path, training: Path, asking: Path
) -> dict[str, dict[str, Any]]:
    """One flat row of numbers a run, `start` first, then the runs of params.yaml in their order.

    `judge_seconds` is what the run's judge computed: 0 for a rule, None where it is not known (a simulated VLM).
    Files of runs that params.yaml no longer has may still lie in the folders; they are not read.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name in ["start", *runs]:
        ap, price = read_json(detection / f"{name}.json"), read_json(cost / f"{name}.json")
        quality = read_json(judge / f"{name}.json") if name != "start" else {}
        computed: float | None = 0.0
        if name != "start" and judges[runs[name].judge].kind not in RULES:
            computed = read_json(asking / f"{name}.json").get("seconds")
        row = {
            "mask_AP": ap["mask"]["AP"],
            "box_AP": ap["box"]["AP"],
            "human_hours": price["hours"],
            "draw_hours": price["draw_hours"],
            "human_decisions": price["human_decisions"],
            "judge_seconds": computed,
            "images_human": price["labels"]["images"]["human"],
            "images_model": price["labels"]["images"]["model"],
            "images_ground_truth": price["labels"]["images"]["ground_truth"],
            "steps": read_json(training / f"{name}.json")["steps"],
            "asked": quality.get("asked"),
            "approved": quality.get("approved"),
            "judge_recall": quality.get("recall"),
            "judge_specificity": quality.get("specificity"),
            "label_precision": quality.get("precision"),
        }
        rows[name] = row | {"simulated": name != "start" and simulated(judges[runs[name].judge])}
    return rows


def arm(name: str) -> str:
    """`vlm-sim-2` belongs to the arm `vlm-sim`; a name without a round number is an arm of its own."""
    stem, _, last = name.rpartition("-")
    return stem if stem and last.isdigit() else name


def headline(summary: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What to look at first, for `dvc metrics diff`: {measure: {run: number}}."""
    return {measure: {run: numbers[measure] for run, numbers in summary.items()} for measure in ("mask_AP", "human_hours")}


def labels(runs: dict[str, Run], judges: dict[str, Judge]) -> dict[str, str]:
    """How a run is called in a figure: a simulated judge's numbers are named so wherever they stand."""
    return {name: name + (" (simulated)" if simulated(judges[run.judge]) else "") for name, run in runs.items()}


def draws_everything(run: Run, judges: dict[str, Judge]) -> bool:
    """Whether a human draws the whole pool in this run: the supervised ceiling."""
    return run.policy == "annotate" and judges[run.judge].kind == "never"


def curve(summary: dict[str, dict[str, Any]], runs: dict[str, Run]) -> list[dict[str, Any]]:
    """Points of the plot; an arm that begins at `start` has that as its first. One that began without labels has no such point, and its
    hours after the initial labels can be below zero: those that it did not need.

    Returns:
        Rows of `arm` (with "(simulated)" where it is), `run`, `round` (0 for `start`), `human_hours` in all, `added_human_hours` after the
        initial labels, `mask_AP` and `box_AP`; for other prices `draw_hours`, `human_decisions` and `judge_seconds`, in all; whether
        the arm is `simulated`.
    """

    def point(name: str, run: str, number: int) -> dict[str, Any]:
        numbers = summary[run]
        return {
            "arm": arm(name) + (" (simulated)" if summary[name]["simulated"] else ""), "run": run, "round": number,
            "added_human_hours": round(numbers["human_hours"] - summary["start"]["human_hours"], 6),
            **{key: numbers[key] for key in ("human_hours", "mask_AP", "box_AP", "draw_hours", "human_decisions")},
            "judge_seconds": computed(run), "simulated": summary[name]["simulated"],
        }  # fmt: skip

    def computed(run: str) -> float | None:
        """Of all judges on the way to this run; None if one is not known."""
        seconds: list[float | None] = []
        while run in runs:
            seconds.append(summary[run]["judge_seconds"])
            run = runs[run].prev
        return None if None in seconds else round(sum(s for s in seconds if s is not None), 6)

    points = []
    for name, run in runs.items():
        if run.prev == "start":
            points.append(point(name, "start", 0))
        number, current = 1, run
        while current.prev in runs:
            number, current = number + 1, runs[current.prev]
        points.append(point(name, name, number))
    return points


def table(summary: dict[str, dict[str, Any]]) -> str:
    """The summary for a terminal; `-` where there is nothing to measure."""
    headers = ["run", "mask AP", "box AP", "images by human", "by model", "human hours", "asked", "approved",
               "judge recall", "specificity", "steps"]  # fmt: skip
    rows = [
        [name + (" (simulated)" if r["simulated"] else ""), r["mask_AP"], r["box_AP"], r["images_human"], r["images_model"],
         r["human_hours"], r["asked"], r["approved"], r["judge_recall"], r["judge_specificity"], r["steps"]]
        for name, r in summary.items()
    ]  # fmt: skip
    formats = ("", ".3f", ".3f", "", "", ".2f", "", "", ".2f", ".2f", "")
    return tabulate(rows, headers=headers, floatfmt=formats, missingval="-")


def main() -> None:
    """Print the table of the committed or last summary: `python -m vlm_itl.report`."""
    print(table(read_json(Path("metrics/summary.json"))))


if __name__ == "__main__":
    main()
