"""Let a run's judge approve or reject the previous run's proposals, image by image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from vlm_itl.core import processor, timing
from vlm_itl.core.coco import first
from vlm_itl.core.files import read_json, scratch, write_json, write_jsonl
from vlm_itl.core.redact import say
from vlm_itl.judges import judge as ask
from vlm_itl.judges import question
from vlm_itl.judges.simple import simulated_person
from vlm_itl.pipeline.stage import File, Stage
from vlm_itl.settings import VlmJudge

STAGE = Stage(
    reads={
        "pool": File("loop/{prev}/pool.json", "images without labels; the run's batch is the first of them"),
        "proposals": File("loop/{prev}/proposals.json", "what the detector proposes on them"),
        "images": File("artifacts/data/images", "folder of the images, which a VLM looks at"),
        "truth": File("artifacts/split/truth.json", "the pool's ground truth, for simulated humans only"),
        "folder": File("judges/{judge}", "the judge's own: prompt.txt, or of a calibrated one calibration.json"),
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
    batch = first(read_json(pool), settings[f"runs.{run}"].batch if run else None)
    text, calibration = question(folder, s)
    if isinstance(s, VlmJudge):
        from vlm_itl.judges import vlm

        store = vlm.Store(scratch() / "answers")
        person = simulated_person(read_json(truth), s.human) if s.human else None
        rows, who, took = vlm.judge(batch, read_json(proposals), images, text, s, store, calibration=calibration, person=person)
    else:
        rows = ask(batch, read_json(proposals), read_json(truth), text, s, settings["seed"])
        who = {**s.model_dump(), "prompt_md5": hashlib.md5(text.encode()).hexdigest()}
        took = {"questions": sum(row.get("questions", 1) for row in rows if row["asked"])}
    seconds, machines = took.pop("seconds", None), took.pop("machines", 1)
    write_jsonl(verdicts, rows)
    if seconds is not None:
        timing.note(verdicts, seconds, machines)
    write_json(identity, who)
    write_json(metrics, took)
    asked = sum(v["asked"] for v in rows)
    if asked:
        say(f"{judge}: {sum(v['approve'] for v in rows)} of {asked} images with proposals approved ({len(rows)} in this round's batch)")
    else:
        say(f"{judge}: no proposals to judge in {len(rows)} images of this round's batch")


if __name__ == "__main__":
    STAGE.run(main, __doc__)
