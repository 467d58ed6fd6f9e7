"""An item's pictures as bytes, drawn when somebody wants to see them."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from vlm_itl.core.errors import UserError
from vlm_itl.core.pictures import UnreadablePictureError, decode
from vlm_itl.data.instances import recorded_picture
from vlm_itl.judges import rendering
from vlm_itl.judges.person.items import Item
from vlm_itl.judges.rendering import Render

MOST_BYTES = 2**27  # of painted pictures that are kept for the next request


@dataclass(frozen=True)
class Painted:
    """`pictures` are PNG files, as a VLM gets them; `digest` is the sha256 of their bytes, one after the other."""

    pictures: tuple[bytes, ...]
    digest: str


class Painter:
    """Paints items, one at a time, and keeps the latest. Safe for threads."""

    def __init__(self, images: Path, render: Render) -> None:
        self._images, self._render = images, render
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Painted] = OrderedDict()
        self._bytes = 0

    def paint(self, key: str, item: Item) -> Painted:
        """The pictures of an item, whose key says which it is.

        Raises:
            UserError: the picture cannot be read, or is not the one that was judged.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            painted = paint(item, self._images, self._render)
            self._kept[key] = painted
            self._bytes += sum(map(len, painted.pictures))
            while self._bytes > MOST_BYTES and len(self._kept) > 1:
                self._bytes -= sum(map(len, self._kept.popitem(last=False)[1].pictures))
            return painted


def paint(item: Item, images: Path, render: Render) -> Painted:
    """Read, check and draw.

    Raises:
        UserError: see `Painter.paint`.
    """
    try:
        pixels = decode(io.BytesIO(recorded_picture(images, item.image)))
    except UnreadablePictureError as error:
        raise UserError(f"{images / item.image['file_name']} is {error}") from None
    pictures, digest = [], hashlib.sha256()
    for picture in rendering.compose(item.kind, pixels, item.shown, render):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)  # what is seen is what was drawn, to the pixel
        pictures.append(buffer.getvalue())
        digest.update(pictures[-1])
    return Painted(tuple(pictures), digest.hexdigest())
