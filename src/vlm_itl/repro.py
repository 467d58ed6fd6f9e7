"""`dvc repro --keep-going`, and at its end what became of the runs: which are complete, what failed and why.

DVC leaves out what depends on a failed stage and runs the rest, so the error of that stage stands far above the last line.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path

import networkx as nx
import psutil
from dvc.repo import Repo

from .base.errors import UserError
from .base.redact import say
from .base.settings import check
from .base.stage import error_file

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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


def run_dvc(*words: str) -> int:
    """Run a command of DVC to its end, or until Ctrl-C has ended its stage. Returns its exit status; 130 after Ctrl-C.

    While a stage runs, DVC ignores Ctrl-C; it then takes that stage for a failed one and starts the next. So DVC stands in a
    session of its own, where the terminal's signal does not reach it, and is stopped before its stage hears of it.
    """
    interrupted = []
    before = {number: signal.signal(number, lambda *_: interrupted.append(True)) for number in SIGNALS}
    try:
        dvc = psutil.Popen(["dvc", *words], start_new_session=True)
        while dvc.poll() is None:
            time.sleep(0.05)
            if interrupted:
                end(dvc)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 130 if interrupted else dvc.returncode


def end(dvc: psutil.Popen) -> None:
    """Interrupt the stage that DVC runs, wait for its end, and end DVC; between two stages, interrupt DVC itself."""
    dvc.send_signal(signal.SIGSTOP)
    stage = [process for process in dvc.children(recursive=True) if runs(process)]
    if not stage:
        dvc.send_signal(signal.SIGINT)
        dvc.send_signal(signal.SIGCONT)
        return
    for process in stage:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
    while any(runs(process) for process in stage):
        time.sleep(0.05)
    dvc.kill()
    dvc.wait()


def runs(process: psutil.Process) -> bool:
    """Whether the process has not ended. A stopped parent does not collect its children: they stay as zombies."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    try:
        runs = list(check().runs)
        status = run_dvc("repro", "--keep-going")
        if status not in (0, 130):
            with Repo(str(Path())) as repo:
                graph = nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
                changed = set(repo.status(targets=["dvc.yaml"]))
            for line in outcome(runs, changed, graph):
                say(line)
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.exit(status)


if __name__ == "__main__":
    main()
