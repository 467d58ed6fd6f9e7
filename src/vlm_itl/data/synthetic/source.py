"""The source `synthetic`: scenes that are drawn, and then selected like any others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_itl.data.selection import left_out, select
from vlm_itl.data.source import Fetched, missing_root

if TYPE_CHECKING:
    from vlm_itl.settings import Data, Select


class SyntheticSource:
    """Needs no input; its pictures depend on `data.synthetic` and `data.seed` alone."""

    def __init__(self, data: Data) -> None:
        assert data.synthetic is not None  # `Data` sees to it
        self.data, self.settings = data, data.synthetic

    def check(self) -> Iterator[tuple[str, str]]:
        return missing_root(self.data)

    def fetch(self, images: Path, root: Path, choice: Select) -> Fetched:
        """Draw all scenes, and select; see `Source.fetch`. The pictures of scenes that are not selected stay in the folder."""
        from vlm_itl.data.synthetic.dataset import draw_dataset  # the check needs none of it

        s = self.settings
        drawn = draw_dataset(images, s.train_images, s.test_images, s.long_side, self.data.seed)
        parts = {"train": select(drawn["train"], choice, "training"), "test": select(drawn["test"], choice, "test")}
        return Fetched(parts, {name: Counter(left_out(drawn[name], part, choice)) for name, part in parts.items()})
