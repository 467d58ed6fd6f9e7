"""Pictures a second: a 640 x 480 photograph with five masks, drawn by ours and by Detectron2's `Visualizer`.

Both start from the same pixels and RLE masks and end with pixels. The Visualizer needs OpenCV, which the project does not:
pip install --no-deps opencv-python-headless. Usage: python bench/rendering.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from vlm_itl.core.coco import encode
from vlm_itl.judges import rendering
from vlm_itl.settings import Render


def scene() -> tuple[np.ndarray, list[dict]]:
    """Noise, and five blobs of about 100 to 200 pixels' width."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)
    rows = []
    ys, xs = np.mgrid[:480, :640]
    for k in range(5):
        wobble = ndimage.gaussian_filter(rng.normal(size=(480, 640)), 12) * 300
        mask = np.hypot(xs - 110 - 105 * k, ys - 150 - 40 * k) + wobble < 70 + 5 * k
        label, _ = ndimage.label(mask)
        mask = label == np.bincount(label[mask]).argmax()
        y, x = np.nonzero(mask)
        rows.append({"segmentation": encode(mask), "bbox": [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]})
    return pixels, rows


def ours(pixels: np.ndarray, rows: list[dict], marks: bool) -> np.ndarray:
    return rendering.overlay(pixels, rows, Render(marks=marks))


def visualizer(pixels: np.ndarray, rows: list[dict], marks: bool) -> np.ndarray:
    from detectron2.utils.visualizer import Visualizer

    labels = [str(k + 1) for k in range(len(rows))] if marks else None
    return Visualizer(pixels).overlay_instances(masks=[r["segmentation"] for r in rows], labels=labels).get_image()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    pixels, rows = scene()
    for marks in (False, True):
        rates: dict[str, list[float]] = {"Detectron2 Visualizer": [], "ours": []}
        for _ in range(arguments.repeats):
            for name, way, number in (("Detectron2 Visualizer", visualizer, 5), ("ours", ours, 50)):
                way(pixels, rows, marks)
                start = time.perf_counter()
                for _ in range(number):
                    way(pixels, rows, marks)
                rates[name].append(number / (time.perf_counter() - start))
        base = statistics.median(rates["Detectron2 Visualizer"])
        for name, values in rates.items():
            rate = statistics.median(values)
            what = "with numbers" if marks else "masks only"
            print(f"{what:14} {name:22} {rate:7.1f} images/s (median of {len(values)}) {rate / base:6.1f} x")


if __name__ == "__main__":
    main()
