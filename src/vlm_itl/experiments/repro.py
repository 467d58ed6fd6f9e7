"""`dvc repro --keep-going`, stages side by side, and at its end what became of the runs: which are complete, what failed and why.

DVC runs one stage after the other; several of it may run in one repository if their stages are independent. So each is given stages that
can run now, and the next is started as soon as what it needs is there.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import psutil
from dvc.exceptions import NotDvcRepoError
from dvc.lock import LockError
from dvc.repo import Repo
from tqdm import tqdm

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import scratch
from vlm_itl.core.redact import say
from vlm_itl.core.runs import chain
from vlm_itl.pipeline.stage import error_file
from vlm_itl.settings import Settings, check

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NAMED = re.compile(r"^(?:Running stage|Stage) '([^']+)'", re.MULTILINE)  # what DVC says of a stage that it runs or leaves out
MEMORY = 2 * 2**30  # bytes that a stage may need
PATIENCE = 10  # seconds after Ctrl-C in which a DVC may end what it does between two stages
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
    """A command of DVC: its words after `dvc`, where its output goes (None: to this terminal), and the stages that it is given."""

    name: str
    words: tuple[str, ...]
    log: Path | None = None
    stages: tuple[str, ...] = ()


class Jobs:
    """Jobs that wait for nothing but a free place."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.waiting = list(jobs)
        self.status: dict[str, int] = {}

    def next(self) -> Job | None:
        """A job that can start now, if there is one."""
        return self.waiting.pop(0) if self.waiting else None

    def heard(self, job: Job, stage: str) -> None:
        """A job's DVC has come to a stage."""

    def ended(self, job: Job, status: int) -> None:
        """A job has ended, with this exit status of DVC."""
        self.status[job.name] = status


class Stages(Jobs):
    """Stages not yet run, given out as jobs. What an arm needs by itself is one job, since each start of DVC takes seconds.

    A stage is there once its job's DVC has come to the next one. After a failure what depends on it is left out, and nothing else.
    """

    def __init__(self, depends: nx.DiGraph, stages: set[str], group: Callable[[str], str], logs: Path) -> None:
        super().__init__(())
        self.depends, self.group, self.logs = depends, group, logs
        self.stages = [stage for stage in in_order(depends) if stage in stages]  # that wait
        self.missing = set(stages)
        self.at: dict[Job, int] = {}  # how many of a job's stages are there

    def next(self) -> Job | None:
        for first in self.stages:
            own: list[str] = []
            for stage in self.stages:
                if self.group(stage) == self.group(first) and not self.missing.intersection(self.depends[stage]).difference(own):
                    own.append(stage)
            if own:
                self.stages = [stage for stage in self.stages if stage not in own]
                # each stage by itself: DVC would lock what it depends on for writing, though it only looks whether that changed
                name = f"{len(self.at) + 1:02} {own[0]}"
                job = Job(name, ("repro", "--single-item", *own), self.logs / f"{name.replace(' ', '-')}.log", tuple(own))
                self.at[job] = 0
                return job
        return None

    def heard(self, job: Job, stage: str) -> None:
        if stage in job.stages:
            self.at[job] = max(self.at[job], job.stages.index(stage))
            self.missing.difference_update(job.stages[: self.at[job]])

    def ended(self, job: Job, status: int) -> None:
        super().ended(job, status)
        if status == 0:
            self.missing.difference_update(job.stages)
            return
        failed = job.stages[self.at[job]]
        lost = {failed, *nx.ancestors(self.depends, failed)}
        waiting = {*self.stages, *job.stages[self.at[job] + 1 :]} - lost
        self.stages = [stage for stage in in_order(self.depends) if stage in waiting]


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold a lock of this repository. The DVCs that are started meanwhile hold it, too, also when this process is killed.

    Raises:
        UserError: somebody else holds it.
    """
    path = scratch() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another `make {name}` is at work here, or a DVC that a killed one left: wait until it has ended, or end it "
                "(ps -ef | grep dvc)"
            ) from None
        os.set_inheritable(file.fileno(), True)
        yield


def run_dvc(*words: str) -> int:
    """Run a command of DVC to its end, or until Ctrl-C has ended its stage. Returns its exit status; 130 after Ctrl-C."""
    return run_jobs(Jobs([Job("dvc", words)]))


def run_jobs(jobs: Jobs, at_once: int = 1, look: Callable[[Collection[Job]], None] = lambda _: None) -> int:
    """Run commands of DVC, so many `at_once`, to their ends, or until Ctrl-C has ended their stages.

    While a stage runs, DVC ignores Ctrl-C; it then takes that stage for a failed one and starts the next. So DVC stands in a
    session of its own, where the terminal's signal does not reach it, and is stopped before its stage hears of it.

    Args:
        look: called again and again meanwhile, with the jobs that run.

    Returns:
        An exit status: 130 after Ctrl-C, that of a job that failed, else 0.
    """
    interrupted: list[float] = []  # when
    before = {number: signal.signal(number, lambda *_: interrupted.append(time.monotonic())) for number in SIGNALS}
    running: dict[Job, psutil.Popen] = {}
    try:
        while True:
            while len(running) < at_once and not interrupted and (job := jobs.next()):
                running[job] = start(job)
            if not running:
                break
            time.sleep(0.05)
            ended = [job for job, dvc in running.items() if dvc.poll() is not None]  # before the last look, which then sees its last words
            look(running)
            if interrupted:
                end([dvc for dvc in running.values() if dvc.poll() is None], time.monotonic() < interrupted[0] + PATIENCE)
            for job in ended:
                jobs.ended(job, 130 if interrupted else running[job].returncode)
                del running[job]
    finally:
        while alive := [dvc for dvc in running.values() if dvc.poll() is None]:  # after an error of ours
            end(alive, patient=False)
            time.sleep(0.05)
        for number, handler in before.items():
            signal.signal(number, handler)
    return 130 if interrupted else next(filter(None, jobs.status.values()), 0)


def start(job: Job) -> psutil.Popen:
    words = ["dvc", "--wait-for-lock", *job.words]  # which another DVC holds between its stages
    if job.log is None:
        return psutil.Popen(words, start_new_session=True, close_fds=False)
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}  # what DVC says is looked for as it comes
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("wb") as log:
        return psutil.Popen(
            words, start_new_session=True, close_fds=False, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )


def end(running: Sequence[psutil.Popen], patient: bool) -> None:
    """Interrupt the stages that DVCs run, wait for their ends, and end the DVCs.

    Args:
        patient: let one between two stages go on, since it may be writing `dvc.lock`: the next call finds it in its next stage, or ended.
            Otherwise it is interrupted, too: it waits for something.
    """
    for dvc in running:
        dvc.send_signal(signal.SIGSTOP)
    stages = {dvc.pid: [process for process in dvc.children(recursive=True) if runs(process)] for dvc in running}
    for dvc in running:
        if not stages[dvc.pid]:
            if not patient:
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
    """The stages in an order in which they can run; of two that could be next, the one with more stages after it, one needing the other."""
    after = dict.fromkeys(depends, 0)
    for stage in nx.topological_sort(depends):  # from those that nothing depends on
        for needed in depends[stage]:
            after[needed] = max(after[needed], after[stage] + 1)
    return list(nx.lexicographical_topological_sort(depends.reverse(copy=False), key=lambda stage: -after[stage]))


def number_at_once(settings: Settings, wanted: int | None) -> int:
    """How many arms or seeds to run side by side.

    Where it is not said: one for each processor of this process where a stage computes with one thread, and as memory has room; one
    where stages use all processors or a GPU.
    """
    if wanted is not None:
        return wanted
    if settings.processor == "native" or settings.detector.device == "cuda" or Path("/dev/nvidia0").exists():
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), psutil.virtual_memory().available // MEMORY))


def graph_and_changes() -> tuple[nx.DiGraph, set[str]]:
    """The stages, with an edge from each to those that it depends on, and those of them that are not as `dvc.lock` records them.

    Raises:
        UserError: this is no DVC repository, or another DVC is at work in it.
    """
    try:
        repository = Repo(str(Path()))
    except NotDvcRepoError:
        raise UserError(f"{Path.cwd()}: no DVC repository; run this in the folder of the clone") from None
    with repository as repo:
        return nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing), not_as_recorded(repo)


def not_as_recorded(repo: Repo) -> set[str]:
    """Stages that are not as `dvc.lock` records them.

    Raises:
        UserError: another DVC is at work in this repository.
    """
    try:
        return set(repo.status(targets=["dvc.yaml"]))
    except LockError:
        raise UserError("another DVC is at work in this repository: wait until it has ended, or end it (ps -ef | grep dvc)") from None


def watched(jobs: Jobs, at_once: int, stages: int, title: str) -> int:
    """Run jobs that have logs, with a progress bar of their stages; what a job that failed said last is shown. Returns as `run_jobs`."""
    read, seen = dict[Job, int](), dict[tuple[Job, str], None]()
    with tqdm(total=stages, desc=title, unit="stage", mininterval=1) as bar:

        def look(running: Collection[Job]) -> None:
            for job in running:
                if job.log and job.log.exists() and job.log.stat().st_size > read.setdefault(job, 0):
                    with job.log.open("rb") as stream:
                        stream.seek(read[job])
                        lines = stream.read().rpartition(b"\n")[0]  # the last line may not be whole yet
                    read[job] += len(lines)
                    for stage in NAMED.findall(lines.decode(errors="replace")):
                        seen[job, stage] = None
                        jobs.heard(job, stage)
            last = {job: stage for job, stage in seen if job in running}
            bar.set_postfix_str(", ".join(last.values()), refresh=False)
            bar.update(len(seen) - len(last) - bar.n)

        status = run_jobs(jobs, at_once, look)
        bar.set_postfix_str("", refresh=False)
        bar.update(len(seen) - bar.n)
    for job in read:
        if jobs.status[job.name] not in (0, 130) and job.log:
            rows = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
            for row in rows[-TAIL:] or [f"{job.name}: exit status {jobs.status[job.name]}, and nothing in {job.log}; is the disk full?"]:
                say(row)
    return status


def repro(settings: Settings, at_once: int) -> int:
    """Run the experiment. Returns an exit status: 130 after Ctrl-C, DVC's of what failed, else 0."""
    depends, changed = graph_and_changes()
    if "code" in changed:  # everything depends on it, and what it lists says what else has to run
        if status := run_dvc("repro", "--single-item", "code"):
            return status
        depends, changed = graph_and_changes()
    stale = {stage for stage in depends if stage in changed or nx.descendants(depends, stage) & changed}
    if at_once == 1 or len(stale) <= 1:
        return run_dvc("repro", "--keep-going")
    fetched = {stage for one in stale for stage in nx.descendants(depends, one) if stage.endswith(".dvc")}

    def group(stage: str) -> str:
        key = stage.partition("@")[2]
        return chain(settings.runs, key)[0] if key in settings.runs else key

    logs = scratch() / "repro"
    say(f"{len(stale)} stages, {at_once} at once; what they say: {logs}")
    return watched(Stages(depends, stale | fetched, group, logs), at_once, len(stale), "stages")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl repro", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, metavar="N", help="arms side by side; none: as many as processors and memory allow")
    arguments = parser.parse_args(argv)
    try:
        if arguments.at_once is not None and arguments.at_once < 1:
            raise UserError("--at-once: at least one at a time")
        settings = check()
        with alone("repro"):
            status = repro(settings, number_at_once(settings, arguments.at_once))
        if status not in (0, 130):
            depends, changed = graph_and_changes()
            for line in outcome(list(settings.runs), changed, depends):
                say(line)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or scratch()}: {error.strerror}")
    sys.exit(status)


if __name__ == "__main__":
    main()
