"""`make repro` without the set-up: an arm fails alone, the last lines say what became of the runs, and Ctrl-C ends it all."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import networkx as nx
import psutil
import pytest
from conftest import ROOT

from vlm_itl.experiments.repro import Stages, main, outcome

GRAPH = """
stages:
  start:
    cmd: touch start
    outs: [start]
  judge:
    foreach: ${runs}
    do:
      cmd: touch judge-${key} && COMMAND
      deps: [start]
      outs: ["judge-${key}"]
  evaluate:
    foreach: ${runs}
    do:
      cmd: cp judge-${key} evaluate-${key}
      deps: ["judge-${key}"]
      outs: ["evaluate-${key}"]
  report:
    cmd: touch report
    deps: [evaluate-human-1, evaluate-calibrated-1, evaluate-always-1, evaluate-draw-none, evaluate-draw-few, evaluate-ceiling]
    outs: [report]
"""


@pytest.fixture
def project(tmp_path):
    """A DVC project with the default's settings and a graph that needs no time; what each judge's command does besides is given."""
    for name in ("judges", "configs", "data/synthetic"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_", "VLM_ITL_"))}
    env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src"),
            "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site-cache")}  # fmt: skip
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=tmp_path, env=env, check=True)

    started = []

    def start(command: str, at_once: int = 1) -> subprocess.Popen:
        (tmp_path / "dvc.yaml").write_text(GRAPH.replace("COMMAND", command))
        started.append(subprocess.Popen(
            [sys.executable, "-m", "vlm_itl.experiments.repro", f"--at-once={at_once}"], cwd=tmp_path, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ))  # fmt: skip
        return started[-1]

    start.folder = tmp_path
    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def test_where_there_is_nothing_to_run_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "configs", "judges", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    with pytest.raises(SystemExit, match=rf"^error: {tmp_path}: no DVC repository; run this in the folder of the clone$"):
        main([])
    with pytest.raises(SystemExit, match=r"^error: --at-once: at least one at a time$"):
        main(["--at-once", "0"])


def test_what_became_of_the_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("VLM_ITL_SCRATCH", str(tmp_path))
    (tmp_path / "errors").mkdir()
    (tmp_path / "errors/calibrate@sure.txt").write_text("nothing was accepted")
    (tmp_path / "errors/judge@a-1.txt").write_text("of another day")
    depends = nx.DiGraph([("judge@a-1", "start"), ("judge@b-1", "calibrate@sure"), ("train@b-1", "judge@b-1"), ("report", "train@b-1"),
                          ("report", "judge@a-1"), ("calibrate@sure", "start"), ("judge@c-1", "start")])  # fmt: skip
    assert outcome(["a-1", "b-1", "c-1"], {"calibrate@sure", "judge@b-1", "train@b-1", "report", "judge@c-1"}, depends) == [
        "complete: a-1",
        "not complete: b-1, c-1",
        "failed: calibrate@sure: nothing was accepted",
        "failed: judge@c-1: its error stands above",
        "the report waits for all runs: mend this, or take the incomplete ones out of `runs`, and run it again",
    ]
    assert outcome(["a-1"], {"consistency@x"}, nx.DiGraph([("consistency@x", "start"), ("judge@a-1", "start")])) == [
        "complete: a-1", "failed: consistency@x: its error stands above",
    ]  # fmt: skip


@pytest.mark.parametrize("at_once", [1, 3])
def test_an_arm_fails_alone(project, at_once):
    process = project("test ${key} != calibrated-1", at_once)
    said, _ = process.communicate(timeout=120)
    assert process.returncode not in (0, 130), said
    assert said.splitlines()[-4:] == [
        "complete: human-1, always-1, draw-none, draw-few, ceiling", "not complete: calibrated-1",
        "failed: judge@calibrated-1: its error stands above",
        "the report waits for all runs: mend this, or take the incomplete ones out of `runs`, and run it again",
    ]  # fmt: skip
    process = project("true", at_once)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert (project.folder / "report").exists()


def test_arms_run_side_by_side(project):
    """Each waits for the other: one after the other they would wait for ever."""
    wait = "i=0; until test $(ls started-* | wc -l) -ge 2; do i=$((i+1)); test $i -lt 600; sleep 0.1; done"
    process = project(f"touch started-${{key}} && {wait}", 2)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "14 stages, 2 at once" in said
    assert (project.folder / "report").exists()


def test_where_another_dvc_works_it_says_so(project):
    project("true").communicate(timeout=120)
    with (project.folder / ".dvc/tmp/lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = project("echo changed", 2)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said.startswith("error: another DVC is at work in this repository: ")
    assert said.count("\n") == 1


def test_what_a_killed_one_left_is_not_joined(project):
    """Its DVC and the stage run on, in sessions of their own."""
    process = project("touch started-${key}; sleep 60", 2)
    wait_for_stages(project, 2)
    process.kill()
    process.wait(timeout=60)
    left = [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(project.folder)]
    try:
        said, _ = project("true", 2).communicate(timeout=120)
        assert said.startswith("error: another `make repro` is at work here, or a DVC that a killed one left: ")
        assert said.count("\n") == 1
    finally:
        for one in left:
            one.kill()
        psutil.wait_procs(left, timeout=60)
    said, _ = (process := project("true", 2)).communicate(timeout=240)
    assert process.returncode == 0, said


def in_jobs() -> Stages:
    """Two runs a and b after a start, a measure of it, probes before b's judge, and a report of both."""
    needs = {"start": "split", "probes": "split", "measure": "start", "judge@a": "start", "train@a": "judge@a", "gallery@a": "judge@a",
             "judge@b": "start probes", "train@b": "judge@b", "report": "train@a train@b"}  # fmt: skip
    depends = nx.DiGraph([(stage, one) for stage, several in needs.items() for one in several.split()])
    return Stages(depends, set(depends), lambda stage: stage.partition("@")[2], Path("logs"))


def test_a_stage_runs_as_soon_as_what_it_needs_is_there():
    stages = in_jobs()
    shared = stages.next()
    assert shared.stages == ("split", "start", "probes", "measure")
    assert shared.words == ("repro", "--single-item", *shared.stages)
    stages.heard(shared, "start")  # it has begun
    assert stages.next() is None
    stages.heard(shared, "probes")
    a = stages.next()
    assert a.stages == ("judge@a", "train@a", "gallery@a")
    assert stages.next() is None
    stages.heard(shared, "measure")
    b = stages.next()
    assert b.stages == ("judge@b", "train@b")
    for job in (shared, a):
        stages.ended(job, 0)
    assert stages.next() is None
    stages.ended(b, 0)
    assert stages.next().stages == ("report",)


def test_what_does_not_need_a_stage_that_failed_runs():
    stages = in_jobs()
    shared = stages.next()
    stages.heard(shared, "probes")
    stages.ended(shared, 1)  # the probes, with the measure after them
    assert [stages.next().stages, stages.next().stages] == [("judge@a", "train@a", "gallery@a"), ("measure",)]
    stages = in_jobs()
    stages.ended(stages.next(), 0)
    a = stages.next()
    stages.heard(a, "train@a")
    stages.ended(a, -9)  # a whole DVC was killed
    assert [stages.next().stages, stages.next().stages, stages.next()] == [("judge@b", "train@b"), ("gallery@a",), None]


def wait_for_stages(project, number: int = 1) -> None:
    end = time.monotonic() + 60
    while len(list(project.folder.glob("started-*"))) < number:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("at_once", [1, 2])
def test_ctrl_c_ends_all_of_it(project, at_once):
    """DVC alone would take the stage that Ctrl-C ended for one that failed, and go on with the next."""
    process = project("touch started-${key} && sleep 60", at_once)
    wait_for_stages(project, at_once)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert len(list(project.folder.glob("started-*"))) == at_once
    assert "complete" not in said
    process = project("true", at_once)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said


def test_ctrl_c_waits_for_what_the_stage_still_writes(project):
    """A stage that takes Ctrl-C finishes what it has begun, before anything else runs or ends."""
    process = project("trap 'sleep 1; touch ended-${key}; exit 130' INT; touch started-${key}; while true; do sleep 0.1; done")
    wait_for_stages(project)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert len(list(project.folder.glob("started-*"))) == len(list(project.folder.glob("ended-*"))) == 1
