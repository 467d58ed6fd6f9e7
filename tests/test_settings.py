"""params.yaml is checked as a whole, before any work, with one line that names the key."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from vlm_itl.core.errors import UserError
from vlm_itl.core.runs import arm_of, chain
from vlm_itl.settings import check, load, pick, read_yaml, wanted

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
        assert (ROOT / "judges" / name).is_dir(), f"DVC needs judges/{name}"
        assert judge.kind != "vlm" or judge.prompt, f"judge {name} has no question"


WRONG = {
    "split.initial_fracton: unknown key": lambda p: p["split"].update(initial_fracton=0.2),
    "split.initial_fraction: .*less than or equal to 1.*1.5": lambda p: p["split"].update(initial_fraction=1.5),
    "split.initial_fraction: .*greater than 0": lambda p: p["split"].update(initial_fraction=0),
    "split.initial_fraction: .*valid number.*'a fifth'": lambda p: p["split"].update(initial_fraction="a fifth"),
    "select: categories names a class twice": lambda p: p["select"].update(categories=["bird", "bird"]),
    "select.max_images: .*greater than or equal to 1.*0": lambda p: p["select"].update(max_images=0),
    "data.coco2017.mirror: unknown key": lambda p: p["data"].update(coco2017={"mirror": "x"}),
    "pretrain.epochs: .*greater than 0": lambda p: p["pretrain"].update(epochs=0),
    "pretrain: schedule fixed_epochs needs 'epochs'": lambda p: p.update(pretrain={"schedule": "fixed_epochs", "steps": 9}),
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
    "compare.reference: no judge 'nobody' in judges": lambda p: p["compare"].update(reference="nobody"),
    "compare.negative_control: no judge 'nobody' in judges .*; null: no such control": lambda p: p["compare"].update(
        negative_control="nobody"
    ),
    "compare: negative_control: 'human' is the reference itself": lambda p: p["compare"].update(negative_control="human"),
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
    "runs.human-1.prev: the chain never reaches start": lambda p: p["runs"].update(
        {name: {"judge": "human", "prev": prev} for name, prev in (("human-1", "human-2"), ("human-2", "human-1"))}
    ),
    "runs.human-1.policy: .*'pool', 'annotate'": lambda p: p["runs"]["human-1"].update(policy="keep"),
    "runs.start: 'start' is the name": lambda p: p["runs"].update(start={"judge": "human", "prev": "start"}),
    "runs.../x.*: .*pattern": lambda p: p["runs"].update({"../x": {"judge": "human", "prev": "start"}}),
    "runs.human-3.arm: 'human-1' and 'human-3' would both be of the arm 'human', and neither continues": lambda p: p["runs"].update(
        {"human-3": {"judge": "human", "prev": "start"}}
    ),
    "runs.human-1.arm: 'calibrated-1' and 'human-1' would both": lambda p: p["runs"]["calibrated-1"].update(arm="human"),
    "runs.human-1.arm: .*pattern": lambda p: p["runs"]["human-1"].update(arm="a b"),
    "people: no judge 'human' of kind person": lambda p: p.update(people=["human"]),
    "evaluate.seconds.verify: measured, but people names nobody": lambda p: p["evaluate"]["seconds"].update(verify="measured"),
    "autolabels.g: .*'grounded-sam2', 'sam3'": lambda p: p.update(autolabels={"g": {"kind": "sam2"}}),
    "autolabels.g.box_treshold: unknown key": lambda p: p.update(autolabels={"g": {"kind": "grounded-sam2", "box_treshold": 0.3}}),
    "autolabels.g.captions: no class 'cat', 'dog' in": lambda p: p.update(
        autolabels={"g": {"kind": "sam3", "captions": {"cat": "a cat", "dog": "x"}}}
    ),
    r"data.local.train.annotations: 'a\\x00b' holds a zero character": lambda p: p["data"].update(
        source="local", local={"train": {"annotations": "a\0b", "images": "x"}}
    ),
    "judges.masks.server.base_urls.0: .* holds a zero character": lambda p: p["judges"]["masks"]["server"].update(
        base_urls=["http://a/\0"]
    ),
    "autolabels.human-1: 'human-1' is the name of another": lambda p: p.update(autolabels={"human-1": {"kind": "sam3"}}),
    "runs.g-1.prev: .*there are: start, g, ": lambda p: p.update(
        autolabels={"g": {"kind": "sam3"}}, runs={**p["runs"], "g-1": {"judge": "human", "prev": "h"}}
    ),
    "data: source is local, but data.local is not given": lambda p: p["data"].update(source="local"),
    "data.source: .*'synthetic', 'local' or 'coco2017'": lambda p: p["data"].update(source="imagenet"),
    "detector.config: a Detectron2 YAML": lambda p: p["detector"].update(config="model.pth"),
}


WRONG |= {
    f"runs.*{re.escape(repr(name))[1:-1]}": lambda p, name=name: p["runs"].update({name: {"judge": "human", "prev": "start"}})
    for name in ("a b", "a;b", "$(b)", "`b`", "a\nb", "a'b", "a#", "-a", "", "é")
} | {
    "runs.human-1.prev: .*pattern.*touch": lambda p: p["runs"]["human-1"].update(prev="start; touch executed"),
    "runs.human-1.judge: .*pattern.*touch": lambda p: p["runs"]["human-1"].update(judge="$(touch executed)"),
    "probed.0: .*pattern.*touch": lambda p: p.update(probed=["'; touch executed; '"]),
    "verifiers.verifier.base: .*pattern.*touch": lambda p: p.update(verifiers={"verifier": {"base": "vlm\ntouch executed"}}),
    "calibrations.calibrated.probed: .*pattern.*touch": lambda p: p.update(calibrations={"calibrated": {"probed": "|touch executed"}}),
    "runs.other-1.judge: 'other' has the model that the verifier 'verifier' becomes": lambda p: (
        p.update(verifiers={"verifier": {"base": "vlm"}}),
        p["judges"].update(other={**p["judges"]["verifier"], "threshold": 0.3}),
        p["runs"].update({"other-1": {"judge": "other", "prev": "start"}}),
    ),
}  # fmt: skip


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


def test_runs_of_an_arm_are_a_chain(params):
    """Two models of one family end in numbers that are no rounds: an arm of their own tells them apart."""
    runs = {
        "qwen-8": {"judge": "always", "prev": "start", "arm": "qwen-8"}, "qwen-8-2": {"judge": "always", "prev": "qwen-8"},
        "qwen-72": {"judge": "always", "prev": "start"}, "human-1": {"judge": "human", "prev": "qwen-72"},
        "qwen-72-2": {"judge": "always", "prev": "human-1", "arm": "qwen"}, "human-3": {"judge": "human", "prev": "qwen-72-2"},
    }  # fmt: skip
    settings = load(params(lambda p: p.update(runs=runs)))
    arms = {"qwen-8": "qwen-8", "qwen-8-2": "qwen-8", "qwen-72": "qwen", "human-1": "human", "qwen-72-2": "qwen", "human-3": "human"}
    assert {name: arm_of(name, run.arm) for name, run in settings.runs.items()} == arms
    assert chain(settings.runs, "human-3") == ["qwen-72", "human-1", "qwen-72-2", "human-3"]
    assert chain(settings.runs, "start") == []


@pytest.mark.parametrize(
    ("name", "arm"), [("human-1", "human"), ("vlm-sim-12", "vlm-sim"), ("all", "all"), ("r-50-x", "r-50-x"), ("-1", "-1")]
)
def test_an_arm_is_named_by_its_runs(name, arm):
    assert arm_of(name) == arm
    assert arm_of(name, "other") == "other"


def test_yaml_errors(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(UserError, match="duplicate key"):
        load(tmp_path / "params.yaml")
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none.yaml")


LAUGHS = "[&x0 [a, a, a, a, a, a, a, a, a], " + ", ".join(f"&x{k} [{', '.join([f'*x{k - 1}'] * 9)}]" for k in range(1, 10)) + "]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"seed: {LAUGHS}", "more than 100,000 values"), ("seed: &a {b: *a}", "an alias within itself"),
        ("seed: " + "[" * 3000 + "]" * 3000, "nested too deeply"), ("seed: 2026-13-45", "month must be in 1..12"),
        ("seed: !!int abc", "invalid literal"), ("seed: !!bool abc", "abc"), ("seed: " + "9" * 5000, "4300 digits"),
    ],
)  # fmt: skip
def test_yaml_that_is_none_or_too_much_is_one_line(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(message)) as e:
        load(tmp_path / "params.yaml")
    assert len(str(e.value)) < 600


def test_aliases_within_reason_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &x [1, 2]\nb: [*x, *x]\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_numbers_that_a_later_stage_could_not_use(params):
    """Infinity is no JSON, and torch takes no seed beyond 64 bits: said now, and not after hours."""
    for change, message in [
        (lambda p: p["evaluate"]["seconds"].update(draw=math.inf), "evaluate.seconds.draw: Input should be a finite number"),
        (lambda p: p.update(seed=2**63), "seed: Input should be less than"),
        (lambda p: p["train"].update(epochs=1e308), "train.epochs: Input should be less than or equal to 1000000"),
        (lambda p: p["train"].update(steps=10**400), "train.steps: Input should be less than or equal to 1000000000"),
        (lambda p: p["pretrain"].update(images=10**400), "pretrain.images: Input should be less than or equal to 1000000000"),
        (
            lambda p: p["judges"]["masks"].update(template={"a": [math.nan]}),
            "judges.masks.template.a.list.0.float: Input should be a finite number",
        ),
    ]:
        with pytest.raises(UserError, match=re.escape(message)):
            load(params(change))


@pytest.fixture
def project(params, tmp_path, monkeypatch):
    """A repository's top folder with dvc.yaml and the shipped judges; a function that writes its params.yaml."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in ("judges", "configs", "data/synthetic"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return params


def test_the_shipped_project_can_start(project):
    project(lambda p: None)
    assert check().seed == 1


MISSING = {  # what README's blocks once left out, and other defaults of ours that DVC does not know
    "autolabels: .* add `autolabels: {}`$": lambda p: p.pop("autolabels"),
    "probes.consistency: .* add `consistency: 40` to probes$": lambda p: p["probes"].pop("consistency"),
    "evaluate.judge_iou: .* add `judge_iou: 0.6` to evaluate$": lambda p: p["evaluate"].pop("judge_iou"),
    "compare: .* add `compare: {\"reference\": \"human\", ": lambda p: p.pop("compare"),
    "detector.config: no such file: configs/none.yaml": lambda p: p["detector"].update(config="configs/none.yaml"),
    "detector.weights: no such file: none.pth": lambda p: p["detector"].update(weights="none.pth"),
    "detector.init: drawn: no such file: configs/mask_rcnn_R_50_FPN.safetensors; .*--config configs/mask_rcnn_R_50_FPN.yaml": lambda p: (
        p["detector"].update(config="configs/mask_rcnn_R_50_FPN.yaml", init="drawn")
    ),
    "data.root: no such folder: data/none": lambda p: p["data"].update(root="data/none"),
    "data.local.test.annotations: no such file: data/synthetic/x.json": lambda p: p["data"].update(
        source="local", local={"train": {"annotations": "README.md", "images": "."}, "test": {"annotations": "x.json", "images": "."}}
    ),
    "data.local.train.images: no such folder: data/synthetic/x": lambda p: p["data"].update(
        source="local", local={"train": {"annotations": "README.md", "images": "x"}}
    ),
    "judges.basic.prompt: the judge 'basic' has no question": lambda p: (
        p["judges"]["basic"].pop("prompt"), p["probed"].append("basic"),
    ),
    "runs.new-1.judge: the judge 'new' has no folder, .*`mkdir -p judges/new && touch judges/new/.gitkeep`": lambda p: (
        p["judges"].update(new={"kind": "confidence"}), p["runs"].update({"new-1": {"judge": "new", "prev": "start"}}),
    ),
    "judges.vlm.model: judges/none/model is no folder here, so it is a hub id; pin": lambda p: p["judges"]["vlm"].update(
        model="judges/none/model"
    ),
    "x+.yaml: File name too long": lambda p: p["detector"].update(config="x" * 5000 + ".yaml"),
    "judges.verifier.model: judges/verifier/model is no folder here": lambda p: p["probed"].append("verifier"),
    "autolabels.g.segmenter: facebook/sam2.1-hiera-large is no folder here, .*40 hex digits": lambda p: p.update(
        autolabels={"g": {"kind": "grounded-sam2", "detector": "configs", "segmenter_revision": "main"}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", MISSING)
def test_what_is_missing_is_said_before_any_work(project, message):
    path = project(MISSING[message])
    with pytest.raises(UserError, match=f"^params.yaml: {message}") as error:
        check()
    assert "\n" not in str(error.value)
    # and by whatever is run first, not only by `make repro`
    done = subprocess.run(
        [sys.executable, "-c", "from stages.split import STAGE, main; STAGE.run(main, '')", *(f"--{name.replace('_', '-')}=none" for name in
         ("train", "test", "labels", "pool", "ledger", "unlabelled", "truth", "validation", "test_split", "metrics", "plot"))],
        cwd=path.parent, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == f"error: {error.value}\n"


def test_what_a_stage_will_make_is_not_missing(project):
    project(lambda p: (p.update(verifiers={"verifier": {"base": "vlm"}}), p["probed"].append("verifier")))
    check()


GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs/guides").glob("*.md"))]
BLOCKS = [block for file in GUIDES for block in re.findall(r"```yaml\n(.*?)```", file.read_text(), re.DOTALL)]


@pytest.mark.parametrize("block", BLOCKS, ids=[" ".join(yaml.load(block)) for block in BLOCKS])
def test_blocks_of_the_guides_are_whole_sections(params, block):
    """Each as it stands there takes the place of the section, but for the lists of judges, runs, ..., to which it adds."""
    named = ("judges", "runs", "autolabels", "verifiers")

    def change(p: dict) -> None:
        for section, content in yaml.load(block).items():
            p.update({section: {**p[section], **content} if section in named else content})

    path = params(change)
    load(path)
    raw = yaml.load(path.read_text())
    for key in wanted(yaml.load((ROOT / "dvc.yaml").read_text()), raw):
        section, _, rest = key.partition(".")
        assert section in raw
        assert not rest or rest in raw[section], f"a guide gives {section} without {rest}, which DVC wants"


def test_a_folder_or_a_pipe_in_place_of_the_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match="cannot be read: not a regular file"):
            load(path)


@pytest.mark.parametrize(("text", "said"), [
    ("seed: 1\n\nseed: 2\n", "line 3: duplicate key 'seed' in the mapping that begins in line 1; keep one of them"),
    ("seed: 1\ndata: {root: a,\n  root: b}\n", "line 3: duplicate key 'root' in the mapping that begins in line 2; keep one of them"),
    ("a: &a {b: 1}\nc:\n  <<: *a\n  <<: *a\n", "line 4: duplicate key '<<' in the mapping that begins in line 3; keep one of them"),
    ('"a\\e[2J": 1\n"a\\e[2J": 2\n', r"line 2: duplicate key 'a\x1b[2J' in the mapping that begins in line 1; keep one of them"),
])  # fmt: skip
def test_a_key_given_twice_is_named_with_its_line(tmp_path, text, said):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load(path)
    assert str(error.value) == f"{path}: {said}"
