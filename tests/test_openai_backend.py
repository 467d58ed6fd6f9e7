"""The server back end over real sockets: vLLM's schema with faults, and `transformers serve` itself."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny_vlm
from conftest import clear_proxies
from vlm_server import VlmServer

from vlm_itl.core.errors import UserError
from vlm_itl.judges.vlm.judging import Asker, Store
from vlm_itl.judges.vlm.openai_backend import OpenAIBackend, first_position
from vlm_itl.judges.vlm.questions import Question
from vlm_itl.settings import VlmJudge


def picture(seed: int = 0) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8))


QUESTIONS = [Question(f"question {k}", (picture(k), picture(k + 1))) for k in range(6)]


@pytest.fixture
def server():
    with VlmServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    clear_proxies(monkeypatch)


def backend(*servers, **more) -> OpenAIBackend:
    names = ("concurrency", "retries", "timeout", "api_key_env", "logprobs", "structured", "fingerprint")
    own = {k: more.pop(k) for k in names if k in more}
    urls = [s if isinstance(s, str) else s.url for s in servers]
    server = {"base_urls": urls, "retries": 2, "timeout": 2, "concurrency": 4, **own}
    store = more.pop("store", None)
    return OpenAIBackend(VlmJudge(**{"kind": "vlm", "backend": "openai", "model": "m", "server": server, **more}), store)


def ask(back: OpenAIBackend, questions=QUESTIONS):
    return dict(back.ask(enumerate(questions)))


def test_what_is_sent(server):
    ask(backend(server), QUESTIONS[:1])
    [request] = server.requests
    [message] = request["messages"]
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["image_url", "image_url", "text"]
    assert message["content"][2]["text"] == "question 0"
    sent = base64.b64decode(message["content"][0]["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(PIL.Image.open(BytesIO(sent))), np.asarray(QUESTIONS[0].pictures[0]))
    assert (request["temperature"], request["logprobs"], request["top_logprobs"]) == (0, True, 20)
    assert request["max_tokens"] <= 8
    assert "structured_outputs" not in request


@pytest.mark.parametrize("p", [0.03, 0.8])
def test_probability_sums_all_spellings(server, p):
    server.p_yes = p
    for answer in ask(backend(server)).values():
        assert answer.p_approve == pytest.approx(p)
        assert answer.option_mass == pytest.approx(0.9)
        assert (answer.prompt_tokens, answer.completion_tokens) == (100, 1)


def test_structured_choice_reaches_the_server(server):
    server.text = "I would rather talk about the weather"
    back = backend(server, structured=True)
    assert {a.text for a in ask(back).values()} == {"yes"}
    assert server.requests[0]["structured_outputs"] == {"choice": ["yes", "no"]}


def decide(server, tmp_path, **more):
    back = backend(server, **more)
    asker = Asker(back.settings, back, Store(tmp_path))
    [answer] = asker.ask(QUESTIONS[:1], 1, "x")
    return asker.decide(answer)


def test_without_logprobs_the_text_decides(server, tmp_path):
    server.logprobs = False
    server.text = "**No** - spill-over"
    assert decide(server, tmp_path) == ("reject", None, "spill-over")


@pytest.mark.parametrize("text", ["", "The masks look fine, yes.", "word " * 5000, "<script>yes</script>"])
def test_a_text_that_is_no_answer_is_unparsed(server, tmp_path, text):
    server.text = text
    assert decide(server, tmp_path, answer="text")[0] == "unparsed"


def test_refusal_is_unparsed(server, tmp_path):
    body = server.completion({"model": "m"})
    body["choices"][0]["message"].update(content=None, refusal="Yes, I refuse.")
    server.faults = [body]
    assert decide(server, tmp_path, answer="text")[0] == "unparsed"


def test_samples_vote(server, tmp_path):
    body = server.completion({"model": "m", "n": 4})
    for choice, text in zip(body["choices"], ["yes", "no", "well", "Yes!"]):
        choice["message"]["content"] = text
    server.faults = [body]
    outcome, log_odds, _ = decide(server, tmp_path, answer="text", samples=4)
    assert (outcome, log_odds) == ("approve", 0)  # a share of one half
    assert (server.requests[0]["n"], server.requests[0]["temperature"]) == (4, 0.7)


PASSING = {
    "500 twice": [500, 500], "429 with Retry-After": [(429, "1")], "503": [503], "connection cut in mid-body": ["cut"],
    "malformed JSON": ['{"choices": ['], "a page instead": ["<html>hello</html>"], "no choices": [{"id": "x", "choices": []}],
    "choices missing": [{"id": "x", "object": "chat.completion"}], "a list": [[]], "null": ["null"],
    "no message": [{"id": "x", "object": "chat.completion", "model": "m", "choices": [{"index": 0, "finish_reason": "stop"}]}],
}  # fmt: skip


@pytest.mark.parametrize("case", PASSING)
def test_faults_that_pass(server, case):
    server.faults = list(PASSING[case])
    start = time.monotonic()
    answers = ask(backend(server, concurrency=1))
    assert sorted(answers) == list(range(6))
    assert all(a.p_approve == pytest.approx(0.8) for a in answers.values())
    assert len(server.requests) == 6 + len(PASSING[case])
    if case == "429 with Retry-After":
        assert time.monotonic() - start >= 0.9


def test_a_silent_server_times_out_and_is_asked_again(server):
    server.faults = ["silent"]
    assert len(ask(backend(server, timeout=0.5))) == 6


LASTING = {"401": 401, "400": 400, "500": 500, "malformed": "{", "empty choices": {"id": "x", "choices": []}}


@pytest.mark.parametrize("case", LASTING)
def test_a_question_without_answer_does_not_stop_the_others(server, tmp_path, case):
    """What came is kept: a second run asks only what is missing."""
    server.faults = [LASTING[case]] * 3  # the first question's three tries
    if isinstance(LASTING[case], int) and LASTING[case] < 500:
        server.faults = [LASTING[case]]
    back = backend(server, concurrency=1)
    asker = Asker(back.settings, back, Store(tmp_path))
    with pytest.raises(UserError, match=rf"1 questions got no answer, the last: {re.escape(server.url)}.*run it again") as error:
        asker.ask(QUESTIONS, 6, "x")
    assert "\n" not in str(error.value)
    server.requests.clear()
    assert len(Asker(back.settings, back, Store(tmp_path)).ask(QUESTIONS, 6, "x")) == 6
    assert len(server.requests) == 1


def test_the_server_is_kept_busy_and_several_share_the_load(server):
    """Nobody answers before all that may be in flight is: no speed matters."""
    with VlmServer() as second, ThreadPoolExecutor(1) as pool:
        both = (server, second)
        for s in both:
            s.gate.clear()
        many = [Question(f"q {k}", ()) for k in range(80)]
        answers = pool.submit(ask, backend(*both, concurrency=16), many)
        deadline = time.monotonic() + 60
        while sum(s.in_flight for s in both) < 16 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [s.in_flight for s in both] == [8, 8]
        for s in both:
            s.gate.set()
        assert len(answers.result()) == 80
        assert len(server.requests) + len(second.requests) == 80
        assert max(s.most for s in both) <= 16


def test_questions_are_made_as_they_are_needed(server):
    made = []

    def questions():
        for k in range(100):
            made.append(k)
            yield k, Question(f"q {k}", ())

    back = backend(server, concurrency=2)
    for answered, _ in enumerate(back.ask(questions()), 1):
        assert len(made) <= answered + 10
    assert answered == len(made) == 100


def test_the_key_reaches_the_server_and_nothing_else(server, tmp_path, monkeypatch, capfd):
    secret = "sk-" + "Zq7" * 12
    monkeypatch.setenv("MY_KEY", f"{secret}\n")
    back = backend(server, api_key_env="MY_KEY", concurrency=1)
    # a server that repeats the key in its error, across the place where long errors are cut
    server.faults = [(400, {"error": {"message": "x" * 240 + secret}})]
    with pytest.raises(UserError) as error:
        Asker(back.settings, back, Store(tmp_path)).ask(QUESTIONS, 6, "x")
    assert server.headers[0]["Authorization"] == f"Bearer {secret}"
    written = str(error.value) + "".join(capfd.readouterr()) + str(back.identity) + str(back.settings)
    written += "".join(p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file())
    assert secret[:12] not in written
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(UserError, match="the environment has no MY_KEY"):
        backend(server, api_key_env="MY_KEY")


def test_a_key_repeated_in_an_answer_is_not_kept(server, tmp_path, monkeypatch, capfd):
    secret = "my  secret/key 77"
    monkeypatch.setenv("MY_KEY", secret)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-mine")
    forms = [secret, "my secret/key 77", "my%20%20secret%2Fkey%2077", base64.b64encode(secret.encode()).decode()]
    coded = base64.b64encode(b"me:geheim").decode()
    server.text = f"no, with {' and '.join(forms)} and Basic {coded} and http://me:geheim@host/x?api_key=abc123&n=1, basic understanding"
    back = backend(server, api_key_env="MY_KEY", answer="text", fingerprint="x")
    [answer] = Asker(back.settings, back, Store(tmp_path)).ask(QUESTIONS[:1], 1, "x")
    assert answer.text == "no, with *** and *** and *** and *** and Basic *** and http://***@host/x?api_key=***&n=1, basic understanding"
    server.always = (400, {"error": {"message": f"key {forms[1]} is wrong, said Basic {coded}"}})
    with pytest.raises(UserError, match=r"HTTP 400: key \*\*\* is wrong, said Basic \*\*\*"):
        ask(back, [Question("another", ())])
    assert server.headers[0]["Authorization"] == f"Bearer {secret}"
    assert not [name for name in server.headers[0] if name.lower().startswith("openai")]
    kept = "".join(p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file()) + "".join(capfd.readouterr())
    assert not [form for form in (*forms, coded, "geheim", "abc123") if form in kept]


def test_a_key_that_no_header_can_carry(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-schl\u00fcssel-77")
    with pytest.raises(UserError, match="MY_KEY of the environment has characters that no header can carry") as error:
        backend(server, api_key_env="MY_KEY")
    assert "sk-" not in str(error.value)


def listed(*top: tuple[str, object]) -> list[dict]:
    return [{"token": t, "logprob": math.log(p) if isinstance(p, float) else p} for t, p in top]


def test_tokens_of_one_text_are_added():
    top = [("Yes", math.log(0.55)), ("No", math.log(0.40)), ("Yes", math.log(0.01))]
    for order in (top, top[::-1]):
        log_odds, mass = first_position(order, QUESTIONS[0])
        assert log_odds == pytest.approx(math.log(0.56 / 0.40))  # P = .583
        assert mass == pytest.approx(0.96)


@pytest.mark.parametrize(("approve", "reject", "top", "odds"), [
    (["accept"], ["decline"], [("A", 0.6), ("accept", 0.05), ("decline", 0.2)], 0.05 / 0.2),
    (["accept"], ["decline"], [("A", 0.6), ("decline", 0.2)], None),  # "A" may be of "Accept", and of "A bird"
    (["correct"], ["incorrect"], [("correct", 0.55), ("in", 0.4)], None),
    (["correct"], ["incorrect"], [("correct", 0.55), ("In", 0.4)], None),  # "In the image ..."
    (["correct"], ["incorrect", "wrong"], [("correct", 0.5), ("in", 0.3), ("wrong", 0.1)], 0.5 / 0.1),
    (["YES"], ["NO"], [("\u0120yes", 0.5), ("no\n", 0.25), (" No", 0.125)], 0.5 / 0.375),
    (["yes"], ["no"], [("The", 0.7), ("It", 0.2)], None),
    # an option that is not listed: at most as likely as the least likely token, and as all that is not listed
    (["yes"], ["no"], [("yes", 0.9), ("The", 0.04), ("It", 0.02)], 0.9 / 0.02),
    (["yes"], ["no"], [("yes", 0.9), ("The", 0.08), ("It", 0.015)], 0.9 / 0.005),
    (["yes"], ["no"], [("It", 0.1), ("no", 0.9)], 1e-9 / 0.9),
])  # fmt: skip
def test_whole_spellings_count_and_nothing_else(approve, reject, top, odds):
    question = Question("q", (), tuple(approve), tuple(reject))
    log_odds, mass = first_position([(t, math.log(p)) for t, p in top], question)
    if odds is None:
        assert (log_odds, mass) == (None, None)
    else:
        assert log_odds == pytest.approx(math.log(odds))
        assert mass == pytest.approx(sum(p for t, p in top if t.strip(" \n\u0120").lower() in [*map(str.lower, approve + reject)]))


OTHER_FORMS = {
    "null": None, "empty": {}, "no content": {"content": None}, "empty content": {"content": []}, "none at the first": {"content": [{}]},
    "null top": {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": None}]},
    "empty top": {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": []}]},
    "the older form": {"tokens": ["yes"], "token_logprobs": [-0.1], "top_logprobs": [{"yes": -0.1}]},
    "a dict": {"content": [{"top_logprobs": {"yes": -0.1}}]}, "a list": [{"token": "yes", "logprob": -0.1}],
    "pairs": {"content": [{"top_logprobs": [["yes", -0.1]]}]},
    "a null logprob": {"content": [{"top_logprobs": listed(("yes", 0.3), ("no", None))}]},
    "a text logprob": {"content": [{"top_logprobs": listed(("yes", 0.3), ("no", "-1"))}]},
    "a null token": {"content": [{"top_logprobs": listed((None, 0.3))}]},
    "text": "yes",
}  # fmt: skip


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_without_usable_logprobs_the_text_decides(server, tmp_path, form):
    server.text = "No, a bird is missing"
    server.change = lambda body: body["choices"][0].update(logprobs=OTHER_FORMS[form])
    assert decide(server, tmp_path) == ("reject", None, "a bird is missing")


def test_logprobs_of_nothing_are_left_out(server, tmp_path):
    """-9999 is vLLM's, -Infinity Python's way to write it."""
    rows = [*listed(("yes", 0.9), ("The", 0.05)), {"token": "no", "logprob": -9999.0}, {"token": "No", "logprob": -math.inf}]
    server.change = lambda body: body["choices"][0].update(logprobs={"content": [{"top_logprobs": rows}]})
    [answer] = ask(backend(server), QUESTIONS[:1]).values()
    assert answer.log_odds == pytest.approx(math.log(0.9 / 0.05))


def test_a_thought_s_first_token_is_not_the_answer_s(server, tmp_path):
    for name in ("reasoning_content", "reasoning"):
        server.text = "No."
        server.change = lambda body, name=name: body["choices"][0]["message"].update({name: "Yes, there is a bird, but ..."})
        assert decide(server, tmp_path / name) == ("reject", None, "")


def said(**message):
    return lambda body: body["choices"][0]["message"].update(message)


CONTENT = {
    "parts": ([{"type": "text", "text": "No"}, {"type": "text", "text": ", a bird"}], "No, a bird"),
    "parts with a thought": ([{"type": "thinking", "thinking": [{"text": "Yes"}]}, {"type": "text", "text": "No"}], "No"),
    "texts": (["No", "!"], "No!"), "nothing": (None, ""), "no parts": ([], ""),
}  # fmt: skip


@pytest.mark.parametrize("form", CONTENT)
def test_forms_of_a_text(server, form):
    content, text = CONTENT[form]
    server.change = said(content=content)
    assert {a.text for a in ask(backend(server, answer="text")).values()} == {text}


def test_a_thought_that_took_all_tokens_is_an_answer_without_words(server, tmp_path):
    def change(body):
        body["choices"][0].update(finish_reason="length", logprobs=None)
        body["choices"][0]["message"].update(content=None, reasoning_content="Let me see ...")

    server.change = change
    assert decide(server, tmp_path) == ("unparsed", None, "")


def test_usage_with_nulls_is_none(server):
    for usage in ({"prompt_tokens": None, "completion_tokens": None}, None, {}):
        server.change = lambda body, usage=usage: body.update(usage=usage)
        assert {(a.prompt_tokens, a.completion_tokens) for a in ask(backend(server)).values()} == {(0, 0)}


def changed(**more):
    return lambda body: body["choices"][0].update(more)


def top(*rows):
    return changed(logprobs={"content": [{"top_logprobs": listed(*rows)}]})


BAD = {
    "an integer beyond all floats": changed(logprobs={"content": [{"top_logprobs": [{"token": "yes", "logprob": -(10**400)}]}]}),
    "a number": said(content=3), "an object": said(content={"text": "yes"}),
    "parts of numbers": said(content=[{"type": "text", "text": 1}]),
    "half a character": said(content="yes \ud800"), "no message": changed(message=None), "aborted": changed(finish_reason="abort"),
    "a logprob of 1e9": top(("yes", 10**9)), "above 0": top(("yes", 0.5), ("no", 1)), "NaN": top(("yes", math.nan)),
    "more than 1 in all": top(("yes", 0.9), ("no", 0.9)), "a negative count": lambda b: b["usage"].update(prompt_tokens=-1),
    "an absurd count": lambda b: b["usage"].update(completion_tokens=10**12),
    "a count of text": lambda b: b["usage"].update(prompt_tokens="1"),
    "usage is a list": lambda b: b.update(usage=[1]), "no choices": lambda b: b.update(choices=None),
    "choices of text": lambda b: b.update(choices=["yes"]),
}  # fmt: skip
BODIES = {
    "100,000 deep": '{"choices": ' + "[" * 100_000, "a huge number": '{"choices": ' + "1" * 100_000 + "}",
    "an error body": json.dumps({"error": {"message": "CUDA out of memory", "code": 500}}),
    "an error of vLLM": json.dumps({"object": "error", "message": "CUDA out of memory", "code": 40303}),
}  # fmt: skip


@pytest.mark.parametrize("case", [*BAD, *BODIES])
def test_what_is_no_answer_never_enters_the_store(server, tmp_path, case):
    """A second run, against a server that is well again, asks once more and is right."""
    server.change, server.always = BAD.get(case), BODIES.get(case)
    for answer in ("probability", "text"):
        back = backend(server, retries=0, answer=answer, store=Store(tmp_path))
        if answer == "probability" or "logprob" not in case:
            with pytest.raises(
                UserError, match=r"6 questions got no answer, the last: http.*(no answer that counts|error in place|no JSON)"
            ) as e:
                Asker(back.settings, back, Store(tmp_path)).ask(QUESTIONS, 6, "x")
            assert len(str(e.value)) < 700
            assert ("CUDA out of memory" in str(e.value)) == ("error" in case)
    server.change = server.always = None
    back = backend(server, retries=0, store=Store(tmp_path))
    assert all(a.p_approve == pytest.approx(0.8) for a in Asker(back.settings, back, Store(tmp_path)).ask(QUESTIONS, 6, "x"))


def test_samples_from_a_server_that_gives_one_at_a_time(server, tmp_path):
    """Four answers are four samples: it is asked once for each, and from then on so at once."""
    server.ignores_n, server.logprobs = True, False
    said = iter(["yes", "no", "yes", "yes"] + ["no"] * 4)
    server.change = lambda body: body["choices"][0]["message"].update(content=next(said))
    back = backend(server, answer="text", samples=4, concurrency=1, logprobs=False)
    asker = Asker(back.settings, back, Store(tmp_path))
    first, second = asker.ask(QUESTIONS[:2], 2, "x")
    assert sorted(first.samples) == ["no", "yes", "yes", "yes"]
    assert asker.decide(first)[:1] == ("approve",)
    assert second.samples == ["no"] * 4
    assert [r.get("n") for r in server.requests] == [4] + [None] * 7
    assert (first.prompt_tokens, first.completion_tokens) == (400, 4)


def test_more_samples_than_asked_for_are_left_out(server):
    server.change = lambda body: body.update(choices=body["choices"] * 2)
    assert {len(a.samples) for a in ask(backend(server, answer="text", samples=4)).values()} == {4}


def test_a_server_that_calls_the_most_tokens_otherwise(server):
    server.only = "max_completion_tokens"
    assert len(ask(backend(server, retries=0, concurrency=1))) == 6
    assert ["max_tokens" in r for r in server.requests] == [True] + [False] * 6  # and remembers
    assert {r.get("max_completion_tokens") for r in server.requests[1:]} == {8}
    server.only = "something_else"
    with pytest.raises(UserError, match="Use 'something_else' instead"):
        ask(backend(server, retries=0))


def test_seconds_are_wall_time_and_come_from_the_store_as_they_were(server, tmp_path):
    """Sixteen questions of 0.2 s each, eight at once: 0.4 s at least, and not their sum, which is more than the time that passed."""
    server.latency = 0.2
    many = [Question(f"q {k}", ()) for k in range(16)]
    took = []
    for _ in range(2):
        back = backend(server, concurrency=8, store=Store(tmp_path))
        asker = Asker(back.settings, back, Store(tmp_path))
        start = time.perf_counter()
        asker.ask(many, 16, "x")
        took.append((asker.counts, time.perf_counter() - start))
    (first, wall), (second, _) = took
    assert 0.4 <= first["seconds"] <= wall
    assert first["machines"] == 1
    assert second == first
    assert len(server.requests) == 16


def test_no_server_and_secrets_in_the_address_are_refused():
    with pytest.raises(UserError, match=r"server\.base_urls: a server is needed"):
        OpenAIBackend(VlmJudge(kind="vlm", backend="openai", model="m"))
    for url in ("http://me:secret@host/v1", "http://host/v1?key=x"):
        with pytest.raises(ValueError, match="base_urls"):
            backend(url)


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """`transformers serve` on a tiny model: (base URL, model name)."""
    folder = tiny_vlm.llava(tmp_path_factory.mktemp("serve") / "llava")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=stream, stderr=subprocess.STDOUT)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        process.kill()
        process.wait()


def test_judging_through_transformers_serve(serving):
    from vlm_itl.judges.vlm.transformers_backend import TransformersBackend

    url, model = serving
    questions = [Question(f"zebra {k}", (picture(k),)) for k in range(3)]
    served = ask(backend(url, model=model, answer="text", max_tokens=6, timeout=120, concurrency=2), questions)
    local = dict(TransformersBackend(VlmJudge(kind="vlm", model=model, answer="text", max_tokens=6)).ask(enumerate(questions)))
    assert {k: a.text for k, a in served.items()} == {k: a.text for k, a in local.items()}
    assert any(a.text for a in served.values())
    assert all(a.p_approve is None for a in served.values())  # it ignores the wish for logprobs
