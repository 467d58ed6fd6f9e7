"""Outputs go through a DVC remote from one clone to another, as docs/guides/remote.md says; a folder is the remote."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from dvc.repo import Repo
from pipeline import Clone, yaml

URL = "http://images.cocodataset.org/annotations/annotations_trainval2017.zip"


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Clone:
    """Where the first two stages have run and were pushed."""
    folder = tmp_path_factory.mktemp("remote")
    made = Clone(folder / "ours")
    made.env["PYTHONPATH"] = str(made.folder / "src")
    assert made.repro("split") == {"download", "split"}
    made.commit("ran")
    made.run("dvc", "remote", "add", "-d", "storage", str(folder / "shared disk"))
    made.run("git", "commit", "-m", "A place for outputs", ".dvc/config")
    made.run("dvc", "push", "dvc.yaml")
    return made


@pytest.fixture
def theirs(ours, tmp_path) -> Clone:
    """A clone of it on another machine: with a cache of its own."""
    ours.run("git", "clone", "-q", ".", str(tmp_path / "theirs"))
    made = copy.copy(ours)
    made.folder, made.env = tmp_path / "theirs", {**ours.env, "DVC_SITE_CACHE_DIR": str(tmp_path / "site-cache")}
    made.env["PYTHONPATH"] = str(made.folder / "src")
    return made


@pytest.mark.pipeline
def test_what_was_pushed_is_pulled(ours, theirs):
    assert not (theirs.folder / "artifacts").exists()
    theirs.run("dvc", "pull", "code", "download", "split")
    folders = "artifacts/data", "artifacts/split", "loop/start"
    assert theirs.digests(*folders) == ours.digests(*folders)
    assert len(theirs.digests("artifacts/data/images")) == 26
    assert theirs.run("dvc", "status", "download", "split").stdout == "Data and pipelines are up to date.\n"
    assert theirs.repro("split") == set()
    assert theirs.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.pipeline
def test_an_unfinished_experiment_brings_what_there_is(ours, theirs):
    done = theirs.run("dvc", "pull", "dvc.yaml", check=False)
    assert done.returncode == 1
    assert "loop/start/model" in done.stdout.partition("Checkout failed")[2]
    assert theirs.digests("artifacts/data", "artifacts/split") == ours.digests("artifacts/data", "artifacts/split")


@pytest.mark.pipeline
def test_a_second_push_sends_nothing(ours):
    assert ours.run("dvc", "push", "dvc.yaml").stdout.endswith("Everything is up to date.\n")


def test_where_is_what():
    """The table of the guide: git has no output that DVC caches, and all of the others."""
    with Repo(str(ROOT)) as repo:
        outs = [(Path(out.fspath).relative_to(ROOT), out.use_cache) for out in repo.index.outs if out.stage.path_in_repo == "dvc.yaml"]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = [Path(name) for name in listed.split("\0")]
    cached = {path for path, in_cache in outs if in_cache}
    assert {path.parts[0] for path, in_cache in outs if not in_cache} == {"metrics"}
    assert {path.parts[0] for path in cached} == {"artifacts", "loop", "judges"}
    assert {path.name for path in cached if path.parts[0] == "judges"} <= {"calibration.json", "model"}
    assert not [path for path in tracked if any(path.is_relative_to(one) for one in cached)]
    assert yaml.load((ROOT / "data.dvc").read_text()) == {
        "frozen": True, "deps": [{"path": URL}], "outs": [{"path": f"data/coco2017/{URL.rpartition('/')[2]}", "hash": "md5"}]
    }  # fmt: skip
