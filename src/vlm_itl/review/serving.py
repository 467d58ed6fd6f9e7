"""Serve the pages of a session to its reviewers until Ctrl-C."""

from __future__ import annotations

import argparse
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_itl.core.errors import UserError
from vlm_itl.core.pictures import IMAGES
from vlm_itl.core.redact import say

if TYPE_CHECKING:
    from vlm_itl.judges.rendering import Render
    from vlm_itl.review.session import Session

PORT = 8765


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every command has that serves pages."""
    who = "who decides (else your login name); several times for several people, each with an address of their own"
    parser.add_argument("--reviewer", action="append", default=[], metavar="NAME", help=who)
    parser.add_argument("--port", type=int, default=PORT, help=f"of the page ({PORT}; 0: any free one)")
    where = "address of this machine on which others may reach the page, unencrypted (127.0.0.1: nobody else)"
    parser.add_argument("--host", default="127.0.0.1", help=where)


def serve(session: Session, render: Render, file: Path, host: str, port: int) -> None:
    """
    Args:
        file: of the answers, to be named.

    Raises:
        UserError: there is no such port.
    """
    import uvicorn

    from vlm_itl.review.painting import Painter
    from vlm_itl.review.server import app

    tokens = {name: secrets.token_urlsafe(24) for name in session.reviewers}
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    say(f"{session.still_open():,} of {session.images:,} images are open; answers go to {file}")
    for name, token in tokens.items():
        say(f"{name}: http://{shown}:{listening.getsockname()[1]}/{token}/")
    if host not in ("127.0.0.1", "localhost", "::1"):
        say("these addresses are sent unencrypted, so others on this network can read them; use it among people you trust")
    say("Ctrl-C stops")
    hosts = frozenset({"127.0.0.1", "localhost", "::1", host.lower()})
    config = uvicorn.Config(
        app(session, Painter(IMAGES, render), render, tokens, hosts), log_config=None, log_level="critical",
        access_log=False, server_header=False, lifespan="off", ws="none", timeout_graceful_shutdown=1, limit_concurrency=512,
        timeout_keep_alive=75, h11_max_incomplete_event_size=2**14,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()
    say("; ".join(f"{name}: {number:,} decisions, with skips and what was taken back" for name, number in session.answered().items()))


def _listen(host: str, port: int) -> socket.socket:
    try:
        if not host:
            raise OSError(0, "no address")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError, TypeError) as error:
        words = getattr(error, "strerror", None) or error
        raise UserError(f"{host}:{port}: {words}; --port 0 takes any free port, --host an address of this machine") from None
