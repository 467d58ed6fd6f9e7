"""Calibrate a judge by another one's answers to the probes: probabilities, and the thresholds that cost least at `probes.prices`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.base.files import read_json, read_jsonl, write_json
from vlm_itl.base.stage import Stage
from vlm_itl.evaluation.probes import calibrate

STAGE = Stage(
    reads={
        "pool": "the probes", "proposals": "their masks", "truth": "their true masks", "verdicts": "what the probed judge said of them",
        "identity": "who that was",
    },
    writes={"calibration": "scale and shift of P(approve), thresholds"},
    params=("probes.prices", "evaluate.judge_iou"),
)  # fmt: skip


def main(
    pool: Path, proposals: Path, truth: Path, verdicts: Path, identity: Path, calibration: Path, settings: dict[str, Any]
) -> None:  # fmt: skip
    of = read_json(identity)
    found = calibrate(
        read_json(pool), read_json(proposals), read_json(truth), read_jsonl(verdicts), settings["evaluate.judge_iou"],
        settings["probes.prices"],
    )  # fmt: skip
    write_json(calibration, {**found, "of": {key: of.get(key) for key in ("model", "revision", "prompt_md5")}})
    print(f"approve from {found['threshold']}; with a person, reject below {found['reject']} and approve from {found['approve']}")


if __name__ == "__main__":
    STAGE.run(main, __doc__)
