"""Data sources: where the pictures and their instances come from. A new one is a class with the methods of `Source`, and a line in
`vlm_itl.registry`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple, Protocol

from vlm_itl.core.coco import Coco
from vlm_itl.registry import SOURCES

if TYPE_CHECKING:
    from vlm_itl.settings import Data, Select


class Fetched(NamedTuple):
    """Attributes:
    parts: {"train": ..., "test": ...}, COCO instances of the selected images, and where there are any `pool`, images that nobody has
        labelled. A `file_name` is relative to the folder of the images, or, of a picture that was left where it is, absolute.
    notes: for each part, how many images and annotations take part, were left out or are worth a note.
    """

    parts: dict[str, Coco]
    notes: dict[str, Counter[str]]


class Source(Protocol):
    """What `download` and the check of `params.yaml` ask of a source. The same arguments give the same bytes."""

    def __init__(self, data: Data) -> None: ...

    def check(self) -> Iterator[tuple[str, str]]:
        """(key of params.yaml, problem) for each file or folder that the settings name, that no stage makes and that is not there."""

    def fetch(self, images: Path, root: Path, choice: Select) -> Fetched:
        """Select, and bring the selected pictures.

        Args:
            images: gets the pictures, `train/`, `test/` and `pool/`.
            root: the folder `data.root`.
            choice: which images take part.

        Raises:
            UserError: what is wrong with the user's files or settings, or a picture cannot be had.
        """


def source(data: Data) -> Source:
    """The source of these settings."""
    kind: type[Source] = resolve_name(SOURCES[data.source])
    return kind(data)


def missing_root(data: Data) -> Iterator[tuple[str, str]]:
    """(key, problem) where the folder `data.root` is not there."""
    if not Path(data.root).is_dir():
        yield "data.root", f"no such folder: {data.root}"
