"""The audit: people look at a random sample of what a judge decided, and nothing else is counted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from people import A, B, C, Program, answer

from vlm_itl.judges import verdict
from vlm_itl.judges.verdict import Verdict
from vlm_itl.metrics import audit as numbers
from vlm_itl.metrics.audit import current, sample
from vlm_itl.review import audit
from vlm_itl.review.audit import decided


def test_the_share_has_wilson_s_interval():
    said = [answer(k, decision="yes" if k <= 17 else "no", reason="" if k <= 17 else "missing") for k in range(1, 21)]
    found = sample(94, said)
    n, p, z = 20, 17 / 20, 1.959964
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (found.images, found.looked_at, found.right, found.share) == (94, 20, 17, 0.85)
    assert found.low == pytest.approx((centre - half) / (1 + z * z / n), abs=1e-5)
    assert found.high == pytest.approx((centre + half) / (1 + z * z / n), abs=1e-5)
    assert found.reasons == {"missing": 3}
    assert sample(94, []).share is None


@pytest.fixture
def program(tmp_path):
    """A judge that accepts single masks: images 1 to 4 approved, 4 with one of its two masks; 5 and 6 rejected; 7 without proposals."""
    program = Program(tmp_path, {1: [A], 2: [B], 3: [C], 4: [A, B], 5: [A, C], 6: [B], 7: []})
    verdict.write(tmp_path / "loop/person-1/verdicts.jsonl", [
        *(Verdict(i, 1, True, "model", True, accepted=[True], questions=2) for i in (1, 2, 3)),
        Verdict(4, 2, True, "model", True, accepted=[True, False], questions=3),
        Verdict(5, 2, True, "model", False, accepted=[True, False], questions=3),
        Verdict(6, 1, True, "model", False, accepted=[False], questions=1), Verdict(7, 0, False, "model", False),
    ])  # fmt: skip
    yield program
    if program.process and program.process.poll() is None:
        program.process.kill()
        program.process.communicate()


def groups(program, monkeypatch, seed: int = 0):
    monkeypatch.chdir(program.folder)
    pool, proposals = (json.loads(Path(f"loop/start/{name}.json").read_text()) for name in ("pool", "proposals"))
    return decided("person-1", pool, proposals, verdict.read(Path("loop/person-1/verdicts.jsonl")), seed)


def test_labels_of_approved_images_and_all_proposals_of_rejected_ones_are_shown(program, monkeypatch):
    approved, rejected = groups(program, monkeypatch)
    assert {case.image["id"]: len(case.shown) for case in approved} == {1: 1, 2: 1, 3: 1, 4: 1}
    assert {case.image["id"]: len(case.shown) for case in rejected} == {5: 2, 6: 1}
    orders = [[case.image["id"] for case in groups(program, monkeypatch, seed)[0]] for seed in range(6)]
    assert orders[0] == [case.image["id"] for case in approved]
    assert len(set(map(tuple, orders))) > 1
    # the order of two images is theirs alone, whatever else is in the pool: so the first ones of a larger sample are the smaller sample
    pool, proposals = (json.loads(Path(f"loop/start/{name}.json").read_text()) for name in ("pool", "proposals"))
    fewer = {**pool, "images": [image for image in pool["images"] if image["id"] != orders[0][0]]}
    verdicts = verdict.read(Path("loop/person-1/verdicts.jsonl"))
    assert [case.image["id"] for case in decided("person-1", fewer, proposals, verdicts, 0)[0]] == orders[0][1:]


def test_a_round_over_http_is_counted(program, monkeypatch, capsys):
    program.start(command=("audit", "--run", "person-1", "-n", "3"))
    assert "5 of 5 images are open; answers go to audits/person-1/answers.jsonl" in program.said
    state, known = program.post("/api/start")[1], {}
    approved, rejected = groups(program, monkeypatch)
    for case in approved:
        known[case.keys[0]] = ("approved", case)
    for case in rejected:
        known[case.keys[0]] = ("rejected", case)
    wanted = {"approved": 0, "rejected": 0}
    for k in range(1, 6):
        item = state["item"]
        assert not {"approved", "rejected", "verdict", "p_approve", "score"} & set(json.dumps(state).replace('"', " ").split())
        group, case = known[item["item"]]
        yes = case.image["id"] != approved[0].image["id"]  # the person finds fault with one approved image
        wanted[group] += yes
        state = program.decide(item["item"], k, **({"decision": "yes"} if yes else {"decision": "no", "reason": "boundary"}))[1]
    assert state["item"] is None
    said = program.stop()
    assert "person-1: 2 of 3 approved images are right: 0.67 (0.21 to 0.94); there are 4" in said
    found = current("person-1")
    assert (found.approved.looked_at, found.approved.right, found.approved.images) == (3, 2, 4)
    assert (found.rejected.looked_at, found.rejected.right, found.rejected.images) == (2, wanted["rejected"], 2)
    assert (found.approved.reasons, found.reviewers) == ({"boundary": 1}, ["ana"])
    # other verdicts: it is said and left out; the answers count again once today's sample is complete, since it is another one
    rows = verdict.read(Path("loop/person-1/verdicts.jsonl"))
    verdict.write(
        Path("loop/person-1/verdicts.jsonl"),
        [*rows[:3], Verdict(4, 2, True, "model", False, accepted=[True, False], questions=3), *rows[4:]],
    )
    assert current("person-1") is None
    assert "the verdicts are others since" in capsys.readouterr().out
    open_now = {case.image["id"] for group in groups(program, monkeypatch) for case in group} - {
        case.image["id"] for case in [*approved[:3], *rejected]
    } | {4}  # image 4 is shown otherwise
    with pytest.raises(SystemExit, match=rf"of today's sample {len(open_now)} images are open: make audit RUN=person-1 N=100$"):
        audit.main(["--run", "person-1", "--count"])
    assert current("person-1") is None
    program.start(command=("audit", "--run", "person-1"))
    item, number = program.post("/api/start")[1]["item"], 20
    while item:
        item, number = program.decide(item["item"], number, decision="yes")[1]["item"], number + 1
    assert number - 20 == len(open_now)
    program.stop()
    again = current("person-1")
    assert (again.approved.images, again.approved.looked_at, again.rejected.images, again.rejected.looked_at) == (3, 3, 3, 3)


@pytest.mark.parametrize(("words", "message"), [
    (["--run", "x"], r"^error: params.yaml: runs: no run 'x' \(there are: .*person-1\)$"),
    (["--run", "human-1"], r"^error: loop/human-1/verdicts.jsonl: no such file; `dvc repro` makes it "),
    (["--run", "person-1", "-n", "0"], r"^error: -n: at least one image$"),
])  # fmt: skip
def test_bad_words_are_one_line(program, monkeypatch, words, message):
    monkeypatch.chdir(program.folder)
    with pytest.raises(SystemExit, match=message):
        audit.main(words)
    assert not numbers.file_of("person-1").exists()
