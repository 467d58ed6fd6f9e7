"""Another policy is a class and a line in the registry: here is one, through a round, the report and the study."""

from __future__ import annotations

import subprocess
from pathlib import Path
from pkgutil import resolve_name

import pytest
from conftest import ROOT, instance
from ruamel.yaml import YAML

from stages import update
from vlm_itl.core import typed
from vlm_itl.core.code import used_by
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json, write_json
from vlm_itl.core.runs import drawing_runs
from vlm_itl.judges import verdict
from vlm_itl.loop import annotation_log
from vlm_itl.loop.annotation_log import Entry
from vlm_itl.loop.labels import counts
from vlm_itl.loop.policy import Outcome, Policy, Shown
from vlm_itl.loop.start import initial
from vlm_itl.metrics.cost import human_cost
from vlm_itl.metrics.judges import judge_quality
from vlm_itl.registry import POLICIES
from vlm_itl.report import page, study, summary
from vlm_itl.settings import load

CHECKED = '''
from vlm_itl.loop.policy import Outcome, Policy


class Checked(Policy):
    """A human draws a rejected image, and looks at it once more."""

    sees_truth = True
    draws_rejected = True

    def rejected(self, shown):
        return Outcome({"human": shown.instances}, drawn=shown.instances, looked=True)
'''
RUNS = {
    "drawn-1": {"judge": "never", "prev": "start", "policy": "checked"},
    "human-1": {"judge": "human", "prev": "start", "policy": "checked"},
    "pool-1": {"judge": "never", "prev": "start"},
}
BOX, FAR = (5, 5, 20, 20), (30, 20, 15, 15)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A repository's top folder whose params.yaml has runs of a policy that this repository lacks."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/one_more_policy.py").write_text(CHECKED)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setitem(POLICIES, "checked", "one_more_policy:Checked")
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params.update(runs=RUNS, probed=[], calibrations={})
    with open("params.yaml", "w") as stream:
        YAML(typ="safe").dump(params, stream)
    return folder


def test_a_policy_is_a_class_and_a_line(project):
    settings = load()
    data = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 50} for i in (1, 2, 3, 4)],
        "annotations": [{**instance(BOX, 1, i), "id": i} for i in (1, 2, 3, 4)], "categories": [{"id": 1, "name": "bird"}],
    }  # fmt: skip
    proposals = [instance(BOX, 1, 2, score=0.8), instance(FAR, 1, 3, score=0.7)]
    labels, pool, log = initial(data, {1}, {2, 3, 4}, set())
    for name, value in (("labels", labels), ("pool", pool), ("proposals", proposals), ("truth", data)):
        write_json(Path(f"loop/start/{name}.json"), value)
    annotation_log.write(Path("loop/start/ledger.json"), log)
    start = [Path(f"loop/start/{name}.json") for name in ("labels", "pool", "ledger", "proposals")]
    for name in ["start", *RUNS]:
        if name != "start":
            run, verdicts = settings.runs[name], Path(f"loop/{name}/verdicts.jsonl")
            rows = settings.judges[run.judge].verdicts(pool, proposals, data, 1)
            verdicts.parent.mkdir(parents=True)
            verdict.write(verdicts, rows)
            new = [Path(f"loop/{name}/{what}.json") for what in ("labels", "pool", "ledger")]
            given = {f"runs.{name}": run, "evaluate.judge_iou": 0.6}
            update.main(*start, verdicts, Path("loop/start/truth.json"), Path("drawings"), *new, run=name, settings=given)
            typed.write(Path(f"metrics/judge/{name}.json"), judge_quality(rows, proposals, data, 0.6))
            write_json(Path(f"metrics/asking/{name}.json"), {"questions": 2})
        price = human_cost(annotation_log.read(Path(f"loop/{name}/ledger.json")), settings.evaluate.seconds)
        sources = counts(read_json(Path(f"loop/{name}/labels.json")))
        write_json(Path(f"metrics/cost/{name}.json"), {**price, "labels": sources})
        ap = {"AP": 0.25, "AP50": 0.5, "AP75": None, "per_class": {"bird": 0.25}}
        write_json(Path(f"metrics/detection/{name}.json"), {"mask": ap, "box": ap})
        write_json(Path(f"metrics/training/{name}.json"), {"steps": 7})

    # the round: image 2 is right, 3 is wrong, and 4 has no proposals
    assert [row["source"] for row in read_json(Path("loop/human-1/labels.json"))["images"]] == ["human", "model", "human", "human"]
    assert read_json(Path("loop/human-1/pool.json"))["images"] == []
    assert annotation_log.read(Path("loop/human-1/ledger.json"))[len(log) :] == [
        Entry(run="human-1", action="verify", actor="human", judge="human", decisions=2, about={"image": {"1": 2}}),
        Entry(run="human-1", action="verify", actor="human", judge="human", decisions=2, about={"missing": {"0": 2}}),
        Entry(run="human-1", action="draw", actor="human", purpose="labels", images=2, instances=2),
    ]

    # the report: drawing with nobody to judge is drawing random images, under this policy too, and under `pool` it is not
    folders = [Path("metrics") / kind for kind in ("detection", "cost", "judge", "training", "asking")]
    numbers = summary.summarise(settings.runs, settings.judges, *folders)
    human, drawn = numbers["human-1"], numbers["drawn-1"]
    assert (human.images_human, human.images_model, human.human_decisions, human.asked) == (3, 1, 4, 2)
    assert (drawn.images_human, drawn.images_model, drawn.asked) == (4, 0, None)
    assert drawing_runs(settings.runs, settings.judges) == ["drawn-1"]
    assert [line.split()[0] for line in summary.table(numbers).splitlines()[2:]] == ["start", *RUNS]
    typed.write(Path("metrics/summary.json"), numbers)
    rendered = page.render(page.collect(settings))
    assert all(name in rendered for name in RUNS)

    # the study
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words], check=True, capture_output=True)
    head = {"experiment": "x", "revision": "HEAD", "baseline": "HEAD", "state": "Committed", "created": None}
    _, rows = study.table([head], {"HEAD": study.settings_at("HEAD", project)}, project)
    found = {row["run"]: row for row in rows if row["metric"] == "mask_AP"}
    assert {name: (row["policy"], row["drawing"]) for name, row in found.items()} == {
        "start": (None, False), "human-1": ("checked", False), "drawn-1": ("checked", True), "pool-1": ("pool", False),
    }  # fmt: skip


def test_policies_that_are_not_there_are_named(project):
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("checked", "chequed"))
    known = "'pool', 'annotate', 'correct', 'drop', 'ground_truth' or 'checked'"
    with pytest.raises(UserError, match=rf"^params\.yaml: runs\.drawn-1\.policy: Input should be {known} \(it says 'chequed'\)$"):
        load()


@pytest.mark.parametrize("name", POLICIES)
def test_a_changed_policy_concerns_its_own_runs(name):
    """Not those of other policies, nor how judges are measured, verifiers calibrated and runs reported."""
    folder = "src/vlm_itl/loop/policies"
    others = ("stages.update", "stages.evaluate", "vlm_itl.metrics.judges", "vlm_itl.probes.metrics", "vlm_itl.report.summary")

    def policies(*modules: str) -> set[str]:
        files = {str(path.relative_to(ROOT)) for path in used_by(*modules)}
        return {file for file in files if file.startswith(folder)} - {f"{folder}/__init__.py"}

    module = POLICIES[name].partition(":")[0]
    assert policies(module) == {f"{folder}/{name}.py"} == {str(Path("src") / module.replace(".", "/")) + ".py"}
    assert policies(*others) == set()
    assert issubclass(resolve_name(POLICIES[name]), Policy)


def test_a_policy_that_does_not_say_that_it_sees_the_truth_does_not():
    class Peeps(Policy):
        def rejected(self, shown: Shown) -> Outcome:
            return Outcome({"human": shown.instances})

    from vlm_itl.judges.verdict import Verdict
    from vlm_itl.loop.update import update as of
    from vlm_itl.settings import Run

    pool = {"images": [{"id": 1}], "annotations": [], "categories": []}
    truth = {**pool, "annotations": [instance(BOX, 1, 1)]}
    unasked = Verdict(1, 0, False, "none", False)
    with pytest.raises(TypeError, match="sees_truth = True"):
        of("a", Run(judge="human", prev="start"), Peeps(), {**pool, "images": []}, pool, [], [unasked], truth, [], 0.6)
