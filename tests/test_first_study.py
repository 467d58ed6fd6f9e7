"""Agreement with an oracle in clusters, and the re-analysis of the first study on made-up verdicts."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from vlm_itl.metrics.judges import confusion
from vlm_itl.tools.first_study import agreement

VERDICTS = ROOT.parent / "shared" / "data" / "ovis2-verdicts" / "verdicts.jsonl.gz"


def judgement(image, answer, iou, prompt="basic", classes=("bird",), declared=None):
    n_pred, n_gt = len(iou), len(iou[0]) if iou else 1
    return {
        "image": image, "prop": 0.2, "prompt": prompt, "answer": answer, "approved": "yes" in answer, "n_pred": n_pred, "n_gt": n_gt,
        "gt_classes": list(classes), "pred_classes": list(classes) * n_pred if declared is None else declared, "iou": iou,
    }  # fmt: skip


ROWS = [
    judgement(1, "yes, they fit", [[0.8]]),
    judgement(2, "no", [[0.8]]),
    judgement(3, "yes", [[0.9, 0.0]]),  # one is missing
    judgement(4, "all good.\n\nno", [[0.5]]),  # a loose mask
    judgement(5, "one cannot say yes here\n\nno", []),  # the substring approves
    judgement(6, "yesterday", []),  # the same, and there is no decision
    judgement(7, "yes", [[0.8]], declared=["book"]),  # another class
    judgement(8, "**yes**", [[0.7, 0.65], [0.7, 0.0]], classes=("bird", "zebra"), declared=["bird", "zebra"]),  # pairs off crosswise
]


def run(path, *options):
    return subprocess.run([sys.executable, "bench/first_study.py", str(path), *options], cwd=ROOT, capture_output=True, text=True)


def cells(output: str, title: str) -> dict[str, list[str]]:
    """The table under a title: {first cell: others}."""
    block = output[output.index(title + "\n\n") + len(title) + 2 :].split("\n\n")[0]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in block.splitlines()[2:]]
    return {row[0] if title != "The substring" else f"{row[0]} {row[1]}": row[1:] for row in rows}


def test_made_up_verdicts(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    done = run(path, "--replicates", "200")
    assert done.returncode == 0, done.stderr
    study = cells(done.stdout, "Read as the study read")
    # right: 1, 2, 8. Approved by the substring: 1, 3, 5, 6, 7, 8
    assert study["basic, all"][:3] == ["8", "8", "3"]
    assert [c.split()[0] for c in study["basic, all"][3:6]] == ["0.667", "0.200", "0.333"]
    last = cells(done.stdout, "Read by the last line")
    assert [c.split()[0] for c in last["basic, all"][3:6]] == ["0.667", "0.600", "0.500"]
    assert [c.split()[0] for c in last["basic, no objects declared"][3:5]] == ["-", "1.000"]
    assert cells(done.stdout, "What was wrong")["basic"][:4] == ["3", "2 (66.7%)", "1 (33.3%)", "1 (33.3%)"]
    assert cells(done.stdout, "The substring")["basic reject"][1:] == ["3", "1", "2"]
    assert cells(done.stdout, "The substring")["basic unparsed"][1:] == ["1", "1", "0"]
    assert cells(done.stdout, "By true instances, objects declared, by the last line")["basic, 2"][:3] == ["2", "2", "1"]
    assert run(path, "--replicates", "200").stdout == done.stdout
    packed = tmp_path / "verdicts.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert run(packed, "--replicates", "200").stdout == done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("", "no judgement"), ("{", "cannot be read"), ('{"image": 1}', ":1: no 'answer'"), ("3", ":1: no")],
)
def test_bad_verdicts_are_one_line(tmp_path, content, message):
    path = tmp_path / "verdicts.jsonl"
    if content is not None:
        path.write_text(content)
    done = run(path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "verdicts.jsonl" in done.stderr
    assert message in done.stderr


@pytest.mark.skipif(not VERDICTS.exists(), reason=f"{VERDICTS} is not here")
def test_the_page_has_the_scripts_numbers():
    done = run(VERDICTS)
    page = (ROOT / "docs" / "first-study.md").read_text()
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(lines) > 40
    shown = {tuple(c.strip() for c in line.strip("|").split("|")) for line in page.splitlines() if line.startswith("| ")}
    for line in lines:
        assert tuple(c.strip().replace("0.", ".") if "." in c and "%" not in c else c.strip() for c in line.strip("|").split("|")) in shown


def test_agreement_is_confusions_and_knows_clusters():
    random = np.random.default_rng(0)
    right = random.random(200) < 0.5
    approves = np.where(random.random(200) < 0.8, right, ~right)
    alone = agreement(approves.tolist(), right.tolist(), list(range(200)), 1000)
    numbers = confusion(zip(approves.tolist(), right.tolist()))
    for name, estimate in alone.items():
        assert estimate.value == pytest.approx(numbers[name], abs=1e-6)
        assert estimate.low < estimate.value < estimate.high
    # each decision four times over, as if on the same picture: nothing was learned, and the interval stays
    times4 = agreement(np.repeat(approves, 4).tolist(), np.repeat(right, 4).tolist(), np.repeat(np.arange(200), 4).tolist(), 1000)
    for name in alone:
        assert times4[name] == alone[name]
    width = alone["recall"].high - alone["recall"].low
    expected = 2 * 1.96 * (alone["recall"].value * (1 - alone["recall"].value) / right.sum()) ** 0.5
    assert width == pytest.approx(expected, rel=0.15)


def test_agreement_of_nothing_and_of_one_kind():
    assert agreement([], [], [])["recall"].value is None
    found = agreement([True, False], [False, False], [1, 2], 100)
    assert (found["recall"].value, found["specificity"].value) == (None, 0.5)
