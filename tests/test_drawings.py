"""What people drew becomes labels: a round with drawings, what it costs, and drawings that do not belong to it."""

from __future__ import annotations

import json
from pathlib import Path
from pkgutil import resolve_name

import pytest
from conftest import ROOT, instance
from drawing_world import mask, rle
from people import A, B, C
from ruamel.yaml import YAML

from stages import update as stage
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json, write_json
from vlm_itl.judges import verdict
from vlm_itl.judges.verdict import Verdict
from vlm_itl.loop import annotation_log, drawings
from vlm_itl.loop.annotation_log import DrawnCounts, Entry, drawing_in
from vlm_itl.loop.drawings import Drawing, Instance, digest
from vlm_itl.loop.labels import counts
from vlm_itl.loop.policy import Shown
from vlm_itl.loop.update import update
from vlm_itl.metrics.cost import human_cost
from vlm_itl.metrics.curve import hours_at
from vlm_itl.registry import POLICIES
from vlm_itl.settings import Run, Seconds, load

NAMES = {1: "bird", 2: "book"}
IMAGES = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 50, "md5": f"{i:032x}"} for i in range(1, 6)]
POOL = {"images": IMAGES, "annotations": [], "categories": [{"id": i, "name": name} for i, name in NAMES.items()]}
PROPOSALS = [instance(A, 1, 1, score=0.9), instance(A, 1, 2, score=0.8), instance(B, 2, 2, score=0.7), instance(C, 1, 2, score=0.6)]
VERDICTS = [Verdict(1, 1, True, "model", True), Verdict(2, 3, True, "model", False), Verdict(3, 0, False, "model", False)]
NOTHING = {"images": [], "annotations": [], "categories": POOL["categories"]}


def run(policy: str = "annotate", **more) -> Run:
    return Run(**{"judge": "vlm", "prev": "start", "policy": policy, "batch": 3, "drawn_by": "people", **more})


def shown(image_id: int, proposals=PROPOSALS, accepted=None) -> Shown:
    rows = [row for row in proposals if row["image_id"] == image_id]
    said = Verdict(image_id, len(rows), True, "model", False, accepted=accepted)
    return Shown(IMAGES[image_id - 1], rows, said, None, 0.6)


def drawing(image_id: int, *instances: Instance, removed: int = 0, of: Shown | None = None, **more) -> Drawing:
    found = [one.status for one in instances]
    numbers = [found.count(status) for status in ("kept", "corrected", "added")]
    given = {"md5": f"{image_id:032x}", "shown": digest(of or shown(image_id), NAMES), "tool": "cvat", "reviewer": None, "drawn_at": None,
             "seconds": None}  # fmt: skip
    return Drawing(image_id, *(given | more).values(), *numbers, removed, list(instances))


KEPT, CORRECTED = Instance("kept", "bird", 0, rle(mask(A))), Instance("corrected", "bird", 1, rle(mask(B)))
ADDED = Instance("added", "book", None, rle(mask((30, 30, 9, 9))))
TWO = drawing(2, KEPT, CORRECTED, ADDED, removed=1)
THREE = drawing(3)


def draw(folder: Path, *all_of_them: Drawing) -> Path:
    for one in all_of_them:
        drawings.write(folder / "drawings/x", one)
    return folder / "drawings/x"


def after(folder: Path, policy: str = "annotate", verdicts=VERDICTS, truth=None, proposals=PROPOSALS):
    line = run(policy)
    rules = resolve_name(POLICIES[policy])()
    return update("x", line, rules, NOTHING, POOL, proposals, verdicts, truth, [], 0.6, folder)


def test_a_drawn_image_becomes_labels(tmp_path):
    labels, pool, log = after(draw(tmp_path, TWO, THREE))
    assert [(row["id"], row["source"]) for row in labels["images"]] == [(1, "model"), (2, "mixed"), (3, "human")]
    assert [row["id"] for row in pool["images"]] == [4, 5]
    rows = [row for row in labels["annotations"] if row["image_id"] == 2]
    assert [(row["source"], row["category_id"], row.get("score"), row.get("judge")) for row in rows] == [
        ("model", 1, 0.8, None), ("human", 1, None, None), ("human", 2, None, None),
    ]  # fmt: skip
    assert rows[0]["segmentation"] == PROPOSALS[1]["segmentation"]  # the proposal itself
    assert [row["segmentation"] for row in rows[1:]] == [rle(mask(B)), rle(mask((30, 30, 9, 9)))]
    assert next(row for row in labels["annotations"] if row["image_id"] == 1)["judge"] == "vlm"
    assert counts(labels)["instances"] == {"human": 2, "model": 2, "ground_truth": 0}
    assert log == [
        Entry(run="x", action="verify", actor="model", judge="vlm", decisions=2),
        Entry(run="x", action="draw", actor="human", purpose="labels", images=2, instances=1, kept=1),
        Entry(run="x", action="correct", actor="human", purpose="labels", images=1, instances=1, removed=1),
    ]


def test_what_people_did_in_a_run(tmp_path):
    """By the log, which the page and the data set's card show; nothing where a simulated human drew."""
    _, _, log = after(draw(tmp_path, TWO, THREE))
    assert drawing_in(log, "x") == DrawnCounts(images=2, kept=1, corrected=1, added=1, removed=1)
    assert drawing_in(log, "y") is None
    assert drawing_in([Entry(run="y", action="draw", actor="human", purpose="labels", images=2, instances=1)], "y") is None


def test_what_it_costs(tmp_path):
    """Added ones are drawn, corrected ones have a price of their own; what was kept and removed costs nothing."""
    _, _, log = after(draw(tmp_path, TWO, THREE))
    cost = human_cost(log, Seconds(draw=90, correct=36, verify=3))
    assert (cost["drawn_instances"], cost["draw_hours"], cost["corrected_instances"], cost["correct_hours"]) == (1, 0.025, 1, 0.01)
    assert cost["hours"] == pytest.approx(0.035)
    assert hours_at(cost, 90, 3, 36) == pytest.approx(0.035)
    assert Seconds().correct == Seconds().draw == 80
    _, _, without = after(draw(tmp_path, drawing(2, KEPT, removed=2), THREE))
    assert without[-1] == Entry(run="x", action="correct", actor="human", purpose="labels", images=1, instances=0, removed=2)
    assert {"corrected_instances", "correct_hours"} & human_cost(without, Seconds()).keys() == set()
    path = tmp_path / "ledger.json"
    annotation_log.write(path, log)
    assert annotation_log.read(path) == log


def test_under_correct_a_look_is_charged(tmp_path):
    """As for a simulated human: unless the judge was a human who decided on every mask."""
    accepted = [True, False, True]
    of = shown(2, accepted=accepted)
    two = drawing(2, KEPT, ADDED, removed=1, of=of)
    for actor, looks in (("model", 2), ("human", 1)):
        said = [VERDICTS[0], Verdict(2, 3, True, actor, False, accepted=accepted, questions=4), VERDICTS[2]]
        labels, _, log = after(draw(tmp_path, two, THREE), "correct", said)
        looked = [entry.decisions for entry in log if entry.actor == "human" and entry.action == "verify"]
        assert looked[-1] == looks
        assert [row["source"] for row in labels["annotations"] if row["image_id"] == 2] == ["model", "human"]


def test_the_truth_is_never_used(tmp_path):
    """Nor opened by the stage, which gets none for images that nobody has labelled."""
    everywhere = {**POOL, "annotations": [instance((0, 0, 50, 40), 1, i, id=i) for i in (1, 2, 3)]}
    assert after(draw(tmp_path, TWO, THREE), truth=everywhere) == after(draw(tmp_path, TWO, THREE))
    nowhere = {**POOL, "images": []}
    with pytest.raises(UserError, match=r"policy: pool or drop, or drawn_by: people"):
        update("x", run(drawn_by="simulated"), resolve_name(POLICIES["annotate"])(), NOTHING, POOL, PROPOSALS, VERDICTS, nowhere, [], 0.6)


def test_the_stage_takes_the_drawings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in (("labels", NOTHING), ("pool", POOL), ("proposals", PROPOSALS)):
        write_json(Path(f"{name}.json"), value)
    annotation_log.write(Path("ledger.json"), [])
    verdict.write(Path("verdicts.jsonl"), VERDICTS)
    draw(tmp_path, TWO, THREE)
    paths = [Path(f"{name}.json") for name in ("labels", "pool", "ledger", "proposals")]
    new = [Path(f"new/{name}.json") for name in ("labels", "pool", "ledger")]
    given = {"runs.x": run(), "evaluate.judge_iou": 0.6}
    stage.main(*paths, Path("verdicts.jsonl"), Path("no truth"), Path("drawings"), *new, run="x", settings=given)
    assert len(read_json(new[0])["images"]) == 3


@pytest.mark.parametrize(
    ("there", "waiting"), [([], 2), ([TWO], 1), ([THREE], 1), ([drawing(4)], 2), ([drawing(2, shown="0" * 64), THREE], 1)]
)
def test_what_is_not_drawn_yet_ends_in_one_line(tmp_path, there, waiting):
    with pytest.raises(UserError, match=rf"^x: {waiting} of 2 images wait to be drawn: make export RUN=x$"):
        after(draw(tmp_path, *there))


def test_an_approved_image_waits_for_nobody(tmp_path):
    said = [VERDICTS[0], Verdict(2, 3, True, "model", True), VERDICTS[2]]
    labels, _, log = after(draw(tmp_path, THREE), verdicts=said)
    assert [row["source"] for row in labels["images"]] == ["model", "model", "human"]
    assert log[-1] == Entry(run="x", action="draw", actor="human", purpose="labels", images=1, instances=0, kept=0)


def test_stale_drawings_are_said_and_not_used(tmp_path, capsys):
    """Another picture, other proposals, another verdict on single masks."""
    folder = draw(tmp_path, TWO, THREE)
    others = [
        {"proposals": PROPOSALS[:3], "verdicts": [VERDICTS[0], Verdict(2, 2, True, "model", False), VERDICTS[2]]},
        {"proposals": [*PROPOSALS[:3], {**PROPOSALS[3], "category_id": 2}]},
        {"proposals": [*PROPOSALS[:3], instance((3, 22, 12, 12), 1, 2, score=0.6)]},
        {"verdicts": [VERDICTS[0], Verdict(2, 3, True, "model", False, accepted=[True, True, False]), VERDICTS[2]]},
    ]  # fmt: skip
    for change in others:
        with pytest.raises(UserError, match="1 of 2 images wait"):
            after(folder, **change)
        assert "1 drawings are of another picture or of other proposals than today's" in capsys.readouterr().out
    after(folder, proposals=[{**row, "score": 0.5} for row in PROPOSALS])  # a score is not shown


def test_a_digest_is_of_what_is_shown():
    one = shown(2)
    other = {**one.image, "md5": "0" * 32}
    shorter, turned = Shown(one.image, one.proposals[:2], one.verdict, None, 0.6), {1: "book", 2: "bird"}
    digests = [digest(one, NAMES), digest(Shown(other, *list(vars(one).values())[1:]), NAMES), digest(shorter, NAMES), digest(one, turned),
               digest(shown(2, accepted=[False, True, True]), NAMES)]  # fmt: skip
    assert len(set(digests)) == len(digests)
    assert digest(shown(2, accepted=[True] * 3), NAMES) == digests[0]
    assert digest(shown(2, accepted=[True, True, False]), NAMES) == digest(shorter, NAMES)


def instead(k: int, **more):
    """The drawing, whose k-th instance says something else."""
    return lambda row: {**row, "instances": [{**one, **(more if place == k else {})} for place, one in enumerate(row["instances"])]}


FORMS = {
    "no JSON": (lambda row: "{", "Invalid JSON"),
    "another key": (lambda row: {**row, "more": 1}, "more: Unexpected keyword argument"),
    "a text for a number": (lambda row: {**row, "added": "1"}, "added: Input should be a valid integer"),
    "a reviewer with a line break": (lambda row: {**row, "reviewer": "a\nb"}, "reviewer: String should match pattern"),
    "endless seconds": (lambda row: {**row, "seconds": 1e300}, "seconds: Input should be less than or equal to"),
    "other counts": (lambda row: {**row, "added": 2}, "its counts are not those of its instances"),
    "a proposal twice": (instead(1, proposal=0), "do not say which proposals they were"),
    "kept without a proposal": (instead(0, proposal=None), "do not say which proposals they were"),
    "a proposal that was not shown": (instead(0, proposal=9), "instance 0: proposal 9 was not shown"),
    "a class that is not there": (instead(2, label="c\x1bt"), r"instance 2: no class 'c\\x1bt' \(there are: bird, book\)"),
    "a mask of another size": (instead(2, segmentation={"size": [4, 5], "counts": [20]}), r"instance 2: its RLE is for size \[4, 5\]"),
    "an empty mask": (instead(2, segmentation={"size": [40, 50], "counts": [2000]}), "instance 2: its mask is empty"),
    "more proposals": (lambda row: {**row, "removed": 2}, "it counts other proposals than the 3 that were shown"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_that_is_no_drawing_is_one_line(tmp_path, name):
    """They come by git, from whoever sends a change."""
    change, words = FORMS[name]
    folder = draw(tmp_path, TWO, THREE)
    path = drawings.path_of(folder, 2)
    changed = change(json.loads(path.read_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(UserError, match=words) as error:
        after(folder)
    assert str(error.value).startswith(str(path))
    assert str(error.value).isprintable()


def test_only_policies_under_which_somebody_draws_take_people(tmp_path):
    yaml = YAML(typ="safe")
    for name in POLICIES:
        params = yaml.load((ROOT / "params.yaml").read_text())
        params["runs"]["x"] = {"judge": "vlm", "prev": "start", "policy": name, "drawn_by": "people"}
        with (tmp_path / "params.yaml").open("w") as stream:
            yaml.dump(params, stream)
        if name in ("annotate", "correct"):
            assert load(tmp_path / "params.yaml").runs["x"].drawn_by == "people"
        else:
            with pytest.raises(UserError, match=rf"runs\.x\.drawn_by: under the policy '{name}' nobody draws"):
                load(tmp_path / "params.yaml")
