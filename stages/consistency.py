"""Ask a VLM about some probes once more, with blank pictures, and with the options in the other order: is it looking at all?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core import processor
from vlm_itl.core.coco import read_instances, read_results
from vlm_itl.core.files import scratch, write_json
from vlm_itl.judges.vlm.judging import question
from vlm_itl.judges.vlm.settings import VlmJudge
from vlm_itl.judges.vlm.store import Store
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.probes import consistency

STAGE = Stage(
    reads={
        "pool": File("artifacts/probes/pool.json", "the probes"),
        "proposals": File("artifacts/probes/proposals.json", "their masks"),
        "images": File("artifacts/data/images", "folder of the images"),
        "folder": File("judges/{judge}", "the judge's own"),
    },
    writes={
        "metrics": File(
            "metrics/probes/consistency/{judge}.json",
            "decisions flipped and change of P(approve) by variant of the question; nulls for a judge that is no VLM",
        )
    },
    options={"judge": "the judge's name in params.yaml"},
    params=("processor", "judges.{judge}", "probes.consistency", "probes.seed"),
    kinds=("judges/{judge}",),
)


def main(pool: Path, proposals: Path, images: Path, folder: Path, metrics: Path, judge: str, settings: dict[str, Any]) -> None:
    processor.choose(settings["processor"])
    s, number, seed = settings[f"judges.{judge}"], settings["probes.consistency"], settings["probes.seed"]
    numbers = consistency.NOTHING
    if isinstance(s, VlmJudge):
        (text, _), store = question(folder, s), Store(scratch() / "answers")
        numbers = consistency.measure(read_instances(pool), read_results(proposals), images, text, s, store, number, seed)
    write_json(metrics, numbers)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
