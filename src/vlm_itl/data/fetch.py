"""Files over HTTP, never half-written: many small ones, several at a time and tried again (`fetch`), or a large one (`download`).

requests is the client, for its care of proxies, certificates and .netrc; urllib3's `Retry` says whether and how long to wait. A small
file's body is held in memory, checked there, and written only when it is right.

A server may be anybody's. An answer has a largest size and a longest time, and a redirection leads to allowed hosts only.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import socket
import threading
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ProtocolError
from urllib3.util.retry import Retry

from vlm_itl.core.files import replacing

AGAIN = (408, 429, 500, 502, 503, 504)  # HTTP statuses that another try may mend
LONGEST_WAIT = 300.0  # seconds that a Retry-After may ask for
IN_A_ROW = 20  # files in a row whose every try failed, after which the rest is not tried
BACKOFF = 0.5  # seconds before the second retry, doubled at each further one; the first is at once
REDIRECTIONS = 5  # followed of one request


@dataclass(frozen=True)
class Wanted:
    """A file to have: where it is asked for, where it goes, and what may be wrong with its bytes (None: nothing)."""

    url: str
    path: Path
    problem: Callable[[bytes], str | None]
    most_bytes: int  # a longer body is not read to its end


@dataclass
class Fetched:
    """What became of the wanted files."""

    there: int = 0  # were whole before
    files: int = 0
    bytes: int = 0
    failures: dict[Path, str] = field(default_factory=dict)  # "URL: reason"
    untried: int = 0  # after `IN_A_ROW` exhausted ones


def fetch(
    wanted: list[Wanted], hosts: Container[str], connections: int, retries: int, timeout: float, deadline: float
) -> Fetched:  # fmt: skip
    """Get every file that is not there whole.

    A file that is there is checked and not asked for again. Connection errors, stalls, short bodies, wrong content and the statuses
    `AGAIN` are tried `retries` times more, after a pause that doubles, with jitter, or that the server asks for (Retry-After, RFC 9110
    section 10.2.3); another status at once counts as a failure. Killed at any moment, only whole files are left under their names.

    Args:
        hosts: names that may be asked, also by redirection; in lower case.
        connections: requests under way at a time.
        timeout: seconds to connect, and without a byte.
        deadline: seconds for one whole answer, however steadily its bytes drip.

    Raises:
        OSError: a file cannot be written.
    """
    limits = _Limits(
        hosts, timeout, deadline, " (data.coco2017.deadline)", ", which no picture of its size in the annotations has"
    )  # fmt: skip
    policy = Retry(
        total=retries, redirect=False, status_forcelist=AGAIN, backoff_factor=BACKOFF, backoff_jitter=BACKOFF, backoff_max=30,
        retry_after_max=int(LONGEST_WAIT), raise_on_status=False,
    )  # fmt: skip
    session = threading.local()  # requests does not promise that threads can share one

    def get(item: Wanted) -> tuple[Wanted, _Answer]:
        if item.path.exists():
            if item.problem(item.path.read_bytes()) is None:
                return item, _Answer()
            item.path.unlink(missing_ok=True)
        if not hasattr(session, "value"):
            session.value = _session(limits)
        answer = _get(session.value, item, policy, limits)
        if answer.reason is None:
            with replacing(item.path) as temporary:
                temporary.write_bytes(answer.body)
        return item, answer

    done, in_a_row = Fetched(), 0
    # not concurrent.futures: its threads are waited for at exit, these are not, so that Ctrl-C ends at once
    with (
        ThreadPool(min(connections, max(1, len(wanted)))) as pool,
        tqdm(total=len(wanted), desc="fetching images", unit="file") as bar,
    ):
        for item, answer in pool.imap_unordered(get, wanted):
            if answer.reason is not None:
                done.failures[item.path] = f"{item.url}: {answer.reason}"
                in_a_row = in_a_row + 1 if answer.exhausted else 0
            elif answer.body:
                done.files += 1
                done.bytes += len(answer.body)
                in_a_row = 0
            else:
                done.there += 1
            bar.update()
            elapsed = bar.format_dict["elapsed"]
            bar.set_postfix_str(f"{done.bytes / 1e6:.1f} MB, {done.bytes / 1e6 / max(elapsed, 1e-3):.1f} MB/s", refresh=False)
            if in_a_row == IN_A_ROW:
                done.untried = len(wanted) - done.there - done.files - len(done.failures)
                break
    return done


def download(url: str, path: Path, most_bytes: int, timeout: float, deadline: float) -> None:
    """Get a large file: it goes to the disk as it comes, and under its name when it is whole. One try; redirections lead anywhere.

    Args:
        timeout, deadline: as of `fetch`.

    Raises:
        OSError: the file is larger than `most_bytes`, is not whole in time, cannot be had or cannot be written; one line says which.
    """
    limits = _Limits(None, timeout, deadline)
    try:
        with (
            _session(limits) as session,
            replacing(path) as temporary,
            temporary.open("wb") as file,
            tqdm.wrapattr(file, "write", desc="fetching a file", miniters=1) as file_with_bar,
        ):
            response = _read(session, url, most_bytes, limits, cast(BinaryIO, file_with_bar))
            if not response.ok:
                raise _Refused(f"{response.status_code} {response.reason}")
    except _Refused as error:
        raise OSError(str(error)) from None
    except (requests.RequestException, HTTPError) as error:
        raise OSError(_cause(error)) from None


@dataclass(frozen=True)
class _Limits:
    """Of one answer."""

    hosts: Container[str] | None  # that may be asked; None: any
    timeout: float
    deadline: float
    lifted_by: str = ""  # for an error: the setting of the deadline
    too_large: str = ""  # for an error: what is wrong with a larger body

    @property
    def late(self) -> str:
        return f"not whole within {self.deadline:g} s{self.lifted_by}"


@dataclass
class _Answer:
    """Nothing at all: the file was there."""

    body: bytes = b""
    reason: str | None = None  # why there is no file
    exhausted: bool = False  # every try failed, as when the network or the server is at fault; a 404 is not tried again


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: `_read` follows redirections. requests would read the body of each to its end, however long that is."""


def _session(limits: _Limits) -> requests.Session:
    session = _Session()
    session.headers["Accept-Encoding"] = "identity"  # the files are compressed already, and a small body must not unpack to a large one
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(limits))
    return session


class _Adapter(HTTPAdapter):
    """Cuts a connection on which an answer takes longer than the deadline: requests' timeout is of each byte."""

    def __init__(self, limits: _Limits) -> None:
        self.limits = limits
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self._bound(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(*args, **more)
        self._bound(manager)
        return manager

    def _bound(self, manager: Any) -> None:
        plain = type("Plain", (_Cut, HTTPConnection), {"limits": self.limits})
        secure = type("Secure", (_Cut, HTTPSConnection), {"limits": self.limits})
        manager.pool_classes_by_scheme = {
            "http": type("Plains", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("Secures", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
        }


class _Cut:
    """Of a connection, the wait for an answer: its head here, its body until `_read` cancels the response's `timer`."""

    limits: _Limits
    sock: socket.socket | None
    late = False

    def getresponse(self) -> Any:
        self.late, response = False, None
        timer = threading.Timer(self.limits.deadline, self._cut, [self.sock])  # the connection forgets it where the server will close
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()  # type: ignore[misc]
            response.timer = timer
            return response
        finally:
            if response is None:
                timer.cancel()
            if self.late:  # what was cut may look like an answer that has ended
                raise ProtocolError(f"the answer's head is {self.limits.late}")

    def _cut(self, sock: socket.socket | None) -> None:
        self.late = True
        if sock is not None:
            with contextlib.suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)


class _Refused(Exception):
    """An answer that another try would not mend."""


def _get(session: requests.Session, item: Wanted, policy: Retry, limits: _Limits) -> _Answer:
    while True:
        response, buffer = None, io.BytesIO()
        try:
            response = _read(session, item.url, item.most_bytes, limits, buffer)
            body = buffer.getvalue()
            if response.ok:
                reason = item.problem(body) or _other_than_stored(response, body)
                if reason is None:
                    return _Answer(body)
            else:
                reason = f"{response.status_code} {response.reason}"
                if not policy.is_retry("GET", response.status_code):
                    return _Answer(reason=reason)
        except (_Refused, requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema) as error:
            return _Answer(reason=str(error))
        except (requests.RequestException, HTTPError, OSError) as error:
            reason = _cause(error)
        try:
            policy = policy.increment("GET", item.url, error=requests.RequestException(reason))
        except MaxRetryError:
            return _Answer(reason=reason, exhausted=True)
        try:
            policy.sleep(response.raw if response is not None else None)
        except InvalidHeader:  # a Retry-After that is neither seconds nor a date
            policy.sleep()


def _read(session: requests.Session, url: str, most_bytes: int, limits: _Limits, into: BinaryIO) -> requests.Response:
    """The answer at the end of all redirections; its body goes `into` a file.

    Raises:
        _Refused: its host is not allowed, it is longer than `most_bytes`, or it is compressed all the same.
        TimeoutError: it was not whole in time.
    """
    end = time.monotonic() + limits.deadline
    for _ in range(1 + REDIRECTIONS):
        try:
            host = (urlsplit(url).hostname or "").lower()
        except ValueError as error:
            raise _Refused(f"{url} is no address ({error})") from None
        if limits.hosts is not None and host not in limits.hosts:
            raise _Refused(
                f"{url} is on '{host}', which is not asked; if it is COCO's pictures that lie there, add it to data.coco2017.hosts"
            )
        with session.get(url, timeout=limits.timeout, stream=True, allow_redirects=False) as response:
            try:
                if response.is_redirect:
                    url = _joined(url, response.headers["Location"])
                    if time.monotonic() > end:
                        raise TimeoutError(limits.late)
                    continue
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise _Refused(f"its body is compressed ({response.headers['Content-Encoding']}), though that was not asked for")
                size = response.raw.length_remaining or 0  # as the head says, if it does
                while size <= most_bytes and (block := response.raw.read1(1 << 16)):  # what has come, without waiting for more
                    size = max(size, into.tell() + len(block))
                    if time.monotonic() > end:
                        break
                    into.write(block)
            except HTTPError:
                if time.monotonic() <= end:  # else it was cut
                    raise
            finally:
                response.raw.timer.cancel()  # type: ignore[union-attr]  # of our own connections
            if time.monotonic() > end:  # what was cut may look like an answer that has ended
                raise TimeoutError(limits.late)
            if size > most_bytes:
                raise _Refused(f"more than {most_bytes:,} bytes{limits.too_large}")
            return response
    raise _Refused(f"more than {REDIRECTIONS} redirections")


def _joined(url: str, location: str) -> str:
    """Where a redirection leads.

    Raises:
        _Refused: nowhere.
    """
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise _Refused(f"it leads to {location!r}, which is no address ({error})") from None


def _other_than_stored(response: requests.Response, body: bytes) -> str | None:
    """Why these bytes are not those that S3, where COCO lies, has stored: its ETag is their md5, unless it has a dash (Amazon S3 API
    reference, "Object"). A JPEG decoder does not see every wrong byte."""
    tag = response.headers.get("ETag", "")
    if response.headers.get("Server") != "AmazonS3" or not re.fullmatch('"[0-9a-f]{32}"', tag):
        return None
    md5 = hashlib.md5(body).hexdigest()
    return None if md5 == tag.strip('"') else f"md5 is {md5}, the server has {tag}"


def _cause(error: BaseException) -> str:
    """The innermost reason of a chain of network errors, in one line."""
    while True:
        inner = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        error = inner
