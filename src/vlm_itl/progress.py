"""What a long stage has finished so far, on disk, found again by all that its result hangs on.

It lives in scratch/KIND/KEY, outside DVC's outputs, which DVC deletes when a stage starts. Another setting, picture, model or version is
another KEY, so that two pieces of work never mix; the same one, killed and started again, finds its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .base.files import feed, scratch

DAYS_KEPT = 14  # of what nobody went on with


def digest_of(settings: Any, files: Iterable[Path | None]) -> str:
    """sha256 over settings (JSON) and the contents of files; None and what is not there count too."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in files:
        if path is not None and path.is_file():
            digest.update(b"file")
            feed(digest, path)
        else:
            digest.update(b"none")
    return digest.hexdigest()


def state_folder(kind: str, key: str) -> Path:
    """scratch/KIND/KEY. What nobody went on with for `DAYS_KEPT` days is removed from beside it."""
    folder = scratch() / kind / key
    for other in folder.parent.glob("*"):
        try:
            if time.time() - other.stat().st_mtime > DAYS_KEPT * 86400:
                shutil.rmtree(other)
        except FileNotFoundError:  # another process was first
            pass
    return folder


class Progress:
    """The finished batches of a piece of work, one JSON line each; a line that a kill cut short does not count.

    Not for two processes at once: each writes a file of its own.
    """

    def __init__(self, kind: str, key: str) -> None:
        self.folder = state_folder(kind, key)
        self.path = self.folder / "batches.jsonl"
        self._stream: Any = None

    def load(self) -> list[list[Any]]:
        """The batches so far; from here on more can be added."""
        whole: list[bytes] = []
        if self.path.exists():
            whole = [line for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"batches.{os.getpid()}.jsonl"
        temporary.write_bytes(b"".join(whole))
        os.replace(temporary, self.path)
        self._stream = self.path.open("ab")  # of the file just made: another process replaces it and writes into its own
        return [json.loads(line) for line in whole]

    def add(self, batch: list[Any]) -> None:
        self._stream.write(json.dumps(batch).encode() + b"\n")
        self._stream.flush()

    def clear(self) -> None:
        if self._stream is not None:
            self._stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)
