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
import time
from pathlib import Path
from typing import Any

from vlm_itl.core.errors import UserError
from vlm_itl.judges.vlm.questions import Answer, Question

WAIT = 60  # seconds for another process
SCHEMA = 2  # of Answer, and of what goes into the key


class Store:
    """`{key: Answer}` on disk. Safe for threads and for several processes on one machine (not on a network drive)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._path = folder / "answers.sqlite"
        try:
            self._db = sqlite3.connect(self._path, timeout=WAIT, check_same_thread=False, isolation_level=None)
        except sqlite3.Error as error:
            raise UserError(f"{self._path}: {error}; a file is expected there, or nothing") from None
        self._log_ahead()
        self._run("PRAGMA synchronous=NORMAL")
        self._run("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID")
        self._run("CREATE TABLE IF NOT EXISTS servers (url TEXT PRIMARY KEY, told TEXT NOT NULL) WITHOUT ROWID")

    def get(self, key: str) -> Answer | None:
        """None, too, for a row that is damaged or of another schema; it is removed, so that the question is asked again."""
        row = self._run("SELECT CAST(answer AS BLOB) FROM answers WHERE key = ?", key)  # as text, sqlite3 refuses what is not UTF-8
        if not row:
            return None
        try:
            return Answer(**json.loads(row[0]))
        except (ValueError, TypeError, RecursionError):
            self._run("DELETE FROM answers WHERE key = ?", key)
            return None

    def put(self, key: str, answer: Answer) -> None:
        """The first answer to a question stays: two processes that asked at once go on with the same one."""
        self._run("INSERT OR IGNORE INTO answers VALUES (?, ?)", key, json.dumps(dataclasses.asdict(answer)))

    def told(self, url: str) -> str | None:
        """What a server last said of itself. With it, answers are found without the server."""
        row = self._run("SELECT told FROM servers WHERE url = ?", url)
        return row[0] if row else None

    def note(self, url: str, told: str) -> None:
        self._run("INSERT OR REPLACE INTO servers VALUES (?, ?)", url, told)

    def _log_ahead(self) -> None:
        """For this one statement sqlite itself does not wait: two processes that open a new store at once would lock each other out."""
        end = time.monotonic() + WAIT
        while True:
            try:
                self._run("PRAGMA journal_mode=WAL")
                return
            except UserError as error:
                if "database is locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def _run(self, sql: str, *values: str) -> Any:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchone()
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self._path}: {error}; it is only a cache of answers and can be deleted") from None

    def close(self) -> None:
        self._db.close()


def key(identity: dict[str, Any], question: Question) -> str:
    """sha256 over everything that can change the answer, and the variant, where there is one: keys without are as they always were."""
    content = [SCHEMA, identity, question.text, question.approve, question.reject, *([question.variant] if question.variant else [])]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for picture in question.pictures:
        digest.update(f"{picture.mode} {picture.size}".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()
