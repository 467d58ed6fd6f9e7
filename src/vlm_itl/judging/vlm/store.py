"""Answers, kept by the content of their question: killed work is not asked again, and the same question is asked once.

A cache outside DVC's outputs: deleting it costs time and changes no result. sqlite with a write-ahead log, so that several processes may
read and write, and a process that dies leaves every answer that it has put.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from .questions import Answer, Question


class Store:
    """`{key: Answer}` on disk. Safe for threads and for several processes on one machine (not on a network drive)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(folder / "answers.sqlite", timeout=60, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID")

    def get(self, key: str) -> Answer | None:
        with self._lock:
            row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return Answer(**json.loads(row[0])) if row else None

    def put(self, key: str, answer: Answer) -> None:
        """The first answer to a question stays: two processes that asked at once go on with the same one."""
        with self._lock:
            self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, json.dumps(dataclasses.asdict(answer))))

    def close(self) -> None:
        self._db.close()


def key(identity: dict[str, Any], question: Question) -> str:
    """sha256 over everything that can change the answer."""
    digest = hashlib.sha256(json.dumps([identity, question.text, question.approve, question.reject], sort_keys=True).encode())
    for picture in question.pictures:
        digest.update(f"{picture.mode} {picture.size}".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()
