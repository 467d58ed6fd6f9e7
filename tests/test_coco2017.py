"""COCO 2017 over a real HTTP server with faults: nothing half-written is taken for whole, nothing is asked for twice."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from coco_server import CocoServer, jpeg, md5, write_coco
from conftest import ROOT, clear_proxies, hearing_ctrl_c
from ruamel.yaml import YAML

from vlm_itl.core.coco import originals
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import scratch
from vlm_itl.data import coco2017, fetch
from vlm_itl.data.source import Fetched
from vlm_itl.settings import Coco2017, Data, Select

CHOICE = Select()
SELECTED = 20  # of the 24 images; the rest shows a person only


@pytest.fixture
def server(tmp_path):
    with CocoServer(tmp_path / "w#w %20") as running:
        write_coco(running.folder, running.url)
        yield running


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("VLM_ITL_SCRATCH", str(tmp_path / "scratch"))
    clear_proxies(monkeypatch)
    monkeypatch.setattr(fetch, "BACKOFF", 0.01)


@pytest.fixture
def root(server, tmp_path):
    """As `dvc repro` leaves data/coco2017: the archive and nothing else."""
    folder = tmp_path / "root"
    folder.mkdir()
    shutil.copy(server.folder / coco2017.ARCHIVE, folder)
    return folder


def bring(images: Path, root: Path, settings: Coco2017, choice: Select) -> Fetched:
    return coco2017.Coco2017Source(Data(source="coco2017", root=str(root), coco2017=settings)).fetch(images, root, choice)


def settings(server, **more) -> Coco2017:
    return Coco2017(
        **{
            "archive_md5": md5(server.folder / coco2017.ARCHIVE),
            "timeout": 1,
            "retries": 2,
            "connections": 4,
            "hosts": ["127.0.0.1"],
            **more,
        }
    )


def store(server) -> list[Path]:
    return sorted((server.folder.parent / "scratch").rglob("*.jpg"))


def check_images(parts, images: Path, server) -> None:
    """Every picture of both parts is there, byte by byte, and nothing else."""
    rows = [(name, i) for name in parts for i in parts[name]["images"]]
    for name, image in rows:
        there = images / image["file_name"]
        assert image["file_name"].startswith(f"{name}/")
        assert there.read_bytes() == (server.folder / coco2017.PARTS[name][1] / image["original_name"]).read_bytes()
        assert image["md5"] == md5(there)
    assert len([p for p in images.rglob("*") if p.is_file()]) == len(rows)


def test_only_the_selected_pictures_are_fetched_once(server, root, tmp_path, capsys):
    parts, _ = bring(tmp_path / "images", root, settings(server), CHOICE)
    assert [len(parts[p]["images"]) for p in ("train", "test")] == [13, 7]
    assert {c["name"] for c in parts["train"]["categories"]} == set(CHOICE.categories)
    check_images(parts, tmp_path / "images", server)
    assert set(server.asked.values()) == {1}
    assert len(server.asked) == SELECTED
    pictures = sum(p.stat().st_size for p in (tmp_path / "images").rglob("*.jpg"))
    assert server.sent == pictures
    assert f"pictures fetched: 20 ({pictures / 1e6:.1f} MB); there before: 0" in capsys.readouterr().out
    assert not list(tmp_path.rglob("evil*"))


def test_what_is_there_is_not_asked_for_again(server, root, tmp_path):
    bring(tmp_path / "images", root, settings(server), CHOICE)
    shutil.rmtree(tmp_path / "images")  # as DVC does before it runs a stage
    again, _ = bring(tmp_path / "images", root, settings(server), CHOICE)
    check_images(again, tmp_path / "images", server)
    assert sum(server.asked.values()) == SELECTED
    # another selection asks only for what is new
    people = Select(categories=["person", "bird"])
    bring(tmp_path / "other", root, settings(server), people)
    assert sum(server.asked.values()) == SELECTED + 4


@pytest.mark.parametrize("damage", [b"", b"\xff\xd8\xff\xe0 half", None])
def test_a_damaged_picture_in_the_store_is_fetched_again(server, root, tmp_path, damage):
    bring(tmp_path / "images", root, settings(server), CHOICE)
    shutil.rmtree(tmp_path / "images")
    victim = store(server)[3]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    server.asked.clear()
    parts, _ = bring(tmp_path / "images", root, settings(server), CHOICE)
    assert victim.read_bytes() == whole
    assert {Path(p).name: n for p, n in server.asked.items()} == {victim.name: 1}
    check_images(parts, tmp_path / "images", server)


MENDED = {
    "500 twice": ([500, 500], 3),
    "503, then cut short": ([503, "short"], 3),
    "connection reset": (["reset"], 2),
    "body cut short": (["short"], 2),
    "stalled body": (["stall"], 2),
    "wrong bytes of the right length": (["garbage"], 2),
    "HTML instead of JPEG": (["html"], 2),
    "a whole picture of another size": (["small"], 2),
    "redirect": (["redirect"], 1),
    "Retry-After that says nothing": ([(429, "soon")], 2),
    "S3 that sends other bytes than it has": (["tampered"], 2),
}


@pytest.mark.parametrize("case", MENDED)
def test_faults_that_pass(server, root, tmp_path, case):
    faults, requests = MENDED[case]
    server.faults["/train2017/000000000003.jpg"] = list(faults)
    parts, _ = bring(tmp_path / "images", root, settings(server), CHOICE)
    check_images(parts, tmp_path / "images", server)
    assert server.asked.pop("/train2017/000000000003.jpg") == requests
    assert server.asked.pop("/moved/train2017/000000000003.jpg", 0) == (case == "redirect")
    assert set(server.asked.values()) == {1}


REFUSED = {
    "endless body": ("endless", {}, 1, r"more than [\d,]+ bytes"),
    "a small body that unpacks to a large one": ("gzip", {}, 1, "its body is compressed"),
    "dripping body": ("drip", {"deadline": 2}, 3, "not whole within 2 s"),
    "dripping head": ("drip head", {"deadline": 2}, 3, "head is not whole within 2 s"),
    "redirection to a host of the network": ("inward", {}, 1, r"is on 'localhost', which is not asked.*data\.coco2017\.hosts"),
    "redirections in a circle": ("circle", {}, 6, "more than 5 redirections"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_servers_that_mean_harm(server, root, tmp_path, case, capsys):
    """Neither memory nor time is the server's to spend, and no other host is reached."""
    fault, more, requests, reason = REFUSED[case]
    path = "/train2017/000000000003.jpg"
    server.faults[path] = [fault] * 9
    parts, _ = bring(tmp_path / "images", root, settings(server, allow_missing=1, **more), CHOICE)
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing: ")]
    assert f"{server.url}{path}: " in line
    assert re.search(reason, line)
    assert server.asked.pop(path) == requests
    assert set(server.asked.values()) == {1}
    check_images(parts, tmp_path / "images", server)


def test_words_of_a_server_do_not_reach_the_terminal_raw(server, root, tmp_path, capsys):
    server.faults["/train2017/000000000003.jpg"] = ["escape"]
    bring(tmp_path / "images", root, settings(server, allow_missing=1), CHOICE)
    output = capsys.readouterr().out
    assert "403 \\x1b[31mred" in output
    assert "\x1b" not in output


def test_other_hosts_are_asked_only_where_a_setting_says_so(server, root, tmp_path, capsys):
    with pytest.raises(UserError, match="20 of 20 pictures"):
        bring(tmp_path / "images", root, settings(server, hosts=[]), CHOICE)
    assert capsys.readouterr().out.count("is on '127.0.0.1', which is not asked") == SELECTED
    assert not server.asked
    bring(tmp_path / "images", root, settings(server, hosts=[], base_url=server.url), CHOICE)  # a mirror's own host is


def test_a_mirror_with_a_password_is_refused():
    with pytest.raises(ValueError, match="netrc"):
        Coco2017(base_url="http://me:secret@mirror.example/coco")


def test_retry_after_is_honoured(server, root, tmp_path):
    path = "/train2017/000000000003.jpg"
    server.faults[path] = [(429, "1"), (503, "1")]
    bring(tmp_path / "images", root, settings(server), CHOICE)
    times = server.asked_at[path]
    assert len(times) == 3
    assert all(later - earlier >= 0.95 for earlier, later in itertools.pairwise(times))


LASTING = {
    "404": ([404], 1, "404 Not Found"),
    "500": ([500] * 9, 3, "500 Internal Server Error"),
    "connection reset": (["reset"] * 9, 3, "reset by peer|Connection broken"),
    "body cut short": (["short"] * 9, 3, "IncompleteRead|incomplete|Connection broken"),
    "stalled body": (["stall"] * 9, 3, "[Tt]imed out"),
    "wrong bytes of the right length": (["garbage"] * 9, 3, "not a picture"),
    "HTML instead of JPEG": (["html"] * 9, 3, "not a picture"),
    "another size": (["small"] * 9, 3, "20 x 20 pixels, the annotation says 48 x 32"),
}


@pytest.mark.parametrize("case", LASTING)
def test_faults_that_last(server, root, tmp_path, case, capsys):
    faults, requests, reason = LASTING[case]
    path = "/train2017/000000000003.jpg"
    server.faults[path] = list(faults)
    with pytest.raises(UserError, match=r"1 of 20 pictures cannot be had .*allow_missing"):
        bring(tmp_path / "images", root, settings(server), CHOICE)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing: ")]
    assert len(lines) == 1
    assert f"{server.url}{path}: " in lines[0]
    assert re.search(reason, lines[0])
    assert server.asked[path] == requests
    assert "000000000003.jpg" not in {p.name for p in store(server)}
    assert len(store(server)) == SELECTED - 1
    # the next run asks for that one only
    server.faults.clear()
    server.asked.clear()
    parts, _ = bring(tmp_path / "images", root, settings(server), CHOICE)
    assert dict(server.asked) == {path: 1}
    check_images(parts, tmp_path / "images", server)


def test_missing_pictures_may_be_allowed(server, root, tmp_path, capsys):
    for k in (3, 18):
        next(server.folder.glob(f"*2017/{k:012d}.jpg")).unlink()
    with pytest.raises(UserError, match=r"2 of 20 pictures"):
        bring(tmp_path / "images", root, settings(server, allow_missing=1), CHOICE)
    shutil.rmtree(tmp_path / "images")
    parts, notes = bring(tmp_path / "images", root, settings(server, allow_missing=2), CHOICE)
    assert {name: notes[name]["missing_pictures"] for name in notes} == {"train": 1, "test": 1}
    assert [len(parts[p]["images"]) for p in ("train", "test")] == [12, 6]
    assert {a["image_id"] for p in parts.values() for a in p["annotations"]} == {i["id"] for p in parts.values() for i in p["images"]}
    check_images(parts, tmp_path / "images", server)


def test_a_dead_server_ends_the_stage_early(server, root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "IN_A_ROW", 5)
    monkeypatch.setattr(coco2017, "IN_A_ROW", 5)
    closed = "http://127.0.0.1:9"  # the discard port: refused
    with pytest.raises(UserError, match=r"5 pictures in a row could not be fetched .* so \d+ were not tried: .*base_url"):
        bring(tmp_path / "images", root, settings(server, base_url=closed, retries=1, connections=1, allow_missing=20), CHOICE)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing: ")]
    assert len(lines) == 5
    assert all(re.search(r"http://127.0.0.1:9/train2017/\d+.jpg: .*refused", line) for line in lines)


def test_many_pictures_that_are_gone_do_not_stop_the_others(server, root, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "IN_A_ROW", 5)
    for k in range(1, 13):
        (server.folder / f"train2017/{k:012d}.jpg").unlink()
    parts, notes = bring(tmp_path / "images", root, settings(server, allow_missing=12), CHOICE)
    assert notes["train"]["missing_pictures"] == 10
    check_images(parts, tmp_path / "images", server)
    assert [len(parts[p]["images"]) for p in ("train", "test")] == [3, 7]


def test_several_requests_are_under_way_at_a_time(server, root, tmp_path):
    server.latency = 0.1
    bring(tmp_path / "images", root, settings(server, connections=4), CHOICE)
    assert 3 <= server.most_open <= 4


def test_mirror(server, root, tmp_path):
    (server.folder / "mirror").mkdir()
    for part in ("train2017", "val2017"):
        (server.folder / part).rename(server.folder / "mirror" / part)
    parts, _ = bring(tmp_path / "images", root, settings(server, base_url=f"{server.url}/mirror/"), CHOICE)
    assert {path.split("/")[1] for path in server.asked} == {"mirror"}
    assert [len(parts[p]["images"]) for p in ("train", "test")] == [13, 7]


def test_queued_experiments_share_the_store(tmp_path, monkeypatch):
    monkeypatch.delenv("VLM_ITL_SCRATCH")
    copy = tmp_path / "repo" / ".dvc" / "tmp" / "exps" / "tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert scratch() == tmp_path / "repo" / "scratch"
    monkeypatch.chdir(tmp_path / "repo")
    assert scratch() == Path("scratch")
    monkeypatch.setenv("VLM_ITL_SCRATCH", "/big")
    assert scratch() == Path("/big")


def test_a_linked_picture_is_replaced_not_written_into(server, root, tmp_path):
    """The output, and DVC's cache with `cache.type hardlink`, may share the store's bytes."""
    bring(tmp_path / "images", root, settings(server), CHOICE)
    kept = store(server)[0]
    linked = next(p for p in (tmp_path / "images").rglob("*.jpg") if p.read_bytes() == kept.read_bytes())
    assert linked.stat().st_ino == kept.stat().st_ino
    kept.unlink()
    kept.write_bytes(b"damaged")
    whole = linked.read_bytes()
    bring(tmp_path / "other", root, settings(server), CHOICE)
    assert linked.read_bytes() == whole == kept.read_bytes()
    assert linked.stat().st_ino != kept.stat().st_ino


@pytest.mark.parametrize("how", ["root", "file URL", "folder"])
def test_pictures_on_this_machine_are_read_in_place(server, root, tmp_path, how):
    if how == "root":
        (server.folder / coco2017.ARCHIVE).rename(root / coco2017.ARCHIVE)
        parts, _ = bring(tmp_path / "images", server.folder, Coco2017(), CHOICE)
    else:
        base = server.folder.as_uri() if how == "file URL" else str(server.folder)
        parts, _ = bring(tmp_path / "images", root, settings(server, base_url=base), CHOICE)
    assert not server.asked
    assert list((tmp_path / "images").iterdir()) == []  # nothing is copied
    assert not (tmp_path / "scratch").exists()
    for name, (_, folder) in coco2017.PARTS.items():
        for image in parts[name]["images"]:
            path = tmp_path / "images" / image["file_name"]  # as the detector puts them together
            assert path.parent == server.folder / folder
            assert image["md5"] == md5(path)


def test_a_damaged_picture_on_this_machine_is_named(server, root, tmp_path, capsys):
    victim = server.folder / "train2017" / "000000000003.jpg"
    victim.write_bytes(victim.read_bytes()[:800])
    with pytest.raises(UserError, match=r"1 of 20 pictures cannot be had"):
        bring(tmp_path / "images", root, settings(server, base_url=str(server.folder)), CHOICE)
    assert f"missing: {victim}: not a whole picture" in capsys.readouterr().out


def test_another_archive_is_refused_with_both_sums(server, root, tmp_path):
    with pytest.raises(UserError) as error:
        bring(tmp_path / "images", root, Coco2017(), CHOICE)
    assert md5(root / coco2017.ARCHIVE) in str(error.value)
    assert "f4bbac642086de4f52a3fdda2de5fa2c" in str(error.value)  # as published
    assert not server.asked


def test_archive_without_the_member_or_no_archive(server, tmp_path):
    root = tmp_path / "r"
    root.mkdir()
    with pytest.raises(UserError, match=r"data.root: .* holds neither annotations_trainval2017.zip .* nor annotations/instances_train2017"):
        bring(tmp_path / "images", root, Coco2017(), CHOICE)
    with zipfile.ZipFile(root / coco2017.ARCHIVE, "w") as archive:
        archive.writestr("annotations/captions_train2017.json", "{}")
    with pytest.raises(UserError, match=r"holds no annotations/instances_train2017.json"):
        bring(tmp_path / "images", root, Coco2017(archive_md5=md5(root / coco2017.ARCHIVE)), CHOICE)
    (root / coco2017.ARCHIVE).write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"not a zip file"):
        bring(tmp_path / "images", root, Coco2017(archive_md5=md5(root / coco2017.ARCHIVE)), CHOICE)


def test_names_that_lead_out_of_the_store_are_refused(server, tmp_path):
    path = server.folder / "annotations" / "instances_train2017.json"
    data = json.loads(path.read_text())
    data["images"][0]["file_name"] = "../../../../evil.jpg"
    path.write_text(json.dumps(data))
    (server.folder / coco2017.ARCHIVE).unlink()
    shutil.rmtree(server.folder / "train2017")
    with pytest.raises(UserError, match=r"image 1: file_name '../../../../evil.jpg' leaves"):
        bring(tmp_path / "images", server.folder, Coco2017(base_url=server.url), CHOICE)


@pytest.mark.parametrize("name", ["../val2017/000000000017.jpg", "/etc/hostname", "a/../000000000001.jpg", "a\0.jpg"])
def test_names_that_lead_out_are_refused_where_pictures_are_read_in_place(server, tmp_path, name):
    rename(server, {"000000000001.jpg": name})
    with pytest.raises(UserError, match=r"image 1: file_name .* (leaves the image folder|leads to no file)"):
        bring(tmp_path / "images", server.folder, Coco2017(), CHOICE)


def rename(server, names: dict[str, str]) -> None:
    """Change `file_name`s of both parts, in the folder without the archive."""
    (server.folder / coco2017.ARCHIVE).unlink(missing_ok=True)
    for path in (server.folder / "annotations").iterdir():
        data = json.loads(path.read_text())
        for image in data["images"]:
            image["file_name"] = names.get(image["file_name"], image["file_name"])
        path.write_text(json.dumps(data))


def test_any_name_works_as_itself_on_a_mirror(server, tmp_path):
    """`#`, `?`, `%` and a space mean something in a URL; two names may mean one file."""
    name = "it's 100%25 #1? ü.jpg"
    rename(server, {"000000000003.jpg": name, "000000000004.jpg": "./000000000001.jpg"})
    (server.folder / "train2017/000000000003.jpg").rename(server.folder / "train2017" / name)
    parts, _ = bring(tmp_path / "images", server.folder, Coco2017(base_url=server.url, retries=0), CHOICE)
    rows = {image["original_id"]: image for image in parts["train"]["images"]}
    assert rows[3]["original_name"] == name
    assert (tmp_path / "images" / rows[3]["file_name"]).read_bytes() == jpeg(3)
    assert rows[1]["md5"] == rows[4]["md5"] == md5(tmp_path / "images" / rows[4]["file_name"])


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_what_is_no_regular_file_is_missing(server, root, tmp_path, make, capsys):
    victim = server.folder / "train2017" / "000000000003.jpg"
    victim.unlink()
    make(victim)
    with pytest.raises(UserError, match="1 of 20 pictures cannot be had"):
        bring(tmp_path / "images", root, settings(server, base_url=str(server.folder)), CHOICE)
    assert f"missing: {victim}: not a regular file" in capsys.readouterr().out


def test_a_link_to_a_device_leaves_the_folder(server, root, tmp_path):
    victim = server.folder / "train2017" / "000000000003.jpg"
    victim.unlink()
    victim.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"image 3: file_name '000000000003.jpg' leaves the image folder"):
        bring(tmp_path / "images", root, settings(server, base_url=str(server.folder)), CHOICE)


@pytest.mark.parametrize("how", ["fetched", "in place"])
def test_a_training_picture_that_is_a_test_picture_is_left_out(server, root, tmp_path, how):
    """Users cannot change COCO's own files."""
    shutil.copy(server.folder / "train2017/000000000003.jpg", server.folder / "val2017/000000000017.jpg")
    shutil.copy(server.folder / "train2017/000000000007.jpg", server.folder / "train2017/000000000006.jpg")
    more = {} if how == "fetched" else {"base_url": str(server.folder)}
    parts, notes = bring(tmp_path / "images", root, settings(server, **more), CHOICE)
    left = {i["original_id"] for i in parts["train"]["images"]}
    assert left == {k for k in range(1, 17) if k % 5 and k != 3}
    assert {a["image_id"] for a in parts["train"]["annotations"]} == {i["id"] for i in parts["train"]["images"]}
    assert 17 in {i["original_id"] for i in parts["test"]["images"]}
    assert notes["train"]["also_test_pictures"] == 1
    original = originals(parts["train"]["images"])
    assert {i for i, first in original.items() if first != i} == {i["id"] for i in parts["train"]["images"] if i["original_id"] == 7}


def stage(tmp_path: Path, server, **more) -> list[str]:
    """Write params.yaml in `tmp_path` and give the command line of the stage as DVC runs it there."""
    yaml = YAML(typ="safe")
    params = yaml.load((ROOT / "params.yaml").read_text())
    params["data"] = {"source": "coco2017", "root": "root", "coco2017": settings(server, **more).model_dump()}
    params["select"] = {}
    with (tmp_path / "params.yaml").open("w") as stream:
        yaml.dump(params, stream)
    out = [f"--{n}=out/{f}" for n, f in (("images", "images"), ("train", "train.json"), ("test", "test.json"), ("metrics", "m.json"))]
    return [sys.executable, "-m", "stages.download", *out]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def test_kill_9_in_mid_download_then_again(server, root, tmp_path):
    command = stage(tmp_path, server, connections=2, timeout=90)
    half = "/train2017/000000000008.jpg"
    server.faults[half] = ["stall"]  # is under way when the process dies
    held, both, killed = [], threading.Event(), threading.Event()

    def hold(path: str) -> None:
        """From the ninth request on nothing is answered, so that both connections wait when the process dies."""
        if path == half or sum(server.asked.values()) >= 9:
            held.append(path)
            if len(held) == 2:
                both.set()
        if path != half and path in held:
            killed.wait(60)

    server.on_request = hold
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert both.wait(60)
    process.kill()
    process.wait()
    killed.set()
    first = server.asked.copy()
    kept = {p.name: p.read_bytes() for p in store(server)}
    assert 5 <= len(kept) < SELECTED
    assert not (tmp_path / "out/train.json").exists()
    for name, content in kept.items():  # only whole ones, under their names
        assert content == next(server.folder.glob(f"*2017/{name}")).read_bytes()
    server.asked.clear()
    server.on_request = lambda path: None
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    asked = {Path(p).name for p in server.asked}
    assert not asked & kept.keys()  # nothing that is whole is asked for again
    assert asked | kept.keys() == {p.name for p in store(server)}
    assert set(server.asked.values()) == {1}
    assert sum(first.values()) - len(kept) <= 2  # what was under way
    parts = {n: json.loads((tmp_path / f"out/{n}.json").read_text()) for n in ("train", "test")}
    check_images(parts, tmp_path / "out/images", server)


def test_ctrl_c_ends_at_once_though_a_body_stalls(server, root, tmp_path):
    command = hearing_ctrl_c(stage(tmp_path, server, connections=2, timeout=60))
    for k in range(1, 25):
        for part in ("train2017", "val2017"):
            server.faults[f"/{part}/{k:012d}.jpg"] = ["stall"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stalled.wait(60)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in output


def test_full_disk(server, root, tmp_path):
    """On a real small file system, which needs a mount namespace of our own."""
    (tmp_path / "scratch").mkdir()
    size = sum(p.stat().st_size for p in server.folder.rglob("*.jpg")) // 2048  # kilobytes: half of what is wanted
    script = f'mount -t tmpfs -o size={size}k tmpfs scratch || exit 77; "$@"; code=$?; ls scratch/images/*/*; exit $code'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *stage(tmp_path, server)]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to mount a small file system with")
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("a small file system cannot be mounted here")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "No space left on device" in last
    assert "scratch/images" in last
    names = done.stdout.split()
    assert sum(n.endswith(".jpg") for n in names) > 0
    assert not (tmp_path / "out/train.json").exists()


def test_the_server_is_a_server(server):
    """The test's own server: a fault is really on the wire."""
    import requests

    path = "/train2017/000000000003.jpg"
    server.faults[path] = ["short", "reset"]
    for _ in range(2):
        with pytest.raises(requests.exceptions.RequestException):
            requests.get(server.url + path, timeout=5)
    assert requests.get(server.url + path, timeout=5).content == jpeg(3)
