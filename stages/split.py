"""Split the selected images: initial labels, pool, validation, test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.coco import read_instances, subset
from vlm_itl.core.files import write_json
from vlm_itl.data.splitting import queue, split, statistics, table
from vlm_itl.loop import annotation_log, start
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={
        "train": File("artifacts/data/train.json", "the selected training images"),
        "test": File("artifacts/data/test.json", "the selected test images"),
        "without_labels": File("artifacts/data/pool.json", "images that nobody has labelled"),
    },
    writes={
        "labels": File("loop/start/labels.json", "images a human has drawn before the loop starts"),
        "pool": File("loop/start/pool.json", "images without labels, in a seeded order: each round shows the first of them"),
        "ledger": File("loop/start/ledger.json", "what the human did for them"),
        "unlabelled": File(
            "artifacts/split/unlabelled.json", "all images that training may use, without labels: where a start without labels begins"
        ),
        "truth": File(
            "artifacts/split/truth.json", "ground truth of those that are labelled, for simulated humans and for measuring judges"
        ),
        "validation": File("artifacts/split/validation.json", "labelled images held back from training"),
        "test_split": File("artifacts/split/test.json", "the test images"),
        "metrics": File("metrics/split.json", "images and instances per class and part, mask areas"),
        "plot": File("artifacts/split/classes.json", "the same as rows for a plot"),
    },
    params=("split",),
)


def main(
    train: Path, test: Path, without_labels: Path, labels: Path, pool: Path, ledger: Path, unlabelled: Path, truth: Path, validation: Path,
    test_split: Path, metrics: Path, plot: Path, settings: dict[str, Any],
) -> None:  # fmt: skip
    s = settings["split"]
    training, testing = read_instances(train), read_instances(test)
    initial_ids, pool_ids, validation_ids = split(training, s)
    first_labels, first_pool, first_log = start.initial(training, initial_ids, pool_ids, validation_ids)
    parts = {"initial": initial_ids, "pool": pool_ids, "validation": validation_ids}
    data = {name: subset(training, ids) for name, ids in parts.items()} | {"test": testing}
    nobody_labelled = read_instances(without_labels)["images"]
    write_json(labels, first_labels)
    write_json(pool, queue({**first_pool, "images": first_pool["images"] + nobody_labelled}, s.seed))
    annotation_log.write(ledger, first_log)
    everything = subset(training, initial_ids | pool_ids)
    write_json(unlabelled, queue({**everything, "images": everything["images"] + nobody_labelled, "annotations": []}, s.seed))
    write_json(truth, everything)
    write_json(validation, data["validation"])
    write_json(test_split, testing)
    numbers = statistics(data, len(nobody_labelled))
    write_json(metrics, numbers)
    write_json(plot, table(numbers))


if __name__ == "__main__":
    STAGE.run(main, __doc__)
