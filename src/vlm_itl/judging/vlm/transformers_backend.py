"""Any image-text-to-text model of transformers, on this machine.

Not for models whose code is not in transformers (AIDC-AI/Ovis2-8B): serve those, for example with vLLM, and use the `openai` back end.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import inspect
import itertools
import math
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

import torch
import transformers
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from ...base.errors import UserError
from ...base.settings import VlmJudge
from ...pretrained import identity, loading
from .questions import Answer, Question, option_of, word

KEY = "judges: model"  # of params.yaml


class TransformersBackend:
    """A model and its processor, loaded at the first question that the store cannot answer."""

    def __init__(self, settings: VlmJudge) -> None:
        """Raises:
        UserError: `device: cuda` and there is none, or a hub id without a commit.
        """
        self.settings = settings
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise UserError("params.yaml: judges: device: cuda, but torch sees no GPU; use auto or cpu")
        self.device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
        self.versions = {name: version(name) for name in ("torch", "transformers", "tokenizers", "pillow")}
        self.identity = {
            "backend": "transformers",
            **identity(settings.model, settings.revision, KEY),
            "dtype": settings.dtype,
            "transformers": self.versions["transformers"],
            **settings.asking(),
        }
        self.batch_size = 1 if settings.samples > 1 else settings.batch_size  # smaller once the memory has run out
        self._options: dict[Any, tuple[list[int], list[int]]] = {}

    @functools.cached_property
    def processor(self) -> Any:
        with loading(self.settings.model, KEY):
            processor = AutoProcessor.from_pretrained(self.settings.model, **self._where())
        if not getattr(processor, "chat_template", None):
            raise UserError(f"params.yaml: judges: model: {self.settings.model} has no chat template; an instruction-tuned model is needed")
        return processor

    @functools.cached_property
    def tokenizer(self) -> Any:
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        tokenizer.padding_side = "left"  # the answer's first position is then the last of every row
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    @functools.cached_property
    def model(self) -> Any:
        with loading(self.settings.model, KEY):
            model: Any = AutoModelForImageTextToText.from_pretrained(self.settings.model, dtype=self.settings.dtype, **self._where())
        try:
            return model.to(self.device).eval()
        except torch.OutOfMemoryError:
            raise UserError(
                f"params.yaml: judges: model: {self.settings.model} in {model.dtype} does not fit into the memory of the {self.device} "
                "device; take dtype: bfloat16, a smaller model, or a server with more (backend: openai)"
            ) from None

    def _where(self) -> dict[str, Any]:
        return {"revision": self.settings.revision, "trust_remote_code": self.settings.trust_remote_code}

    def ask(self, questions: Iterable[tuple[int, Question]]) -> Iterator[tuple[int, Answer]]:
        """In batches of `batch_size`; one at a time where several samples are wanted, so that each has a seed of its own.

        A batch for which the memory does not suffice is halved, and so are the later ones.
        """
        source = iter(questions)
        waiting: list[tuple[int, Question]] = []
        while waiting := waiting or list(itertools.islice(source, self.batch_size)):
            batch, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
            numbers, asked = zip(*batch)
            try:
                answers = self.answer(list(asked))
            except torch.OutOfMemoryError:
                answers = []
            # only here is the error gone, with its traceback and the tensors of the frames in that
            if not answers:
                self._take_less(len(batch))
                waiting = batch + waiting
            yield from zip(numbers, answers)

    def _take_less(self, size: int) -> None:
        """After a batch of that size was too much.

        Raises:
            UserError: it was one question.
        """
        if size == 1:
            raise UserError(
                f"params.yaml: judges: model: {self.settings.model} runs out of memory on a single question; smaller pictures "
                "(render.longest), dtype: bfloat16, fewer samples, a smaller model or a server with more (backend: openai) need less"
            )
        self.batch_size = size // 2
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        tqdm.write(f"{self.settings.model}: out of memory with {size} questions at a time; {self.batch_size} from here on")

    @torch.inference_mode()
    def answer(self, batch: list[Question]) -> list[Answer]:
        """Answer one batch.

        `generate` makes the one forward pass that a probability needs too: it knows each family's position ids under left padding, and asks
        for the last position's logits only where the class can (`logits_to_keep`).
        """
        s = self.settings
        inputs = self.inputs(batch)
        options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
        if s.samples > 1:
            torch.manual_seed(_seed(batch[0]))
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
        answers = []
        for k, question in enumerate(batch):
            log_odds, mass = self.first_position(first[k], question)
            mine = slice(k * s.samples, (k + 1) * s.samples)
            answers.append(Answer(
                text=None if s.answer == "probability" else texts[mine][0], log_odds=log_odds, option_mass=mass,
                prompt_tokens=int(inputs["attention_mask"][k].sum()), completion_tokens=sum(lengths[mine]),
                samples=tuple(texts[mine]) if s.samples > 1 else (),
            ))  # fmt: skip
        return answers

    def tensors(self, batch: list[Question]) -> Any:
        """The processor's tensors: the pictures, then the text, in one user turn each, left-padded."""
        chats = [
            [{"role": "user", "content": [*({"type": "image", "image": p} for p in q.pictures), {"type": "text", "text": q.text}]}]
            for q in batch
        ]
        assert self.tokenizer.padding_side == "left"
        inputs = self.processor.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        )  # fmt: skip
        assert inputs["attention_mask"][:, -1].all()
        return inputs

    def placed(self, inputs: Any) -> Any:
        """On the model's device, in its floating-point type, without what it does not take."""
        accepted = inspect.signature(self.model.forward).parameters
        if "token_type_ids" in inputs and "token_type_ids" not in accepted:
            del inputs["token_type_ids"]
        for name, value in inputs.items():
            if torch.is_tensor(value):
                inputs[name] = value.to(self.device, self.model.dtype if value.is_floating_point() else None)
        return inputs

    def inputs(self, batch: list[Question]) -> Any:
        """`tensors`, `placed`."""
        return self.placed(self.tensors(batch))

    def option_tokens(self, question: Question) -> tuple[list[int], list[int]]:
        """Tokens that are an option: every one that reads as a spelling, in any case and with any space, and, for spellings of several
        tokens, the first of them, where it begins no spelling of the other option.

        Raises:
            UserError: an option is left without a token.
        """
        known = self._options.get((question.approve, question.reject))
        if known is not None:
            return known
        spellings = [*question.approve, *question.reject]
        dressed = [d for s in spellings for d in (s, s.capitalize(), s.upper(), f" {s}", f" {s.capitalize()}")]
        first = {ids[0] for d in dressed if (ids := self.tokenizer.encode(d, add_special_tokens=False))}
        exact = {s.lower() for s in spellings}
        words = {token: word(self.tokenizer.decode([token])) for token in range(len(self.tokenizer))}
        found: tuple[list[int], list[int]] = ([], [])
        for token, text in words.items():
            side = option_of(text, question) if text in exact or token in first else None
            if side is not None:
                found[side].append(token)
        for tokens, of in zip(found, (question.approve, question.reject)):
            if not tokens:
                raise UserError(f"params.yaml: judges: the tokenizer of {self.settings.model} gives {list(of)} no first token of its own")
        self._options[question.approve, question.reject] = found
        return found

    def first_position(self, logits: torch.Tensor, question: Question) -> tuple[float, float]:
        """(log-odds of approval, P(an option)) from the logits of one position, shape (vocabulary,).

        Raises:
            UserError: the model gave no numbers.
        """
        if not torch.isfinite(logits).any() or torch.isnan(logits).any():
            raise UserError(
                f"params.yaml: judges: {self.settings.model} gives NaN in {self.settings.dtype}; try dtype: bfloat16 or float32"
            )
        approve, reject = self.option_tokens(question)
        logp = logits.double().log_softmax(-1)
        yes, no = float(logp[approve].logsumexp(0)), float(logp[reject].logsumexp(0))
        return yes - no, math.exp(yes) + math.exp(no)


def _seed(question: Question) -> int:
    """The samples' dice hang on the question, so that it gets the same ones anywhere, and asked once more gets others."""
    content = [question.text.encode(), question.variant.encode(), *(p.tobytes() for p in question.pictures)]
    return int.from_bytes(hashlib.sha256(b"".join(content)).digest()[:6], "big")


transformers.utils.logging.set_verbosity_error()
