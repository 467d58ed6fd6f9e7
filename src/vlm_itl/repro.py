"""`dvc repro --keep-going`, arms side by side, and at its end what became of the runs: which are complete, what failed and why.

Arms share what lies before them and what brings them together, and nothing else. DVC runs one stage after the other; several of it may run
in one repository if their stages are independent. So here one DVC runs what arms share, several then run an arm each, and one the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import psutil
from dvc.repo import Repo
from tqdm import tqdm

from .base.errors import UserError
from .base.files import scratch
from .base.redact import say
from .base.settings import Run, Settings, chain, check
from .base.stage import error_file

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NAMED = re.compile(r"^(?:Running stage|Stage) '([^']+)'", re.MULTILINE)  # what DVC says of a stage that it runs or leaves out
MEMORY = 2 * 2**30  # bytes that a stage may need
TAIL = 40  # lines of a log that are shown after an error


def outcome(runs: list[str], changed: set[str], depends: nx.DiGraph) -> list[str]:
    """Lines for a terminal.

    Args:
        runs: of params.yaml.
        changed: stages that are not as `dvc.lock` records them.
        depends: an edge from each stage to those that it depends on.
    """
    failed = [stage for stage in depends if stage in changed and not nx.descendants(depends, stage) & changed]
    complete = [run for run in runs if not any(stage.partition("@")[2] == run for stage in changed)]
    lines = [f"complete: {', '.join(complete) or 'no run'}"]
    if len(complete) < len(runs):
        lines.append(f"not complete: {', '.join(run for run in runs if run not in complete)}")
    for stage in failed:
        file = error_file(stage)
        lines.append(f"failed: {stage}: {file.read_text(encoding='utf-8') if file.exists() else 'its error stands above'}")
    if failed and "report" in changed:
        lines.append("the report waits for all runs: mend this, or take the incomplete ones out of `runs`, and run it again")
    return lines


@dataclass(frozen=True)
class Job:
    """A command of DVC: its words after `dvc`, and where its output goes; None: to this terminal."""

    name: str
    words: tuple[str, ...]
    log: Path | None = None


def run_dvc(*words: str) -> int:
    """Run a command of DVC to its end, or until Ctrl-C has ended its stage. Returns its exit status; 130 after Ctrl-C."""
    return run_jobs([Job("dvc", words)])["dvc"]


def run_jobs(jobs: Sequence[Job], at_once: int = 1, look: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Run commands of DVC, so many `at_once`, to their ends, or until Ctrl-C has ended their stages.

    While a stage runs, DVC ignores Ctrl-C; it then takes that stage for a failed one and starts the next. So DVC stands in a
    session of its own, where the terminal's signal does not reach it, and is stopped before its stage hears of it.

    Args:
        look: called again and again meanwhile.

    Returns:
        {name: exit status}; 130 for all of them after Ctrl-C.
    """
    interrupted: list[bool] = []
    before = {number: signal.signal(number, lambda *_: interrupted.append(True)) for number in SIGNALS}
    waiting, running, ended = list(jobs), dict[str, psutil.Popen](), dict[str, int]()
    try:
        while running or (waiting and not interrupted):
            while waiting and len(running) < at_once and not interrupted:
                job = waiting.pop(0)
                running[job.name] = start(job)
            time.sleep(0.05)
            look()
            if interrupted:
                end([dvc for dvc in running.values() if dvc.poll() is None])
            for name in [name for name, dvc in running.items() if dvc.poll() is not None]:
                ended[name] = running.pop(name).returncode
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return {job.name: 130 if interrupted else ended[job.name] for job in jobs}


def start(job: Job) -> psutil.Popen:
    words = ["dvc", "--wait-for-lock", *job.words]  # which another DVC holds between its stages
    if job.log is None:
        return psutil.Popen(words, start_new_session=True)
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}  # what DVC says is looked for as it comes
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("wb") as log:
        return psutil.Popen(words, start_new_session=True, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def end(running: Sequence[psutil.Popen]) -> None:
    """Interrupt the stages that DVCs run, wait for their ends, and end the DVCs; interrupt those between two stages themselves."""
    for dvc in running:
        dvc.send_signal(signal.SIGSTOP)
    stages = {dvc.pid: [process for process in dvc.children(recursive=True) if runs(process)] for dvc in running}
    for dvc in running:
        if not stages[dvc.pid]:
            dvc.send_signal(signal.SIGINT)
            dvc.send_signal(signal.SIGCONT)
    for process in (process for own in stages.values() for process in own):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
    for dvc in running:
        if stages[dvc.pid]:
            while any(runs(process) for process in stages[dvc.pid]):
                time.sleep(0.05)
            dvc.kill()
            dvc.wait()


def runs(process: psutil.Process) -> bool:
    """Whether the process has not ended. A stopped parent does not collect its children: they stay as zombies."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def in_order(depends: nx.DiGraph) -> list[str]:
    """The stages in an order in which they can run."""
    return list(reversed(list(nx.topological_sort(depends))))


def arms(runs: Mapping[str, Run], depends: nx.DiGraph) -> dict[str, list[str]]:
    """The stages of runs that continue from each other, in an order in which they can run, by the first of these runs."""
    found: dict[str, list[str]] = {}
    for stage in in_order(depends):
        run = stage.partition("@")[2]
        if run in runs:
            found.setdefault(chain(runs, run)[0], []).append(stage)
    return {run: found[run] for run in runs if run in found}


def shared(arms: Mapping[str, list[str]], depends: nx.DiGraph) -> list[str]:
    """The stages before an arm that are not its own."""
    needed = {one for own in arms.values() for stage in own for one in nx.descendants(depends, stage) - set(own)}
    return [stage for stage in depends if stage in needed]


def number_at_once(settings: Settings, wanted: int | None) -> int:
    """How many arms or seeds to run side by side.

    Where it is not said: one for each processor of this process where a stage computes with one thread, and as memory has room; one
    where stages use all processors or a GPU.
    """
    if wanted:
        return max(1, wanted)
    if settings.processor == "native" or settings.detector.device == "cuda" or Path("/dev/nvidia0").exists():
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), psutil.virtual_memory().available // MEMORY))


def graph_and_changes() -> tuple[nx.DiGraph, set[str]]:
    """The stages, with an edge from each to those that it depends on, and those of them that are not as `dvc.lock` records them."""
    with Repo(str(Path())) as repo:
        return nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing), set(repo.status(targets=["dvc.yaml"]))


def watched(jobs: Sequence[Job], at_once: int, stages: int, title: str) -> dict[str, int]:
    """Run jobs that have logs, with a progress bar of their stages; what a job that failed said last is shown."""
    read, seen = dict.fromkeys(jobs, 0), set[tuple[str, str]]()
    with tqdm(total=stages, desc=title, unit="stage", mininterval=1) as bar:

        def look() -> None:
            for job in jobs:
                if job.log and job.log.exists() and job.log.stat().st_size > read[job]:
                    with job.log.open("rb") as stream:
                        stream.seek(read[job])
                        lines = stream.read().rpartition(b"\n")[0]  # the last line may not be whole yet
                    read[job] += len(lines)
                    seen.update((job.name, stage) for stage in NAMED.findall(lines.decode(errors="replace")))
            bar.update(len(seen) - bar.n)

        status = run_jobs(jobs, at_once, look)
        for job in jobs:
            if status[job.name] not in (0, 130) and job.log:
                for row in job.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]:
                    say(row)
    return status


def repro(settings: Settings, at_once: int) -> int:
    """Run the experiment. Returns an exit status: 130 after Ctrl-C, DVC's of what failed, else 0."""
    depends, changed = graph_and_changes()
    stale = {stage for stage in depends if stage in changed or nx.descendants(depends, stage) & changed}
    every = arms(settings.runs, depends)
    found = {run: own for run, own in every.items() if stale & set(own)}
    if at_once == 1 or len(found) <= 1:
        return run_dvc("repro", "--keep-going")
    before = shared(found, depends)
    failed = run_dvc("repro", "--keep-going", *before) if before else 0
    if failed == 130:
        return failed
    of_arms = {stage for own in every.values() for stage in own}
    after = [stage for stage in in_order(depends) if stage not in of_arms and not stage.endswith(".dvc") and stage not in before]
    beside = [stage for stage in after if not nx.descendants(depends, stage) & of_arms]  # measures of `start`, of judges by probes
    together = {**found, **({"start": beside} if beside else {})}
    logs = scratch() / "repro"
    # each stage by itself: DVC would lock what arms share for writing, though it only looks whether it changed
    jobs = [Job(name, ("repro", "--single-item", *own), logs / f"{name}.log") for name, own in together.items()]
    say(f"{len(found)} arms, {at_once} at once; what they say: {logs}")
    status = watched(jobs, at_once, sum(map(len, together.values())), "arms")
    if 130 in status.values():
        return 130
    failed = failed or max(status.values())
    lost = {stage for name, own in together.items() if status[name] for stage in own}
    rest = [stage for stage in after if stage not in beside and not nx.descendants(depends, stage) & lost]
    return (run_dvc("repro", "--keep-going", *rest) if rest else 0) or failed


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vlm_itl.repro", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at-once", type=int, metavar="N", help="arms side by side; none: as many as processors and memory allow")
    arguments = parser.parse_args(argv)
    try:
        settings = check()
        status = repro(settings, number_at_once(settings, arguments.at_once))
        if status not in (0, 130):
            depends, changed = graph_and_changes()
            for line in outcome(list(settings.runs), changed, depends):
                say(line)
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.exit(status)


if __name__ == "__main__":
    main()
