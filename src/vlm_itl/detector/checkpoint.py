"""The state of an unfinished training on disk, found again by all that the training hangs on.

It lives in scratch/training/KEY, outside DVC's outputs, which DVC deletes when a stage starts. Another setting, label, picture or version
is another KEY, so two trainings never mix; the same training, killed and started again, finds its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterable
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..files import feed, replacing, scratch
from .processes import gathered, world

EVERY = "VLM_ITL_CHECKPOINT_SECONDS"
DAYS_KEPT = 14  # of a training that nobody went on with


def key_of(settings: Any, files: Iterable[Path | None]) -> str:
    """sha256 over settings (JSON), contents of files (None and what is not there count too), this package, versions, threads, processes."""
    package = [*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parents[1] / "evaluation" / "detection.py"]
    digest = hashlib.sha256(
        json.dumps([
            settings,
            {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow", "pycocotools")},
            # float sums depend on how they are shared out
            torch.get_num_threads(), world(), torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        ], sort_keys=True).encode()
    )  # fmt: skip
    for path in [*package, *files]:
        if path is not None and path.is_file():
            digest.update(b"file")
            feed(digest, path)
        else:
            digest.update(b"none")
    return digest.hexdigest()


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


def _folder(kind: str, key: str) -> Path:
    """scratch/KIND/KEY. What nobody went on with for `DAYS_KEPT` days is removed from beside it."""
    folder = scratch() / kind / key
    for other in folder.parent.glob("*"):
        try:
            if time.time() - other.stat().st_mtime > DAYS_KEPT * 86400:
                shutil.rmtree(other)
        except FileNotFoundError:  # another process was first
            pass
    return folder


class Checkpoint:
    """A training's state, saved at most every VLM_ITL_CHECKPOINT_SECONDS (of the environment; 60), removed when it has ended well.

    Two jobs with the same training may share it: each replaces it whole, with a state that is right for both.
    """

    def __init__(self, key: str) -> None:
        self.folder = _folder("training", key)
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


class Progress:
    """The images of a prediction that are done: one JSON line each with its rows, in the order of `images`, by whole batches.

    What a kill cut short does not count. Not for two processes at once: each writes a file of its own.
    """

    def __init__(self, key: str, images: int, batch_size: int) -> None:
        self.folder = _folder("predictions", key)
        self.path = self.folder / "images.jsonl"
        self.images, self.batch_size = images, batch_size
        self._stream: Any = None

    def load(self) -> int:
        """How many images are done; from here on more can be added."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        temporary = self.folder / f"images.{os.getpid()}.jsonl"
        with self.path.open("rb") as old, temporary.open("wb") as new:
            done = sum(line.endswith(b"\n") for line in old)
            if done < self.images:
                done -= done % self.batch_size
            old.seek(0)
            new.writelines(islice(old, done))
        os.replace(temporary, self.path)
        self._stream = self.path.open("ab")  # of the file just made: another process replaces it and writes into its own
        return done

    def add(self, batch: list[list[Any]]) -> None:
        """The rows of each image of a batch."""
        self._stream.writelines(json.dumps(rows).encode() + b"\n" for rows in batch)
        self._stream.flush()

    def merged(self, batches: int) -> Path:
        """In the first process a file with the lines of all, who took turns in so many batches; one round of them is in memory."""
        if world() == 1:
            return self.path
        everything = self.folder / "all.jsonl"
        with self.path.open("rb") as own, everything.open("wb") as stream:
            for _ in range(0, batches, world()):
                for lines in gathered(list(islice(own, self.batch_size))):
                    stream.writelines(lines)
        return everything

    def clear(self) -> None:
        if self._stream is not None:
            self._stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)
