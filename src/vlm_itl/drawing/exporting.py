"""Write what waits to be drawn in a run for CVAT and Label Studio, with the proposals to begin with. `make export RUN=...`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from vlm_itl.core.command import errors_in_one_line
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json, write_text
from vlm_itl.core.redact import say
from vlm_itl.drawing import cvat, label_studio
from vlm_itl.drawing.work import Work, opened
from vlm_itl.settings import load

FOLDER = Path("artifacts/export")
Format = Literal["cvat", "label-studio", "both"]


def write(work: Work, target: Path, form: Format) -> None:
    """Write the images that wait. Nothing changes at `target` before all is written.

    Files of an earlier export are replaced, its pictures stay: Label Studio may still serve them. The name of a picture says its content.

    Raises:
        UserError: a picture is not there, or a tool cannot take a class.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        folder = Path(temporary)
        if form != "label-studio":
            cvat.write(folder / "cvat.zip", work.waiting, work.names)
            write_json(folder / "cvat-labels.json", cvat.labels(work))
        if form != "cvat":
            write_text(folder / "label-studio-config.xml", label_studio.configuration(list(work.names.values())))
            label_studio.write(folder / "label-studio.json", work.waiting, work.names, work.run, f"{target.name}/images")
            (folder / "images").mkdir()
            for image in work.waiting:
                (folder / "images" / image.name).write_bytes(image.picture())
        for path in sorted(folder.rglob("*")):
            place = target / path.relative_to(folder)
            if path.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(exist_ok=True)
                path.replace(place)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl export", description=__doc__, epilog="docs/guides/drawing.md shows the clicks.")
    parser.add_argument("--run", required=True, help="a run of params.yaml under a policy where a human draws")
    parser.add_argument("--format", choices=("cvat", "label-studio", "both"), default="both", help="for which tool (default %(default)s)")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=f"a new folder (else {FOLDER}/RUN; its old pictures stay)")
    arguments = parser.parse_args(argv)
    target = arguments.to or FOLDER / arguments.run
    with errors_in_one_line(target):
        work = opened(load(), arguments.run)
        if arguments.to is not None and os.path.lexists(target):
            raise UserError(f"{target}: is there already; name a folder that is not, or remove it")
        if not work.waiting:
            if work.images:
                say(f"{work.run}: all {len(work.images):,} images are drawn; next: {work.then}")
            else:
                say(f"{work.run}: its judge has rejected no image, so there is nothing to draw; next: dvc repro")
            return
        write(work, target, arguments.format)
    offered = sum(len(image.offered) for image in work.waiting)
    if work.stale:
        say(f"{work.folder}: {len(work.stale):,} drawings are of another picture or of other proposals than today's; they are drawn anew")
    say(f"{target}: {len(work.waiting):,} of {len(work.images):,} images, with {offered:,} proposals to begin with")
    say(f"next: draw (docs/guides/drawing.md), then make import RUN={work.run} FILE=what-came-back")


if __name__ == "__main__":
    main()
