"""The command `vlm-itl`, as it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from vlm_itl.__main__ import COMMANDS

COMMAND = Path(sys.executable).parent / "vlm-itl"
ENV = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}


def run(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *words], cwd=cwd, env=ENV, text=True, capture_output=True, timeout=120)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, tmp_path):
    """Also where there is no experiment."""
    done = run(name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: vlm-itl {name} ")


def test_what_is_no_command(tmp_path):
    done = run("judge")
    assert done.returncode == 2
    assert "invalid choice: 'judge'" in done.stderr
    assert run().returncode == 2
    assert run("report", "--nothing").stderr.splitlines()[-1] == "vlm-itl report: error: unrecognized arguments: --nothing"
    assert run("report", cwd=tmp_path).stderr == "error: params.yaml: no such file (run this from the repository's top folder)\n"


def test_stages_of_a_copy_run_the_copys_code(tmp_path):
    """`dvc exp run --temp` works in one, with the installed library's own environment."""
    for name in ("stages", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import stages.split, vlm_itl.data.splitting; print(vlm_itl.data.splitting.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENV, text=True, capture_output=True, check=True, timeout=120)
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
