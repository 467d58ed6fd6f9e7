"""The judge that looks, whole: pictures, questions, store and verdicts, through a server on loopback or a tiny model."""

from __future__ import annotations

import itertools
import json
import math
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny_vlm
from conftest import ROOT, clear_proxies, instance
from ruamel.yaml import YAML
from vlm_server import VlmServer

from vlm_itl.core.errors import UserError
from vlm_itl.judges.vlm import judging as vlm
from vlm_itl.judges.vlm.questions import Answer, Question, fill, sections
from vlm_itl.judges.vlm.store import key
from vlm_itl.loop.annotation_log import Entry
from vlm_itl.loop.policies.pool import Pool
from vlm_itl.loop.update import update
from vlm_itl.metrics.judges import judge_quality
from vlm_itl.probes import consistency
from vlm_itl.settings import Run, VlmJudge, load

CATEGORIES = [{"id": 1, "name": "bird"}, {"id": 2, "name": "book"}]
PROMPT = "Detected: {pred_class_names_str}. Is it {right}?"


@pytest.fixture
def server(monkeypatch):
    clear_proxies(monkeypatch)
    with VlmServer() as running:
        yield running


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(1, 6):
        PIL.Image.fromarray(np.random.default_rng(k).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return folder


@pytest.fixture
def pool():
    rows = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 50} for i in (3, 1, 2, 5, 4)]
    return {"images": rows, "annotations": [], "categories": CATEGORIES}


# image 4 has none
PROPOSALS = [
    instance((1, 1, 20, 20), 1, 1, score=0.9), instance((25, 5, 20, 20), 2, 1, score=0.8), instance((2, 2, 30, 30), 2, 2, score=0.9),
    instance((5, 5, 20, 20), 1, 3, score=0.9), instance((5, 5, 20, 20), 2, 5, score=0.9),
]  # fmt: skip


def settings(server, **more) -> VlmJudge:
    own = {"base_urls": [server.url], "retries": 0, "concurrency": 1 if more.pop("one_at_a_time", False) else 2}
    return VlmJudge(**{"kind": "vlm", "backend": "openai", "model": "m", "server": own, **more})


def text_of(request: dict) -> str:
    return request["messages"][0]["content"][-1]["text"]


def judge(server, pool, images, tmp_path, prompt=PROMPT, store="store", **more):
    return vlm.judge(pool, PROPOSALS, images, prompt, settings(server, **more), vlm.Store(tmp_path / store))


def test_one_question_an_image_that_declares_what_is_drawn(server, pool, images, tmp_path):
    server.p_of = lambda request: 0.9 if "bird, book" in text_of(request) else 0.3
    verdicts, identity, took = judge(server, pool, images, tmp_path)
    assert [v.image_id for v in verdicts] == [1, 2, 3, 4, 5]
    assert [v.approve for v in verdicts] == [True, False, False, False, False]
    assert [v.asked for v in verdicts] == [True, True, True, False, True]
    assert [v.p_approve for v in verdicts] == [0.9, 0.3, 0.3, None, 0.3]
    assert sorted(map(text_of, server.requests)) == sorted(
        f"Detected: {c}. Is it {{right}}?" for c in ("bird, book", "book", "bird", "book")
    )
    assert {v.actor for v in verdicts} == {"model"}
    assert took["questions"] == 4
    assert (took["prompt_tokens"], took["completion_tokens"]) == (400, 4)
    assert (identity["model"], identity["unit"], identity["prompt_md5"]) == (
        "m",
        "image",
        __import__("hashlib").md5(PROMPT.encode()).hexdigest(),
    )


def test_the_threshold_and_too_little_mass(server, pool, images, tmp_path):
    server.p_yes = 0.7
    assert sum(v.approve for v in judge(server, pool, images, tmp_path)[0]) == 4
    assert sum(v.approve for v in judge(server, pool, images, tmp_path, threshold=0.75)[0]) == 0
    verdicts, _, took = judge(server, pool, images, tmp_path, min_mass=0.95)
    assert {v.outcome for v in verdicts if v.asked} == {"unparsed"}
    assert took["unparsed"] == 4
    assert len(server.requests) == 4  # neither asks anew


def test_log_odds_are_kept_where_probabilities_are_all_one(server, pool, images, tmp_path):
    # .99999 and .9999999 of P(yes): 1.0 for people, log-odds 11.5 and 16.1 for all that computes
    server.p_of = lambda request: 1 - 1e-5 if "bird, book" in text_of(request) else 1 - 1e-7
    verdicts = judge(server, pool, images, tmp_path)[0]
    assert [v.p_approve for v in verdicts] == [1, 1, 1, None, 1]
    assert [v.log_odds for v in verdicts if v.asked] == pytest.approx([11.513, 16.118, 16.118, 16.118], abs=0.01)
    at = [sum(v.approve for v in judge(server, pool, images, tmp_path, threshold=t)[0]) for t in (1 - 1e-4, 1 - 1e-6, 1.0)]
    assert at == [4, 3, 0]  # a threshold of 1 approves nothing


def many(images, n: int) -> tuple[dict, list[dict]]:
    """So many images that show the same picture, each with a bird."""
    rows = [{"id": i, "file_name": "1.png", "height": 40, "width": 50} for i in range(1, n + 1)]
    boxes = [instance((i % 7, i // 7, 20, 20), 1, i, score=0.9) for i in range(1, n + 1)]
    return {"images": rows, "annotations": [], "categories": CATEGORIES}, boxes


def test_nearly_all_answers_unparsed_is_an_error(server, images, tmp_path):
    pool, rows = many(images, 30)
    server.text = "It looks good."
    more = {"answer": "text"}
    said = r"model: m: 30 of 30 answers unparsed \(neither yes nor no\), for example: .*'It looks good.'.*answer_line"
    with pytest.raises(UserError, match=said):
        vlm.judge(pool, rows, images, PROMPT, settings(server, **more), vlm.Store(tmp_path / "s"))
    # of masks: before anything is asked about completeness
    server.requests.clear()
    with pytest.raises(UserError, match="30 of 30 answers unparsed"):
        vlm.judge(pool, rows, images, INSTANCES, settings(server, unit="instance", **more), vlm.Store(tmp_path / "t"))
    assert len(server.requests) == 30
    # of fewer than 20 nothing is certain; it is said
    pool, rows = many(images, 19)
    verdicts, _, took = vlm.judge(pool, rows, images, PROMPT, settings(server, **more), vlm.Store(tmp_path / "s"))
    assert (took["questions"], took["unparsed"], took["images_unparsed"]) == (19, 19, 19)
    assert not any(v.approve for v in verdicts)


def test_unparsed_answers_are_counted_once_and_said(server, images, tmp_path, capsys):
    """Of masks too, which a verdict of an image does not show: answers of questions, and the images that have one."""
    pool, rows = many(images, 30)
    rows += [instance((20, 10, 10, 10), 2, i, score=0.9) for i in (1, 2, 3)]  # books, about which nothing is said
    text = {"[book]": "Hm."}

    def judged(prompt: str, store: str) -> tuple[list, dict, str]:
        server.p_of = lambda request: 0.9
        verdicts, _, took = vlm.judge(
            pool, rows, images, prompt, settings(server, unit="instance", answer="text"), vlm.Store(tmp_path / store)
        )
        return verdicts, took, capsys.readouterr().out

    original = server.completion

    def completion(request: dict) -> dict:
        server.text = next((said for mark, said in text.items() if mark in text_of(request)), None)
        return original(request)

    server.completion = completion
    prompt = INSTANCES.replace("this one {pred_class_names_str}", "this one [{pred_class_names_str}]")
    verdicts, took, said = judged(prompt, "s")
    assert (took["questions"], took["unparsed"], took["images_unparsed"]) == (63, 3, 3)
    assert [v.unparsed for v in verdicts] == [1, 1, 1] + [0] * 27
    assert {v.outcome for v in verdicts} == {"approve"}  # the book is left out, the bird is approved
    assert "3 of 63 answers unparsed (neither yes nor no), for example: 'Hm.'; 3 of 30 images have one" in said
    assert "WARNING" not in said  # 5 %
    text["Found: bird."] = "Hm, hm."
    verdicts, took, said = judged(prompt + "!", "t")
    assert (took["unparsed"], took["images_unparsed"]) == (33, 30)
    assert "WARNING: 33 of 63 answers unparsed" in said


def test_a_model_that_was_taught_other_classes_is_refused_at_once(pool, images, tmp_path):
    """The shipped one knows what is drawn; said before anything is loaded or asked."""
    s = VlmJudge(kind="vlm", model=str(ROOT / "judges/vlm/model"), unit="instance", device="cpu")
    mixed = {**pool, "categories": [*CATEGORIES, {"id": 3, "name": "person"}, {"id": 4, "name": "chair"}]}
    expected = (
        r"model: .*judges/vlm/model was taught stop sign, bird, zebra, book and knows nothing else .*cannot judge person, chair; give"
    )
    with pytest.raises(UserError, match=expected):
        vlm.judge(mixed, PROPOSALS, images, INSTANCES, s, vlm.Store(tmp_path / "s"))
    with pytest.raises(UserError, match=expected):
        consistency.measure(mixed, PROPOSALS, images, INSTANCES, s, vlm.Store(tmp_path / "s"), 5, 0)
    vlm.check_classes(s, pool)
    vlm.check_classes(s.model_copy(update={"model": "somebody/else"}), mixed)
    for content in (5, None, {"bird": 1}, [["bird"]], "bird"):
        (tmp_path / "classes.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"classes\.json: a list of names of classes is expected"):
            vlm.check_classes(s.model_copy(update={"model": str(tmp_path)}), pool)


def test_what_was_answered_is_not_asked_again(server, pool, images, tmp_path):
    first = judge(server, pool, images, tmp_path)
    assert len(server.requests) == 4
    server.p_yes = 0.1  # it would answer otherwise now
    assert judge(server, pool, images, tmp_path) == first
    assert len(server.requests) == 4
    judge(server, pool, images, tmp_path, prompt=PROMPT + " Really?")
    assert len(server.requests) == 8
    judge(server, pool, images, tmp_path, model="another")
    assert len(server.requests) == 12
    judge(server, pool, images, tmp_path, render={"alpha": 0.2})
    assert len(server.requests) == 16
    PIL.Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(images / "3.png")
    judge(server, pool, images, tmp_path)
    assert len(server.requests) == 17


def test_the_store_is_only_a_cache(server, pool, images, tmp_path):
    first, second = (judge(server, pool, images, tmp_path, store=name) for name in ("one", "two"))
    assert first[0] == second[0]
    assert len(server.requests) == 8


def test_a_proposal_that_moved_is_another_question(server, pool, images, tmp_path):
    judge(server, pool, images, tmp_path)
    moved = [*PROPOSALS[:-1], instance((6, 5, 20, 20), 2, 5, score=0.9)]
    vlm.judge(pool, moved, images, PROMPT, settings(server), vlm.Store(tmp_path / "store"))
    assert len(server.requests) == 5


INSTANCES = "[mask]\nIs this one {pred_class_names_str}?\n\n[missing]\nFound: {pred_class_names_str}. Is every {classes} there?\n"


def test_masks_alone_then_whether_any_is_missing(server, pool, images, tmp_path):
    def p_of(request):
        text = text_of(request)
        if text.startswith("Found"):
            return 0.9 if text.startswith("Found: bird.") else 0.2
        return 0.8 if "bird" in text or len(request["messages"][0]["content"]) != 3 else 0.1

    server.p_of = p_of
    verdicts, identity, took = judge(server, pool, images, tmp_path, prompt=INSTANCES, unit="instance")
    texts = [text_of(r) for r in server.requests]
    assert texts.count("Is this one bird?") == 2
    assert texts.count("Is this one book?") == 3
    # a second question only where something was accepted, about what was accepted
    assert texts.count("Found: bird. Is every bird, book there?") == 2
    assert len(texts) == took["questions"] == 7
    by_id = {v.image_id: v for v in verdicts}
    assert (by_id[1].approve, by_id[1].accepted, by_id[1].p_mask) == (True, [True, False], [0.8, 0.1])
    assert (by_id[2].approve, by_id[2].accepted, by_id[2].reason) == (False, [False], "no proposal accepted")
    assert (by_id[1].questions, by_id[2].questions) == (3, 1)
    assert identity["unit"] == "instance"
    # what is accepted, and nothing else, becomes labels
    empty = {"images": [], "annotations": [], "categories": CATEGORIES}
    labels, left, ledger = update("vlm-1", Run(judge="vlm", prev="start"), Pool(), empty, pool, PROPOSALS, verdicts, None, [], 0.6)
    assert [(a["image_id"], a["category_id"]) for a in labels["annotations"]] == [(3, 1), (1, 1)]
    assert [i["id"] for i in left["images"]] == [2, 5, 4]
    assert ledger == [Entry(run="vlm-1", action="verify", actor="model", judge="vlm", decisions=7)]
    # the oracle judges what would become labels: the bird is all there is in image 1, and there is a book too in image 3
    truth = {**pool, "annotations": [instance((1, 1, 20, 20), 1, 1), instance((5, 5, 20, 20), 1, 3), instance((30, 30, 8, 8), 2, 3)]}
    quality = judge_quality(verdicts, PROPOSALS, truth, 0.6)
    assert (quality.true_approvals, quality.false_approvals) == (1, 1)
    assert quality.by_proposal.asked == 5
    assert (quality.by_proposal.recall, quality.by_proposal.specificity) == (1, 1)


def test_a_prompt_for_instances_needs_both_texts(server, pool, images, tmp_path):
    for prompt in (PROMPT, "[mask]\nx\n", "[mask]\n\n[missing]\ny"):
        with pytest.raises(UserError, match=r"no text under a line '\[(mask|missing)\]'"):
            judge(server, pool, images, tmp_path, prompt=prompt, unit="instance")
    assert not server.requests


def test_a_picture_that_is_gone_is_named(server, pool, images, tmp_path):
    (images / "3.png").unlink()
    with pytest.raises((UserError, OSError), match=r"3\.png"):
        judge(server, pool, images, tmp_path)


def test_the_study_s_prompts_are_word_for_word():
    judges = load(ROOT / "params.yaml").judges
    basic, cot = (judges[name].prompt for name in ("basic", "cot"))
    assert basic.startswith("Examine this image showing object segmentation masks. The colored areas represent the computer's")
    assert basic.rstrip().endswith('Begin with "no" followed by an explanation if any objects are misclassified or poorly segmented.')
    assert cot.startswith(
        "You are an expert quality-controller for instance-segmentation. Your task (think step-by-step in your head): 1. **List"
    )
    assert cot.rstrip().endswith("- otherwise. (Do **not** reveal your private reasoning.)")
    for text in (basic, cot):
        assert text.count("{pred_class_names_str}") == 1
    for name, judge in judges.items():
        if isinstance(judge, VlmJudge) and judge.unit == "instance" and not judge.calibrated:
            texts = sections(judge.prompt, name)
            assert all("yes or no" in fill(text, ["bird"])[-40:] for text in texts.values())


def test_keys_tell_everything_apart():
    pictures = [PIL.Image.fromarray(np.full(shape, v, np.uint8)) for shape, v in (((4, 6, 3), 0), ((6, 4, 3), 0), ((4, 6, 3), 1))]
    questions = [Question("a", (p,)) for p in pictures] + [
        Question("b", (pictures[0],)),
        Question("a", (pictures[0], pictures[0])),
        Question("a", ()),
    ]
    questions += [
        Question("a", (pictures[0],), ("no",), ("yes",)),
        Question("a", (pictures[0], pictures[2])),
        Question("a", (pictures[2], pictures[0])),
    ]
    keys = {key(identity, q) for q in questions for identity in ({"m": 1}, {"m": 2})}
    assert len(keys) == 2 * len(questions)


def test_keys_of_existing_stores_stay_valid():
    """As computed by the code that knew no variants, but for SCHEMA: answers that somebody paid for must be found again."""
    question = Question("is it right", (PIL.Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3)),))
    assert key({"model": "m"}, question) == "bc73745744222879877192b89a76797ea7a753daebe37de5dae7074b560c2d11"
    varied = {key({"model": "m"}, replace(question, variant=v)) for v in ("", "again", "blank")}
    assert len(varied) == 3


def test_the_store_takes_many_writers_and_survives_their_death(tmp_path):
    code = (
        "import sys, os; sys.path.insert(0, 'src')\n"
        "from pathlib import Path\nfrom vlm_itl.judges.vlm.store import Store\nfrom vlm_itl.judges.vlm.questions import Answer\n"
        "store, me = Store(Path(sys.argv[1])), sys.argv[2]\n"
        "for k in range(10**6):\n"
        "    for key in (f'{me}-{k}', f'both-{k}'): store.put(key, Answer(me, -0.5, 1.0, 1, 1, 0.1))\n"
        "    print(k, flush=True)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for n in range(2)
    ]
    reached = []
    for writer in writers:
        for line in writer.stdout:
            if int(line) >= 200:
                break
    for writer in writers:
        writer.kill()
        reached.append([int(line) for line in writer.communicate()[0].split()])
    store = vlm.Store(tmp_path)
    for n in range(2):
        for k in range(200):
            assert store.get(f"{n}-{k}") == Answer(str(n), -0.5, 1.0, 1, 1, 0.1, [])
            assert store.get(f"both-{k}") is not None
    store.put("new", Answer("x", None, None, 0, 0, 0.0))
    assert store.get("new").text == "x"


GOOD = Answer("yes", 1.5, 0.9, 10, 1, 0.25)


@pytest.mark.parametrize("more", [
    {"text": 3}, {"text": "\ud83d"}, {"samples": "yes"}, {"samples": [None]}, {"samples": ["a \udc00"]}, {"log_odds": math.inf},
    {"log_odds": math.nan}, {"log_odds": "1"}, {"log_odds": True}, {"option_mass": 1.2}, {"option_mass": -0.1}, {"prompt_tokens": -1},
    {"prompt_tokens": 1.5}, {"completion_tokens": None}, {"completion_tokens": 10**12}, {"seconds": -1.0}, {"seconds": None},
    {"machine": 7},
])  # fmt: skip
def test_no_answer_is_made_that_cannot_be_one(more):
    with pytest.raises(ValueError, match="an answer"):
        replace(GOOD, **more)


@pytest.mark.parametrize("row", [
    "", "{", "null", "3", '"yes"', "[1, 2]", '{"text": "yes"}', "[" * 100_000, '{"p_approve": 0.5, "text": null}', b"\xff\xfe",
    json.dumps({**vars(GOOD), "log_odds": 1e999}), json.dumps({**vars(GOOD), "text": ["yes"]}), json.dumps({**vars(GOOD), "new": 1}),
    json.dumps({**vars(GOOD), "samples": "yes"}),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["TEXT", "BLOB"])
def test_a_damaged_row_or_one_of_another_schema_is_asked_again(tmp_path, row, kind):
    store = vlm.Store(tmp_path)
    store.put("a", GOOD)
    with sqlite3.connect(tmp_path / "answers.sqlite") as db:
        db.execute(f"UPDATE answers SET answer = CAST(? AS {kind})", (row,))
    assert store.get("a") is None
    store.put("a", replace(GOOD, text="no"))
    assert store.get("a").text == "no"


def test_a_store_s_path_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "answers.sqlite").mkdir()
    with pytest.raises(UserError, match=r"answers\.sqlite: unable to open database file; a file is expected there"):
        vlm.Store(tmp_path)


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


class Slow:
    """A back end that takes two questions at a time, 3 s each pair, and says which machine answered."""

    identity = {"model": "slow"}  # noqa: RUF012

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def ask(self, questions):
        for pair in iter(lambda: list(itertools.islice(questions, 2)), []):
            self.clock.now += 3
            for number, question in pair:
                yield number, Answer("yes", 1.0, 1.0, 1, 1, machine=question.text[-1])


def test_seconds_add_up_to_the_wall_time_without_what_was_only_looked_up(tmp_path, monkeypatch):
    clock, store = Clock(monkeypatch), vlm.Store(tmp_path)
    s = VlmJudge(kind="vlm", model="slow")

    def drawn(names):
        for name in names:
            clock.now += 1  # a second to draw the picture
            yield Question(name, ())

    def ask(names) -> dict:
        asker = vlm.Asker(s, Slow(clock), store)
        asker.ask(drawn(names), len(names), "x")
        return asker.counts

    assert ask(["a1", "b2", "c1"])["seconds"] == 3 * 1 + 2 * 3  # one after the other: no less than the clock on the wall
    start = clock.now
    counts = ask(["a1", "b2", "c1", "d3"])
    assert clock.now - start == 4 * 1 + 3
    assert counts["seconds"] == 9 + 1 + 3  # what the three took then, and the fourth; not the drawing of those found
    assert counts["machines"] == 3
    assert ask(["a1", "b2", "c1", "d3"]) == counts
    assert ask(["a1"]) == {**counts, "questions": 1, "prompt_tokens": 1, "completion_tokens": 1, "seconds": 5.0, "machines": 1}


def test_many_open_a_new_store_at_once(tmp_path):
    for k in range(20):
        with ThreadPool(8) as pool:  # each with a connection of its own, as processes have
            stores = pool.map(lambda _, k=k: vlm.Store(tmp_path / str(k)), range(8))
        stores[0].put("a", Answer("x", None, None, 0, 0, 0.0))
        assert all(store.get("a") for store in stores)


def test_a_broken_store_is_named(tmp_path):
    (tmp_path / "answers.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(UserError, match=r"answers\.sqlite: file is not a database; it is only a cache"):
        vlm.Store(tmp_path)


def stage(tmp_path, pool, params: VlmJudge) -> list[str]:
    yaml = YAML(typ="safe")
    content = yaml.load((ROOT / "params.yaml").read_text())
    content["judges"]["looker"] = params.model_dump() | {"prompt": PROMPT}
    with (tmp_path / "params.yaml").open("w") as stream:
        yaml.dump(content, stream)
    for name, value in (("pool", pool), ("proposals", PROPOSALS), ("truth", pool)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    (tmp_path / "looker").mkdir()
    return [
        sys.executable, "-m", "stages.judge", "--judge=looker", "--pool=pool.json", "--proposals=proposals.json", "--images=images",
        "--truth=truth.json",        "--folder=looker", "--verdicts=out/verdicts.jsonl",
        "--identity=out/judge.json", "--metrics=out/asking.json",
    ]  # fmt: skip


def stored(path: Path) -> int:
    """How many answers are in a store."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]


def test_kill_9_in_mid_judgement_then_again(server, pool, images, tmp_path):
    command = stage(tmp_path, pool, settings(server, one_at_a_time=True))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    server.faults = [None, None, "silent"]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(server.requests) < 3 or stored(tmp_path / "scratch/answers/answers.sqlite") < 2:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "out/verdicts.jsonl").exists()
    server.requests.clear()
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    assert len(server.requests) == 2  # of four, two were answered
    assert len((tmp_path / "out/verdicts.jsonl").read_text().splitlines()) == 5
    identity = json.loads((tmp_path / "out/judge.json").read_text())
    assert {"model", "prompt_md5", "render", "versions"} <= identity.keys()
    # with the store deleted: the same files, but for the time that it took
    before = {n: (tmp_path / "out" / n).read_bytes() for n in ("verdicts.jsonl", "judge.json")}
    for path in (tmp_path / "scratch/answers").iterdir():
        path.unlink()
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    assert before == {n: (tmp_path / "out" / n).read_bytes() for n in before}
    assert len(server.requests) == 6


@pytest.mark.parametrize("unit", ["image", "instance"])
def test_a_tiny_model_judges(pool, images, tmp_path, unit):
    model = tiny_vlm.qwen3_vl(tmp_path / "model")
    s = VlmJudge(kind="vlm", model=str(model), device="cpu", dtype="float32", unit=unit, min_mass=0, batch_size=2)
    store = vlm.Store(tmp_path / "store")
    verdicts, identity, took = vlm.judge(pool, PROPOSALS, images, INSTANCES, s, store)
    if unit == "image":
        assert len({v.p_approve for v in verdicts if v.asked and v.p_approve is not None}) > 1
    assert took["questions"] >= (4 if unit == "image" else 5)
    assert vlm.judge(pool, PROPOSALS, images, INSTANCES, s, store) == (verdicts, identity, took)
    assert identity["revision"] != "folder"
    assert len(identity["revision"]) == 64
