"""People draw: what goes out to CVAT and Label Studio, what comes back, and what harms."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import ROOT
from drawing_world import NAMES, Cvat, LabelStudio, brush, mask, masks, people_draw, polygon, rle, zipped
from hypothesis import given, settings
from hypothesis import strategies as st
from people import A, B, C

from vlm_itl.core.files import read_json, write_json
from vlm_itl.drawing import exporting, importing
from vlm_itl.drawing.returned import Given, status_of
from vlm_itl.drawing.work import Image
from vlm_itl.judges import verdict
from vlm_itl.judges.verdict import Verdict
from vlm_itl.loop.policy import Shown

EXAMPLES = int(os.environ.get("VLM_ITL_FUZZ_EXAMPLES", "100"))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A repository with an export."""
    made = people_draw(tmp_path / "repository")
    monkeypatch.chdir(made)
    exporting.main(["--run", "x"])
    return made


@pytest.fixture
def export(folder) -> Path:
    return folder / "artifacts/export/x"


@pytest.fixture
def cvat(export) -> Cvat:
    return Cvat(export / "cvat.zip")


@pytest.fixture
def studio(export) -> LabelStudio:
    return LabelStudio(export / "label-studio.json")


def back(path: Path, *options: str) -> None:
    importing.main(["--run", "x", *options, "--", str(path)])


def said(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def refused(capsys, path: Path, *options: str) -> str:
    with pytest.raises(SystemExit) as end:
        back(path, *options)
    assert str(end.value).startswith("error: ")
    assert "\n" not in str(end.value)
    assert not list(Path("drawings").rglob("*.json")) if Path("drawings").exists() else True
    return str(end.value).removeprefix("error: ")


# ---- what goes out


def test_what_waits_goes_out(folder, export, cvat, studio):
    """The rejected image with its proposals, and the one without; not the approved one, nor one of a later round."""
    content = json.loads(zipfile.ZipFile(export / "cvat.zip").read("annotations/instances_default.json"))
    names = [row["file_name"] for row in content["images"]]
    assert [int(name[:12]) for name in names] == [2, 3]
    shapes = cvat.of(2)
    assert [(s["label"], s["proposal"]) for s in shapes] == [(NAMES[0], "0"), (NAMES[1], "1"), (NAMES[0], "2")]
    assert all((s["mask"] == mask(box)).all() for s, box in zip(shapes, (A, B, C), strict=True))
    assert cvat.of(3) == []
    for name, picture in cvat.pictures.items():
        source = folder / f"artifacts/data/images/{int(Path(name).name[:12])}.png"
        assert picture == source.read_bytes() == (export / "images" / Path(name).name).read_bytes()
    assert {row["id"] for row in content["annotations"]} == {1, 2, 3}
    assert content["annotations"][1]["bbox"] == [float(n) for n in B]
    labels = read_json(export / "cvat-labels.json")
    assert [row["name"] for row in labels] == list(NAMES)
    assert labels[0]["attributes"][0]["name"] == "proposal"

    view = ElementTree.fromstring((export / "label-studio-config.xml").read_text())
    for tag in ("BrushLabels", "PolygonLabels"):
        assert [label.get("value") for label in view.find(tag)] == list(NAMES)
    task = studio.of(2)
    assert task["data"]["image"] == f"/data/local-files/?d=x/images/{names[0]}"
    [prediction] = task["predictions"]
    assert [(r["id"], r["value"]["brushlabels"]) for r in prediction["result"]] == [
        ("2-0", [NAMES[0]]), ("2-1", [NAMES[1]]), ("2-2", [NAMES[0]]),
    ]  # fmt: skip
    assert studio.of(3)["predictions"] == []


def test_the_same_export_is_the_same_bytes(folder, export):
    before = {path: hashlib.md5(path.read_bytes()).hexdigest() for path in export.rglob("*") if path.is_file()}
    (export / "images/of an earlier export.png").write_text("a tool may still show it")
    exporting.main(["--run", "x"])
    assert (export / "images/of an earlier export.png").read_text() == "a tool may still show it"
    (export / "images/of an earlier export.png").unlink()
    exporting.main(["--run", "x", "--format", "cvat"])
    assert {path: hashlib.md5(path.read_bytes()).hexdigest() for path in export.rglob("*") if path.is_file()} == before


def test_for_one_tool_and_to_a_folder(folder):
    exporting.main(["--run", "x", "--format", "cvat", "--to", "else/here it's"])
    assert sorted(path.name for path in Path("else/here it's").iterdir()) == ["cvat-labels.json", "cvat.zip"]
    exporting.main(["--run", "x", "--format", "label-studio", "--to", "ls é"])
    assert sorted(path.name for path in Path("ls é").iterdir()) == ["images", "label-studio-config.xml", "label-studio.json"]
    assert read_json(Path("ls é/label-studio.json"))[0]["data"]["image"].startswith("/data/local-files/?d=ls%20%C3%A9/images/")
    with pytest.raises(SystemExit, match="is there already"):
        exporting.main(["--run", "x", "--to", "else/here it's"])


def test_refused_masks_of_a_judge_of_masks_do_not_go_out(tmp_path, monkeypatch):
    monkeypatch.chdir(people_draw(tmp_path / "repository", policy="correct", accepted=[False, True, True]))
    exporting.main(["--run", "x"])
    cvat = Cvat(Path("artifacts/export/x/cvat.zip"))
    assert [s["proposal"] for s in cvat.of(2)] == ["1", "2"]
    cvat.of(2)[0]["label"] = NAMES[0]
    back(cvat.export(Path("back.zip")))
    assert [row[:3] for row in masks(Path(), 2)] == [("corrected", NAMES[0], 1), ("kept", NAMES[0], 2)]
    assert read_json(Path("drawings/x/000000000002.json"))["removed"] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"policy": "pool", "drawn_by": "simulated"}, "runs.x.policy: under 'pool' nobody draws; take annotate or correct"),
        ({"policy": "pool"}, "runs.x.drawn_by: under the policy 'pool' nobody draws; leave it out, or take policy: annotate"),
        ({"prev": "human-1"}, "loop/human-1/pool.json: no such file; `dvc repro` makes it"),
    ],
)
def test_runs_in_which_nobody_draws(tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(people_draw(tmp_path / "repository", **change))
    for command in (exporting.main, importing.main):
        with pytest.raises(SystemExit) as end:
            command(["--run", "x", *(["--", "some.zip"] if command is importing.main else [])])
        assert words in str(end.value)


def test_before_a_run_takes_drawings(tmp_path, monkeypatch, capsys):
    """One may look at what would be drawn, and draw it; the run says later that it takes that."""
    monkeypatch.chdir(people_draw(tmp_path / "repository", drawn_by="simulated"))
    exporting.main(["--run", "x"])
    cvat = Cvat(Path("artifacts/export/x/cvat.zip"))
    back(cvat.export(Path("back.zip")), "--finished")
    assert said(capsys)[-1] == "next: write drawn_by: people into runs.x of params.yaml, then dvc repro"


def test_a_run_that_is_not_there(folder):
    with pytest.raises(SystemExit, match=r"^error: which run\? RUN=\.\.\. of make, --run of vlm-itl \(there are: always-1, "):
        exporting.main(["--run", ""])
    for command in (["--run", "y"], ["--run", "../x"]):
        with pytest.raises(SystemExit, match=rf"^error: params\.yaml: runs: no run '{command[1]}' \(there are: always-1, "):
            exporting.main(command)


def test_a_picture_that_is_gone_or_another_is_one_line(folder):
    path = folder / "artifacts/data/images/3.png"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(SystemExit, match=r"3\.png: it is no longer the picture that was judged"):
        exporting.main(["--run", "x"])
    path.unlink()
    with pytest.raises(SystemExit, match=r"3\.png: No such file or directory"):
        exporting.main(["--run", "x"])
    assert (folder / "artifacts/export/x/cvat.zip").exists()  # what was there stays
    assert len(list((folder / "artifacts/export").iterdir())) == 1


def test_a_class_that_xml_cannot_hold(tmp_path, monkeypatch):
    made = people_draw(tmp_path / "repository")
    monkeypatch.chdir(made)
    pool = read_json(made / "loop/start/pool.json")
    pool["categories"][0]["name"] = "a\x1bb"
    write_json(made / "loop/start/pool.json", pool)
    with pytest.raises(SystemExit) as end:
        exporting.main(["--run", "x"])
    assert "Label Studio cannot show the class 'a\\x1bb'" in str(end.value)
    exporting.main(["--run", "x", "--format", "cvat"])


# ---- what comes back


def edited(shapes: list) -> None:
    """Of the proposals A, B and C: A stays, B gets another outline, C goes, and something new comes."""
    shapes[1]["mask"] = mask((20, 2, 12, 20))
    del shapes[2]
    shapes.append({"label": NAMES[1], "polygons": [[30.0, 30.0, 40.0, 30.0, 40.0, 38.0, 30.0, 38.0]]})


@pytest.mark.parametrize("prefix", ["", "images/default/", "C:\\data\\"])
def test_from_cvat(folder, cvat, capsys, prefix):
    edited(cvat.of(2))
    said(capsys)
    back(cvat.export(folder / "back.zip", prefix), "--reviewer", "ana")
    assert said(capsys) == [
        "x: 1 images are drawn: 1 proposals kept, 1 corrected, 1 removed, 1 instances added",
        "1 images came back as they were exported, and CVAT does not say whether somebody has looked; if so, say it: --finished "
        "(make import ... FINISHED=1)",
        "1 of 2 images wait to be drawn: make export RUN=x",
    ]
    found = masks(folder, 2)
    assert [row[:3] for row in found] == [("kept", NAMES[0], 0), ("corrected", NAMES[1], 1), ("added", NAMES[1], None)]
    assert (found[1][3] == mask((20, 2, 12, 20))).all()
    assert (found[2][3] == mask((30, 30, 10, 8))).all()
    content = read_json(folder / "drawings/x/000000000002.json")
    assert (content["reviewer"], content["drawn_at"], content["seconds"], content["tool"]) == ("ana", None, None, "cvat")
    assert (content["kept"], content["corrected"], content["added"], content["removed"]) == (1, 1, 1, 1)
    assert content["md5"] == hashlib.md5((folder / "artifacts/data/images/2.png").read_bytes()).hexdigest()

    # what is drawn is not exported again
    exporting.main(["--run", "x"])
    assert [int(name[:12]) for name in Cvat(folder / "artifacts/export/x/cvat.zip").shapes] == [3]


def test_an_image_without_anything_is_drawn_too(folder, cvat, capsys):
    """Nothing is there: all proposals taken away, or none there at all."""
    cvat.of(2).clear()
    said(capsys)
    back(cvat.export(folder / "back.zip"), "--finished")
    assert said(capsys) == ["x: 2 images are drawn: 0 proposals kept, 0 corrected, 3 removed, 0 instances added", "next: dvc repro"]
    for i, removed in ((2, 3), (3, 0)):
        content = read_json(folder / f"drawings/x/{i:012d}.json")
        assert (content["instances"], content["removed"]) == ([], removed)
    said(capsys)
    exporting.main(["--run", "x"])
    assert said(capsys) == ["x: all 2 images are drawn; next: dvc repro"]


def test_importing_twice_changes_nothing_and_a_new_version_replaces(folder, cvat, capsys):
    edited(cvat.of(2))
    path = cvat.export(folder / "back.zip")
    back(path)
    file = folder / "drawings/x/000000000002.json"
    before = (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino)
    said(capsys)
    back(path)
    assert (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) == before
    assert "of these images 0 were drawn before and are replaced, and 1 are as they were" in said(capsys)
    del cvat.of(2)[0]
    back(cvat.export(folder / "back.zip"))
    assert "of these images 1 were drawn before and are replaced, and 0 are as they were" in said(capsys)
    assert [row[0] for row in masks(folder, 2)] == ["corrected", "added"]


def test_a_drawing_stays_where_another_file_has_the_image_as_it_was_exported(folder, cvat, capsys):
    before = copy.deepcopy(cvat.shapes)
    edited(cvat.of(2))
    back(cvat.export(folder / "back.zip"))
    file = folder / "drawings/x/000000000002.json"
    content = file.read_bytes()
    cvat.shapes = before
    said(capsys)
    back(cvat.export(folder / "back.zip"), "--finished")
    assert file.read_bytes() == content
    assert said(capsys)[1].startswith("1 images came back as they were exported, though somebody has drawn on them; that stays")


def test_several_people_import_different_images(folder, cvat):
    """A file an image: git merges what they commit."""
    shapes = copy.deepcopy(cvat.shapes)
    edited(cvat.of(2))
    back(cvat.export(folder / "one.zip"), "--reviewer", "ana")
    first = (folder / "drawings/x/000000000002.json").read_bytes()
    cvat.shapes = shapes
    cvat.of(3).append({"label": NAMES[0], "mask": mask(A)})
    back(cvat.export(folder / "other.zip"), "--reviewer", "ben", "--finished")  # ben has not looked at ana's image
    assert sorted(path.name for path in (folder / "drawings/x").iterdir()) == ["000000000002.json", "000000000003.json"]
    assert (folder / "drawings/x/000000000002.json").read_bytes() == first  # in the other's file it was as exported


def test_the_json_of_cvat_without_its_zip(folder, cvat):
    cvat.of(2)[0]["label"] = NAMES[1]
    (folder / "back.json").write_text("\ufeff" + json.dumps(cvat.content()))
    back(folder / "back.json")
    assert [row[:3] for row in masks(folder, 2)] == [("corrected", NAMES[1], 0), ("kept", NAMES[1], 1), ("kept", NAMES[0], 2)]


def test_from_label_studio(folder, studio, capsys):
    done = studio.submit(2)
    regions = done["result"]
    regions[1]["value"] = brush(NAMES[1], mask((20, 2, 12, 20)))["value"]
    regions[2] = brush(NAMES[0], mask(C) & ~mask(C), "2-2")  # rubbed out
    regions.append(polygon(NAMES[1], [[60, 75], [80, 75], [80, 95], [60, 95]]))
    regions.append({"type": "relation", "from_id": "2-0", "to_id": "2-1", "direction": "right"})
    studio.submit(3, [], was_cancelled=True)
    said(capsys)
    back(studio.export(folder / "back.json"))
    assert said(capsys) == [
        "x: 1 images are drawn: 1 proposals kept, 1 corrected, 1 removed, 1 instances added",
        "1 images were skipped by who should draw, and still wait", "1 of 2 images wait to be drawn: make export RUN=x",
    ]  # fmt: skip
    found = masks(folder, 2)
    assert [row[:3] for row in found] == [("kept", NAMES[0], 0), ("corrected", NAMES[1], 1), ("added", NAMES[1], None)]
    assert (found[1][3] == mask((20, 2, 12, 20))).all()
    assert (found[2][3] == mask((30, 30, 10, 8))).all()
    content = read_json(folder / "drawings/x/000000000002.json")
    assert (content["reviewer"], content["drawn_at"], content["seconds"], content["tool"]) == (
        "label-studio-3", "2026-03-01T10:00:00.123456Z", 12.5, "label-studio",
    )  # fmt: skip


def test_a_submitted_task_is_drawn_though_nothing_changed(folder, studio):
    studio.submit(2)
    studio.submit(3)
    back(studio.export(folder / "back.json"))
    assert [row[:3] for row in masks(folder, 2)] == [("kept", NAMES[0], 0), ("kept", NAMES[1], 1), ("kept", NAMES[0], 2)]
    assert masks(folder, 3) == []


def test_the_last_annotation_of_a_task_counts(folder, studio):
    studio.submit(2, [brush(NAMES[0], mask(A))], updated_at="2026-03-02T10:00:00Z", completed_by={"id": 4, "email": "ben@example.org"})
    studio.submit(2, [])
    studio.submit(2, [], was_cancelled=True, updated_at="2026-03-03T10:00:00Z")
    back(studio.export(folder / "back.json"))
    assert [row[0] for row in masks(folder, 2)] == ["kept"]
    text = (folder / "drawings/x/000000000002.json").read_text()
    assert '"label-studio-4"' in text
    assert "example.org" not in text
    assert not (folder / "drawings/x/000000000003.json").exists()  # nobody has worked on it


def test_numbers_that_are_none_are_left_out(folder, studio):
    studio.submit(2, lead_time=-1, created_at="yesterday; rm -rf", completed_by="ana@example.org")
    back(studio.export(folder / "back.json"))
    content = read_json(folder / "drawings/x/000000000002.json")
    assert (content["reviewer"], content["drawn_at"], content["seconds"]) == (None, None, None)


def test_what_was_exported_with_other_proposals_is_not_taken(folder, cvat, studio, capsys):
    """Nor what a judge has approved since."""
    edited(cvat.of(2))
    studio.submit(2)
    files = [cvat.export(folder / "back.zip"), studio.export(folder / "back.json")]
    back(files[0])
    proposals = read_json(Path("loop/start/proposals.json"))
    write_json(Path("loop/start/proposals.json"), [row for row in proposals if row["image_id"] != 2] + proposals[2:4])
    verdicts = verdict.read(Path("loop/x/verdicts.jsonl"))
    verdict.write(Path("loop/x/verdicts.jsonl"), [verdicts[0], Verdict(2, 2, True, "model", False), *verdicts[2:]])
    for path in files:
        said(capsys)
        back(path)
        assert "1 images were exported with other proposals, or are other pictures by now, and are not taken: export them again" in said(
            capsys
        )
    said(capsys)
    exporting.main(["--run", "x"])
    assert said(capsys)[0] == ("drawings/x: 1 drawings are of another picture or of other proposals than today's; they are drawn anew")
    write_json(Path("loop/start/proposals.json"), proposals)
    verdict.write(Path("loop/x/verdicts.jsonl"), [Verdict(1, 2, True, "model", True), Verdict(2, 3, True, "model", True), *verdicts[2:]])
    back(files[0])
    assert "1 images were exported with other proposals" in "\n".join(said(capsys))


# ---- which proposal an instance was


def image_of(boxes: list, names=(1, 2)) -> Image:
    rows = [{"category_id": names[k % 2], "segmentation": rle(mask(box))} for k, box in enumerate(boxes)]
    return Image(Shown({"id": 1, "height": 40, "width": 50, "file_name": "1.png"}, rows, None, None, 0.6), "0" * 64, None, {1: "a", 2: "b"})


def of(label: str, box, proposal: int | None = None) -> Given:
    return Given(label, rle(mask(box)), proposal)


@pytest.mark.parametrize(
    ("instances", "found"),
    [
        ([], []),
        ([of("a", A), of("b", B)], [("kept", 0), ("kept", 1)]),
        ([of("b", B), of("a", A)], [("kept", 1), ("kept", 0)]),
        ([of("b", A), of("a", B)], [("corrected", 0), ("corrected", 1)]),
        ([of("a", (2, 2, 12, 11))], [("corrected", 0)]),
        ([of("a", (2, 2, 12, 5))], [("added", None)]),  # IoU below a half, and no id
        ([of("a", (2, 2, 12, 5), 0)], [("corrected", 0)]),
        ([of("a", C, 0), of("a", A)], [("corrected", 0), ("added", None)]),  # an id says more than a place
        ([of("a", C, 0), of("a", A, 0)], [("added", None), ("kept", 0)]),  # of copies the nearest
        ([of("a", A, 7), of("b", B, 10**8)], [("kept", 0), ("kept", 1)]),  # ids that are none of ours
        ([of("a", A), of("a", A)], [("kept", 0), ("added", None)]),
        ([of("a", (2, 2, 12, 9)), of("a", A)], [("added", None), ("kept", 0)]),
    ],
)
def test_which_proposal_an_instance_was(instances, found):
    assert status_of(instances, image_of([A, B])) == found


def test_an_image_without_proposals():
    assert status_of([of("a", A, 0)], image_of([])) == [("added", None)]


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_proposal_is_two_instances(data):
    boxes = st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(1, 15), st.integers(1, 15))
    offered = data.draw(st.lists(boxes, max_size=4))
    instances = [of(label, box, place) for label, box, place in data.draw(
        st.lists(st.tuples(st.sampled_from("ab"), boxes, st.none() | st.integers(0, 5)), max_size=5))]  # fmt: skip
    found = status_of(instances, image_of(offered))
    places = [place for _, place in found if place is not None]
    assert len(found) == len(instances)
    assert len(set(places)) == len(places)
    assert set(places) <= set(range(len(offered)))
    assert all((status == "added") == (place is None) for status, place in found)


# ---- what harms


def cvat_file(change):
    def make(folder: Path) -> Path:
        cvat = Cvat(folder / "artifacts/export/x/cvat.zip")
        edited(cvat.of(2))
        content = cvat.content()
        change(content)
        path = folder / "back.zip"
        path.write_bytes(zipped({"annotations/instances_default.json": json.dumps(content).encode()}))
        return path

    return make


def studio_file(change):
    def make(folder: Path) -> Path:
        studio = LabelStudio(folder / "artifacts/export/x/label-studio.json")
        studio.submit(2)
        change(studio.tasks)
        return studio.export(folder / "back.json")

    return make


def put(*keys, value):
    def change(content) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def nest(depth: int) -> list:
    found: list = [1]
    for _ in range(depth):
        found = [found]
    return found


HARM = {
    "another picture": (cvat_file(put("images", 0, "file_name", value="000000000009-0123456789abcdef.png")), "no picture that was"),
    "no name of ours": (cvat_file(put("images", 0, "file_name", value="../../../etc/passwd")), "no picture that was exported"),
    "a name with an escape": (cvat_file(put("images", 0, "file_name", value="\x1b[2J")), r"image '\x1b[2J': it is no picture"),
    "another size": (cvat_file(put("images", 0, "width", value=51)), "the picture is 51 x 40 pixels there, and 50 x 40 here"),
    "another class": (cvat_file(put("categories", 0, "name", value="cat")), "its class is 'cat' (there are: bird, "),
    "a box": (cvat_file(put("annotations", 0, "segmentation", value=[])), "it is a box without an outline"),
    "two corners": (cvat_file(put("annotations", 0, "segmentation", value=[[1, 1, 2, 2]])), "fewer than three corners"),
    "runs of another size": (cvat_file(put("annotations", 0, "segmentation", "counts", value=[10**12])), "counts 1000000000000 pixels"),
    "huge polygon": (cvat_file(put("annotations", 0, "segmentation", value=[[0, 0, 1e300, 1, 5, 5]])), "pixels away"),
    "no list": (cvat_file(put("annotations", value={})), "not COCO instances"),
    "an image twice": (cvat_file(lambda c: c["images"].append({**c["images"][0], "id": 9,
                                                              "file_name": "a/" + c["images"][0]["file_name"]})),
                       "the picture is there twice"),
    "an unknown task": (studio_file(put(0, "data", value={"image": "x.png"})), "no data.picture"),
    "another md5": (studio_file(put(0, "data", "md5", value="0" * 32)), "its data.md5 is not that of the picture"),
    "a task twice": (studio_file(lambda tasks: tasks.append(tasks[0])), "another task is about the same picture"),
    "another tag": (studio_file(put(0, "annotations", 0, "result", 0, "type", value="rectanglelabels")), "of the type 'rectanglelabels'"),
    "turned": (studio_file(put(0, "annotations", 0, "result", 0, "image_rotation", value=90)), "turned by 90 degrees"),
    "sizes swapped": (studio_file(put(0, "annotations", 0, "result", 0, "original_width", value=40)), "the picture is 40 x 40 there"),
    "two classes": (studio_file(put(0, "annotations", 0, "result", 0, "value", "brushlabels", value=["bird", "x"])), "it has 2 classes"),
    "a strange class": (studio_file(put(0, "annotations", 0, "result", 0, "value", "brushlabels", value=["<b>"])), "its class is '<b>'"),
    "a bomb of a mask": (studio_file(put(0, "annotations", 0, "result", 0, "value", "rle", value=[255] * 40)), "has 4,294,967,295 values"),
    "no bytes": (studio_file(put(0, "annotations", 0, "result", 0, "value", "rle", value=[1, 256])), "Expected `int` <= 255"),
    "texts": (studio_file(put(0, "annotations", 0, "result", 0, "value", "rle", value="AAAA")), "Expected `array`"),
    "far points": (studio_file(lambda tasks: tasks[0]["annotations"][0]["result"].append(polygon("bird", [[0, 0], [1e9, 1], [2, 2]]))),
                   "its points cannot be read"),
    "a region without a value": (studio_file(put(0, "annotations", 0, "result", 0, "value", value=None)), "it has no value"),
    "a region twice": (studio_file(lambda tasks: tasks[0]["annotations"][0]["result"].append(tasks[0]["annotations"][0]["result"][0])),
                       "two regions have the id"),
    "another run": (studio_file(put(0, "data", "run", value="y")), "it was exported from the run 'y'; name that one"),
    "as it went out": (studio_file(lambda tasks: [task.pop("annotations") for task in tasks]), "a task as it was exported from here"),
    "a number without end": (cvat_file(put("annotations", 0, "segmentation", value={"size": [40, 50], "counts": "o" * 10**6})), "RLE"),
    "a nest": (cvat_file(put("annotations", 0, "segmentation", value=nest(900))), "no certain meaning"),
    "a long segmentation": (cvat_file(put("annotations", 0, "segmentation", value=[[]] * 2**23)), "bytes; at most 16,777,216 are read"),
    "JSON-MIN": (studio_file(lambda tasks: tasks.__setitem__(slice(None), [{"image": "x.png", "brush": []}])), "not Label Studio's JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", HARM)
def test_what_does_not_fit_is_one_line_and_writes_nothing(folder, capsys, name):
    make, words = HARM[name]
    assert words in refused(capsys, make(folder))


BYTES = {
    "nothing": (b"", "neither an export of CVAT"),
    "text": (b"hello", "neither an export of CVAT"),
    "a torn zip": (b"PK\x03\x04" + b"\0" * 40, "no whole zip"),
    "no annotations": (zipped({"images/default/a.png": b"x"}), "no annotations/instances_*.json in it"),
    "half a JSON": (b'{"images": [', "cannot be read as JSON"),
    "deep": (b"[" * 100_000, "not Label Studio's JSON"),
    "members without end": (zipped({f"annotations/instances_{k}.json": b"{}" for k in range(101)}), "101 files of annotations"),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_export(folder, capsys, name):
    content, words = BYTES[name]
    (folder / "back").write_bytes(content)
    assert words in refused(capsys, folder / "back")


def test_files_that_are_none(folder, capsys):
    os.mkfifo(folder / "pipe")
    assert "not a regular file" in refused(capsys, folder / "pipe")
    assert "not a regular file" in refused(capsys, folder)
    assert "No such file or directory" in refused(capsys, folder / "nowhere")
    assert "--reviewer: letters" in refused(capsys, folder / "nowhere", "--reviewer", "a b\n")


def test_a_zip_bomb_ends_before_the_memory_does(folder):
    """A gigabyte and more of zeros, whose list of files says that it has ten bytes."""
    path = folder / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("annotations/instances_a.json", "w") as stream:
        for _ in range(600):
            stream.write(bytes(2**20))
    content = path.read_bytes()
    assert len(content) < 2**20
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2); from vlm_itl.drawing import importing; "
        "importing.main(['--run', 'x', '--', sys.argv[1]])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OPENBLAS_NUM_THREADS": "1"}
    for bomb in (content, content.replace((600 * 2**20).to_bytes(4, "little"), (10).to_bytes(4, "little"))):
        path.write_bytes(bomb)
        done = subprocess.run([sys.executable, "-c", script, path], cwd=folder, env=env, text=True, capture_output=True, timeout=120)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert "MemoryError" not in done.stderr


def test_a_zip_with_a_list_of_millions_of_files_is_refused_unread(folder, capsys):
    content = bytearray(zipped({"a": b"x"}))
    place = content.rfind(b"PK\5\6")
    content[place + 12 : place + 16] = (2**27).to_bytes(4, "little")
    hidden = bytearray(content)
    hidden[place + 4 : place + 8] = b"PK\5\6"  # its own numbers look like another end
    large = content[:place] + b"PK\6\7" + bytes(16) + content[place : place + 12] + bytes(4) + content[place + 16 :]
    for wrong in (content, hidden, large):
        (folder / "back").write_bytes(wrong)
        assert "a zip of too many files" in refused(capsys, folder / "back")


def test_the_same_picture_twice_is_refused_in_any_order(folder, cvat, capsys):
    """Also where one of them came back as it was exported."""
    content = cvat.content()
    [image] = [row for row in content["images"] if row["file_name"].split("/")[-1].startswith("000000000002")]
    content["images"].append({**image, "id": 99, "file_name": "other/" + image["file_name"].split("/")[-1]})
    for images in (content["images"], content["images"][::-1]):
        (folder / "back.zip").write_bytes(
            zipped({"annotations/instances_default.json": json.dumps({**content, "images": images}).encode()})
        )
        assert "the picture is there twice" in refused(capsys, folder / "back.zip")


def test_a_file_takes_no_reviewer_s_name_away(folder, cvat, capsys):
    edited(cvat.of(2))
    path = cvat.export(folder / "back.zip")
    back(path, "--reviewer", "ben")
    said(capsys)
    back(path)
    assert "0 were drawn before and are replaced, and 1 are as they were" in "\n".join(said(capsys))
    assert read_json(Path("drawings/x/000000000002.json"))["reviewer"] == "ben"


def test_links_and_names_in_a_zip_write_nowhere(folder, cvat):
    """No member is ever unpacked."""
    cvat.of(2).clear()
    before = {str(path) for path in folder.parent.rglob("*")}
    members = {"../../evil": b"x", "/tmp/evil": b"x", "images/../../evil.png": b"x"}
    path = folder / "back.zip"
    path.write_bytes(zipped({**members, "deep/annotations/instances_default.json": json.dumps(cvat.content()).encode()}))
    back(path)
    new = {str(path.relative_to(folder)) for path in folder.parent.rglob("*") if str(path) not in before}
    assert new == {"back.zip", "drawings", "drawings/x", "drawings/x/000000000002.json"}
