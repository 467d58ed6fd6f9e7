"""What a teacher is. A kind is a class with the method of `Teacher`, its settings, and a line in `vlm_itl.registry`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from vlm_itl.core.coco import Coco

Row = dict[str, Any]


class Teacher(Protocol):
    """What the stage `autolabel` asks of a kind."""

    @classmethod
    def label(cls, settings: Any, data: Coco, images: Path, root: Path) -> tuple[list[Row], Row]:
        """Instances of the classes of `data` on its images. What is annotated there is not looked at.

        Args:
            settings: the line of `autolabels` in params.yaml.
            images: the folder that `file_name`s are relative to.
            root: the folder `data.root`.

        Returns:
            COCO results in the order of the images, by falling score, and what identifies the teacher.

        Raises:
            UserError: it cannot; the message says what to do.
        """
