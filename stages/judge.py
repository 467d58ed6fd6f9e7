"""Let a run's judge approve or reject the previous run's proposals, image by image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from vlm_itl import timing
from vlm_itl.base import processor
from vlm_itl.base.coco import first
from vlm_itl.base.files import read_json, scratch, write_json, write_jsonl
from vlm_itl.base.redact import say
from vlm_itl.base.settings import VlmJudge
from vlm_itl.base.stage import Stage
from vlm_itl.judging import judge as ask
from vlm_itl.judging import question
from vlm_itl.judging.simple import simulated_person

STAGE = Stage(
    reads={
        "pool": "images without labels; the run's batch is the first of them",
        "proposals": "what the detector proposes on them",
        "images": "folder of the images, which a VLM looks at",
        "truth": "the pool's ground truth, for simulated humans only",
        "folder": "the judge's own: prompt.txt, or of a calibrated one calibration.json",
    },
    writes={
        "verdicts": "one JSON line an image",
        "identity": "which judge this was: model, revision, prompt, settings, versions",
        "metrics": "questions, unparsed answers and tokens of a VLM",
    },
    options={"judge": "the judge's name in params.yaml", "run": "the run's name there, whose batch this is; none: the whole pool"},
    optional=frozenset({"run"}),
    params=("processor", "runs.{run}", "judges.{judge}", "seed"),
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
        from vlm_itl.judging import vlm

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
