"""Policies, provenance, the annotation log and its price."""

from __future__ import annotations

from pkgutil import resolve_name

import pytest
from conftest import instance

from vlm_itl.core.coco import by_image, first
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json, write_json
from vlm_itl.judges.verdict import Verdict
from vlm_itl.loop import annotation_log, labels
from vlm_itl.loop.annotation_log import Entry
from vlm_itl.loop.start import initial, unlabelled
from vlm_itl.loop.update import update as update_by
from vlm_itl.metrics.cost import human_cost
from vlm_itl.registry import POLICIES
from vlm_itl.settings import HumanJudge, Run, Seconds

BOX, FAR = (5, 5, 20, 20), (30, 20, 15, 15)


@pytest.fixture
def start():
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 50} for i in range(1, 6)]
    rows = [{**instance(BOX, 1, i), "id": i} for i in range(1, 6)] + [{**instance(FAR, 1, 1, iscrowd=1), "id": 9}]
    data = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "bird"}]}
    return (*initial(data, {1}, {2, 3, 4}, {5}), data)


def update(name, run, old, pool, proposals, verdicts, truth, log, iou):
    policy = resolve_name(POLICIES[run.policy])()
    shown = by_image(proposals)

    def whole(one):
        return one if isinstance(one, Verdict) else Verdict(**({"proposals": len(shown.get(one["image_id"], ()))} | one))

    said = {one.image_id: one for one in map(whole, verdicts)}
    for image in first(pool, run.batch)["images"]:  # nobody was asked about the others
        said.setdefault(image["id"], whole(verdict(image["id"], False, asked=False)))
    return update_by(name, run, policy, old, pool, proposals, list(said.values()), truth, log, iou)


def verdict(image_id, approve, asked=True, actor="human"):
    return {"image_id": image_id, "approve": approve, "asked": asked, "actor": actor}


PROPOSALS = [instance(FAR, 1, 2, score=0.8), instance(FAR, 1, 3, score=0.7)]
VERDICTS = [verdict(2, True), verdict(3, False), verdict(4, False, asked=False)]


def after(start, policy, verdicts=VERDICTS):
    old, pool, ledger, data = start
    run = Run(judge="human", prev="start", policy=policy)
    truth = data if policy in ("annotate", "ground_truth") else None
    return update("human-1", run, old, pool, PROPOSALS, verdicts, truth, ledger, 0.6)


def test_equal_fingerprints_are_equal_lessons(start):
    """Who approved does not matter, nor the order; what a detector learns from does."""
    old, pool, ledger, _ = start

    def of(verdicts, proposals=PROPOSALS, judge="human", name="human-1"):
        new, _, _ = update(name, Run(judge=judge, prev="start"), old, pool, proposals, verdicts, None, ledger, 0.6)
        return new

    both = [verdict(2, True), verdict(3, True)]
    one, other = of(both), of(both, judge="vlm", name="vlm-1")
    assert one != other
    assert labels.fingerprint(one) == labels.fingerprint(other)
    turned = {**one, "images": one["images"][::-1], "annotations": one["annotations"][::-1]}
    assert labels.fingerprint(turned) == labels.fingerprint(one)
    assert labels.fingerprint(of([verdict(2, False)])) == labels.fingerprint(old)
    different = [
        of([verdict(2, True)]), of(both, [PROPOSALS[0], {**PROPOSALS[1], "score": 0.71}]),
        of(both, [PROPOSALS[0], instance(BOX, 1, 3, score=0.7)]), of(both, [PROPOSALS[0], {**PROPOSALS[1], "category_id": 2}]), old,
    ]  # fmt: skip
    assert len({labels.fingerprint(new) for new in [one, *different]}) == 6


def test_start(start):
    old, pool, ledger, _ = start
    assert [i["id"] for i in old["images"]] == [1]
    assert [i["id"] for i in pool["images"]] == [2, 3, 4]
    assert not pool["annotations"]
    assert {a["source"] for a in old["annotations"]} == {"human"}
    assert [(entry.purpose, entry.images, entry.instances) for entry in ledger] == [("labels", 1, 1), ("validation", 1, 1)]


@pytest.mark.parametrize(
    ("policy", "left", "sources"),
    [
        ("pool", [3, 4], {"human": 1, "model": 1, "ground_truth": 0}),
        ("drop", [], {"human": 1, "model": 1, "ground_truth": 0}),
        ("annotate", [], {"human": 3, "model": 1, "ground_truth": 0}),
        ("ground_truth", [3, 4], {"human": 1, "model": 0, "ground_truth": 1}),
    ],
)
def test_policies(start, policy, left, sources):
    new, pool, ledger = after(start, policy)
    assert [i["id"] for i in pool["images"]] == left
    assert labels.counts(new)["images"] == {**sources, "mixed": 0}
    assert labels.counts(new)["instances"] == sources
    dropped = sum(entry.images for entry in ledger if entry.action == "drop")
    assert len(new["images"]) + len(pool["images"]) + dropped == 4


def test_what_was_approved_is_what_is_learnt(start):
    """The proposal's mask, not the truth's, with its provenance."""
    new, _, _ = after(start, "pool")
    row = next(a for a in new["annotations"] if a["image_id"] == 2)
    assert row["segmentation"] == PROPOSALS[0]["segmentation"]
    assert (row["source"], row["score"], row["run"], row["judge"]) == ("model", 0.8, "human-1", "human")
    leaked, _, _ = after(start, "ground_truth")
    assert next(a for a in leaked["annotations"] if a["image_id"] == 2)["bbox"] == list(BOX)


def test_old_labels_are_not_touched(start):
    before = [dict(a) for a in start[0]["annotations"]]
    new, _, _ = after(start, "annotate")
    assert new["annotations"][: len(before)] == before == start[0]["annotations"]
    assert len({a["id"] for a in new["annotations"]}) == len(new["annotations"])


def test_nothing_approved_nothing_changes(start):
    new, pool, _ = after(start, "pool", [verdict(i, False) for i in (2, 3, 4)])
    assert new == start[0]
    assert pool == start[1]


def test_corrected_images(start):
    """Image 2: an accepted mask that is no instance stays, and the instance is drawn; image 3: its mask stands for the instance; image 4
    was not asked about."""
    old, pool, ledger, data = start
    proposals = [
        instance(FAR, 1, 2, score=0.8), instance(BOX, 1, 3, score=0.9), instance(FAR, 1, 3, score=0.7), instance(BOX, 1, 4, score=0.9),
    ]  # fmt: skip
    verdicts = [
        {**verdict(2, False, actor="model"), "accepted": [True], "questions": 2},
        {**verdict(3, False, actor="model"), "accepted": [True, False], "questions": 3},
        verdict(4, False, asked=False, actor="model"),
    ]
    run = Run(judge="vlm", prev="start", policy="correct")
    new, left, log = update("vlm-1", run, old, pool, proposals, verdicts, data, ledger, 0.6)
    assert [(i["id"], i["source"]) for i in new["images"]] == [(1, "human"), (2, "mixed"), (3, "model"), (4, "human")]
    boxes = {i: [(a["source"], tuple(a["bbox"])) for a in new["annotations"] if a["image_id"] == i] for i in (2, 3, 4)}
    assert boxes == {2: [("model", FAR), ("human", BOX)], 3: [("model", BOX)], 4: [("human", BOX)]}
    assert not left["images"]
    cost = human_cost(log, Seconds(draw=80, verify=3))
    # one initial instance and two here; a look at each image, also where nothing is missing
    assert (cost["drawn_instances"], cost["human_decisions"], cost["machine_decisions"]) == (3, 3, 5)
    assert labels.counts(new)["instances"] == {"human": 3, "model": 2, "ground_truth": 0}
    # a mask that overlaps too little stands for nothing, and the instance is drawn beside it
    near = [instance((5, 5, 20, 10), 1, 2, score=0.8)]
    new, _, _ = update("vlm-1", run, old, pool, near, [{**verdict(2, False), "accepted": [True]}], data, ledger, 0.6)
    assert [a["source"] for a in new["annotations"] if a["image_id"] == 2] == ["model", "human"]
    # an approved image is nobody's to look at, and a verdict on the image as a whole rejects every mask
    new, _, log = update("vlm-1", run, old, pool, proposals, [verdict(2, True, actor="model"), verdict(3, False, actor="model")],
                                data, ledger, 0.6)  # fmt: skip
    assert [i["source"] for i in new["images"]] == ["human", "model", "human", "human"]
    assert human_cost(log, Seconds())["human_decisions"] == 2


def test_a_human_who_decides_on_every_mask_looks_once(start):
    old, pool, ledger, data = start
    person = HumanJudge(kind="human", unit="instance")
    proposals = [instance(BOX, 1, 2, score=0.8), instance(FAR, 1, 3, score=0.7)]
    verdicts = person.verdicts(pool, proposals, data, 1)
    assert [(v.image_id, v.approve, v.accepted, v.questions) for v in verdicts] == [
        (2, True, [True], 2), (3, False, [False], 2), (4, False, None, None),
    ]  # fmt: skip
    run = Run(judge="human", prev="start", policy="correct")
    new, _, log = update("human-1", run, old, pool, proposals, verdicts, data, ledger, 0.6)
    cost = human_cost(log, Seconds())
    assert [i["source"] for i in new["images"]] == ["human", "model", "human", "human"]
    assert (cost["drawn_instances"], cost["human_decisions"]) == (3, 5)  # a mask and completeness each, and a look at image 4


def test_a_round_concerns_its_batch(start):
    old, pool, ledger, data = start
    run = Run(judge="never", prev="start", policy="annotate", batch=2)
    new, left, log = update("draw-1", run, old, pool, [], [], data, ledger, 0.6)
    assert [i["id"] for i in new["images"]] == [1, 2, 3]
    assert [i["id"] for i in left["images"]] == [4]
    assert log[-1] == Entry(run="draw-1", action="draw", actor="human", purpose="labels", images=2, instances=2)
    new, left, _ = update("draw-2", run, new, left, [], [], data, log, 0.6)
    assert [i["id"] for i in new["images"]] == [1, 2, 3, 4]
    assert not left["images"]
    none = run.model_copy(update={"batch": 0})
    assert update("draw-none", none, old, pool, [], [], data, ledger, 0.6) == (old, pool, ledger)


def test_a_verdict_on_other_proposals_is_an_error_line(start):
    old, pool, ledger, data = start
    shown = [{"image_id": 2, "score": 0.9}]
    for policy in ("pool", "annotate", "correct"):
        for said, why in (
            (Verdict(2, 2, True, "model", True, accepted=[True, False]), "image 2: a verdict on 2 proposals, and 1 are there"),
            (Verdict(4, 1, True, "model", True), "image 4: a verdict on 1 proposals, and 0 are there"),
            (Verdict(9, 0, False, "model", False), "image 9: a verdict, but it is not in this batch"),
        ):
            with pytest.raises(UserError, match=why):
                update("a", Run(judge="vlm", prev="start", policy=policy), old, pool, shown, [said], data, ledger, 0.6)


def test_an_image_without_a_verdict_is_an_error_line(start):
    old, pool, ledger, _ = start
    said = [Verdict(i, 0, False, "model", False) for i in (2, 4)]
    with pytest.raises(UserError, match="image 3: it is in this batch, without a verdict; `dvc repro` makes the verdicts again"):
        update_by("a", Run(judge="vlm", prev="start"), resolve_name(POLICIES["pool"])(), old, pool, [], said, None, ledger, 0.6)


def test_a_start_without_labels_takes_over_the_validation_images(start):
    _, _, ledger, data = start
    images = {**data, "annotations": []}
    none, pool, log = unlabelled(images, ledger)
    assert (none["images"], pool) == ([], images)
    assert log == [Entry(run="start", action="draw", actor="human", purpose="validation", images=1, instances=1)]


def test_empty_pool(start):
    old, pool, ledger, _ = start
    run = Run(judge="human", prev="start")
    empty = {**pool, "images": []}
    assert update("human-1", run, old, empty, [], [], None, ledger, 0.6) == (old, empty, ledger)


def test_hours(start):
    _, _, ledger = after(start, "annotate")
    cost = human_cost(ledger, Seconds(draw=80, verify=3))
    assert cost["drawn_instances"] == 3  # 1 initial, 2 rejected; the crowd region is not drawn
    assert cost["human_decisions"] == 2  # the image without proposals was not asked about
    assert cost["hours"] == pytest.approx((3 * 80 + 2 * 3) / 3600, abs=1e-6)
    assert cost["validation_hours"] == pytest.approx(80 / 3600, abs=1e-6)


def test_machines_cost_no_human_time(start):
    verdicts = [{**v, "actor": "model"} for v in VERDICTS]
    _, _, ledger = after(start, "pool", verdicts)
    cost = human_cost(ledger, Seconds())
    assert cost["verify_hours"] == 0
    assert cost["machine_decisions"] == 2


def test_the_log_as_it_stands_in_the_file(start, tmp_path):
    """An entry has the keys that say something, in one order."""
    _, _, log = after(start, "annotate")
    _, _, dropped = after(start, "drop")
    path = tmp_path / "ledger.json"
    annotation_log.write(path, [*log, dropped[-1]])
    assert [list(row.items()) for row in read_json(path)] == [
        [("run", "start"), ("action", "draw"), ("actor", "human"), ("purpose", "labels"), ("images", 1), ("instances", 1)],
        [("run", "start"), ("action", "draw"), ("actor", "human"), ("purpose", "validation"), ("images", 1), ("instances", 1)],
        [
            ("run", "human-1"),
            ("action", "verify"),
            ("actor", "human"),
            ("judge", "human"),
            ("decisions", 2),
            ("about", {"image": {"1": 2}}),
        ],
        [("run", "human-1"), ("action", "draw"), ("actor", "human"), ("purpose", "labels"), ("images", 2), ("instances", 2)],
        [("run", "human-1"), ("action", "drop"), ("actor", "none"), ("images", 2)],
    ]
    assert annotation_log.read(path) == [*log, dropped[-1]]


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"run": "start"}, "Input should be a valid list"),
        ([{"run": "a", "action": "draw", "actor": "human"}, {"run": "a", "action": "paint", "actor": "human"}], "1.action: Input should"),
        ([{"run": "a", "action": "verify", "actor": "human", "decisions": "2"}], "0.decisions: Input should be a valid integer"),
        ([{"run": "a", "action": "verify", "actor": "human", "hours": 2}], "0.hours: Extra inputs"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_log_is_an_error_line(tmp_path, content, where):
    path = tmp_path / "ledger.json"
    write_json(path, content)
    with pytest.raises(UserError, match=f"ledger.json: no annotation log: {where}[^\n]*; `dvc repro` writes it anew$"):
        annotation_log.read(path)
