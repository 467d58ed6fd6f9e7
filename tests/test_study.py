"""Which experiments a study finds in a small project of real DVC: queued or not, at which commits; what it says where there are none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from vlm_itl.core import typed
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json
from vlm_itl.core.runs import arm_of
from vlm_itl.metrics import matches
from vlm_itl.metrics.rows import Plan
from vlm_itl.metrics.verdicts import verdicts
from vlm_itl.report import study
from vlm_itl.settings import load

GRAPH = """
stages:
  report:
    cmd: mkdir -p metrics && echo '{"start":{"mask_AP":'$(grep -o '[0-9]*' params.yaml)'}}' > metrics/summary.json
    params: [seed]
    metrics: [{metrics/summary.json: {cache: false}}]
"""


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_"))}
        self.env |= {"PATH": path, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder.parent / "site-cache")}
        self("git", "init", "-q", "-b", "main")
        self("git", "config", "user.email", "test@example.org")
        self("git", "config", "user.name", "test")
        self("dvc", "init", "-q")
        (folder / "params.yaml").write_text("seed: 1\n")
        (folder / "dvc.yaml").write_text(GRAPH)
        self("dvc", "repro")
        self.commit("baseline")

    def __call__(self, *words: str) -> str:
        return subprocess.run(words, cwd=self.folder, env=self.env, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str) -> str:
        self("git", "add", "-A")
        self("git", "commit", "-q", "--allow-empty", "-m", message)
        return self("git", "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """An experiment that ran at once at the first commit, one that waits at the second of 40, and one at another branch's."""
    made = Project(tmp_path_factory.mktemp("study") / "project")
    made("dvc", "exp", "run", "-n", "at-once", "-S", "seed=2")
    made("git", "checkout", "-q", ".")
    made.first = made("git", "rev-parse", "HEAD")
    made("git", "checkout", "-q", "-b", "side")
    made.side = made.commit("on the side")
    made("dvc", "exp", "run", "-n", "aside", "-S", "seed=3")
    made("git", "checkout", "-q", ".")
    made("git", "checkout", "-q", "main")
    made.second = made.commit("second")
    made("dvc", "exp", "run", "--queue", "-n", "waits", "-S", "seed=4")
    return made


def names(rows) -> dict[str, str]:
    return {row["experiment"]: row["state"] for row in rows}


def test_an_experiment_that_was_not_queued_is_one(project, monkeypatch):
    project("git", "checkout", "-q", project.first)
    rows, hint = study.experiments(1, project.folder)
    assert hint is None
    assert names(rows)["at-once"] == "Success"
    assert list(names(rows).values()) == ["Committed", "Success"]
    settings = {row["revision"]: study.settings_at(row["revision"], project.folder) for row in rows}
    _, table = study.table(rows, settings, project.folder)
    assert {(row["experiment"], row["value"]) for row in table if row["experiment"] == "at-once"} == {("at-once", 2)}
    project("git", "checkout", "-q", "main")


def test_commits_without_experiments_are_left_out(project):
    """Forty of them, of which none is listed; how many commits would do is said."""
    for k in range(40):
        head = project.commit(f"commit {k}")
    rows, hint = study.experiments(1, project.folder)
    assert {row["revision"] for row in rows} == {head}
    assert hint == "no experiment began at the last commit; COMMITS=41 make study reaches the latest that has one, COMMITS=-1 all 3"
    rows, hint = study.experiments(41, project.folder)
    assert hint is None
    assert {row["revision"] for row in rows if row["state"] == "Committed"} == {head, project.second}
    assert names(rows)["waits"] == "Queued"
    rows, hint = study.experiments(-1, project.folder)
    assert hint is None
    assert {row["revision"] for row in rows if row["state"] == "Committed"} == {head, project.second, project.first, project.side}
    assert {name: state for name, state in names(rows).items() if state != "Committed"} == {
        "waits": "Queued", "at-once": "Success", "aside": "Success",
    }  # fmt: skip


def test_a_project_without_experiments(tmp_path):
    made = Project(tmp_path / "project")
    rows, hint = study.experiments(-1, made.folder)
    assert (len(rows), hint) == (1, "no experiment began at these commits, nor at any other")


@pytest.mark.parametrize("lock", ["[1, 2]", "stages: [1]", "stages: {compare: [1]}", "]["])
def test_a_lock_that_is_none_gives_no_lineage(project, lock):
    (project.folder / "dvc.lock").write_text(lock)
    project("git", "add", "-A")
    project("git", "commit", "-q", "-m", "lock")
    assert study.lineage_at("HEAD", ["vlm-1", "human-1"], project.folder) is None
    project("git", "reset", "-q", "--hard", "HEAD^")


def test_numbers_of_a_comparison_are_its_arms(project):
    """As this version writes it, and as an earlier one did; what is neither is none."""
    for content in ({"arms": {"a": {"p": 0.5, "answer": "yes"}}, "assay": {}}, {"a": {"p": 0.5}, "b": 3}, {"arms": [1]}, [1]):
        (project.folder / study.COMPARISON).write_text(json.dumps(content))
        project("git", "add", "-A")
        project("git", "commit", "-q", "-m", "numbers")
        found = study.numbers_at("HEAD", study.COMPARISON, project.folder)
        assert found == ({"a": {"p": 0.5}} if isinstance(content, dict) and content.get("arms") != [1] else {})
        project("git", "reset", "-q", "--hard", "HEAD^")


def test_which_runs_draw_random_images():
    """A commit's settings are unchecked: what is missing or odd draws nothing."""
    draw = {"judge": "never", "policy": "annotate"}
    runs = {"a": {**draw, "prev": "start"}, "b": {**draw, "prev": "a"}, "h": {"judge": "human", "prev": "start"},
            "c": {**draw, "prev": "h"}, "t": {**draw, "prev": "teacher"}, "loop": {**draw, "prev": "loop"}, "odd": 3}  # fmt: skip
    settings = {"runs": runs, "judges": {"never": {"kind": "never"}, "human": {"kind": "human"}}}
    assert [run for run in ["start", *runs] if study.about(run, settings)["drawing"]] == ["a", "b"]
    assert study.about("a", {"runs": runs, "judges": [1]})["drawing"] is False


def test_which_experiments_are_this_trees(project):
    """Another seed is; other settings or other code are not."""
    folder = project.folder
    project("git", "checkout", "-q", project.first)
    head = project("git", "rev-parse", "HEAD")
    other = next(row["revision"] for row in study.experiments(1, folder)[0] if row["experiment"] == "at-once")  # of seed 2
    assert study.of_this_tree(head, folder)
    assert study.of_this_tree(other, folder)
    (folder / "dvc.yaml").write_text(GRAPH + "# more\n")
    assert not study.of_this_tree(other, folder)
    project("git", "checkout", "-q", ".")
    (folder / "params.yaml").write_text("seed: 1\nmore: 2\n")
    assert not study.of_this_tree(other, folder)
    (folder / "params.yaml").write_text("seed: [")
    assert not study.of_this_tree(other, folder)
    project("git", "checkout", "-q", ".")
    project("git", "checkout", "-q", "main")


def test_points_of_a_sweep_are_each_training_once():
    """Every arm's first point is its experiment's start; an experiment with the settings of another is no second training."""
    metrics = {"start": (2.0, 0.2), "human-1": (5.0, 0.3), "all": (9.0, 0.4), "failed-1": (3.0, None)}
    rows = [
        {"experiment": name, "revision": name, "seed": "1", "fraction": 0.2, "run": run, "arm": arm_of(run),
         "round": 0 if run == "start" else 1, "simulated": run == "human-1", "drawing": run == "all", "metric": metric, "value": value}
        for name in ("one", "again") for run, values in metrics.items() for metric, value in zip(("human_hours", "mask_AP"), values)
    ]  # fmt: skip
    points = study.sweep_points(rows)
    assert [(p.experiment, p.arm, p.run, p.round, p.drawing, p.human_hours, p.mask_AP) for p in points] == [
        ("one", "human (simulated)", "start", 0, False, 2.0, 0.2), ("one", "human (simulated)", "human-1", 1, False, 5.0, 0.3),
        ("one", "all", "all", 1, True, 9.0, 0.4), ("one", "failed", "start", 0, False, 2.0, 0.2),
    ]  # fmt: skip


def test_a_file_that_cannot_be_written_is_one_line(project, tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "vlm_itl.report.study", "--csv", str(tmp_path / "file/x.csv")],
        cwd=project.folder, capture_output=True, text=True, env={**project.env, "PYTHONPATH": str(Path(study.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert str(tmp_path / "file") in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_no_repository(tmp_path):
    with pytest.raises(UserError, match="experiments cannot be listed"):
        study.experiments(1, tmp_path)


def test_verdicts_over_seeds_are_those_of_all_models_together(tmp_path):
    """Two seeds of one experiment, and one of another setting: what was made with the same is pooled, from DVC's cache and git."""
    from test_ap import matches_of, world

    plan = Plan({"vlm-1": "human-1"}, "human-1", None, ["start"], ["human-1", "vlm-1"], None, "no arm of the judge 'always' in runs")
    truth, results = world(0, images=40, steps=10_000)
    models: dict = {run: {} for run in plan.runs}
    for seed in "12":
        for k, run in enumerate(plan.runs):
            kept = np.random.default_rng([int(seed), k]).random(len(results)) < 0.9 - 0.1 * k
            models[run][seed] = matches_of(truth, [r for r, x in zip(results, kept) if x])
            matches.save(models[run][seed], tmp_path / "given" / seed / f"{run}.npz")
    made = Project(tmp_path / "project")
    outs = ", ".join(f"artifacts/matches/{run}.npz" for run in plan.runs)
    (made.folder / "dvc.yaml").write_text(f"""
stages:
  evaluate:
    cmd: mkdir -p artifacts/matches && cp {tmp_path}/given/$(sed -n "s/^seed. //p" params.yaml)/*.npz artifacts/matches/
    params: [seed, setting, evaluate.seconds]
    outs: [{outs}]
""")
    (made.folder / "params.yaml").write_text("seed: 1\nsetting: 1\nevaluate: {seconds: {verify: 3}}\n")
    (made.folder / "dvc.lock").unlink()
    cost = {run: {"drawn_instances": 90, "human_decisions": 45, "hours": 2} for run in plan.runs}
    for run in plan.runs:
        write_json(made.folder / study.COST.format(run), cost[run])
    write_json(made.folder / study.COMPARISON, {"plan": asdict(plan), "arms": {"vlm-1": {"against": "human-1"}}})
    made("dvc", "repro")
    made.commit("two")
    made("dvc", "exp", "run", "--temp", "-S", "seed=2", "-S", "evaluate.seconds.verify=9")  # another price is the same experiment
    made("dvc", "exp", "run", "--temp", "-S", "setting=2")
    rows, _ = study.experiments(1, made.folder)
    settings = {row["revision"]: study.settings_at(row["revision"], made.folder) for row in rows}
    how = load(ROOT / "params.yaml")
    how = how.model_copy(update={"compare": how.compare.model_copy(update={"replicates": 200})})
    found, left_out = study.pooled(rows, settings, made.folder, how)
    assert left_out == []
    assert sorted(row.seeds for row in found) == [["1"], ["1", "2"]]
    both = next(row for row in found if len(row.seeds) == 2)
    costs = {run: dict.fromkeys("12", cost[run]) for run in plan.runs}
    assert both.comparison == verdicts(plan, models, costs, how.compare, how.evaluate.seconds, how.report.verify_seconds)
    assert both.comparison.arms["vlm-1"].seeds == 2
    columns, arms = study.arms_over_seeds(found)
    assert set(columns) == set(arms[0])
    assert columns == [
        "group", "seed", *both.settings, "run", "against", "simulated", "against_simulated", "assay", "answer", "answer_holm", "reason",
        "difference", "low", "high", "standard_error", "p", "p_worse", "p_holm", "mask_AP", "against_mask_AP", "seeds", "images",
        "images_needed", "seeds_needed", "resampled", "margin", "level", "power", "replicates",
    ]  # fmt: skip
    study.write(columns, arms, tmp_path / "arms.csv", None)
    typed.write(tmp_path / "pooled.json", found)
    assert study.read_pooled(tmp_path / "pooled.json") == found
    assert list(json.loads((tmp_path / "pooled.json").read_text())[0]) == [
        "group", "seeds", "revisions", "settings", "simulated", "comparison",
    ]  # fmt: skip
    # without its matches a seed is named and left out
    shutil.rmtree(made.folder / ".dvc/cache")
    study.outputs_of.cache_clear()
    study.matches_at.cache_clear()
    shutil.rmtree(made.folder / "artifacts")
    found, left_out = study.pooled(rows, settings, made.folder, how)
    assert found == []
    assert len(left_out) == 3
    assert all("matches are neither in DVC's cache nor in a remote" in line for line in left_out)
