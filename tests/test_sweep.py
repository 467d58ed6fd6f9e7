"""`make sweep` without the set-up: each seed once, whatever was there before, and Ctrl-C loses nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from vlm_itl.core.errors import UserError
from vlm_itl.experiments import sweep

GRAPH = """
stages:
  experiment:
    cmd: echo ${seed} ${data.seed} >> "$RUNS" && COMMAND && echo ${seed} > out
    params: [seed, data.seed]
    outs: [out]
"""


@pytest.fixture
def project(tmp_path):
    """A repository with the default's settings and a graph that needs no time, committed after `dvc repro`; it notes each run outside."""
    folder = tmp_path / "project"
    for name in ("judges", "configs", "data/synthetic"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("params.yaml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_", "VLM_ITL_"))}
    env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src"),
            "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site-cache"), "RUNS": str(tmp_path / "runs.txt"),
            **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}}  # fmt: skip

    def call(*words: str) -> str:
        return subprocess.run(words, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout

    started = []

    class Project:
        runs = tmp_path / "runs.txt"

        def graph(self, command: str) -> None:
            (folder / "dvc.yaml").write_text(GRAPH.replace("COMMAND", command))

        def commit(self) -> None:
            call("git", "add", "-A")
            call("git", "commit", "-q", "--allow-empty", "-m", "x")

        def settings(self, change) -> None:
            params = YAML(typ="safe").load((folder / "params.yaml").read_text())
            change(params)
            with (folder / "params.yaml").open("w") as stream:
                YAML(typ="safe").dump(params, stream)

        def start(self, seeds: str, at_once: int = 2, *more: str) -> subprocess.Popen:
            started.append(subprocess.Popen(
                [sys.executable, "-m", "vlm_itl.experiments.sweep", "--seeds", seeds, f"--at-once={at_once}", *more],
                cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            ))  # fmt: skip
            return started[-1]

        def sweep(self, seeds: str, status: int = 0, *more: str) -> list[str]:
            """The lines that it printed of seeds, above its progress bar."""
            process = self.start(seeds, 2, *more)
            said, _ = process.communicate(timeout=240)
            assert process.returncode == status, said
            return [line for line in re.split("[\r\n]+", said) if re.match(r"(seed )?\d+(:| to run:)", line)]

        def ran(self) -> list[str]:
            """Seed and data seed of every run since the last look."""
            lines = self.runs.read_text().splitlines() if self.runs.exists() else []
            self.runs.unlink(missing_ok=True)
            return sorted(lines)

        def status(self) -> str:
            return call("git", "status", "--porcelain")

    made = Project()
    made.graph("true")
    call("git", "init", "-q", "-b", "main")
    call("dvc", "init", "-q")
    call("dvc", "repro")
    made.commit()
    assert made.ran() == ["1 0"]
    yield made
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


@pytest.mark.timeout(300)
def test_each_seed_runs_once(project):
    said = project.sweep("1,2,3")
    assert project.ran() == ["2 0", "3 0"]  # the last commit has the first
    assert said[0].startswith("seed 1: there already (")
    assert said[1].startswith("2 to run: seed 2, seed 3; 2 at once; what they say: ")
    assert project.status() == ""
    said = project.sweep("3,2,1,4")
    assert project.ran() == ["4 0"]
    assert sum("there already" in line for line in said) == 3
    # other settings, not committed: none of those
    project.settings(lambda p: p["data"].update(seed=5))
    project.sweep("1,2")
    assert project.ran() == ["1 5", "2 5"]


@pytest.mark.timeout(300)
def test_ctrl_c_and_a_failure_lose_no_seed_that_is_done(project):
    project.graph('if [ -e go ] || [ ${seed} != 3 ]; then true; else touch "$RUNS.waits"; sleep 60; fi')
    project.commit()
    project.sweep("2")
    process = project.start("2,3,4", at_once=1)
    end = time.monotonic() + 120
    while not Path(f"{project.runs}.waits").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "seed 2: there already" in said
    assert "seed 3: stopped. The same command goes on from here." in said
    assert project.ran() == ["2 0", "3 0"]
    assert project.status() == ""
    project.graph("test ${seed} != 4")
    project.commit()
    said = project.sweep("2,4,5", status=255)
    assert said[-1] == "seed 4: failed; its error stands above. The same command goes on from here."
    assert project.ran() == ["2 0", "4 0", "5 0"]  # by other code, so the second again


@pytest.mark.timeout(300)
@pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed: make cluster")
def test_seeds_as_jobs_of_a_scheduler(project):
    """Each in a clone; what they found is here as if it had run here, and nothing else is."""
    project.graph("test ${seed} != 3")
    project.commit()
    said = project.sweep("1,2,3", 1, "--jobs", "local timeout_min=5")
    assert project.ran() == ["1 0", "2 0", "3 0"]
    assert re.match(r"seed 1: seed-1-\d+$", said[-3])
    assert re.match(r"seed 2: seed-2-\d+$", said[-2])
    assert re.match(r"seed 3: failed: .*; .*scratch/jobs/logs/.* says more$", said[-1])
    assert project.status() == ""
    said = project.sweep("1,2", 0, "--jobs", "local")
    assert project.ran() == []
    assert all("there already" in line for line in said)
    project.settings(lambda p: p["data"].update(seed=5))
    process = project.start("1", 1, "--jobs", "local")
    assert "error: params.yaml: not committed; jobs run clones of the last commit" in process.communicate(timeout=60)[0]


@pytest.mark.parametrize("text", ["", "pbs", "slurm gpus", "slurm a b=", "slurm --x=1", "slurm X=1"])
def test_a_scheduler_that_is_none(text):
    with pytest.raises(UserError, match=r"^--jobs: slurm or local is expected, then key=value"):
        sweep.options_of(text)


def test_options_of_a_scheduler():
    assert sweep.options_of("slurm timeout_min=600 slurm_partition=gpu") == ("slurm", {"timeout_min": "600", "slurm_partition": "gpu"})


@pytest.mark.parametrize("text", ["", "1,,2", "a", "1;2", "-1", "1.5", "\u0661", "1" * 5000, str(2**63)])
def test_seeds_that_are_none(text):
    with pytest.raises(UserError, match="whole numbers with commas"):
        sweep.seeds_of(text)


def test_seeds_are_each_once():
    assert sweep.seeds_of("3, 1,3") == [3, 1]
