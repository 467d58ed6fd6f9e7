"""The real graph, with real DVC and the detector that needs seconds, in temporary clones.

The tests of one clone build on each other's cache, not on each other's outcome: each puts back what it changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline import Clone, ran, stages_of
from ruamel.yaml import YAML

from vlm_itl.report import study

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(900)]

AFTER = {"compare", "report", "figures"}  # what brings runs together


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("first") / "clone")
    shared = {"download", "split", "pretrain", "predict-start", "evaluate-start", "hold-back", "probes"} | AFTER
    assert clone.repro() == shared | stages_of("human-1") | stages_of("vlm-sim-1")
    clone.commit("ran")
    return clone


@pytest.fixture(scope="module")
def second(tmp_path_factory) -> Clone:
    """Another clone that ran under the audit hook."""
    clone = Clone(tmp_path_factory.mktemp("second") / "clone", audited=True)
    clone.repro()
    return clone


def test_there_is_something_to_test(first):
    """The small setting must have proposals, approvals and rejections, or what follows would show nothing."""
    verdicts = [json.loads(line) for line in first.text("loop/vlm-sim-1/verdicts.jsonl").splitlines()]
    assert {v["approve"] for v in verdicts} == {True, False}
    summary = first.json("metrics/summary.json")
    assert set(summary) == {"start", "human-1", "vlm-sim-1"}
    assert summary["vlm-sim-1"]["images_model"] > 0
    assert summary["vlm-sim-1"]["simulated"]


def test_nothing_to_do_runs_nothing(first):
    assert first.repro() == set()
    assert first.run("git", "status", "--porcelain").stdout == ""


def test_changed_judge_runs_that_arm_alone_and_back_restores(first):
    digests = first.digests("loop", "metrics", "artifacts")
    first.settings(lambda p: p["judges"]["vlm-sim"].update(specificity=0.0, recall=1.0))
    changed = first.repro()
    assert changed >= {"judge@vlm-sim-1", "update@vlm-sim-1", "train@vlm-sim-1"}
    assert changed <= stages_of("vlm-sim-1") | AFTER
    first.run("git", "checkout", "-q", "params.yaml")
    assert first.repro() == set()
    assert first.digests("loop", "metrics", "artifacts") == digests


def test_added_run_runs_its_own_stages(first):
    """Also through `dvc exp run`, and the tables that DVC makes of it."""
    done = first.run("dvc", "exp", "run", "dvc.yaml", "-n", "longer", "-S", "+runs.vlm-sim-2={judge:vlm-sim,prev:vlm-sim-1}")
    assert ran(done.stdout) == stages_of("vlm-sim-2") | AFTER
    assert "vlm-sim-2" in first.json("metrics/summary.json")
    shown = first.run("dvc", "exp", "show", "--csv").stdout
    assert "longer" in shown
    assert "vlm-sim-2.mask_AP" in shown
    assert "vlm-sim-2" in first.run("dvc", "params", "diff").stdout
    difference = first.run("dvc", "metrics", "diff", "--json", "--", "HEAD").stdout
    assert "metrics/detection/vlm-sim-2.json" in difference
    first.run("git", "checkout", "-q", ".")
    # what it left is not this state's: it is cleared away, and enters no hash
    assert (first.folder / "artifacts/matches/vlm-sim-2.npz").exists()
    assert first.repro() <= AFTER
    assert first.run("git", "status", "--porcelain").stdout == ""
    assert not (first.folder / "artifacts/matches/vlm-sim-2.npz").exists()
    assert first.repro() == set()
    shutil.rmtree(first.folder / "loop/vlm-sim-2")
    first.run("dvc", "exp", "remove", "longer")  # or it would be one of the study's, in another test


def test_changed_initial_fraction_runs_from_split(first):
    first.settings(lambda p: p["split"].update(initial_fraction=1.0))
    changed = first.repro()
    assert "download" not in changed
    assert changed >= {"split", "pretrain", "predict-start", "judge@human-1", "update@vlm-sim-1", "report"}
    # an empty pool: nothing to judge, and the loop still reaches its end
    summary = first.json("metrics/summary.json")
    assert summary["human-1"]["asked"] == 0
    assert summary["human-1"]["judge_recall"] is None
    assert summary["human-1"]["mask_AP"] is not None
    first.run("git", "checkout", "-q", ".")
    assert first.repro() == set()


def test_commands_of_a_dvc_user(first):
    assert "judge@vlm-sim-1" in first.run("dvc", "dag").stdout
    assert "mask_AP" in first.run("dvc", "metrics", "show").stdout
    spec = json.loads(first.run("dvc", "plots", "show", "--json").stdout)
    assert "human_hours" in json.dumps(spec)


def test_a_queue_of_experiments_and_the_table_of_them(first, tmp_path):
    """By two workers, one that fails, two of another price, two of another seed: what they share is run once, and all are in the tables."""
    head = first.run("git", "rev-parse", "HEAD").stdout.strip()
    first.run("dvc", "exp", "run", "dvc.yaml", "--queue", "-n", "bad", "-S", "judges.human.iou=7")
    first.run("dvc", "exp", "run", "dvc.yaml", "--queue", "-S", "evaluate.seconds.verify=1.6,9")
    first.run("dvc", "exp", "run", "dvc.yaml", "--queue", "-S", "seed=2,3")
    first.run("dvc", "queue", "start", "-j", "2")
    end = time.monotonic() + 900
    while "Queued" in (status := first.run("dvc", "queue", "status").stdout) or "Running" in status:
        assert time.monotonic() < end, status
        if "0 active, 0 idle" in status and "Queued" in status:
            # DVC's queue of files loses a worker to a message that another is writing (kombu); a user starts it again
            first.run("dvc", "queue", "start", "-j", "2")
        time.sleep(2)
    assert (status.count("Success"), status.count("Failed")) == (4, 1), status
    done = re.findall(r"^(\w+)\s.*Success", status, re.MULTILINE)
    apart = [ran(first.run("dvc", "queue", "logs", task).stdout) for task in done]
    assert sorted("pretrain" in stages for stages in apart) == [False, False, True, True]
    for stages in apart:
        assert "report" in stages
        again = {name.split("@")[0] for name in stages}
        assert not again & {"download", "split"}
        if "pretrain" not in stages:
            assert not again & {"judge", "train", "predict"}
    assert "judges.human.iou" in first.run("dvc", "queue", "logs", "bad").stdout
    tables = ["--csv", str(tmp_path / "study.csv"), "--pooled", str(tmp_path / "pooled.json")]
    said = first.run(sys.executable, "-m", "vlm_itl.report.study", *tables, "--commits", "-1", PYTHONPATH="src").stdout
    assert "left out" not in said
    rows = study.read(tmp_path / "study.csv")
    hours = {r["evaluate.seconds.verify"]: r["value"] for r in rows if (r["run"], r["metric"]) == ("human-1", "human_hours")}
    asked = next(r["value"] for r in rows if (r["run"], r["metric"]) == ("human-1", "asked"))
    assert hours["9"] - hours["1.6"] == pytest.approx(asked * 7.4 / 3600, abs=1e-5)
    assert asked > 0
    assert set(hours) == {"1.6", "3", "9"}
    compared = {tuple(row.seeds): row for row in study.read_pooled(tmp_path / "pooled.json")}
    assert set(compared) == {("1", "2", "3")}  # at other prices the models are the same
    over_seeds = compared["1", "2", "3"]
    pooled = over_seeds.comparison.arms["vlm-sim-1"]
    each = {
        r["seed"]: r["value"] for r in rows
        if (r["run"], r["metric"], r["evaluate.seconds.verify"]) == ("vlm-sim-1", "comparison.difference", "3")
    }  # fmt: skip
    assert set(each) == {"1", "2", "3"}
    assert pooled.difference == pytest.approx(sum(each.values()) / 3, abs=2e-6)
    assert (pooled.against, pooled.seeds) == ("human-1", 3)
    assert {"human-1", "vlm-sim-1"} <= set(over_seeds.simulated)
    assert over_seeds.comparison.assay.reference.against == "start"
    (bad,) = (r for r in rows if r["state"] == "Failed")
    assert (bad["experiment"], bad["judges.human.iou"], bad["run"], bad["value"]) == ("bad", "7", "", None)
    assert {r["revision"] for r in rows} >= {head}
    made = first.run(sys.executable, "-m", "vlm_itl.report.page", "--study", tables[1], "--pooled", tables[3], PYTHONPATH="src")
    assert "missing" not in made.stdout
    shown = first.text("artifacts/report/index.html")
    assert "bad" in shown
    assert "3 seeds (1, 2, 3) of the sweep" in shown
    (first.folder / "artifacts/report/index.html").unlink()  # not of the graph: the other clone has none
    assert first.run("git", "status", "--porcelain").stdout == ""


def test_two_clones_give_equal_bytes(first, second):
    ours, theirs = (c.digests("loop", "metrics", "artifacts") for c in (first, second))
    assert len(ours) > 40
    assert ours == theirs


def test_stages_open_only_what_they_declare(second):
    opened = second.opened()
    assert len({stage for stage, _ in opened}) == 23
    assert second.undeclared() == []


def update(clone: Clone, run: str, verdicts: str, truth: str, folder: Path) -> dict[str, bytes]:
    """Run the update stage on what follows `start`; what it writes to `folder`, by kind."""
    new = {kind: folder / f"{run}-{kind}.json" for kind in ("labels", "pool", "ledger")}
    before = [word for kind in (*new, "proposals") for word in (f"--{kind}", f"loop/start/{kind}.json")]
    after = [word for kind, path in new.items() for word in (f"--new-{kind}", str(path))]
    clone.run(sys.executable, "-m", "stages.update", "--run", run, *before, "--verdicts", verdicts, "--truth", truth, *after)
    return {kind: path.read_bytes() for kind, path in new.items()}


def test_poisoned_truth_does_not_reach_labels_or_training(second, tmp_path):
    """Say that what is true of the pool is what the detector proposes on it, and run again what must not know."""
    clone = second
    truth = clone.json("artifacts/split/truth.json")
    proposals = clone.json("loop/start/proposals.json")
    nonsense = {**truth, "annotations": [{**p, "id": k, "iscrowd": 0} for k, p in enumerate(proposals, 1)]}
    everything = clone.json("artifacts/data/train.json")
    pool = {image["id"] for image in truth["images"]}
    everything["annotations"] = [a for a in everything["annotations"] if a["image_id"] not in pool]
    kept = {}
    for name, content in (("artifacts/split/truth.json", nonsense), ("artifacts/data/train.json", everything)):
        path = clone.folder / name
        kept[path] = path.read_bytes()
        path.unlink()
        path.write_text(json.dumps(content))
    try:
        python = [sys.executable, "-m"]
        for run in ("human-1", "vlm-sim-1"):
            for kind, content in update(clone, run, f"loop/{run}/verdicts.jsonl", "artifacts/split/truth.json", tmp_path).items():
                assert content == (clone.folder / f"loop/{run}/{kind}.json").read_bytes(), (run, kind)
        for judge, same in (("confidence", True), ("always", True), ("random", True), ("vlm-sim", False), ("human", False)):
            paths = [tmp_path / f"{judge}-{k}.jsonl" for k in ("poisoned", "right")]
            (tmp_path / "truth.json").write_bytes(kept[clone.folder / "artifacts/split/truth.json"])
            for path, source in zip(paths, ("artifacts/split/truth.json", str(tmp_path / "truth.json")), strict=True):
                clone.run(
                    *python, "stages.judge", "--judge", judge, "--pool", "loop/start/pool.json", "--proposals",
                    "loop/start/proposals.json", "--images", "artifacts/data/images", "--truth", source, "--folder", f"judges/{judge}",
                    "--verdicts", str(path), "--identity", str(tmp_path / "judge.json"), "--metrics", str(tmp_path / "asking.json"),
                )  # fmt: skip
            assert (paths[0].read_bytes() == paths[1].read_bytes()) is same, judge
        clone.run(
            *python, "stages.train", "--schedule", "train", "--configs", "configs", "--labels", "loop/vlm-sim-1/labels.json",
            "--validation", "artifacts/split/validation.json", "--images", "artifacts/data/images", "--previous", "loop/start/model",
            "--model", str(tmp_path / "model"), "--curve", str(tmp_path / "curve.json"), "--metrics", str(tmp_path / "steps.json"),
        )  # fmt: skip
        for made in (tmp_path / "model").iterdir():
            assert made.read_bytes() == (clone.folder / "loop/vlm-sim-1/model" / made.name).read_bytes()
        # and the policies that may know it do
        clone.settings(lambda p: p["runs"].update({"drawn-1": {"judge": "never", "prev": "start", "policy": "annotate"}}))
        rows = [json.loads(line) for line in clone.text("loop/human-1/verdicts.jsonl").splitlines()]
        (tmp_path / "never.jsonl").write_text("".join(json.dumps({**row, "approve": False}) + "\n" for row in rows))
        labels = [
            update(clone, "drawn-1", str(tmp_path / "never.jsonl"), source, tmp_path)["labels"]
            for source in ("artifacts/split/truth.json", str(tmp_path / "truth.json"))
        ]
        assert labels[0] != labels[1]
    finally:
        for path, content in kept.items():
            path.unlink()
            path.write_bytes(content)
        clone.run("git", "checkout", "-q", "params.yaml")


EDITOR = '''
"""Edits a judge's folder at the moment that the judge stage writes its verdicts."""
import os, sys
if "stages.judge" in sys.orig_argv:
    def hook(event, args, done=[]):
        if event == "open" and not done and "verdicts" in os.path.basename(str(args[0])):
            done.append(1)
            with open("judges/vlm-sim/.gitkeep", "a") as file:
                file.write("Be kind.\\n")
    sys.addaudithook(hook)
'''


def test_folder_edited_while_judged_fails_and_records_nothing(first, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(EDITOR)
    first.settings(lambda p: p["judges"]["vlm-sim"].update(specificity=0.3))

    def recorded() -> dict:
        return {name: stage for name, stage in YAML(typ="safe").load(first.text("dvc.lock"))["stages"].items() if name != "code"}

    lock = recorded()
    done = first.run("dvc", "repro", "judge@vlm-sim-1", check=False, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "judges/vlm-sim: changed while the stage ran" in done.stdout
    assert recorded() == lock
    assert not (first.folder / "loop/vlm-sim-1/verdicts.jsonl").exists()
    first.run("git", "checkout", "-q", ".")
    assert first.repro() == set()


def killed(clone: Clone, target: str, module: str, ready) -> str:
    """Start `dvc repro TARGET`, kill -9 the process of its stage when `ready()`; what DVC printed."""
    process = subprocess.Popen(
        ["dvc", "repro", target], cwd=clone.folder, env={**clone.env, "VLM_ITL_CHECKPOINT_SECONDS": "0"}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, folder = (entry / "cmdline").read_bytes().split(b"\0"), (entry / "cwd").readlink()
        except OSError:
            continue
        if folder == clone.folder and module.encode() in words and b"-m" in words:
            os.kill(int(entry.name), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    return output


def test_killed_stages_go_on_through_dvc(first):
    """Training and prediction, really killed: `dvc repro` goes on, ends with the bytes of an unbroken run, and cleans up."""
    first.settings(lambda p: (p["detector"].update(kind="mask_rcnn"), p["pretrain"].update(epochs=15)))
    scratch = first.folder / "scratch"
    lock = first.text("dvc.lock")
    killed(first, "pretrain", "stages.train", lambda: list(scratch.glob("training/*/checkpoint.pth")))
    assert first.text("dvc.lock") == lock
    assert not (first.folder / "loop/start/model/model.pth").exists()
    assert "going on at step" in first.run("dvc", "repro", "pretrain").stdout
    done = lambda: [p for p in scratch.glob("predictions/*/images.jsonl") if p.stat().st_size]  # noqa: E731
    killed(first, "predict-start", "stages.predict", done)
    first.run("dvc", "repro", "predict-start")
    files = [first.folder / "loop/start" / name for name in ("model/model.pth", "curve.json", "proposals.json", "predictions.json")]
    broken = [file.read_bytes() for file in files]
    assert not [p for kind in ("training", "predictions") for p in scratch.glob(f"{kind}/*")]
    first.run("dvc", "repro", "-f", "-s", "pretrain")
    first.run("dvc", "repro", "-f", "-s", "predict-start")
    assert [file.read_bytes() for file in files] == broken
    first.run("git", "checkout", "-q", ".")
    assert first.repro() == set()


def test_restart_and_other_schedules_reach_the_training(first):
    def change(p: dict) -> None:
        p["train"] = {"schedule": "fixed_steps", "steps": 3, "start": "restart", "learning_rate": 0.001,
                      "early_stopping": {"every": 2, "patience": 5}}  # fmt: skip
        p["split"]["validation_fraction"] = 0.3
        p["detector"]["kind"] = "mask_rcnn"

    first.settings(change)
    first.run("dvc", "repro", "train@human-1", "train@vlm-sim-1")
    for run in ("human-1", "vlm-sim-1"):
        numbers = first.json(f"metrics/training/{run}.json")
        assert (numbers["planned"], numbers["steps"]) == (3, 3)
        assert numbers["evaluations"] == 2  # after the second step and the last; none before the first of a restart
    first.run("git", "checkout", "-q", ".")
    assert first.repro() == set()
