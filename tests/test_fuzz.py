"""Readers of foreign content under random and half-valid input: a value that keeps its promise, or the reader's own error. Nothing else.

Most inputs are valid ones with a few changes, so that they get past a reader's first checks. In the suite each reader gets 150 inputs, the
same ones every time. `make fuzz EXAMPLES=20000` tries new ones and prints how many, and what they found.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, rectangle
from drawing_world import Cvat, LabelStudio, people_draw
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from people import answer
from pycocotools import mask as mask_util
from ruamel.yaml import YAML
from vlm_server import VlmServer

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json
from vlm_itl.core.pictures import FORMATS
from vlm_itl.data.instances import normalise, parse_instances, picture_path, picture_problem, renumbered, to_rle
from vlm_itl.detectors.mask_rcnn.schedule import optimiser_steps
from vlm_itl.drawing import brush_rle, exporting, importing
from vlm_itl.drawing.work import Work, opened
from vlm_itl.judges import verdict
from vlm_itl.judges.person import answers as people
from vlm_itl.judges.verdict import Verdict
from vlm_itl.judges.vlm.judging import Asker
from vlm_itl.judges.vlm.openai_backend import OpenAIBackend
from vlm_itl.judges.vlm.questions import Answer, Question, asking, fill, sections
from vlm_itl.judges.vlm.reading import read
from vlm_itl.judges.vlm.store import Store
from vlm_itl.loop import drawings
from vlm_itl.settings import Settings, VlmJudge, check, load

EXAMPLES = int(os.environ.get("VLM_ITL_FUZZ_EXAMPLES", "0"))
SLOW = timedelta(seconds=60)  # an input that takes longer is a fault; most take milliseconds
KEY = "sk-fuzzed-and-secret"  # that a server may repeat

TRIED: Counter[str] = Counter()  # inputs by reader
TAKEN: Counter[str] = Counter()  # of them, those that it did not refuse
SLOWEST: Counter[str] = Counter()  # seconds of one input
FOUND: defaultdict[str, set[str]] = defaultdict(set)  # faults


def fuzz(name: str, **strategies: st.SearchStrategy) -> Callable:
    """Make a test one of the reader `name`, with drawn input. What the test raises is a fault."""

    def decorate(test: Callable) -> Callable:
        @functools.wraps(test)
        def counted(*args: Any, **drawn: Any) -> None:
            try:
                test(*args, **drawn)
            except Exception as error:
                FOUND[name].add(type(error).__name__)
                raise

        limits = settings(
            max_examples=EXAMPLES or 150, derandomize=not EXAMPLES, deadline=SLOW if EXAMPLES else None, database=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
        )  # fmt: skip
        return limits(given(**strategies)(counted))

    return decorate


@pytest.fixture(autouse=True, scope="module")
def _report(request):
    yield
    if EXAMPLES:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n{'reader':28} {'tried':>8} {'taken':>8} {'refused':>8} {'slowest':>8}  found")
            for name, tried in TRIED.items():
                found = ", ".join(sorted(FOUND[name])) or "nothing"
                print(f"{name:28} {tried:8,} {TAKEN[name]:8,} {tried - TAKEN[name]:8,} {SLOWEST[name]:6.2f} s  {found}")


def ends_well(name: str, reader: Callable[[], Any], refusals: tuple[type[Exception], ...] = (UserError,)) -> Any:
    """What `reader()` returns, or None where it refuses in one line."""
    TRIED[name] += 1
    start = time.perf_counter()
    try:
        result = reader()
    except refusals as error:
        said = str(error)
    else:
        TAKEN[name] += 1
        return result
    finally:
        SLOWEST[name] = max(SLOWEST[name], time.perf_counter() - start)
    assert said.isprintable()  # one line, too
    if "server" in name:
        assert KEY not in said
    return None


# --- input ---

odd_integers = st.one_of(st.integers(-3, 60), st.integers(), st.sampled_from([2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63, 2**64]))
odd_floats = st.one_of(st.floats(-3, 60), st.floats(), st.sampled_from([1e-320, 2.0**20, 1e8, 1e20, 1e308, math.nan, math.inf, -math.inf]))
# places that `written` fills with what Python does not write: a list in a list in a list ..., a long number, one beyond all floats
DEEP, DIGITS, BEYOND = "{deep}", "{digits}", "{beyond}"
WRITTEN = {DIGITS: b"9" * 5000, BEYOND: b"1e999"}
odd_texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", " ", "\ud800", "\0", "../..", "/etc/passwd", "\x1b[31m", "\u2028", "\u202e", "a" * 300, "yes", "No"]),
    st.sampled_from([KEY, DEEP, DIGITS, BEYOND]),
)  # fmt: skip
values = st.recursive(
    st.one_of(st.none(), st.booleans(), odd_integers, odd_floats, odd_texts),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, content: Any, most: int = 3) -> Any:
    """`content` with a few values, at any depth, replaced, removed, repeated or moved. Most new values have the type of the old one."""
    result = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(result))
        if not places:
            break
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(["alike", "alike", "alike", "replace", "remove", "repeat", "move"]))
        if how == "alike":
            parent[key] = draw(_alike(parent[key]))
        elif how == "replace":
            parent[key] = draw(values)
        elif how == "remove":
            del parent[key]
        elif how == "repeat" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            other, there = places[draw(st.integers(0, len(places) - 1))]
            parent[key] = copy.deepcopy(other[there])
    return result


def _alike(value: Any) -> st.SearchStrategy:
    match value:
        case bool():
            return st.booleans()
        case int():
            return odd_integers
        case float():
            return odd_floats
        case str():
            return st.one_of(odd_texts, odd_texts.map(lambda more: value + more))
        case list():
            return st.one_of(st.permutations(value), st.integers(0, len(value)).map(lambda n: value[:n]))
        case dict():
            return values.map(lambda more: {**value, "more": more})
    return values


def _places(value: Any):
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes, in one case of three with a few of them changed, removed or repeated."""
    if draw(st.integers(0, 2)) == 2:
        at, end = sorted(draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content)))))
        end = min(end, at + draw(st.sampled_from([0, 1, 3, len(content)])))
        content = content[:at] + draw(st.one_of(st.binary(max_size=6), st.just(content[at:end] * 2))) + content[end:]
    return content


def spoiled(content: Any, most: int = 3) -> st.SearchStrategy[bytes]:
    """JSON of a changed `content`, in some cases with damage."""
    return changed(content, most).map(written).flatmap(damaged)


def written(content: Any, deep: int = 100_000) -> bytes:
    """JSON as another program might write it."""
    data = json.dumps(content).encode("utf-8", "surrogatepass")
    for mark, stands_for in {**WRITTEN, DEEP: b"[" * deep + b"]" * deep}.items():
        data = data.replace(json.dumps(mark).encode(), stands_for)
    return data


# --- data sets ---

OUTLINES = [
    [[5, 5, 25, 5, 25, 25, 5, 25]], [[5, 5, 25, 5, 25, 25], [1, 1, 9, 1, 9, 9.5]], [[5, 5], [25, 5], [25, 25]],
    {"size": [40, 50], "counts": [400, 200, 1400]}, rectangle(40, 50, 3, 4, 20, 10), [rectangle(40, 50, 3, 4, 20, 10)] * 2,
    [[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]], [{"x": 1, "y": 2}, {"x": 20, "y": 2}, {"x": 20, "y": 30}],
]  # fmt: skip
FILE = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 50, "coco_url": f"http://a.example/{i}.jpg"} for i in range(3)],
    "annotations": [
        {"id": k, "image_id": k % 3, "category_id": 7 + k % 2, "segmentation": outline, "area": 100.0, "iscrowd": k % 2}
        for k, outline in enumerate(OUTLINES)
    ],
    "categories": [{"id": 7, "name": "bird"}, {"id": 8, "name": "book"}],
}


def check_rle(rle: dict, size: tuple[int, int]) -> np.ndarray:
    mask = mask_util.decode(rle)
    assert mask.shape == size
    assert int(mask.sum()) == int(mask_util.area(rle))
    return mask


def small_file(parts: int) -> dict[str, Any]:
    """`FILE` without the outlines from `parts` on."""
    return {**FILE, "annotations": FILE["annotations"][:parts]}


@fuzz("instances JSON", data=st.integers(1, len(OUTLINES)).flatmap(lambda n: spoiled(small_file(n))))
@example(data=json.dumps(FILE).encode("utf-16"))
def test_instances(data):
    def reader():
        parsed = parse_instances(data, "file.json")
        return normalise(parsed, {c.id for c in parsed.categories}, "file.json")[0]

    found = ends_well("instances JSON", reader)
    if found is not None:
        found = renumbered({"train": found})["train"]
        json.dumps(found, allow_nan=False)
        sizes = {image["id"]: (image["height"], image["width"]) for image in found["images"]}
        for row in found["annotations"]:
            assert row["area"] > 0
            assert all(0 <= n <= max(sizes[row["image_id"]]) for n in row["bbox"])
            if max(sizes[row["image_id"]]) < 4096:
                assert check_rle(row["segmentation"], sizes[row["image_id"]]).any()


@fuzz("outlines", outline=st.one_of(*(changed([outline]).map(lambda some: some[0] if some else None) for outline in OUTLINES), values))
@example(outline=[[math.nan, 5, 1e308, 5, 25, 25]])
def test_outlines(outline):
    rle = ends_well("outlines", lambda: to_rle(outline, (40, 50), "file.json: annotation 1"))
    if rle is not None:
        check_rle(rle, (40, 50))


@st.composite
def run_lengths(draw: st.DrawFn) -> list[int]:
    """Of an image of 40 x 50."""
    cuts = sorted(draw(st.lists(st.integers(0, 2000), max_size=12)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, 2000])]


def by_hand(runs: list[int]) -> np.ndarray:
    """The mask of an RLE: background and object in turn, column by column."""
    return np.repeat(np.arange(len(runs)) % 2, runs).reshape((40, 50), order="F")


@fuzz("RLE of numbers", counts=run_lengths().flatmap(lambda runs: st.one_of(st.just(runs), changed(runs))))
def test_rle(counts):
    rle = ends_well("RLE of numbers", lambda: to_rle({"size": [40, 50], "counts": counts}, (40, 50), "file.json: annotation 1"))
    if rle is not None:
        assert (check_rle(rle, (40, 50)) == by_hand([int(n) for n in counts])).all()
    if all(type(n) is int and n >= 0 for n in counts) and sum(counts) == 2000:
        assert rle is not None


RLE_TEXT = st.text(alphabet=[chr(c) for c in range(40, 116)], max_size=40)


@fuzz("compressed RLE", runs=run_lengths(), at=st.integers(0, 40), taken=st.integers(0, 3), put=st.one_of(st.just(""), RLE_TEXT))
def test_compressed_rle(runs, at, taken, put):
    packed = mask_util.frPyObjects({"size": [40, 50], "counts": runs}, 40, 50)["counts"].decode()
    counts = packed[:at] + put + packed[at + taken :]
    rle = ends_well("compressed RLE", lambda: to_rle({"size": [40, 50], "counts": counts}, (40, 50), "file.json: annotation 1"))
    mask = check_rle(rle, (40, 50)) if rle is not None else None
    if counts == packed:
        assert mask is not None
        assert (mask == by_hand(runs)).all()


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory) -> Path:
    """With a picture, one in a folder, a link to a folder beside it and a link to itself."""
    folder = tmp_path_factory.mktemp("data") / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").touch()
    (folder / "out").symlink_to(folder.parent)
    (folder / "loop").symlink_to("loop")
    return folder


@fuzz(
    "file names",
    parts=st.lists(st.one_of(st.sampled_from(["..", ".", "", "a.jpg", "sub", "out", "loop", "~", "C:", "\\"]), odd_texts), max_size=5),
)
def test_file_names(picture_folder, parts):
    name = "/".join(parts)
    path = ends_well("file names", lambda: picture_path(picture_folder, name, "file.json: image 1"))
    if path is not None:
        assert ".." not in path.parts
        assert path.resolve().is_relative_to(picture_folder.resolve())


def picture(kind: str) -> bytes:
    stream = BytesIO()
    PIL.Image.fromarray(np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)).save(stream, kind)
    return stream.getvalue()


@fuzz("pictures", content=st.sampled_from(sorted(FORMATS)).flatmap(lambda kind: damaged(picture(kind)).flatmap(damaged)))
def test_pictures(content):
    image = {"height": 8, "width": 12}

    def reader() -> None:
        if problem := picture_problem(content, image, max_pixels=1000):
            raise ValueError(problem)

    ends_well("pictures", reader, (ValueError,))


# --- judges ---

JUDGE = {"kind": "vlm", "backend": "openai", "model": "m"}
KINDS = {
    "probability": {}, "text": {"answer": "text", "answer_line": "last"},
    "samples": {"answer": "text", "samples": 2}, "words": {"approve": ["all good", "good"], "reject": ["not good"]},
}  # fmt: skip
QUESTIONS = {"words": Question("Is it right?", (), ("all good", "good"), ("not good",))}
CHOICE = {
    "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes", "refusal": None, "reasoning": None},
    "logprobs": {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": [
        {"token": "yes", "logprob": -0.1}, {"token": " No", "logprob": -2.5}, {"token": "good", "logprob": -5.0}]}]},
}  # fmt: skip
COMPLETION = {
    "id": "1", "object": "chat.completion", "created": 0, "model": "m", "usage": {"prompt_tokens": 100, "completion_tokens": 1},
    "choices": [CHOICE],
}  # fmt: skip
PARTS = {**COMPLETION, "choices": [{**CHOICE, "message": {"content": [{"type": "text", "text": "<think>no</think> yes"}, "it is"]}}] * 2}


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch, VlmServer() as server:
        patch.setenv("FUZZED_KEY", KEY)
        patch.setenv("no_proxy", "*")
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("answers"))


@pytest.fixture(scope="module")
def askers(server, store) -> dict[str, Asker]:
    """Judges of every kind that ask the server."""
    at = {"base_urls": [server.url], "fingerprint": "one", "retries": 0, "api_key_env": "FUZZED_KEY"}
    judges = {kind: VlmJudge(**JUDGE, **more, server=at) for kind, more in KINDS.items()}
    return {kind: Asker(judge, OpenAIBackend(judge, store), store) for kind, judge in judges.items()}


@fuzz("answers of servers", kind=st.sampled_from(sorted(KINDS)), body=st.one_of(spoiled(COMPLETION), spoiled(PARTS), values.map(written)))
def test_answers_of_servers(tmp_path_factory, server, store, askers, kind, body):
    """From the bytes on the wire to the verdict's line in a file."""
    server.always, server.requests = body, []
    asker = askers[kind]
    question = QUESTIONS.get(kind, Question("Is it right?", ()))

    def reader() -> Answer:
        ((_, answer),) = asker.backend.ask([(0, question)])
        return answer

    answer = ends_well("answers of servers", reader)
    if answer is None:
        return
    key = str(TRIED["answers of servers"])
    store.put(key, answer)
    assert store.get(key) == Answer(**{**vars(answer), "samples": list(answer.samples)})
    outcome, log_odds, reason = asker.decide(answer)
    said = Verdict(1, 1, True, "model", outcome == "approve", log_odds, answer.text, outcome, reason, unparsed=0)
    assert outcome in ("approve", "reject", "unparsed")
    path = tmp_path_factory.getbasetemp() / "one.jsonl"
    verdict.write(path, [said])
    assert verdict.read(path) == [said]
    assert KEY not in path.read_text(encoding="utf-8")


MODEL = {"id": "m", "object": "model", "root": "org/m", "owned_by": "vllm", "max_model_len": 4096, "meta": {"n_vocab": 9, "size": 1.5}}
MODELS = {"object": "list", "data": [MODEL]}


@fuzz("models of servers", body=st.one_of(spoiled(MODELS), values.map(written)))
def test_models_of_servers(server, told_by, body):
    server.models = body
    told = ends_well("models of servers", told_by)
    assert KEY not in json.dumps(told, allow_nan=False)


@pytest.fixture(scope="module")
def told_by(server) -> Callable[[], Any]:
    """Asks anew what the server serves."""
    backend = OpenAIBackend(VlmJudge(**JUDGE, server={"base_urls": [server.url], "retries": 0, "api_key_env": "FUZZED_KEY"}))

    def tell() -> Any:
        vars(backend).pop("identity", None)  # where it is kept
        return backend.identity["server"]

    return tell


ROW = {
    "text": "yes", "log_odds": 1.5, "option_mass": 0.9, "prompt_tokens": 100, "completion_tokens": 1, "seconds": 0.5,
    "samples": ["yes", "no"], "machine": "http://127.0.0.1:9/v1",
}  # fmt: skip


@fuzz(
    "rows of the answer store",
    row=st.one_of(spoiled(ROW), values.map(written), st.binary(max_size=40)),
    kind=st.sampled_from(["TEXT", "BLOB"]),
)
def test_rows_of_the_store(store, row, kind):
    """A damaged row is no answer, and is asked again."""
    store._db.execute(f"INSERT OR REPLACE INTO answers VALUES ('damaged', CAST(? AS {kind}))", (row,))

    def reader() -> Answer:
        answer = store.get("damaged")
        if answer is None:
            raise ValueError("none")
        return answer

    answer = ends_well("rows of the answer store", reader, (ValueError,))
    if answer is None:
        assert not store._db.execute("SELECT * FROM answers WHERE key = 'damaged'").fetchall()
        return
    assert isinstance(answer.text, str | None)
    assert all(isinstance(text, str) for text in answer.samples)
    assert isinstance(answer.samples, list | tuple)
    store.put("again", answer)
    if answer.p_approve is not None:
        assert 0 <= answer.p_approve <= 1


words = st.one_of(
    st.text(max_size=30),
    st.sampled_from([
        "yes", "No", " yes", "**Yes**", "<think>", "</think>", "<|channel|>", "final", "<|message|>", "[THINK]", "[/THINK]", "<answer>",
        "</answer>", "<|begin_of_box|>", "Answer: ", "\n", "or no", "not", "\ud800", "n\u0307o", "\u0130",
    ]),
)  # fmt: skip


@fuzz("texts of answers", parts=st.lists(words, max_size=8), line=st.sampled_from(["first", "last"]), begun=words)
def test_texts_of_answers(parts, line, begun):
    text = "".join(parts)
    said = ends_well("texts of answers", lambda: read(text, line=line, begun=begun))
    assert said.outcome in ("approve", "reject", "unparsed")
    if said.outcome == "approve":
        assert "yes" in text.lower()
    if said.outcome == "reject":
        assert "no" in text.lower()


# --- what people drew ---


@functools.cache
def drawn_world(folder: Path) -> tuple[Work, dict[str, Any], list[Any], dict[str, Any]]:
    """Work of a run, and for it an export of each tool and a drawing."""
    people_draw(folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        exporting.main(["--run", "x"])
        work = opened(load(), "x")
        studio, cvat = LabelStudio(folder / "artifacts/export/x/label-studio.json"), Cvat(folder / "artifacts/export/x/cvat.zip")
        studio.submit(2)
        path = studio.export(folder / "back.json")
        importing.write(importing.take(path, work, "ana", finished=False), work)
    finally:
        os.chdir(here)
    return work, cvat.content(), studio.tasks, read_json(folder / "drawings/x/000000000002.json")


def taken(name: str, tmp_path_factory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "drawn"
    path = folder / "spoiled.json"
    work = drawn_world(folder)[0]
    path.write_bytes(content)
    found = ends_well(name, lambda: importing.take(path, work, None, finished=True))
    for drawing in found.drawings.values() if found else ():
        assert drawing.kept + drawing.corrected + drawing.removed == len(work.images[drawing.image].offered)
        assert all(check_rle(one.segmentation, (40, 50)).any() for one in drawing.instances)


@fuzz("exports of CVAT", data=st.data())
def test_exports_of_cvat(tmp_path_factory, data):
    content = drawn_world(tmp_path_factory.getbasetemp() / "drawn")[1]
    taken("exports of CVAT", tmp_path_factory, data.draw(spoiled(content)))


@fuzz("exports of Label Studio", data=st.data())
def test_exports_of_label_studio(tmp_path_factory, data):
    content = drawn_world(tmp_path_factory.getbasetemp() / "drawn")[2]
    taken("exports of Label Studio", tmp_path_factory, data.draw(spoiled(content)))


@fuzz("drawings", data=st.data())
def test_drawings(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "drawn"
    work, *_, content = drawn_world(folder)
    shown, path = work.images[2].shown, folder / "drawing.json"
    path.write_bytes(data.draw(spoiled(content)))

    def reader():
        return drawings.rows(drawings.read(path), shown, {name: i for i, name in work.names.items()}, str(path))

    found = ends_well("drawings", reader)
    for row in [*found.kept, *found.corrected, *found.added] if found else ():
        assert check_rle(row["segmentation"], (40, 50)).any()


BRUSH = bytes(brush_rle.encode(np.eye(6, dtype=bool)))


@fuzz("brush masks", code=st.one_of(damaged(BRUSH), st.binary(max_size=200).map(lambda tail: BRUSH[:7] + tail), st.binary(max_size=200)))
def test_brush_masks(code):
    mask = ends_well("brush masks", lambda: brush_rle.decode(code, 6, 6), (ValueError,))
    assert mask is None or mask.shape == (6, 6)


VERDICT = {
    "image_id": 1, "proposals": 2, "asked": True, "actor": "model", "approve": True, "log_odds": 1.5, "answer": "yes",
    "accepted": [True, False], "log_odds_mask": [1.5, -2.0], "log_odds_missing": 0.5,
}  # fmt: skip


@fuzz("verdicts", lines=st.lists(spoiled(VERDICT), max_size=3))
def test_verdicts(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "verdicts.jsonl"
    path.write_bytes(b"\n".join(lines))
    rows = ends_well("verdicts", lambda: verdict.read(path))
    for row in rows or []:
        assert isinstance(row, Verdict)


@fuzz("answers of people", lines=st.lists(spoiled(asdict(answer(1))), max_size=3))
def test_answers_of_people(tmp_path_factory, lines):
    """What is read can be written, and then says the same; whatever the last line is, the next one can be appended."""
    path = tmp_path_factory.getbasetemp() / "answers.jsonl"
    path.write_bytes(b"\n".join(lines))
    file = ends_well("answers of people", lambda: people.Answers(path))
    if file:
        for line in file.lines:
            assert people.parse(people.written(line)) == line
        file.append(answer(2))
        file.refresh()
        assert answer(2) in file.lines
        assert people.Answers(path).lines == file.lines


@fuzz("JSON files", content=st.one_of(spoiled({"threshold": 1.5, "of": {"prompt": "Is it?"}}), st.binary(max_size=60)))
def test_json_files(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "file.json"
    path.write_bytes(content)
    ends_well("JSON files", lambda: read_json(path))


prompt_lines = st.one_of(
    st.sampled_from(["[mask]", " [missing] ", "[mask", "{pred_class_names_str}", "{options}?", "{0}", "{{", "%s", "\\1", "\ufeff"]),
    st.text(max_size=20),
)
prompts = st.lists(prompt_lines, max_size=8).map(lambda lines: "\n".join(["[mask]", "Right?", "[missing]", "All?", *lines]))


@fuzz("prompts", prompt=prompts, names=st.lists(odd_texts, max_size=3))
def test_prompts(prompt, names):
    def reader() -> list[str]:
        return [fill(part, names) for part in (prompt, *sections(prompt, "prompt").values())]

    for text in ends_well("prompts", reader) or []:
        assert text.strip()
        if not any("{options}" in name for name in names):
            assert "{options}" not in text


# --- settings ---

TEXT = """\
seed: 1
data:
  source: synthetic  # of three
  root: data/synthetic
  synthetic: {train_images: 400, test_images: 120, long_side: 160}
  local: {train: {annotations: a.json, images: a}, test_fraction: 0.3}
  coco2017: {base_url: "http://a.example/coco", hosts: [a.example], timeout: 30}
select: {categories: [stop sign, bird], min_area: 40, max_images: null}
split: {validation_fraction: 0.1, initial_fraction: 0.2, seed: 0}
detector: {config: configs/mask_rcnn_thin_R_18_FPN.yaml, weights: null, options: {SOLVER.BASE_LR: 0.01}}
pretrain: {schedule: adaptive, steps: 20, images: 10, growth: 0.5, early_stopping: {every: 40, patience: 3}}
train: {schedule: fixed_epochs, epochs: 2, learning_rate: 0.001, start: continue, model_labels: {min_score: 0, weight: 1}}
predict: {score_threshold: 0.5}
autolabels:
  sam: {kind: grounded-sam2, captions: {bird: a bird}, detector_revision: &pinned "0000000000000000000000000000000000000000",
        segmenter_revision: *pinned}
judges:
  human: {kind: human, iou: 0.6}
  vlm: &drawn {kind: vlm, model: judges/vlm/model, unit: instance, render: {contour: 1}}
  calibrated: {<<: *drawn, calibrated: true, human: {kind: human}}
  verifier: {<<: *drawn, model: judges/verifier/model}
  vlm-sim: {kind: noisy, recall: 0.88, specificity: 0.85}
  cot:
    kind: vlm
    backend: openai
    model: m
    answer: text
    samples: 3
    template: {enable_thinking: false}
    prefill: "<think></think>"
    server: {base_urls: ["http://a.example:8000/v1"], api_key_env: KEY, retries: 1}
runs:
  human-1: {judge: human, prev: start}
  human-2: {judge: human, prev: human-1}
  sam-1: {judge: calibrated, prev: sam, arm: sam, policy: annotate}
verifiers: {verifier: {base: vlm, steps: 10, batch_size: 4, accumulate: 2, lora: {rank: 4}}}
hold_back: {held_out: 0.25, mistakes: 0.25}
probed: [vlm]
calibrations: {calibrated: {probed: vlm}}
evaluate: {judge_iou: 0.6}
compare: {reference: human, margin: 0.01}
report: {verify_seconds: [1.6, 3]}
"""
SETTINGS = YAML(typ="safe").load(TEXT)


def use(found: Settings) -> None:
    """What any stage makes of settings."""
    for training in (found.pretrain, found.train):
        for images, batch in ((1, 64), (10**5, 1)):
            assert optimiser_steps(training, images, batch) >= 1
    for judge in found.judges.values():
        if isinstance(judge, VlmJudge):
            json.dumps(asking(judge), allow_nan=False)
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A folder with what the settings name, and a small dvc.yaml."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("judges", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "data/synthetic").mkdir(parents=True)
    (folder / "dvc.yaml").write_text(
        "stages: {train: {foreach: '${runs}', do: {cmd: 'x ${item.judge}', params: ['judges.${item.judge}', seed, train]}}}"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@fuzz("settings", content=changed(SETTINGS, most=2).map(lambda changed: written(changed, deep=500)))
def test_settings(repository, content):
    path = repository / "params.yaml"
    path.write_bytes(content)  # JSON is YAML
    found = ends_well("settings", lambda: load(path))
    if found is not None:
        use(found)
        ends_well("settings that load, checked", check)


tokens = st.one_of(
    st.sampled_from([
        "*drawn", "&drawn", "*", "<<: *drawn", "!!python/object/apply:os.system [touch P]", "!!binary x", "!!set {a}", "!!omap [a: 1]", "!",
        "!!int x", "? ", ": ", "- ", "|", ">-", "[", "{", "}", "'", '"', "\t", "\0", "\x85", "\ufeff", "---", "...", "%YAML 1.1", "1e400",
        ".inf", ".nan", "0o17", "0x1F", "1_000", "2001-13-45", "12:30:45", "~", "yes", "null: null", "<<: [*drawn, *drawn]",
    ]),
    odd_texts,
)  # fmt: skip


@st.composite
def edited(draw: st.DrawFn) -> bytes:
    """`TEXT` with slips of the hand."""
    lines = TEXT.splitlines()
    for _ in range(draw(st.integers(1, 2))):
        k = draw(st.integers(0, len(lines) - 1))
        at = draw(st.integers(0, len(lines[k])))
        match draw(st.sampled_from(["insert", "value", "remove", "repeat", "indent"])):
            case "insert":
                lines[k] = lines[k][:at] + draw(tokens) + lines[k][at:]
            case "value":
                lines[k] = lines[k].partition(":")[0] + ": " + draw(tokens)
            case "remove":
                lines[k] = ""
            case "repeat":
                lines.insert(draw(st.integers(0, len(lines))), lines[k])
            case "indent":
                lines[k] = " " * draw(st.integers(0, 4)) + lines[k].strip()
    return draw(damaged("\n".join(lines).encode("utf-8", "surrogatepass")))


@fuzz("settings as text", content=st.one_of(edited(), edited(), edited(), st.binary(max_size=60)))
def test_settings_as_text(repository, content):
    path = repository / "params.yaml"
    path.write_bytes(content)
    found = ends_well("settings as text", lambda: load(path))
    if found is not None:
        use(found)
    assert not (repository / "P").exists()
