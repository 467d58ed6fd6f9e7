"""Experiments to one tidy table: a row an experiment, run and metric. `python -m vlm_itl.study --csv study.csv`.

DVC says which experiments there are and what became of them; their numbers are read from their commits, as git holds them, so that an
experiment with other settings, other runs or without a file is no obstacle.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dvc.api
from dvc.exceptions import DvcException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tqdm import tqdm

from .errors import UserError
from .files import replacing
from .report import arm

Row = dict[str, Any]
SOURCES = {"metrics/summary.json": "", "metrics/comparison.json": "comparison."}  # file of {run: {metric: number}} -> prefix
FIXED = ("experiment", "revision", "baseline", "state", "created")
ABOUT = ("run", "arm", "round", "judge", "policy", "simulated", "supervised", "metric", "value")
ALWAYS = ("seed", "split.initial_fraction")  # settings that stand in the table though they be equal


def text_at(revision: str, path: str, repository: Path) -> str | None:
    """A file's text in a commit, None where the commit lacks it."""
    done = subprocess.run(["git", "show", f"{revision}:./{path}"], cwd=repository, capture_output=True)
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def numbers_at(revision: str, path: str, repository: Path) -> dict[str, dict[str, float]]:
    """{run: {metric: number}} of a commit; what is missing, no JSON, or no number, is left out."""
    text = text_at(revision, path, repository)
    try:
        content = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    if not isinstance(content, dict):
        return {}
    runs = {run: row for run, row in content.items() if isinstance(row, dict)}
    return {run: {k: v for k, v in row.items() if isinstance(v, (int, float)) and not isinstance(v, bool)} for run, row in runs.items()}


def settings_at(revision: str, repository: Path) -> Row:
    """params.yaml of a commit as it is, unchecked: it may be of another version of this project."""
    try:
        content = YAML(typ="safe").load(text_at(revision, "params.yaml", repository) or "")
    except YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """{dotted key: value}; lists as JSON."""
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in flatten(part, f"{prefix}.{name}" if prefix else str(name)).items()}
    return {prefix: json.dumps(value) if isinstance(value, list) else value}


def about(run: str, settings: Row) -> Row:
    """What a commit's settings say of a run; None where they say nothing."""
    runs, judges = settings.get("runs") or {}, settings.get("judges") or {}
    line = runs.get(run) if isinstance(runs, dict) else None
    line = line if isinstance(line, dict) else {}
    judge = judges.get(line.get("judge")) if isinstance(judges, dict) else None
    kind = judge.get("kind") if isinstance(judge, dict) else None
    number, current = (0 if run == "start" else 1), line.get("prev")
    seen: set[Any] = {run}
    while isinstance(runs, dict) and isinstance(runs.get(current), dict) and current not in seen:
        seen.add(current)
        number, current = number + 1, runs[current].get("prev")
    return {
        "run": run, "arm": arm(run), "round": number, "judge": line.get("judge"), "policy": line.get("policy", "pool") if line else None,
        # a judge that asks a (simulated) human where it is not sure is simulated too
        "simulated": kind in ("human", "noisy") or bool(isinstance(judge, dict) and judge.get("human")),
        "supervised": line.get("policy") == "annotate" and kind == "never",
    }  # fmt: skip


def experiments(commits: int, repository: Path) -> list[Row]:
    """Commits and the experiments that began at them, as DVC lists them, without the working tree.

    Args:
        commits: how many of the last commits; negative: all.

    Raises:
        UserError: DVC cannot list them.
    """
    try:
        listed = dvc.api.exp_show(str(repository), num=commits)
    except DvcException as error:
        raise UserError(f"{repository}: experiments cannot be listed: {error}") from None
    rows, baseline = [], None
    for row in listed:
        if row["rev"] == "workspace":
            continue
        if row["typ"] == "baseline":
            baseline = row["rev"]
        done = subprocess.run(["git", "show", "-s", "--format=%H %cI", row["rev"]], cwd=repository, capture_output=True, text=True)
        revision, _, created = done.stdout.strip().partition(" ")
        rows.append({
            "experiment": row.get("Experiment") or row["rev"], "revision": revision or row["rev"], "baseline": baseline,
            "state": row.get("State") or "Committed", "created": created or None,
        })  # fmt: skip
    return rows


def table(found: list[Row], repository: Path) -> tuple[list[str], list[Row]]:
    """Column names and rows.

    An experiment that failed or waits has one row without run, metric and value, so that it is not forgotten. Columns of settings are
    those of `ALWAYS`, and those that differ between experiments.
    """
    settings = {row["revision"]: settings_at(row["revision"], repository) for row in found}
    flat = {revision: flatten(content) for revision, content in settings.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    missing = object()
    differing = [key for key in keys if len({json.dumps(v.get(key), default=str) if key in v else missing for v in flat.values()}) > 1]
    columns = list(dict.fromkeys([*ALWAYS, *differing]))
    rows = []
    for experiment in tqdm(found, desc="reading experiments", unit="experiment"):
        revision = experiment["revision"]
        head = {**experiment, **{key: flat[revision].get(key) for key in columns}}
        own = []
        if experiment["state"] in ("Success", "Committed"):
            for path, prefix in SOURCES.items():
                for run, numbers in numbers_at(revision, path, repository).items():
                    facts = about(run, settings[revision])
                    own += [{**head, **facts, "metric": prefix + name, "value": value} for name, value in numbers.items()]
        rows += own or [{**head, **dict.fromkeys(ABOUT)}]
    return [*FIXED, *columns, *ABOUT], rows


def write(columns: list[str], rows: list[Row], csv_path: Path | None, parquet: Path | None) -> None:
    """Write the table; Parquet with mixed settings (a number here, a word there) as text.

    Raises:
        UserError: Parquet without pyarrow.
    """
    if csv_path:
        with replacing(csv_path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
    if parquet:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UserError("--parquet needs pyarrow: pip install pyarrow") from None
        data = {}
        for name in columns:
            values = [row.get(name) for row in rows]
            if name == "value":
                values = [None if v is None else float(v) for v in values]
            kinds = {type(v) for v in values if v is not None}
            data[name] = values if len(kinds) <= 1 else [None if v is None else str(v) for v in values]
        with replacing(parquet) as temporary:
            pyarrow.parquet.write_table(pyarrow.table(data), temporary)


def read(path: Path) -> list[Row]:
    """A written CSV again, its numbers as numbers.

    Raises:
        UserError: the file is missing or not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `make study` writes it") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from None
    if rows and not {"experiment", "run", "metric", "value", *ALWAYS} <= set(rows[0]):
        raise UserError(f"{path}: not a study table (columns experiment, run, metric, value, {', '.join(ALWAYS)} are expected)")
    try:
        return [
            {**row, "value": float(row["value"]) if row["value"] else None, "round": int(row["round"]) if row["round"] else None,
             "fraction": float(row["split.initial_fraction"]) if row["split.initial_fraction"] else None,
             "simulated": row["simulated"] == "True", "supervised": row["supervised"] == "True"}
            for row in rows
        ]  # fmt: skip
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def sweep_points(rows: list[Row]) -> list[Row]:
    """Points of `figures.arms.sweep` from a study's rows: each experiment's runs with AP and hours; every arm's first is `start`."""
    numbers: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row["run"]:
            one = numbers.setdefault((row["revision"], row["run"]), {**row, "metrics": {}})
            one["metrics"][row["metric"]] = row["value"]
    points = []
    for (revision, run), row in numbers.items():
        if run == "start":
            continue
        label = row["arm"] + (" (simulated)" if row["simulated"] else "")
        chain = [row]
        if row["round"] == 1 and not row["supervised"] and (revision, "start") in numbers:
            chain.insert(0, numbers[revision, "start"])
        points += [
            {"experiment": row["experiment"], "fraction": row["fraction"], "arm": label, "round": one["round"],
             "supervised": row["supervised"],  "human_hours": one["metrics"]["human_hours"], "mask_AP": one["metrics"]["mask_AP"]}
            for one in chain if one["metrics"].get("human_hours") is not None and one["metrics"].get("mask_AP") is not None
        ]  # fmt: skip
    return points


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vlm_itl.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="write it as Parquet (needs pyarrow)")
    parser.add_argument("--commits", type=int, default=1, metavar="N", help="experiments of the last N commits, -1: of all (default 1)")
    arguments = parser.parse_args(argv)
    if not arguments.csv and not arguments.parquet:
        parser.error("say where to write: --csv FILE, --parquet FILE")
    try:
        found = experiments(arguments.commits, Path("."))
        columns, rows = table(found, Path("."))
        write(columns, rows, arguments.csv, arguments.parquet)
    except UserError as error:
        sys.exit(f"error: {error}")
    empty = [row for row in rows if row["metric"] is None]
    print(f"{len(found)} experiments and commits, {len(rows) - len(empty)} numbers")
    for row in empty:
        print(f"without numbers: {row['experiment']} ({row['state']})")


if __name__ == "__main__":
    main()
