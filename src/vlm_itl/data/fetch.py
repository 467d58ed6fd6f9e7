"""Many small files over HTTP: several at a time, tried again, and never half-written.

requests is the client, for its care of proxies, certificates and .netrc; urllib3's `Retry` says whether and how long to wait. Not for
large files: each body is held in memory, checked there, and written only when it is right.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError
from urllib3.util.retry import Retry

from ..errors import UserError
from ..files import replacing

AGAIN = (408, 429, 500, 502, 503, 504)  # HTTP statuses that another try may mend
LONGEST_WAIT = 300.0  # seconds that a Retry-After may ask for
IN_A_ROW = 20  # failures without a success between them after which the rest is not tried
BACKOFF = 0.5  # seconds before the second retry, doubled at each further one; the first is at once


@dataclass(frozen=True)
class Wanted:
    """A file to have: where it is asked for, where it goes, and what may be wrong with its bytes (None: nothing)."""

    url: str
    path: Path
    problem: Callable[[bytes], str | None]


@dataclass
class Fetched:
    """What became of the wanted files."""

    there: int = 0  # were whole before
    files: int = 0
    bytes: int = 0
    failures: dict[Path, str] = field(default_factory=dict)  # "URL: reason"


def fetch(wanted: list[Wanted], connections: int, retries: int, timeout: float) -> Fetched:
    """Get every file that is not there whole.

    A file that is there is checked and not asked for again. Connection errors, stalls, short bodies, wrong content and the statuses
    `AGAIN` are tried `retries` times more, after a pause that doubles, with jitter, or that the server asks for (Retry-After, RFC 9110
    section 10.2.3); another status at once counts as a failure. Killed at any moment, only whole files are left under their names.

    Args:
        connections: requests under way at a time.
        timeout: seconds to connect, and without a byte.

    Raises:
        UserError: `IN_A_ROW` files failed without one success between them: the server, not the file, is the problem.
        OSError: a file cannot be written.
    """
    policy = Retry(
        total=retries, redirect=False, status_forcelist=AGAIN, backoff_factor=BACKOFF, backoff_jitter=BACKOFF, backoff_max=30,
        retry_after_max=int(LONGEST_WAIT), raise_on_status=False,
    )  # fmt: skip
    session = threading.local()  # requests does not promise that threads can share one

    def get(item: Wanted) -> tuple[Wanted, int, str | None]:
        """(item, bytes fetched, or None where it was there, why it failed)."""
        if item.path.exists():
            if item.problem(item.path.read_bytes()) is None:
                return item, 0, None
            item.path.unlink(missing_ok=True)
        if not hasattr(session, "value"):
            session.value = requests.Session()
        body, reason = _get(session.value, item, policy, timeout)
        if reason is None:
            with replacing(item.path) as temporary:
                temporary.write_bytes(body)
        return item, len(body), reason

    done, in_a_row = Fetched(), 0
    # not concurrent.futures: its threads are waited for at exit, these are not, so that Ctrl-C ends at once
    with (
        ThreadPool(min(connections, max(1, len(wanted)))) as pool,
        tqdm(total=len(wanted), desc="fetching images", unit="file") as bar,
    ):
        for item, size, reason in pool.imap_unordered(get, wanted):
            if reason is not None:
                done.failures[item.path] = f"{item.url}: {reason}"
                in_a_row += 1
                if in_a_row == IN_A_ROW and len(wanted) > IN_A_ROW:
                    raise UserError(
                        f"{IN_A_ROW} files in a row could not be fetched, so the rest was not tried; the last: {item.url}: {reason}"
                    )
            elif size:
                done.files += 1
                done.bytes += size
                in_a_row = 0
            else:
                done.there += 1
            bar.update()
            elapsed = bar.format_dict["elapsed"]
            bar.set_postfix_str(f"{done.bytes / 1e6:.1f} MB, {done.bytes / 1e6 / max(elapsed, 1e-3):.1f} MB/s", refresh=False)
    return done


def _get(session: requests.Session, item: Wanted, policy: Retry, timeout: float) -> tuple[bytes, str | None]:
    """(body, None), or (nothing, the reason)."""
    while True:
        response = None
        try:
            response = session.get(item.url, timeout=timeout)
            if response.ok:
                reason = item.problem(response.content)
                if reason is None:
                    return response.content, None
            else:
                reason = f"{response.status_code} {response.reason}"
                if not policy.is_retry("GET", response.status_code):
                    return b"", reason
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema) as error:
            return b"", str(error)
        except requests.RequestException as error:
            reason = _cause(error)
        try:
            policy = policy.increment("GET", item.url, error=requests.RequestException(reason))
        except MaxRetryError:
            return b"", reason
        policy.sleep(response.raw if response is not None else None)  # type: ignore[arg-type]


def _cause(error: BaseException) -> str:
    """The innermost reason of a chain of network errors, in one line."""
    while True:
        inner = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        error = inner
