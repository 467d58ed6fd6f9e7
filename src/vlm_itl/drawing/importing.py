"""Take what people drew back from CVAT (COCO 1.0) or Label Studio (JSON). `make import RUN=... FILE=...`."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG

from vlm_itl.core.command import errors_in_one_line
from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import LONGEST_NAME, NAME
from vlm_itl.core.files import read_regular
from vlm_itl.core.redact import say
from vlm_itl.drawing import cvat, label_studio
from vlm_itl.drawing.returned import Returned, drawing_of
from vlm_itl.drawing.work import Work, opened
from vlm_itl.loop import drawings
from vlm_itl.loop.drawings import Drawing
from vlm_itl.settings import load


@dataclass(frozen=True)
class Taken:
    """What comes of a file.

    Attributes:
        drawings: to write, by image id.
        notes: how many images are not taken, by why: `stale`, `skipped`, `untouched`, `as_exported`, `same`, `drawn`.
    """

    drawings: dict[int, Drawing]
    notes: Counter[str]


def take(path: Path, work: Work, reviewer: str | None, finished: bool) -> Taken:
    """Read and check a file; nothing is written.

    Args:
        reviewer: who drew, where it is known better than by the tool.
        finished: images that came back as they were exported have been looked at. They take no drawing's place all the same.

    Raises:
        UserError: names the file and what is wrong in it.
    """
    found: dict[int, Drawing] = {}
    seen: set[int] = set()
    notes: Counter[str] = Counter()
    for back in content(path, work):
        if isinstance(back, str):
            notes[back] += 1
            continue
        if back.image is None:
            notes["stale"] += 1
            continue
        if back.image.id in seen:
            raise UserError(f"{back.where}: the picture is there twice")
        seen.add(back.image.id)
        drawing = drawing_of(back, back.image, reviewer)
        if not (back.was_opened or drawing.corrected or drawing.added or drawing.removed):
            if back.image.drawing is not None:  # by somebody else, or from a later file
                there = back.image.drawing
                notes["drawn" if there.corrected or there.added or there.removed else "same"] += 1
                continue
            if not finished:
                notes["as_exported"] += 1
                continue
        found[back.image.id] = drawing
    return Taken(found, notes)


def content(path: Path, work: Work) -> Iterator[Returned | str]:
    """What is in a file, of whichever tool.

    Raises:
        UserError: see `take`.
    """
    try:
        if not S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a regular file")
        with path.open("rb") as stream:
            begin = stream.read(64)
        if begin.startswith(b"PK"):
            for text, where in cvat.unzipped(path):
                yield from cvat.read(text, where, work)
            return
        begin = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
        text = read_regular(path, label_studio.MOST_BYTES if begin.startswith(b"[") else cvat.MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if begin.startswith(b"["):
        yield from label_studio.read(text, str(path), work)
    elif begin.startswith(b"{"):
        yield from cvat.read(text, str(path), work)
    else:
        raise UserError(f"{path}: neither an export of CVAT (COCO 1.0, a zip or its JSON) nor of Label Studio (JSON)")


def write(taken: Taken, work: Work) -> Counter[str]:
    """Write the drawings; how many are `new`, `replaced` or there already (`same`)."""
    done: Counter[str] = Counter()
    for i, drawing in taken.drawings.items():
        there = work.images[i].drawing
        if there and drawing.reviewer is None:  # the file does not say, which takes no name away
            drawing = replace(drawing, reviewer=there.reviewer)
        if there == drawing:
            done["same"] += 1
            continue
        done["replaced" if drawings.path_of(work.folder, i).exists() else "new"] += 1
        drawings.write(work.folder, drawing)
    return done


WHY = {
    "stale": "were exported with other proposals, or are other pictures by now, and are not taken: export them again",
    "skipped": "were skipped by who should draw, and still wait",
    "untouched": "nobody has worked on, and still wait",
    "same": "came back as they were exported, as they were drawn already",
    "drawn": "came back as they were exported, though somebody has drawn on them; that stays (remove its file in drawings/ to take them)",
    "as_exported": "came back as they were exported, and CVAT does not say whether somebody has looked; if so, say it: --finished "
    "(make import ... FINISHED=1)",
}  # fmt: skip


def report(taken: Taken, done: Counter[str], work: Work) -> Iterator[str]:
    """What became of a file, in sentences."""
    counts = {what: sum(getattr(one, what) for one in taken.drawings.values()) for what in ("kept", "corrected", "added", "removed")}
    yield (
        f"{work.run}: {len(taken.drawings):,} images are drawn: {counts['kept']:,} proposals kept, {counts['corrected']:,} corrected, "
        f"{counts['removed']:,} removed, {counts['added']:,} instances added"
    )
    if done["replaced"] or done["same"]:
        yield f"of these images {done['replaced']:,} were drawn before and are replaced, and {done['same']:,} are as they were"
    yield from (f"{taken.notes[what]:,} images {words}" for what, words in WHY.items() if taken.notes[what])
    left = len(work.images) - sum(image.drawing is not None or i in taken.drawings for i, image in work.images.items())
    yield f"{left:,} of {len(work.images):,} images wait to be drawn: make export RUN={work.run}" if left else f"next: {work.then}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl import", description=__doc__, epilog="docs/guides/drawing.md shows the clicks.")
    parser.add_argument("--run", required=True, help="the run that was exported")
    parser.add_argument("file", type=Path, metavar="FILE", help="what the tool gave back: CVAT's zip or JSON, or Label Studio's JSON")
    parser.add_argument("--reviewer", metavar="NAME", help="who drew; it stands in git (else Label Studio's number of the person)")
    parser.add_argument(
        "--finished", action="store_true", help="of CVAT: images that came back as they were exported have been looked at, and are right"
    )
    arguments = parser.parse_args(argv)
    with errors_in_one_line(arguments.file):
        if arguments.file == Path():
            raise UserError(f"which file? make import RUN={arguments.run or '...'} FILE=what-came-back")
        who = arguments.reviewer
        if who is not None and not (re.fullmatch(NAME, who) and len(who) <= LONGEST_NAME):
            raise UserError("--reviewer: letters, digits, - and _ are expected; it stands in the file")
        work = opened(load(), arguments.run)
        taken = take(arguments.file, work, who, arguments.finished)
        for words in report(taken, write(taken, work), work):
            say(words)


if __name__ == "__main__":
    main()
