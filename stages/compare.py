"""Can this experiment tell judges apart, does approval pay, and is an arm no worse than the reference arm?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core import typed
from vlm_itl.core.files import read_json
from vlm_itl.core.redact import say
from vlm_itl.metrics.matches import load
from vlm_itl.metrics.verdicts import plan, verdicts
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={
        "matches": File("artifacts/matches", "folder of matches on the test images, one file a run"),
        "cost": File("metrics/cost", "folder of labels and hours, one file a run"),
    },
    writes={"comparison": File("metrics/comparison.json", "assay, a row a compared arm, arms against the drawing curve")},
    params=("runs", "judges", "compare", "evaluate.seconds", "report.verify_seconds"),
    per_run={"matches": ".npz", "cost": ".json"},
    kinds=("judges/", "policies/"),  # whether one is simulated, takes part, draws
)


def main(matches: Path, cost: Path, comparison: Path, settings: dict[str, Any]) -> None:
    s = settings["compare"]
    chosen = plan(settings["runs"], settings["judges"], s)
    if not chosen.arms:
        say(f"nothing to compare: runs needs an arm of the judge '{s.reference}' (compare.reference) and another")
    models = {run: {0: load(matches / f"{run}.npz")} for run in chosen.runs}  # one seed: this experiment's
    costs = {run: {0: read_json(cost / f"{run}.json")} for run in [*chosen.drawing, *chosen.judged]}
    typed.write(comparison, verdicts(chosen, models, costs, s, settings["evaluate.seconds"], settings["report.verify_seconds"]))


if __name__ == "__main__":
    STAGE.run(main, __doc__)
