"""Pictures that nobody has labelled: folders of files that no list names. What cannot take part is left out, counted and said."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_regular
from vlm_itl.core.pictures import ENDINGS, UnreadablePictureError, decode, suffix
from vlm_itl.core.redact import say
from vlm_itl.data.instances import most_bytes_of

NAMED = 3  # pictures left out that are named, each with its reason


def gather(
    folders: Sequence[Path], root: Path, target: Path, known: dict[str, str], max_pixels: int, most: int | None, seed: int, first_id: int
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Copy the pictures below some folders, under names of our own.

    Hidden files, folders that are links, links out of a folder, and files with another ending than a picture's are no pictures. One that
    cannot be read is left out, and so is a copy, byte by byte: of a test picture, of a labelled one, or of one that is here already.

    Args:
        folders: are walked with all their subfolders.
        root: what the recorded names of the pictures are relative to.
        target: gets the pictures.
        known: {md5: what it counts as} of pictures that take part elsewhere.
        most: so many pictures at most, drawn with the seed; None: all.
        first_id: of the first picture.

    Returns:
        COCO rows of the images, in the order of their paths, with `original_name` and `md5`; and how many were left out and why.

    Raises:
        UserError: a folder holds no picture that can take part.
    """
    notes: Counter[str] = Counter()
    order = sorted({path for folder in folders for path in pictures_below(folder, notes)})  # folders may lie in one another
    if most is not None:
        random.Random(f"{seed}/max_images/pool").shuffle(order)
    target.mkdir(parents=True, exist_ok=True)
    kept: dict[Path, dict[str, Any]] = {}
    seen = dict(known)
    problems = []
    for path in tqdm(order, desc="copying unlabelled images", unit="image"):
        if most is not None and len(kept) == most:
            break
        try:
            content = read_regular(path, most_bytes_of(max_pixels))
            height, width = decode(BytesIO(content), max_pixels).shape[:2]
        except (OSError, UnreadablePictureError) as error:
            notes["unreadable_pictures"] += 1
            problems.append(f"{path} is {error}" if isinstance(error, UnreadablePictureError) else f"{path}: {error.strerror}")
            continue
        md5 = hashlib.md5(content).hexdigest()
        if md5 in seen:
            notes[seen[md5]] += 1
            continue
        seen[md5] = "copies"
        temporary = target / f"{md5}{suffix(content)}"  # until all are known, and with them their numbers
        temporary.write_bytes(content)
        kept[path] = {"file_name": temporary.name, "height": height, "width": width, "md5": md5}
    notes["images_over_limit"] = 0 if most is None or len(kept) < most else len(order) - len(kept) - _left_out(notes)
    for problem in problems[:NAMED]:
        say(f"unlabelled: {problem}; left out")
    for folder in folders:
        if not any(path.is_relative_to(folder) for path in kept) and not notes["images_over_limit"]:
            raise UserError(
                f"{folder}: no picture here can take part (data.local.pool): {_counts(notes)}; name another folder, or take it out"
            )
    rows = []
    for number, (path, row) in enumerate(sorted(kept.items()), first_id):
        name = f"{number:012d}{Path(row['file_name']).suffix}"
        os.replace(target / row["file_name"], target / name)
        rows.append({
            "id": number, "file_name": f"{target.name}/{name}", "height": row["height"], "width": row["width"],
            "original_name": os.path.relpath(path, root).encode("utf-8", "replace").decode(), "md5": row["md5"],
        })  # fmt: skip
    notes["images"] = len(rows)
    return rows, notes


def pictures_below(folder: Path, notes: Counter[str]) -> Iterator[Path]:
    """The files that may be pictures; `notes` counts the others."""
    inside = folder.resolve()

    def stop(error: OSError) -> None:  # or what lies in a folder that may not be read would be missing without a word
        raise error

    for place, folders, names in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if name.startswith("."):
                notes["hidden_files"] += 1
            elif path.suffix.lower() not in ENDINGS:
                notes["other_files"] += 1
            elif not leads_below(path, inside):
                notes["links_out"] += 1
            else:
                yield path


def leads_below(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, its links followed; not one whose links go round in a circle."""
    try:
        return path.resolve().is_relative_to(folder)
    except (RuntimeError, OSError):
        return False


REASONS = {
    "other_files": "files with another ending", "hidden_files": "hidden files",
    "links_out": "links that leave their folder or go round in a circle",
    "unreadable_pictures": "pictures that cannot be read", "also_test_pictures": "test pictures",
    "also_labelled_pictures": "pictures that are labelled already", "copies": "copies of another",
}  # fmt: skip


def _left_out(notes: Counter[str]) -> int:
    """Pictures that were looked at and left out."""
    return sum(notes[what] for what in ("unreadable_pictures", "also_test_pictures", "also_labelled_pictures", "copies"))


def _counts(notes: Counter[str]) -> str:
    return ", ".join(f"{notes[what]:,} {words}" for what, words in REASONS.items() if notes[what]) or "no files"


def account(notes: Counter[str]) -> list[str]:
    """What takes part and what does not, in sentences."""
    lines = [f"{notes['images']:,} images without labels take part, {notes['images_over_limit']:,} above select.max_images do not"]
    return lines + ([f"left out: {_counts(notes)}"] if any(notes[what] for what in REASONS) else [])
