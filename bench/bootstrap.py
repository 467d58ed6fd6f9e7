"""Seconds a paired replicate of the bootstrap: ours from matches made once, and pycocotools on every resample, in the same run.

Two made-up models on --images images of 4 classes, masks of 64 x 64. pycocotools runs in two ways: all of it on the resampled data set
(`evaluate` and `accumulate`), and `accumulate` alone, given the matches of the resampled images (which needs a change of its arrays, and
is the least that it could take). Of each a few replicates are timed. Usage: python bench/bootstrap.py [--images 5000] [--replicates 1000]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from vlm_itl.core.coco import encode
from vlm_itl.metrics.ap import average_precision, mean_ap
from vlm_itl.metrics.compare import multiplicities
from vlm_itl.metrics.matches import from_coco

CLASSES = 4
SIDE = 64


def square(x: int, y: int, size: int) -> dict[str, Any]:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y : y + size, x : x + size] = True
    return {"segmentation": encode(mask), "bbox": [float(v) for v in (x, y, size, size)], "area": float(size * size)}


def made_up(images: int, random: np.random.Generator) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """Truth (1.4 classes an image, 2 instances each) and the results of two models (each instance nearly, and some false ones)."""
    squares = {}

    def row(x: int, y: int, size: int, **more: Any) -> dict[str, Any]:
        key = (min(max(0, x), SIDE - 8), min(max(0, y), SIDE - 8), size)
        if key not in squares:
            squares[key] = square(*key)
        return {**squares[key], **more}

    annotations: list[dict[str, Any]] = []
    results: list[list[dict[str, Any]]] = [[], []]
    for image in range(1, images + 1):
        for c in range(1, CLASSES + 1):
            for _ in range(int(random.geometric(0.5)) if random.random() < 1.4 / CLASSES else 0):
                x, y, size = int(random.integers(0, 40)), int(random.integers(0, 40)), int(random.integers(8, 24))
                crowd = int(random.random() < 0.01)
                annotations.append(row(x, y, size, image_id=image, category_id=c, iscrowd=crowd, id=len(annotations) + 1))
                for model in results:
                    dx, dy = random.integers(-2, 3, 2)
                    model.append(row(x + int(dx), y + int(dy), size, image_id=image, category_id=c, score=float(random.random())))
            for model in results:
                for _ in range(random.poisson(1)):
                    x, y, size = int(random.integers(0, 40)), int(random.integers(0, 40)), int(random.integers(8, 24))
                    model.append(row(x, y, size, image_id=image, category_id=c, score=float(random.random() ** 2)))
    rows = [{"id": k, "height": SIDE, "width": SIDE} for k in range(1, images + 1)]
    return {"images": rows, "annotations": annotations, "categories": [{"id": c, "name": str(c)} for c in range(1, CLASSES + 1)]}, results


def coco(data: dict[str, Any]) -> COCO:
    made = COCO()
    made.dataset = data
    made.createIndex()
    return made


def evaluation_of(truth: dict[str, Any], results: list[dict[str, Any]]) -> COCOeval:
    numbered = [{**r, "id": k, "iscrowd": 0} for k, r in enumerate(results, 1)]
    evaluation = COCOeval(coco(truth), coco({**truth, "annotations": numbered}), "segm")
    evaluation.evaluate()
    return evaluation


def resampled(truth: dict[str, Any], results: list[dict[str, Any]], times: np.ndarray) -> COCOeval:
    """pycocotools on the data set with each image so many times over, evaluated."""

    def rows(of: list[dict[str, Any]]) -> list[dict[str, Any]]:
        by_image: dict[int, list[dict[str, Any]]] = {}
        for row in of:
            by_image.setdefault(row["image_id"], []).append(row)
        numbers = np.repeat(np.arange(1, len(times) + 1), times)
        return [{**row, "image_id": new, "id": 0} for new, old in enumerate(numbers.tolist(), 1) for row in by_image.get(old, [])]

    annotations = [{**row, "id": k} for k, row in enumerate(rows(truth["annotations"]), 1)]
    images = [{"id": k, "height": SIDE, "width": SIDE} for k in range(1, int(times.sum()) + 1)]
    return evaluation_of({**truth, "images": images, "annotations": annotations}, rows(results))


def accumulated(evaluation: COCOeval, times: np.ndarray) -> COCOeval:
    """pycocotools' `accumulate` over the matches that `evaluation` has, each image so many times over."""
    chosen = copy.copy(evaluation)
    old = evaluation.params
    index = np.repeat(np.arange(len(times)), times)
    parts = len(old.catIds) * len(old.areaRng)
    chosen.evalImgs = [evaluation.evalImgs[part * len(times) + i] for part in range(parts) for i in index]
    chosen.params = copy.deepcopy(old)
    chosen.params.imgIds = list(range(len(index)))
    chosen._paramsEval = copy.deepcopy(chosen.params)
    chosen.accumulate()
    return chosen


def ap_of(evaluation: COCOeval) -> float:
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--theirs", type=int, default=3, help="replicates that pycocotools is timed on")
    parser.add_argument("--repeats", type=int, default=3, help="how often ours is timed")
    arguments = parser.parse_args()
    truth, results = made_up(arguments.images, np.random.default_rng(0))
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        evaluations = [evaluation_of(truth, r) for r in results]
        once = time.perf_counter() - start
        for evaluation in evaluations:
            evaluation.accumulate()
    matches = [from_coco(evaluation) for evaluation in evaluations]
    print(f"{arguments.images:,} images, {len(truth['annotations']):,} instances, {[len(r) for r in results]} detections")
    ones = np.ones((1, arguments.images), dtype=int)
    apart = max(abs(float(mean_ap(average_precision(m, ones))[0]) - ap_of(e)) for m, e in zip(matches, evaluations))
    print(f"AP {[round(ap_of(e), 4) for e in evaluations]}; ours differs by {apart:.1e} on the images as they are")

    times = np.concatenate(list(multiplicities(arguments.replicates, arguments.images, 0)))
    ours = []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        replicates = [mean_ap(average_precision(m, times)) for m in matches]
        ours.append((time.perf_counter() - start) / arguments.replicates)
    full, alone, apart = [], [], 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        for k in range(arguments.theirs):
            start = time.perf_counter()
            theirs = [resampled(truth, r, times[k]) for r in results]
            for evaluation in theirs:
                evaluation.accumulate()
            full.append(time.perf_counter() - start)
            apart = max(apart, *(abs(ap_of(e) - float(mine[k])) for e, mine in zip(theirs, replicates)))
            start = time.perf_counter()
            [accumulated(evaluation, times[k]) for evaluation in evaluations]
            alone.append(time.perf_counter() - start)
    print(
        f"on {arguments.theirs} resamples ours differs by at most {apart:.1e} (detections of one image tied in score apart: there are none)"
    )
    print(f"matching once, before: {once:.1f} s for both models")
    base = statistics.median(ours)
    for name, seconds in (("ours", ours), ("pycocotools, accumulate alone", alone), ("pycocotools, evaluate and accumulate", full)):
        middle = statistics.median(seconds)
        shown = ", ".join(f"{s * 1000:.2f}" for s in seconds)
        print(f"{name:38} {middle * 1000:10.2f} ms a paired replicate (median of {len(seconds)}: {shown}) {middle / base:9.0f} x")
    print(f"{arguments.replicates:,} paired replicates: ours {base * arguments.replicates:.1f} s, pycocotools "
          f"{statistics.median(full) * arguments.replicates / 3600:.1f} h (extrapolated)")  # fmt: skip


if __name__ == "__main__":
    main()
