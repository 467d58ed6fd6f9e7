"""A small COCO in COCO's own layout, and a real HTTP server on loopback that serves it, with faults."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import socket
import struct
import threading
import time
import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from loopback import LoopbackServer
from PIL import Image

CATEGORIES = {1: "person", 13: "stop sign", 16: "bird", 24: "zebra", 84: "book"}


def jpeg(seed: int, width: int = 48, height: int = 32) -> bytes:
    """A JPEG of noise, a few kilobytes."""
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_coco(folder: Path, url: str, train: int = 16, val: int = 8) -> Path:
    """Write annotations/, train2017/, val2017/ and annotations_trainval2017.zip; image k shows one instance, the classes in turn.

    Every fifth image shows a person only, so the study's classes leave four fifths.
    """
    members = {}
    image_id = 0
    for part, count in (("train2017", train), ("val2017", val)):
        (folder / part).mkdir(parents=True)
        images, annotations = [], []
        for _ in range(count):
            image_id += 1
            name = f"{image_id:012d}.jpg"
            (folder / part / name).write_bytes(jpeg(image_id))
            images.append({"id": image_id, "file_name": name, "width": 48, "height": 32, "coco_url": f"{url}/{part}/{name}", "license": 1})
            annotations.append({
                "id": 1000 + image_id, "image_id": image_id, "category_id": list(CATEGORIES)[image_id % 5], "iscrowd": 0,
                "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]], "area": 400.0, "bbox": [5, 5, 20, 20],
            })  # fmt: skip
        # COCO's own order of keys: the categories come last
        members[f"annotations/instances_{part}.json"] = {
            "info": {"description": "small"}, "licenses": [], "images": images, "annotations": annotations,
            "categories": [{"supercategory": "x", "id": i, "name": name} for i, name in CATEGORIES.items()],
        }  # fmt: skip
    (folder / "annotations").mkdir()
    with zipfile.ZipFile(folder / "annotations_trainval2017.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            (folder / name).write_text(json.dumps(content))
            archive.writestr(name, json.dumps(content))
        archive.writestr("../../evil.txt", "a member whose name leads out")
    return folder


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


class CocoServer(LoopbackServer):
    """Serves a folder over HTTP. `faults[path]` is a list of what happens to the first requests for that path; then all is well.

    Faults: an HTTP status as a number, `(429, "1")` with Retry-After, `reset`, `short`, `stall`, `garbage` (right length), `html`,
    `redirect`, `small` (a whole JPEG of another size), `tampered` (another JPEG than the ETag of S3 says), `endless` (a body), `gzip`
    (a compressed one, unasked), `drip`, `drip head`, `drip chunk` and `drip trailer` (a byte now and then), `inward` (a redirection to
    another name of this machine), `circle` (one to the same address), `endless circle` (with a body), `nowhere` (one to no address),
    `escape` (a refusal whose reason is a terminal's colour).
    """

    def __init__(self, folder: Path, latency: float = 0.0) -> None:
        super().__init__()
        self.folder = folder
        self.latency = latency  # seconds before each answer
        self.faults: dict[str, list] = {}
        self.asked: Counter[str] = Counter()
        self.asked_at: dict[str, list[float]] = {}
        self.sent = 0  # bytes of bodies
        self.open_now = self.most_open = 0
        self.on_request = lambda path: None
        self.stalled = threading.Event()  # half a body is sent, and no more comes

    def do_HEAD(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = self.folder / handler.path.lstrip("/")
        handler.send_response(200 if path.is_file() else 404)
        handler.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
        handler.send_header("ETag", '"1"')
        handler.end_headers()

    def do_GET(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path
        with self._lock:
            self.asked[path] += 1
            self.asked_at.setdefault(path, []).append(time.monotonic())
            fault = self.faults[path].pop(0) if self.faults.get(path) else None
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        try:
            self.on_request(path)
            if self.latency:
                time.sleep(self.latency)
            self._send(handler, path, fault)
        finally:
            with self._lock:
                self.open_now -= 1

    def _send(self, handler: http.server.BaseHTTPRequestHandler, path: str, fault) -> None:
        headers: dict[str, str] = {}
        file = self.folder / unquote(path).lstrip("/").removeprefix("moved/")
        status, body = (200, file.read_bytes()) if file.is_file() else (404, b"not here")
        if isinstance(fault, int):
            status, body = fault, b"a fault"
        elif isinstance(fault, tuple):
            status, headers["Retry-After"], body = fault[0], fault[1], b"a fault"
        elif fault == "garbage":
            body = np.random.default_rng(0).bytes(len(body))
        elif fault == "html":
            body = b"<!DOCTYPE html><html><body>Please log in to this network.</body></html>"
        elif fault == "tampered":  # a picture that decodes, but is not the one that is stored
            headers.update({"Server": "AmazonS3", "ETag": f'"{hashlib.md5(body).hexdigest()}"'})
            body = jpeg(999)
        elif fault == "small":
            body = jpeg(1, 20, 20)
        elif fault == "redirect":
            status, headers["Location"], body = 302, f"{self.url}/moved{path}", b""
        elif fault == "inward":
            status, headers["Location"], body = 302, self.url.replace("127.0.0.1", "localhost") + path, b""
        elif fault == "circle":
            status, headers["Location"], body = 302, path, b""
        elif fault == "gzip":
            headers["Content-Encoding"], body = "gzip", gzip.compress(bytes(2**24))
        elif fault == "nowhere":
            status, headers["Location"], body = 302, "http://[::no/", b""
        elif fault in ("endless", "drip", "drip head", "drip chunk", "drip trailer", "endless circle"):
            self._without_end(handler, fault)
            return
        elif fault == "escape":
            status, body = 403, b""
        handler.send_response_only(status, "\x1b[31mred" if fault == "escape" else None)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if fault in ("reset", "short", "stall"):
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            handler.close_connection = True
            if fault == "stall":
                self.stalled.set()
                self.closing.wait(60)
            elif fault == "reset":  # a lingering time of zero makes the kernel send RST
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                handler.connection.close()
            return
        handler.wfile.write(body)
        handler.wfile.flush()
        with self._lock:
            self.sent += len(body)

    def _without_end(self, handler: http.server.BaseHTTPRequestHandler, fault: str) -> None:
        """Send until the client has had enough, or the server ends; a gigabyte at most."""
        handler.close_connection = True
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
        chunks = head + b"Transfer-Encoding: chunked\r\n\r\n"
        begin, piece = {
            "endless": (head + b"\r\n", bytes(2**20)), "drip": (head + b"\r\n", b"x"), "drip head": (head, b"X-More: 1\r\n"),
            "drip chunk": (chunks + b"1;", b"x"), "drip trailer": (chunks + b"1\r\nx\r\n0\r\nX-More: ", b"x"),
            "endless circle": (head.replace(b"200 OK", b"302 Found") + f"Location: {handler.path}\r\n\r\n".encode(), bytes(2**20)),
        }[fault]  # fmt: skip
        try:
            handler.wfile.write(begin)
            for _ in range(1024):
                handler.wfile.write(piece)
                handler.wfile.flush()
                if "drip" in fault and self.closing.wait(0.3):
                    return
        except OSError:
            pass
