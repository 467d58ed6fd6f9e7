"""Seeds of a sweep as jobs of a batch scheduler (Slurm), one clone each: `make sweep SEEDS=1,2,3 JOBS=slurm`.

Every node needs this repository and its `.venv` at the same path, as on a shared disk, and DVC's cache in it is shared by all jobs. An
experiment that is done comes back by `dvc exp push`, so that here it is like any other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_itl.core.errors import UserError
from vlm_itl.core.git import changed
from vlm_itl.core.redact import say


def submit(seeds: list[int], repository: Path, logs: Path, cluster: str, options: Mapping[str, str]) -> list[Any]:
    """Hand the seeds to the scheduler.

    Args:
        cluster: `slurm`, or `local` for processes of this machine.
        options: submitit's, such as `timeout_min`, `gpus_per_node`, `slurm_partition`.

    Returns:
        submitit's jobs, which are waited for by `wait`.

    Raises:
        UserError: something is not committed; submitit or the scheduler is not there, or does not know an option.
    """
    if edited := changed():
        raise UserError(f"{edited[0]}: not committed; jobs run clones of the last commit, so commit or undo what has changed")
    try:
        import submitit
    except ImportError:
        raise UserError("submitit is not installed; `make cluster` installs it") from None
    try:
        executor = submitit.AutoExecutor(folder=logs / "%j", cluster=cluster)
        executor.update_parameters(**{"name": "vlm-itl", "timeout_min": 24 * 60} | {key: _number(value) for key, value in options.items()})
        with executor.batch():
            jobs = [executor.submit(run, seed, repository.resolve(), sys.executable) for seed in seeds]
    except (RuntimeError, NameError, AssertionError, ValueError, OSError) as error:
        raise UserError(f"JOBS: {cluster}: {' '.join(str(error).split()) or type(error).__name__}") from None
    for seed, job in zip(seeds, jobs, strict=True):
        say(f"seed {seed}: job {job.job_id}, {job.paths.stderr}")
    return jobs


def wait(seeds: list[int], jobs: list[Any]) -> int:
    """Until all have ended. Returns an exit status: 1 where one failed."""
    status = 0
    for seed, job in zip(seeds, jobs, strict=True):
        error = job.exception()
        if error is not None:
            status = 1
            say(f"seed {seed}: failed: {str(error).strip().splitlines()[-1]}; {job.paths.stderr} says more")
        else:
            say(f"seed {seed}: {job.result()}")
    return status


def run(seed: int, repository: Path, python: str) -> str:
    """What a job does, on whatever node: the experiment in a clone. Returns its name.

    Raises:
        CalledProcessError: a command failed; the job's log says why.
    """
    folder = repository / "scratch" / "jobs" / f"seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    environment = {
        **os.environ, "PATH": f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', '')}", "PYTHONPATH": str(folder / "src"),
        "DVC_NO_ANALYTICS": "1", "VLM_ITL_SCRATCH": str(repository / "scratch"),
    }  # fmt: skip

    def call(*words: str, folder: Path = folder) -> str:
        done = subprocess.run(words, cwd=folder, env=environment, check=True, text=True, stdout=subprocess.PIPE)
        return done.stdout

    cache = call("dvc", "cache", "dir", folder=repository).strip()
    call("git", "clone", "--quiet", str(repository), str(folder), folder=repository)
    call("dvc", "cache", "dir", "--local", cache)
    name = f"seed-{seed}-{os.environ.get('SLURM_JOB_ID', os.getpid())}"
    sys.stdout.write(call("dvc", "exp", "run", "dvc.yaml", "--name", name, "-S", f"seed={seed}"))
    call("dvc", "exp", "push", "--no-cache", str(repository), name)
    shutil.rmtree(folder)
    return name


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text
