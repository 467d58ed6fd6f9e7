"""Make the small vision-language model that the default run's judges begin with, from nothing, on drawn scenes that the run never sees.

    python -m vlm_itl.tools.drawn_vlm --out scratch/vlm
    python -m vlm_itl.tools.drawn_vlm --out judges/vlm/model --start scratch/vlm --steps 3000 --learning-rate 0.001 --seed 1001

The counterpart of what a hub model learned from the web: it has been taught about the four drawn classes, on thousands of other scenes with
their truth. No such thing exists for photographs, so nothing about real models follows from it. Not for photographs.

FastVLM (Vasu et al., CVPR 2025, a native class of transformers) with a ResNet-10 of timm as its tower and a two-layer Qwen2. From random
weights a convolutional tower learns where things are within a few hundred steps, where a CLIP tower of the same cost has learned nothing.
Besides the answer, the tower learns what it looks at: of each cell of its last feature map, the share that each class, the things asked
about, others and the mask cover. The head for that is thrown away.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from vlm_itl.core.coco import decode
from vlm_itl.core.files import write_json
from vlm_itl.core.matching import iou_matrix
from vlm_itl.core.redact import say
from vlm_itl.data.synthetic.dataset import write_dataset
from vlm_itl.data.synthetic.things import CATEGORIES
from vlm_itl.judges import rendering
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
from vlm_itl.probes.metrics import auroc
from vlm_itl.settings import Render, VlmJudge, load
from vlm_itl.verifier.batches import WORKER, Asking, Collating, Drawn, answer_loss, first_logits
from vlm_itl.verifier.examples import Example, Examples

SIDE, CELL = 128, 16  # pixels of a picture, and of a cell of the tower's last feature map
CHANNELS = (24, 48, 96, 160)
WIDTH = 96  # of the language model
MAPS = len(CATEGORIES) + 3  # classes, things asked about, other things, the mask
RENDER = Render(contour=1)
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "</s>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def make(folder: Path, prompt: str) -> None:
    """A model of random weights, with its processor and a tokenizer that has whole words for the prompt, in a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        CLIPImageProcessor,
        FastVlmConfig,
        FastVlmForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
        Qwen2Config,
    )  # fmt: skip

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    corpus = [prompt, "yes or no", "no or yes", "yes", "no", "user:", "assistant:", *(f" {c['name']}, {c['name']}." for c in CATEGORIES)]
    raw.train_from_iterator(corpus * 20, trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<pad>", "<s>", "</s>", "<image>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))  # fmt: skip
    words = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left")
    text = Qwen2Config(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    vision = {
        "model_type": "timm_wrapper", "architecture": "resnet10t", "hidden_size": CHANNELS[-1], "do_pooling": False,
        "model_args": {"channels": list(CHANNELS), "stem_width": 16, "output_stride": CELL}, "label_names": ["none", "some"],
    }  # fmt: skip
    whole: dict[str, Any] = {
        "vision_config": vision, "text_config": text.to_dict(), "image_token_id": words.convert_tokens_to_ids("<image>"),
        "image_seq_length": (SIDE // CELL) ** 2, "pad_token_id": words.pad_token_id, "tie_word_embeddings": True,
    }  # fmt: skip
    pictures = CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2
    )
    FastVlmForConditionalGeneration(FastVlmConfig(**whole)).save_pretrained(folder)
    LlavaProcessor(
        image_processor=pictures, tokenizer=words, patch_size=CELL, vision_feature_select_strategy="full", num_additional_image_tokens=0,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip


Batch = tuple[list[Example], dict[str, torch.Tensor]]


def batches(examples: Examples, seed: int, question: Asking, backend: TransformersBackend, size: int, number: int) -> DataLoader[Any]:
    """So many batches of so many examples, as `Batch`."""
    collating = Collating(question, backend)
    drawn = Drawn(lambda n: examples.draw(seed, n), size * number)
    return DataLoader(drawn, batch_size=size, collate_fn=lambda made: (made, collating(made)), **WORKER)


def maps(example: Example, truth: list[dict[str, Any]], ids: list[int]) -> NDArray[np.float32]:
    """What each cell of each picture of a question shows, as shares of its area: (pictures, cells, MAPS)."""
    layers = np.zeros((MAPS, example.image["height"], example.image["width"]), bool)
    fits = iou_matrix(example.rows, truth)
    meant = {int(row.argmax()) for row in fits if row.size and row.max() >= 0.3}
    for place, row in enumerate(truth):
        mask = decode(row["segmentation"])
        layers[ids.index(row["category_id"])] |= mask
        layers[len(ids) + (place not in meant)] |= mask
    for row in example.rows:
        layers[-1] |= decode(row["segmentation"])
    layers = np.concatenate([layers, np.zeros((-MAPS % 3, *layers.shape[1:]), bool)]).astype(np.uint8) * 255
    views = [None] if example.kind == "missing" else [0.5, 0.1]  # the margins that the composer crops with
    result = []
    for margin in views:
        parts = []
        for three in layers.reshape(-1, 3, *layers.shape[1:]).transpose(0, 2, 3, 1):
            part = three if margin is None else rendering.crop(np.ascontiguousarray(three), example.rows[0], margin)
            parts.append(np.asarray(PIL.Image.fromarray(part).resize((SIDE // CELL,) * 2, PIL.Image.Resampling.BOX), np.float32) / 255)
        result.append(np.concatenate(parts, -1)[..., :MAPS].reshape(-1, MAPS))
    return np.stack(result)


class Teacher:
    """The model in training, with the head that reads the tower's feature map."""

    def __init__(self, backend: TransformersBackend, examples: Examples) -> None:
        self.backend, self.model, self.examples = backend, backend.model, examples
        self.head = nn.Linear(CHANNELS[-1], MAPS)
        self._seen: list[torch.Tensor] = []
        self.model.model.vision_tower.register_forward_hook(lambda _, __, out: self._seen.append(out.last_hidden_state))

    def parameters(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *self.head.parameters()]

    def losses(self, batch: Batch, options: tuple[list[int], list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """(of the answers, of the maps)."""
        examples, inputs = batch
        right = inputs.pop("right")
        with torch.autocast("cpu", torch.bfloat16):
            logits = first_logits(self.model, self.backend.placed(inputs))
            shares = self.head(self._seen.pop().flatten(2).transpose(1, 2)).float()
        wanted = torch.from_numpy(np.concatenate([maps(e, self.examples.truth[e.image["id"]], self.examples.ids) for e in examples]))
        # the mask itself is seen in the closer picture only
        counts = torch.ones_like(wanted)
        counts[[k for k, closer in enumerate(c for e in examples for c in ([0, 1] if e.kind == "mask" else [0])) if not closer], :, -1] = 0
        seen = functional.binary_cross_entropy_with_logits(shares, wanted, weight=counts)
        return answer_loss(logits, right, *options), seen


def train(
    out: Path, text: str, scenes: int, steps: int, size: int, rate: float, seed: int, start: Path | None = None
) -> dict[str, Any]:  # fmt: skip
    """Draw scenes, train from random weights or from those of `start`, save to `out`; AUROC on scenes held out."""
    torch.manual_seed(seed)
    if start is None:
        make(out, text)
    settings = VlmJudge(kind="vlm", model=str(start or out), unit="instance", render=RENDER, dtype="float32", device="cpu")
    backend = TransformersBackend(settings)
    model = backend.model.train()
    model.model.vision_tower.to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as drawn:
        write_dataset(Path(drawn), scenes, 400, 160, seed)
        parts = {name: json.loads(Path(drawn, f"{name}.json").read_text()) for name in ("train", "test")}
        made = {name: Examples(part, [], 0.6) for name, part in parts.items()}
        asking = {name: Asking(part, Path(drawn, "images"), text, settings) for name, part in parts.items()}
        teacher = Teacher(backend, made["train"])
        first = next(iter(made["train"].instances))
        options = backend.option_tokens(asking["train"](made["train"].draw(seed, first)))
        optimizer = torch.optim.AdamW(teacher.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98), fused=True)
        source = batches(made["train"], seed, asking["train"], backend, size, steps)
        mean = [0.7, 0.7]
        for step, batch in enumerate(bar := tqdm(source, total=steps, unit="step", mininterval=10)):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            answer, seen = teacher.losses(batch, options)
            optimizer.zero_grad()
            (answer + 2 * seen).backward()
            nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
            optimizer.step()
            mean = [0.98 * m + 0.02 * float(x.detach()) for m, x in zip(mean, (answer, seen))]
            bar.set_postfix_str(f"answers {mean[0]:.3f}, maps {mean[1]:.3f}", refresh=False)
        model.eval()
        p, right, kinds = [], [], []
        with torch.inference_mode():
            for examples, inputs in batches(made["test"], seed + 1, asking["test"], backend, 50, 40):
                right += inputs.pop("right").tolist()
                logits = first_logits(model, backend.placed(inputs)).float()
                p += (logits[:, options[0]].logsumexp(-1) - logits[:, options[1]].logsumexp(-1)).tolist()
                kinds += [e.kind for e in examples]
    model.to(memory_format=torch.contiguous_format).half().save_pretrained(out)
    backend.processor.save_pretrained(out)
    write_json(out / "classes.json", [c["name"] for c in CATEGORIES])  # what it knows; a judge of others is refused
    return {
        kind: auroc(np.array([x for x, k in zip(p, kinds) if k == kind]), np.array([r for r, k in zip(right, kinds) if k == kind]))
        for kind in ("mask", "missing")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--start", type=Path, help="folder of a model to go on from; random weights where it is left out")
    parser.add_argument("--judge", default="vlm", help="the judge in params.yaml whose question it is taught (default %(default)s)")
    parser.add_argument("--scenes", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=1000, help="of scenes, weights and examples; not that of an experiment's data")
    a = parser.parse_args()
    judge = load().judges.get(a.judge)
    if not isinstance(judge, VlmJudge):
        parser.error(f"--judge: params.yaml has no judge '{a.judge}' of kind vlm")
    numbers = train(a.out, judge.prompt, a.scenes, a.steps, a.batch_size, a.learning_rate, a.seed, a.start)
    say(f"AUROC on 400 other scenes: masks {numbers['mask']}, missing {numbers['missing']}")


if __name__ == "__main__":
    main()
