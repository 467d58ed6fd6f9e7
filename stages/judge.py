"""Let a run's judge approve or reject the previous run's proposals, image by image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from vlm_itl.core import processor, timing
from vlm_itl.core.coco import first, read_instances, read_results
from vlm_itl.core.files import scratch, write_json
from vlm_itl.core.redact import say
from vlm_itl.judges import verdict
from vlm_itl.judges.base import Task
from vlm_itl.pipeline.stage import File, Stage

STAGE = Stage(
    reads={
        "pool": File("loop/{prev}/pool.json", "images without labels; the run's batch is the first of them"),
        "proposals": File("loop/{prev}/proposals.json", "what the detector proposes on them"),
        "images": File("artifacts/data/images", "folder of the images, which a VLM looks at"),
        "truth": File("artifacts/split/truth.json", "the pool's ground truth, for simulated humans only"),
        "folder": File("judges/{judge}", "the judge's own, with calibration.json where it is calibrated"),
    },
    writes={
        "verdicts": File("loop/{run}/verdicts.jsonl", "one JSON line an image"),
        "identity": File("loop/{run}/judge.json", "which judge this was: model, revision, prompt, settings, versions"),
        "metrics": File("metrics/asking/{run}.json", "questions, unparsed answers and tokens of a VLM"),
    },
    options={
        "judge": "the judge's name in params.yaml",
        "run": "the run's name there, whose batch this is; none: the whole pool",
        "prev": "the run before",
    },
    optional=frozenset({"run", "prev"}),
    params=("processor", "runs.{run}", "judges.{judge}", "seed"),
    kinds=("judges/{judge}",),
)


def main(
    pool: Path, proposals: Path, images: Path, truth: Path, folder: Path, verdicts: Path, identity: Path, metrics: Path, judge: str,
    settings: dict[str, Any], run: str | None = None,
) -> None:  # fmt: skip
    processor.choose(settings["processor"])
    s = settings[f"judges.{judge}"]
    batch = first(read_instances(pool), settings[f"runs.{run}"].batch if run else None)
    answers = scratch() / "answers"
    done = s.judge(Task(batch, read_results(proposals), images, partial(read_instances, truth), folder, answers, settings["seed"], run))
    rows, took = done.verdicts, dict(done.took)
    seconds, machines = took.pop("seconds", None), took.pop("machines", 1)
    verdict.write(verdicts, rows)
    if seconds is not None:
        timing.record(verdicts, seconds, machines)
    write_json(identity, done.identity)
    write_json(metrics, took)
    asked = sum(v.asked for v in rows)
    shown = sum(v.proposals > 0 for v in rows)
    if asked:
        say(f"{judge}: {sum(v.approve for v in rows)} of {asked} images with proposals approved ({len(rows)} in this round's batch)")
    elif shown:
        say(f"{judge}: none of {shown} images with proposals is answered yet: make review")
    else:
        say(f"{judge}: no proposals to judge in {len(rows)} images of this round's batch")


if __name__ == "__main__":
    STAGE.run(main, __doc__)
