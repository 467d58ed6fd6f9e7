"""The model folder of a start without labels, where there is nothing yet that a detector could have learned."""

from __future__ import annotations

from pathlib import Path

from vlm_itl.core.files import write_text

MARK = "untrained"


def write_untrained(folder: Path) -> None:
    """Instead of weights, a file that says that there are none: training that continues from here begins from `detector.init`."""
    write_text(folder / MARK, "No detector has been trained here yet; the first training begins from detector.init.\n")


def is_untrained(folder: Path) -> bool:
    """Whether a model folder says so. One that merely lacks its weights does not, and remains an error."""
    return (folder / MARK).is_file()
