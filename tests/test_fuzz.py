"""Readers of foreign content under random and half-valid input: a value that keeps its promise, or the reader's own error. Nothing else.

In the suite each reader gets 150 inputs, the same ones every time. `make fuzz EXAMPLES=20000` tries new ones, and says how many.
"""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, rectangle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util
from ruamel.yaml import YAML

from vlm_itl.base.errors import UserError
from vlm_itl.base.files import read_json, read_jsonl, read_text
from vlm_itl.base.settings import VlmJudge, load
from vlm_itl.data.instances import normalise, parse_instances, to_rle
from vlm_itl.judging.vlm.openai_backend import OpenAIBackend
from vlm_itl.judging.vlm.questions import Question, fill, sections
from vlm_itl.judging.vlm.reading import read
from vlm_itl.judging.vlm.store import Store

EXAMPLES = int(os.environ.get("VLM_ITL_FUZZ_EXAMPLES", "0"))
fuzz = settings(
    max_examples=EXAMPLES or 150, derandomize=not EXAMPLES, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
TRIED: Counter[str] = Counter()  # inputs by reader
TAKEN: Counter[str] = Counter()  # of them, those that it did not refuse

odd_numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 2**31, 2**32, 2**62, 2**63, 2**64, 1e8, 1e20, 1e308, float("nan"), float("inf")])
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), odd_numbers, st.text(max_size=8), st.sampled_from(["\ud800", "\0", "../..", "\x1b[31m"])),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@pytest.fixture(autouse=True, scope="module")
def _report(request):
    yield
    if EXAMPLES:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            for name, number in TRIED.items():
                print(f"\n{name}: {number:,} inputs, {TAKEN[name]:,} of them taken, the others refused by its own error", end="")
            print()


@st.composite
def changed(draw: st.DrawFn, content: Any, most: int = 3) -> Any:
    """`content` with a few values, at any depth, replaced, removed or repeated."""
    result = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(result))
        if not places:
            break
        parent, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["replace", "number", "remove", "repeat"]))
        if how == "remove":
            del parent[key]
        elif how == "repeat" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[key] = draw(odd_numbers if how == "number" else values)
    return result


def _places(value: Any):
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


@st.composite
def spoiled(draw: st.DrawFn, content: Any) -> bytes:
    """JSON of a changed `content`, in half the cases with bytes of it changed, removed or repeated."""
    data = json.dumps(draw(changed(content))).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        at, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
        data = data[:at] + draw(st.one_of(st.binary(max_size=6), st.just(data[at:end] * 2))) + data[end:]
    return data


def ends_well(name: str, reader: Any, refusals: tuple[type[Exception], ...] = (UserError,)) -> Any:
    """What `reader()` returns, or None where it refuses."""
    TRIED[name] += 1
    try:
        result = reader()
    except refusals as error:
        said = str(error)
    else:
        TAKEN[name] += 1
        return result
    assert said.isprintable()  # one line, too
    return None


OUTLINES = [
    [[5, 5, 25, 5, 25, 25, 5, 25]], [5, 5, 25, 5, 25, 25], [[5, 5], [25, 5], [25, 25]], {"size": [40, 50], "counts": [400, 200, 1400]},
    rectangle(40, 50, 3, 4, 20, 10), [[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]], [{"x": 1, "y": 2}, {"x": 20, "y": 2}, {"x": 20, "y": 30}],
]  # fmt: skip
FILE = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 50} for i in range(3)],
    "annotations": [
        {"id": k, "image_id": k % 3, "category_id": 7 + k % 2, "segmentation": outline, "area": 100.0, "iscrowd": 0, "bbox": [5, 5, 20, 20]}
        for k, outline in enumerate(OUTLINES)
    ],
    "categories": [{"id": 7, "name": "bird"}, {"id": 8, "name": "book"}],
}


def check_rle(rle: dict, size: tuple[int, int]) -> None:
    mask = mask_util.decode(rle)
    assert mask.shape == size
    assert int(mask.sum()) == int(mask_util.area(rle))


@given(data=spoiled(FILE))
@fuzz
def test_instances(data):
    def reader():
        parsed = parse_instances(data, "file.json")
        return normalise(parsed, {c.id for c in parsed.categories}, "file.json")[0]

    found = ends_well("instances JSON", reader)
    if found is not None:
        sizes = {image["id"]: (image["height"], image["width"]) for image in found["images"]}
        for row in found["annotations"]:
            assert row["area"] > 0
            if max(sizes[row["image_id"]]) < 4096:
                check_rle(row["segmentation"], sizes[row["image_id"]])


@given(outline=st.one_of(changed(OUTLINES).flatmap(lambda some: st.sampled_from(some) if some else st.none()), values))
@fuzz
def test_outlines(outline):
    rle = ends_well("outlines and RLE", lambda: to_rle(outline, (40, 50), "file.json: annotation 1"))
    if rle is not None:
        check_rle(rle, (40, 50))


@given(counts=st.text(alphabet=[chr(c) for c in range(40, 116)], max_size=40))
@fuzz
def test_compressed_rle(counts):
    rle = ends_well("compressed RLE", lambda: to_rle({"size": [40, 50], "counts": counts}, (40, 50), "file.json: annotation 1"))
    if rle is not None:
        check_rle(rle, (40, 50))


QUESTION = Question("Is it right?", ())
COMPLETION = {
    "id": "1", "object": "chat.completion", "created": 0, "model": "m", "usage": {"prompt_tokens": 100, "completion_tokens": 1},
    "choices": [{
        "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes", "refusal": None, "reasoning": None},
        "logprobs": {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": [
            {"token": "yes", "logprob": -0.1}, {"token": " No", "logprob": -2.5}, {"token": "The", "logprob": -5.0}]}]},
    }],
}  # fmt: skip


@pytest.fixture(scope="module")
def server_judge() -> OpenAIBackend:
    judge = VlmJudge(kind="vlm", backend="openai", model="m", server={"base_urls": ["http://127.0.0.1:9/v1"], "fingerprint": "one"})
    return OpenAIBackend(judge)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("answers"))


@given(content=st.one_of(changed(COMPLETION, most=4), values))
@fuzz
def test_answers_of_servers(server_judge, store, content):
    answer = ends_well("answers of servers", lambda: server_judge.answer(content, QUESTION), (ValueError,))
    if answer is not None:  # what is taken can be kept, and is found again as it was
        key = str(TRIED["answers of servers"])
        store.put(key, answer)
        found = store.get(key)
        assert found is not None
        assert (found.text, found.log_odds, found.option_mass, found.prompt_tokens) == (
            answer.text, answer.log_odds, answer.option_mass, answer.prompt_tokens,
        )  # fmt: skip


@given(row=st.one_of(values.map(json.dumps), st.text(max_size=40), spoiled({"text": "yes", "log_odds": 1.5, "samples": []}).map(repr)))
@fuzz
def test_rows_of_the_store(store, row):
    """A damaged row is no answer, and is asked again."""
    store._run("INSERT OR REPLACE INTO answers VALUES (?, ?)", "damaged", row)
    assert ends_well("rows of the answer store", lambda: store.get("damaged")) is None or "text" in row


words = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["yes", "No", " yes", "**Yes**", "<think>", "</think>", "Answer: ", "\n", "or no", "not", "\ud800"]),
)


@given(parts=st.lists(words, max_size=6), line=st.sampled_from(["first", "last"]))
@fuzz
def test_texts_of_answers(parts, line):
    text = "".join(parts)
    said = ends_well("texts of answers", lambda: read(text, line=line))
    assert said.outcome in ("approve", "reject", "unparsed")
    if said.outcome == "approve":
        assert "yes" in text.lower()
    if said.outcome == "reject":
        assert "no" in text.lower()


VERDICT = {"image_id": 1, "proposals": 2, "asked": True, "actor": "model", "approve": True, "log_odds": 1.5, "accepted": [True, False]}


@given(lines=st.lists(spoiled(VERDICT), max_size=3))
@fuzz
def test_verdicts(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "verdicts.jsonl"
    path.write_bytes(b"\n".join(lines))
    rows = ends_well("verdicts", lambda: read_jsonl(path))
    assert rows is None or all(isinstance(row, dict) for row in rows)


@given(content=st.one_of(spoiled({"threshold": 1.5, "of": {"prompt": "Is it?"}}), st.binary(max_size=60)))
@fuzz
def test_json_files(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "file.json"
    path.write_bytes(content)
    ends_well("JSON files", lambda: read_json(path))


@given(
    content=st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda t: f"[mask]\n{t}\n[missing]\n{t}".encode("utf-8", "replace")))
)
@fuzz
def test_prompts(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "prompt.txt"
    path.write_bytes(content)

    def reader() -> str:
        text = read_text(path)
        return fill(text, ["bird"]) + fill(sections(text, str(path))["mask"], [])

    ends_well("prompts", reader)


SETTINGS = YAML(typ="safe").load((ROOT / "params.yaml").read_text())


@given(content=changed(SETTINGS))
@fuzz
def test_settings(tmp_path_factory, content):
    path: Path = tmp_path_factory.getbasetemp() / "params.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    ends_well("settings", lambda: load(path))


@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace"))))
@fuzz
def test_settings_that_are_no_settings(tmp_path_factory, content):
    path: Path = tmp_path_factory.getbasetemp() / "params.yaml"
    path.write_bytes(content)
    ends_well("settings from noise", lambda: load(path))
