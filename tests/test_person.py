"""A person as judge: what an item's key depends on, and verdicts from answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT, instance
from people import A, B, C, answer, world, yaml

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json, write_text
from vlm_itl.judges import verdict
from vlm_itl.judges.base import Task
from vlm_itl.judges.person.answers import FILE, Answers, Standing
from vlm_itl.judges.person.items import Item, cases, key
from vlm_itl.judges.person.judge import decided
from vlm_itl.probes.metrics import measure
from vlm_itl.settings import PersonJudge, Prices, Render

IMAGE, MASKS = PersonJudge(kind="person"), PersonJudge(kind="person", unit="instance")


def no_truth():
    raise AssertionError("a person needs no truth")


def judged(folder, judge, pool, proposals, answers, run="person-1"):
    file = Answers(folder / "judges/person" / FILE)
    for line in answers:
        file.append(line)
    return judge.judge(Task(pool, proposals, folder / "images", no_truth, folder / "judges/person", folder / "store", 0, run))


def test_a_key_depends_on_what_is_seen_and_on_nothing_else(tmp_path):
    pool, proposals = world(tmp_path, {1: [A, B]})
    names, row = {1: "bird", 2: "book"}, pool["images"][0]
    item = Item("image", row, tuple(proposals), names)
    one = key(item, IMAGE)
    same = [
        replace(item, image={**row, "id": 7, "file_name": "other.png", "kind": "exact"}),
        replace(item, shown=tuple({**p, "score": 0.1, "image_id": 7} for p in proposals)),
    ]
    assert {key(other, IMAGE) for other in same} == {one}
    assert key(item, IMAGE.model_copy(update={"probes": 0.5, "render": Render(margin=2)})) == one
    others = [
        replace(item, image={**row, "md5": "0" * 32}),
        replace(item, shown=tuple(proposals[::-1])),  # other colours
        replace(item, shown=tuple(proposals[:1])),
        replace(item, shown=(proposals[0], {**proposals[1], **instance(C, 2)})),
        replace(item, names={1: "bird", 2: "zebra"}),
        replace(item, names={**names, 3: "zebra"}),
        replace(item, kind="missing"),
    ]
    keys = [key(other, IMAGE) for other in others] + [key(item, PersonJudge(kind="person", render=Render(alpha=0.1)))]
    assert len({one, *keys}) == 9
    mask = Item("mask", row, (proposals[0],), names)
    assert key(mask, MASKS) != key(mask, MASKS.model_copy(update={"render": Render(margin=2)}))
    assert key(mask, MASKS) == key(replace(mask, names={**names, 3: "zebra"}), MASKS)  # the question names one class


def test_a_picture_without_md5_is_read(tmp_path):
    pool, proposals = world(tmp_path, {1: [A]})
    keys = [case.keys for case in cases(pool, proposals, tmp_path, IMAGE)]
    del pool["images"][0]["md5"]
    assert [case.keys for case in cases(pool, proposals, tmp_path, IMAGE)] == keys
    (tmp_path / "1.png").unlink()
    with pytest.raises(UserError, match=r"1\.png: No such file or directory; `dvc repro` brings the picture back"):
        list(cases(pool, proposals, tmp_path, IMAGE))


def test_verdicts_of_images(tmp_path):
    pool, proposals = world(tmp_path / "images", {3: [A], 1: [A, B], 2: []})
    three, one = (case.keys[0] for case in cases(pool, proposals, tmp_path / "images", IMAGE))
    said = [answer(1, three, "no", reason="boundary"), answer(2, one, "skip"), answer(3, three, "yes"), answer(4, one, "yes")]
    done = judged(tmp_path, IMAGE, pool, proposals, said)
    assert [(v.image_id, v.asked, v.approve, v.reason, v.actor) for v in done.verdicts] == [
        (1, True, True, "", "human"), (2, False, False, "", "human"), (3, True, False, "boundary", "human"),
    ]  # fmt: skip
    assert done.took == {"questions": 2}
    assert json.dumps(done.identity)
    verdict.write(tmp_path / "verdicts.jsonl", done.verdicts)
    assert verdict.read(tmp_path / "verdicts.jsonl") == done.verdicts
    assert not IMAGE.simulated
    assert not IMAGE.looks
    assert not IMAGE.computes


def test_an_open_image_ends_a_run_in_one_line(tmp_path):
    pool, proposals = world(tmp_path / "images", {1: [A], 2: [B], 3: [C], 4: []})
    key = next(cases(pool, proposals, tmp_path / "images", IMAGE)).keys[0]
    with pytest.raises(UserError, match=r"^person: 2 of 3 images are open: make review RUN=person-1$"):
        judged(tmp_path, IMAGE, pool, proposals, [answer(1, key)])


def test_no_answers_at_all(tmp_path):
    pool, proposals = world(tmp_path / "images", {1: [A]})
    with pytest.raises(UserError, match="1 of 1 images are open"):
        judged(tmp_path, IMAGE, pool, proposals, [])


def test_of_probes_it_takes_what_is_answered(tmp_path):
    pool, proposals = world(tmp_path / "images", {1: [A], 2: [B]})
    for image in pool["images"]:
        image.update(kind="exact", source_id=image["id"], iou=1.0)
    key = next(cases(pool, proposals, tmp_path / "images", IMAGE)).keys[0]
    nobody = judged(tmp_path, IMAGE, pool, proposals, [], run=None)
    done = judged(tmp_path, IMAGE, pool, proposals, [answer(1, key)], run=None)
    assert [(v.asked, v.approve) for v in done.verdicts] == [(True, True), (False, False)]
    truth = {**pool, "annotations": [instance(A, 1, 1), instance(B, 1, 2)]}
    assert [measure(pool, proposals, truth, d.verdicts, 0.6, Prices())[0]["probes"] for d in (nobody, done)] == [0, 1]


def test_verdicts_of_masks(tmp_path):
    """All masks, then whether anything is missing beside the accepted ones."""
    pool, proposals = world(tmp_path / "images", {1: [A, B]})
    [case] = cases(pool, proposals, tmp_path / "images", MASKS)
    first, second = case.keys
    rests = {accepted: case.rest(accepted) for accepted in ((True, True), (True, False), (False, True))}
    assert case.rest((False, False)) is None
    assert len({rest[0] for rest in rests.values()}) == 3
    after = lambda *said: decided(case, Standing(said))  # noqa: E731
    yes, no = answer(1, first), answer(2, second, "no", reason="class")
    assert after() is after(yes) is after(no) is after(yes, no) is None
    assert after(yes, no, answer(3, rests[True, True][0])) is None  # another question
    done = after(yes, no, answer(3, rests[True, False][0]))
    assert (done.approve, done.accepted, done.questions, done.reason) == (True, [True, False], 3, "")
    done = after(yes, no, answer(3, rests[True, False][0], "no", reason="missing"))
    assert (done.approve, done.accepted, done.questions, done.reason) == (False, [True, False], 3, "missing")
    done = after(answer(1, first, "no"), no)
    assert (done.approve, done.accepted, done.questions, done.reason) == (False, [False, False], 2, "no proposal accepted")


def test_equal_masks_are_one_question(tmp_path):
    pool, proposals = world(tmp_path, {1: [A, A]}, names=("bird",))
    [case] = cases(pool, proposals, tmp_path, MASKS)
    assert len(set(case.keys)) == 1
    done = decided(case, Standing([answer(1, case.keys[0]), answer(2, case.rest((True, True))[0], "no")]))
    assert (done.accepted, done.questions) == ([True, True], 2)


def test_answers_stay_when_ids_and_order_change(tmp_path):
    """They are found by content: another split, another run."""
    pool, proposals = world(tmp_path / "images", {1: [A], 2: [B]})
    said = [answer(k, case.keys[0]) for k, case in enumerate(cases(pool, proposals, tmp_path / "images", IMAGE))]
    ids = {1: 20, 2: 10}
    pool["images"] = [{**image, "id": ids[image["id"]]} for image in pool["images"]][::-1]
    proposals = [{**row, "image_id": ids[row["image_id"]], "score": 0.1} for row in proposals]
    assert [v.approve for v in judged(tmp_path, IMAGE, pool, proposals, said).verdicts] == [True, True]


def test_the_stage_waits_for_nobody(tmp_path):
    """It ends in one line, and with the answers it writes verdicts; the truth is never opened."""
    pool, proposals = world(tmp_path / "artifacts/data/images", {1: [A], 2: [B]})
    write_json(tmp_path / "loop/start/pool.json", pool)
    write_json(tmp_path / "loop/start/proposals.json", proposals)
    write_text(tmp_path / "artifacts/split/truth.json", "nobody reads this")
    params = yaml.load((ROOT / "params.yaml").read_text())
    params["judges"]["person"] = {"kind": "person"}
    params["runs"]["person-1"] = {"judge": "person", "prev": "start", "policy": "annotate", "batch": 1}
    yaml.dump(params, tmp_path / "params.yaml")
    file = Answers(tmp_path / "judges/person" / FILE)
    file.path.parent.mkdir(parents=True)

    def stage() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stages.judge", "--judge=person", "--run=person-1", "--prev=start"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}, capture_output=True, text=True,
        )  # fmt: skip

    done = stage()
    assert (done.returncode, done.stderr) == (1, "error: person: 1 of 1 images are open: make review RUN=person-1\n")
    case = next(cases(pool, proposals, tmp_path / "artifacts/data/images", IMAGE))
    file.append(answer(1, case.keys[0], "no", reason="class"))
    done = stage()
    assert done.returncode == 0, done.stderr
    assert "person: 0 of 1 images with proposals approved" in done.stdout
    [said] = verdict.read(tmp_path / "loop/person-1/verdicts.jsonl")
    assert (said.approve, said.actor, said.reason) == (False, "human", "class")
    assert json.loads((tmp_path / "metrics/asking/person-1.json").read_text()) == {"questions": 1}
