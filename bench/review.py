"""Can people work without waiting? How long the program takes to open many images, to draw one, to keep a decision, and to show the next.

The last is measured in a headless Chromium, from a key to the frame in which the next picture is painted, with photographs of 640 x 480
pixels and five masks each. Usage: python bench/review.py [--images 100000] [--decisions 1000]
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "bench")]

import numpy as np
import PIL.Image
from browser import PROGRAM, Browser
from people import PAGE, Program, answer
from rendering import scene
from scipy import ndimage

from vlm_itl.core.coco import by_image
from vlm_itl.core.files import write_json
from vlm_itl.judges.person.answers import Answers, written
from vlm_itl.judges.person.items import Item, cases
from vlm_itl.judges.person.judge import PersonJudge
from vlm_itl.review.painting import paint
from vlm_itl.review.session import Session

READY = "current && current.start !== null && !unsaved && !document.getElementById('yes').disabled"
NEXT = """(async () => {{
  const before = current, begin = performance.now();
  document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}));
  while (current === before || (current && current.start === null) || unsaved) {{
    await new Promise((go) => setTimeout(go, 0));
    if (performance.now() - begin > 60000) throw new Error("no next picture");
  }}
  return current ? current.start - begin : -1;
}})()"""


def quantiles(values: list[float], unit: str = "ms") -> str:
    half, most = np.quantile(values, [0.5, 0.95])
    return f"median {half:.1f} {unit}, 95 % {most:.1f}, most {max(values):.1f} ({len(values):,})"


def opening(folder: Path, images: int) -> None:
    """A batch that is in memory, as after reading its JSON, to the first item."""
    _, rows = scene()
    names = [{"id": k, "name": name} for k, name in enumerate(("stop sign", "bird", "zebra", "book"), 1)]
    pool = {"images": [], "annotations": [], "categories": names}
    proposals = []
    for i in range(1, images + 1):
        md5 = hashlib.md5(str(i).encode()).hexdigest()
        pool["images"].append({"id": i, "file_name": f"{i}.png", "width": 640, "height": 480, "md5": md5})
        proposals += [{**row, "image_id": i, "category_id": 1 + k % 4} for k, row in enumerate(rows[: 1 + i % 3])]
    for unit in ("image", "instance"):
        judge = PersonJudge(kind="person", unit=unit)
        begin = time.perf_counter()
        batch = list(cases(pool, proposals, folder, judge))
        session = Session(judge, batch, [], Answers(folder / unit / "answers.jsonl"), ["ana"])
        found = session.next("ana", PAGE)
        print(f"unit {unit}: {images:,} images open in {time.perf_counter() - begin:.1f} s")
        took: dict[str, list[float]] = {"answer": [], "next": [], "ahead": [], "progress": []}
        for number in range(300):
            moments = [time.perf_counter()]
            session.answer("ana", PAGE, found.key, "yes", "", 1.0, 0.0, 0.0, f"{number:032x}", "a" * 64, "b" * 64)
            moments.append(time.perf_counter())
            found = session.next("ana", PAGE)
            moments.append(time.perf_counter())
            session.ahead("ana", PAGE, found.key)
            moments.append(time.perf_counter())
            session.progress("ana")
            moments.append(time.perf_counter())
            for what, (begin, end) in zip(took, itertools.pairwise(moments)):
                took[what].append(1000 * (end - begin))
        for what, values in took.items():
            print(f"  {what}: {quantiles(values)}")
    judge = PersonJudge(kind="person")
    batch = list(cases(pool, proposals, folder, judge))
    lines = [answer(k % 80_000, case.keys[0], id=f"{k:032x}") for k, case in enumerate(batch[: images * 9 // 10])]
    file = folder / "answers.jsonl"
    file.write_bytes(b"".join(written(line) for line in lines))
    begin = time.perf_counter()
    Session(judge, batch, [], Answers(file), ["ana"]).next("ana", PAGE)
    print(f"of these {len(lines):,} answered ({file.stat().st_size / 2**20:.0f} MiB): open in {time.perf_counter() - begin:.1f} s more")


def photographs(folder: Path, number: int) -> tuple[dict, list[dict]]:
    _, rows = scene()
    folder.mkdir(parents=True, exist_ok=True)
    pool = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "bird"}]}
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(480, 640, 3)), (6, 6, 0))
    pixels = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    for i in range(1, number + 1):
        PIL.Image.fromarray(np.roll(pixels, (i // 640, i % 640), (0, 1))).save(folder / f"{i}.jpg", quality=90)
        md5 = hashlib.md5((folder / f"{i}.jpg").read_bytes()).hexdigest()
        pool["images"].append({"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480, "md5": md5})
    return pool, [{**row, "image_id": i, "category_id": 1} for i in range(1, number + 1) for row in rows]


def drawing(folder: Path, pool: dict, proposals: list[dict]) -> None:
    """Read, check, draw and write as PNG."""
    shown = by_image(proposals)
    judge = PersonJudge(kind="person")
    for kind, number in (("image", 5), ("mask", 1), ("missing", 5)):
        took, sizes = [], []
        for image in pool["images"][:100]:
            item = Item(kind, image, tuple(shown[image["id"]][:number]), {1: "bird"})
            since = time.perf_counter()
            painted = paint(item, folder, judge.render)
            took.append(1000 * (time.perf_counter() - since))
            sizes.append(sum(map(len, painted.pictures)))
        print(f"drawing, {kind}: {quantiles(took)}; {statistics.mean(sizes) / 1024:.0f} KiB")


def painting(folder: Path, pool: dict, proposals: list[dict], decisions: int, pause: float) -> None:
    program = Program(folder, {1: [(1, 1, 5, 5)]})
    write_json(folder / "loop/start/pool.json", pool)
    write_json(folder / "loop/start/proposals.json", [{**row, "score": 0.9} for row in proposals])
    with program, Browser(folder / "profile") as browser:
        browser.open(program.address)
        browser.wait(READY)
        took = []
        for k in range(decisions):
            time.sleep(pause)  # a person looks; what comes next is brought meanwhile
            asked = browser.call(
                "Runtime.evaluate", expression=NEXT.format(key="y" if k % 3 else "n"), returnByValue=True, awaitPromise=True
            )
            assert "value" in asked["result"], asked
            took.append(asked["result"]["value"])
        print(f"next picture painted, {pause:g} s after the one before: {quantiles(took)}")
    rows = [json.loads(line) for line in program.file.read_text().splitlines()]
    assert len(rows) == decisions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--decisions", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opening(folder, arguments.images)
        pool, proposals = photographs(folder / "work/artifacts/data/images", arguments.decisions + 1)
        drawing(folder / "work/artifacts/data/images", pool, proposals)
        if not PROGRAM:
            sys.exit("no Chromium here, so no picture was painted (apt-get install chromium)")
        painting(folder / "work", pool, proposals, arguments.decisions, 0.3)


if __name__ == "__main__":
    main()
