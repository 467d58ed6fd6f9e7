"""A training's state on disk, replaced at once and whole; `vlm_itl.progress` says where and why there."""

from __future__ import annotations

import io
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from .base.files import replacing
from .progress import state_folder

EVERY = "VLM_ITL_CHECKPOINT_SECONDS"


def save_torch(value: Any, path: Path) -> None:
    """`torch.save` that replaces `path` at once and whole.

    Raises:
        OSError: it cannot be written, for example on a full disk; what was there stays. (torch.save itself raises RuntimeError, and writes
            the name that it is given, here a temporary one, into the file.)
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


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
        """The state that was saved last, None where there is none."""
        if not self.path.exists():
            return None
        return torch.load(self.path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]

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
