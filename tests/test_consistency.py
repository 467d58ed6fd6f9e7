"""Questions asked again in other ways: the flips of judges whose ways are known, counted by hand."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import PIL.Image
import pytest
import tiny_vlm
import torch
from conftest import instance
from scipy.special import logit

from vlm_itl.judges.vlm import judging as vlm
from vlm_itl.judges.vlm.questions import Answer
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
from vlm_itl.probes import consistency
from vlm_itl.probes.consistency import NOTHING, VARIANTS, sample
from vlm_itl.settings import VlmJudge

PROMPT = "Detected: {pred_class_names_str}. Is it right?"
OPEN = PROMPT + " Answer {options}."
INSTANCES = "[mask]\nIs this one {pred_class_names_str}?\n\n[missing]\nFound: {pred_class_names_str}. All {classes}? Answer {options}.\n"

# four images of two kinds; the first shows two things; no two questions are the same when blank
POOL = {
    "images": [
        {"id": i, "file_name": f"{i}.png", "height": 40, "width": 50, "kind": kind}
        for i, kind in ((3, "exact"), (1, "exact"), (2, "dropped"), (4, "dropped"))
    ],
    "annotations": [], "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "book"}, {"id": 3, "name": "zebra"}],
}  # fmt: skip
PROPOSALS = [
    instance((1, 1, 20, 20), 1, 1, score=1.0), instance((25, 5, 20, 20), 2, 1, score=1.0), instance((2, 2, 30, 30), 2, 2, score=1.0),
    instance((5, 5, 30, 20), 1, 3, score=1.0), instance((5, 5, 20, 20), 3, 4, score=1.0),
]  # fmt: skip


class Scripted:
    """A back end that says P(approve) of a question at its place, counted over all that it was ever asked."""

    def __init__(self, p_of, mass_of=lambda question: 1.0, name="scripted"):
        self.identity = {"model": name}
        self.p_of, self.mass_of, self.asked = p_of, mass_of, []

    def ask(self, questions):
        for number, question in questions:
            p = self.p_of(question, len(self.asked))
            self.asked.append(question)
            yield number, Answer("yes" if p >= 0.5 else "no", float(logit(p)), self.mass_of(question), 1, 1, 0.0)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(1, 5):
        PIL.Image.fromarray(np.random.default_rng(k).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return folder


@pytest.fixture
def measure(images, tmp_path):
    def run(backend, prompt=PROMPT, number=40, **more):
        settings = VlmJudge(**{"kind": "vlm", "model": "m", **more})
        return consistency.measure(POOL, PROPOSALS, images, prompt, settings, vlm.Store(tmp_path / "store"), number, 0, backend)

    return run


def grey(question) -> bool:
    return all(len(picture.getcolors(10**6)) == 1 for picture in question.pictures)


def test_one_that_answers_by_position(measure):
    backend = Scripted(lambda question, place: 0.3 if place % 2 else 0.9)
    numbers = measure(backend)
    # asked about images 1 to 4 at places 0 to 3; then each image again at an even place and blank at the next
    assert numbers["images"] == 4
    assert numbers["unchanged"] == {"questions": 4, "unparsed": 0, "approved": 0.5, "p_approve": 0.6}
    assert numbers["again"] == {"questions": 4, "unparsed": 0, "approved": 1, "p_approve": 0.9, "flipped": 0.5, "p_change": 0.3}
    assert numbers["blank"] == {"questions": 4, "unparsed": 0, "approved": 0, "p_approve": 0.3, "flipped": 0.5, "p_change": 0.3}
    assert set(numbers["swapped"].values()) == {None}  # the prompt names no options
    assert [q.variant for q in backend.asked] == [""] * 4 + ["again", "blank"] * 4


def test_one_that_ignores_pictures_and_one_that_looks(measure):
    blank = measure(Scripted(lambda question, place: 0.8))["blank"]
    assert (blank["approved"], blank["p_approve"], blank["flipped"], blank["p_change"]) == (1, 0.8, 0, 0)
    looking = Scripted(lambda question, place: 0.1 if grey(question) else 0.9, name="another")
    blank = measure(looking)["blank"]
    assert (blank["approved"], blank["p_approve"], blank["flipped"], blank["p_change"]) == (0, 0.1, 1, 0.8)
    sizes = {v: Counter(p.size for q in looking.asked if q.variant == v for p in q.pictures) for v in ("", "blank")}
    assert sizes[""] == sizes["blank"]


def test_one_that_follows_the_option_named_first(measure):
    backend = Scripted(lambda question, place: 0.9 if "yes or no" in question.text else 0.2)
    numbers = measure(backend, OPEN)
    assert numbers["swapped"] == {"questions": 4, "unparsed": 0, "approved": 0, "p_approve": 0.2, "flipped": 1, "p_change": 0.7}
    assert (numbers["again"]["flipped"], numbers["blank"]["flipped"]) == (0, 0)
    assert {q.text for q in backend.asked if q.variant == "swapped"} == {
        f"Detected: {what}. Is it right? Answer no or yes." for what in ("bird, book", "book", "bird", "zebra")
    }
    assert {q.approve for q in backend.asked} == {("yes",)}  # what is an approval does not turn round


def test_unparsed_is_no_approval(measure):
    # of 4 approvals, the 4 blank pictures make it say something else
    backend = Scripted(lambda question, place: 0.9, mass_of=lambda question: 0.01 if question.variant == "blank" else 1.0)
    numbers = measure(backend)
    assert numbers["blank"] == {"questions": 4, "unparsed": 1, "approved": 0, "p_approve": None, "flipped": 1, "p_change": None}
    # a rejection that becomes unparsed is no flip
    rejecting = Scripted(lambda question, place: 0.2, backend.mass_of, name="another")
    assert measure(rejecting)["blank"]["flipped"] == 0


def test_a_text_has_no_probability(measure):
    numbers = measure(Scripted(lambda question, place: 0.1 if grey(question) else 0.9), answer="text")
    assert (numbers["again"]["flipped"], numbers["blank"]["flipped"]) == (0, 1)
    assert {numbers[v][n] for v in VARIANTS for n in ("p_approve", "p_change")} == {None}


def test_masks_and_completeness_with_all_proposals(measure):
    # a judge of masks that knows birds only; of completeness one that follows the option named first
    backend = Scripted(lambda question, place: 0.9 if "one bird?" in question.text or "yes or no" in question.text else 0.2)
    numbers = measure(backend, INSTANCES, unit="instance")
    asked = Counter((q.variant, q.text) for q in backend.asked)
    for variant in ("", "again", "blank"):
        masks = {what: asked[variant, f"Is this one {what}?"] for what in ("bird", "book", "zebra")}
        assert masks == {"bird": 2, "book": 2, "zebra": 1}
        # nothing is left out, though every book and zebra is rejected
        for found in ("bird, book", "book", "bird", "zebra"):
            assert asked[variant, f"Found: {found}. All bird, book, zebra? Answer yes or no."] == 1
        assert numbers[variant or "unchanged"]["questions"] == 9
        assert numbers[variant or "unchanged"]["approved"] == pytest.approx(6 / 9, abs=1e-4)
    # only the completeness questions name their options
    assert numbers["swapped"] == {"questions": 4, "unparsed": 0, "approved": 0, "p_approve": 0.2, "flipped": 1, "p_change": 0.7}


def test_what_the_judge_stage_asked_is_found_and_every_variant_asked_once(measure, images, tmp_path):
    settings = VlmJudge(kind="vlm", model="m")
    backend = Scripted(lambda question, place: 0.9)
    vlm.judge(POOL, PROPOSALS, images, OPEN, settings, vlm.Store(tmp_path / "store"), backend)
    assert len(backend.asked) == 4
    first = measure(backend, OPEN)
    assert Counter(q.variant for q in backend.asked) == {"": 4, "again": 4, "blank": 4, "swapped": 4}
    assert measure(backend, OPEN) == first
    assert len(backend.asked) == 16


def test_asked_again_in_another_order(measure):
    backend = Scripted(lambda question, place: 0.9)
    measure(backend)
    pixels = {v: [q.pictures[0].tobytes() for q in backend.asked if q.variant == v] for v in ("", "again")}
    assert sorted(pixels[""]) == sorted(pixels["again"])
    assert pixels[""] != pixels["again"]


def test_some_of_each_kind_whatever_the_order():
    rows = [{"id": 10 * i + k, "kind": kind} for i in range(20) for k, kind in enumerate(("exact", "eroded", "dropped"))]
    rows = [row for row in rows if row["kind"] != "dropped" or row["id"] < 30]  # three of these
    chosen = sample(rows, 13, 0)
    assert chosen == sample(rows[::-1], 13, 0) == sorted(chosen, key=lambda row: row["id"])
    assert Counter(row["kind"] for row in chosen) == {"exact": 5, "eroded": 5, "dropped": 3}
    assert chosen != sample(rows, 13, 1)
    assert sample(rows, 100, 0) == sorted(rows, key=lambda row: row["id"])
    assert {sample(rows, 1, seed)[0]["kind"] for seed in range(20)} == {"exact", "eroded", "dropped"}
    assert sample(rows, 0, 0) == sample([], 5, 0) == []


def test_fewer_images_and_none(measure):
    backend = Scripted(lambda question, place: 0.9)
    assert measure(backend, number=2)["again"]["questions"] == 2
    assert measure(backend, number=0) == NOTHING


def test_nothing_has_the_same_keys(measure):
    def flat(numbers):
        return {(k, j) for k, v in numbers.items() for j in (v if isinstance(v, dict) else [""])}

    assert flat(NOTHING) == flat(measure(Scripted(lambda question, place: 0.9)))
    assert {v for part in NOTHING.values() for v in (part.values() if isinstance(part, dict) else [part])} == {None}


@pytest.mark.parametrize("unit", ["image", "instance"])
def test_a_tiny_model(measure, tmp_path, unit):
    more = {"model": str(tiny_vlm.llava(tmp_path / "model")), "device": "cpu", "dtype": "float32", "min_mass": 0, "unit": unit}
    backend = TransformersBackend(VlmJudge(kind="vlm", batch_size=4, **more))
    with torch.no_grad():  # as it is made, its answers hardly differ
        for weight in backend.model.parameters():
            weight.mul_(5)
    numbers = measure(backend, INSTANCES if unit == "instance" else OPEN, **more)
    assert numbers["again"]["flipped"] == 0
    assert numbers["again"]["p_change"] == 0  # to four digits: another batch changes rounding and no more
    assert numbers["again"]["p_approve"] == numbers["unchanged"]["p_approve"]
    assert numbers["blank"]["p_change"] > 0
    assert numbers["swapped"]["p_change"] > 0


def test_samples_of_the_question_asked_again_are_fresh(measure, tmp_path):
    model = tiny_vlm.llava(tmp_path / "model")
    more = {"model": str(model), "device": "cpu", "dtype": "float32", "answer": "text", "samples": 2, "max_tokens": 4, "temperature": 5.0}
    measure(None, **more)
    texts = [row[0] for row in vlm.Store(tmp_path / "store")._db.execute("SELECT answer FROM answers").fetchall()]
    samples = [tuple(json.loads(text)["samples"]) for text in texts]
    assert len(samples) == len(set(samples))
