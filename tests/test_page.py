"""The report: tables that say what the metrics files say, strangers' names as text, and a real browser that is content with it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from vlm_itl.core import timing
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import md5, read_json, write_json
from vlm_itl.metrics.rows import read_comparison
from vlm_itl.report import figures, page, study
from vlm_itl.report.figures import arms
from vlm_itl.report.figures import comparison as drawing
from vlm_itl.report.points import read_points
from vlm_itl.settings import load

HOSTILE = "<script>document.title='owned'</script>\"><img src=x onerror=\"document.title='owned'\">"
RUNS = {"human-1": {"judge": "human", "prev": "start"}, "looks-1": {"judge": "masks", "prev": "start"},
        "sim-1": {"judge": "vlm-sim", "prev": "start"}, "all": {"judge": "never", "prev": "start", "policy": "annotate"}}  # fmt: skip


def compared(difference, low, high, answer, **more) -> dict:
    return {
        "against": "human-1", "mask_AP": 0.3 + difference, "against_mask_AP": 0.3, "difference": difference, "low": low, "high": high,
        "standard_error": 0.01, "p": 0.0004, "answer": answer, "images_needed": 1234, "seeds_needed": None, "images": 120, "seeds": 1,
        "resampled": "images", "margin": 0.01, "level": 0.95, "power": 0.8, "replicates": 2000, "reason": None, "p_worse": 0.3,
        "p_holm": 0.6, "answer_holm": "cannot tell", **more,
    }  # fmt: skip


def contrast(run, against, difference, low, high, shown=True) -> dict:
    return {"run": run, "against": against, "difference": difference, "low": low, "high": high, "shown": shown}


def priced(answer: str, value, low, high) -> dict:
    return {
        "hours": 5.25, "hours_saved": {"value": value, "low": low, "high": high, "beyond": None},
        "AP_lost": {"value": 0.012, "low": 0.003, "high": 0.021, "beyond": None}, "answer": answer,
    }  # fmt: skip


def comparison(**rows) -> dict:
    """As the stage writes it; of the arm that looks the curve's end is not reached."""
    curved = {
        "human-1": {"mask_AP": 0.3, "prices": {"3 s": priced("cannot tell", 0.4, -1, 2.1), "9 s": priced("no", -3, -5, -1)}},
        "looks-1": {"mask_AP": 0.2877, "prices": {"3 s": priced("no", -2.25, -4, -0.5), "9 s": priced("no", None, None, -0.5)}},
    }
    return {
        "assay": {"sensitive": True, "reason": None, "reference": contrast("human-1", "start", 0.05, 0.031, 0.069),
                  "negative_control": contrast("always-1", "human-1", -0.078, -0.096, -0.058)},
        "arms": {name.replace("_", "-"): row for name, row in rows.items()},
        "curve": {"reason": None, "paid": "3 s",
                  "points": {"start": {"hours": 2.1, "mask_AP": 0.25}, "all": {"hours": 23.8, "mask_AP": 0.33}},
                  "arms": curved},
        "plan": {"arms": dict.fromkeys((name.replace("_", "-") for name in rows), "human-1"), "reference": "human-1", "control": None,
                 "drawing": ["start", "all"], "judged": list(curved)},
    }  # fmt: skip


def judged(k: int) -> dict:
    numbers = {"asked": 30 + k, "approved": 10, "oracle_approves": 12, "true_approvals": 9, "false_approvals": 1}
    rates = {"recall": 0.75, "specificity": 0.95, "precision": 0.9, "accuracy": 0.8, "base_rate": 0.4, "kappa": 0.5}
    return {"not_asked": 0, **numbers, **rates, "by_class": {}, "by_instances": {"1": {**numbers, **rates}}}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A repository's top folder with what the graph writes for four runs, and a class and an answer that are not kind."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params["runs"], params["probed"], params["calibrations"] = RUNS, [], {}
    params["select"]["categories"] = [HOSTILE, "bird"]
    params["autolabels"] = {"teacher": {"kind": "sam3"}}
    with open("params.yaml", "w") as stream:
        YAML(typ="safe").dump(params, stream)
    summary = {}
    for k, name in enumerate(["start", *RUNS]):
        ap = {"AP": 0.25 + k / 100, "AP50": 0.5, "AP75": None, "per_class": {HOSTILE: 0.1 + k / 100, "bird": None}}
        write_json(Path(f"metrics/detection/{name}.json"), {"mask": ap, "box": ap})
        summary[name] = {
            "mask_AP": 0.25 + k / 100, "box_AP": None, "human_hours": 4 + k / 7, "images_human": 72, "images_model": 3 * k,
            "images_mixed": 0, "asked": 30, "approved": 10, "steps": 40 + k, "questions": 1797,
            "unparsed": 1774 if name == "looks-1" else None, "draw_hours": 4, "human_decisions": 30, "images_ground_truth": 0,
            "judge_recall": None, "judge_specificity": None, "label_precision": None, "simulated": name in ("human-1", "sim-1"),
        }  # fmt: skip
        if name != "start":
            write_json(Path(f"metrics/judge/{name}.json"), judged(k))
    write_json(Path("metrics/summary.json"), summary)
    rows = {"all": compared(0.04, 0.02, 0.06, "yes"), "sim-1": compared(0.0, -0.02, 0.02, "cannot tell"),
            "looks-1": compared(-0.0123, -0.0301, 0.0052, "cannot tell")}  # fmt: skip
    write_json(Path("metrics/comparison.json"), comparison(**rows))
    figures.save(drawing.differences(read_comparison(Path("metrics/comparison.json")).arms, {}), Path("artifacts/report/comparison.svg"))
    stream = io.BytesIO()
    PIL.Image.new("RGB", (50, 40), "green").save(stream, "JPEG")
    picture = {"caption": "As judged", "url": page.data_url(stream.getvalue(), "image/jpeg"), "width": 50, "height": 40}
    card = {
        "group": "wrong",
        "image_id": 7,
        "decision": "approved",
        "outcome": "but 0 of 1 masks right",
        "p_approve": 0.5,
        "answer": HOSTILE,
    }
    write_json(Path("loop/looks-1/examples.json"), [{**card, "pictures": [picture, {**picture, "caption": "True masks"}]}])
    write_json(Path("metrics/autolabel/teacher.json"), {"mask": {"AP": 0.125}, "right": 0.5})
    write_json(Path("metrics/autolabel/tried-once.json"), {"mask": {"AP": 0.75}, "right": 0.75})  # no start of params.yaml
    PIL.Image.new("RGB", (300, 200), "red").save("loop/sheet.jpg")
    Path("loop/teacher").mkdir()
    shutil.move("loop/sheet.jpg", "loop/teacher/contact_sheet.jpg")
    return folder


class Tables(HTMLParser):
    """Text of every table's cells by the table's id, and of everything with an id; tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self._table: list[list[str]] | None = None
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.text += " " if tag in ("dd", "p", "td") else ""
        if tag == "table":
            self._table = self.rows.setdefault(attributes["id"], [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table:
            self._table[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        self.text += data
        if self._table and self._cell:
            self._table[-1][-1] += data


def made(**tables: Path) -> str:
    return page.render(page.collect(load(), **tables))


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words], check=True, capture_output=True)


def words(text: str) -> str:
    return " ".join(Tables(text).text.split())


def test_tables_say_what_the_files_say(project):
    tables = Tables(made()).rows
    summary = read_json(Path("metrics/summary.json"))
    assert [row[0].split()[0] for row in tables["runs"][1:]] == list(summary)
    for row, numbers in zip(tables["runs"][1:], summary.values()):
        counted = [str(numbers[key]) for key in ("images_model", "images_mixed", "asked", "approved")]
        counted += ["1,774 of 1,797" if row[0].startswith("looks-1") else "-"]
        seconds = {"looks-1": ["not measured here", "0"], "sim-1": ["-", "0"]}.get(row[0].split()[0], ["0", "0"])
        counted += [*seconds, str(numbers["steps"])]
        assert row[1:] == [f"{numbers['mask_AP']:.3f}", "-", f"{numbers['human_hours']:.2f}", "72", *counted]
    assert tables["classes"][0][1:] == ["AP", "AP50", "AP75", HOSTILE, "bird"]
    for row in tables["classes"][1:]:
        found = read_json(Path(f"metrics/detection/{row[0].split()[0]}.json"))["mask"]
        assert row[1:] == [f"{found['AP']:.3f}", "0.500", "-", f"{found['per_class'][HOSTILE]:.3f}", "-"]
    assert [row[0].split()[0] for row in tables["comparison"][1:]] == ["looks-1", "sim-1", "all"]
    assert tables["comparison"][1][2:] == ["1", "0.288", "\u22121.2", "\u22123.0 to +0.5", "<0.001", "cannot tell", "cannot tell", "1,234"]
    assert tables["drawing"][1:] == [
        ["human-1 simulated", "3 s", "5.25", "0.300", "+0.4 (\u22121.0 to +2.1)", "+1.2 (+0.3 to +2.1)", "cannot tell"],
        ["human-1 simulated", "9 s", "5.25", "0.300", "\u22123.0 (\u22125.0 to \u22121.0)", "+1.2 (+0.3 to +2.1)", "no"],
        ["looks-1", "3 s", "5.25", "0.288", "\u22122.2 (\u22124.0 to \u22120.5)", "+1.2 (+0.3 to +2.1)", "no"],
        ["looks-1", "9 s", "5.25", "0.288", "beyond (beyond to \u22120.5)", "+1.2 (+0.3 to +2.1)", "no"],
    ]
    assert "The curve: start 0.250 at 2.10 h, all 0.330 at 23.80 h; linear between them" in words(made())
    assert tables["quality"][2][2:5] == ["32", "10", "1,774 of 1,797"]  # the same count
    assert tables["quality"][1][4] == "-"
    assert [row[0].split()[0] for row in tables["quality"][1:]] == ["human-1", "looks-1", "sim-1"]  # and not who judges nothing
    assert tables["quality"][1][5].startswith("0.75 0.4")  # 9 of 12 with its Wilson interval
    assert tables["autolabels"] == [["measure", "teacher"], ["mask.AP", "0.125"], ["right", "0.5"]]


def test_what_judges_computed_is_shown_where_it_was_measured(project):
    """In no output of a stage, so the page looks it up; the figure of other prices gets a panel more, and the stage's stays as it is."""
    points = [
        {"arm": run.split("-")[0], "run": run, "round": 1, "human_hours": 5, "added_human_hours": 1, "added_draw_hours": 0.5,
         "mask_AP": 0.3, "box_AP": None, "draw_hours": 4, "human_decisions": 9, "simulated": False, "drawing": run == "all"}
        for run in RUNS
    ]  # fmt: skip
    write_json(Path("artifacts/report/curve.json"), points)
    figures.save(arms.prices(read_points(Path("artifacts/report/curve.json")), [1.6, 3.0, 9.0]), Path("artifacts/report/prices.svg"))
    by_stage = Path("artifacts/report/prices.svg").read_bytes()
    assert page.collect(load())["figures"]["prices"].url == page.data_url(by_stage, "image/svg+xml")
    verdicts = Path("loop/looks-1/verdicts.jsonl")
    verdicts.write_text('{"image_id": 1}\n')
    timing.record(verdicts, 6.25, 2)
    made_here = made()
    assert {row[0].split()[0]: row[10] for row in Tables(made_here).rows["runs"][1:]} == {
        "start": "0", "human-1": "0", "looks-1": "12.5", "sim-1": "-", "all": "0",
    }  # fmt: skip
    assert "as measured on this machine." in words(made_here)
    assert page.collect(load())["figures"]["prices"].url != page.data_url(by_stage, "image/svg+xml")
    verdicts.write_text('{"image_id": 2}\n')  # another version
    assert "not measured here" in words(made())


def test_a_judge_that_decided_nothing_and_an_answer_that_is_none(project):
    assert "decided nothing" not in words(made())
    summary = read_json(Path("metrics/summary.json"))
    summary["looks-1"]["images_model"] = 0
    write_json(Path("metrics/summary.json"), summary)
    rows = read_json(Path("metrics/comparison.json"))
    none = dict.fromkeys(("low", "high", "p", "images_needed", "answer_holm"))
    rows["arms"]["looks-1"].update(reason="both learned from the same labels", difference=0.0, **none)
    write_json(Path("metrics/comparison.json"), rows)
    said = words(made())
    assert "cannot tell. Difference +0.0 points; 120 test images, 1 seed. No answer: both learned" in said
    assert "The judge of looks-1 decided nothing: it approved no image, so its arm trained on the labels that it began with." in said
    assert "trained on what it began with: looks-1." in said
    assert "The judge of human-1 decided nothing" not in said


def test_the_arm_of_the_verdict_is_the_one_that_settings_name(project):
    params = YAML(typ="safe").load(Path("params.yaml").read_text())
    params["runs"]["looks-1"]["arm"] = "masks-8b"
    with open("params.yaml", "w") as stream:
        YAML(typ="safe").dump(params, stream)
    write_json(Path("pooled.json"), [group("1 2", looks_1=compared(-0.002, -0.009, 0.005, "yes", seeds=2))])
    commit()
    assert "The arm masks\u20118b is no worse than the arm human simulated by more than" in words(made(pooled_json=Path("pooled.json")))


def test_text_of_a_table_is_no_formula(tmp_path):
    study.write(
        ["a", "b"], [{"a": "=cmd|'/c calc'!A0", "b": -0.5}, {"a": "@x", "b": "-x"}, {"a": "+1", "b": "\tx"}], tmp_path / "t.csv", None
    )
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines == ["a,b", "'=cmd|'/c calc'!A0,-0.5", "'@x,'-x", "'+1,'\tx"]


def changed(change) -> str:
    """The words of the page where the comparison is changed like this."""
    rows = comparison(looks_1=compared(-0.0123, -0.0301, 0.0052, "cannot tell"))
    change(rows)
    write_json(Path("metrics/comparison.json"), rows)
    return words(made())


def test_it_opens_with_the_assay_then_the_curve_then_a_model_that_looks(project):
    said = words(made())
    opening = (
        "Can a vision-language model replace the human annotator?",
        "Can this experiment tell judges apart? yes.",
        "human-1 above start: +5.0 points (+3.1 to +6.9). always-1 below human-1: \u22127.8 points (\u22129.6 to \u22125.8).",
        "Better than drawing random images for the same hours: no arm; approval does not pay here, as far as this experiment can tell.",
        "looks-1: hours saved at equal mAP \u22122.2 (\u22124.0 to \u22120.5), mAP lost at equal hours +1.2 (+0.3 to +2.1) points.",
        "A decision costs 3 s.",
        "Of these two trained models, looks-1 is no worse than human-1 simulated by more than 1.0 mAP point: cannot tell.",
        "Difference \u22121.2 points, 95 % interval \u22123.0 to +0.5; 120 test images, 1 seed.",
        "One seed says nothing about the arms; make sweep SEEDS=1,2,3 does. Were the two equal, about 1,234 test images "
        "would be needed to say so.",
        "Simulated: no person took part; human-1 answers from the true masks.",
    )
    places = [said.rindex(sentence) for sentence in opening]
    assert places == sorted(places)
    assert "The arm" not in said[: places[-1]]


def test_an_experiment_that_cannot_tell_judges_apart_says_so_first(project):
    blind = "this experiment does not tell judges apart"

    def fails(rows):
        rows["assay"].update(sensitive=False, reason="always-1 is not below human-1 by more than its interval")
        rows["arms"]["looks-1"].update(reason=blind)

    said = changed(fails)
    assert "Can this experiment tell judges apart? no." in said
    assert "always-1 is not below human-1 by more than its interval." in said
    assert f"No answer: {blind}." in said
    assert "Were the two equal" not in said

    def missing(rows):
        rows["assay"].update(sensitive=None, reason="no arm of the judge 'always' in runs", negative_control=None)

    said = changed(missing)
    assert "Can this experiment tell judges apart? not shown." in said
    assert "Assay sensitivity was not shown: no arm of the judge 'always' in runs." in said
    assert "mAP point: cannot tell." in said


def test_an_arm_above_the_curve_is_named(project):
    said = changed(lambda rows: rows["curve"]["arms"]["human-1"]["prices"]["3 s"].update(answer="yes"))
    assert "for the same hours: human-1 simulated." in said
    assert "does not pay" not in said
    said = changed(lambda rows: rows["curve"]["arms"]["human-1"]["prices"]["9 s"].update(answer="yes"))
    assert "A decision costs 3 s; at 9 s human-1 is better." in said
    assert "no arm; approval does not pay here, as far as this experiment can tell." in said
    said = changed(lambda rows: rows["curve"]["arms"]["human-1"]["prices"]["3 s"].update(answer="no"))
    assert "no arm; approval does not pay here." in said
    said = changed(lambda rows: rows["curve"].update(arms={}, reason="no run draws"))
    assert "for the same hours: not measured. There is no drawing curve: no run draws." in said
    assert "nothing to compare" not in said
    assert "No arm to compare." in changed(lambda rows: rows.update(arms={}))


def test_simulated_judges_are_named_wherever_their_numbers_stand(project):
    tables = Tables(made()).rows
    for name, rows in tables.items():
        if name in ("runs", "classes", "comparison", "quality"):
            for row in rows[1:]:
                assert ("simulated" in row[0]) == row[0].startswith(("human", "sim")), (name, row)
    assert "human-1, sim-1 answer from the true masks" in words(made())


@pytest.mark.parametrize("init", ["scratch", "drawn", "imagenet", "coco"])
def test_limits_name_the_labels_hidden_in_weights(project, init):
    params = YAML(typ="safe").load(Path("params.yaml").read_text())
    params["detector"]["init"] = init
    with open("params.yaml", "w") as stream:
        YAML(typ="safe").dump(params, stream)
    said = {"scratch": "random weights", "drawn": "drawn pictures of other things", "imagenet": "1.28 million", "coco": "860,000"}
    assert said[init] in words(made())


def test_another_detector_is_not_described_as_mask_rcnn(project):
    params = YAML(typ="safe").load(Path("params.yaml").read_text())
    params["detector"]["kind"] = "blobs"
    with open("params.yaml", "w") as stream:
        YAML(typ="safe").dump(params, stream)
    said = words(made())
    assert "Detector: blobs , which is there to try the graph out" in said.replace("blobs,", "blobs ,")
    assert "Mask R-CNN," not in said
    assert "Hidden" not in said


def test_strangers_text_is_text(project):
    parsed = Tables(made())
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    sources = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert len(sources) == 4
    assert all(source.startswith("data:image/") for source in sources)
    assert parsed.text.count(HOSTILE) >= 3  # class, in the protocol too, and answer
    assert all(attributes.get("href", "#").startswith("#") for _, attributes in parsed.tags)


def test_what_is_missing_is_said_and_no_error(project):
    for path in ("metrics", "artifacts", "loop"):
        shutil.rmtree(path)
    said = words(made())
    assert "No verdict yet" in said
    assert "Left out, because not made yet: metrics/summary.json, metrics/comparison.json" in said
    assert "Protocol and its limits" in said


def test_a_broken_file_is_one_line(project):
    Path("metrics/summary.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics/summary\.json: cannot be read as JSON"):
        page.collect(load())


BROKEN = {
    "assay": [], "arms": {"looks-1": {}}, "curve": {"arms": {"looks-1": {}}}, "plan": None,
}  # fmt: skip


@pytest.mark.parametrize("part", BROKEN)
def test_a_comparison_of_another_version_is_one_line(project, part):
    file = Path("metrics/comparison.json")
    write_json(file, read_json(file) | {part: BROKEN[part]})
    with pytest.raises(UserError, match=r"^metrics/comparison\.json: not a comparison as this version writes it[^\n]*$"):
        page.collect(load())


@pytest.mark.parametrize("content", [[1], {"start": {}}, {"start": 1}])
def test_a_summary_of_another_version_is_one_line(project, content):
    write_json(Path("metrics/summary.json"), content)
    with pytest.raises(UserError, match=r"^metrics/summary\.json: not a summary as this version writes it[^\n]*$"):
        page.collect(load())


@pytest.mark.parametrize("lock", ["[1]", "stages: [1]", "stages: {report: [1]}", "1"])
def test_a_lock_that_is_none_is_one_line(project, lock):
    Path("dvc.lock").write_text(lock)
    with pytest.raises(SystemExit, match=r"^error: dvc\.lock: no stage is recorded here") as stop:
        page.main([])
    assert "\n" not in str(stop.value)


def test_a_page_that_cannot_be_written_is_one_line(project):
    with pytest.raises(SystemExit, match=r"^error: params\.yaml: "):
        page.main(["--page", "params.yaml/index.html"])


def test_a_disk_without_room_is_one_line(project):
    """The kernel lets no file grow beyond 512 bytes or 1 KiB, whichever `ulimit -f 1` means."""
    words = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", sys.executable, "-m", "vlm_itl.report.page", "--page", "small/index.html"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"error: .*index\.html.*: File too large\n", done.stderr)
    assert list(Path("small").iterdir()) == []


def test_it_names_the_revision_and_what_differs_from_it(project):
    assert "none: not in a git repository" in words(made())
    outs = [
        {"path": "metrics/summary.json", "md5": md5(Path("metrics/summary.json"))},
        {"path": "metrics/comparison.json", "md5": "0" * 32},
    ]
    Path("dvc.lock").write_text(json.dumps({"stages": {"report": {"outs": outs}}}))
    git("init", "-q")
    git("add", "params.yaml", "dvc.lock", "metrics")
    git("commit", "-qm", "first")
    said = words(made())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert f"git checkout {commit}" in said
    assert "as committed" in said
    assert f"params.yaml md5 {md5(Path('params.yaml'))}" in said
    state = page.provenance([Path("metrics/summary.json"), Path("metrics/comparison.json")])
    assert (state.checked, state.other) == (2, ["metrics/comparison.json"])
    assert made() == made()  # no clock in it
    Path("params.yaml").write_text(Path("params.yaml").read_text() + "# more\n")
    assert "differs from the commit in params.yaml" in words(made())


def commit() -> str:
    git("init", "-q")
    git("add", "params.yaml", "metrics")
    git("commit", "-qm", "first")
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()


def group(seeds: str, fraction: str = "0.2", revision: str = "HEAD", **rows) -> dict:
    """Verdicts over seeds, of the experiment of a revision."""
    return {
        "group": fraction, "seeds": seeds.split(), "revisions": [revision], "simulated": ["human-1"],
        "settings": {"split.initial_fraction": fraction, "judges.human.iou": "0.6"}, "comparison": comparison(**rows),
    }  # fmt: skip


def test_the_page_opens_with_the_sweep_where_that_has_this_very_experiment(project):
    """Else, and where settings have changed since, it is of the one seed that ran here; the table shows every group."""
    revision = commit()
    ours = group("1 2 3", revision=revision, looks_1=compared(-0.002, -0.009, 0.005, "yes", seeds=3))
    other = group("1 2 3", "0.4", "0" * 40, looks_1=compared(-0.05, -0.06, -0.04, "no", seeds=3))
    other["comparison"]["assay"]["sensitive"] = None
    tables = {}
    for name, rows in (("both", [other, ours]), ("other", [other]), ("one", [group("1", revision=revision)])):
        tables[name] = Path(f"{name}.json")
        write_json(tables[name], rows)
    said = words(made(pooled_json=tables["both"]))
    assert "The arm looks is no worse than the arm human simulated by more than 1.0 mAP point: yes." in said
    assert "95 % interval \u22120.9 to +0.5; 120 test images, 3 seeds (1, 2, 3) of the sweep." in said
    assert "these two trained models, " not in said
    assert "no experiment of this commit" not in said
    found = Tables(made(pooled_json=tables["both"])).rows
    assert found["comparison"][1][2:5] == ["3", "0.298", "\u22120.2"]
    assert found["pooled"][1:] == [
        ["0.4", "looks-1", "human-1 simulated", "1, 2, 3", "\u22125.0", "\u22126.0 to \u22124.0", "<0.001", "no", "not shown"],
        ["0.2", "looks-1", "human-1 simulated", "1, 2, 3", "\u22120.2", "\u22120.9 to +0.5", "<0.001", "yes", "yes"],
    ]
    for name in ("other", "one"):
        said = words(made(pooled_json=tables[name]))
        assert "Of these two trained models, looks-1 is no worse" in said
        assert "The sweep holds no experiment of this commit with several seeds" in said
    params = YAML(typ="safe").load(Path("params.yaml").read_text())
    for key, first in (("seed", "The arm looks"), ("judges", "Of these two trained models, looks-1")):
        params["seed"] = 7
        if key == "judges":
            params["judges"]["human"]["iou"] = 0.7
        with open("params.yaml", "w") as stream:
            YAML(typ="safe").dump(params, stream)
        assert f"{first} is no worse" in words(made(pooled_json=tables["both"]))


def test_tables_of_a_study_that_are_none(project):
    for name in ("study_csv", "pooled_json"):
        with pytest.raises(UserError, match=r"gone: no such file; `make study` writes it"):
            made(**{name: Path("gone")})
    Path("odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"odd\.csv: not a table of `make study` \(columns .*run"):
        made(study_csv=Path("odd.csv"))
    for content in ({}, [3], [{**group("1"), "comparison": {}}]):
        write_json(Path("odd.json"), content)
        with pytest.raises(UserError, match=r"odd\.json: not what `make study` writes"):
            made(pooled_json=Path("odd.json"))


def test_the_template_needs_nothing_from_elsewhere():
    text = page.TEMPLATE.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!#|\{\{)[^\"]*", text)
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_shows_it_without_a_word_on_the_console(project, browser, tmp_path, width):
    (tmp_path / "page.html").write_text(made())
    heard = browser.hear()
    browser.open(tmp_path / "page.html", width)
    images = json.loads(
        browser.value("JSON.stringify([...document.images].map(i => [i.complete, i.naturalWidth > 0, i.clientWidth > 60]))")
    )
    assert images == [[True, True, True]] * 4
    assert browser.value("document.documentElement.scrollWidth") <= width  # only boxes scroll
    assert browser.value("[...document.querySelectorAll('table')].every(t => t.parentElement.classList.contains('scroll'))")
    assert browser.value("document.title") == "VLM-in-the-loop: the report"
    assert browser.value("document.querySelector('#verdict').getBoundingClientRect().bottom < 900")  # on the first screen
    cells = browser.value("document.querySelector('#runs').rows[2].cells[1].textContent")
    assert cells == "0.260"
    assert heard == []
    browser.open(broken(tmp_path), width)  # and it would have been heard
    assert heard


def broken(folder: Path) -> Path:
    text = made().replace("<nav>", "<script>document.title = 'owned'</script><nav>")
    (folder / "broken.html").write_text(text)
    return folder / "broken.html"


@pytest.mark.timeout(120)
def test_it_prints(project, browser, tmp_path):
    (tmp_path / "page.html").write_text(made())
    browser.open(tmp_path / "page.html")
    pdf = base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 8
