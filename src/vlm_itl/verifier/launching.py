"""A training on several GPUs: the same command, started once for each of them by accelerate."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vlm_itl.core.errors import UserError

CONFIG = "VLM_ITL_ACCELERATE"  # of the environment, since it says what this machine has: a file that `accelerate config` wrote


def launch(module: str) -> None:
    """Put `accelerate launch` in this process's place where `CONFIG` names a file; its processes come back here and go on.

    Args:
        module: that was started with the arguments of this process.

    Raises:
        UserError: there is no such file.
    """
    config = os.environ.pop(CONFIG, "")  # so that they do not launch again
    if not config:
        return
    if not Path(config).is_file():
        raise UserError(f"{CONFIG}: {config}: no such file; `accelerate config --config_file {config}` makes one")
    words = ["-m", "accelerate.commands.launch", "--config_file", config, "-m", module, *sys.argv[1:]]
    os.execv(sys.executable, [sys.executable, *words])
