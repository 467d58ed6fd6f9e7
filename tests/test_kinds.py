"""A kind of judge is one class and one line of the registry: what shows judges knows a new one. And the file of verdicts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from vlm_itl.core.errors import UserError
from vlm_itl.judges.verdict import Verdict, read, write

KIND = '''
from typing import ClassVar, Literal

from vlm_itl.judges.base import Decision, Judge


class FewJudge(Judge):
    """Approves an image with few proposals."""

    label: ClassVar[str] = "rule: few proposals"

    kind: Literal["few"]
    most: int = 1

    @classmethod
    def simulates(cls, settings):
        return settings.get("most") == 7

    def decide(self, question, truth):
        return Decision(approve=len(question.proposals) <= self.most)
'''
USE = """
import json
from pathlib import Path

import numpy as np
import PIL.Image
from conftest import instance
from ruamel.yaml import YAML

from vlm_itl.core import typed
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json
from vlm_itl.report import study
from vlm_itl.judges.base import Task
from vlm_itl.judges.verdict import read, write
from vlm_itl.metrics.judges import judge_quality
from vlm_itl.report import gallery, page, summary
from vlm_itl.settings import load

params = YAML(typ="safe").load(Path("shipped.yaml").read_text())
params["judges"] |= {"few": {"kind": "few", "most": 1}, "seven": {"kind": "few", "most": 7}}
params["runs"] = {name + "-1": {"judge": name, "prev": "start"} for name in ("human", "few", "seven")}


def written():
    with open("params.yaml", "w") as stream:
        YAML(typ="safe").dump(params, stream)


params["judges"]["few"]["most"] = "many"
written()
try:
    load()
except UserError as error:
    print("error:", error)
params["judges"]["few"]["most"] = 1
written()
settings = load()
few = settings.judges["few"]
pool = {"images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 50} for i in (1, 2)], "annotations": [],
        "categories": [{"id": 1, "name": "bird"}]}
for image in pool["images"]:
    PIL.Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(image["file_name"])
proposals = [instance((2, 2, 12, 12), 1, i, score=0.9) for i in (1, 2, 2)]
truth = {**pool, "annotations": [instance((2, 2, 12, 12), 1, i) for i in (1, 2)]}
done = few.judge(Task(pool, proposals, Path(), lambda: truth, Path("judges/few"), Path("answers"), 0))
write(Path("verdicts.jsonl"), done.verdicts)
said = read(Path("verdicts.jsonl"))
content = gallery.collect(said, proposals, pool, truth, Path(), few, 0.6, settings.gallery)
template = Path(gallery.__file__).with_name("gallery.html.jinja").read_text()
html = gallery.render(template, "few-1", "few", content)
ap, labels = {"AP": 0.1, "AP50": 0.1, "AP75": 0.1, "per_class": {}}, {"images": {"human": 5, "model": 1, "mixed": 0, "ground_truth": 0}}
for name in ("start", *settings.runs):
    write_json(Path(f"metrics/detection/{name}.json"), {"mask": ap, "box": ap})
    write_json(Path(f"metrics/cost/{name}.json"), {"hours": 4.0, "draw_hours": 4.0, "human_decisions": 0, "labels": labels})
    write_json(Path(f"metrics/training/{name}.json"), {"steps": 7})
    write_json(Path(f"metrics/asking/{name}.json"), done.took)
    typed.write(Path(f"metrics/judge/{name}.json"), judge_quality(said, proposals, truth, 0.6))
folders = (Path("metrics", name) for name in ("detection", "cost", "judge", "training", "asking"))
rows = summary.summarise(settings.runs, settings.judges, *folders)
typed.write(Path("metrics/summary.json"), rows)
write_json(Path("loop/few-1/examples.json"), gallery.examples(content, 2))
context = page.collect(settings)
print(json.dumps({
    "approve": [v.approve for v in said], "identity": done.identity, "took": done.took, "title": html.split("<title>")[1].split("<")[0],
    "table": [line.split("  ")[0] for line in summary.table(rows).splitlines()[2:]],
    "simulated": sorted(context["simulated"]), "kind": context["kinds"]["few-1"], "looking": sorted(context["looking"]),
    "examples": sorted(context["examples"]), "seconds": context["computing"]["few-1"]["judge_seconds"],
    "shown": "<td class=\\"l\\">few</td>" in page.render(context),
    "study": {run: study.about(run, params)["simulated"] for run in settings.runs},
}))
"""


def test_a_new_kind_is_one_class_and_one_line(tmp_path):
    shutil.copytree(ROOT / "src/vlm_itl", tmp_path / "src/vlm_itl", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src/vlm_itl/judges/few.py").write_text(KIND)
    registry = tmp_path / "src/vlm_itl/registry.py"
    registry.write_text(registry.read_text().replace("JUDGES = {\n", 'JUDGES = {\n    "few": "vlm_itl.judges.few:FewJudge",\n'))
    for name in ("configs", "judges"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "params.yaml", tmp_path / "shipped.yaml")
    (tmp_path / "use.py").write_text(USE)
    done = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}:{ROOT / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    error, found = done.stdout.splitlines()[0], json.loads(done.stdout.splitlines()[-1])
    # the union's tag is no key of the file
    assert error.startswith("error: params.yaml: judges.few.most: Input should be a valid integer")
    assert found["approve"] == [True, False]
    assert found["identity"] == {"kind": "few", "most": 1}
    assert found["took"] == {"questions": 2}
    assert found["title"] == "few-1: judge few (rule: few proposals)"
    assert sorted(found["table"]) == ["few-1", "human-1 (simulated)", "seven-1 (simulated)", "start"]
    assert found["simulated"] == ["human-1", "seven-1"]
    assert (found["kind"], found["looking"], found["examples"], found["seconds"]) == ("few", [], ["few-1"], 0)
    assert found["shown"]
    assert found["study"] == {"human-1": True, "few-1": False, "seven-1": True}


VERDICTS = {  # as each kind of judge has always written them
    "a rule": '{"image_id": 1, "proposals": 1, "asked": true, "actor": "none", "approve": true, "log_odds": 1.5, "answer": null, '
    '"p_approve": 0.8176}',
    "a person who accepts masks": '{"image_id": 1, "proposals": 2, "asked": true, "actor": "human", "approve": false, "log_odds": null, '
    '"answer": null, "accepted": [true, false], "questions": 3, "p_approve": null}',
    "a VLM, of an image": '{"image_id": 2, "proposals": 1, "asked": true, "actor": "model", "approve": false, "log_odds": null, '
    '"answer": "na\u00efve", "outcome": "unparsed", "reason": "", "option_mass": 0.05, "unparsed": 1, "p_approve": null}',
    "a VLM that was not asked": '{"image_id": 3, "proposals": 0, "asked": false, "actor": "model", "approve": false, "log_odds": null, '
    '"answer": null, "outcome": null, "reason": "", "option_mass": null, "unparsed": 0, "p_approve": null}',
    "a calibrated VLM with a person": '{"image_id": 4, "proposals": 2, "asked": true, "actor": "model", "approve": true, "log_odds": 0.5, '
    '"answer": "yes", "outcome": "approve", "reason": "", "option_mass": 0.99, "person": true, "unparsed": 1, "accepted": [true, false], '
    '"log_odds_mask": [2.0, null], "log_odds_missing": 0.5, "questions": 3, "p_approve": 0.6225, "p_mask": [0.8808, null], '
    '"p_missing": 0.6225}',
}  # fmt: skip


@pytest.mark.parametrize("kind", VERDICTS)
def test_a_verdict_is_read_and_written_byte_for_byte(tmp_path, kind):
    path, again = tmp_path / "verdicts.jsonl", tmp_path / "again.jsonl"
    path.write_text(VERDICTS[kind] + "\n", encoding="utf-8")
    write(again, read(path))
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("line", "problem"),
    [('{"image_id": 1}', "proposals: Field required"), ('{"image_id": "1"}', "image_id: Input should be a valid integer"),
     (VERDICTS["a rule"].replace("answer", "anwser"), "anwser: Unexpected"), ("[1]", "a JSON object is expected")],
)  # fmt: skip
def test_what_is_no_verdict_is_one_line(tmp_path, line, problem):
    path = tmp_path / "verdicts.jsonl"
    path.write_text(f"{VERDICTS['a rule']}\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"verdicts\.jsonl:2: {problem}") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_probabilities_come_from_log_odds():
    verdict = Verdict(1, 2, True, "model", True, 40.0, log_odds_mask=[0.0, None], log_odds_missing=None)
    assert (verdict.p_approve, verdict.p_mask, verdict.p_missing) == (1.0, [0.5, None], None)
