"""What no text carries when it leaves the process, as a log line, an error or a file: secrets, and what a terminal obeys."""

from __future__ import annotations

import base64
import binascii
import logging
import re
import sys
from contextlib import suppress
from typing import Any
from urllib.parse import quote, quote_plus

from tqdm import tqdm

SHORTEST = 6  # characters of a secret; something shorter, such as EMPTY, stands in too many texts that do not mean it

_known: dict[str, re.Pattern[str]] = {}

# of an address: the user and password, and values in the query that are named like a secret
_USER = re.compile(r"(?<=://)[^\s/?#]*@")
_VALUE = re.compile(r"([?&][^=&\s]*(?:key|token|secret|passw|credential|sig)[^=&\s]*=)[^&\s#]+", re.IGNORECASE)
_BASIC = re.compile(r"\b(Basic\s+)([A-Za-z0-9+/]{4,}={0,2})", re.IGNORECASE)


def hide(secret: str) -> None:
    """Let `redact` know a secret, in every form in which a server or a library repeats one, and with any spaces within it."""
    if len(secret) < SHORTEST:
        return
    forms = sorted({secret, quote(secret, safe=""), quote_plus(secret)}, key=len, reverse=True)
    coded = re.escape(base64.b64encode(secret.encode()).decode().rstrip("=")) + "={0,2}"
    _known[secret] = re.compile("|".join([*(r"\s+".join(map(re.escape, form.split())) for form in forms), coded]))


def redact(text: str) -> str:
    """The text with `***` for every secret that `hide` was told, for user and password in addresses, and in `Basic` headers."""
    for pattern in _known.values():
        text = pattern.sub("***", text)
    text = _VALUE.sub(r"\1***", _USER.sub("***@", text))
    return _BASIC.sub(lambda match: match[1] + "***" if _credentials(match[2]) else match[0], text)


def _credentials(code: str) -> bool:
    """Whether a word is `user:password` in base64, and not only a word."""
    try:
        return b":" in base64.b64decode(code, validate=True)
    except (binascii.Error, ValueError):
        return False


def printable(text: str) -> str:
    """The text with an escape such as `\\x1b` for every character that is no letter, sign or space: a terminal would obey or hide it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def line(text: str) -> str:
    """`text` as one line that may be shown."""
    return printable(redact(" ".join(text.splitlines())))


def say(text: str) -> None:
    """Print one line, above the progress bar if there is one. Nothing else in stages and library writes to the terminal (ruff: T20)."""
    tqdm.write(line(text))
    sys.stdout.flush()  # before what a child of this process says next


def _shown(*arguments: Any, **more: Any) -> logging.LogRecord:
    """A log record whose message is one line that may be shown: libraries log the names of a stranger's weights, and a server's words."""
    record = logging.LogRecord(*arguments, **more)
    with suppress(Exception):  # arguments that do not fit the message; the handler says so
        record.msg, record.args = line(record.getMessage()), ()
    return record


logging.setLogRecordFactory(_shown)  # of every process that imports this, whatever handlers and formatters its libraries have
