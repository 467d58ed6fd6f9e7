"""Measure people as judges: seconds a decision, and how far they agree with themselves, with each other, with probes and other judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core import typed
from vlm_itl.core.coco import read_instances, read_results
from vlm_itl.judges import verdict
from vlm_itl.judges.person.answers import FILE, Answers
from vlm_itl.metrics.people import measure
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={
        "folder": File("judges/{judge}", "the judge's own, with the answers"),
        "probes": File("artifacts/probes", "the probes, and what each judge in `probed` said of them"),
    },
    writes={"metrics": File("metrics/people/{judge}.json", "seconds by unit and number of masks, agreement, with intervals")},
    options={"judge": "the judge's name in params.yaml"},
    params=("probed", "evaluate.judge_iou"),
)


def main(folder: Path, probes: Path, metrics: Path, judge: str, settings: dict[str, Any]) -> None:
    probed = {name: verdict.read(probes / name / "verdicts.jsonl") for name in settings["probed"]}
    found = measure(
        Answers(folder / FILE), judge, probed, read_results(probes / "proposals.json"), read_instances(probes / "truth.json"),
        settings["evaluate.judge_iou"],
    )  # fmt: skip
    typed.write(metrics, found)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
