"""Answers and small worlds for tests of the judge that is a person, and of the program that asks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import PIL.Image
from conftest import instance

from vlm_itl.judges.person.answers import Answer

A, B, C = (2, 2, 12, 12), (20, 2, 12, 12), (2, 22, 12, 12)


def answer(number: int, item: str = "a" * 64, decision: str = "yes", **more) -> Answer:
    """The number-th answer, a second after the one before."""
    moment = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000Z"
    given = {
        "id": f"{number:032x}", "item": item, "decision": decision, "reason": "", "reviewer": "ana", "order": 1, "attempt": 1,
        "shown": moment, "answered": moment, "seconds": 1.5, "hidden": 0.0, "unit": "image", "masks": 1, "image": "a.jpg",
        "page": "b" * 64, "rendering": "c" * 64,
    }  # fmt: skip
    return Answer(**{**given, **more})


def world(folder: Path, boxes: dict[int, list], names: tuple[str, ...] = ("bird", "book")) -> tuple[dict, list[dict]]:
    """(pool, proposals) of pictures of 40 x 50 (height x width) pixels in a folder; `boxes` by image id."""
    folder.mkdir(parents=True, exist_ok=True)
    pool = {"images": [], "annotations": [], "categories": [{"id": k, "name": name} for k, name in enumerate(names, 1)]}
    for i in boxes:
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
        md5 = hashlib.md5((folder / f"{i}.png").read_bytes()).hexdigest()
        pool["images"].append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 50, "md5": md5})
    proposals = [instance(box, 1 + k % len(names), i, score=0.9) for i, some in boxes.items() for k, box in enumerate(some)]
    return pool, proposals
