"""Any image-text-to-text model of transformers, on this machine.

Not for models whose code is not in transformers (AIDC-AI/Ovis2-8B): serve those, for example with vLLM, and use the `openai` back end.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText, AutoProcessor

from ...errors import UserError
from ...settings import VlmJudge
from .questions import Answer, Question

WEIGHTS = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model", ".py")


class TransformersBackend:
    """A model and its processor, loaded once."""

    def __init__(self, settings: VlmJudge) -> None:
        """Raises:
        UserError: the model cannot be found or loaded, `device: cuda` and there is none, or an option has no token of its own.
        """
        self.settings = settings
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise UserError("params.yaml: judges: device: cuda, but torch sees no GPU; use auto or cpu")
        self.device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
        where: dict[str, Any] = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
        try:
            self.processor = AutoProcessor.from_pretrained(settings.model, **where)
            self.model: Any = AutoModelForImageTextToText.from_pretrained(settings.model, dtype=settings.dtype, **where)
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"params.yaml: judges: model: {settings.model} cannot be loaded ({reason[:300]}); give a hub id, with a network or after "
                "`hf download`, or a folder with config.json, weights and processor"
            ) from None
        self.model = self.model.to(self.device).eval()
        self.tokenizer = getattr(self.processor, "tokenizer", self.processor)
        self.tokenizer.padding_side = "left"  # the answer's first position is then the last of every row
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if not getattr(self.processor, "chat_template", None):
            raise UserError(f"params.yaml: judges: model: {settings.model} has no chat template; an instruction-tuned model is needed")
        self._words = {token: self.tokenizer.decode([token]).strip().lower() for token in range(len(self.tokenizer))}
        commit = getattr(self.model.config, "_commit_hash", None)
        folder = Path(settings.model)
        self.identity = {
            "backend": "transformers",
            "model": "folder" if folder.is_dir() else settings.model,
            "revision": folder_hash(folder) if folder.is_dir() else commit or settings.revision,
            "dtype": str(self.model.dtype),
            "chat_template": hashlib.sha256(str(self.processor.chat_template).encode()).hexdigest()[:16],
            **settings.asking(),
        }
        self.versions = {name: version(name) for name in ("torch", "transformers", "tokenizers", "pillow")}

    def ask(self, questions: Iterable[tuple[int, Question]]) -> Iterator[tuple[int, Answer]]:
        """In batches of `batch_size`; one at a time where several samples are wanted, so that each has a seed of its own."""
        source = iter(questions)
        size = 1 if self.settings.samples > 1 else self.settings.batch_size
        while batch := list(itertools.islice(source, size)):
            numbers, asked = zip(*batch)
            yield from zip(numbers, self.answer(list(asked)))

    @torch.inference_mode()
    def answer(self, batch: list[Question]) -> list[Answer]:
        """Answer one batch.

        `generate` makes the one forward pass that a probability needs too: it knows each family's position ids under left padding, and asks
        for the last position's logits only where the class can (`logits_to_keep`).
        """
        s = self.settings
        start = time.perf_counter()
        inputs = self.inputs(batch)
        options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
        if s.samples > 1:
            torch.manual_seed(int.from_bytes(hashlib.sha256(batch[0].text.encode() + _bytes(batch[0])).digest()[:6], "big"))
            options |= {"do_sample": True, "temperature": s.temperature, "top_p": 1.0, "top_k": 0, "num_return_sequences": s.samples}
        made = self.model.generate(
            **inputs, **options, max_new_tokens=1 if s.answer == "probability" else s.max_tokens, return_dict_in_generate=True,
            output_logits=True, pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        first = made.logits[0].float()[:: s.samples]
        width = inputs["input_ids"].shape[1]
        texts = self.tokenizer.batch_decode(made.sequences[:, width:], skip_special_tokens=True)
        ends = {self.tokenizer.pad_token_id, self.tokenizer.eos_token_id}
        lengths = [sum(t not in ends for t in row) for row in made.sequences[:, width:].tolist()]
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / len(batch)
        answers = []
        for k, question in enumerate(batch):
            p, mass = self.probability(first[k], question)
            mine = slice(k * s.samples, (k + 1) * s.samples)
            answers.append(Answer(
                text=None if s.answer == "probability" else texts[mine][0], p_approve=p, option_mass=mass,
                prompt_tokens=int(inputs["attention_mask"][k].sum()), completion_tokens=sum(lengths[mine]), seconds=round(seconds, 4),
                samples=tuple(texts[mine]) if s.samples > 1 else (),
            ))  # fmt: skip
        return answers

    def inputs(self, batch: list[Question]) -> Any:
        """The processor's tensors: the pictures, then the text, in one user turn each, left-padded."""
        chats = [
            [{"role": "user", "content": [*({"type": "image", "image": p} for p in q.pictures), {"type": "text", "text": q.text}]}]
            for q in batch
        ]
        inputs = self.processor.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
        )
        inputs = inputs.to(self.device)
        accepted = inspect.signature(self.model.forward).parameters
        if "token_type_ids" in inputs and "token_type_ids" not in accepted:
            del inputs["token_type_ids"]
        for name, value in inputs.items():
            if torch.is_tensor(value) and value.is_floating_point():
                inputs[name] = value.to(self.model.dtype)
        return inputs

    def option_tokens(self, question: Question) -> tuple[list[int], list[int]]:
        """Tokens that are an option: every one that reads as a spelling, in any case and with any space, and the first of each spelling's
        own tokenisation, unless both options begin with it.

        Raises:
            UserError: an option is left without a token.
        """
        found = []
        for spellings in (question.approve, question.reject):
            words = {s.lower() for s in spellings}
            tokens = {t for t, word in self._words.items() if word in words}
            for s in spellings:
                for dressed in (s, s.capitalize(), s.upper(), f" {s}", f" {s.capitalize()}"):
                    ids = self.tokenizer.encode(dressed, add_special_tokens=False)
                    tokens |= set(ids[:1])
            found.append(tokens)
        both = found[0] & found[1]
        approve, reject = sorted(found[0] - both), sorted(found[1] - both)
        for own, spellings in ((approve, question.approve), (reject, question.reject)):
            if not own:
                raise UserError(f"params.yaml: judges: the tokenizer of {self.settings.model} gives {spellings} no first token of its own")
        return approve, reject

    def probability(self, logits: torch.Tensor, question: Question) -> tuple[float, float]:
        """(P(approve | an option), P(an option)) from the logits of one position, shape (vocabulary,)."""
        approve, reject = self.option_tokens(question)
        p = logits.double().softmax(-1)
        yes, no = float(p[approve].sum()), float(p[reject].sum())
        # both can underflow where the model is sure of something else
        return (yes / (yes + no) if yes + no > 0 else 0.5), yes + no


def _bytes(question: Question) -> bytes:
    return b"".join(p.tobytes() for p in question.pictures)


def folder_hash(folder: Path) -> str:
    """sha256 over the names and contents of a model folder's files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in WEIGHTS):
        digest.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


transformers.utils.logging.set_verbosity_error()
