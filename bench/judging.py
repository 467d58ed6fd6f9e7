"""Judgements a second: P(approve) from one forward pass over a batch, beside the first study's way.

The study asked one picture at a time, generated up to 128 tokens and looked for "yes". Here both ask the same randomly initialised model,
which hardly ever ends its answer by itself, so the study's way generates all 128. A tiny LLaVA: what is compared is the number of passes,
not a large model's arithmetic. Usage: python bench/judging.py [--questions 32] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import tiny_vlm  # noqa: E402

from vlm_itl.judging.vlm.questions import Question  # noqa: E402
from vlm_itl.judging.vlm.transformers_backend import TransformersBackend  # noqa: E402
from vlm_itl.settings import VlmJudge  # noqa: E402

PROMPT = (ROOT / "prompts" / "basic.txt").read_text().replace("{pred_class_names_str}", "zebra, zebra, bird")


def questions(number: int, side: int) -> list[Question]:
    rng = np.random.default_rng(0)
    return [Question(PROMPT, (PIL.Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)),)) for _ in range(number)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = str(tiny_vlm.llava(Path(folder) / "model"))
        asked = questions(arguments.questions, 64)
        common = {"kind": "vlm", "model": model, "dtype": "float32"}
        ways = {
            "the study's: one at a time, 128 tokens": VlmJudge(**common, answer="text", max_tokens=128, batch_size=1),
            "one forward pass, one at a time": VlmJudge(**common, batch_size=1),
            f"one forward pass, batches of {arguments.batch_size}": VlmJudge(**common, batch_size=arguments.batch_size),
        }
        rates: dict[str, list[float]] = {}
        tokens = {}
        for name, settings in ways.items():
            backend = TransformersBackend(settings)
            backend.answer(asked[:1])
            for _ in range(arguments.repeats):
                start = time.perf_counter()
                answers = dict(backend.ask(enumerate(asked)))
                rates.setdefault(name, []).append(len(answers) / (time.perf_counter() - start))
            tokens[name] = statistics.mean(a.completion_tokens for a in answers.values())
    base = statistics.median(next(iter(rates.values())))
    for name, values in rates.items():
        rate = statistics.median(values)
        print(f"{name:40} {rate:8.2f} judgements/s (median of {len(values)}) {rate / base:6.1f} x   {tokens[name]:.0f} tokens an answer")


if __name__ == "__main__":
    main()
