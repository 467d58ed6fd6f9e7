"""`data.source: coco2017` as a user meets it: real DVC in a temporary clone, with a server on loopback in COCO's place."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from coco_server import CocoServer, md5, write_coco
from conftest import ROOT
from pipeline import Clone, shrink

from vlm_itl.data.coco2017 import ARCHIVE

pytestmark = pytest.mark.pipeline
URL = "http://images.cocodataset.org/annotations/annotations_trainval2017.zip"


@pytest.fixture
def server(tmp_path):
    with CocoServer(tmp_path / "www") as running:
        write_coco(running.folder, running.url, train=60, val=20)
        yield running


def settings(server, **more):
    def change(params: dict) -> None:
        shrink(params)
        params["data"].update(source="coco2017", root="data/coco2017")
        params["data"]["coco2017"] = {"hosts": ["127.0.0.1"], "archive_md5": md5(server.folder / ARCHIVE), **more}
        params["select"].update(min_area=100)

    return change


def clone(tmp_path, server, change) -> Clone:
    """A clone whose data.dvc points to the server; nothing else is changed in it."""
    made = Clone(tmp_path / "clone", change)
    text = made.text("data.dvc")
    assert text.count(URL) == 1
    (made.folder / "data.dvc").write_text(text.replace(URL, f"{server.url}/{ARCHIVE}"))
    made.commit("another server")
    return made


def test_from_nothing_to_the_split(tmp_path, server):
    work = clone(tmp_path, server, settings(server))
    assert work.repro("split") == {"download", "split"}
    assert md5(work.folder / "data/coco2017" / ARCHIVE) == md5(server.folder / ARCHIVE)
    pictures = {p: n for p, n in server.asked.items() if p.endswith(".jpg")}
    assert len(pictures) == 48 + 16
    assert set(pictures.values()) == {1}
    metrics = work.json("metrics/split.json")
    assert sum(metrics[p]["images"] for p in ("initial", "pool", "validation")) == 48
    assert metrics["test"]["images"] == 16
    assert "data.dvc" in work.run("dvc", "dag", "--dot", "download").stdout

    # nothing changed: nothing runs; another initial fraction: the pictures stay; another selection: only new ones are asked for
    assert work.repro("split") == set()
    work.settings(lambda p: p["split"].update(initial_fraction=0.6))
    assert work.repro("split") == {"split"}
    assert sum(n for p, n in server.asked.items() if p.endswith(".jpg")) == 64
    work.settings(lambda p: p["select"].update(categories=["bird", "person", "stop sign"]))
    assert work.repro("split") == {"download", "split"}
    assert sum(n for p, n in server.asked.items() if p.endswith(".jpg")) == 64 + 12 + 4
    work.settings(lambda p: p["select"].update(categories=["bird", "dragon"]))
    failed = work.run("dvc", "repro", "split", check=False)
    assert failed.returncode != 0
    assert "select.categories: training data has no class 'dragon' (it has: person, stop sign, bird, zebra, book)" in failed.stdout


def test_an_experiment_in_a_temporary_copy_finds_archive_and_store(tmp_path, server):
    work = clone(tmp_path, server, settings(server))
    work.repro("split")
    work.commit("the data")
    server.asked.clear()
    done = work.run("dvc", "exp", "run", "--temp", "-S", "select.max_images=12", "split")
    assert "Ran experiment" in done.stdout
    assert not [p for p in server.asked if p.endswith(".jpg")]


def test_coco_on_this_machine_is_read_in_place(tmp_path, server):
    """Training and prediction on pictures that stay where they are; no server is asked."""

    def change(params: dict) -> None:
        settings(server)(params)
        params["data"]["root"] = str(server.folder)
        params["select"]["max_images"] = 12

    work = Clone(tmp_path / "clone", change)
    work.repro("evaluate-start")
    assert not server.asked
    assert list((work.folder / "artifacts/data/images").iterdir()) == []
    assert work.json("metrics/detection/start.json")["mask"]["AP"] >= 0
    copies = [p for p in work.folder.rglob("*") if p.is_file() and p.read_bytes()[:2] == b"\xff\xd8"]
    assert not copies
    # a changed picture is another data set
    image = work.json("loop/start/labels.json")["images"][0]
    shutil.copy(next(p for p in (server.folder / "train2017").iterdir() if str(p) != image["file_name"]), image["file_name"])
    assert {"download", "split", "pretrain"} <= work.repro("pretrain")


def test_the_committed_data_dvc_has_no_md5():
    """With one, and without a DVC remote, a fresh clone would look into its empty cache and not fetch."""
    shown = subprocess.run(["git", "show", "HEAD:data.dvc"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "path: data/coco2017/" in shown
    assert "md5:" not in shown


def test_the_default_graph_leaves_the_archive_alone(tmp_path, server):
    work = clone(tmp_path, server, shrink)
    work.repro("split")
    assert not server.asked
    assert not (work.folder / "data/coco2017").exists()
