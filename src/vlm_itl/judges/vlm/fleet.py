"""Several servers of one model as one: the least busy is asked next, and one that goes away is left out until it is back.

Bodies and times are bounded here, whatever a server sends, and errors say what happened and what to do.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from vlm_itl.core.errors import UserError
from vlm_itl.core.redact import line, redact, say

if TYPE_CHECKING:
    from vlm_itl.settings import Server as Settings

IN_A_ROW = 20  # questions in a row to which a server gives no answer, after which it is left out
PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a server or a question is tried again: doubled each time
LONGEST_WAIT = 300.0  # seconds that a Retry-After may ask for
TO_CONNECT, TO_TELL = 10.0, 30.0  # seconds at most to connect, and for /v1/models
BUSY = (429, 502, 503, 504)  # what a server, or a gateway in its place, says that cannot answer now
TOLD_BYTES = 16 * 2**20  # of /v1/models: a hosted service may list hundreds
# of a model, in the words of vLLM, SGLang, llama.cpp and hosted services: what tells one from another and does not change by itself
TELLING = ("id", "root", "parent", "owned_by", "max_model_len", "context_length", "quantization", "dtype", "meta")

Told = dict[str, Any] | None  # what a server says of its model; None: nothing
T = TypeVar("T")


class NoAnswer(Exception):
    """To this question, from any server."""


class _Trouble(Exception):
    """Of one request."""


class _Away(_Trouble):
    """The server cannot be reached, takes too long, or asks to be left alone. `sent`: the question may have been the cause."""

    def __init__(self, reason: str, sent: bool = True, pause: float | None = None) -> None:
        super().__init__(reason)
        self.sent, self.pause = sent, pause


class _Refused(_Trouble):
    """The server would say the same again."""


class _Failed(_Trouble):
    """The server might do better next time."""


@dataclass(eq=False)
class _Server:
    url: str
    up: bool = True
    in_flight: int = 0
    asked: int = 0
    away: float = 0  # times in a row that it went or was found away, with no answer in between
    reason: str = ""  # why it is away
    unanswered: set[int] = field(default_factory=set)  # questions since its last answer
    limit: str = "max_tokens"  # its name for the most tokens of an answer


class Fleet:
    """All methods run in one event loop."""

    def __init__(self, settings: Settings, model: str, key: str | None, most_bytes: int) -> None:
        """
        Args:
            key: for the servers, if they ask for one.
            most_bytes: that an answer may have.

        Raises:
            UserError: an address is none, or the environment names a proxy or a certificate that cannot be used.
        """
        for url in settings.base_urls:
            try:
                httpx2.URL(url)
            except (httpx2.InvalidURL, UnicodeError) as error:
                raise UserError(f"params.yaml: judges: server.base_urls: {url} is no address: {error}") from None
        self.settings, self.model, self.most_bytes = settings, model, most_bytes
        self.servers = [_Server(url.rstrip("/")) for url in dict.fromkeys(settings.base_urls)]
        self.told: Told = None  # what all that were reached say, where `compared`
        self.compared = False
        self._news = asyncio.Event()
        self._returning: set[asyncio.Task[None]] = set()
        headers = {"Accept-Encoding": "identity", "Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=settings.concurrency)
        try:
            # an answer that sends elsewhere is not followed: key and pictures stay with the servers that were named
            self._client = httpx2.AsyncClient(headers=headers, limits=limits, follow_redirects=False)
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            raise UserError(f"the environment's http_proxy, https_proxy or all_proxy cannot be used: {error}") from None
        except OSError as error:
            raise UserError(f"the environment's SSL_CERT_FILE or SSL_CERT_DIR cannot be used: {error.strerror or error}") from None

    @property
    def gone(self) -> bool:
        """Whether no server is left that is worth waiting for."""
        return all(self._lost(server) for server in self.servers)

    def reasons(self) -> str:
        return "; ".join(f"{server.url}: {server.reason}" for server in self.servers if not server.up)

    async def compare(self) -> bool:
        """Ask all servers which model they serve. False where none can be reached, at the first try.

        Raises:
            UserError: two say different things.
        """
        found = await asyncio.gather(*map(self._tell, self.servers), return_exceptions=True)
        told: list[tuple[str, Told]] = []
        for server, said in zip(self.servers, found):
            if isinstance(said, _Away):
                self._leave(server, said)
            elif isinstance(said, BaseException):
                raise said
            else:
                told.append((server.url, said))
        for url, said in told[1:]:
            if said != told[0][1]:
                raise UserError(
                    f"params.yaml: judges: server.base_urls: {told[0][0]} and {url} serve different models: "
                    f"{_difference(told[0][1], said)}; name servers of one model, or, if they are, say so with server.fingerprint"
                )
        if told:
            self.told, self.compared = told[0][1], True
        return bool(told)

    async def wait(self) -> None:
        """Until a server is back, or all are gone."""
        while not self.gone and not any(server.up for server in self.servers):
            await self._news.wait()

    async def ask(self, number: int, request: dict[str, Any], read: Callable[[Any], T]) -> tuple[T, str]:
        """What `read` makes of an answer, and the server that gave it.

        Args:
            number: of the question.
            request: the body of a chat completion.
            read: raises ValueError for what is no answer; then the question is asked again.

        Raises:
            NoAnswer: every server refuses the question, or it failed more than `retries` times, on all servers that are up.
        """
        tried: set[_Server] = set()
        refused: set[_Server] = set()
        failures, reason = 0, ""
        while (server := await self._free(tried, refused)) is not None:
            server.in_flight += 1
            server.asked += 1
            try:
                result = self._read(await self._complete(server, request), read)
                server.away, server.unanswered = 0, set()
                return result, server.url
            except _Trouble as error:
                trouble = error
            finally:
                server.in_flight -= 1
            reason = f"{server.url}: {trouble}"
            tried.add(server)
            if isinstance(trouble, _Away):
                self._leave(server, trouble)
                failures += trouble.sent
            else:
                failures += 1
                server.unanswered.add(number)
                if len(server.unanswered) >= IN_A_ROW:
                    self._leave(server, _Away(f"no answer to {IN_A_ROW} questions in a row, the last: {trouble}"), for_good=True)
            if isinstance(trouble, _Refused):
                refused.add(server)
            elif failures > self.settings.retries and all(s in tried for s in self.servers if s.up):
                break
            elif isinstance(trouble, _Failed):
                await asyncio.sleep(_pause(failures))
        raise NoAnswer(reason or self.reasons())

    async def _free(self, tried: set[_Server], refused: set[_Server]) -> _Server | None:
        """The least busy server that is up, one that has not had the question before others; None where none will be."""
        while True:
            rest = [server for server in self.servers if server not in refused]
            up = [server for server in rest if server.up]
            if up:
                return min(up, key=lambda s: (s in tried, s.in_flight, s.asked))
            if all(self._lost(server) for server in rest):
                return None
            await self._news.wait()

    def _lost(self, server: _Server) -> bool:
        return not server.up and server.away > self.settings.retries

    def _leave(self, server: _Server, away: _Away, for_good: bool = False) -> None:
        """Leave a server out, and look after it; `for_good`: as long as others are there."""
        if not server.up:
            return
        server.up, server.reason, server.away = False, str(away), server.away + 1
        if for_good:
            server.away = max(server.away, self.settings.retries + 1)
        if len(self.servers) > 1:
            say(f"{server.url} is left out: {server.reason}")
        task = asyncio.create_task(self._bring_back(server, away.pause or _pause(server.away)))
        self._returning.add(task)  # or it might be collected as garbage
        task.add_done_callback(self._returning.discard)
        self._spread()

    async def _bring_back(self, server: _Server, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            try:
                told = await self._tell(server)
            except _Away as away:
                server.reason, server.away = str(away), server.away + 1
                pause = away.pause or _pause(server.away)
                self._spread()
                continue
            if self.compared and told != self.told:
                server.reason, server.away = f"it serves another model now: {_difference(self.told, told)}", math.inf
                say(f"{server.url} stays out: {server.reason}")
            else:
                server.up = True
                if len(self.servers) > 1:
                    say(f"{server.url} is back")
            self._spread()
            return

    def _spread(self) -> None:
        """Wake all that wait for a server."""
        self._news.set()
        self._news = asyncio.Event()

    async def _tell(self, server: _Server) -> Told:
        """What `/v1/models` says of the model: its row, or the only one, in the fields that are `TELLING`.

        A server without such a list, or that does not show it, tells nothing.

        Raises:
            _Away
        """
        limit = min(self.settings.timeout, TO_TELL)
        try:
            status, headers, body = await self._exchange("GET", f"{server.url}/models", limit, TOLD_BYTES)
        except _Failed:
            return None
        if status in BUSY:
            raise _Away(f"HTTP {status}: {_words(body)}", pause=_retry_after(headers))
        if self.settings.fingerprint is not None:
            return None  # the user's word counts
        try:
            rows = [row for row in json.loads(body)["data"] if isinstance(row["id"], str)]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        mine = [row for row in rows if row["id"] == self.model] or (rows if len(rows) == 1 else [])
        return _plain({name: mine[0][name] for name in TELLING if mine[0].get(name) is not None}) if mine and status < 300 else None

    async def _complete(self, server: _Server, request: dict[str, Any]) -> Any:
        """The JSON that a chat completion returns.

        Raises:
            _Trouble
        """
        body = {(server.limit if name == "max_tokens" else name): value for name, value in request.items()}
        url = f"{server.url}/chat/completions"
        status, headers, content = await self._exchange("POST", url, self.settings.timeout, self.most_bytes, body)
        if status < 300:
            try:
                answer = json.loads(content)
            except (ValueError, RecursionError):
                raise _Failed(f"its answer is no JSON: {_words(content)}") from None
            if isinstance(answer, dict) and answer.get("error"):
                raise _Failed(f"an error in place of an answer: {_words(content)}")
            return answer
        words = _words(content)
        if status in (400, 422) and "max_tokens" in body and "max_completion_tokens" in words:
            server.limit = "max_completion_tokens"
            return await self._complete(server, request)
        said = f"HTTP {status}: {words}"
        if status in BUSY:
            raise _Away(said, pause=_retry_after(headers))
        if status in (408, 409, 425) or status >= 500:
            raise _Failed(said)
        if status < 400:
            raise _Refused(f"HTTP {status}: it sends elsewhere, to {headers.get('location', 'no address')}; name that in server.base_urls")
        raise _Refused(said + ("; is the key in the variable of server.api_key_env right?" if status in (401, 403) else ""))

    @staticmethod
    def _read(answer: Any, read: Callable[[Any], T]) -> T:
        try:
            return read(answer)
        except ValueError as error:
            raise _Failed(f"no answer that counts: {error}") from None

    async def _exchange(
        self, method: str, url: str, seconds: float, most: int, body: dict[str, Any] | None = None
    ) -> tuple[int, httpx2.Headers, bytes]:
        """Status, headers and body; `seconds` is for all of it.

        Raises:
            _Away, _Failed
        """

        async def exchange() -> tuple[int, httpx2.Headers, bytes]:
            content = bytearray()
            timeout = httpx2.Timeout(seconds, connect=min(seconds, TO_CONNECT), pool=None)
            # some close a connection after an error without saying so, and a question would be lost in it
            headers = {"Connection": "close"} if method == "GET" else {}
            async with self._client.stream(method, url, json=body, headers=headers, timeout=timeout) as response:
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise _Failed("it compresses its answer, though it was asked not to")
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > most:
                        raise _Failed(f"its answer has more than {most:,} bytes")
            return response.status_code, response.headers, bytes(content)

        try:
            return await asyncio.wait_for(exchange(), seconds)
        except asyncio.TimeoutError:
            raise _Away(f"no whole answer within {seconds:g} s (server.timeout)") from None
        except httpx2.HTTPError as error:
            before = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError)
            raise _Away(why(error, url), sent=not before) from None
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise _Refused(f"no address: {error}") from None


def why(error: Exception, url: str) -> str:
    """What lies behind a connection that failed, and what to do."""
    proxy = _proxy(url)
    through = f" (through the proxy {proxy}, which http_proxy, https_proxy and all_proxy name and no_proxy excepts from)" if proxy else ""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (f"its certificate is not trusted: {cause.verify_message}; name a file with the certificate of who signed it in the "
                    f"environment's SSL_CERT_FILE{through}")  # fmt: skip
        if isinstance(cause, ssl.SSLError):
            if cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
                return f"it does not speak https; is its address http://...?{through}"
            return f"no secure connection: {cause.reason or cause}{through}"
        if isinstance(cause, socket.gaierror):
            return f"no such host is known: {cause.strerror}; is the name right, and the network up?{through}"
        if isinstance(cause, ConnectionRefusedError):
            return (
                f"connection refused: nothing listens there; is the {'proxy' if proxy else 'server'} running, and the port right?{through}"
            )
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            hint = "; does it speak https?" if url.startswith("http://") else ""
            return f"the connection was cut{hint}{through}"
    if isinstance(error, httpx2.TimeoutException):
        return f"no connection within {TO_CONNECT:g} s; is the address right, or does a firewall drop it?{through}"
    if isinstance(error, httpx2.RemoteProtocolError):
        return f"it closed the connection before its answer was whole: {error}{through}"
    said = next((str(cause) for cause in reversed(chain) if str(cause) and isinstance(cause, OSError | httpx2.HTTPError)), "")
    return f"{type(error).__name__}: {said or 'the connection broke'}{through}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, all that led to it, and all that led to those."""
    todo, seen = [error], set()
    while todo:
        cause = todo.pop(0)
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            todo += [e for e in (cause.__cause__, cause.__context__, *getattr(cause, "exceptions", ())) if e is not None]


def _proxy(url: str) -> str | None:
    parts, proxies = urlsplit(url), urllib.request.getproxies()
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


def _pause(times: float) -> float:
    return min(PAUSE * 2 ** (min(times, 10) - 1), LONGEST_PAUSE)


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds of a Retry-After (RFC 9110, 10.2.3), without its form as a date."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(seconds, LONGEST_WAIT) if seconds > 0 else None


def _words(body: bytes) -> str:
    """What an error's body says, as far as it can be shown in a line."""
    text: Any = body.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        content = json.loads(body)
        for name in ("error", "message", "detail", "msg"):
            if isinstance(content, dict) and content.get(name):
                content = content[name]
        if content and not isinstance(content, bool):
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return line(" ".join(redact(str(text)).split()))[:300] or "no words"  # a secret is taken out whole, before the text is cut


def _plain(value: Any) -> Any:
    """Of what a server told, the plain values, one level deep, as they may be shown and kept."""
    if isinstance(value, dict):
        kept = {line(name)[:100]: _plain(v) for name, v in value.items() if not isinstance(v, list | dict) or name == "meta"}
        return {name: v for name, v in sorted(kept.items())[:100] if v is not None}
    if isinstance(value, str):
        return line(value)[:500]
    return value if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)) else None


def _difference(one: Told, other: Told) -> str:
    """The first field in which two differ."""
    if not one or not other:
        return " against ".join("its model" if told else "nothing" for told in (one, other)) + " in /v1/models"
    name = next(n for n in (*one, *other) if one.get(n) != other.get(n))
    return f"{name} is {one.get(name)!r} against {other.get(name)!r}"
