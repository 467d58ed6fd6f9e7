"""Write what waits to be drawn in a run for CVAT and Label Studio, with the proposals to begin with. `make export RUN=...`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from vlm_itl.core.command import errors_in_one_line
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import replacing_folder, write_json, write_text
from vlm_itl.core.redact import say
from vlm_itl.drawing import cvat, label_studio
from vlm_itl.drawing.work import Work, opened
from vlm_itl.settings import load

FOLDER = Path("artifacts/export")
Format = Literal["cvat", "label-studio", "both"]


def write(work: Work, target: Path, form: Format) -> None:
    """Write the images that wait, in place of a folder that is there. Nothing changes at `target` before all is written.

    Raises:
        UserError: a picture is not there, or a tool cannot take a class.
    """
    with replacing_folder(target) as folder:
        if form != "label-studio":
            cvat.write(folder / "cvat.zip", work.waiting, work.names)
            write_json(folder / "cvat-labels.json", cvat.labels(work))
        if form != "cvat":
            write_text(folder / "label-studio-config.xml", label_studio.configuration(list(work.names.values())))
            label_studio.write(folder / "label-studio.json", work.waiting, work.names, work.run, f"{target.name}/images")
            (folder / "images").mkdir()
            for image in work.waiting:
                (folder / "images" / image.name).write_bytes(image.picture())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl export", description=__doc__, epilog="docs/guides/drawing.md shows the clicks.")
    parser.add_argument("--run", required=True, help="a run of params.yaml under a policy where a human draws")
    parser.add_argument("--format", choices=("cvat", "label-studio", "both"), default="both", help="for which tool (default %(default)s)")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=f"a new folder (else {FOLDER}/RUN, which is replaced)")
    arguments = parser.parse_args(argv)
    target = arguments.to or FOLDER / arguments.run
    with errors_in_one_line(target):
        work = opened(load(), arguments.run)
        if arguments.to is not None and target.exists():
            raise UserError(f"{target}: is there already; name a folder that is not, or remove it")
        if not work.waiting:
            say(f"{work.run}: all {len(work.images):,} images are drawn; next: {work.then}")
            return
        write(work, target, arguments.format)
    offered = sum(len(image.offered) for image in work.waiting)
    if work.stale:
        say(f"{work.folder}: {len(work.stale):,} drawings are of another picture or of other proposals than today's; they are drawn anew")
    say(f"{target}: {len(work.waiting):,} of {len(work.images):,} images, with {offered:,} proposals to begin with")
    say(f"next: draw (docs/guides/drawing.md), then make import RUN={work.run} FILE=what-came-back")


if __name__ == "__main__":
    main()
