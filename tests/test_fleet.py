"""Several servers over real sockets: which is asked, what becomes of a dead one, which model they serve, and what a failure says."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
import time

import pytest
from conftest import clear_proxies
from test_openai_backend import QUESTIONS, ask, backend
from vlm_server import VlmServer

from vlm_itl.core.errors import UserError
from vlm_itl.judges.vlm.judging import Asker, Store
from vlm_itl.judges.vlm.openai_backend import OpenAIBackend
from vlm_itl.judges.vlm.questions import Question


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    clear_proxies(monkeypatch)


@pytest.fixture
def server():
    with VlmServer() as running:
        yield running


def many(number: int) -> list[Question]:
    return [Question(f"q {k}", ()) for k in range(number)]


def texts(server: VlmServer) -> list[str]:
    return [r["messages"][0]["content"][-1]["text"] for r in server.requests]


def dead() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def asker(back: OpenAIBackend, folder) -> Asker:
    return Asker(back.settings, back, Store(folder))


def test_a_server_that_dies_loses_nothing_and_comes_back(tmp_path, capfd):
    """One of three dies with questions in flight, the others take them, and when it is back it gets its share again."""
    with VlmServer(0.02) as first, VlmServer(0.02) as second, VlmServer(0.02) as third:
        before = []

        def dies(_request):
            if not before and len(third.requests) >= 10:
                before.extend(third.requests)
                threading.Thread(target=third.stop).start()
            return 0.8

        def returns(_request):
            with first._lock:
                again = bool(before) and third.url not in back_up and len(first.requests) + len(second.requests) > 120
                if again:
                    back_up.append(third.url)
            if again:
                third.restart()
            return 0.8

        back_up: list[str] = []
        third.p_of, first.p_of = dies, returns
        back = backend(first, second, third, concurrency=12, retries=0)
        judge = asker(back, tmp_path)
        answers = judge.ask(many(600), 600, "x")
        assert len(answers) == 600
        assert all(a.p_approve == pytest.approx(0.8) for a in answers)
        asked = texts(first) + texts(second) + texts(third)
        assert set(asked) == {f"q {k}" for k in range(600)}
        assert len(asked) <= 600 + 12  # again only what was in flight at the dead one
        assert abs(len(first.requests) - len(second.requests)) <= 30
        assert len(third.requests) > len(before) + 30
        assert judge.counts["machines"] == 3
        said = "".join(capfd.readouterr())
    assert f"{third.url} is left out: " in said
    assert f"{third.url} is back" in said


def test_a_dead_server_among_others_does_not_stop_them(server, capfd):
    url = dead()
    answers = ask(backend(url, server, retries=0), many(50))
    assert len(answers) == 50
    assert len(server.requests) == 50
    assert {a.machine for a in answers.values()} == {server.url}
    assert f"{url} is left out: connection refused" in "".join(capfd.readouterr())


def test_the_run_ends_when_all_are_gone():
    urls = [dead(), dead()]
    with pytest.raises(UserError, match=rf"no server can be reached: {urls[0]}: connection refused.*; {urls[1]}: connection refused"):
        ask(backend(*urls, retries=1), many(200))


def test_when_all_die_in_mid_run_what_came_is_kept(tmp_path):
    with VlmServer(0.01) as first, VlmServer(0.01) as second:
        dying = threading.Lock()

        def dies(_request):
            if len(first.requests) > 20 and dying.acquire(blocking=False):
                threading.Thread(target=lambda: (first.stop(), second.stop())).start()
            return 0.8

        first.p_of = dies
        back = backend(first, second, retries=1)
        with pytest.raises(UserError, match=r"no server answers any more: http.*; http.*questions got no answer.*run it again"):
            asker(back, tmp_path).ask(many(500), 500, "x")
        asked = len(first.requests) + len(second.requests)
        first.restart()
        second.restart()
        again = backend(first, second)
        assert len(asker(again, tmp_path).ask(many(500), 500, "x")) == 500
        assert len(first.requests) + len(second.requests) <= 500 + 4 + 4  # again only what was in flight
        assert asked >= 20


@pytest.mark.parametrize("fault", [401, 400, 500, "no JSON"])
def test_a_server_that_fails_everything_does_not_take_the_others_questions(server, fault):
    """It is the least busy one, since it is the quickest."""
    with VlmServer() as broken:
        broken.always = fault
        server.latency = 0.01
        assert len(ask(backend(broken, server, retries=0, concurrency=8), many(200))) == 200
        assert len(broken.requests) < 150  # as the quickest it would be asked nearly everything
        assert len(server.requests) == 200


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(server):
    with VlmServer() as busy:
        busy.faults = [(429, "600")]  # longer than the test may take
        assert len(ask(backend(busy, server, concurrency=2), many(30))) == 30
        assert len(busy.requests) == 1
        assert len(server.requests) == 30


def test_the_least_busy_is_asked():
    """One answers nothing before the other has answered most."""
    with VlmServer() as quick, VlmServer() as slow:
        slow.gate.clear()

        def opens(_request):
            if len(quick.requests) >= 100:
                slow.gate.set()
            return 0.8

        quick.p_of = opens
        assert len(ask(backend(quick, slow, concurrency=8), many(120))) == 120
        assert len(quick.requests) >= 100
        assert len(slow.requests) <= 20


# which model


def keys(server, folder, **more) -> list:
    store = Store(folder)
    back = backend(server, store=store, **more)
    return Asker(back.settings, back, store).ask(QUESTIONS, 6, "x")


def test_another_model_under_the_same_name_is_asked_anew(server, tmp_path):
    """The address is no part of the key, what the server says of itself is."""
    keys(server, tmp_path)
    with VlmServer() as other:
        keys(other, tmp_path)
        assert not other.requests  # an equal server: the same model
        other.models = [{**server.models[0], "root": "m-awq-4bit"}]
        other.p_yes = 0.1
        assert keys(other, tmp_path)[0].p_approve == pytest.approx(0.1)
        assert len(other.requests) == 6
        assert keys(server, tmp_path)[0].p_approve == pytest.approx(0.8)
    assert len(server.requests) == 6


def test_the_identity_says_which_model_was_served(server):
    assert backend(server).identity["server"] == {"id": "m", "max_model_len": 4096, "owned_by": "vllm", "root": "m"}
    assert backend(server).identity == backend(server).identity  # `created` and `permission` differ each time
    server.models = [{"id": "x", "meta": {"n_params": 8, "size": 5}}]  # llama.cpp, which serves its one model under any name
    assert backend(server).identity["server"] == {"id": "x", "meta": {"n_params": 8, "size": 5}}


@pytest.mark.parametrize("models", [404, 401, 500, "<html>", "[]", "null", '{"data": 3}', "[" * 100_000, [], [{"id": "x"}, {"id": "y"}]])
def test_a_server_that_does_not_say_is_asked_all_the_same(server, models):
    server.models = models
    back = backend(server)
    assert len(ask(back)) == 6
    assert back.identity["server"] is None


def test_servers_of_different_models_are_refused(server):
    with VlmServer() as other:
        other.models = [{"id": "m", "root": "m-fp8"}]
        with pytest.raises(UserError, match=rf"{server.url} and {other.url} serve different models: max_model_len is 4096 against None.*"
                           r"server\.fingerprint"):  # fmt: skip
            ask(backend(server, other))
        assert not server.requests
        assert not other.requests
        # the user knows better
        back = backend(server, other, fingerprint="one folder, two mounts")
        assert len(ask(back)) == 6
        assert back.identity["server"] == {"fingerprint": "one folder, two mounts"}
        assert backend(server, fingerprint="fp8").identity != backend(server, fingerprint="bf16").identity


def test_a_server_that_comes_back_with_another_model_stays_out(tmp_path, capfd):
    """The other server does not answer before that is said, so that there are questions left to ask it."""
    with VlmServer(0.02) as first, VlmServer(0.02) as second:
        dying = threading.Lock()
        said: list[str] = []

        def heard(words: str) -> bool:
            end = time.monotonic() + 50
            while words not in "".join(said) and time.monotonic() < end:
                said.extend(capfd.readouterr())
                time.sleep(0.01)
            return words in "".join(said)

        def die_and_return() -> None:
            second.stop()
            heard(f"{second.url} is left out")
            second.restart()
            heard(f"{second.url} stays out: it serves another model now")
            first.gate.set()

        other = threading.Thread(target=die_and_return)

        def dies(_request):
            if len(second.requests) >= 5 and dying.acquire(blocking=False):
                second.models = [{"id": "m", "root": "m-awq"}]
                first.gate.clear()
                other.start()
            return 0.8

        second.p_of = dies
        assert len(ask(backend(first, second, timeout=60), many(200))) == 200
        other.join()
        assert len(second.requests) <= 5 + 4
        assert heard(f"{second.url} stays out: it serves another model now")


def test_stored_answers_need_no_server(server, tmp_path):
    first = keys(server, tmp_path)
    server.stop()
    assert keys(server, tmp_path, retries=0) == first
    with pytest.raises(UserError, match="no server can be reached"):
        keys(server, tmp_path / "another store", retries=0)
    # and a question that it does not hold has no answer
    back = backend(server, retries=0, store=Store(tmp_path))
    with pytest.raises(UserError, match=r"no server answers any more.*connection refused"):
        asker(back, tmp_path).ask(many(1), 1, "x")


# what a failure says


def failure(url: str, **more) -> str:
    with pytest.raises(UserError) as error:
        ask(backend(url, **{"retries": 0, **more}), many(1))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj",
               "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def secure(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with VlmServer(tls=context) as running:
        yield running


def test_a_certificate_that_is_not_trusted(secure, certificate, monkeypatch):
    assert "certificate is not trusted: self-signed certificate; name a file" in failure(secure.url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    assert len(ask(backend(secure))) == 6
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "none.pem"))
    assert "SSL_CERT_FILE or SSL_CERT_DIR cannot be used: No such file" in failure(secure.url)


def test_https_and_http_taken_for_each_other(server, secure):
    assert "does not speak https; is its address http://" in failure(server.url.replace("http:", "https:"))
    assert "the connection was cut; does it speak https?" in failure(secure.url.replace("https:", "http:"))


def test_nothing_listens_and_no_such_host():
    assert "connection refused: nothing listens there; is the server running, and the port right?" in failure(dead())
    assert "no such host is known" in failure("http://no-such-host.invalid/v1")


def test_a_dead_proxy_is_named_without_its_password(monkeypatch):
    proxy = dead().removesuffix("/v1").replace("://", "://me:geheim77@")
    monkeypatch.setenv("http_proxy", proxy)
    said = failure("http://judge.example:8000/v1")
    assert "is the proxy running" in said
    assert "http://***@127.0.0.1" in said
    assert "geheim77" not in said


@pytest.mark.parametrize("proxy", ["h:1:2", "foo://x", "://", "http://[::", "socks5://h:1"])
def test_a_malformed_proxy_is_one_line(monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    assert "http_proxy, https_proxy or all_proxy cannot be used" in failure("http://judge.example:8000/v1")


@pytest.mark.parametrize("url", ["http://h:99999/v1", "http://h:x/v1", "http://[::1/v1", "http:///v1", "http://h:0/v1"])
def test_a_malformed_address_is_refused_by_the_settings(url):
    with pytest.raises(ValueError, match="base_urls"):
        backend(url)


@pytest.mark.parametrize("url", ["http://h\n:9/v1", f"http://{'a' * 70}.é/v1", "http://h\0/v1"])
def test_an_address_that_no_request_can_have_is_one_line(url):
    assert "server.base_urls: http://" in failure(url)
    assert "is no address" in failure(url)


def test_silence_and_a_redirect(server):
    server.models, server.always = 404, "silent"
    assert "no whole answer within 0.3 s (server.timeout)" in failure(server.url, timeout=0.3)
    with VlmServer() as elsewhere:
        elsewhere.always = 307
        assert "HTTP 307: it sends elsewhere" in failure(elsewhere.url)


@pytest.mark.parametrize("fault", ["trickle", "endless", "gzip"])
def test_no_body_is_endless_in_time_or_memory(server, fault):
    server.always = fault
    said = failure(server.url, timeout=1.0)  # the test's own time limit is the proof that it ends
    words = {"trickle": "no whole answer within 1 s", "endless": "its answer has more than 1,1", "gzip": "it compresses its answer"}
    assert words[fault] in said


def test_a_server_s_words_are_shown_without_what_a_terminal_obeys(server):
    server.always = (400, {"error": {"message": "no\x1b]0;owned\x07 \x1b[2J room\u202e \u2028here"}})
    said = failure(server.url)
    assert re.search(r"HTTP 400: no\\x1b\]0;owned\\x07 \\x1b\[2J room\\u202e here", said)
    assert said.isprintable()
