"""States of a training that a library writes as folders of files; `vlm_itl.resume.progress` says where and why there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import feed, read_json, write_json
from vlm_itl.core.redact import say
from vlm_itl.resume.checkpoint import EVERY
from vlm_itl.resume.progress import state_folder

SEAL, NOTES = "sealed.json", "notes.json"


class Snapshots:
    """Folders `checkpoint-STEP`, at most every VLM_ITL_CHECKPOINT_SECONDS (of the environment; 60), removed when all has ended well.

    A folder counts once it is sealed: a list of its files with their sha256 stands in it, written last. Only then does the one before go.
    """

    def __init__(self, key: str) -> None:
        self.folder = state_folder("training", key)
        self.every = float(os.environ.get(EVERY, "60"))
        self.last = time.monotonic()

    def newest(self) -> Path | None:
        """The last one that is whole. What a kill left half written is removed, and so is a damaged one, which is said."""
        for state in sorted(self._states(), key=step_of, reverse=True):
            if (state / SEAL).exists():
                if _whole(state):
                    return state
                say(f"{state}: damaged, so it is removed and the training begins again")
            shutil.rmtree(state)
        return None

    def due(self) -> bool:
        return time.monotonic() - self.last >= self.every

    def seal(self, state: Path, notes: dict[str, Any]) -> None:
        """Let a folder count, with what else is to be known of that moment (JSON), and remove the others."""
        write_json(state / NOTES, notes)
        write_json(state / SEAL, _digests(state))
        for other in self._states():
            if other != state:
                shutil.rmtree(other)
        self.last = time.monotonic()

    def _states(self) -> list[Path]:
        """What else lies there is nobody's, and stays out of the way until all has ended well."""
        return [path for path in self.folder.glob("checkpoint-*") if path.is_dir() and re.fullmatch(r"checkpoint-\d{1,10}", path.name)]

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def step_of(state: Path) -> int:
    return int(state.name.rpartition("-")[2])


def _digests(state: Path) -> dict[str, str]:
    """sha256 by the name of each file but the seal; all of them are on the disk by then, whatever the power does."""
    found = {}
    for path in sorted(state.rglob("*")):
        if path.is_file() and path.name != SEAL:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            found[str(path.relative_to(state))] = feed(hashlib.sha256(), path).hexdigest()
    return found


def _whole(state: Path) -> bool:
    try:
        return bool(read_json(state / SEAL) == _digests(state))
    except UserError:  # no JSON
        return False
