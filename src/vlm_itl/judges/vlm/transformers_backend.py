"""Any image-text-to-text model of transformers, on this machine.

A model folder may be a stranger's: its code does not run unless `trust_remote_code` says so, its weights are not unpickled, and its chat
template runs in jinja's sandbox and for seconds at most.

Not for models whose code is not in transformers (AIDC-AI/Ovis2-8B): serve those, for example with vLLM, and use the `openai` back end.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import inspect
import itertools
import math
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm_itl.core.errors import UserError
from vlm_itl.core.pretrained import identity, loading
from vlm_itl.core.processor import chosen
from vlm_itl.core.redact import say
from vlm_itl.judges.vlm.questions import Answer, Question, asking, option_of
from vlm_itl.judges.vlm.reading import MARK, opened
from vlm_itl.judges.vlm.settings import VlmJudge

KEY = "judges: model"  # of params.yaml
RENDERING = 10  # seconds that a chat template may take, which comes with the model and may be a stranger's


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
            **({"processor": chosen()} if self.device == "cpu" else {}),
            **asking(settings),
        }
        self.batch_size = 1 if settings.samples > 1 else settings.batch_size  # smaller once the memory has run out
        self._options: dict[Any, tuple[list[int], list[int]]] = {}

    @functools.cached_property
    def processor(self) -> Any:
        with loading(self.settings.model, KEY):
            processor = AutoProcessor.from_pretrained(self.settings.model, **self._where())
        if not hasattr(processor, "image_processor"):
            raise UserError(f"params.yaml: {KEY}: {self.settings.model} has no processor of pictures; a vision-language model is needed")
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
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                self.settings.model, dtype=self.settings.dtype, use_safetensors=True, output_loading_info=True, **self._where()
            )
        model, info = loaded
        random = sorted(set(info["missing_keys"]) & {name for name, _ in model.named_parameters()})
        if random:  # transformers begins with random ones, and only warns
            raise UserError(
                f"params.yaml: {KEY}: {self.settings.model} lacks {len(random)} of the weights of a {type(model).__name__} ({random[0]}, "
                "...); is it another model's folder?"
            )
        try:
            return model.to(self.device).eval()
        except torch.OutOfMemoryError:
            raise UserError(
                f"params.yaml: judges: model: {self.settings.model} in {model.dtype} does not fit into the memory of the {self.device} "
                "device; take dtype: bfloat16, a smaller model, or a server with more (backend: openai)"
            ) from None

    @functools.cached_property
    def chat_template(self) -> str:
        """The processor's, or the tokenizer's, which in some folders alone has one (tokenizer_config.json).

        Raises:
            UserError: there is none, it has no place for pictures, or it does not read an argument that the settings give it.
        """
        name = self.settings.model
        found = [getattr(owner, "chat_template", None) for owner in (self.processor, self.tokenizer)]
        named = [template.get("default") if isinstance(template, dict) else template for template in found]
        template: str | None = next((t for t in named if t), None)
        if template is None:
            raise UserError(f"params.yaml: {KEY}: {name} has no chat template; an instruction-tuned model is needed")
        for argument in self.settings.template:
            if not re.search(rf"\b{re.escape(argument)}\b", template):
                raise UserError(f"params.yaml: judges: template: the chat template of {name} has no '{argument}'; leave it out")
        one, two = (self._templated(template, [{"type": "image"}] * n + [{"type": "text", "text": "."}]) for n in (1, 2))
        if one == two or "'type': 'text'" in one:
            raise UserError(f"params.yaml: {KEY}: the chat template of {name} has no place for pictures; a vision-language model is needed")
        return template

    @functools.cached_property
    def begun(self) -> str:
        """The thought that the chat template or `prefill` opens before the model says anything; empty where they open none."""
        content = [{"type": "text", "text": "."}]
        question, whole = (self._templated(self.chat_template, content, prompting) for prompting in (False, True))
        return opened((whole.removeprefix(question) if whole.startswith(question) else whole) + self.settings.prefill)

    def _templated(self, template: str, content: list[dict[str, Any]], prompting: bool = True) -> str:
        """One user turn in the words of a chat template, with what makes the model answer if `prompting`.

        Raises:
            UserError: the template cannot be rendered, or not in time.
        """
        try:
            with _at_most(RENDERING):
                text: str = self.processor.apply_chat_template(
                    [{"role": "user", "content": content}], chat_template=template, add_generation_prompt=prompting, tokenize=False,
                    **self.settings.template,
                )  # fmt: skip
                return text
        except Exception as error:  # a template is a program, and may end in any
            raise UserError(f"params.yaml: {KEY}: the chat template of {self.settings.model} cannot be rendered ({_line(error)})") from None

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
        say(f"{self.settings.model}: out of memory with {size} questions at a time; {self.batch_size} from here on")

    @torch.inference_mode()
    def answer(self, batch: list[Question]) -> list[Answer]:
        """Answer one batch.

        `generate` makes the one forward pass that a probability needs too: it knows each family's position ids under left padding, and asks
        for the last position's logits only where the class can (`logits_to_keep`).
        """
        s = self.settings
        if s.answer == "probability":
            self._check_first_position(batch)
        inputs = self.inputs(batch)
        options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
        if s.samples > 1:
            torch.manual_seed(_seed(batch[0]))
            options |= {"do_sample": True, "temperature": s.temperature, "top_p": 1.0, "top_k": 0, "num_return_sequences": s.samples}
        with self._understood():
            made = self.model.generate(
                **inputs, **options, max_new_tokens=1 if s.answer == "probability" else s.max_tokens, return_dict_in_generate=True,
                output_logits=True, pad_token_id=self.tokenizer.pad_token_id,
            )  # fmt: skip
        first = made.logits[0].float()[:: s.samples]
        rows = made.sequences[:, inputs["input_ids"].shape[1] :].tolist()
        answers = []
        for k, question in enumerate(batch):
            mine = rows[k * s.samples : (k + 1) * s.samples]
            texts = [self.begun + self.text(row) for row in mine]
            log_odds, mass = self.first_position(first[k], question)
            is_option = s.answer == "probability" and mine[0][0] in itertools.chain(*self.option_tokens(question))
            answers.append(Answer(
                text=None if is_option else texts[0], log_odds=log_odds, option_mass=mass,
                prompt_tokens=int(inputs["attention_mask"][k].sum()),
                completion_tokens=sum(token not in self._ends for row in mine for token in row),
                samples=tuple(texts) if s.samples > 1 else (),
            ))  # fmt: skip
        return answers

    def _check_first_position(self, batch: list[Question]) -> None:
        """Look, before the model is loaded, whether the first position can hold an option.

        Raises:
            UserError: an option is no single token, or the position is a thought's.
        """
        for question in batch:
            self.option_tokens(question)
        if self.begun:
            raise UserError(
                f"params.yaml: judges: template: the chat template of {self.settings.model}, or prefill, opens a thought "
                f"({self.begun.strip()!r}), whose first word is no answer; set template: {{enable_thinking: false}}, a prefill that ends "
                "the thought, or answer: text"
            )

    def text(self, tokens: list[int]) -> str:
        """What was said, in words: with the marks of thoughts, which `reading` needs, and without all other special tokens."""
        said: str = self.tokenizer.decode([t for t in tokens if t not in self._unsaid], skip_special_tokens=False)
        return said

    @functools.cached_property
    def _ends(self) -> set[int]:
        """Tokens that end an answer, or fill it up."""
        own = self.model.generation_config.eos_token_id
        return {self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}

    @functools.cached_property
    def _unsaid(self) -> set[int]:
        """Tokens that are no text."""
        tokenizer = self.tokenizer
        special = {*tokenizer.all_special_ids, *(t for t, added in tokenizer.added_tokens_decoder.items() if added.special)}
        return self._ends | {t for t in special if not MARK.fullmatch(tokenizer.decode([t]))}

    def render(self, question: Question) -> str:
        """The text that the model goes on from: pictures and question in one user turn, then `prefill`."""
        pictures: list[dict[str, Any]] = [{"type": "image", "image": p} for p in question.pictures]
        return self._templated(self.chat_template, [*pictures, {"type": "text", "text": question.text}]) + self.settings.prefill

    def tensors(self, batch: list[Question]) -> Any:
        """The processor's tensors of what is rendered, left-padded."""
        assert self.tokenizer.padding_side == "left"
        texts, pictures = [self.render(q) for q in batch], [list(q.pictures) for q in batch]
        begun = bool(self.tokenizer.bos_token) and texts[0].startswith(self.tokenizer.bos_token)
        with self._understood():
            inputs = self.processor(
                text=texts, images=pictures if any(pictures) else None, return_tensors="pt", padding=True, padding_side="left",
                **({"add_special_tokens": False} if begun else {}),
            )  # fmt: skip
        assert inputs["attention_mask"][:, -1].all()
        return inputs

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Say in one line that processor, template and weights of a model do not go together.

        Raises:
            UserError: instead of the errors by which transformers says so.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError, RuntimeError) as error:
            raise UserError(
                f"params.yaml: {KEY}: {self.settings.model} cannot be asked ({_line(error)}); do its processor, chat template and weights "
                "belong together?"
            ) from None

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
        """The tokens that are the approving option, and those that are the rejecting one, by `option_of`.

        Raises:
            UserError: no spelling of an option is a single token.
        """
        found = self._tokens(question)
        for tokens, name, spellings in zip(found, ("approve", "reject"), (question.approve, question.reject)):
            if not tokens:
                raise UserError(
                    f"params.yaml: judges: {name}: none of {list(spellings)} is a single token of {self.settings.model}, which answer: "
                    "probability needs; take other spellings, such as yes and no, or answer: text"
                )
        return found

    def _tokens(self, question: Question) -> tuple[list[int], list[int]]:
        key = question.approve, question.reject
        if key not in self._options:
            sides = [option_of(self.tokenizer.decode([token]), question) for token in range(len(self.tokenizer))]
            self._options[key] = tuple([token for token, of in enumerate(sides) if of == side] for side in (0, 1))  # type: ignore[assignment]
        return self._options[key]

    def first_position(self, logits: torch.Tensor, question: Question) -> tuple[float | None, float | None]:
        """(log-odds of approval, P(an option)) from the logits of one position, shape (vocabulary,).

        Both are null where an option is no single token and a text decides.

        Raises:
            UserError: the model gave no numbers.
        """
        if not torch.isfinite(logits).any() or torch.isnan(logits).any():
            raise UserError(
                f"params.yaml: judges: {self.settings.model} gives NaN in {self.settings.dtype}; try dtype: bfloat16 or float32"
            )
        approve, reject = self._tokens(question)
        if not approve or not reject:
            return None, None
        logp = logits.double().log_softmax(-1)
        yes, no = float(logp[approve].logsumexp(0)), float(logp[reject].logsumexp(0))
        return yes - no, math.exp(yes) + math.exp(no)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End what takes longer, in the main thread: elsewhere no signal arrives.

    Raises:
        TimeoutError: it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _seed(question: Question) -> int:
    """The samples' random generator depends on the question, so that it gets the same ones anywhere, and asked once more gets others."""
    content = [question.text.encode(), question.variant.encode(), *(p.tobytes() for p in question.pictures)]
    return int.from_bytes(hashlib.sha256(b"".join(content)).digest()[:6], "big")


transformers.utils.logging.set_verbosity_error()
