"""What determines a training or prediction of the detector, and how far a prediction got."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Iterable
from importlib.metadata import version
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm

from vlm_itl.core.code import used_by
from vlm_itl.resume.progress import digest_of, line_of, reopened, state_folder, whole_lines


def key_of(settings: Any, files: Iterable[Path | None]) -> str:
    """sha256 over settings (JSON), contents of files (None and what is not there count too), code, versions, threads, processes."""
    return digest_of(
        [
            settings,
            {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow", "pycocotools")},
            # float sums depend on how they are shared out
            torch.get_num_threads(), comm.get_world_size(), torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        ],
        [*used_by("vlm_itl.detectors.mask_rcnn.detector"), *files],
    )  # fmt: skip


class Progress:
    """The images of a prediction that are done: one line each with its rows, in the order of prediction, by whole batches.

    Not for two processes at once: each writes a file of its own.

    Args:
        sizes: how many images each of this process's batches has.
    """

    def __init__(self, key: str, sizes: list[int]) -> None:
        self.folder = state_folder("predictions", key)
        self.path = self.folder / "images.jsonl"
        self.sizes = sizes
        self._stream: Any = None

    def load(self) -> int:
        """How many batches are done; from here on more can be added."""
        ends = list(accumulate(self.sizes, initial=0))
        done = bisect_right(ends, whole_lines(self.path)) - 1
        self._stream = reopened(self.path, ends[done])
        return done

    def add(self, batch: list[list[Any]]) -> None:
        """The rows of each image of a batch."""
        self._stream.writelines(map(line_of, batch))
        self._stream.flush()

    def merged(self, batches: int) -> Path:
        """In the first process a file with the lines of all, who took turns in so many batches; one round of them is in memory."""
        if comm.get_world_size() == 1:
            return self.path
        everything, sizes = self.folder / "all.jsonl", iter(self.sizes)
        with self.path.open("rb") as own, everything.open("wb") as stream:
            for _ in range(0, batches, comm.get_world_size()):
                for lines in comm.gather(list(islice(own, next(sizes, 0)))):
                    stream.writelines(lines)
        return everything

    def clear(self) -> None:
        if self._stream is not None:
            self._stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)
