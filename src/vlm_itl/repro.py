"""`dvc repro --keep-going`, and at its end what became of the runs: which are complete, what failed and why.

DVC leaves out what depends on a failed stage and runs the rest, so the error of that stage stands far above the last line.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import networkx as nx
from dvc.repo import Repo

from .base.errors import UserError
from .base.settings import check
from .base.stage import error_file


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


def reproduce() -> int:
    """Run DVC to its end, or to the end of the stage that Ctrl-C stops. Returns its exit status."""
    interrupted = []
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    try:
        process = subprocess.Popen(["dvc", "repro", "--keep-going"])
        while process.poll() is None:
            time.sleep(0.05)
            if interrupted:  # while a stage runs DVC is deaf to it, and would go on with the next
                process.send_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    return 130 if interrupted else process.returncode


def main() -> None:
    try:
        runs = list(check().runs)
        status = reproduce()
        if status not in (0, 130):
            with Repo(str(Path())) as repo:
                graph = nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
                changed = set(repo.status(targets=["dvc.yaml"]))
            print("\n".join(outcome(runs, changed, graph)))
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.exit(status)


if __name__ == "__main__":
    main()
