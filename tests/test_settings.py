"""params.yaml is checked as a whole, before any work, with one line that names the key."""

from __future__ import annotations

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from vlm_itl.base.errors import UserError
from vlm_itl.base.settings import load, pick

yaml = YAML(typ="safe")


@pytest.fixture
def params(tmp_path):
    def write(change):
        content = yaml.load((ROOT / "params.yaml").read_text())
        change(content)
        path = tmp_path / "params.yaml"
        yaml.dump(content, path)
        return path

    return write


def test_shipped_file_loads():
    settings = load(ROOT / "params.yaml")
    for name, run in settings.runs.items():
        assert pick(settings, f"runs.{name}") is run
    for name, judge in settings.judges.items():
        asks = getattr(judge, "calibrated", False) or (ROOT / "judges" / name / "prompt.txt").exists()
        assert asks, f"judge {name} has no prompt in judges/"


WRONG = {
    "split.initial_fracton: unknown key": lambda p: p["split"].update(initial_fracton=0.2),
    "split.initial_fraction: .*less than or equal to 1.*1.5": lambda p: p["split"].update(initial_fraction=1.5),
    "split.initial_fraction: .*greater than 0": lambda p: p["split"].update(initial_fraction=0),
    "split.initial_fraction: .*valid number.*'a fifth'": lambda p: p["split"].update(initial_fraction="a fifth"),
    "select: categories names a class twice": lambda p: p["select"].update(categories=["bird", "bird"]),
    "select.max_images: .*greater than or equal to 1.*0": lambda p: p["select"].update(max_images=0),
    "data.coco2017.mirror: unknown key": lambda p: p["data"].update(coco2017={"mirror": "x"}),
    "pretrain.epochs: .*greater than 0": lambda p: p["pretrain"].update(epochs=0),
    "pretrain: schedule fixed_epochs needs 'epochs'": lambda p: p["pretrain"].pop("epochs"),
    "train: schedule adaptive needs 'images'": lambda p: p.update(train={"schedule": "adaptive", "steps": 100}),
    "train: schedule fixed_steps needs 'steps'": lambda p: p["train"].update(schedule="fixed_steps", steps=None),
    "train.schedule: .*'fixed_epochs', 'fixed_steps' or 'adaptive'.*'cosine'": lambda p: p["train"].update(schedule="cosine"),
    "train.early_stopping.every: Field required": lambda p: p["train"].update(early_stopping={"patience": 2}),
    "train.model_labels.weight: .*greater than 0": lambda p: p["train"].update(model_labels={"weight": 0}),
    "seed: .*valid integer": lambda p: p.update(seed="one"),
    "train: Field required": lambda p: p.pop("train"),
    "extra: unknown key": lambda p: p.update(extra=1),
    "judges.human.iou: .*less than or equal": lambda p: p["judges"]["human"].update(iou=2),
    "judges.human: .*'human', 'noisy'": lambda p: p["judges"]["human"].update(kind="vlm9000"),
    "judges.vlm-sim.recal: unknown key": lambda p: p["judges"]["vlm-sim"].update(recal=0.5),
    "runs.human-1.judge: no judge 'nobody' in judges": lambda p: p["runs"]["human-1"].update(judge="nobody"),
    "probed: no judge 'nobody' in judges": lambda p: p.update(probed=["nobody"]),
    "runs.calibrated-1.judge: 'calibrated' is calibrated, so calibrations needs a line calibrated:": lambda p: p["calibrations"].clear(),
    "calibrations.bands.probed: 'human' has to be another judge, and in probed": lambda p: p["calibrations"].update(
        bands={"probed": "human"}
    ),
    "calibrations.nobody: no judge 'nobody'": lambda p: p["calibrations"].update(nobody={"probed": "vlm"}),
    "verifiers.verifier.base: no judge 'human' of kind vlm": lambda p: p["verifiers"].update(verifier={"base": "human"}),
    "verifiers.verifier.base: a judge cannot start from itself": lambda p: p["verifiers"].update(verifier={"base": "verifier"}),
    "verifiers.verifier: .*batch_size is no multiple of accumulate": lambda p: p["verifiers"].update(
        verifier={"base": "vlm", "accumulate": 5}
    ),
    "hold_back: .*leave no image to train on": lambda p: p["hold_back"].update(held_out=0.5, mistakes=0.5),
    "judges.bands: .*they come with calibrated: true": lambda p: p["judges"].update(
        bands={"kind": "vlm", "model": "x", "human": {"kind": "human"}}
    ),
    "probes.prices.wrong_aproval: unknown key": lambda p: p["probes"]["prices"].update(wrong_aproval=1),
    "probes.consistency: .*greater than or equal to 0.*-1": lambda p: p["probes"].update(consistency=-1),
    "judges.masks.server.base_urls.0: .*pattern": lambda p: p["judges"]["masks"]["server"].update(base_urls=["http://a:b@host/v1"]),
    "judges.masks: approve and reject share": lambda p: p["judges"]["masks"].update(approve=["No"]),
    "runs.human-1.prev: no run 'human-9' in runs": lambda p: p["runs"]["human-1"].update(prev="human-9"),
    "runs.human-1.prev: the chain never reaches start": lambda p: p["runs"]["human-1"].update(prev="human-2"),
    "runs.human-1.policy: .*'pool', 'annotate'": lambda p: p["runs"]["human-1"].update(policy="keep"),
    "runs.start: 'start' is the name": lambda p: p["runs"].update(start={"judge": "human", "prev": "start"}),
    "runs.../x.*: .*pattern": lambda p: p["runs"].update({"../x": {"judge": "human", "prev": "start"}}),
    "autolabels.g: .*'grounded-sam2', 'sam3'": lambda p: p.update(autolabels={"g": {"kind": "sam2"}}),
    "autolabels.g.box_treshold: unknown key": lambda p: p.update(autolabels={"g": {"kind": "grounded-sam2", "box_treshold": 0.3}}),
    "autolabels.g.captions: no class 'cat'": lambda p: p.update(autolabels={"g": {"kind": "sam3", "captions": {"cat": "a cat"}}}),
    "autolabels.human-1: 'human-1' is the name of another": lambda p: p.update(autolabels={"human-1": {"kind": "sam3"}}),
    "runs.g-1.prev: .*there are: start, g, ": lambda p: p.update(
        autolabels={"g": {"kind": "sam3"}}, runs={**p["runs"], "g-1": {"judge": "human", "prev": "h"}}
    ),
    "data: source is local, but data.local is not given": lambda p: p["data"].update(source="local"),
    "data.source: .*'synthetic', 'local' or 'coco2017'": lambda p: p["data"].update(source="imagenet"),
    "detector.config: a Detectron2 YAML": lambda p: p["detector"].update(config="model.pth"),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_settings_name_their_key(params, message):
    path = params(WRONG[message])
    with pytest.raises(UserError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_run_can_begin_without_labels(params):
    runs = {"a-1": {"judge": "always", "prev": "g"}, "a-2": {"judge": "always", "prev": "a-1"}}
    settings = load(params(lambda p: p.update(autolabels={"g": {"kind": "grounded-sam2"}}, runs=runs)))
    assert pick(settings, "autolabels.g").detector == "IDEA-Research/grounding-dino-base"


def test_yaml_errors(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(UserError, match="duplicate key"):
        load(tmp_path / "params.yaml")
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none.yaml")
