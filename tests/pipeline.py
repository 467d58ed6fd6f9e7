"""The real pipeline on a very small setting in clones of this repository: helpers of the pipeline tests."""

from __future__ import annotations

import hashlib
import importlib
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

from vlm_itl.settings import load, pick

yaml = YAML()
AUDIT = '''
"""Writes down every file of this repository that a stage opens."""
import json, os, sys
root, log = os.environ["AUDIT_ROOT"] + os.sep, os.environ["AUDIT_LOG"]
argv = sys.orig_argv
if "DVC_STAGE" in os.environ and "-m" in argv and "stages.check" not in argv:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def hook(event, args):
        if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.path.abspath(os.fsdecode(args[0]))
            if path.startswith(root):
                os.write(out, (json.dumps([os.environ["DVC_STAGE"], argv[argv.index("-m") + 1:], path[len(root):]]) + "\\n").encode())
    sys.addaudithook(hook)
'''


def shrink(params: dict) -> None:
    """Change the shipped settings so that the whole graph runs in about a minute. The numbers it gives mean nothing."""
    params["processor"] = "native"  # tests run beside each other, with one thread each
    params["data"]["synthetic"] = {"train_images": 20, "test_images": 6, "long_side": 64}
    params["select"]["min_area"] = 5
    params["split"]["initial_fraction"] = 0.4
    params["detector"].update(kind="blobs", init="scratch")  # test_own_data.py has Mask R-CNN
    params["pretrain"].update(schedule="fixed_epochs", epochs=1)
    params["train"].update(schedule="fixed_epochs", epochs=0.5)
    params["predict"].update(score_threshold=0.02, max_detections=3)  # an untrained detector is sure of nothing
    params["judges"]["vlm-sim"].update(recall=0.9, specificity=0.5)
    params["probed"], params["calibrations"], params["verifiers"] = [], {}, {}
    params["probes"]["per_kind"] = 2
    params["hold_back"]["held_out"] = 0.6  # of seven images
    params["runs"] = {"human-1": {"judge": "human", "prev": "start"}, "vlm-sim-1": {"judge": "vlm-sim", "prev": "start"}}


class Clone:
    """A clone of this working tree with small settings and a DVC cache of its own; `audited`, it knows what its stages open."""

    def __init__(self, folder: Path, change: Callable[[dict], None] = shrink, audited: bool = False) -> None:
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
        if audited:
            hook, self.log = folder.parent / f"{folder.name}-hook", folder.parent / f"{folder.name}-opened"
            hook.mkdir()
            (hook / "sitecustomize.py").write_text(AUDIT)
            self.env |= {"PYTHONPATH": str(hook), "AUDIT_ROOT": str(folder), "AUDIT_LOG": str(self.log)}
        self.settings(change)
        for words in (["init", "-q", "-b", "main"], ["config", "user.email", "test@example.org"], ["config", "user.name", "test"]):
            self.run("git", *words)
        self.commit("small settings")

    def run(self, *words: str, check: bool = True, **more_env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, cwd=self.folder, env={**self.env, **more_env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=900,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}"
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

    def opened(self) -> dict[tuple[str, str], list[str]]:
        """{(entry, a file of this repository that it opened): its command's words}; without modules, which test_graph.py holds."""
        rows = [json.loads(line) for line in self.log.read_text().splitlines()]
        return {(stage, path): words for stage, words, path in rows if not path.endswith((".py", ".pyc"))}

    def undeclared(self) -> list[str]:
        """What entries opened without declaring it: not on the command line, not named by a setting of theirs."""
        found, settings = [], load(self.folder / "params.yaml")
        for (stage, path), (module, *words) in self.opened().items():
            declaration = importlib.import_module(module).STAGE
            given = declaration.parse(module, "", words)
            declared = {str(v) for n in (*declaration.reads, *declaration.writes) if (v := getattr(given, n, None)) is not None}
            declared |= {pick(settings, file.setting) for file in declaration.reads.values() if file.setting}
            declared |= {"params.yaml", "dvc.yaml", "artifacts/code"}
            parts = Path(path).parts
            near = {str(Path(*parts[:k])) for k in range(1, len(parts) + 1)}
            temporary = any(Path(path).parent == Path(d).parent and Path(path).name.startswith(f".{Path(d).name}") for d in declared)
            folder = any(Path(d).is_relative_to(path) for d in declared)
            if not (near & declared or temporary or folder or parts[0] == "scratch"):
                found.append(f"{stage}: {path}")
        return found

    def json(self, name: str):
        return json.loads((self.folder / name).read_text())

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def digests(self, *folders: str) -> dict[str, str]:
        """md5 of every file under these folders."""
        files = sorted(p for name in folders for p in (self.folder / name).rglob("*") if p.is_file())
        return {str(p.relative_to(self.folder)): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


def ran(output: str) -> set[str]:
    """Stages that DVC says it runs (not those it restores from its run cache), but for `code`, which runs after any change of code, of a
    judge or of a run."""
    return set(re.findall(r"Running stage '([^']+)'", output)) - {"code"}


def stages_of(run: str) -> set[str]:
    return {f"{kind}@{run}" for kind in ("judge", "update", "train", "predict", "evaluate", "gallery")}
