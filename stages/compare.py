"""Hold every arm against the reference arm: difference of mAP, interval, test, non-inferiority."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tqdm import tqdm

from vlm_itl.base.files import write_json
from vlm_itl.base.redact import say
from vlm_itl.base.stage import Stage
from vlm_itl.statistics.compare import compare, pairs
from vlm_itl.statistics.matches import load

STAGE = Stage(
    reads={"matches": "folder of matches on the test images, one file a run"},
    writes={"comparison": "a row a compared run"},
    params=("runs", "compare"),
    per_run={"matches": ".npz"},
)


def main(matches: Path, comparison: Path, settings: dict[str, Any]) -> None:
    s = settings["compare"]
    chosen = pairs(settings["runs"], s.reference)
    if not chosen:
        say(f"nothing to compare: runs needs an arm of the judge '{s.reference}' (compare.reference) and another")
    rows = {}
    for run, against in tqdm(chosen.items(), desc="comparing", unit="arm", disable=None):
        model, reference = ({0: load(matches / f"{name}.npz")} for name in (run, against))  # one seed: this experiment's
        rows[run] = {"against": against, **compare(model, reference, s)}
    write_json(comparison, rows)


if __name__ == "__main__":
    STAGE.run(main, __doc__)
