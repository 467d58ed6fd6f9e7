"""Turn verdicts into labels by the run's policy."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from vlm_itl.core.coco import read_instances, read_results
from vlm_itl.core.files import write_json
from vlm_itl.judges import verdict
from vlm_itl.loop import annotation_log
from vlm_itl.loop.policy import Policy
from vlm_itl.loop.update import update
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.registry import POLICIES

STAGE = Stage(
    reads={
        "labels": File("loop/{prev}/labels.json", "the previous run's labels"),
        "pool": File("loop/{prev}/pool.json", "the images that were judged"),
        "ledger": File("loop/{prev}/ledger.json", "actions so far"),
        "proposals": File("loop/{prev}/proposals.json", "what was judged"),
        "verdicts": File("loop/{run}/verdicts.jsonl", "what the judge said"),
        "truth": File(
            "artifacts/split/truth.json",
            "the pool's ground truth, opened for the policies annotate, correct and ground_truth only, and never where people draw",
        ),
        "drawings": File("drawings", "folder of what people drew, a folder a run, for `drawn_by: people`"),
    },
    writes={
        "new_labels": File("loop/{run}/labels.json", "labels of this run"),
        "new_pool": File("loop/{run}/pool.json", "images still without"),
        "new_ledger": File("loop/{run}/ledger.json", "actions up to this run"),
    },
    options={"run": "the run's name in params.yaml", "prev": "the run before"},
    params=("runs.{run}", "evaluate.judge_iou"),
    kinds=("policies/{run}",),
)


def main(
    labels: Path, pool: Path, ledger: Path, proposals: Path, verdicts: Path, truth: Path, drawings: Path,
    new_labels: Path, new_pool: Path, new_ledger: Path, run: str, settings: dict[str, Any],
) -> None:  # fmt: skip
    s = settings[f"runs.{run}"]
    policy: Policy = resolve_name(POLICIES[s.policy])()
    by_people = drawings / run if s.drawn_by == "people" else None
    labelled, left, log = update(
        run, s, policy, read_instances(labels), read_instances(pool), read_results(proposals), verdict.read(verdicts),
        read_instances(truth) if policy.sees_truth and by_people is None else None, annotation_log.read(ledger),
        settings["evaluate.judge_iou"], by_people,
    )  # fmt: skip
    write_json(new_labels, labelled)
    write_json(new_pool, left)
    annotation_log.write(new_ledger, log)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
