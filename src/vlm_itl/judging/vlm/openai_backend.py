"""Any OpenAI-compatible server: vLLM, SGLang, `transformers serve`, or a hosted one."""

from __future__ import annotations

import base64
import itertools
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from io import BytesIO
from multiprocessing.pool import ThreadPool
from typing import Any

import openai
import PIL.Image
from openai.types.chat import ChatCompletion
from scipy.special import logsumexp

from ...base.errors import UserError
from ...base.settings import VlmJudge
from .questions import Answer, Question, option_of, word

IN_A_ROW = 20  # questions in a row without an answer after which the rest is not asked
MALFORMED_AGAIN = (
    2  # further tries after an answer that is none; openai's client itself tries lost connections, 408, 409, 429 and 5xx again
)


class OpenAIBackend:
    """`concurrency` requests in flight, in turn over all `base_urls`."""

    def __init__(self, settings: VlmJudge) -> None:
        """Raises:
        UserError: `base_urls` is missing, or the environment has no key of the given name.
        """
        self.settings = settings
        server = settings.server
        if not server.base_urls:
            raise UserError("params.yaml: judges: server.base_urls: a server is needed, for example http://localhost:8000/v1")
        key = "none"  # most servers of one's own ask for none
        if server.api_key_env is not None:
            key = os.environ.get(server.api_key_env, "").strip()
            if not key:
                raise UserError(f"params.yaml: judges: server.api_key_env: the environment has no {server.api_key_env}")
        self._key = key
        self._clients = [
            openai.OpenAI(base_url=url, api_key=key, timeout=server.timeout, max_retries=server.retries) for url in server.base_urls
        ]
        self._turn = itertools.count()
        # where the first position decides, a text is only for servers without logprobs, and begins with the option
        self.max_tokens = settings.max_tokens if settings.answer == "text" else min(8, settings.max_tokens)
        self.identity = {
            "backend": "openai", "model": settings.model, "revision": settings.revision,
            "logprobs": server.logprobs, "structured": server.structured, "max_tokens": self.max_tokens, **settings.asking(),
        }  # fmt: skip
        self.versions = {name: version(name) for name in ("openai", "pillow")}

    def ask(self, questions: Iterable[tuple[int, Question]]) -> Iterator[tuple[int, Answer]]:
        """Questions are made only as fast as the server takes them; a question without an answer does not stop the others."""
        slots = threading.Semaphore(2 * self.settings.server.concurrency)
        stopping = threading.Event()
        failed: list[str] = []
        in_a_row = 0

        def feed() -> Iterator[tuple[int, Question]]:
            for item in questions:
                while not slots.acquire(timeout=0.2) and not stopping.is_set():
                    pass
                if stopping.is_set():
                    return
                yield item

        # its threads are not waited for at exit, so that Ctrl-C ends at once
        with ThreadPool(self.settings.server.concurrency) as pool:
            try:
                for number, answer, reason in pool.imap_unordered(self._one, feed()):
                    slots.release()
                    if answer is None:
                        failed.append(reason)
                        in_a_row += 1
                        if in_a_row == IN_A_ROW:
                            break
                    else:
                        in_a_row = 0
                        yield number, answer
            finally:
                stopping.set()
        if failed:
            raise UserError(
                f"{self.settings.model}: {len(failed)} questions got no answer, the last: {failed[-1]}; the answers that came are kept, "
                "run it again to ask the others"
            )

    def _one(self, item: tuple[int, Question]) -> tuple[int, Answer | None, str]:
        number, question = item
        for _ in range(1 + MALFORMED_AGAIN):
            # an own server's address may be named in an error; a key never
            client = self._clients[next(self._turn) % len(self._clients)]
            start = time.perf_counter()
            try:
                response = client.chat.completions.create(**self.request(question))
                return number, self.answer(response, question, time.perf_counter() - start), ""
            except (openai.APIConnectionError, openai.APIStatusError) as error:
                return number, None, self._line(error, client)
            except (openai.APIError, ValueError, TypeError, AttributeError, KeyError) as error:  # what came is no completion
                reason = self._line(error, client)
        return number, None, reason

    def _line(self, error: Exception, client: openai.OpenAI) -> str:
        text = " ".join(str(error).split())
        if self._key != "none":
            text = text.replace(self._key, "***")  # before it is cut, or half a key could be left
        return f"{client.base_url}: {type(error).__name__}: {text[:300]}"

    def request(self, question: Question) -> dict[str, Any]:
        """The arguments of a chat completion."""
        s = self.settings
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in question.pictures]
        result: dict[str, Any] = {
            "model": s.model,
            "messages": [{"role": "user", "content": [*content, {"type": "text", "text": question.text}]}],
            "max_tokens": self.max_tokens,
            "temperature": s.temperature if s.samples > 1 else 0.0,
        }
        if s.samples > 1:
            result["n"] = s.samples
        if s.server.logprobs:
            result |= {"logprobs": True, "top_logprobs": 20}
        extra: dict[str, Any] = {}
        if s.server.structured:
            extra["structured_outputs"] = {"choice": [question.approve[0], question.reject[0]]}
        if s.template:
            extra["chat_template_kwargs"] = s.template
        if s.prefill:  # as vLLM and SGLang take it
            result["messages"].append({"role": "assistant", "content": s.prefill})
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        return {**result, "extra_body": extra} if extra else result

    def answer(self, response: Any, question: Question, seconds: float) -> Answer:
        """Raises:
        ValueError: the response is no chat completion with an answer in it.
        """
        if not isinstance(response, ChatCompletion):
            raise ValueError(f"not a chat completion: {str(response)[:200]!r}")
        if not response.choices:
            raise ValueError("a chat completion without choices")
        texts = []
        for choice in response.choices:
            if choice.message is None:
                raise ValueError("a choice without a message")
            refusal = f"[refused] {choice.message.refusal}" if choice.message.refusal else ""  # never reads as an option
            texts.append(choice.message.content or refusal)
        log_odds = mass = None
        logprobs = response.choices[0].logprobs
        if logprobs is not None and logprobs.content:
            log_odds, mass = first_position({t.token: t.logprob for t in logprobs.content[0].top_logprobs}, question)
        usage = response.usage
        return Answer(
            text=texts[0], log_odds=log_odds, option_mass=mass, prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0, seconds=round(seconds, 4),
            samples=tuple(texts) if self.settings.samples > 1 else (),
        )  # fmt: skip


def first_position(top: dict[str, float], question: Question) -> tuple[float | None, float | None]:
    """(log-odds of approval, P(an option)) from the log-probabilities of the likeliest first tokens.

    A token counts for the option that it is, in any case and dress of spaces, or that it begins, where it begins only one. An option that
    is not among them is at most as likely as the least likely of them, and as all that is not listed. Null where no option is.
    """
    sums: list[list[float]] = [[], []]
    for token, logprob in top.items():
        side = option_of(word(token), question)
        if side is not None:
            sums[side].append(logprob)
    if not sums[0] and not sums[1]:
        return None, None
    rest = max(1 - sum(math.exp(v) for v in top.values()), 1e-9)
    unlisted = min(min(top.values()), math.log(rest))
    yes, no = (float(logsumexp(values)) if values else unlisted for values in sums)
    return yes - no, sum(math.exp(v) for values in sums for v in values)


def data_url(picture: PIL.Image.Image) -> str:
    """A PNG: what the server sees is what was drawn, to the pixel."""
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
