"""The plan of the house: who may use whom, and that another kind touches its own file and one line."""

from __future__ import annotations

import re

import grimp
from pipeline import Clone

FLOORS = [  # from the roof down; what shares a floor is divided by |
    "experiments",
    "report | review | dataset | drawing",
    "tools | verifier",
    "pipeline",
    "settings",
    "detectors | teachers",
    "probes | metrics",
    "judges | loop",
    "engine",
    "data | resume",
    "core",
    "registry",
]


def test_no_floor_uses_one_above():
    graph = grimp.build_graph("vlm_itl", cache_dir=None, exclude_type_checking_imports=True)
    layers = [grimp.Layer(*floor.split(" | "), independent=False) for floor in FLOORS]
    wrong = graph.find_illegal_dependencies_for_layers(layers=layers, containers=["vlm_itl"])
    assert not wrong, [(bad.importer, bad.imported) for bad in wrong]
    rooms = {name.split(".")[1] for name in graph.modules if name.count(".") == 1}
    assert rooms == {room for floor in FLOORS for room in floor.split(" | ")} | {"__main__"}


JUDGE = '''"""A judge for a test."""

from __future__ import annotations

from typing import Literal

from vlm_itl.judges.constant import AlwaysJudge


class LenientJudge(AlwaysJudge):
    """Approves."""

    kind: Literal["lenient"]
'''


def test_another_kind_makes_nothing_stale(tmp_path):
    """A judge kind and a policy: a file and a line each. DVC lists the code again, and nothing else runs."""
    work = Clone(tmp_path / "work")
    work.repro("update@human-1")
    (work.folder / "src/vlm_itl/judges/lenient.py").write_text(JUDGE)
    (work.folder / "src/vlm_itl/loop/policies/other.py").write_text('"""A policy for a test."""\n')
    registry = work.folder / "src/vlm_itl/registry.py"
    text = registry.read_text()
    for section, line in (
        ("JUDGES", '"lenient": "vlm_itl.judges.lenient:LenientJudge",'),
        ("POLICIES", '"other": "vlm_itl.loop.policies.other:Other",'),
    ):
        text, found = re.subn(rf"^{section}.*{{$", rf"\g<0>\n    {line}", text, flags=re.MULTILINE)
        assert found == 1
    registry.write_text(text)
    said = work.run("dvc", "repro", "update@human-1").stdout
    assert re.findall(r"Running stage '([^']+)'", said) == ["code"]


def test_changed_code_runs_again_what_uses_it(tmp_path):
    work = Clone(tmp_path / "work")
    work.repro("update@human-1", "judge@vlm-sim-1")
    human = work.folder / "src/vlm_itl/judges/human.py"
    human.write_text(human.read_text() + "\nCHANGED = True\n")
    assert work.repro("update@human-1", "judge@vlm-sim-1") >= {"judge@human-1"}
    report = work.folder / "src/vlm_itl/report/gallery.py"
    report.write_text(report.read_text() + "\nCHANGED = True\n")
    assert work.repro("update@human-1", "judge@vlm-sim-1") == set()
