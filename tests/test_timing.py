"""How long judges computed: found by the content of what they made, wherever that lies and whoever asks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from vlm_itl.core import timing
from vlm_itl.core.files import md5
from vlm_itl.report import study


def test_machine_seconds_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text("{}\n")
    second.write_text("{ }\n")
    timing.record(first, 2.5, 3)
    assert timing.machine_seconds(md5(first)) == timing.of_output("first.jsonl") == 7.5
    assert timing.of_output("second.jsonl") is None
    assert timing.of_output("none.jsonl") is None
    second.write_text("{}\n")  # as DVC restores it
    assert timing.of_output("second.jsonl") == 7.5
    timing.record(first, 0.42, 1)
    assert timing.of_output("first.jsonl") == 0.42


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"seconds": "1", "machines": 1}', '{"seconds": NaN, "machines": 1}', "[" * 9999, "\0"]
)
def test_a_broken_timing_is_left_out_and_named(tmp_path, monkeypatch, capsys, content):
    monkeypatch.chdir(tmp_path)
    Path("made.jsonl").write_text("{}\n")
    timing.record(Path("made.jsonl"), 1, 1)
    (file,) = Path("scratch/timing").iterdir()
    file.write_text(content)
    assert timing.of_output("made.jsonl") is None
    assert f"{file}: not how long a judge computed" in capsys.readouterr().out


def test_a_study_shows_what_was_measured_here_of_a_commit(tmp_path, monkeypatch):
    """By dvc.lock: the outputs of a commit need not lie in the working tree."""
    monkeypatch.chdir(tmp_path)
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params["runs"] = {"human-1": {"judge": "human", "prev": "start"}, "sure-1": {"judge": "calibrated", "prev": "start"},
                      "sure-2": {"judge": "calibrated", "prev": "sure-1"}, "sim-1": {"judge": "vlm-sim", "prev": "start"}}  # fmt: skip
    made, asked = Path("probes.jsonl"), Path("verdicts.jsonl")
    made.write_text("{}\n")
    asked.write_text("{ }\n")
    timing.record(made, 30, 1)
    timing.record(asked, 2, 3)
    outs = {"artifacts/probes/vlm/verdicts.jsonl": made, "loop/sure-1/verdicts.jsonl": asked}
    stages = {f"s{k}": {"outs": [{"path": path, "md5": md5(file)}]} for k, (path, file) in enumerate(outs.items())}
    for name, content in (("params.yaml", params), ("dvc.lock", {"stages": stages})):
        with open(name, "w") as stream:
            YAML(typ="safe").dump(content, stream)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "params.yaml", "dvc.lock"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    made.unlink()
    found = study.computing_at("HEAD", study.settings_at("HEAD", Path()), Path())
    nothing = {"judge_seconds": 0, "preparation_seconds": 0}
    assert found == {
        "start": nothing, "human-1": nothing, "sure-1": {"judge_seconds": 6, "preparation_seconds": 30},
        "sure-2": {"preparation_seconds": 0}, "sim-1": {"preparation_seconds": 0},
    }  # fmt: skip
    assert study.computing_at("HEAD", {"seed": 1}, Path()) == {}
