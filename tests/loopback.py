"""An HTTP server on loopback that tests give its answers: what the pretended COCO and the pretended VLM server share."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from contextlib import suppress
from typing import Any


class LoopbackServer:
    """A context manager; each request is given, in a thread of its own, to the method of a subclass that has the request's name.

    `stop` is a death: the port is closed and every connection cut. `start` brings it back on the same port.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.closing = threading.Event()  # for answers that wait
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._tls = tls
        self._server = self._make(port)
        self.port = self._server.server_port
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"

    def _make(self, port: int) -> http.server.ThreadingHTTPServer:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # header and body in one packet
            disable_nagle_algorithm = True

            def __getattr__(self, name: str) -> Any:
                if name in ("do_GET", "do_HEAD", "do_POST"):
                    return lambda: getattr(outer, name)(self)
                raise AttributeError(name)

            def setup(self) -> None:
                super().setup()
                with outer._lock:
                    outer._connections.add(self.connection)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:  # clients that are killed
                pass

        server = Server(("127.0.0.1", port), Handler)
        if self._tls:
            server.socket = self._tls.wrap_socket(server.socket, server_side=True)
        return server

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._connections.clear()

    def restart(self) -> None:
        self._server = self._make(self.port)
        self.start()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
