"""What a long stage has finished so far, on disk, found again by all that determines its result.

It lives in scratch/KIND/KEY, outside DVC's outputs, which DVC deletes when a stage starts. Another setting, picture, model or version is
another KEY, so that two pieces of work never mix; the same one, killed and started again, finds its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO

from vlm_itl.core.files import feed, scratch
from vlm_itl.core.processor import chosen
from vlm_itl.core.redact import say

DAYS_KEPT = 14  # of what nobody went on with


def digest_of(settings: Any, files: Iterable[Path | None]) -> str:
    """sha256 over settings (JSON), what torch computes with, and the contents of files; None and what is not there count too."""
    digest = hashlib.sha256(json.dumps([settings, chosen()], sort_keys=True).encode())
    for path in files:
        if path is not None and path.is_file():
            digest.update(b"file")
            feed(digest, path)
        else:
            digest.update(b"none")
    return digest.hexdigest()


def state_folder(kind: str, key: str) -> Path:
    """scratch/KIND/KEY, made and, until this process ends, marked as in use.

    What nobody went on with for `DAYS_KEPT` days, and nobody uses, is removed from beside it. The mark is a lock, which ends with its
    process: a clock that was wrong does not make somebody else's work old.
    """
    folder = scratch() / kind / key
    folder.mkdir(parents=True, exist_ok=True)
    _in_use.append(_lock(folder, fcntl.LOCK_SH))
    for other in folder.parent.glob("*"):
        try:
            if other == folder or other.is_symlink() or not other.is_dir() or time.time() - other.stat().st_mtime < DAYS_KEPT * 86400:
                continue
            with _lock(other, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(other)
        except (FileNotFoundError, BlockingIOError):  # another process was first, or uses it
            pass
    return folder


_in_use: list[IO[bytes]] = []  # locks that stay until the process ends


def _lock(folder: Path, how: int) -> IO[bytes]:
    """Raises: BlockingIOError, if another process is in the way of a lock that is not waited for."""
    stream = (folder / "in-use").open("ab")
    try:
        fcntl.flock(stream, how)
    except BlockingIOError:
        stream.close()
        raise
    return stream


def line_of(value: Any) -> bytes:
    """A line of JSON, a tab and its CRC-32, by which a line that a kill cut short or a disk damaged is told from a whole one."""
    text = json.dumps(value).encode()
    return b"%b\t%08x\n" % (text, zlib.crc32(text))


def value_of(line: bytes) -> Any:
    """What `line_of` wrote."""
    return json.loads(line[:-10])


def whole_lines(path: Path) -> int:
    """How many lines at the beginning of a file are as `line_of` wrote them; 0 of no file. If there is more behind them, that is said."""
    if not path.exists():
        return 0
    number = 0
    with path.open("rb") as stream:
        for line in stream:
            if line[-10:] != b"\t%08x\n" % zlib.crc32(line[:-10]):
                say(f"{path}: line {number + 1} is cut short or damaged, so what it and later lines hold is done again")
                break
            number += 1
    return number


def reopened(path: Path, lines: int) -> BinaryIO:
    """A file that this process alone adds to: so many lines of what was there. Another process makes its own in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    temporary = path.with_name(f"{path.stem}.{os.getpid()}{path.suffix}")
    with path.open("rb") as old, temporary.open("wb") as new:
        new.writelines(islice(old, lines))
    os.replace(temporary, path)
    return path.open("ab")


class Progress:
    """The finished batches of a piece of work, one line each (see `line_of`); from a damaged line on nothing counts.

    Not for two processes at once: each writes a file of its own.
    """

    def __init__(self, kind: str, key: str) -> None:
        self.folder = state_folder(kind, key)
        self.path = self.folder / "batches.jsonl"
        self._stream: Any = None

    def load(self) -> list[list[Any]]:
        """The batches so far; from here on more can be added."""
        self._stream = reopened(self.path, whole_lines(self.path))
        with self.path.open("rb") as stream:
            return [value_of(line) for line in stream]

    def add(self, batch: list[Any]) -> None:
        self._stream.write(line_of(batch))
        self._stream.flush()

    def clear(self) -> None:
        if self._stream is not None:
            self._stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)
