"""Fetching COCO's pictures one by one: ours beside pycocotools' own download, and the bytes that selecting saves.

Both fetch the same pictures (640 x 480 JPEG, about COCO's mean size) from a server on loopback, in a process of its own, that waits
before each answer as a distant one would. `COCO.download` asks for one after the other and checks nothing; ours asks for several at a
time and decodes each. Usage: python bench/download.py [--images 300] [--latency 0.02] [--repeats 3]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

# sizes of the archives at images.cocodataset.org/zips and /annotations, bytes
TRAIN, VAL, ANNOTATIONS = 19_336_861_798, 815_585_330, 252_907_541
TRAIN_IMAGES = 118_287
STUDY_IMAGES = 2_792 + 260  # the first study's selection


def serve(folder: str, latency: float, pipe) -> None:
    from coco_server import CocoServer

    with CocoServer(Path(folder), latency) as server:
        pipe.send(server.url)
        pipe.recv()


def write_pictures(folder: Path, number: int) -> None:
    """Smooth fields with grain, which compress about as COCO's photographs do."""
    (folder / "train2017").mkdir(parents=True)
    for k in range(number):
        rng = np.random.default_rng(k)
        coarse = Image.fromarray(rng.integers(0, 255, (15, 20, 3), dtype=np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 14, (480, 640, 1))
        picture = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / "train2017" / f"{k:012d}.jpg", quality=90)


def ours(url: str, names: list[str], target: Path, connections: int) -> None:
    from vlm_itl.data.fetch import Wanted, fetch
    from vlm_itl.data.instances import picture_problem

    problem = functools.partial(picture_problem, image={"height": 480, "width": 640})
    done = fetch([Wanted(f"{url}/train2017/{n}", target / n, problem, 2**24) for n in names], {"127.0.0.1"}, connections, 5, 30, 300)
    assert done.files == len(names), done.failures


def pycocotools(url: str, names: list[str], target: Path) -> None:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.imgs = {k: {"id": k, "file_name": n, "coco_url": f"{url}/train2017/{n}"} for k, n in enumerate(names)}
    coco.download(str(target), list(coco.imgs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before each answer")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        www = Path(folder) / "www"
        write_pictures(www, arguments.images)
        names = sorted(p.name for p in (www / "train2017").iterdir())
        size = statistics.mean((www / "train2017" / n).stat().st_size for n in names)
        print(f"{len(names)} pictures of {size / 1e3:.0f} kB, {arguments.latency * 1e3:.0f} ms before each answer")
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(str(www), arguments.latency, there), daemon=True)
        process.start()
        url = here.recv()
        ways = {"pycocotools COCO.download, one by one": functools.partial(pycocotools, url, names)}
        ways |= {f"ours, {c} at a time": functools.partial(ours, url, names, connections=c) for c in (1, 4, 16, 32)}
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for k in range(arguments.repeats):
            for way, run in ways.items():
                target = Path(folder) / f"{k}-{list(ways).index(way)}"
                start = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    run(target=target)
                rates[way].append(len(names) / (time.perf_counter() - start))
        here.send(None)
    first = None
    for way, values in rates.items():
        rate = statistics.median(values)
        first = first or rate
        print(f"{way:40} {rate:6.0f} images/s (median of {len(values)}, {min(values):.0f} to {max(values):.0f})   {rate / first:4.1f} x")
    whole = TRAIN + VAL + ANNOTATIONS
    selected = ANNOTATIONS + STUDY_IMAGES * TRAIN / TRAIN_IMAGES
    print(
        f"bytes for the study's {STUDY_IMAGES:,} images: {selected / 1e6:,.0f} MB (annotations, and images at train2017's mean size) "
        f"beside {whole / 1e6:,.0f} MB of whole archives: {whole / selected:.0f} times fewer"
    )


if __name__ == "__main__":
    main()
