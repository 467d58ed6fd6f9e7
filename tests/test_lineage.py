"""Which experiments are the same but for the seed, by their dvc.lock."""

from __future__ import annotations

import copy

import pytest

from vlm_itl.report.lineage import lineage

LOCK = {
    "stages": {
        "split": {"cmd": "split", "deps": [{"path": "data", "md5": "d"}, {"path": "split.py", "md5": "s"}],
                  "params": {"params.yaml": {"split.fraction": 0.2}}, "outs": [{"path": "out/labels.json", "md5": "1"}]},
        "train": {"cmd": "train", "deps": [{"path": "out/labels.json", "md5": "1"}, {"path": "train.py", "md5": "t"}],
                  "params": {"params.yaml": {"seed": 1, "train.epochs": 2}}, "outs": [{"path": "out/model", "md5": "2.dir"}]},
        "threshold": {"cmd": "threshold", "deps": [{"path": "out/model", "md5": "2.dir"}],
                      "outs": [{"path": "judges/sure/calibration.json", "md5": "3"}]},
        "judge": {"cmd": "judge", "deps": [{"path": "judges/sure", "md5": "4.dir"}], "params": {"params.yaml": {"seed": 1}},
                  "outs": [{"path": "out/matches.npz", "md5": "5"}]},
        "figure": {"cmd": "draw", "deps": [{"path": "out/matches.npz", "md5": "5"}, {"path": "draw.py", "md5": "f"}],
                   "outs": [{"path": "out/figure.svg", "md5": "6"}]},
    }
}  # fmt: skip


def of(change=lambda stages: None, prompt: str = "Is it right?", outputs=("out/matches.npz",)):
    lock = copy.deepcopy(LOCK)
    change(lock["stages"])
    return lineage(lock, outputs, lambda folder: f"{folder}: {prompt}")


def with_seed(stages, seed) -> None:
    """What else another seed changes: the hashes of all that is made with it."""
    for name in ("train", "judge"):
        stages[name]["params"]["params.yaml"]["seed"] = seed
    stages["train"]["outs"][0]["md5"] = stages["threshold"]["deps"][0]["md5"] = f"{seed}.dir"
    stages["judge"]["deps"][0]["md5"] = f"{seed}0.dir"
    stages["judge"]["outs"][0]["md5"] = stages["figure"]["deps"][0]["md5"] = f"{seed}00"


def test_another_seed_is_the_same_lineage():
    one, two = of(), of(lambda stages: with_seed(stages, 2))
    assert (one.key, one.seed, two.seed) == (two.key, "1", "2")
    assert of(outputs=iter(["out/matches.npz"])) == one


def test_what_is_not_upstream_does_not_matter():
    assert of(lambda stages: stages["figure"]["deps"][1].update(md5="other")) == of()
    assert of(lambda stages: stages.pop("figure")) == of()


@pytest.mark.parametrize(
    "change",
    [
        lambda stages: stages["split"]["deps"][0].update(md5="other data"),
        lambda stages: stages["train"]["deps"][1].update(md5="other code"),
        lambda stages: stages["split"]["params"]["params.yaml"].update({"split.fraction": 0.4}),
        lambda stages: stages["train"].update(cmd="train --harder"),
    ],
)
def test_data_code_settings_and_commands_matter(change):
    assert of(change).key != of().key


def test_data_inside_the_repository_named_absolutely():
    """DVC writes its path relative to the repository, and as it is where an experiment runs in a folder of its own."""

    def at(path: str):
        def change(stages) -> None:
            stages["split"]["params"]["params.yaml"]["data"] = {"root": "/home/anna/study/data"}
            stages["split"]["deps"][0]["path"] = path

        return of(change)

    assert at("data") == at("/home/anna/study/data")
    assert at("data").key != at("other").key


def test_prices_do_not_part_seeds():
    """A stage that counts human hours stands between a model and its matches; what an hour costs changes neither."""

    def priced(seconds: int, iou: float = 0.6):
        settings = {"evaluate.seconds": {"draw": seconds, "verify": 3}, "evaluate.judge_iou": iou}
        return of(lambda stages: stages["judge"]["params"]["params.yaml"].update(settings))

    assert priced(80) == priced(60)
    assert priced(80).key != priced(80, iou=0.7).key


def test_a_prompt_beside_outputs_matters():
    """DVC's hash of that folder is also the calibration's, and so the seed's."""
    assert of(prompt="Is it wrong?").key != of().key


def test_what_cannot_be_known():
    assert of(outputs=("out/elsewhere.npz",)) is None
    assert lineage({}, ["out/matches.npz"], str) is None
    assert of(lambda stages: stages["judge"]["params"]["params.yaml"].update(seed=2)) is None  # run by itself with another seed
    assert of(lambda stages: stages["split"]["outs"][0].update(md5="newer")) is None  # run by itself, training still to come
