"""Part the initial labels: for a detector and for its mistakes, both of which a verifier learns from, and for measuring it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.coco import read_instances
from vlm_itl.core.files import write_json
from vlm_itl.core.redact import say
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.verifier.held_back import divide, together

STAGE = Stage(
    reads={"labels": File("loop/start/labels.json", "images that a human has drawn")},
    writes={
        "detector": File("artifacts/held_back/detector.json", "labels for a detector that has not seen the others"),
        "unseen": File("artifacts/held_back/unseen.json", "the others, without labels, for its proposals"),
        "fit": File("artifacts/held_back/fit.json", "labels that a verifier learns from"),
        "held_out": File("artifacts/held_back/held_out.json", "labels that it is measured on"),
    },
    params=("hold_back",),
)


def main(labels: Path, detector: Path, unseen: Path, fit: Path, held_out: Path, settings: dict[str, Any]) -> None:
    first, second, third = divide(read_instances(labels), settings["hold_back"])
    write_json(detector, first)
    write_json(unseen, {**together(second, third), "annotations": []})
    write_json(fit, together(first, second))
    write_json(held_out, third)
    say(f"{len(first['images'])} images for a detector, {len(second['images'])} for its mistakes, {len(third['images'])} held out")


if __name__ == "__main__":
    STAGE.run(main, __doc__)
