"""From the rows of a pool, proposals and a prompt to questions. A question's pictures are read and drawn when it is made, and not kept."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import PIL.Image

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.pictures import read_picture
from vlm_itl.judges import rendering
from vlm_itl.judges.rendering import Render
from vlm_itl.judges.verdict import Unit
from vlm_itl.judges.vlm.questions import Question, fill, sections
from vlm_itl.judges.vlm.settings import VlmJudge

Row = dict[str, Any]
Subject = tuple[Unit, Row, list[Row]]  # what a question is about: the image's row, and those of the proposals that are shown


def drawn(path: Path, kind: Unit, rows: list[Row], render: Render) -> tuple[PIL.Image.Image, ...]:
    """The pictures of a question, on another machine."""
    return tuple(rendering.compose(kind, read_picture(path), rows, render))


class Composer:
    """Makes the questions of one judge about one pool.

    Attributes:
        pool: rows of the images, by ascending id.
        shown: proposals by image id.
        asked: the images that have some; there is nothing to ask about the others.
        texts: the prompt of each kind of question.
    """

    def __init__(self, pool: Coco, proposals: list[Row], images: Path, prompt: str, settings: VlmJudge) -> None:
        """Raises:
        UserError: `unit: instance`, and the prompt has not both texts.
        """
        self.settings, self.images = settings, images
        self.shown = by_image(proposals)
        self.pool: list[Row] = sorted(pool["images"], key=lambda image: image["id"])
        self.asked = [image for image in self.pool if self.shown.get(image["id"])]
        self.texts = sections(prompt, "prompt") if settings.unit == "instance" else {"image": prompt}
        self._names = {row["id"]: row["name"] for row in pool["categories"]}
        self._read = functools.lru_cache(maxsize=1)(read_picture)  # questions about one image follow each other

    def question(self, kind: Unit, image: Row, rows: list[Row]) -> Question:
        """The question of this kind about these proposals (`mask`: exactly one) of an image.

        Raises:
            OSError: the picture cannot be read.
            UserError: it is none; see `read_picture`.
        """
        s = self.settings
        pixels = self._read(self.images / image["file_name"])
        pictures = rendering.compose(kind, pixels, rows, s.render)
        again = functools.partial(drawn, self.images.resolve() / image["file_name"], kind, rows, s.render)
        return Question(self.text(kind, rows), tuple(pictures), tuple(s.approve), tuple(s.reject), again=again)

    def text(self, kind: Unit, rows: list[Row], turned: bool = False) -> str:
        """A question's text; `turned`: with the options in the other order, where the prompt leaves their place open."""
        options = [self.settings.approve[0], self.settings.reject[0]]
        text = fill(self.texts[kind], [self._names[row["category_id"]] for row in rows], options[::-1] if turned else options)
        return text.replace("{classes}", ", ".join(self._names.values())) if kind == "missing" else text
