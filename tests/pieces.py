"""Workers for tests of the engine: of a module's top level, so that another process can load them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from vlm_itl.core.errors import UserError


class Squares:
    """Says when it has begun a piece, and how often it was loaded. It begins when so many have been loaded."""

    def __init__(self, folder: Path, seconds: float = 0.0, together: int = 1) -> None:
        self.folder, self.seconds, self.together = folder, seconds, together
        (folder / f"loaded.{os.getpid()}").touch()

    def __call__(self, piece: int) -> list:
        while len(list(self.folder.glob("loaded.*"))) < self.together:
            time.sleep(0.05)
        with (self.folder / "pieces").open("a") as stream:
            stream.write(f"{piece}\n")
        time.sleep(self.seconds)
        return [piece * piece, os.environ.get("OMP_NUM_THREADS"), os.getcwd()]


class Refuses:
    def __call__(self, piece: int) -> int:
        if piece == 3:
            raise UserError("piece 3: it cannot be done")
        return piece


class Dies:
    def __call__(self, piece: int) -> int:
        os._exit(1)
