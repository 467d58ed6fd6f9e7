"""The real pipeline on a very small setting in clones of this repository: helpers of the pipeline tests."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT
from ruamel.yaml import YAML

yaml = YAML()


def shrink(params: dict) -> None:
    """Change the shipped settings so that the whole graph runs in about a minute. The numbers it gives mean nothing."""
    params["data"]["synthetic"] = {"train_images": 20, "test_images": 6, "long_side": 64}
    params["select"]["min_area"] = 5
    params["split"]["initial_fraction"] = 0.4
    params["pretrain"]["epochs"] = 1
    params["train"]["epochs"] = 0.5
    params["predict"].update(score_threshold=0.02, max_detections=3)  # an untrained detector is sure of nothing
    params["judges"]["vlm-sim"].update(recall=0.9, specificity=0.5)
    params["probed"], params["calibrations"], params["verifiers"] = [], {}, {}
    params["probes"]["per_kind"] = 2
    params["hold_back"]["held_out"] = 0.6  # of seven images
    params["runs"] = {"human-1": {"judge": "human", "prev": "start"}, "vlm-sim-1": {"judge": "vlm-sim", "prev": "start"}}


class Clone:
    """A clone of this working tree with small settings and a DVC cache of its own."""

    def __init__(self, folder: Path, change: Callable[[dict], None] = shrink) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
        )
        for name in listed.stdout.decode().split("\0"):
            written = name == "dvc.lock" or (name.startswith("metrics/") and not name.endswith(".gitkeep"))
            if name and (ROOT / name).exists() and not written:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(folder.parent / f"{folder.name}-site-cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.settings(change)
        for words in (["init", "-q", "-b", "main"], ["config", "user.email", "test@example.org"], ["config", "user.name", "test"]):
            self.run("git", *words)
        self.commit("small settings")

    def run(self, *words: str, check: bool = True, **more_env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, cwd=self.folder, env={**self.env, **more_env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=900,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{' '.join(words)}\n{done.stdout}"
        return done

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def settings(self, change: Callable[[dict], None]) -> None:
        content = yaml.load((self.folder / "params.yaml").read_text())
        change(content)
        yaml.dump(content, self.folder / "params.yaml")

    def repro(self, *options: str) -> set[str]:
        """`dvc repro`; the names of the stages that it ran."""
        return ran(self.run("dvc", "repro", *options).stdout)

    def json(self, name: str):
        return json.loads((self.folder / name).read_text())

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def digests(self, *folders: str) -> dict[str, str]:
        """md5 of every file under these folders."""
        files = sorted(p for name in folders for p in (self.folder / name).rglob("*") if p.is_file())
        return {str(p.relative_to(self.folder)): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


def ran(output: str) -> set[str]:
    """Stages that DVC says it runs (not those it restores from its run cache)."""
    return set(re.findall(r"Running stage '([^']+)'", output))


def stages_of(run: str) -> set[str]:
    return {f"{kind}@{run}" for kind in ("judge", "update", "train", "predict", "evaluate", "gallery")}
