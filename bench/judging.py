"""Judgements a second: P(approve) from one forward pass over a batch, beside the first study's way.

The study asked one picture at a time, generated up to 128 tokens and looked for "yes". Here both ask the same randomly initialised model,
which hardly ever ends its answer by itself, so the study's way generates all 128. Its answers mean nothing; what it takes does.

`--model tiny`: a tiny LLaVA: what is compared is the number of passes, not a large model's arithmetic. `--model qwen2.5-vl-7b`: the shape
of Qwen2.5-VL-7B-Instruct in bfloat16 (17 GB on disk and on the GPU), two pictures of 640 x 480 beside each other. Without a GPU it needs
`--layers 1`, which tries the code and measures no such model.

Usage: python bench/judging.py [--model tiny] [--device auto] [--layers N] [--questions 32] [--batch-size 16] [--repeats 3]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import tiny_vlm

from vlm_itl.judges.vlm.questions import Question
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
from vlm_itl.settings import VlmJudge, load

PROMPT = load(ROOT / "params.yaml").judges["basic"].prompt.replace("{pred_class_names_str}", "zebra, zebra, bird")
LAYERS = {"text": 28, "vision": 32}  # of Qwen2.5-VL-7B


def questions(number: int, width: int, height: int) -> list[Question]:
    """About noise: every question's picture is another."""
    rng = np.random.default_rng(0)
    return [Question(PROMPT, (PIL.Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)),)) for _ in range(number)]


def qwen2_5_vl_7b(folder: Path, device: str, layers: int | None) -> Path:
    """A model of the shape of Qwen2.5-VL-7B-Instruct, random, saved with a tokenizer smaller than its vocabulary.

    Args:
        device: where it is made.
        layers: of text and of vision each; none: all.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, Qwen2VLVideoProcessor

    torch.manual_seed(0)
    words, ids = tiny_vlm.qwen_words()
    depth = layers or LAYERS["vision"]
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": layers or LAYERS["text"],
            "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 128000, "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
        },
        vision_config={
            "depth": depth, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
            "fullatt_block_indexes": [k for k in (7, 15, 23, 31) if k < depth],
        },
        **ids,
    )  # fmt: skip
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    pixels = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "size": {"shortest_edge": 56**2, "longest_edge": 1280 * 28**2}}
    processor = tiny_vlm.qwen_processor(Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, words, **pixels)
    return tiny_vlm.save(folder, model, processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "qwen2.5-vl-7b"), default="tiny")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--layers", type=int, help="text and vision layers of qwen2.5-vl-7b, each")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cuda = torch.cuda.is_available() and arguments.device != "cpu"
    if arguments.device == "cuda" and not cuda:
        sys.exit("error: torch sees no GPU")
    if arguments.model != "tiny" and not cuda and arguments.layers is None:
        sys.exit("error: a model of 8 billion parameters wants a GPU; --layers 1 tries the code without one")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        if arguments.model == "tiny":
            tiny_vlm.llava(path)
            asked, dtype = questions(arguments.questions, 64, 64), "float32"
        else:
            qwen2_5_vl_7b(path, "cuda" if cuda else "cpu", arguments.layers)
            gc.collect()  # what was saved is loaded anew
            asked, dtype = questions(arguments.questions, 2 * 640 + 8, 480), "bfloat16"
        common = {"kind": "vlm", "model": str(path), "dtype": dtype, "device": "cuda" if cuda else "cpu"}
        ways = {
            "the study's: one at a time, 128 tokens": VlmJudge(**common, answer="text", max_tokens=128, batch_size=1),
            "one forward pass, one at a time": VlmJudge(**common, batch_size=1),
            f"one forward pass, batches of {arguments.batch_size}": VlmJudge(**common, batch_size=arguments.batch_size),
        }
        rates: dict[str, list[float]] = {}
        tokens = {}
        described = False
        for name, settings in ways.items():
            backend = TransformersBackend(settings)
            [warm] = backend.answer(asked[:1])
            if not described:
                described = True
                print(describe(backend, arguments.model, arguments.layers, asked[0].pictures[0].size, warm.prompt_tokens))
            for _ in range(arguments.repeats):
                start = time.perf_counter()
                answers = dict(backend.ask(enumerate(asked)))
                rates.setdefault(name, []).append(len(answers) / (time.perf_counter() - start))
            tokens[name] = statistics.mean(a.completion_tokens for a in answers.values())
            del backend  # its model, before the next is loaded
            gc.collect()
    base = statistics.median(next(iter(rates.values())))
    for name, values in rates.items():
        rate = statistics.median(values)
        print(f"{name:40} {rate:8.2f} judgements/s (median of {len(values)}) {rate / base:6.1f} x   {tokens[name]:.0f} tokens an answer")
    if cuda:
        print(f"most GPU memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def describe(backend: TransformersBackend, name: str, layers: int | None, picture: tuple[int, int], prompt_tokens: int) -> str:
    """What was measured, in one line."""
    parameters = sum(p.numel() for p in backend.model.parameters())
    cut = "" if layers is None or name == "tiny" else f", CUT to {layers} of {LAYERS['text']} text and {LAYERS['vision']} vision layers"
    device = torch.cuda.get_device_name() if backend.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return (
        f"{name}, random weights{cut}: {parameters / 1e6:,.1f} million parameters in {backend.model.dtype}; {device}; "
        f"pictures of {picture[0]} x {picture[1]}, {prompt_tokens} tokens a question"
    )


if __name__ == "__main__":
    main()
