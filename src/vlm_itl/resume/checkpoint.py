"""A training's state on disk, replaced at once and whole; `vlm_itl.resume.progress` says where and why there."""

from __future__ import annotations

import io
import os
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import torch

from vlm_itl.core.files import replacing
from vlm_itl.core.redact import say
from vlm_itl.resume.progress import state_folder

EVERY = "VLM_ITL_CHECKPOINT_SECONDS"


def save_torch(value: Any, path: Path) -> None:
    """`torch.save` that replaces `path` at once and whole.

    Raises:
        OSError: it cannot be written, for example on a full disk; what was there stays. (torch.save itself raises RuntimeError, and writes
            the name that it is given, here a temporary one, into the file.)
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(buffer.getbuffer())
        stream.flush()
        os.fsync(stream.fileno())  # or a power cut may leave the new name on a file without its content


class Checkpoint:
    """A training's state, saved at most every VLM_ITL_CHECKPOINT_SECONDS (of the environment; 60), removed when it has ended well.

    Two jobs with the same training may share it: each replaces it whole, with a state that is right for both.
    """

    def __init__(self, key: str) -> None:
        self.folder = state_folder("training", key)
        self.path = self.folder / "checkpoint.pth"
        self.every = float(os.environ.get(EVERY, "60"))
        self.last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, None where there is none. A damaged one is removed, and that is said."""
        if not self.path.exists():
            return None
        try:
            with zipfile.ZipFile(self.path) as file:  # which a file of torch.save is; torch itself does not look at all its checksums
                if damaged := file.testzip():
                    raise zipfile.BadZipFile(damaged)
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict):
                raise TypeError(type(state))
            return state
        except OSError:
            raise
        except Exception:  # there is no end to what a damaged file can raise
            say(f"{self.path}: damaged, so it is removed and the training begins again")
            self.path.unlink(missing_ok=True)
            return None

    def due(self) -> bool:
        return time.monotonic() - self.last >= self.every

    def save(self, state: dict[str, Any]) -> None:
        """Raises:
        OSError: the disk is full; the state saved before is still there.
        """
        save_torch(state, self.path)
        self.last = time.monotonic()

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
