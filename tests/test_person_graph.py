"""An arm of a person through real DVC: it waits for nobody, and a person who answers as the oracle does gets the oracle's labels."""

from __future__ import annotations

import json
import sys

import pytest
from people import answer
from pipeline import Clone, shrink

from vlm_itl.core.coco import by_image, first
from vlm_itl.core.matching import all_right
from vlm_itl.judges.person.answers import FILE, Answers
from vlm_itl.judges.person.items import cases
from vlm_itl.judges.person.judge import PersonJudge

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Clone:
    def change(params: dict) -> None:
        shrink(params)
        params["judges"]["person"] = {"kind": "person"}
        params["runs"] = {
            "human-1": {"judge": "human", "prev": "start", "policy": "annotate", "batch": 8},
            "person-1": {"judge": "person", "prev": "start", "policy": "annotate", "batch": 8},
        }
        params["probed"], params["people"] = ["human", "person"], ["person"]
        params["evaluate"]["seconds"]["verify"] = "measured"

    return Clone(tmp_path_factory.mktemp("person") / "work", change, audited=True)


def decide(work: Clone, pool: dict, proposals: list[dict], truth: dict, second: int) -> int:
    """Answer as the oracle does, a decision a second; returns the second after the last one."""
    instances = by_image(truth)
    file = Answers(work.folder / "judges/person" / FILE)
    for case in cases(pool, proposals, work.folder / "artifacts/data/images", PersonJudge(kind="person")):
        if file.standing.verdict(case.keys[0]) is None:
            right = all_right(list(case.shown), instances.get(case.image["id"], []), 0.6)
            file.append(answer(second, case.keys[0], "yes" if right else "no", masks=len(case.shown), seconds=2.0 + len(case.shown)))
            file.refresh()
            second += 1
    return second


def test_it_waits_for_nobody_and_then_goes_on(work):
    done = work.run("dvc", "repro", "judge@person-1", check=False)
    assert done.returncode != 0
    truth, read = work.json("artifacts/split/truth.json"), work.json
    batch, proposals = first(read("loop/start/pool.json"), 8), read("loop/start/proposals.json")
    number = len({row["image_id"] for row in proposals} & {row["id"] for row in batch["images"]})
    assert f"error: person: {number} of {number} images are open: make review RUN=person-1" in done.stdout
    second = decide(work, batch, proposals, truth, 1)
    work.run("dvc", "repro", "judge-probes@person", "judge-probes@human")
    asked = [json.loads(line)["asked"] for line in work.text("artifacts/probes/person/verdicts.jsonl").splitlines()]
    assert not any(asked)
    probes = {name: read(f"artifacts/probes/{name}.json") for name in ("pool", "proposals", "truth")}
    decide(work, probes["pool"], probes["proposals"], probes["truth"], second)
    work.repro()
    masks = [
        [(row["image_id"], row["source"], row["segmentation"]) for row in read(f"loop/{name}/labels.json")["annotations"]]
        for name in ("human-1", "person-1")
    ]
    assert masks[0] == masks[1]
    assert read("metrics/detection/person-1.json") == read("metrics/detection/human-1.json")
    quality = read("metrics/judge/person-1.json")
    assert (quality["recall"] in (1.0, None), quality["specificity"] in (1.0, None)) == (True, True)


def test_what_was_measured_is_paid_and_shown(work):
    people = work.json("metrics/people/person.json")
    assert people["decisions"] > 8
    table = people["seconds"]["image"]
    assert all(row["seconds"] == 2.0 + int(size) for size, row in table.items() if size in ("1", "2"))
    assert people["on_probes"]["person"] == people["on_probes"]["human"]  # on the same probes, and both are right
    assert people["with_judges"]["human"]["share"] == 1.0
    cost, log = work.json("metrics/cost/person-1.json"), work.json("loop/person-1/ledger.json")
    about = next(row["about"]["image"] for row in log if row["action"] == "verify")
    bins = {"1": "1", "2": "2", **dict.fromkeys("345", "3-5")}
    hours = sum(number * table[bins[masks]]["seconds"] for masks, number in about.items()) / 3600
    assert cost["verify_hours"] == pytest.approx(hours, abs=1e-6)
    assert work.json("metrics/cost/human-1.json")["verify_hours"] == cost["verify_hours"]  # a simulated human takes as long
    work.run(sys.executable, "-m", "vlm_itl.report.page", PYTHONPATH="src")
    page = work.text("artifacts/report/index.html")
    assert "People, measured" in page
    assert "a decision as long as people took here" in page


def test_another_answer_runs_no_training_again(work):
    """The folder of answers is a dependency of all that asks the person; the verdicts stay, so nothing follows."""
    file = Answers(work.folder / "judges/person" / FILE)
    file.append(answer(3000, "e" * 64, "yes"))
    ran = work.repro()
    assert ran >= {"judge@person-1", "measure-people@person"}
    assert not [stage for stage in ran if stage.startswith(("train", "predict", "pretrain"))]


def test_stages_open_only_what_they_declare(work):
    assert work.undeclared() == []
