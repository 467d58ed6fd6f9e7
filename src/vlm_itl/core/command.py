"""How a command ends where something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm_itl.core.errors import UserError
from vlm_itl.core.redact import line


@contextmanager
def errors_in_one_line(place: Path) -> Iterator[None]:
    """End the process with a line where the user's input or the system stops the work, and silently at Ctrl-C.

    Args:
        place: what the system's error is about, where it names no file.
    """
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(line(f"error: {error.filename or place}: {error.strerror}"))
    except KeyboardInterrupt:
        sys.exit(130)
