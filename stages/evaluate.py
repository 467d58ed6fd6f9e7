"""Measure a run: AP on the test images, its labels and their cost, and its judge against the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core import typed
from vlm_itl.core.coco import read_instances, read_results
from vlm_itl.core.files import write_json
from vlm_itl.judges import verdict
from vlm_itl.loop import annotation_log
from vlm_itl.loop.labels import counts, fingerprint
from vlm_itl.metrics.cost import human_cost
from vlm_itl.metrics.detection import evaluate, numbers
from vlm_itl.metrics.judges import judge_quality
from vlm_itl.metrics.matches import from_coco, save
from vlm_itl.metrics.people import Measured, read_measured
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={
        "test": File("artifacts/split/test.json", "test images with ground truth"),
        "predictions": File("loop/{run}/predictions.json", "COCO results on them"),
        "labels": File("loop/{run}/labels.json", "labels of the run"),
        "ledger": File("loop/{run}/ledger.json", "actions up to the run"),
        "people": File("metrics/people", "folder of what people took for a decision, one file a judge"),
        "verdicts": File("loop/{run}/verdicts.jsonl", "what the run's judge said", "prev"),
        "proposals": File("loop/{prev}/proposals.json", "what it was shown: the previous run's proposals"),
        "truth": File("artifacts/split/truth.json", "the pool's ground truth", "prev"),
    },
    writes={
        "detection": File("metrics/detection/{run}.json", "AP of boxes and masks"),
        "matches": File("artifacts/matches/{run}.npz", "which predicted mask found which test instance, for `compare`"),
        "cost": File("metrics/cost/{run}.json", "labels by source and human hours"),
        "judge_metrics": File("metrics/judge/{run}.json", "recall, specificity, precision, kappa", "prev"),
    },
    options={"run": "the run that is measured", "prev": "the run before; none: `start`, which has no judge"},
    optional=frozenset({"prev", "verdicts", "proposals", "truth", "judge_metrics"}),
    params=("evaluate.judge_iou", "evaluate.seconds", "people"),
)


def main(
    test: Path, predictions: Path, labels: Path, ledger: Path, people: Path, detection: Path, matches: Path, cost: Path,
    settings: dict[str, Any],
    verdicts: Path | None = None, proposals: Path | None = None, truth: Path | None = None, judge_metrics: Path | None = None,
) -> None:  # fmt: skip
    evaluations, own = evaluate(read_instances(test), read_results(predictions)), read_instances(labels)
    write_json(detection, numbers(evaluations))
    save(from_coco(evaluations["mask"], fingerprint(own)), matches)
    seconds = settings["evaluate.seconds"]
    measured = (
        Measured({name: read_measured(people / f"{name}.json") for name in settings["people"]}) if seconds.verify == "measured" else None
    )
    write_json(cost, {**human_cost(annotation_log.read(ledger), seconds, measured), "labels": counts(own)})
    if verdicts and proposals and truth and judge_metrics:
        quality = judge_quality(verdict.read(verdicts), read_results(proposals), read_instances(truth), settings["evaluate.judge_iou"])
        typed.write(judge_metrics, quality)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
