"""A verifier in the real pipeline: trained, measured, calibrated, judging, with a person where it is not sure; cached by DVC."""

from __future__ import annotations

import json

import pytest
from pipeline import Clone, shrink, stages_of

from vlm_itl.core.files import md5
from vlm_itl.settings import load

pytestmark = pytest.mark.pipeline

TRAINING = {"pretrain-part@verifier", "predict-unseen@verifier", "train-verifier@verifier"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    def change(params: dict) -> None:
        shrink(params)
        params["data"]["synthetic"] = {"train_images": 60, "test_images": 4, "long_side": 96}
        params["predict"].update(score_threshold=0.02, max_detections=2)
        params["hold_back"].update(held_out=0.3, mistakes=0.3)
        params["verifiers"] = {"verifier": {"base": "vlm", "steps": 2, "batch_size": 4}}
        params["probed"], params["calibrations"] = ["verifier"], {"bands": {"probed": "verifier"}}
        params["probes"].update(per_kind=3, consistency=2)
        params["runs"] = {"verifier-1": {"judge": "verifier", "prev": "start"}, "bands-1": {"judge": "bands", "prev": "start"}}

    return Clone(tmp_path_factory.mktemp("verifier") / "clone", change, audited=True)


def test_it_learns_and_judges(clone):
    ran = clone.repro("judge@verifier-1", "judge@bands-1", "update@bands-1", "consistency", "calibrate")
    assert ran >= TRAINING | {"hold-back", "probes", "judge-probes@verifier", "calibrate@bands", "judge@verifier-1", "judge@bands-1"}
    held_out = "metrics/verifier/verifier/held_out.json"
    numbers = clone.json(held_out)
    assert numbers["mask"]["examples"] == 600
    assert 0 <= numbers["mask"]["auroc"] <= 1
    parts = [{i["id"] for i in clone.json(f"artifacts/held_back/{n}.json")["images"]} for n in ("fit", "held_out", "unseen", "detector")]
    assert not parts[0] & parts[1]
    assert parts[2] == (parts[0] | parts[1]) - parts[3]
    assert {i["source_id"] for i in clone.json("artifacts/probes/pool.json")["images"]} <= parts[1]
    trained, base = (clone.json(f"loop/{n}-1/judge.json")["revision"] for n in ("verifier", "bands"))
    assert trained == base  # one model, other thresholds
    calibration = clone.json("judges/bands/calibration.json")
    assert clone.json("loop/bands-1/judge.json")["calibration"] == calibration
    assert calibration["of"]["revision"] == trained
    assert calibration["of"]["prompt"] == load(clone.folder / "params.yaml").judges["verifier"].prompt
    took = json.loads((clone.folder / "scratch/timing" / f"{md5(clone.folder / held_out)}.json").read_text())
    assert took["seconds"] > 0
    assert took["machines"] == 1
    assert "seconds" not in numbers
    assert clone.run("git", "status", "--porcelain", "judges").stdout == ""  # what is trained here is DVC's
    loads = {stage for stage, path in clone.opened() if path.startswith("judges/verifier/model/")}
    assert loads >= {"judge@verifier-1", "judge-probes@verifier", "consistency@verifier", "train-verifier@verifier"}
    # `bands` is known by its thresholds, which say which model they were fitted on
    assert {row for row in clone.undeclared() if not row.startswith("judge@bands-1: judges/verifier/model/")} == set()


def test_what_changes_runs_again_and_no_more(clone):
    assert clone.repro("judge@bands-1", "judge@verifier-1") == set()
    clone.settings(lambda p: p["probes"]["prices"].update(question=2))
    assert clone.repro("judge@bands-1", "judge@verifier-1") <= {"calibrate@bands", "judge@bands-1"}
    # thresholds of other settings are refused, and a question of its own too: a calibrated judge asks the probed judge's
    clone.settings(lambda p: p["judges"]["bands"].update(min_mass=0.2))
    said = clone.run("dvc", "repro", "judge@bands-1", check=False).stdout
    assert "fitted on answers to another question (min_mass: 0.2, there 0.1)" in said
    clone.settings(lambda p: p["judges"]["bands"].pop("min_mass"))
    before = clone.text("params.yaml")
    clone.settings(lambda p: p["judges"]["bands"].update(prompt="Another question?"))
    assert "judges.bands.prompt: another question" in clone.run("dvc", "repro", "judge@bands-1", check=False).stdout
    (clone.folder / "params.yaml").write_text(before)
    assert clone.repro("judge@bands-1", "judge@verifier-1") == set()
    clone.settings(lambda p: p["verifiers"]["verifier"].update(steps=3))
    prompt = load(clone.folder / "params.yaml").judges["verifier"].prompt.replace("Is this one", "Is that one")
    clone.settings(lambda p: p["judges"]["verifier"].update(prompt=prompt))  # and so that of `bands`, which has its settings
    changed = clone.repro("judge@bands-1", "judge@verifier-1")
    assert "Is that one" in clone.json("judges/bands/calibration.json")["of"]["prompt"]
    assert clone.json("loop/bands-1/judge.json")["prompt"] == prompt
    assert changed >= {"train-verifier@verifier", "judge-probes@verifier", "judge@verifier-1", "judge@bands-1"}
    assert not changed & (stages_of("verifier-1") - {"judge@verifier-1"} | {"pretrain", "probes", "pretrain-part@verifier"})
