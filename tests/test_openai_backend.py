"""The server back end over real sockets: vLLM's schema with faults, and `transformers serve` itself."""

from __future__ import annotations

import base64
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny_vlm
from vlm_server import VlmServer

from vlm_itl.base.errors import UserError
from vlm_itl.base.settings import VlmJudge
from vlm_itl.judging.vlm import Asker, Store
from vlm_itl.judging.vlm.openai_backend import OpenAIBackend
from vlm_itl.judging.vlm.questions import Question


def picture(seed: int = 0) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8))


QUESTIONS = [Question(f"question {k}", (picture(k), picture(k + 1))) for k in range(6)]


@pytest.fixture
def server():
    with VlmServer() as running:
        yield running


def clear_proxies(monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


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
    outcome, share, _ = decide(server, tmp_path, answer="text", samples=4)
    assert (outcome, share) == ("approve", 0.5)
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


def test_a_dead_server_ends_early():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    many = [Question(f"q {k}", ()) for k in range(200)]
    with pytest.raises(UserError, match=r"20 questions got no answer.*Connection"):
        ask(backend(url, retries=0), many)


def test_the_server_is_kept_busy_and_several_share_the_load(server):
    server.latency = 0.05
    with VlmServer(latency=0.05) as second:
        many = [Question(f"q {k}", ()) for k in range(80)]
        start = time.monotonic()
        assert len(ask(backend(server, second, concurrency=16), many)) == 80
        assert time.monotonic() - start < 80 * 0.05 / 3  # one after the other it would take 4 s
        assert 6 <= server.most <= 16
        assert abs(len(server.requests) - len(second.requests)) <= 2


def test_questions_are_made_as_they_are_needed(server):
    made = []

    def questions():
        for k in range(100):
            made.append(k)
            yield k, Question(f"q {k}", ())

    back = backend(server, concurrency=2)
    answers = back.ask(questions())
    next(answers)
    time.sleep(0.3)
    assert len(made) <= 10
    answers.close()


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
    from vlm_itl.judging.vlm.transformers_backend import TransformersBackend

    url, model = serving
    questions = [Question(f"zebra {k}", (picture(k),)) for k in range(3)]
    served = ask(backend(url, model=model, answer="text", max_tokens=6, timeout=120, concurrency=2), questions)
    local = dict(TransformersBackend(VlmJudge(kind="vlm", model=model, answer="text", max_tokens=6)).ask(enumerate(questions)))
    assert {k: a.text for k, a in served.items()} == {k: a.text for k, a in local.items()}
    assert any(a.text for a in served.values())
    assert all(a.p_approve is None for a in served.values())  # it ignores the wish for logprobs
