"""The server of the page: what a browser may ask of it, and what it answers.

A request with a reviewer's token is that reviewer's. Pages of other sites can reach a server on this machine too. So every request has to
bring the token and the name of a host that is ours, and what changes something comes from our origin. Nothing in a request becomes a path.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import Model, first_problem
from vlm_itl.core.redact import line, printable, say
from vlm_itl.judges.person.answers import Id, Reason, Said, Sha256
from vlm_itl.judges.rendering import GAP, Render, colour
from vlm_itl.review.painting import Painter
from vlm_itl.review.session import Next, Session

PAGE = Path(__file__).with_name("page")
FILES = {  # of the page, by what they are asked for as
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
MOST_BODY = 4096  # bytes
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TOKEN = "x-review-token"
CAPTIONS = {"image": ("The picture with what was found",), "mask": ("Where it is", "Closer, with its mask"), "missing": ("What was found",)}
BESIDE = ("The photograph", "The same with what was found")


class Asked(Model):
    """What every request of a page says: which page it is, so that two pages get two images."""

    page: Id


class Ahead(Asked):
    item: Sha256


class Decided(Asked):
    """A decision; see `vlm_itl.judges.person.answers.Answer`."""

    id: Id
    item: Sha256
    decision: Said
    reason: Reason = ""
    seconds: float = Field(ge=0, le=10**7)
    hidden: float = Field(ge=0, le=10**7)
    ago: float = Field(ge=0, le=10**6)


class Undone(Asked):
    id: Id


def version(files: Mapping[str, bytes]) -> str:
    """sha256 of the page's files."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def app(session: Session, painter: Painter, render: Render, tokens: Mapping[str, str], hosts: frozenset[str]) -> ASGIApp:
    """The application.

    Args:
        tokens: of each reviewer.
        hosts: names by which this machine may be addressed, without ports.
    """
    files = {name: (PAGE / name).read_bytes() for name, _ in FILES.values()}
    page_version = version(files)

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "")
        if name not in FILES:
            raise HTTPException(404, "there is nothing here")
        return Response(files[FILES[name][0]], media_type=FILES[name][1])

    def state(name: str, page: str) -> dict[str, Any]:
        found = session.next(name, page)
        progress = session.progress(name)
        return {
            "reviewer": name, "item": found and shown(found, render), "done": progress.done, "total": progress.total,
            "skipped": progress.skipped, "seconds_left": progress.seconds_left,
        }  # fmt: skip

    async def start(request: Request) -> Response:
        asked = await body(request, Asked)
        return JSONResponse(await run_in_threadpool(state, request.state.reviewer, asked.page))

    async def ahead(request: Request) -> Response:
        asked = await body(request, Ahead)
        found = await run_in_threadpool(session.ahead, request.state.reviewer, asked.page, asked.item)
        return JSONResponse({"items": [shown(one, render) for one in found]})

    async def answer(request: Request) -> Response:
        asked, name = await body(request, Decided), request.state.reviewer
        found = session.item(asked.item)
        if found is None:
            raise HTTPException(404, "no page has got this item since the program started; load the page again")

        def keep() -> dict[str, Any]:
            try:
                rendering = painter.paint(found.key, found.item).digest
            except UserError:
                if asked.decision != "skip":  # nobody can have seen it
                    raise
                rendering = ""
            session.answer(
                name, asked.page, asked.item, asked.decision, asked.reason, asked.seconds, asked.hidden, asked.ago, asked.id,
                page_version, rendering,
            )  # fmt: skip
            return state(name, asked.page)

        try:
            return JSONResponse(await run_in_threadpool(keep))
        except ValueError as error:  # no valid answer
            raise HTTPException(400, str(error)) from None

    async def undo(request: Request) -> Response:
        asked, name = await body(request, Undone), request.state.reviewer

        def take_back() -> dict[str, Any]:
            undone = session.undo(name, asked.page, asked.id)
            return {"undone": undone, **state(name, asked.page)}

        return JSONResponse(await run_in_threadpool(take_back))

    async def picture(request: Request) -> Response:
        found = session.item(request.path_params["key"])
        if found is None:
            raise HTTPException(404, "no page has got this item since the program started; load the page again")
        painted = await run_in_threadpool(painter.paint, found.key, found.item)
        numbered = {str(k): content for k, content in enumerate(painted.pictures)}
        if request.path_params["number"] not in numbered:
            raise HTTPException(404, "the item has no such picture")
        return Response(numbered[request.path_params["number"]], media_type="image/png")

    inner = Starlette(
        routes=[
            Route("/api/start", start, methods=["POST"]),
            Route("/api/ahead", ahead, methods=["POST"]),
            Route("/api/answer", answer, methods=["POST"]),
            Route("/api/undo", undo, methods=["POST"]),
            Route("/api/picture/{key}/{number}", picture),
            Route("/{token}/", file),
            Route("/{token}/{name}", file),
        ],
        exception_handlers={
            HTTPException: lambda _, error: problem(error.status_code, error.detail),
            UserError: lambda _, error: problem(500, str(error)),
            OSError: lambda _, error: problem(507, f"not saved: {error.filename or 'the answer'}: {error.strerror}"),
            ClientDisconnect: lambda _, error: problem(400, "the page has gone"),
            Exception: lambda _, error: bug(error),
        },
    )
    inner.router.redirect_slashes = False
    return Guard(inner, tokens, hosts)


async def body(request: Request, kind: type[Any]) -> Any:
    """The body of a request as a value of this type.

    Raises:
        HTTPException: it is too long, or no such value.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "JSON is expected")
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MOST_BODY:
            raise HTTPException(413, f"more than {MOST_BODY:,} bytes")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise HTTPException(400, first_problem(error)) from None


def problem(status: int, message: str) -> Response:
    """An error, as JSON with one line."""
    return JSONResponse({"error": line(message)[:1000]}, status)


def bug(error: Exception) -> Response:
    """An error that should not be, for the page and the terminal."""
    message = f"an error of this program: {type(error).__name__}: {error}"
    say(message)
    return problem(500, message)


def shown(found: Next, render: Render) -> dict[str, Any]:
    """An item for the page. It says nothing of where the item comes from, nor what anybody or anything thinks of it."""
    item = found.item
    before, named, after = item.question
    captions: tuple[str, ...] = CAPTIONS[item.kind]
    whole, parts = 1, [[0, 1]]
    if item.kind == "image" and render.original:  # two pictures side by side, which a phone shows one below the other
        width = item.image["width"]
        whole, parts, captions = 2 * width + GAP, [[0, width], [width + GAP, 2 * width + GAP]], BESIDE
    grouped = [(caption,) for caption in captions] if item.kind == "mask" else [captions]
    pictures = [{"whole": whole, "parts": parts, "captions": some} for some in grouped]
    return {
        "item": found.key, "kind": item.kind, "part": found.part, "question": [before, named and printable(named), after],
        "declared": [{"name": printable(name), "colour": "#" + bytes(colour(k)).hex()} for k, name in enumerate(item.declared)],
        "classes": [] if item.kind == "mask" else [printable(name) for name in item.names.values()],
        "pictures": pictures,
    }  # fmt: skip


class Guard:
    """Stands before everything: refuses strangers, and puts the security headers on every answer."""

    def __init__(self, inner: ASGIApp, tokens: Mapping[str, str], hosts: frozenset[str]) -> None:
        self._inner, self._hosts = inner, hosts
        self._tokens = {token.encode(): name for name, token in tokens.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no lifespan, no WebSockets
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.lower().encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        answer: Callable[[Scope, Receive, Send], Awaitable[None]] = self._refusal(scope) or self._inner
        await answer(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        request = Request(scope)
        host = request.headers.get("host", "")
        if hostname(f"//{host}") not in self._hosts:
            return problem(403, "this host is not one of this program's; open the address that it printed")
        origin = request.headers.get("origin")
        if request.method not in ("GET", "HEAD") and origin != f"http://{host}":
            return problem(403, "a request of another page")
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return problem(403, "a request of another page")
        path = scope["path"]
        given = request.headers.get(TOKEN, "") if path.startswith("/api/") else "".join(path.split("/")[1:2])
        found = None
        for token, name in self._tokens.items():
            if hmac.compare_digest(token, given.encode("utf-8", "replace")):
                found = name
        if found is None:
            return problem(403, "this is not the address that the program printed; it prints another one each time it starts")
        request.state.reviewer = found
        return None


def hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
