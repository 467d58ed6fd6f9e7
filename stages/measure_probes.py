"""Measure a judge on the probes and choose the threshold that costs least. Not for setting it: that is params.yaml's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.coco import read_instances, read_results
from vlm_itl.core.files import write_json
from vlm_itl.judges import verdict
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.probes.metrics import measure

STAGE = Stage(
    reads={
        "pool": File("artifacts/probes/pool.json", "the probes"),
        "proposals": File("artifacts/probes/proposals.json", "their masks"),
        "truth": File("artifacts/probes/truth.json", "their true masks"),
        "verdicts": File("artifacts/probes/{judge}/verdicts.jsonl", "what the judge said of them"),
    },
    writes={
        "metrics": File(
            "metrics/probes/{judge}.json", "AUROC, Brier score, approvals by kind, class and number of instances; the threshold"
        ),
        "curve": File("artifacts/probes/{judge}/iou.json", "P(approve) by the IoU of the changed mask"),
        "reliability": File("artifacts/probes/{judge}/reliability.json", "share of right probes by P(approve)"),
    },
    options={"judge": "the probed judge's name in params.yaml"},
    params=("probes.prices", "evaluate.judge_iou"),
)


def main(
    pool: Path,
    proposals: Path,
    truth: Path,
    verdicts: Path,
    metrics: Path,
    curve: Path,
    reliability: Path,
    settings: dict[str, Any],
) -> None:
    results = measure(
        read_instances(pool),
        read_results(proposals),
        read_instances(truth),
        verdict.read(verdicts),
        settings["evaluate.judge_iou"],
        settings["probes.prices"],
    )
    for path, value in zip((metrics, curve, reliability), results):
        write_json(path, value)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
