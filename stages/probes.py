"""Make probes, questions with known answers, from the initial labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.coco import read_instances
from vlm_itl.core.files import write_json
from vlm_itl.core.redact import say
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.probes.making import make_probes

STAGE = Stage(
    reads={"labels": File("artifacts/held_back/held_out.json", "images that a human has drawn")},
    writes={
        "pool": File("artifacts/probes/pool.json", "one image a probe"),
        "proposals": File("artifacts/probes/proposals.json", "its masks, one of them changed"),
        "truth": File("artifacts/probes/truth.json", "its true masks"),
    },
    params=("probes.per_kind", "probes.seed"),
)


def main(labels: Path, pool: Path, proposals: Path, truth: Path, settings: dict[str, Any]) -> None:
    made = make_probes(read_instances(labels), settings["probes.per_kind"], settings["probes.seed"])
    for path, value in zip((pool, proposals, truth), made):
        write_json(path, value)
    say(f"{len(made[0]['images'])} probes")


if __name__ == "__main__":
    STAGE.run(main, __doc__)
