"""What a training or prediction of the detector hangs on, and how far a prediction got."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..progress import digest_of, state_folder
from .processes import gathered, world


def key_of(settings: Any, files: Iterable[Path | None]) -> str:
    """sha256 over settings (JSON), contents of files (None and what is not there count too), this package, versions, threads, processes."""
    package = [*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parents[1] / "evaluation" / "detection.py"]
    return digest_of(
        [
            settings,
            {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow", "pycocotools")},
            # float sums depend on how they are shared out
            torch.get_num_threads(), world(), torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        ],
        [*package, *files],
    )  # fmt: skip


class Progress:
    """The images of a prediction that are done: one JSON line each with its rows, in the order of `images`, by whole batches.

    What a kill cut short does not count. Not for two processes at once: each writes a file of its own.
    """

    def __init__(self, key: str, images: int, batch_size: int) -> None:
        self.folder = state_folder("predictions", key)
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
