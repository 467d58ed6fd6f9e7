"""Answers and small worlds for tests of the judge that is a person, and of the program that asks."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import PIL.Image
from conftest import ROOT, hearing_ctrl_c, instance
from ruamel.yaml import YAML

from vlm_itl.core.files import write_json
from vlm_itl.judges.person.answers import FILE, Answer

yaml = YAML()
PAGE = "1" * 32

A, B, C = (2, 2, 12, 12), (20, 2, 12, 12), (2, 22, 12, 12)


def answer(number: int, item: str = "a" * 64, decision: str = "yes", **more) -> Answer:
    """The number-th answer, a second after the one before."""
    moment = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000Z"
    given = {
        "id": f"{number:032x}", "item": item, "decision": decision, "reason": "", "reviewer": "ana", "order": 1, "attempt": 1,
        "shown": moment, "answered": moment, "seconds": 1.5, "hidden": 0.0, "unit": "image", "masks": 1, "image": "a.jpg",
        "page": "b" * 64, "rendering": "c" * 64,
    }  # fmt: skip
    return Answer(**{**given, **more})


def world(folder: Path, boxes: dict[int, list], names: tuple[str, ...] = ("bird", "book")) -> tuple[dict, list[dict]]:
    """(pool, proposals) of pictures of 40 x 50 (height x width) pixels in a folder; `boxes` by image id."""
    folder.mkdir(parents=True, exist_ok=True)
    pool = {"images": [], "annotations": [], "categories": [{"id": k, "name": name} for k, name in enumerate(names, 1)]}
    for i in boxes:
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
        md5 = hashlib.md5((folder / f"{i}.png").read_bytes()).hexdigest()
        pool["images"].append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 50, "md5": md5})
    proposals = [instance(box, 1 + k % len(names), i, score=0.9) for i, some in boxes.items() for k, box in enumerate(some)]
    return pool, proposals


class Program:
    """The command in a folder of its own, with pictures, proposals and a run of a person."""

    def __init__(self, folder: Path, boxes: dict[int, list], probes: int = 0, names=("bird", "book"), **judge) -> None:
        self.folder = folder
        pool, proposals = world(folder / "artifacts/data/images", boxes, names)
        write_json(folder / "loop/start/pool.json", pool)
        write_json(folder / "loop/start/proposals.json", proposals)
        if probes:
            known, masks = world(folder / "artifacts/data/images", {k: [A] for k in range(1001, 1001 + probes)}, names)
            write_json(folder / "artifacts/probes/pool.json", known)
            write_json(folder / "artifacts/probes/proposals.json", masks)
        params = yaml.load((ROOT / "params.yaml").read_text())
        params["judges"]["person"] = {"kind": "person", "probes": 0.0, "repeats": 0.0, "overlap": 0.0, **judge}
        params["runs"]["person-1"] = {"judge": "person", "prev": "start", "policy": "annotate"}
        params["probed"].append("person")
        yaml.dump(params, folder / "params.yaml")
        self.file = folder / "judges/person" / FILE
        self.addresses: dict[str, str] = {}
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Program:
        return self if self.process else self.start()

    def start(self, *options: str, command: tuple[str, ...] = ("review", "--run", "person-1")) -> Program:
        words = [sys.executable, "-m", "vlm_itl", *command, "--port", "0", *(options or ("--reviewer", "ana"))]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            hearing_ctrl_c(words), cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said = ""
        while "Ctrl-C stops" not in self.said:
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line
        self.addresses = dict(re.findall(r"^(\S+): (http://\S+)$", self.said, re.MULTILINE))
        return self

    def stop(self) -> str:
        """Ctrl-C; what it says then."""
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=30)[0]
        assert self.process.returncode == 0, said
        return said

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """The system lets no file of the program grow beyond a part of a line."""
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (100, hard))
        yield
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (hard, hard))

    @property
    def address(self) -> str:
        return next(iter(self.addresses.values()))

    @property
    def token(self) -> str:
        return urlsplit(self.address).path.strip("/")

    def ask(self, method: str, path: str, content=None, token: str | None = "", **headers: str | None):
        """(status, headers, body); `token` empty: the right one; a header of None is left out."""
        where = urlsplit(self.address)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
        body = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
        given = {
            "Host": where.netloc, "X-Review-Token": self.token if token == "" else token,
            **({"Origin": f"http://{where.netloc}", "Content-Type": "application/json"} if method == "POST" else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }  # fmt: skip
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def post(self, path: str, **content):
        status, _, body = self.ask("POST", path, {"page": PAGE, **content})
        return status, json.loads(body)

    def decide(self, item: str, number: int = 1, **more):
        given = {"id": f"{number:032x}", "item": item, "decision": "yes", "seconds": 1.5, "hidden": 0.0, "ago": 0.0}
        return self.post("/api/answer", **{**given, **more})
