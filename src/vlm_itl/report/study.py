"""Experiments to one tidy table, a row an experiment, run and metric; and their arms compared over the seeds of a sweep.

DVC says which experiments there are and what became of them; their numbers are read from their commits, as git holds them, so that an
experiment with other settings, other runs or without a file is no obstacle. What arms are compared by, the matches on the test images,
comes from DVC's cache or remote.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import dvc.api
import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tqdm import tqdm

from vlm_itl.core import timing, typed
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import replacing
from vlm_itl.core.git import git
from vlm_itl.core.redact import line, say
from vlm_itl.core.runs import arm_of, called
from vlm_itl.metrics import matches
from vlm_itl.metrics.rows import Arm, Comparison, planned
from vlm_itl.metrics.verdicts import verdicts
from vlm_itl.registry import POLICIES
from vlm_itl.report import summary as report
from vlm_itl.report.lineage import Lineage, lineage, written
from vlm_itl.report.points import SweepPoint
from vlm_itl.settings import JUDGES, Settings, load, read_yaml

Row = dict[str, Any]
COMPARISON, COST, MATCHES = "metrics/comparison.json", "metrics/cost/{}.json", "artifacts/matches/{}.npz"
SOURCES = {"metrics/summary.json": "", COMPARISON: "comparison."}  # file of {run: {metric: number}} -> prefix
FIXED = ("experiment", "revision", "baseline", "state", "created")
ABOUT = ("run", "arm", "round", "judge", "policy", "simulated", "drawing", "metric", "value")
ALWAYS = ("seed", "split.initial_fraction")  # settings that stand in the table though they be equal
DONE = ("Success", "Committed")
# the first columns of the pooled comparison after group, seeds and settings; what else an arm says follows (`metrics.rows.Arm`)
COMPARED = (
    "run", "against", "simulated", "against_simulated", "assay", "answer", "answer_holm", "reason", "difference", "low", "high",
    "standard_error", "p", "p_worse", "p_holm", "mask_AP", "against_mask_AP", "seeds", "images", "images_needed", "seeds_needed",
)  # fmt: skip
# what the experiment's stages read that git holds: two trees that are equal here run the same experiment
INPUTS = ("dvc.yaml", "stages", "src", "configs", "judges", "data", "data.dvc")


@dataclass(frozen=True)
class Pooled:
    """The verdicts of experiments that differ in nothing but `seed`, taken together: a row of `make study`'s JSON.

    Attributes:
        settings: as text, those that differ between the groups.
        simulated: which of the runs are.
    """

    group: str
    seeds: list[str]
    revisions: list[str]
    settings: dict[str, str | None]
    simulated: list[str]
    comparison: Comparison


def text_at(revision: str, path: str, repository: Path) -> str | None:
    """A file's text in a commit, None where the commit lacks it."""
    done = subprocess.run(["git", "show", f"{revision}:./{path}"], cwd=repository, capture_output=True)
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def json_at(revision: str, path: str, repository: Path) -> Row:
    """The object in a JSON file of a commit; an empty one where the file is missing or holds something else."""
    text = text_at(revision, path, repository)
    try:
        content = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def numbers_at(revision: str, path: str, repository: Path) -> dict[str, dict[str, float]]:
    """{run: {metric: number}} of a commit; what is no number is left out. A comparison's rows are its arms'."""
    content = json_at(revision, path, repository)
    rows = content.get("arms", content) if path == COMPARISON else content
    return {
        run: {k: v for k, v in row.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
        for run, row in (rows.items() if isinstance(rows, dict) else ())
        if isinstance(row, dict)
    }


@functools.cache
def outputs_of(revision: str, repository: Path) -> DVCFileSystem:
    """The outputs of a commit, from DVC's cache or remote."""
    return DVCFileSystem(str(repository), rev=revision)


@functools.lru_cache(maxsize=64)  # many runs are held against the same one, and a remote may be far
def matches_at(revision: str, run: str, repository: Path) -> matches.Matches | None:
    """A run's matches in a commit, None where they cannot be had.

    Raises:
        UserError: they are something else.
    """
    path = MATCHES.format(run)
    try:
        content = outputs_of(revision, repository).read_bytes(path)
    except Exception:  # each kind of remote has errors of its own
        return None
    return matches.load(Path(path), content)


def settings_at(revision: str, repository: Path) -> Row:
    """params.yaml of a commit as it is, unchecked: it may be of another version of this project."""
    try:
        content = YAML(typ="safe", pure=True).load(text_at(revision, "params.yaml", repository) or "")
    except YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


@functools.lru_cache(maxsize=2)
def lock_at(revision: str, repository: Path) -> Any:
    """dvc.lock of a commit, None where it has none that can be read."""
    try:
        return yaml.load(text_at(revision, "dvc.lock", repository) or "", yaml.CSafeLoader)
    except yaml.YAMLError:
        return None


def computing_at(revision: str, settings: Row, repository: Path) -> dict[str, dict[str, float]]:
    """`report.computing` of a commit, as far as it was measured on this machine; nothing where its settings are of another version."""
    try:
        checked = Settings.model_validate(settings)
    except ValidationError:
        return {}
    if checked.check_runs():
        return {}
    made = written(lock_at(revision, repository))
    rows = report.computing(checked, lambda path: timing.machine_seconds(made[path]) if path in made else None)
    return {run: {name: value for name, value in row.items() if value is not None} for run, row in rows.items()}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """{dotted key: value}; lists as JSON."""
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in flatten(part, f"{prefix}.{name}" if prefix else str(name)).items()}
    return {prefix: json.dumps(value) if isinstance(value, list) else value}


def about(run: str, settings: Row) -> Row:
    """What a commit's settings say of a run; None where they say nothing."""
    runs, judges = settings.get("runs") or {}, settings.get("judges") or {}

    def parts(name: Any) -> tuple[Row, Row]:
        """A run's line and its judge's settings, empty where there are none."""
        line = runs.get(name) if isinstance(runs, dict) else None
        judge = judges.get(line.get("judge")) if isinstance(line, dict) and isinstance(judges, dict) else None
        return line if isinstance(line, dict) else {}, judge if isinstance(judge, dict) else {}

    def draws(name: Any) -> bool:
        line, judge = parts(name)
        policy, kind = line.get("policy"), JUDGES.get(str(judge.get("kind")))  # another commit may have had others
        known = POLICIES.get(policy) if isinstance(policy, str) else None
        return known is not None and resolve_name(known).draws_rejected and kind is not None and not kind.takes_part

    line, judge = parts(run)
    kind = JUDGES.get(str(judge.get("kind")))
    chosen = line.get("arm")
    number, current = (0 if run == "start" else 1), line.get("prev")
    seen: set[Any] = {run}
    drawn = draws(run)
    while isinstance(runs, dict) and isinstance(runs.get(current), dict) and current not in seen:
        seen.add(current)
        drawn = drawn and draws(current)
        number, current = number + 1, runs[current].get("prev")
    return {
        "run": run, "arm": arm_of(run, chosen if isinstance(chosen, str) else None), "round": number, "judge": line.get("judge"),
        "policy": line.get("policy", "pool") if line else None,
        "simulated": kind is not None and kind.simulates(judge),
        "drawing": drawn and current == "start",
    }  # fmt: skip


def beginnings(repository: Path) -> set[str]:
    """The commits that experiments began at, finished, failed or waiting ones."""
    refs = [ref.split("/") for ref in (git("for-each-ref", "--format=%(refname)", "refs/exps", repository=repository) or "").split()]
    found = {"".join(ref[2:4]) for ref in refs if len(ref) == 5}  # refs/exps/2 digits/38 digits/NAME
    with Repo(str(repository)) as repo:
        queue = repo.experiments.celery_queue
        found |= {entry.baseline_rev for entry in (*queue.iter_queued(), *queue.iter_active())}
        found |= {done.entry.baseline_rev for done in queue.iter_done()}
    return {revision for revision in found if re.fullmatch("[0-9a-f]{40}", revision)}


def experiments(commits: int, repository: Path) -> tuple[list[Row], str | None]:
    """The last commit and those that experiments began at, with these experiments, as DVC lists them, without the working tree.

    Args:
        commits: how many of the last commits are looked at; negative: all, those of other branches too.

    Returns:
        The rows; where no experiment began at these commits, how many would do, in words.

    Raises:
        UserError: DVC cannot list them.
    """
    history = (git("rev-list", "--first-parent", "HEAD", repository=repository) or "").split()
    try:
        begun = beginnings(repository)
        looked_at = history[:commits] if commits >= 0 else [*history, *sorted(begun - set(history))]
        revisions = [revision for k, revision in enumerate(looked_at) if k == 0 or revision in begun]
        listed = dvc.api.exp_show(str(repository), revs=revisions) if revisions else []
    except DvcException as error:
        raise UserError(f"{repository}: experiments cannot be listed: {error}") from None
    hint = None
    if not begun & set(looked_at):
        depth = next((k for k, revision in enumerate(history, 1) if revision in begun), None)
        hint = "no experiment began at " + ("the last commit" if commits == 1 else "these commits") + (
            f"; COMMITS={depth} make study reaches the latest that has one, COMMITS=-1 all {len(begun)}" if depth
            else f"; COMMITS=-1 make study takes those of other branches ({len(begun)} commits)" if begun else ", nor at any other"
        )  # fmt: skip
    rows, baseline = [], None
    for row in listed:
        if row["rev"] == "workspace":
            continue
        if row["typ"] == "baseline":
            baseline = row["rev"]
        revision, _, created = (git("show", "-s", "--format=%H %cI", row["rev"], repository=repository) or "").partition(" ")
        rows.append({
            "experiment": row.get("Experiment") or row["rev"], "revision": revision or row["rev"], "baseline": baseline,
            # DVC knows the state of queued ones alone; any other has been saved, and so has succeeded
            "state": "Committed" if row["typ"] == "baseline" else row.get("State") or "Success", "created": created or None,
        })  # fmt: skip
    return rows, hint


def differing(flat: Iterable[Row]) -> list[str]:
    """The settings of `ALWAYS`, and those that are not the same in all of these."""
    flat, missing = list(flat), object()
    keys = dict.fromkeys(key for values in flat for key in values)
    unlike = [key for key in keys if len({json.dumps(v.get(key), default=str) if key in v else missing for v in flat}) > 1]
    return list(dict.fromkeys([*ALWAYS, *unlike]))


def table(found: list[Row], settings: dict[str, Row], repository: Path) -> tuple[list[str], list[Row]]:
    """Column names and rows.

    An experiment that failed or waits has one row without run, metric and value, so that it is not forgotten. Columns of settings are
    those of `ALWAYS`, and those that differ between experiments.

    Args:
        found: see `experiments`.
        settings: by revision, see `settings_at`.
    """
    flat = {revision: flatten(content) for revision, content in settings.items()}
    columns = differing(flat.values())
    rows = []
    for experiment in tqdm(found, desc="reading experiments", unit="experiment"):
        revision = experiment["revision"]
        head = {**experiment, **{key: flat[revision].get(key) for key in columns}}
        own = []
        computing = computing_at(revision, settings[revision], repository)
        if experiment["state"] in DONE:
            for path, prefix in SOURCES.items():
                for run, numbers in numbers_at(revision, path, repository).items():
                    facts = about(run, settings[revision])
                    if not prefix:
                        numbers |= computing.get(run, {})
                    own += [{**head, **facts, "metric": prefix + name, "value": value} for name, value in numbers.items()]
        rows += own or [{**head, **dict.fromkeys(ABOUT)}]
    return [*FIXED, *columns, *ABOUT], rows


def of_this_tree(revision: str, repository: Path) -> bool:
    """Whether a commit's experiment is the working tree's but for `seed`: the same settings and the same `INPUTS`."""
    theirs = flatten(settings_at(revision, repository)) | {"seed": None}
    try:
        ours = flatten(read_yaml(repository / "params.yaml")) | {"seed": None}
    except UserError:
        return False
    words = ["git", "diff", "--quiet", revision, "--", *INPUTS]
    return theirs == ours and subprocess.run(words, cwd=repository, capture_output=True).returncode == 0


def lineage_at(revision: str, runs: Iterable[str], repository: Path) -> Lineage | None:
    """What the models and the test of these runs depend on in a commit; see `lineage.lineage` for None."""

    def tracked(folder: str) -> str:
        return git("ls-tree", "-r", revision, "--", folder, repository=repository) or ""

    return lineage(lock_at(revision, repository), map(MATCHES.format, runs), tracked)


def cost_at(revision: str, run: str, repository: Path) -> Row | None:
    """A run's file of costs in a commit, None where it lacks it."""
    content = json_at(revision, COST.format(run), repository)
    return content if all(isinstance(content.get(key), int) for key in ("drawn_instances", "human_decisions")) else None


def pooled(found: list[Row], settings: dict[str, Row], repository: Path, how: Settings) -> tuple[list[Pooled], list[str]]:
    """The verdicts over seeds: of the experiments that differ in nothing but `seed`, taken together.

    Args:
        found: see `experiments`.
        settings: by revision, see `settings_at`.
        how: the settings of the comparison, and the prices; who is held against whom is each experiment's own.

    Returns:
        A row a group of such experiments; and what was left out, in words.

    Raises:
        UserError: the matches of a commit are something else.
    """
    flat = {revision: flatten(content) for revision, content in settings.items()}
    columns = [key for key in differing(flat.values()) if key != "seed"]
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    plans = {}
    left_out = []
    for row in found:
        comparison = json_at(row["revision"], COMPARISON, repository)
        if row["state"] not in DONE or not comparison:
            continue
        plan = planned(comparison)
        made_of = lineage_at(row["revision"], plan.runs, repository) if plan else None
        if plan is None:
            left_out.append(f"{row['experiment']}: its comparison is none of this version's; `dvc repro` and commit")
        elif made_of is None:
            left_out.append(f"{row['experiment']}: dvc.lock does not fit together; `dvc repro` and commit")
        else:
            key = (made_of.key, json.dumps(comparison["plan"], sort_keys=True))
            plans[key] = plan
            groups.setdefault(key, {}).setdefault(made_of.seed, row)
    rows = []
    for (group, of), seeds in tqdm(groups.items(), desc="comparing over seeds", unit="experiment"):
        plan, models, costs, revisions = plans[group, of], defaultdict[str, Row](dict), defaultdict[str, Row](dict), []
        for seed, row in sorted(seeds.items(), key=lambda item: (len(item[0]), item[0])):
            revision = row["revision"]
            own = {run: matches_at(revision, run, repository) for run in plan.runs}
            paid = {run: cost_at(revision, run, repository) for run in [*plan.drawing, *plan.judged]}
            if None in own.values() or None in paid.values():
                what = "matches are neither in DVC's cache nor in a remote" if None in own.values() else "costs are not in its commit"
                left_out.append(f"{row['experiment']}: its {what}")
                continue
            revisions.append(revision)
            for run in plan.runs:
                models[run][seed] = own[run]
            for run in paid:
                costs[run][seed] = paid[run]
        if revisions:
            rows.append(Pooled(
                group=group, seeds=list(models[plan.runs[0]]), revisions=revisions,
                settings={key: None if (value := flat[revisions[0]].get(key)) is None else str(value) for key in columns},
                simulated=[run for run in plan.runs if about(run, settings[revisions[0]])["simulated"]],
                comparison=verdicts(plan, models, costs, how.compare, how.evaluate.seconds, how.report.verify_seconds),
            ))  # fmt: skip
    return rows, left_out


def arms_over_seeds(rows: list[Pooled]) -> tuple[list[str], list[Row]]:
    """Column names and a row an arm of `pooled`'s groups."""
    said = dict.fromkeys([*COMPARED, *(field.name for field in fields(Arm))])
    return ["group", "seed", *(rows[0].settings if rows else ()), *said], [
        {"group": one.group, "seed": " ".join(one.seeds), **one.settings, "run": run, **asdict(arm),
         "simulated": run in one.simulated, "against_simulated": arm.against in one.simulated, "assay": one.comparison.assay.sensitive}
        for one in rows for run, arm in one.comparison.arms.items()
    ]  # fmt: skip


def harmless(cell: Any) -> Any:
    """A cell of a CSV; text that a spreadsheet would run as a formula begins with an apostrophe (OWASP, "CSV Injection")."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def write(columns: list[str], rows: list[Row], csv_path: Path | None, parquet: Path | None) -> None:
    """Write the table; Parquet with mixed settings (a number here, a word there) as text.

    Raises:
        UserError: Parquet without pyarrow.
    """
    if csv_path:
        with replacing(csv_path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows({key: harmless(value) for key, value in row.items()} for row in rows)
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


def _read(path: Path, columns: set[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `make study` writes it") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from None
    if rows and not columns <= set(rows[0]):
        raise UserError(f"{path}: not a table of `make study` (columns {', '.join(sorted(columns))} are expected)")
    return rows


def read(path: Path) -> list[Row]:
    """A written table again, its numbers as numbers.

    Raises:
        UserError: the file is missing or not such a table.
    """
    rows = _read(path, {"experiment", "run", "metric", "value", *ALWAYS})
    try:
        return [
            {**row, "value": float(row["value"]) if row["value"] else None, "round": int(row["round"]) if row["round"] else None,
             "fraction": float(row["split.initial_fraction"]) if row["split.initial_fraction"] else None,
             "simulated": row["simulated"] == "True", "drawing": row["drawing"] == "True"}
            for row in rows
        ]  # fmt: skip
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def read_pooled(path: Path) -> list[Pooled]:
    """What `pooled` found, as `make study` wrote it.

    Raises:
        UserError: the file is missing or holds something else.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; `make study` writes it")
    return typed.read(path, list[Pooled], "what `make study` writes; run it again")


def sweep_points(rows: list[Row]) -> list[SweepPoint]:
    """Points of `figures.arms.sweep` from a study's rows: each experiment's runs with AP and hours; every arm's first is `start`."""
    numbers: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row["run"]:
            one = numbers.setdefault((row["revision"], row["run"]), {**row, "metrics": {}})
            one["metrics"][row["metric"]] = row["value"]
    points: dict[tuple[Any, ...], SweepPoint] = {}
    for (revision, run), row in numbers.items():
        if run == "start":
            continue
        chain = [row]
        if row["round"] == 1 and not row["drawing"] and (revision, "start") in numbers:
            chain.insert(0, numbers[revision, "start"])
        for one in chain:
            hours, ap = one["metrics"].get("human_hours"), one["metrics"].get("mask_AP")
            if hours is not None and ap is not None:
                point = SweepPoint(
                    experiment=row["experiment"], fraction=row["fraction"], arm=called(row["arm"], row["simulated"]), round=one["round"],
                    run=one["run"], drawing=row["drawing"], human_hours=hours, mask_AP=ap,
                )  # fmt: skip
                # a sweep may hold its baseline once more; equal settings give equal numbers, which are one training's
                points.setdefault((row["seed"], replace(point, experiment="")), point)
    return list(points.values())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table as CSV")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="write it as Parquet (needs pyarrow)")
    parser.add_argument("--arms", type=Path, metavar="FILE", help="write the arms compared over seeds as CSV")
    parser.add_argument(
        "--pooled", type=Path, metavar="FILE", help="write all verdicts over seeds as JSON (settings: `compare` of params.yaml)"
    )
    parser.add_argument(
        "--commits", type=int, default=1, metavar="N", help="experiments that began at the last N commits, -1: at any (default 1)"
    )
    arguments = parser.parse_args(argv)
    if not any((arguments.csv, arguments.parquet, arguments.arms, arguments.pooled)):
        parser.error("say where to write: --csv FILE, --parquet FILE, --arms FILE, --pooled FILE")
    here = Path(".")
    try:
        found, hint = experiments(arguments.commits, here)
        settings = {row["revision"]: settings_at(row["revision"], here) for row in found}
        columns, rows = table(found, settings, here)
        write(columns, rows, arguments.csv, arguments.parquet)
        left_out: list[str] = []
        if arguments.arms or arguments.pooled:
            over_seeds, left_out = pooled(found, settings, here, load())
            if arguments.arms:
                write(*arms_over_seeds(over_seeds), arguments.arms, None)
            if arguments.pooled:
                typed.write(arguments.pooled, over_seeds)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(line(f"error: {error.filename or here}: {error.strerror}"))
    empty = [row for row in rows if row["metric"] is None]
    say(f"{len(found)} experiments and commits, {len(rows) - len(empty)} numbers")
    for row in empty:
        say(f"without numbers: {row['experiment']} ({row['state']})")
    if hint:
        say(hint)
    for what in left_out:
        say(f"left out of the comparison over seeds: {what}")


if __name__ == "__main__":
    main()
