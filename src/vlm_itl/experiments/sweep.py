"""The experiment for several seeds: `make sweep SEEDS=1,2,3`.

Each seed is an experiment of DVC, run in a folder of its own, so that the working tree stays as it is. A seed of which an experiment with
these very settings and this code is there already is not run again: what was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import scratch
from vlm_itl.core.redact import say
from vlm_itl.experiments.jobs import submit, wait
from vlm_itl.experiments.repro import Job, Jobs, alone, not_as_recorded, number_at_once, watched
from vlm_itl.report import study
from vlm_itl.settings import check

Row = dict[str, Any]


def seeds_of(text: str) -> list[int]:
    """The seeds in a list such as 1,2,3, each once.

    Raises:
        UserError: it is no such list.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,19}", word) and int(word) < 2**63 for word in words):
        raise UserError(f"--seeds: whole numbers with commas between them, below 2**63, are expected, as in 1,2,3 (it says {text[:80]!r})")
    return list(dict.fromkeys(map(int, words)))


def up_to_date(repository: Path) -> bool:
    """Whether the last commit records the outputs of the working tree's settings and code, and they are there."""
    clean = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "dvc.lock", "metrics", *study.INPUTS], cwd=repository)
    if clean.returncode:
        return False
    with Repo(str(repository)) as repo:
        return not not_as_recorded(repo)


def there(repository: Path) -> dict[int, str]:
    """{seed: experiment} of those with the working tree's settings and code; the last commit counts as one where it is up to date."""
    found = {}
    for row in study.experiments(1, repository)[0]:
        if row["state"] not in study.DONE or not study.of_this_tree(row["revision"], repository):
            continue
        if row["state"] == "Committed" and not up_to_date(repository):
            continue
        seed = study.settings_at(row["revision"], repository).get("seed")
        if isinstance(seed, int):
            found[seed] = row["experiment"]
    return found


def options_of(text: str) -> tuple[str, dict[str, str]]:
    """(scheduler, its options) of a text such as `slurm timeout_min=600 slurm_partition=gpu`.

    Raises:
        UserError: it is none.
    """
    cluster, *rest = text.split() or [""]
    pairs = dict(word.partition("=")[::2] for word in rest)
    if cluster not in ("slurm", "local") or not all(re.fullmatch("[a-z_]+", key) and value for key, value in pairs.items()):
        raise UserError(f"--jobs: slurm or local is expected, then key=value, as in slurm timeout_min=600 (it says {text[:80]!r})")
    return cluster, pairs


def sweep(seeds: list[int], repository: Path, at_once: int = 1, scheduler: tuple[str, dict[str, str]] | None = None) -> int:
    """Run what is missing, so many seeds `at_once`. Returns an exit status: 130 after Ctrl-C, DVC's where a seed failed, else 0.

    Args:
        scheduler: see `options_of`; None: in this process's own folder of experiments.
    """
    done = there(repository)
    for seed in seeds:
        if seed in done:
            say(f"seed {seed}: there already ({done[seed]})")
    missing = [seed for seed in seeds if seed not in done]
    if not missing:
        return 0
    if scheduler:
        return wait(missing, submit(missing, repository, scratch() / "jobs" / "logs", *scheduler))
    with Repo(str(repository)) as repo:
        stages = sum(not stage.addressing.endswith(".dvc") for stage in repo.index.stages)
    logs = scratch() / "sweep"
    jobs = Jobs(
        Job(f"seed {seed}", ("exp", "run", "dvc.yaml", "--temp", "-S", f"seed={seed}"), logs / f"seed-{seed}.log") for seed in missing
    )
    names = ", ".join(job.name for job in jobs.waiting)
    say(f"{len(missing)} to run: {names}; {min(at_once, len(missing))} at once; what they say: {logs}")
    status = watched(jobs, at_once, len(missing) * stages, "seeds")
    for name, code in jobs.status.items():
        if code:
            say(f"{name}: {'stopped' if code == 130 else 'failed; its error stands above'}. The same command goes on from here.")
    return status


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", required=True, metavar="N,N,...", help="the seeds, with commas between them")
    parser.add_argument("--at-once", type=int, metavar="N", help="seeds side by side; none: as many as processors and memory allow")
    parser.add_argument("--jobs", metavar="WORDS", help="as jobs of a scheduler: slurm or local, then options of submitit, key=value")
    arguments = parser.parse_args(argv)
    try:
        settings, seeds = check(), seeds_of(arguments.seeds)
        scheduler = options_of(arguments.jobs) if arguments.jobs else None
        with alone("sweep"):
            status = sweep(seeds, Path(), number_at_once(settings, arguments.at_once), scheduler)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or scratch()}: {error.strerror}")
    sys.exit(status)


if __name__ == "__main__":
    main()
