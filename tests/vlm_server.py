"""A loopback server that speaks vLLM's chat completions (logprobs, structured outputs), with faults. What it answers is set, not seen.

As a program (`python tests/vlm_server.py PORT LATENCY CAPACITY`) it is a server to be killed.
"""

from __future__ import annotations

import gzip
import http.server
import json
import math
import sys
import threading
import time
from contextlib import nullcontext
from typing import Any

from loopback import LoopbackServer

BOMB = gzip.compress(b" " * 10**7, 1)


class VlmServer(LoopbackServer):
    """`faults` are taken one a request; then all is well: P(yes) is `p_yes`, or `p_of(request)` where that is set.

    Faults: a status as a number, `(429, "1")` with Retry-After, `(400, body)`, `cut` (connection closed in mid-body), `silent` (no answer
    within the client's patience), `trickle` (a byte now and then, from the first of the header on), `endless` (a body without an end),
    `gzip` (`BOMB`, a small body that becomes a large one), or bytes, a text or an object that become the body of a 200. `always` is a
    fault of every request.
    """

    def __init__(self, latency: float = 0.0, capacity: int | None = None, **more: Any) -> None:
        """
        Args:
            latency: seconds before each answer.
            capacity: requests that are worked on at once; the others wait.
        """
        super().__init__(**more)
        self.url += "/v1"
        self.latency = latency
        self.gate = threading.Event()  # cleared: requests wait here
        self.gate.set()
        self._work = threading.Semaphore(capacity) if capacity else nullcontext()
        self.faults: list = []
        self.always: Any = None
        self.requests: list[dict] = []
        self.headers: list = []
        self.p_yes = 0.8
        self.p_of = None
        self.text: str | None = None  # instead of yes or no
        self.logprobs = True  # False: as a server that ignores the wish
        self.ignores_n = False
        self.only: str | None = None  # the one name of the most tokens that it takes
        self.change = None  # what is done to a completion before it is sent
        self.models: Any = [{"id": "m", "root": "m", "owned_by": "vllm", "max_model_len": 4096}]  # or a status, or a body
        self.in_flight = self.most = 0

    def do_GET(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        rows = self.models
        if isinstance(rows, list):  # with what changes from one request to the next
            now = time.monotonic_ns()
            rows = [{"object": "model", "created": now, "permission": [{"id": f"modelperm-{now}"}], **row} for row in rows]
        status = rows if isinstance(rows, int) else 200
        body = rows if isinstance(rows, str | bytes) else json.dumps({"object": "list", "data": rows})
        self._reply(handler, status, body if isinstance(body, bytes) else body.encode(), {})

    def do_POST(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(request)
            self.headers.append(handler.headers)
            fault = self.always if self.always is not None else self.faults.pop(0) if self.faults else None
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        try:
            with self._work:
                time.sleep(self.latency)
                self.gate.wait(60)
            self._send(handler, request, fault)
        finally:
            with self._lock:
                self.in_flight -= 1

    def _send(self, handler: http.server.BaseHTTPRequestHandler, request: dict, fault) -> None:
        status, extra = 200, {}
        if self.only and self.only not in request and fault is None:
            words = f"Unsupported parameter: 'max_tokens' is not supported with this model. Use '{self.only}' instead."
            fault = (400, {"error": {"message": words, "code": "unsupported_parameter"}})
        if isinstance(fault, int):
            status, body = fault, json.dumps({"error": {"message": "a fault", "type": "x"}})
        elif isinstance(fault, tuple) and isinstance(fault[1], dict):
            status, body = fault[0], json.dumps(fault[1])
        elif isinstance(fault, tuple):
            status, extra["Retry-After"], body = fault[0], fault[1], "{}"
        elif isinstance(fault, dict | list):
            body = json.dumps(fault)
        elif isinstance(fault, bytes) or (isinstance(fault, str) and fault not in ("cut", "silent", "trickle", "endless", "gzip")):
            body = fault
        else:
            body = json.dumps(self.completion(request))
        content = body if isinstance(body, bytes) else body.encode()
        if fault == "silent":
            self.closing.wait(30)
        elif fault == "trickle":
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + 1000 * b"z":
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                if self.closing.wait(0.05):
                    return
        elif fault == "endless":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
            while not self.closing.is_set():
                handler.wfile.write(b" " * 2**16)
            return
        elif fault == "gzip":
            content, extra["Content-Encoding"] = BOMB, "gzip"
        self._reply(handler, status, content, extra, cut=fault == "cut")

    def _reply(self, handler: http.server.BaseHTTPRequestHandler, status: int, content: bytes, extra: dict, cut: bool = False) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        for name, value in extra.items():
            handler.send_header(name, value)
        handler.end_headers()
        if cut:
            handler.wfile.write(content[: len(content) // 2])
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.close()
            return
        handler.wfile.write(content)

    def completion(self, request: dict) -> dict:
        p = self.p_of(request) if self.p_of else self.p_yes
        choice = request.get("structured_outputs", {}).get("choice")
        text = self.text if self.text is not None and choice is None else ("yes" if p >= 0.5 else "no")
        logprobs = None
        if request.get("logprobs") and self.logprobs:
            top = [(" Yes", 0.6 * p * 0.9), ("yes", 0.4 * p * 0.9), ("No", (1 - p) * 0.9), ("The", 0.1)]
            rows = [{"token": t, "logprob": math.log(max(q, 1e-30)), "bytes": list(t.encode())} for t, q in top][: request["top_logprobs"]]
            logprobs = {"content": [{**rows[0], "top_logprobs": rows}]}
        answer = {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": request["model"],
            "choices": [{"index": k, "message": {"role": "assistant", "content": text, "refusal": None}, "finish_reason": "stop",
                         "logprobs": logprobs} for k in range(1 if self.ignores_n else request.get("n", 1))],
            "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
        }  # fmt: skip
        if self.change:
            self.change(answer)
        return answer


if __name__ == "__main__":
    with VlmServer(latency=float(sys.argv[2]), capacity=int(sys.argv[3]), port=int(sys.argv[1])):
        print("ready", flush=True)
        sys.stdin.read()
