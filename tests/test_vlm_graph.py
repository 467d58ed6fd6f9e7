"""A real (tiny, random) vision-language model as judge in the real graph."""

from __future__ import annotations

import re

import pytest
import tiny_vlm
from pipeline import Clone, shrink, stages_of

pytestmark = pytest.mark.pipeline


def test_a_changed_prompt_asks_again_and_an_old_one_does_not(tmp_path):
    model = tiny_vlm.llava(tmp_path / "model")

    def change(params: dict) -> None:
        shrink(params)
        params["judges"]["looker"] = {
            "kind": "vlm",
            "model": str(model),
            "device": "cpu",
            "dtype": "float32",
            "min_mass": 0,
            "threshold": 0.4,
            "prompt": params["judges"]["basic"]["prompt"],
        }
        params["runs"] = {"looker-1": {"judge": "looker", "prev": "start"}, "human-1": {"judge": "human", "prev": "start"}}

    work = Clone(tmp_path / "clone", change)
    (work.folder / "judges/looker").mkdir()
    (work.folder / "judges/looker/.gitkeep").touch()
    ran = work.repro("update@looker-1")
    assert ran == {"download", "split", "pretrain", "predict-start", "judge@looker-1", "update@looker-1"}
    asking = work.json("metrics/asking/looker-1.json")
    assert asking["questions"] > 0
    assert asking["prompt_tokens"] > 20 * asking["questions"]
    first = work.text("loop/looker-1/verdicts.jsonl")
    identity = work.json("loop/looker-1/judge.json")
    assert len(identity["revision"]) == 64
    assert "transformers" in identity["versions"]
    # asked once more without need: everything is in the store, and the files are the same
    done = work.run("dvc", "repro", "-f", "-s", "judge@looker-1")
    assert f"{asking['questions']} questions, 0 of them asked now" in done.stdout
    assert work.text("loop/looker-1/verdicts.jsonl") == first
    assert work.json("metrics/asking/looker-1.json") == asking
    # another prompt concerns this judge and what depends on it
    work.settings(lambda p: p["judges"]["looker"].update(prompt="is the mask right and complete"))
    assert "judge@looker-1" in work.repro("update@looker-1")
    assert work.text("loop/looker-1/verdicts.jsonl") != first
    work.settings(lambda p: p["judges"]["looker"].update(prompt=p["judges"]["basic"]["prompt"]))
    assert work.repro("update@looker-1") == set()
    assert work.text("loop/looker-1/verdicts.jsonl") == first

    # the same judge on probes: every number that needs a probability is there
    work.settings(lambda p: p.update(probed=["looker"]))
    assert work.repro("measure-probes@looker") == {"hold-back", "probes", "judge-probes@looker", "measure-probes@looker"}
    numbers = work.json("metrics/probes/looker.json")
    assert numbers["probes"] == work.json("metrics/probes/asking/looker.json")["questions"] >= 8
    assert 0 <= numbers["auroc"] <= 1
    assert 0 < numbers["brier"] < 1
    assert numbers["threshold"]["cost"] <= min(numbers["threshold"]["cost_always"], numbers["threshold"]["cost_never"])
    assert {"exact", "dropped", "wrong class"} <= set(numbers["by_kind"])
    shown = work.run("dvc", "plots", "show", "artifacts/probes/looker/reliability.json", "--json").stdout
    assert "share of probes that are right" in shown

    # and asked about some of them again; a judge that looks at no pictures gives nulls and waits for nothing
    work.settings(lambda p: (p.update(probed=["looker", "vlm-sim"]), p["probes"].update(consistency=6)))
    assert work.repro("consistency") == {"consistency@looker", "consistency@vlm-sim"}
    numbers = work.json("metrics/probes/consistency/looker.json")
    assert numbers["images"] == numbers["again"]["questions"] == numbers["blank"]["questions"] == 6
    assert numbers["again"]["flipped"] == 0
    assert numbers["swapped"]["questions"] is None  # the study's prompt has no place for the options
    nulls = work.json("metrics/probes/consistency/vlm-sim.json")
    assert nulls.keys() == numbers.keys()
    assert {v for part in nulls.values() for v in (part.values() if isinstance(part, dict) else [part])} == {None}
    done = work.run("dvc", "repro", "-f", "-s", "consistency@looker")
    assert "18 questions, 0 of them asked now" in done.stdout
    assert work.json("metrics/probes/consistency/looker.json") == numbers
    assert "consistency/looker.json" in work.run("dvc", "metrics", "show").stdout


def test_an_arm_that_cannot_be_calibrated_fails_early_and_alone(tmp_path):
    """The shipped model on classes that it was not taught, as on anybody's own photographs."""

    def change(params: dict) -> None:
        shrink(params)
        params["probed"], params["calibrations"] = ["vlm"], {"calibrated": {"probed": "vlm"}}
        params["runs"] = {"calibrated-1": {"judge": "calibrated", "prev": "start"}, "human-1": {"judge": "human", "prev": "start"}}

    work = Clone(tmp_path / "clone", change)
    # to a model that knows other things, drawn birds are what photographs are to ours
    (work.folder / "judges/vlm/model/classes.json").write_text('["person"]')
    done = work.run("dvc", "repro", "--keep-going", check=False)
    assert done.returncode != 0
    assert "was taught person and knows nothing else" in done.stdout
    started = re.findall(r"Running stage '([^']+)'", done.stdout)
    assert started.index("judge-probes@vlm") < started.index("pretrain")
    assert {"evaluate@human-1", "gallery@human-1"} <= set(started)
    assert not {name for name in started if "calibrated" in name}
    assert work.json("metrics/detection/human-1.json")
    # without the arm all is well, and nothing of it has to run again
    work.settings(lambda p: (p.update(probed=[], calibrations={}), p["runs"].pop("calibrated-1")))
    assert not work.repro() & stages_of("human-1")
    assert set(work.json("metrics/headline.json")["mask_AP"]) == {"start", "human-1"}
