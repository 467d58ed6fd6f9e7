"""Peak memory of judging (`confidence`) and of the update of labels, at 1,000, 10,000 and 100,000 synthetic proposals.

Each size runs in a process of its own, through the stages' own command lines, on one image a proposal. Usage: python bench/memory.py
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from vlm_itl.coco import encode  # noqa: E402


def write(folder: Path, number: int) -> None:
    """Pool, proposals, labels, ledger and truth of `number` images of 480 x 640 with one round proposal each."""
    ys, xs = np.mgrid[:480, :640]
    masks = [encode((ys - 240) ** 2 + (xs - 320) ** 2 < r * r) for r in range(60, 160)]
    categories = [{"id": 1, "name": "bird"}]
    images = [{"id": k, "file_name": f"{k}.jpg", "height": 480, "width": 640} for k in range(1, number + 1)]
    rows = [
        {"image_id": k, "category_id": 1, "segmentation": masks[k % 100], "bbox": [100.0, 100.0, 200.0, 200.0], "area": 31416.0,
         "score": 0.8 + 0.2 * (k % 2)}
        for k in range(1, number + 1)
    ]  # fmt: skip
    empty = {"images": [], "annotations": [], "categories": categories}
    for name, value in (("pool", {**empty, "images": images}), ("proposals", rows), ("labels", empty), ("truth", empty), ("ledger", [])):
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "images").mkdir()


def measured(*words: str) -> tuple[float, float]:
    """(MiB at the peak, seconds) of a stage."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, words
    return usage.ru_maxrss / 1024, time.perf_counter() - start


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"{'proposals':>10} {'proposals.json':>15} {'judge':>18} {'update':>18}")
    for number in (1_000, 10_000, 100_000):
        folder = Path(tempfile.mkdtemp())
        write(folder, number)
        f = lambda name: str(folder / name)  # noqa: E731, B023
        judge = measured(
            "stages.judge", "--judge", "confidence", "--pool", f("pool.json"), "--proposals", f("proposals.json"), "--images", f("images"),
            "--truth", f("truth.json"), "--prompt", "prompts/confidence.txt", "--verdicts", f("verdicts.jsonl"), "--identity",
            f("judge.json"), "--metrics", f("asking.json"),
        )  # fmt: skip
        update = measured(
            "stages.update", "--run", "confidence-1", "--labels", f("labels.json"), "--pool", f("pool.json"), "--ledger", f("ledger.json"),
            "--proposals", f("proposals.json"), "--verdicts", f("verdicts.jsonl"), "--truth", f("truth.json"), "--new-labels",
            f("new-labels.json"), "--new-pool", f("new-pool.json"), "--new-ledger", f("new-ledger.json"),
        )  # fmt: skip
        size = (folder / "proposals.json").stat().st_size / 2**20
        print(f"{number:10,} {size:11.1f} MiB {judge[0]:7.0f} MiB {judge[1]:5.1f} s {update[0]:7.0f} MiB {update[1]:5.1f} s", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
