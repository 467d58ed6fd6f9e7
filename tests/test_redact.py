"""What is shown holds no secret and nothing that a terminal obeys; what is no secret stays as it is."""

from __future__ import annotations

import base64
import io
import logging

import pytest
from conftest import ROOT

from vlm_itl.core.errors import UserError
from vlm_itl.core.redact import hide, line, printable, redact, say
from vlm_itl.settings import load


@pytest.mark.parametrize(("text", "shown"), [
    ("http://me:pass@host/v1", "http://***@host/v1"), ("https://me@host", "https://***@host"),
    ("at http://me:p%40ss@host:80/a and https://x:y@z?q", "at http://***@host:80/a and https://***@z?q"),
    ("http://host/v1?api_key=abc&page=2&X-Amz-Signature=77#top", "http://host/v1?api_key=***&page=2&X-Amz-Signature=***#top"),
    (f"Authorization: Basic {base64.b64encode(b'me:pass').decode()}", "Authorization: Basic ***"),
    ("basic understanding of Basic English", "basic understanding of Basic English"),
    ("me@host and http://host/a@b.png", "me@host and http://host/a@b.png"),
    ("yes - two birds, 3:4", "yes - two birds, 3:4"), ("", ""),
])  # fmt: skip
def test_what_is_taken_out(text, shown):
    assert redact(text) == shown


def test_a_known_secret_in_every_form():
    hide("a b/77 c+d")
    for form in ("a b/77 c+d", "a  b/77\n c+d", "a%20b%2F77%20c%2Bd", "a+b%2F77+c%2Bd", base64.b64encode(b"a b/77 c+d").decode()):
        assert redact(f"<{form}>") == "<***>"
    hide("no")  # too short to be told from a word
    assert redact("no, EMPTY") == "no, EMPTY"


def test_a_terminal_has_nothing_to_obey():
    assert printable("a\x1b[2Jb\x07\x9b\x7f\u202e\u200b\ud800 \u00e9 \u732b") == (
        "a\\x1b[2Jb\\x07\\x9b\\x7f\\u202e\\u200b\\ud800 \u00e9 \u732b"
    )
    assert line("one\r\ntwo\u2028three\n") == "one two three"


def test_every_error_is_one_line_without_secrets():
    error = UserError("loop/\x1b]0;x\x07.json: http://me:pass@host says\nno")
    assert str(error) == "loop/\\x1b]0;x\\x07.json: http://***@host says no"


@pytest.mark.parametrize("url", ["http://me:ge/heim@host/v1", "http://me:geheim@host/v1", "http://host/v1?key=geheim", "http://h:99999/v1"])
def test_settings_do_not_repeat_a_secret(tmp_path, url):
    path = tmp_path / "params.yaml"
    content = (ROOT / "params.yaml").read_text()
    path.write_text(content.replace('base_urls: ["http://localhost:8000/v1"]', f'base_urls: ["{url}"]'))
    with pytest.raises(UserError, match=r"base_urls") as error:
        load(path)
    assert "heim" not in str(error.value)


HOSTILE = "a\x1b]0;x\x07 http://me:pass@host\nb\u202e"
SHOWN = "a\\x1b]0;x\\x07 http://***@host b\\u202e"


def test_what_is_said_is_one_line_without_secrets(capsys):
    say(HOSTILE)
    assert capsys.readouterr() == (f"{SHOWN}\n", "")


def test_what_libraries_log_is_one_line_without_secrets():
    stream = io.StringIO()
    logger, handler = logging.getLogger("a.library.of.somebody"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        logger.warning(HOSTILE)
        logger.warning("%s of %d", HOSTILE, 3)
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == f"{SHOWN}\n{SHOWN} of 3\n"
