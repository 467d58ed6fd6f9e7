"""What a training or prediction of the detector hangs on."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..progress import digest_of
from .processes import world


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
