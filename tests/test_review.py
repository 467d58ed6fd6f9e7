"""The program that asks people: its server over a real socket, and its page in a real browser, steered by key events."""

from __future__ import annotations

import json
import re
import shutil
import time
from urllib.parse import urlsplit

import PIL.Image
import pytest
from browser import Browser
from people import PAGE, A, B, C, Program

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json
from vlm_itl.judges.person.answers import Answer, Answers
from vlm_itl.review import command
from vlm_itl.review.server import MOST_BODY
from vlm_itl.settings import load

HOSTILE = "<script>document.title='owned'</script>\"><img src=x onerror=\"document.title='owned'\">\u202e{{ 7 * 7 }} &amp; 'a'"
READY = "current && current.start !== null && !unsaved && !document.getElementById('yes').disabled"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A program that runs, for tests that change nothing."""
    with Program(tmp_path_factory.mktemp("review"), {1: [A], 2: [A, B], 3: [C], 4: []}) as program:
        yield program


# ---- the server


def test_a_round_over_http(tmp_path):
    with Program(tmp_path, {1: [A], 2: [A, B], 3: []}) as program:
        assert "2 of 2 images are open; answers go to judges/person/answers.jsonl" in program.said
        status, state = program.post("/api/start")
        assert (status, state["done"], state["total"], state["reviewer"]) == (200, 0, 2, "ana")
        item = state["item"]
        status, headers, picture = program.ask("GET", f"/api/picture/{item['item']}/0")
        assert (status, headers["content-type"]) == (200, "image/png")
        assert picture[1:4] == b"PNG"
        assert program.ask("GET", f"/api/picture/{item['item']}/1")[0] == 404
        status, ahead = program.post("/api/ahead", item=item["item"])
        status, state = program.decide(item["item"], decision="no", reason="boundary")
        assert [one["item"] for one in ahead["items"]] == [state["item"]["item"]]
        assert (state["done"], state["total"]) == (1, 2)
        assert program.decide(item["item"], decision="no", reason="boundary")[1] == state  # the same again
        status, state = program.post("/api/undo", id="a" * 32)
        assert (state["undone"], state["item"]["item"]) == (True, item["item"])
        status, state = program.decide(item["item"], 2)
        status, state = program.decide(state["item"]["item"], 3, decision="skip")
        assert (state["item"], state["skipped"]) == (None, 1)
        assert program.stop().splitlines() == [
            "ana: 3 decisions, with skips and what was taken back",
            "1 of 2 images are still open: make review RUN=person-1",
        ]
    rows = [json.loads(line) for line in program.file.read_text().splitlines()]
    assert [row.get("decision", "undo") for row in rows] == ["no", "undo", "yes", "skip"]
    assert {row["page"] for row in rows if "page" in row} == {rows[0]["page"]}
    assert len(Answers(program.file).standing) == 2


def test_when_all_is_answered_it_says_what_comes_next(tmp_path):
    with Program(tmp_path, {1: [A]}) as program:
        program.decide(program.post("/api/start")[1]["item"]["item"])
        assert program.stop().splitlines() == [
            "ana: 1 decisions, with skips and what was taken back",
            "all 1 images are answered; next: dvc repro",
        ]


def test_only_who_has_the_address_gets_in(running):
    for token in (None, "", "x", running.token[:-1], running.token + "x", "\u00e9"):
        for method, path, content in (("POST", "/api/start", {"page": PAGE}), ("GET", "/api/picture/" + "a" * 64 + "/0", None)):
            status, _, body = running.ask(method, path, content, token=token or None)
            assert status == 403, token
            assert json.loads(body)["error"].count("\n") == 0
    for path in ("/", "/x/", "/x/page.js", "//", f"/{running.token[:-1]}/", f"/?token={running.token}"):
        assert running.ask("GET", path)[0] == 403, path
    assert running.ask("GET", f"/{running.token}/")[0] == 200


def test_other_hosts_and_origins_are_refused(running):
    netloc = urlsplit(running.address).netloc
    start = ("POST", "/api/start", {"page": PAGE})
    for host in ("evil.example", f"evil.example:{netloc.rpartition(':')[2]}", "127.0.0.1.evil.example", "", "[", "0.0.0.0"):
        assert running.ask(*start, Host=host)[0] in (400, 403), host
        assert running.ask("GET", f"/{running.token}/", Host=host)[0] in (400, 403), host
    for origin in (None, "null", "http://evil.example", "http://127.0.0.1:1", f"https://{netloc}"):
        assert running.ask(*start, Origin=origin)[0] == 403, origin
    assert running.ask(*start, Sec_Fetch_Site="cross-site")[0] == 403
    assert running.ask(*start)[0] == 200
    assert running.ask(*start, Host="localhost:99", Origin="http://localhost:99")[0] == 200  # through a tunnel


@pytest.mark.parametrize(
    "path",
    ["../params.yaml", "..%2fparams.yaml", "%2e%2e/params.yaml", "page.js/../../params.yaml", "index.html", "", "x", "page.css%00",
     "/etc/passwd", "%2fetc%2fpasswd", "..\\params.yaml"],
)  # fmt: skip
def test_no_path_comes_from_outside(running, path):
    status, _, body = running.ask("GET", f"/{running.token}/{path}")
    assert (status == 200) is (path == "")
    assert b"judges" not in body
    for key in ("../../params.yaml", "..%2f..%2fparams.yaml", "1.png", "a" * 64, "%00"):
        status, _, body = running.ask("GET", f"/api/picture/{key}/0")
        assert status == 404
        assert json.loads(body)["error"]


def test_what_is_no_request_of_the_page_is_an_error_in_one_line(running):
    big = b'{"page": "' + b"1" * MOST_BODY + b'"}'
    cases = {
        b"": 400, b"{": 400, b"[]": 400, b"\xff\xfe": 400, b"[" * 4000: 400, b'{"page": 1}': 400, b'{"page": "x"}': 400, big: 413,
        b'{"page": "' + b"1" * 32 + b'", "more": 1}': 400,
    }  # fmt: skip
    for content, expected in cases.items():
        status, _, body = running.ask("POST", "/api/start", content)
        assert status == expected, content[:40]
        assert "\n" not in json.loads(body)["error"]
    good = {"id": "a" * 32, "item": "b" * 64, "decision": "yes", "seconds": 1.0, "hidden": 0.0, "ago": 0.0}
    wrong = [{"decision": "maybe"}, {"seconds": -1}, {"seconds": "1"}, {"hidden": 1e300}, {"reason": "else"}, {"id": "x"}]
    for bad in (*wrong, {"item": "../x"}, {"rendering": "x"}, {"reviewer": "ben"}):
        status, body = running.post("/api/answer", **{**good, **bad})
        assert status == 400, bad
    assert running.ask("POST", "/api/answer", json.dumps({"page": PAGE, **good}).replace("1.0", "NaN").encode())[0] == 400
    assert running.post("/api/answer", **good)[0] == 404  # nobody has got it
    assert running.post("/api/ahead", item="b" * 64) == (200, {"items": []})
    assert running.ask("POST", "/api/start", {"page": PAGE}, Content_Type="text/plain")[0] == 415
    assert running.ask("GET", f"/api/picture/{'b' * 64}/" + "9" * 5000)[0] == 404
    assert running.ask("GET", "/api/start")[0] in (404, 405)
    assert running.ask("DELETE", f"/{running.token}/")[0] in (403, 405)
    assert running.ask("POST", "/api/start", b"x", Content_Length="1000000000")[0] in (400, 413)
    assert not running.file.exists()


def test_every_answer_has_the_headers_that_keep_the_page_alone(running):
    for method, path in (("GET", f"/{running.token}/"), ("GET", f"/{running.token}/page.js"), ("GET", "/x"), ("GET", "/api/start")):
        headers = running.ask(method, path)[1]
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'"
        )
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
        assert "set-cookie" not in headers


def test_several_reviewers_each_have_an_address(tmp_path):
    program = Program(tmp_path, {k: [A] for k in range(1, 5)})
    with program.start("--reviewer", "ana", "--reviewer", "ben"):
        assert set(program.addresses) == {"ana", "ben"}
        tokens = [urlsplit(address).path.strip("/") for address in program.addresses.values()]
        states = [json.loads(program.ask("POST", "/api/start", {"page": str(k) * 32}, token=token)[2]) for k, token in enumerate(tokens, 1)]
        assert [state["reviewer"] for state in states] == ["ana", "ben"]
        assert states[0]["item"]["item"] != states[1]["item"]["item"]


def test_a_picture_that_has_changed_is_not_shown(tmp_path):
    with Program(tmp_path, {1: [A], 2: [A]}) as program:
        item = program.post("/api/start")[1]["item"]["item"]
        shutil.copy(tmp_path / "artifacts/data/images/2.png", tmp_path / "artifacts/data/images/1.png")
        status, _, body = program.ask("GET", f"/api/picture/{item}/0")
        assert status == 500
        assert "1.png: it is no longer the picture that was judged; `dvc repro`" in json.loads(body)["error"]
        assert program.decide(item)[0] == 500  # nobody can have seen it
        assert program.decide(item, decision="skip")[0] == 200
    assert [a.rendering for a in Answers(program.file).lines] == [""]


def test_one_id_is_one_decision(tmp_path):
    with Program(tmp_path, {1: [A], 2: [A]}) as program:
        item = program.post("/api/start")[1]["item"]["item"]
        status, body = program.decide(item, decision="yes", reason="class")
        assert (status, body["error"]) == (400, "reason: 'class' beside a decision that is no rejection")
        other = program.decide(item)[1]["item"]["item"]
        assert program.decide(item)[0] == 200  # sent again
        assert program.decide(other)[0] == program.decide(item, decision="no")[0] == 400
        assert program.post("/api/undo", id=f"{1:032x}")[1]["undone"] is False
    assert len(Answers(program.file).lines) == 1


def test_a_full_disk_reaches_the_page(tmp_path):
    with Program(tmp_path, {1: [A], 2: [A]}) as program:
        item = program.post("/api/start")[1]["item"]["item"]
        with program.full_disk():
            status, body = program.decide(item)
            assert (status, body["error"]) == (507, "not saved: judges/person/answers.jsonl: File too large")
        assert program.decide(item)[0] == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--run", "person-2"], "params.yaml: runs: no 'person-2'"),
        (["--run", "human-1"], "params.yaml: runs.human-1.judge: 'human' is no person but human"),
        (["--run", "person-1", "--judge", "person"], "--run says which judge"),
        (["--judge", "human"], "params.yaml: judges: no person 'human' (there are: person)"),
        (["--prev", "human-9"], "params.yaml: no start or run 'human-9'"),
        (["--prev", "human-1"], "loop/human-1/pool.json: no such file; `dvc repro` makes it"),
        (["--reviewer", "../x"], "--reviewer ../x: at most 64 letters, digits"),
        (["--reviewer", "a", "--reviewer", "a"], "--reviewer: a name stands twice"),
        (["--port", "99999"], "127.0.0.1:99999: "),
        (["--host", "no such host"], "no such host:8765: "),
    ],
)
def test_what_cannot_be_reviewed_is_said_in_one_line(tmp_path, monkeypatch, options, message):
    Program(tmp_path, {1: [A]})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=re.escape(f"error: {message}")) as error:
        command.main(options)
    assert "\n" not in str(error.value)


def test_nothing_to_decide(tmp_path, monkeypatch):
    Program(tmp_path, {1: []})
    monkeypatch.chdir(tmp_path)
    settings = load()
    with pytest.raises(UserError, match="no proposals on the images to review"):
        command.opened(command.work(settings, "person-1", None, None), settings, ["ana"])


def test_a_name_of_nobody_is_that_of_the_login(monkeypatch):
    for login, name in (("ana.b c", "anabc"), ("__x", "x"), ("\u00e9", "reviewer")):
        monkeypatch.setenv("LOGNAME", login)
        assert command.named([]) == [name]


# ---- the page


@pytest.fixture
def browser(browser):
    browser.open("about:blank")  # a page before may still ask its program, which has ended
    return browser


def item_of(browser: Browser) -> str:
    return browser.value("current && current.item.item")


def painted(browser: Browser, not_item: str | None = None) -> str:
    """Wait for a painted item, another one than this."""
    browser.wait(f"{READY} && current.item.item !== {json.dumps(not_item)}")
    return item_of(browser)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("width", [1280, 390])
def test_a_whole_round_by_keys(tmp_path, browser, width):
    """Masks, then what is missing, with an undo, a skip and a reason; what is shown and what is kept agree, and nothing is left to say."""
    with Program(tmp_path, {1: [A, B], 2: [C], 3: [A]}, unit="instance") as program:
        heard = browser.hear()
        browser.open(program.address, width)
        asked = []
        for key in ("y", "ArrowLeft", "u", "3", "n", "ArrowRight", "Y", "y", "s"):
            before = painted(browser, asked[-1][0] if asked else None)
            asked.append((before, browser.value("document.getElementById('question').textContent"), key))
            assert browser.value("document.documentElement.scrollWidth") <= width
            assert browser.value("document.getElementById('yes').getBoundingClientRect().bottom") <= 900
            if key == "3":  # of a mask alone nothing is missing: no such reason, so nothing happens
                browser.press(key)
                assert item_of(browser) == before
                asked[-1] = (None, "", key)
                continue
            browser.press(key)
        browser.wait("!document.getElementById('end').hidden")
        assert "You skipped 1" in browser.value("document.getElementById('end-text').textContent")
        assert asked[2][0] != asked[1][0]
        browser.press("u")  # of the skip
        painted(browser)
        browser.press("2")
        browser.wait("!document.getElementById('end').hidden")
        assert heard == []
        said = program.stop()
    assert "next: dvc repro" in said
    rows = [json.loads(line) for line in program.file.read_text().splitlines()]
    decided = [(row.get("unit"), row.get("decision", "undo"), row.get("reason")) for row in rows]
    assert decided == [
        ("mask", "yes", ""), ("mask", "no", ""), (None, "undo", None), ("mask", "no", ""), ("missing", "yes", ""),
        ("mask", "yes", ""), ("missing", "yes", ""), ("mask", "skip", ""), (None, "undo", None), ("mask", "no", "boundary"),
    ]  # fmt: skip
    assert all(0 <= row["seconds"] < 60 for row in rows if "seconds" in row)


@pytest.mark.timeout(120)
def test_what_is_painted_is_what_a_model_gets(tmp_path, browser):
    """Pixel by pixel, both halves."""
    with Program(tmp_path, {1: [A, B]}) as program:
        browser.open(program.address)
        item = painted(browser)
        png = program.ask("GET", f"/api/picture/{item}/0")[2]
        (tmp_path / "sent.png").write_bytes(png)
        sent = PIL.Image.open(tmp_path / "sent.png")
        assert sent.size == (108, 40)
        halves = [sent.crop((0, 0, 50, 40)), sent.crop((58, 0, 108, 40))]
        for k, half in enumerate(halves):
            data = browser.value(
                f"(() => {{const c = document.querySelectorAll('#stage canvas')[{k}];"
                "return JSON.stringify([c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])})()"
            )
            width, height, *values = json.loads(data)
            assert (width, height) == half.size
            assert bytes(values) == half.convert("RGBA").tobytes()


@pytest.mark.timeout(120)
def test_the_clock_stands_while_the_page_is_hidden(tmp_path, browser):
    """A tab is in front of it: while a picture is looked at, and when the next one would be painted."""
    with Program(tmp_path, {1: [A], 2: [B]}) as program:
        opened = time.monotonic()
        browser.open(program.address)
        first = painted(browser)
        begin = time.monotonic()
        with browser.covered():
            time.sleep(1.2)
        covered = time.monotonic() - begin
        browser.press("y")
        whole = time.monotonic() - opened
        painted(browser, first)
        assert browser.value("current.hidden") == 0
        browser.press("u")
        painted(browser)
        with browser.covered():
            browser.value("decide('no')")
            time.sleep(1.2)
            assert browser.value("current.start") is None  # nothing is painted, so the clock has not started
        painted(browser, first)
    rows = [line for line in Answers(program.file).lines if isinstance(line, Answer)]
    assert 1.1 < rows[0].hidden <= covered
    assert rows[0].seconds <= whole - 1.1
    assert rows[0].answered > rows[0].shown


@pytest.mark.timeout(120)
def test_strangers_text_is_text(tmp_path, browser):
    boxes = {1: [A, B], 2: [A, B]}
    program = Program(tmp_path, boxes, names=(HOSTILE, "book"))
    pool = json.loads((tmp_path / "loop/start/pool.json").read_text())
    for image in pool["images"]:
        image["original_name"] = f"{HOSTILE}/{image['id']}.png"
    write_json(tmp_path / "loop/start/pool.json", pool)
    with program:
        heard = browser.hear()
        for width in (1280, 390):
            browser.open(program.address, width)
            painted(browser)
            assert browser.value("document.title") == "Review"
            assert browser.value("document.images.length + document.scripts.length") == 1
            shown = browser.value("document.querySelector('#declared bdi').textContent")
            assert shown == HOSTILE.replace("\u202e", "\\u202e")
            assert browser.value("document.documentElement.scrollWidth") <= width
        browser.press("y")
        painted(browser, None)
        assert heard == []
    assert Answers(program.file).lines[0].image == f"{HOSTILE}/1.png"


@pytest.mark.timeout(120)
def test_a_decision_that_is_not_saved_is_shown_kept_and_sent_again(tmp_path, browser):
    with Program(tmp_path, {1: [A], 2: [B]}) as program:
        browser.open(program.address)
        before = painted(browser)
        with program.full_disk():
            browser.press("n")
            notice = browser.wait("!document.getElementById('notice').hidden && document.getElementById('notice-text').textContent")
            assert "Not saved yet" in notice
            assert "File too large" in notice
            assert item_of(browser) == before
            browser.press("y")  # not another decision
        painted(browser, before)
        assert browser.value("document.getElementById('notice').hidden")
    [row] = Answers(program.file).lines
    assert row.decision == "no"
    assert row.seconds < 60


@pytest.mark.timeout(120)
def test_zoom_help_and_looks(tmp_path, browser):
    with Program(tmp_path, {1: [A, B], 2: [C]}) as program:
        for width in (1280, 390):
            browser.open(program.address, width)
            painted(browser)
            scale = "(c => Math.min(c.clientWidth / c.width, c.clientHeight / c.height))(document.querySelectorAll('#stage canvas')[1])"
            size = browser.value(scale)
            browser.press("z")
            assert browser.value(scale) == pytest.approx(2 * size, rel=0.02)
            assert browser.value("document.documentElement.scrollWidth") <= width
            browser.press("z")
            browser.press("?")
            assert browser.value("document.getElementById('help').open")
            browser.press("y")  # nothing while help is open
            browser.press("?")
            assert not browser.value("document.getElementById('help').open")
            names = json.loads(browser.value(
                "JSON.stringify([...document.querySelectorAll('button, canvas, [role=progressbar]')].map("
                "e => e.getAttribute('aria-label') || e.textContent.trim()))"
            ))  # fmt: skip
            assert all(names)
            for scheme in ("light", "dark"):
                browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
                browser.screenshot(tmp_path / f"{width}-{scheme}.png")
                assert len(PIL.Image.open(tmp_path / f"{width}-{scheme}.png").convert("RGB").getcolors(2**24)) > 500
            browser.call("Emulation.setEmulatedMedia", features=[])
        assert not program.file.exists()
