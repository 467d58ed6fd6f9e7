"""What params.yaml says reaches a shell through DVC as a word or not at all: paths with anything in them work, names are refused.

Whatever a shell would run leaves a file named `executed`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pipeline import Clone, ran, shrink

pytestmark = pytest.mark.pipeline

STRANGE = 'it\'s "x"; touch executed; # $(touch executed) `touch executed` $HOME & {a,b} \\ é'
NAMES = ["a; touch executed; $(touch executed)", "a'; touch executed; '", "a\ntouch executed"]  # bare, in quotes, as a line of its own


def executed(work: Clone) -> list[Path]:
    return list(work.folder.parent.rglob("executed*"))


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Clone:
    folder = tmp_path_factory.mktemp("strange") / STRANGE.replace("{a,b}", "")  # braces there are too much for DVC's progress bar

    def change(params: dict) -> None:
        shrink(params)
        params["data"]["root"] = f"data/{STRANGE}"
        params["detector"]["config"] = f"configs/{STRANGE}.yaml"

    made = Clone(folder, change)
    (made.folder / "data" / STRANGE).mkdir()
    (made.folder / "data" / STRANGE / "note.txt").write_text("one")
    shutil.copy(made.folder / "configs/mask_rcnn_thin_R_18_FPN.yaml", made.folder / "configs" / f"{STRANGE}.yaml")
    return made


def test_any_path_works_as_itself(work):
    assert work.repro("predict-start") == {"download", "split", "pretrain", "predict-start"}
    assert executed(work) == []
    assert work.repro("predict-start") == set()
    with (work.folder / "configs" / f"{STRANGE}.yaml").open("a") as config:
        config.write("# another\n")
    assert "pretrain" in work.repro("pretrain")  # DVC watches it
    (work.folder / "data" / STRANGE / "note.txt").write_text("two")
    assert work.repro("split") == {"download"}
    assert work.repro("predict-start") <= {"predict-start"}


def test_no_name_is_run(work):
    """Also where everything before is in the cache, and the stage is asked for alone."""

    def change(params: dict) -> None:
        shrink(params)
        params.update(runs={}, autolabels={})
        for k, name in enumerate(NAMES):
            params["runs"] |= {name: {"judge": "human", "prev": "start"}, f"judge-{k}": {"judge": name, "prev": "start"}}
            params["runs"] |= {f"prev-{k}": {"judge": "human", "prev": name}}
            params["probed"].append(name)
            params["judges"][name] = {"kind": "human"}
            params["verifiers"] |= {f"verifier {name}": {"base": "vlm"}, f"base-{k}": {"base": name}}
            params["calibrations"] |= {f"calibrated {name}": {"probed": "vlm"}, f"by-{k}": {"probed": name}}
            params["autolabels"][f"teacher {name}"] = {"kind": "sam3"}

    work.repro("predict-start", "probes")
    work.settings(change)
    for name in NAMES:
        shutil.copytree(work.folder / "judges/vlm", work.folder / "judges" / name)
    listed = [name for name in work.run("dvc", "stage", "list", "--name-only").stdout.splitlines() if "@" in name]
    assert {name.partition("@")[0] for name in listed} >= {"judge", "judge-probes", "train-verifier", "calibrate", "autolabel"}
    done = work.run("dvc", "repro", "--keep-going", check=False)
    assert done.returncode != 0
    assert "Running stage 'code'" in done.stdout
    assert ran(done.stdout) == set()  # `code`, which all others need, refuses the names
    assert executed(work) == []
    assert "should match pattern" in done.stdout
    alone = [
        f"judge-probes@{NAMES[0]}",
        f"pretrain-part@verifier {NAMES[0]}",
        f"autolabel@teacher {NAMES[1]}",
        "judge@judge-1",
        f"train-verifier@verifier {NAMES[1]}",
        "train-verifier@base-1",
        f"evaluate@{NAMES[0]}",
        f"gallery@{NAMES[1]}",
    ]
    for name in alone:
        done = work.run("dvc", "repro", "-s", name, check=False)
        assert done.returncode != 0
        assert executed(work) == []
