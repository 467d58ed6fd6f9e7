"""Write a run's labels and pictures as a data set that other programs read, with a card of how it came to be. `make dataset RUN=...`.

It is no stage: it names the commit, and it is made when it is wanted.
"""

from __future__ import annotations

import argparse
import html
import os
import re
from pathlib import Path
from typing import Any

import jinja2
from tqdm import tqdm

from vlm_itl.core import pictures
from vlm_itl.core.coco import Coco, read_instances, read_results
from vlm_itl.core.command import errors_in_one_line
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import md5, read_json, replacing_folder, write_json, write_text
from vlm_itl.core.git import changed, git
from vlm_itl.core.redact import printable, say
from vlm_itl.core.runs import chain, line_of, made
from vlm_itl.data.instances import picture_problem, recorded_picture
from vlm_itl.dataset.content import Masks, Row, Said, certainty, content, counted, file_name, instances
from vlm_itl.dataset.readers import ANNOTATIONS, IMAGES, Reading, read_again
from vlm_itl.judges import verdict
from vlm_itl.loop import annotation_log
from vlm_itl.metrics.audit import current
from vlm_itl.metrics.intervals import estimated
from vlm_itl.metrics.rows import Quality, read_quality
from vlm_itl.report.lineage import changed_settings
from vlm_itl.settings import Settings, load, read_yaml

SPLIT = Path("artifacts/split")
TEMPLATE = Path(__file__).with_name("card.md.jinja")
FOLDER = Path("artifacts/dataset")
CARD = "README.md"


def write(settings: Settings, run: str, target: Path, masks: Masks, link: bool) -> tuple[Coco, list[Reading]]:
    """Write the data set of a run, in place of one that is there. Nothing changes at `target` before all is written and read again.

    Args:
        link: let the pictures be the project's own files where the disk allows it (hard links); otherwise they are copies.

    Returns:
        What is in the file of annotations, and what other programs read.

    Raises:
        UserError: there is no such run, it has no labels yet, or a program reads something else than was written.
    """
    if run != "start":
        line_of(settings.runs, run)
    labels = made(run, "labels.json", read_instances)
    said = {name: made(name, "verdicts.jsonl", verdict.read) for name in chain(settings.runs, run)}
    data = content(run, labels, certainty(settings.runs, said, lambda name: made(name, "proposals.json", read_results)), masks)
    if not data["images"]:
        raise UserError(f"loop/{run}/labels.json: no image is labelled yet, so there is no data set")
    with replacing_folder(target) as folder:
        (folder / IMAGES).mkdir(parents=True)
        for image in tqdm(labels["images"], desc="pictures", unit="image"):
            place(image, folder / IMAGES / file_name(image), link)
        write_json(folder / ANNOTATIONS, data)
        readings = read_again(folder, instances(labels))
        write_text(folder / CARD, card(settings, run, said, data, masks, readings))
    return data, readings


def place(image: Row, target: Path, link: bool) -> None:
    """Bring a picture to its place.

    Raises:
        UserError: it is not the picture that was labelled.
    """
    content = recorded_picture(pictures.IMAGES, image)
    if "md5" not in image and (problem := picture_problem(content, image)):
        raise UserError(f"{pictures.IMAGES / image['file_name']}: {problem}; `dvc repro` brings the picture back (stage download)")
    if link:
        try:
            os.link((pictures.IMAGES / image["file_name"]).resolve(), target)
            return
        except OSError:  # another disk, or one that knows no links
            pass
    target.write_bytes(content)


def card(settings: Settings, run: str, said: Said, data: Coco, masks: Masks, readings: list[Reading]) -> str:
    """The data set's card, in Markdown."""
    rounds = []
    for name, verdicts in said.items():
        judge, path = settings.judges[settings.runs[name].judge], Path(f"metrics/judge/{name}.json")
        rounds.append({
            "run": name, "judge": settings.runs[name].judge, "kind": judge.label, "simulated": judge.simulated,
            "policy": settings.runs[name].policy, "asked": sum(v.asked for v in verdicts), "approved": sum(v.approve for v in verdicts),
            **shares(read_quality(path) if path.exists() else None),
        })  # fmt: skip
    classes = counted(data)
    cost, lock = Path(f"metrics/cost/{run}.json"), Path("dvc.lock")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=plain)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=run, images=len(data["images"]), instances=sum(row["instances"] for row in classes.values()),
        drawn=sum(row["human"] for row in classes.values()), kept=sum(row["model"] for row in classes.values()),
        known=sum(row["ground_truth"] for row in classes.values()), classes=classes,
        simulated=simulated_drawings(settings, run, data), rounds=rounds,
        audit=current(run), hours=read_json(cost)["hours"] if cost.exists() else None, commit=git("rev-parse", "HEAD"),
        dirty=bool(changed()), params=md5(Path("params.yaml")),
        drew={name: found for name in said if (found := annotation_log.drawing_in(made(name, "ledger.json", annotation_log.read), name))},
        changed=changed_settings(read_yaml(lock), [f"loop/{run}/labels.json"], read_yaml(Path("params.yaml"))) if lock.exists() else [],
        validation=number_of(SPLIT / "validation.json"), test=number_of(SPLIT / "test.json"),
        waiting=number_of(Path("loop", run, "pool.json")),
        labels=md5(Path("loop", run, "labels.json")), iou=settings.evaluate.judge_iou, masks=masks, readings=readings,
    ) + "\n"  # fmt: skip


def number_of(path: Path) -> int | str:
    """Images in a file of the project, in words for the card."""
    return len(read_instances(path)["images"]) if path.exists() else "an unknown number of"


def shares(quality: Quality | None) -> dict[str, Any]:
    """How a judge did where the truth is known, in words."""
    if quality is None:
        return {"known": 0, "unknown": "-", **dict.fromkeys(("recall", "specificity", "precision"), "-")}
    return {"known": quality.asked, "unknown": quality.unknown, **{name: estimated(share).words for name, share in quality.shares.items()}}


def simulated_drawings(settings: Settings, run: str, data: Coco) -> int:
    """Instances that no person has drawn though they count so: those of drawn scenes, and of runs in which a simulated human draws."""
    runs = {name for name in chain(settings.runs, run) if settings.runs[name].drawn_by == "simulated"}
    runs |= {"start"} if settings.data.source == "synthetic" else set()
    return sum(
        row["attributes"]["source"] == "human" and row["attributes"]["run"] in runs and not row["iscrowd"] for row in data["annotations"]
    )


def plain(value: Any) -> Any:
    """A text that means nothing to Markdown, HTML or a terminal: class names are strangers' words."""
    return re.sub(r"([\\`*_{}\[\]#|!])", r"\\\1", html.escape(printable(value), quote=False)) if isinstance(value, str) else value


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl dataset", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="whose labels: a run of params.yaml, or start")
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER", help="where to (default %(default)s, which is replaced)")
    parser.add_argument("--masks", choices=("rle", "polygons"), default="rle", help="form of the masks; both lose nothing (default rle)")
    parser.add_argument("--copy", action="store_true", help="copy the pictures instead of linking them")
    arguments = parser.parse_args(argv)
    with errors_in_one_line(arguments.to):
        if arguments.to != FOLDER and os.path.lexists(arguments.to):
            raise UserError(f"{arguments.to}: is there already; name a folder that is not, or remove it")
        data, readings = write(load(), arguments.run, arguments.to, arguments.masks, not arguments.copy)
    say(f"{arguments.to}: {len(data['images']):,} images, {len(data['annotations']):,} annotations, {CARD}")
    there = [number_of(path) for path in (SPLIT / "validation.json", SPLIT / "test.json", Path("loop", arguments.run, "pool.json"))]
    say("not in it: {} labelled images of the validation part, {} of the test part (artifacts/split), {} without labels yet".format(*there))
    for row in readings:
        say(f"read again by {row.program} {row.version}: the same, least mask IoU {row.iou:g}" if row.version
            else f"{row.program} is not installed, so it was not asked: make readers installs it")  # fmt: skip


if __name__ == "__main__":
    main()
