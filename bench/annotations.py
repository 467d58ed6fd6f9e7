"""Memory and time to select from an annotation file as large as COCO's, beside the usual ways to read it.

Writes a generated instances file with COCO train2017's numbers (118,287 images, 860,001 annotations, about 450 MB; zipped as in COCO's
archive), then selects from it in fresh processes: with the project's reader, with `json.load`, and with pycocotools' `COCO`.
Usage: python bench/annotations.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
IMAGES, ANNOTATIONS, CLASSES = 118_287, 860_001, 80
MEMBER = "annotations/instances_train2017.json"


def write_file(path: Path) -> None:
    """COCO's fields and order of keys; polygons of 27 corners on average, two decimals."""
    rng = random.Random(0)
    with path.open("w") as out:
        out.write('{"info": {"description": "generated"}, "licenses": [], "images": [')
        for k in range(1, IMAGES + 1):
            row = {
                "license": 3, "file_name": f"{k:012d}.jpg", "coco_url": f"http://images.cocodataset.org/train2017/{k:012d}.jpg",
                "height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45",
                "flickr_url": f"http://farm9.staticflickr.com/8186/{k:010d}_z.jpg", "id": k,
            }  # fmt: skip
            out.write((", " if k > 1 else "") + json.dumps(row))
        out.write('], "annotations": [')
        for k in range(1, ANNOTATIONS + 1):
            x, y, r = rng.uniform(60, 580), rng.uniform(60, 420), rng.uniform(5, 55)
            polygon = [round(c + rng.uniform(-r, r), 2) for _ in range(rng.randint(4, 50)) for c in (x, y)]
            row = {
                "segmentation": [polygon], "area": round(r * r, 4), "iscrowd": int(k % 86 == 0), "image_id": rng.randint(1, IMAGES),
                "bbox": [round(x - r, 2), round(y - r, 2), round(2 * r, 2), round(2 * r, 2)],
                "category_id": min(CLASSES, 1 + int(rng.expovariate(0.06))), "id": k,
            }  # fmt: skip
            out.write((", " if k > 1 else "") + json.dumps(row))
        rows = [{"supercategory": "x", "id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]
        out.write(f'], "categories": {json.dumps(rows)}}}')


def ours(path: Path) -> int:
    import hashlib

    from vlm_itl.data.coco2017 import check_archive, read_member
    from vlm_itl.data.instances import normalise, parse_instances
    from vlm_itl.data.selection import category_ids, select
    from vlm_itl.settings import Select

    md5 = hashlib.md5(path.with_suffix(".zip").read_bytes()).hexdigest()
    choice = Select(categories=[f"class {i}" for i in (13, 16, 24, 70)])
    check_archive(path.with_suffix(".zip"), md5)
    instances = parse_instances(read_member(path.with_suffix(".zip"), MEMBER), "generated")
    data, _ = normalise(instances, category_ids(instances.category_names(), choice, "training"), "generated")
    return len(select(data, choice, "training")["images"])


def json_load(path: Path) -> int:
    with path.open() as stream:
        data = json.load(stream)
    return len({a["image_id"] for a in data["annotations"] if a["category_id"] in (13, 16, 24, 70)})


def pycocotools(path: Path) -> int:
    from pycocotools.coco import COCO

    coco = COCO(str(path))
    return len({i for c in (13, 16, 24, 70) for i in coco.getImgIds(catIds=[c])})


WAYS = {"ours (zip, checked, selected)": ours, "json.load": json_load, "pycocotools COCO()": pycocotools}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FILE"), help="run one way in this process and print its numbers")
    arguments = parser.parse_args()
    if arguments.one:
        start = time.perf_counter()
        images = WAYS[arguments.one[0]](Path(arguments.one[1]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": time.perf_counter() - start, "MiB": peak, "images": images}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        write_file(path)
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, MEMBER)
        print(f"{path.stat().st_size / 1e6:.0f} MB of JSON, {path.with_suffix('.zip').stat().st_size / 1e6:.0f} MB zipped")
        medians = {}
        for _ in range(arguments.repeats):
            for way in WAYS:
                done = subprocess.run([sys.executable, __file__, "--one", way, str(path)], stdout=subprocess.PIPE, text=True, check=True)
                medians.setdefault(way, []).append(json.loads(done.stdout.strip().splitlines()[-1]))
        first = None
        for way, runs in medians.items():
            seconds, peak = (statistics.median(r[k] for r in runs) for k in ("seconds", "MiB"))
            first = first or (seconds, peak)
            ratios = f"{seconds / first[0]:5.1f} x time, {peak / first[1]:4.1f} x memory"
            print(f"{way:32} {seconds:6.1f} s {peak:7.0f} MiB peak   {ratios}   {runs[0]['images']} images")


if __name__ == "__main__":
    main()
