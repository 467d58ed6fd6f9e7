"""Let a run's judge approve or reject the previous run's proposals, image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.files import read_json, write_jsonl
from vlm_itl.judging import judge as ask
from vlm_itl.stage import Stage

STAGE = Stage(
    reads={
        "pool": "images without labels",
        "proposals": "what the detector proposes on them",
        "truth": "the pool's ground truth, for simulated humans only",
        "prompt": "what the judge is asked",
    },
    writes={"verdicts": "one JSON line an image"},
    options={"judge": "the judge's name in params.yaml"},
    params=("judges.{judge}", "seed"),
)


def main(pool: Path, proposals: Path, truth: Path, prompt: Path, verdicts: Path, judge: str, settings: dict[str, Any]) -> None:
    rows = ask(
        read_json(pool), read_json(proposals), read_json(truth), prompt.read_text(encoding="utf-8"),
        settings[f"judges.{judge}"], settings["seed"],
    )  # fmt: skip
    write_jsonl(verdicts, rows)
    print(f"{judge}: {sum(v['approve'] for v in rows)} of {sum(v['asked'] for v in rows)} images with proposals approved "
          f"({len(rows)} in the pool)")  # fmt: skip


if __name__ == "__main__":
    STAGE.run(main, __doc__)
