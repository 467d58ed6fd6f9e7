"""One experiment on machines with other instructions and other numbers of threads: the same bytes, and how long it took in none of them.

A machine is what the environment presets here: the libraries heed that as they heed a processor. Lower instructions stand for another
processor than this one, so that the test means the same on a machine with AVX-512 and on one without.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_detector
from conftest import ROOT
from ruamel.yaml import YAML

from vlm_itl.core import processor
from vlm_itl.core.files import write_json

STAGES = """
import sys
sys.path.insert(0, {root!r})
from stages import train, predict, judge
def run(stage, words): stage.STAGE.run(stage.main, "", words.split())
run(train, "--schedule pretrain --labels labels.json --validation labels.json --images {images} --configs {root}/configs --model out/model "
    "--curve out/curve.json --metrics out/training.json")
if {all}:
    run(predict, "--model out/model --pool pool.json --test labels.json --images {images} --proposals out/proposals.json "
        "--predictions out/predictions.json")
    run(judge, "--judge vlm --pool pool.json --proposals out/proposals.json --images {images} --truth labels.json "
        "--folder {root}/judges/vlm --verdicts out/verdicts.jsonl --identity out/judge.json --metrics out/asking.json")
"""
ONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
OTHER = {
    "OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OPENBLAS_CORETYPE": "Nehalem",
}  # fmt: skip

avx2 = pytest.mark.skipif(not {"avx2", "fma"} <= processor.flags(), reason="this processor has no AVX2: what it computes is its own")


def outputs(folder: Path, machine: dict[str, str], setting: str, every: bool = True) -> dict[str, bytes]:
    """What training, prediction and a VLM as judge write on a machine: {name: content}."""
    (folder / "pictures").mkdir(parents=True)
    labels, images = tiny_detector.pictures(folder / "pictures")
    write_json(folder / "labels.json", labels)
    write_json(folder / "pool.json", {**labels, "annotations": []})
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    detector = tiny_detector.detector().model_dump(include={"config", "device", "options"})
    vlm = {**params["judges"]["vlm"], "model": str(ROOT / "judges/vlm/model"), "device": "cpu"}
    params |= {"processor": setting, "detector": {**detector, "init": "scratch"}, "judges": {**params["judges"], "vlm": vlm}}
    params["pretrain"] = {"schedule": "fixed_steps", "steps": 3, "learning_rate": 0.002}
    params["predict"] = {"score_threshold": 0.02, "test_score_threshold": 0.01, "batch_size": 4, "max_detections": 3}
    with (folder / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(params, stream)
    code = STAGES.format(root=str(ROOT), images=images, all=every)
    # not this process's own variables, which are pinned as far as numpy goes
    own = {k: v for k, v in os.environ.items() if k not in {*processor.NUMPY, *processor.NUMPY_AVX512, *processor.TORCH}}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**own, **machine, "VLM_ITL_SCRATCH": str(folder / "scratch")}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    found = {str(p.relative_to(folder / "out")): p.read_bytes() for p in sorted((folder / "out").rglob("*")) if p.is_file()}
    assert len(found) == (9 if every else 4)
    return found


@avx2
def test_the_same_bytes_on_every_machine(tmp_path):
    one, other = outputs(tmp_path / "one", ONE, "avx2"), outputs(tmp_path / "other", OTHER, "avx2")
    assert json.loads(one["asking.json"])["questions"] > 0
    assert {name for name in one if one[name] != other[name]} == set()
    for folder in ("one", "other"):
        (took,) = (tmp_path / folder / "scratch/timing").glob("*.json")
        assert json.loads(took.read_text())["seconds"] > 0
    for name in (name for name in one if name.endswith(".json")):
        assert not times(json.loads(one[name])), name


@avx2
def test_without_the_pin_they_differ(tmp_path):
    """Or the test above would show nothing."""
    one, other = outputs(tmp_path / "one", ONE, "native", every=False), outputs(tmp_path / "other", OTHER, "native", every=False)
    assert {name for name in one if one[name] != other[name]} >= {"model/model.pth"}


def test_a_processor_without_avx2_is_left_alone(monkeypatch, capsys):
    before = dict(os.environ)
    monkeypatch.setattr(processor, "flags", lambda: {"sse4_2"})
    processor.pin_numpy()
    processor.choose("avx2")
    assert dict(os.environ) == before
    assert "has no AVX2" in capsys.readouterr().out
    assert processor.chosen() == "native"


def test_work_done_with_other_instructions_is_not_gone_on_with(monkeypatch):
    from vlm_itl.resume.progress import digest_of

    keys = {digest_of("settings", [])}
    for name, value in processor.TORCH.items():
        monkeypatch.setenv(name, value)
    assert processor.chosen() == "avx2"
    keys.add(digest_of("settings", []))
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")
    assert digest_of("settings", []) in keys
    assert len(keys) == 2


@avx2
@pytest.mark.parametrize("module", ["stages.train", "stages.compare", "stages.figures", "vlm_itl.report.page"])
def test_numpy_is_pinned_before_it_is_loaded(module):
    code = (
        f"import sys, {module}; from numpy._core._multiarray_umath import __cpu_features__ as f; "
        "print(f['X86_V4'], f['X86_V3'], 'torch' in sys.modules)"
    )
    own = {k: v for k, v in os.environ.items() if k not in {*processor.NUMPY, *processor.NUMPY_AVX512}}
    env = {**own, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "False"], done.stderr


def times(value, key: str = "") -> list[str]:
    """Dotted keys of JSON content that sound like something measured by a clock."""
    if isinstance(value, dict):
        return [found for name, part in value.items() for found in times(part, f"{key}.{name}")]
    if isinstance(value, list):
        return [found for part in value for found in times(part, key)]
    return [key] if re.search(r"second|elapsed|duration|took|\btime|date\b|host|pid\b", key.rpartition(".")[2]) else []


def test_nothing_that_git_compares_was_measured_by_a_clock():
    assert times({"a": [{"seconds": 1}], "judge_seconds": None, "steps": 3, "elapsed": {"x": 1}}) == [".a.seconds", ".judge_seconds"]
    listed = subprocess.run(["git", "ls-files", "metrics"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    found = {path: times(json.loads((ROOT / path).read_text())) for path in listed if path.endswith(".json")}
    assert {path: keys for path, keys in found.items() if keys} == {}
