"""Measure a run: AP on the test images, its labels and their cost, and its judge against the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.files import read_json, write_json
from vlm_itl.judges import verdict
from vlm_itl.loop.labels import counts, fingerprint
from vlm_itl.metrics.cost import human_cost
from vlm_itl.metrics.detection import evaluate, numbers
from vlm_itl.metrics.judges import judge_quality
from vlm_itl.metrics.matches import from_coco, save
from vlm_itl.pipeline.stage import Stage

STAGE = Stage(
    reads={
        "test": "test images with ground truth",
        "predictions": "COCO results on them",
        "labels": "labels of the run",
        "ledger": "actions up to the run",
        "verdicts": "what the run's judge said",
        "proposals": "what it was shown: the previous run's proposals",
        "truth": "the pool's ground truth",
    },
    writes={
        "detection": "AP of boxes and masks",
        "matches": "which predicted mask found which test instance, for `compare`",
        "cost": "labels by source and human hours",
        "judge_metrics": "recall, specificity, precision, kappa",
    },
    optional=frozenset({"verdicts", "proposals", "truth", "judge_metrics"}),  # `start` has no judge
    params=("evaluate.judge_iou", "evaluate.seconds"),
)


def main(
    test: Path, predictions: Path, labels: Path, ledger: Path, detection: Path, matches: Path, cost: Path, settings: dict[str, Any],
    verdicts: Path | None = None, proposals: Path | None = None, truth: Path | None = None, judge_metrics: Path | None = None,
) -> None:  # fmt: skip
    evaluations, own = evaluate(read_json(test), read_json(predictions)), read_json(labels)
    write_json(detection, numbers(evaluations))
    save(from_coco(evaluations["mask"], fingerprint(own)), matches)
    write_json(cost, {**human_cost(read_json(ledger), settings["evaluate.seconds"]), "labels": counts(own)})
    if verdicts and proposals and truth and judge_metrics:
        quality = judge_quality(verdict.read(verdicts), read_json(proposals), read_json(truth), settings["evaluate.judge_iou"])
        write_json(judge_metrics, quality)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
