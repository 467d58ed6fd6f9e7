"""A loopback server that speaks vLLM's chat completions (logprobs, structured outputs), with faults. What it answers is set, not seen."""

from __future__ import annotations

import http.server
import json
import math
import time

from loopback import LoopbackServer


class VlmServer(LoopbackServer):
    """`faults` are taken one a request; then all is well: P(yes) is `p_yes`, or `p_of(request)` where that is set.

    Faults: a status as a number, `(429, "1")` with Retry-After, `(400, body)`, `cut` (connection closed in mid-body), `silent` (no answer
    within the client's patience), or a text or object that becomes the body of a 200.
    """

    def __init__(self, latency: float = 0.0) -> None:
        super().__init__()
        self.url += "/v1"
        self.latency = latency
        self.faults: list = []
        self.requests: list[dict] = []
        self.headers: list = []
        self.p_yes = 0.8
        self.p_of = None
        self.text: str | None = None  # instead of yes or no
        self.logprobs = True  # False: as a server that ignores the wish
        self.in_flight = self.most = 0

    def do_POST(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(request)
            self.headers.append(handler.headers)
            fault = self.faults.pop(0) if self.faults else None
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        try:
            time.sleep(self.latency)
            self._send(handler, request, fault)
        finally:
            with self._lock:
                self.in_flight -= 1

    def _send(self, handler: http.server.BaseHTTPRequestHandler, request: dict, fault) -> None:
        status, extra = 200, {}
        if isinstance(fault, int):
            status, body = fault, json.dumps({"error": {"message": "a fault", "type": "x"}})
        elif isinstance(fault, tuple) and isinstance(fault[1], dict):
            status, body = fault[0], json.dumps(fault[1])
        elif isinstance(fault, tuple):
            status, extra["Retry-After"], body = fault[0], fault[1], "{}"
        elif isinstance(fault, dict | list):
            body = json.dumps(fault)
        elif isinstance(fault, str) and fault not in ("cut", "silent"):
            body = fault
        else:
            body = json.dumps(self.completion(request))
        if fault == "silent":
            self.closing.wait(30)
        content = body.encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        for name, value in extra.items():
            handler.send_header(name, value)
        handler.end_headers()
        if fault == "cut":
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
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": request["model"],
            "choices": [{"index": k, "message": {"role": "assistant", "content": text, "refusal": None}, "finish_reason": "stop",
                         "logprobs": logprobs} for k in range(request.get("n", 1))],
            "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
        }  # fmt: skip
