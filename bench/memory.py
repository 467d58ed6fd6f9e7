"""Peak memory of what handles all proposals at once, at 1,000, 10,000 and 100,000 images with one synthetic proposal each.

The end of predict (finished images, as they lie on disk, are put in order and written; the detector itself holds one batch), judging
(`confidence`) and the update of labels, the latter two through the stages' own command lines. Each runs in a process of its own.
Usage: python bench/memory.py
"""

from __future__ import annotations

import argparse
import filecmp
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

from vlm_itl.core.coco import encode
from vlm_itl.resume.progress import line_of

DONE = "scratch/predictions/bench/images.jsonl"


def write(folder: Path, number: int) -> None:
    """Pool, proposals, labels, ledger and truth of `number` images, every other one upright, with one round proposal each."""
    ys, xs = np.mgrid[:480, :640]
    masks = [(ys - 240) ** 2 + (xs - 320) ** 2 < r * r for r in range(60, 160)]
    rle = [[encode(mask) for mask in masks], [encode(mask.T) for mask in masks]]
    categories = [{"id": 1, "name": "bird"}]
    shapes = [{"height": 480, "width": 640}, {"height": 640, "width": 480}]
    images = [{"id": k, "file_name": f"{k}.jpg", **shapes[k % 2]} for k in range(1, number + 1)]
    rows = [
        {"image_id": k, "category_id": 1, "segmentation": rle[k % 2][k % 100], "bbox": [100.0, 100.0, 200.0, 200.0], "area": 31416.0,
         "score": 0.8 + 0.2 * (k % 2)}
        for k in range(1, number + 1)
    ]  # fmt: skip
    empty = {"images": [], "annotations": [], "categories": categories}
    for name, value in (("pool", {**empty, "images": images}), ("proposals", rows), ("labels", empty), ("truth", empty), ("ledger", [])):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
    (folder / "images").mkdir()
    (folder / DONE).parent.mkdir(parents=True)
    with (folder / DONE).open("wb") as stream:
        stream.writelines(line_of([row]) for row in rows[1::2] + rows[::2])  # in the order of prediction


def merge(folder: Path) -> None:
    """What predict does when the last batch is done; the file must be `proposals.json` over again."""
    from vlm_itl.core.files import read_json, write_json_list
    from vlm_itl.detectors.mask_rcnn.checkpoint import Progress
    from vlm_itl.detectors.mask_rcnn.prediction import in_order

    os.environ["VLM_ITL_SCRATCH"] = str(folder / "scratch")
    images = read_json(folder / "pool.json")["images"]
    alike = images[1::2], images[::2]
    batches = [group[k : k + 8] for group in alike for k in range(0, len(group), 8)]
    progress = Progress("bench", [len(batch) for batch in batches])
    assert progress.load() == len(batches)
    write_json_list(folder / "merged.json", in_order(progress.merged(len(batches)), batches, images))


def measured(*words: str) -> str:
    """Peak and seconds of a Python process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, words
    return f"{usage.ru_maxrss / 1024:7.0f} MiB {time.perf_counter() - start:5.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="*", help=argparse.SUPPRESS)
    match parser.parse_args().job:
        case ["write", name, number]:
            return write(Path(name), int(number))
        case ["merge", name]:
            return merge(Path(name))
    print(f"{'images':>10} {'proposals.json':>15} {'end of predict':>19} {'judge':>19} {'update':>19}")
    for number in (1_000, 10_000, 100_000):
        folder = Path(tempfile.mkdtemp())
        measured(__file__, "write", str(folder), str(number))  # not here: what a process inherits counts as its peak
        f = lambda name: str(folder / name)  # noqa: E731, B023
        predict = measured(__file__, "merge", str(folder))
        assert filecmp.cmp(folder / "merged.json", folder / "proposals.json", shallow=False)
        judge = measured(
            "-m", "stages.judge", "--judge", "confidence", "--pool", f("pool.json"), "--proposals", f("proposals.json"), "--images",
            f("images"), "--truth", f("truth.json"), "--folder", "judges/confidence", "--verdicts", f("verdicts.jsonl"), "--identity",
            f("judge.json"), "--metrics", f("asking.json"),
        )  # fmt: skip
        update = measured(
            "-m", "stages.update", "--run", "confidence-1", "--labels", f("labels.json"), "--pool", f("pool.json"), "--ledger",
            f("ledger.json"), "--proposals", f("proposals.json"), "--verdicts", f("verdicts.jsonl"), "--truth", f("truth.json"),
            "--new-labels", f("new-labels.json"), "--new-pool", f("new-pool.json"), "--new-ledger", f("new-ledger.json"),
        )  # fmt: skip
        size = (folder / "proposals.json").stat().st_size / 2**20
        print(f"{number:10,} {size:11.1f} MiB {predict} {judge} {update}", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
