"""Turn verdicts into labels by the run's policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.files import read_json, write_json
from vlm_itl.judges import verdict
from vlm_itl.loop import labels as policies
from vlm_itl.pipeline.stage import Stage

STAGE = Stage(
    reads={
        "labels": "the previous run's labels",
        "pool": "the images that were judged",
        "ledger": "actions so far",
        "proposals": "what was judged",
        "verdicts": "what the judge said",
        "truth": "the pool's ground truth, opened for the policies annotate, correct and ground_truth only",
    },
    writes={"new_labels": "labels of this run", "new_pool": "images still without", "new_ledger": "actions up to this run"},
    options={"run": "the run's name in params.yaml"},
    params=("runs.{run}", "evaluate.judge_iou"),
)


def main(
    labels: Path, pool: Path, ledger: Path, proposals: Path, verdicts: Path, truth: Path,
    new_labels: Path, new_pool: Path, new_ledger: Path, run: str, settings: dict[str, Any],
) -> None:  # fmt: skip
    s = settings[f"runs.{run}"]
    needs_truth = s.policy in policies.NEED_TRUTH
    result = policies.update(
        run, s, read_json(labels), read_json(pool), read_json(proposals), verdict.read(verdicts),
        read_json(truth) if needs_truth else None, read_json(ledger), settings["evaluate.judge_iou"],
    )  # fmt: skip
    for path, value in zip((new_labels, new_pool, new_ledger), result):
        write_json(path, value)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
