"""Calibrate a judge by another one's answers to the probes: probabilities, and the thresholds that cost least at `probes.prices`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.coco import read_instances, read_results
from vlm_itl.core.files import read_json, write_json
from vlm_itl.core.redact import say
from vlm_itl.judges import verdict
from vlm_itl.judges.calibration import probability
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.probes.metrics import calibrate, observations

STAGE = Stage(
    reads={
        "pool": File("artifacts/probes/pool.json", "the probes"),
        "proposals": File("artifacts/probes/proposals.json", "their masks"),
        "truth": File("artifacts/probes/truth.json", "their true masks"),
        "verdicts": File("artifacts/probes/{probed}/verdicts.jsonl", "what the probed judge said of them"),
        "identity": File("artifacts/probes/{probed}/judge.json", "who that was"),
    },
    writes={
        "calibration": File(
            "judges/{judge}/calibration.json", "scale and shift of log-odds, thresholds, and the identity of the probed judge"
        ),
    },
    options={"judge": "the judge that gets the thresholds", "probed": "the probed judge's name in params.yaml"},
    params=("probes.prices", "evaluate.judge_iou"),
)


def main(
    pool: Path, proposals: Path, truth: Path, verdicts: Path, identity: Path, calibration: Path, probed: str, settings: dict[str, Any]
) -> None:  # fmt: skip
    probes = observations(
        read_instances(pool), read_results(proposals), read_instances(truth), verdict.read(verdicts), settings["evaluate.judge_iou"]
    )  # fmt: skip
    found = calibrate(probes, settings["probes.prices"], probed)
    write_json(calibration, {**found, "of": read_json(identity)})
    alone, reject, approve = (
        "nothing" if found[k] is None else f"P {probability(found[k])} (log-odds {found[k]:.2f})"
        for k in ("threshold", "reject", "approve")
    )
    say(f"approve from {alone}; with a person, reject below {reject} and approve from {approve}")
    say(
        f"cost a probe: {found['cost']} on the probes themselves, {found['cost_held_out']} on source images held out, "
        f"{found['cost_always']} approving all, {found['cost_never']} approving none"
    )
    if found["too_few"]:
        say(
            f"WARNING: {found['probes']} probes of {found['sources']} images are too few: held out, these thresholds do not surely cost "
            "less than approving all or none; raise split.initial_fraction or hold_back.held_out"
        )


if __name__ == "__main__":
    STAGE.run(main, __doc__)
