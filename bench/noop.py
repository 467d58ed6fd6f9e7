"""Seconds of a `dvc repro` that has nothing to do, here and in a repository of as many stages that only depend on one small file.

The second is the floor: what DVC takes itself. Usage, after `make repro`: python bench/noop.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENV = {**os.environ, "DVC_NO_ANALYTICS": "1"}


def run(*words: str, folder: Path) -> str:
    return subprocess.run(words, cwd=folder, env=ENV, check=True, capture_output=True, text=True).stdout


def empty_repository(folder: Path, stages: int) -> None:
    """That many stages, each with one dependency and one output."""
    run("git", "init", "-q", folder=folder)
    run("dvc", "init", "-q", folder=folder)
    (folder / "in").write_text("x")
    lines = ["stages:"]
    for k in range(stages):
        lines += [f"  s{k}:", f"    cmd: cp in out{k}", "    deps: [in]", f"    outs: [out{k}]"]
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
    run("dvc", "repro", "-q", folder=folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    here = Path.cwd()
    if "didn't change" not in run("dvc", "repro", "--dry", folder=here) or "Running stage" in run("dvc", "repro", "--dry", folder=here):
        sys.exit("error: there is something to run here; `make repro` first")
    stages = len(run("dvc", "stage", "list", "--name-only", folder=here).split())
    seconds: dict[str, list[float]] = {f"{stages} empty stages": [], "this repository": []}
    with tempfile.TemporaryDirectory() as name:
        empty_repository(Path(name), stages)
        for _ in range(arguments.repeats):
            for what, folder in zip(seconds, (Path(name), here)):
                start = time.perf_counter()
                run("dvc", "repro", folder=folder)
                seconds[what].append(time.perf_counter() - start)
    base = statistics.median(next(iter(seconds.values())))
    for what, values in seconds.items():
        print(f"{what:20} {statistics.median(values):5.2f} s (median of {len(values)}) {statistics.median(values) / base:5.2f} x")


if __name__ == "__main__":
    main()
