"""A judge that learns from the initial labels: examples, parts, training, calibration, and a person between two thresholds."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, instance
from PIL import Image
from scipy.special import expit, logit

from vlm_itl.core.coco import decode, encode
from vlm_itl.core.errors import UserError
from vlm_itl.core.matching import all_right, rightness
from vlm_itl.judges.calibration import Calibrated, Fitted, weakest
from vlm_itl.loop.policies.pool import Pool
from vlm_itl.loop.update import update
from vlm_itl.probes.metrics import choose_thresholds, expected_calibration_error, fit_calibration
from vlm_itl.settings import HoldBack, Lora, Prices, Run, Verifier, VlmJudge
from vlm_itl.verifier.examples import Examples, shown
from vlm_itl.verifier.held_back import check, divide, together

CATEGORIES = [{"id": 1, "name": "bird"}, {"id": 2, "name": "book"}]
PROMPT = "[mask]\nIs this one {pred_class_names_str}? {options}\n[missing]\nFound: {pred_class_names_str}. Is nothing missing? {options}"


def labels(first: int = 1, images: int = 12) -> dict:
    """Every image shows a bird; every other one a book too, which touches it; every third a second bird."""
    rows = []
    for i in range(first, first + images):
        rows.append(instance((6 + i % 3, 6, 16, 20), 1, i))
        if i % 2:
            rows.append(instance((24, 8, 18, 24), 2, i))
        if i % 3 == 0:
            rows.append(instance((4, 29, 14, 10), 1, i))
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 50} for i in range(first, first + images)],
        "annotations": [{**row, "id": k} for k, row in enumerate(rows, 1)],
        "categories": CATEGORIES,
    }


@pytest.fixture
def pictures(tmp_path):
    """Pictures in which the things of `labels` are seen: birds are red, books blue."""
    folder = tmp_path / "images"
    folder.mkdir()
    data = labels(1, 24)
    for image in data["images"]:
        pixels = np.full((40, 50, 3), 200, np.uint8)
        for row in data["annotations"]:
            if row["image_id"] == image["id"]:
                pixels[decode(row["segmentation"])] = (200, 30, 30) if row["category_id"] == 1 else (30, 30, 200)
        Image.fromarray(pixels).save(folder / image["file_name"])
    return folder


def proposals(data: dict) -> list[dict]:
    """A detector that finds birds well and takes books for birds."""
    return [{**shown(row), "category_id": 1, "score": 0.9 if row["category_id"] == 1 else 0.6} for row in data["annotations"]]


# examples


def test_the_oracle_agrees_with_every_example():
    data = labels()
    examples = Examples(data, proposals(data), 0.6)
    drawn = [examples.draw(3, n, detector=0.3) for n in range(300)]
    for n, e in enumerate(drawn):
        truth = examples.truth[e.image["id"]]
        assert e.right is (n % 2 == 0)
        assert e.right is (rightness(e.rows, truth, 0.6)[0] if e.kind == "mask" else all_right(e.rows, truth, 0.6))
    kinds = Counter((e.kind, e.change) for e in drawn)
    assert {c for k, c in kinds if k == "mask"} >= {"exact", "jitter", "eroded", "dilated", "shifted", "cut", "wrong class", "detector"}
    assert {c for k, c in kinds if k == "missing"} == {"exact", "dropped", "duplicated"}
    assert 0.5 < sum(k == "mask" for k, _ in kinds.elements()) / 300 < 0.7


def test_an_example_hangs_on_seed_and_number_alone():
    data = labels()
    one, other = Examples(data, [], 0.6), Examples({**data, "annotations": data["annotations"]}, [], 0.6)
    assert [one.draw(1, n) for n in (5, 3, 8)] == [other.draw(1, n) for n in (5, 3, 8)]
    assert one.draw(1, 5) != one.draw(2, 5)


def test_near_the_limit_nothing_is_asked():
    examples = Examples(labels(), [], 0.6)
    ious = [examples.mask(random.Random(n), n % 2 == 0).iou for n in range(200)]
    assert all(abs(i - 0.6) >= 0.025 for i in ious)
    assert min(ious) < 0.3
    assert max(ious) == 1


def test_a_proposal_on_an_ignored_region_is_no_example():
    data = labels(1, 2)
    crowd = {**instance((30, 0, 20, 40), 1, 2, iscrowd=1), "id": 99}
    stray = {**shown(instance((35, 5, 8, 8), 1, 2)), "score": 0.9}
    rated = [Examples({**data, "annotations": [*data["annotations"], *more]}, [stray], 0.6).mistakes for more in ([], [crowd])]
    assert [len(r[False]) for r in rated] == [1, 0]
    assert [len(r[True]) for r in rated] == [0, 0]


def test_detector_proposals_on_other_images_are_no_examples():
    data = labels()
    examples = Examples(data, proposals(labels(100, 4)), 0.6)
    assert examples.mistakes == {True: [], False: []}


def test_detector_proposals_on_ignored_regions_are_no_examples():
    """The second class's instances are turned into regions to ignore: proposals on them are neither right nor wrong."""
    data = labels()
    found = [{**shown(row), "score": 0.9} for row in data["annotations"]]
    plain = Examples(data, found, 0.6)
    assert (len(plain.mistakes[True]), plain.mistakes[False]) == (len(found), [])
    regions = {**data, "annotations": [{**a, "iscrowd": int(a["category_id"] == 2)} for a in data["annotations"]]}
    examples = Examples(regions, found, 0.6)
    assert 0 < len(examples.mistakes[True]) < len(found)
    assert examples.mistakes[False] == []


def test_made_masks_on_ignored_regions_are_no_wrong_examples():
    data = labels()
    everywhere = encode(np.ones((40, 50), dtype=bool))
    rows = [{**a, "id": 1000 + a["id"], "segmentation": everywhere, "iscrowd": 1} for a in data["annotations"]]
    examples = Examples({**data, "annotations": [*data["annotations"], *rows]}, [], 0.6)
    for n in range(40):
        e = examples.mask(random.Random(n), False)
        assert rightness(e.rows, examples.truth[e.image["id"]], 0.6) == [False]


# parts


def test_parts_share_no_image_and_lose_none():
    data = labels(1, 20)
    detector, mistakes, held_out = divide(data, HoldBack(held_out=0.25, mistakes=0.2, seed=1))
    ids = [{i["id"] for i in part["images"]} for part in (detector, mistakes, held_out)]
    assert [len(i) for i in ids] == [11, 4, 5]
    assert set().union(*ids) == set(range(1, 21))
    assert divide(data, HoldBack(held_out=0.25, mistakes=0.2, seed=2))[2] != held_out
    assert len(together(detector, mistakes)["annotations"]) + len(held_out["annotations"]) == len(data["annotations"])


def test_copies_of_a_picture_are_held_back_together():
    data = labels(1, 40)
    for image in data["images"]:
        image["md5"] = f"{image['id'] % 10}"
    several = [{i["id"] % 10 for i in part["images"]} for part in divide(data, HoldBack(held_out=0.3, mistakes=0.3))]
    assert sorted(map(len, several)) == [3, 3, 4]
    assert sorted(k for part in several for k in part) == list(range(10))


def test_too_few_labels_say_so():
    with pytest.raises(UserError, match=r"2 initial images held out are too few for probes, 3 are needed; raise split\.initial_fraction"):
        check(labels(), labels(30, 2))
    lone = labels()
    lone["annotations"] = [a for a in lone["annotations"] if a["category_id"] == 1]
    with pytest.raises(UserError, match="no initial image to learn from shows a 'book'"):
        check(lone, labels(30, 4))
    detector, mistakes, held_out = divide(labels(1, 1), HoldBack())
    assert [len(part["images"]) for part in (detector, mistakes, held_out)] == [1, 0, 0]


# calibration


def test_a_fitted_temperature_is_the_one_that_was_applied():
    dice = np.random.default_rng(0)
    z = dice.normal(0, 2, 4000)
    right = dice.random(4000) < 1 / (1 + np.exp(-z))
    overconfident = 3 * z + 1
    fitted = fit_calibration(overconfident, right)
    assert fitted.scale == pytest.approx(1 / 3, abs=0.03)
    assert fitted.shift == pytest.approx(-1 / 3, abs=0.1)
    before, after = (expected_calibration_error(expit(x), right) for x in (overconfident, fitted(overconfident)))
    assert after < 0.03 < before
    assert fit_calibration(np.array([0.2, 0.9]), np.array([True, True])) == Fitted()
    # nothing is cut off: log-odds beyond those of P = 1 - 1e-6 are told apart, too
    assert fit_calibration(20 + overconfident, right).scale == pytest.approx(1 / 3, abs=0.05)


def test_bands_ask_where_errors_cost_more_than_a_question():
    # below -1 all wrong, above 1 all right, between them a coin
    x = np.array([-3, -2, -0.5, 0, 0.5, 1.5, 3])
    right = np.array([False, False, True, False, True, True, True])
    reject, approve = choose_thresholds(x, right, Prices(wrong_approval=5, needless_rejection=1, question=0.3), person=True)
    assert -2 < reject <= -0.5
    assert 0 < approve <= 0.5  # a question about .5 would be for nothing
    reject, approve = choose_thresholds(x, right, Prices(wrong_approval=5, needless_rejection=1, question=9), person=True)
    assert reject == approve


def test_an_image_is_as_sure_as_its_weakest_part():
    assert weakest([3.0, -2.0, 1.0], [True, False, True], 2.0) == 1
    assert weakest([3.0], [True], 0.5) == 0.5
    assert weakest([3.0, None], [True, True], 4.0) == 3  # a text has no log-odds
    assert weakest([-2.0], [False], None) == -np.inf
    assert weakest([3.0], [True], 0.5, Calibrated(missing=Fitted(1, 5))) == 3
    assert weakest([3.0], [True], 0.5, Calibrated(mask=Fitted(0.5, -2))) == -0.5


# a calibrated judge with a person


class Sure:
    """Answers what it is told to: P(approve) by the question's number."""

    def __init__(self, p: list[float]) -> None:
        self.p, self.identity = iter(p), {"backend": "told"}

    def ask(self, questions):
        from vlm_itl.judges.vlm.questions import Answer

        for number, _ in questions:
            yield number, Answer(None, float(logit(next(self.p))), 1.0, 10, 1, 0.01)


@pytest.mark.parametrize("person", [None, lambda i, rows: i == 2])
def test_thresholds_and_a_person_between_them(tmp_path, pictures, person):
    from vlm_itl.judges.vlm.judging import Store, judge

    data = {**labels(), "annotations": [a for a in labels()["annotations"] if a["image_id"] <= 4 and a["category_id"] == 1]}
    data["annotations"] = [a for a in data["annotations"] if a["bbox"][1] < 20]
    pool = {**data, "images": data["images"][:4], "annotations": []}
    settings = VlmJudge(kind="vlm", model="told", unit="instance", calibrated=True)
    told = Sure([0.95, 0.95, 0.95, 0.95, 0.95, 0.8, 0.6, 0.3])  # four masks, then whether something is missing
    calibration = fitted(settings, told, threshold=0.7, reject=0.4, approve=0.9)
    rows, identity, _ = judge(
        pool, proposals(data), pictures, PROMPT, settings, Store(tmp_path / "store"), told, calibration=calibration, person=person
    )
    assert identity["calibration"] == calibration
    assert [r.p_approve for r in rows] == [0.95, 0.8, 0.6, 0.3]
    assert [r.approve for r in rows] == [True, True, False, False]  # the person agrees with the one threshold here
    if person is not None:
        assert [r.person for r in rows] == [False, True, True, False]
        ledger = update(
            "bands-1",
            Run(judge="bands", prev="start"),
            Pool(),
            {**data, "images": [], "annotations": []},
            pool,
            proposals(data),
            rows,
            None,
            [],
            0.6,
        )[2]
        assert [(entry.actor, entry.decisions) for entry in ledger] == [("model", 8), ("human", 2)]


def fitted(settings: VlmJudge, backend, prompt: str = PROMPT, mask: tuple = (1, 0), **thresholds: float | None) -> dict:
    """A calibration of that judge, with thresholds of P(approve)."""
    of = {
        **backend.identity, "prompt": prompt, "prompt_md5": hashlib.md5(prompt.encode()).hexdigest(), "unit": settings.unit,
        "threshold": settings.threshold, "min_mass": settings.min_mass, "approve": settings.approve, "reject": settings.reject,
        "render": settings.render.model_dump(), "versions": {"torch": "0"}, "transformers": "0",
    }  # fmt: skip
    bounds = {k: None if p is None else float(logit(p)) for k, p in thresholds.items()}
    return {"mask": dict(zip(("scale", "shift"), mask)), "missing": {"scale": 1, "shift": 0}, **bounds, "of": of}


def one_bird(p: list[float], pictures: Path, store: Path, **more):
    """The verdict of a calibrated judge on an image with one proposal, told what to say of the mask and of completeness."""
    from vlm_itl.judges.vlm.judging import Store, judge

    pool = {**labels(), "images": labels()["images"][1:2], "annotations": []}
    mine = [row for row in proposals(labels()) if row["image_id"] == 2]
    settings = VlmJudge(kind="vlm", model="told", unit="instance", calibrated=True)
    backend = Sure(p)
    calibration = fitted(settings, backend, **{"threshold": 0.5, "reject": 0.4, "approve": 0.9, **more})
    return judge(pool, mine, pictures, PROMPT, settings, Store(store), backend, calibration=calibration)[0][0]


def test_a_mask_is_accepted_as_on_the_probes(tmp_path, pictures):
    """Before its calibration, which enters the image's P(approve) alone: so the question about completeness is the probes'."""
    row = one_bird([0.6, 0.9], pictures, tmp_path / "s", mask=(1, -1))
    assert row.accepted == [True]  # calibrated it would be .356
    assert row.p_mask == [0.6]
    assert row.log_odds_mask == [pytest.approx(logit(0.6))]
    assert row.p_approve == pytest.approx(expit(logit(0.6) - 1), abs=1e-4)
    assert row.approve is False
    row = one_bird([0.4], pictures, tmp_path / "t", mask=(1, 3))
    assert (row.accepted, row.log_odds, row.p_approve, row.approve) == ([False], None, None, False)


def test_thresholds_of_a_judge_that_is_very_sure(tmp_path, pictures):
    row = one_bird([1 - 1e-7, 1 - 1e-9], pictures, tmp_path / "s", threshold=1 - 1e-6)
    assert (row.approve, row.p_approve) == (True, 1.0)
    row = one_bird([1 - 1e-7, 1 - 1e-9], pictures, tmp_path / "s", threshold=1 - 1e-8)
    assert (row.approve, row.p_approve) == (False, 1.0)
    assert row.log_odds == pytest.approx(16.118, abs=1e-3)
    row = one_bird([1 - 1e-7, 1 - 1e-9], pictures, tmp_path / "s", threshold=None)
    assert row.approve is False


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prompt_md5": "0"}, "prompt_md5: '.*', there '0'"), ({"threshold": 0.4}, "threshold: 0.5, there 0.4"),
        ({"model": "another"}, "model: None, there 'another'"), ({"render": {}}, "render: "), ({"approve": ["ja"]}, "there .'ja'."),
    ],
)  # fmt: skip
def test_thresholds_of_another_question_are_refused(tmp_path, pictures, change, named):
    from vlm_itl.judges.vlm.judging import Store, judge

    settings = VlmJudge(kind="vlm", model="told", unit="instance", calibrated=True)
    backend = Sure([0.9, 0.9])
    calibration = fitted(settings, backend, threshold=0.5, reject=0.5, approve=0.5)
    calibration["of"] |= change
    with pytest.raises(UserError, match=rf"fitted on answers to another question \(.*{named}.*`calibrations`"):
        judge({**labels(), "annotations": []}, [], pictures, PROMPT, settings, Store(tmp_path / "s"), backend, calibration=calibration)


def test_a_calibrated_judge_asks_what_its_thresholds_were_fitted_on(tmp_path):
    from vlm_itl.judges.vlm.judging import question

    plain = VlmJudge(kind="vlm", model="told", unit="instance")
    calibrated = plain.model_copy(update={"calibrated": True})
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(UserError, match=r"mine/calibration\.json: no such file; `calibrations` .* mine: \{probed"):
        question(folder, calibrated)
    calibration = fitted(plain, Sure([]), "what was asked", threshold=0.5, reject=0.5, approve=0.5)
    (folder / "calibration.json").write_text(json.dumps(calibration))
    assert question(folder, calibrated) == ("what was asked", calibration)
    other, same = ({"prompt": text} for text in ("something else", "what was asked"))
    assert question(folder, plain.model_copy(update=other)) == ("something else", None)
    with pytest.raises(UserError, match=r"judges\.mine\.prompt: another question .* take it out"):
        question(folder, calibrated.model_copy(update=other))
    assert question(folder, calibrated.model_copy(update=same))[0] == "what was asked"
    with pytest.raises(UserError, match=r"judges\.mine\.prompt: a judge of kind vlm needs a question"):
        question(folder, plain)


# training


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    import tiny_vlm

    return tiny_vlm.llava(tmp_path_factory.mktemp("base"))


def train(pictures: Path, base: Path, target: Path, **more):
    from vlm_itl.verifier.training import train as fit

    settings = Verifier(**{"base": "vlm", "steps": 6, "batch_size": 4, "learning_rate": 0.003, **more})
    judge = VlmJudge(kind="vlm", model=str(base), unit="instance", dtype="float32", device="cpu", batch_size=16)
    data = labels(1, 12)
    return fit(data, labels(13, 6), proposals(data) + proposals(labels(13, 6)), pictures, PROMPT, judge, judge, settings, 0.6, target)


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Few held-out examples, and a scratch of its own."""
    from vlm_itl.verifier import training

    monkeypatch.setattr(training, "HELD_OUT", {"mask": 20, "missing": 8})
    monkeypatch.setenv("VLM_ITL_SCRATCH", str(tmp_path / "scratch"))


def test_a_model_learns_and_is_a_model_folder(few, pictures, base, tmp_path):
    """Loss falls on two colours; what is saved answers as a judge does, and twice the same training gives the same bytes."""
    from transformers import AutoModelForImageTextToText

    numbers, curve = train(pictures, base, tmp_path / "one", steps=60, learning_rate=0.006)
    assert curve[-1]["step"] == 60
    assert curve[-1]["loss"] < 1 < 2 < curve[0]["loss"]  # ln 600 = 6.4 for a vocabulary of chance, ln 2 = .69 for a coin
    assert set(numbers) == {"mask", "missing", "detector", "seconds", "machines"}
    assert numbers["seconds"] > 0.5
    assert numbers["mask"]["always_accuracy"] == 0.5
    assert numbers["detector"]["score_auroc"] == 1  # as `proposals` are made
    train(pictures, base, tmp_path / "two", steps=60, learning_rate=0.006)
    one, two = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "two"))
    assert one == two
    assert one != (base / "model.safetensors").read_bytes()
    AutoModelForImageTextToText.from_pretrained(base).save_pretrained(tmp_path / "untrained")
    assert (tmp_path / "one/config.json").read_bytes() == (tmp_path / "untrained/config.json").read_bytes()
    from vlm_itl.judges.vlm.judging import Store, judge

    settings = VlmJudge(kind="vlm", model=str(tmp_path / "one"), unit="instance", dtype="float32", device="cpu")
    data = labels(13, 2)
    rows, identity, _ = judge({**data, "annotations": []}, proposals(data), pictures, PROMPT, settings, Store(tmp_path / "store"))
    assert all(0 < p < 1 for r in rows for p in r.p_mask)
    assert len(identity["revision"]) == 64
    assert not list((tmp_path / "scratch").rglob("*.pth"))


def test_parts_of_a_batch_give_the_same_training(few, pictures, base, tmp_path):
    whole, parted = (train(pictures, base, tmp_path / str(k), accumulate=k)[1] for k in (1, 2))
    assert [a["loss"] for a in whole] == pytest.approx([b["loss"] for b in parted], rel=1e-4)


def test_adapters_leave_a_whole_model(few, pictures, base, tmp_path):
    """LoRA: the result has the base's own weights and names, changed in the linear layers alone."""
    from safetensors.torch import load_file

    train(pictures, base, tmp_path / "lora", lora=Lora(rank=2, alpha=4), learning_rate=0.02)
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "lora" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all("proj" in name or "fc" in name or "linear" in name for name in changed)


CHILD = """
import sys
sys.path[:0] = ["{root}/src", "{root}/tests"]
import test_verifier as t
from pathlib import Path
from vlm_itl.settings import Lora
from vlm_itl.verifier import training
training.HELD_OUT = {{"mask": 20, "missing": 8}}
done = t.train(Path("{pictures}"), Path("{base}"), Path("{target}"), steps={steps}, accumulate={accumulate}, lora={lora})
print(done and (done[0]["machines"], done[1]))
"""


def saved(scratch: Path) -> int:
    """The step of the last state that counts; 0 where there is none."""
    return max((int(seal.parent.name.partition("-")[2]) for seal in scratch.glob("training/*/checkpoint-*/sealed.json")), default=0)


@pytest.mark.parametrize(("lora", "kills"), [("None", 2), ("Lora(rank=2, alpha=4)", 1)])
def test_kill_9_in_mid_training_then_again(few, pictures, base, tmp_path, monkeypatch, lora, kills):
    """Goes on where it saved its state and ends with the files and the curve of an unbroken training, to the byte."""
    scratch = tmp_path / "scratch"
    code = CHILD.format(root=ROOT, pictures=pictures, base=base, target=tmp_path / "killed", steps=40, accumulate=2, lora=lora)
    run = lambda code: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout  # noqa: E731
    monkeypatch.setenv("VLM_ITL_CHECKPOINT_SECONDS", "0")
    step = 0
    for _ in range(kills):
        child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while saved(scratch) <= step:
            assert child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        step = saved(scratch)
    assert not (tmp_path / "killed").exists()
    said, curve = run(code).splitlines()
    assert said.startswith(f"going on at step {step} of 40, from {scratch}")
    assert list(scratch.glob("training/*")) == []
    monkeypatch.setenv("VLM_ITL_SCRATCH", str(tmp_path / "other"))
    monkeypatch.setenv("VLM_ITL_CHECKPOINT_SECONDS", "600")
    assert run(code.replace(str(tmp_path / "killed"), str(tmp_path / "whole"))).splitlines() == [curve]
    killed, whole = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("killed", "whole"))
    assert killed == whole


def test_two_processes_share_each_batch(few, pictures, base, tmp_path, monkeypatch):
    """The losses of one process up to rounding; the first writes, and a killed training goes on."""
    import psutil
    import torch
    from safetensors.torch import load_file

    code = CHILD.format(root=ROOT, pictures=pictures, base=base, target=tmp_path / "two", steps=12, accumulate=1, lora="None")
    (tmp_path / "child.py").write_text(code)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "child.py")]
    monkeypatch.setenv("VLM_ITL_CHECKPOINT_SECONDS", "0")
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not saved(tmp_path / "scratch"):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    for child in psutil.Process(process.pid).children(recursive=True):  # torchrun gives each a session of its own
        child.kill()
    assert process.wait() != 0
    assert not (tmp_path / "two").exists()
    done = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert done.count("going on at step") == 1
    said = [ast.literal_eval(line) for line in done.splitlines() if not line.startswith("going on")]
    assert [one for one in said if one is None] == [None]
    ((machines, curve),) = [one for one in said if one is not None]
    assert machines == 2
    _, alone = train(pictures, base, tmp_path / "one", steps=12)
    assert [row["loss"] for row in curve] == pytest.approx([row["loss"] for row in alone], rel=1e-4)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert one.keys() == two.keys()


def test_a_batch_without_equal_parts_says_so(few, pictures, base, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="batch_size: 4 examples have no 1 x 3 equal parts"):
        train(pictures, base, tmp_path / "out")


def launching(config: Path, module: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys\nsys.argv = ['x', 'one', 'two words']\nfrom vlm_itl.verifier.launching import launch\nlaunch({module.stem!r})"
    environment = {**os.environ, "VLM_ITL_ACCELERATE": str(config), "PYTHONPATH": f"{ROOT / 'src'}:{module.parent}"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=module.parent)


def test_accelerate_starts_the_same_command(tmp_path):
    """With its arguments, as the file says, and without the variable, or it would start itself for ever."""
    (tmp_path / "echoing.py").write_text(
        "import os, sys\nprint(sys.argv[1:], os.environ.get('VLM_ITL_ACCELERATE'), os.environ['ACCELERATE_MIXED_PRECISION'])\n"
    )
    config = tmp_path / "accelerate.yaml"
    done = launching(config, tmp_path / "echoing.py")
    assert "UserError: VLM_ITL_ACCELERATE: " in done.stderr
    assert f"{config}: no such file; `accelerate config --config_file {config}` makes one" in done.stderr
    config.write_text("{distributed_type: 'NO', mixed_precision: bf16, num_processes: 1, num_machines: 1, use_cpu: true}")
    done = launching(config, tmp_path / "echoing.py")
    assert done.stdout == "['one', 'two words'] None bf16\n"


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("weights.safetensors", "half"), ("optimizer.pt", "flipped"), ("notes.json", "flipped"), ("rng_state.pth", "gone"),
        ("sealed.json", "half"), ("sealed.json", "gone"),
    ],
)  # fmt: skip
def test_a_damaged_state_is_removed_and_the_training_begins_again(few, pictures, base, tmp_path, monkeypatch, capsys, name, how):
    """One that was never sealed is what a kill left half written: of that nothing is said."""
    from vlm_itl.resume.snapshots import Snapshots

    train(pictures, base, tmp_path / "unbroken")
    dues = iter([True, True, True])

    def due(_):
        if next(dues, None) is None:
            raise KeyboardInterrupt
        return True

    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "due", due)
        with pytest.raises(KeyboardInterrupt):
            train(pictures, base, tmp_path / "again")
    (state,) = (tmp_path / "scratch").glob("training/*/checkpoint-*")
    assert state.name == "checkpoint-3"
    path = state / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:middle] + (bytes([whole[middle] ^ 1]) + whole[middle + 1 :] if how == "flipped" else b""))
    capsys.readouterr()
    train(pictures, base, tmp_path / "again")
    said = "" if (name, how) == ("sealed.json", "gone") else f"{state}: damaged, so it is removed and the training begins again\n"
    assert capsys.readouterr().out == said
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "unbroken/model.safetensors").read_bytes()
    assert list((tmp_path / "scratch").glob("training/*")) == []


def test_a_base_without_chat_template_says_so(few, pictures, base, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    for path in [bare / "chat_template.jinja"]:
        path.unlink()
    for path in bare.glob("*processor_config.json"):
        content = json.loads(path.read_text())
        content.pop("chat_template", None)
        path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="has no chat template"):
        train(pictures, bare, tmp_path / "out")


def test_a_base_that_is_not_there_and_one_behind_a_server(few, pictures, tmp_path):
    with pytest.raises(UserError, match="no folder here, so it is a hub id; pin its revision"):
        train(pictures, tmp_path / "nowhere", tmp_path / "out")
    from vlm_itl.verifier.training import train as fit

    judge = VlmJudge(kind="vlm", model="x", unit="instance", backend="openai", server={"base_urls": ["http://localhost:1"]})
    with pytest.raises(UserError, match="is behind a server"):
        fit(labels(), labels(13, 6), [], pictures, PROMPT, judge, judge, Verifier(base="vlm"), 0.6, tmp_path / "out")


def test_out_of_memory_says_what_helps(few, pictures, base, tmp_path, monkeypatch):
    """torch itself runs out of it, as on a GPU: on a CPU it raises another error."""
    import torch

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "backward", full)
    with pytest.raises(UserError, match="runs out of memory with 4 examples at a time; raise accumulate, set lora, take dtype: bfloat16"):
        train(pictures, base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_ends_it(few, pictures, base, tmp_path):
    """The first step takes the weights beyond all use."""
    with pytest.raises(UserError, match="loss is not finite at step 2; lower its learning_rate"):
        train(pictures, base, tmp_path / "out", learning_rate=1e30)
    assert not (tmp_path / "out").exists()


# the shipped model


def test_the_shipped_model_knows_drawn_scenes(tmp_path):
    """Few drawn scenes of another seed: far above chance, from a folder of less than 3 MB."""
    from vlm_itl.data.synthetic.dataset import write_dataset
    from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
    from vlm_itl.probes.metrics import auroc
    from vlm_itl.settings import load, pick
    from vlm_itl.verifier.batches import Asking
    from vlm_itl.verifier.training import answers, exam

    folder = ROOT / "judges/vlm/model"
    assert sum(p.stat().st_size for p in folder.iterdir()) < 3 * 2**20
    settings = pick(load(ROOT / "params.yaml"), "judges.vlm").model_copy(update={"model": str(folder)})
    write_dataset(tmp_path, 60, 1, 160, 5)
    data = json.loads((tmp_path / "train.json").read_text())
    backend = TransformersBackend(settings)
    asking = Asking(data, tmp_path / "images", load(ROOT / "params.yaml").judges["vlm"].prompt, settings)
    examples = exam(Examples(data, [], 0.6), 0)
    chosen = [e for k in ("mask", "missing") for e in [x for x in examples if x.kind == k][:120]]
    p = answers(backend, asking, chosen, backend.option_tokens(asking(chosen[0])), "asking")
    for kind in ("mask", "missing"):
        of = [k for k, e in enumerate(chosen) if e.kind == kind]
        assert auroc(np.array([p[k] for k in of]), np.array([chosen[k].right for k in of])) > 0.78
