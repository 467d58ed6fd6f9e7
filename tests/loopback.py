"""An HTTP server on loopback that tests give its answers: what the pretended COCO and the pretended VLM server share."""

from __future__ import annotations

import http.server
import threading
from typing import Any


class LoopbackServer:
    """A context manager; each request is given, in a thread of its own, to the method of a subclass that has the request's name."""

    def __init__(self) -> None:
        self.closing = threading.Event()  # for answers that wait
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # header and body in one packet
            disable_nagle_algorithm = True

            def __getattr__(self, name: str) -> Any:
                if name in ("do_GET", "do_HEAD", "do_POST"):
                    return lambda: getattr(outer, name)(self)
                raise AttributeError(name)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:  # clients that are killed
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
