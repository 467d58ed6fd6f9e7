"""Any OpenAI-compatible server: vLLM, SGLang, `transformers serve`, or a hosted one."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import json
import math
import os
import queue
import threading
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future
from importlib.metadata import version
from io import BytesIO
from typing import Any, TypeVar

import PIL.Image
from scipy.special import logsumexp

from vlm_itl.core.errors import UserError
from vlm_itl.core.redact import hide, redact, say
from vlm_itl.judges.vlm.fleet import Fleet, NoAnswer, Told
from vlm_itl.judges.vlm.questions import Answer, Question, asking, option_of, word
from vlm_itl.judges.vlm.settings import VlmJudge
from vlm_itl.judges.vlm.store import Store

IMPOSSIBLE = -9999.0  # vLLM's logarithm of a probability of zero
T = TypeVar("T")


class OpenAIBackend:
    """`concurrency` requests in flight, shared by all `base_urls`. They run in an event loop in a thread of its own."""

    def __init__(self, settings: VlmJudge, store: Store | None = None) -> None:
        """
        Args:
            store: remembers which model a server said that it serves, for a time when no server can be reached.

        Raises:
            UserError: `base_urls` is missing, the environment has no key of the given name, or its proxies or certificates cannot be used.
        """
        self.settings, self._store = settings, store
        server = settings.server
        if not server.base_urls:
            raise UserError("params.yaml: judges: server.base_urls: a server is needed, for example http://localhost:8000/v1")
        # where the first position decides, a text is only for servers without logprobs, and begins with the option
        self.max_tokens = settings.max_tokens if settings.answer == "text" else min(8, settings.max_tokens)
        self.versions = {name: version(name) for name in ("httpx2", "pillow")}
        # 20 likeliest tokens at each position, and whatever a server adds
        most_bytes = 2**20 + 8192 * self.max_tokens * settings.samples
        self._fleet = Fleet(server, settings.model, _key(server.api_key_env), most_bytes)
        self._slots = asyncio.Semaphore(server.concurrency)
        self._one_by_one = False  # several samples, since a server ignores `n`

    @functools.cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()  # nobody waits for it at exit, so that Ctrl-C ends at once
        return loop

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """With `server`: what the user says of it, or what it says of the model it serves, or null.

        Raises:
            UserError: the servers serve different models, or none can be reached and what they serve is not known from before.
        """
        s, server = self.settings, self.settings.server
        return {
            "backend": "openai", "model": s.model, "revision": s.revision,
            "server": self._run(self._introduce()) if server.fingerprint is None else {"fingerprint": server.fingerprint},
            "logprobs": server.logprobs, "structured": server.structured, "max_tokens": self.max_tokens, **asking(s),
        }  # fmt: skip

    async def _introduce(self) -> Told:
        urls = [f"{server.url} {self.settings.model}" for server in self._fleet.servers]
        while not await self._fleet.compare():
            known = {told for url in urls if self._store and (told := self._store.told(url)) is not None}
            if len(known) == 1:
                say(f"no server of {self.settings.model} can be reached; answers are looked up as those of the model served last")
                self._fleet.told, self._fleet.compared = json.loads(known.pop()), True
                return self._fleet.told
            await self._fleet.wait()
            if self._fleet.gone:
                raise UserError(f"{self.settings.model}: no server can be reached: {self._fleet.reasons()}")
        if self._store:
            for url, server in zip(urls, self._fleet.servers):
                if server.up:
                    self._store.note(url, json.dumps(self._fleet.told))
        return self._fleet.told

    def ask(self, questions: Iterable[tuple[int, Question]]) -> Iterator[tuple[int, Answer]]:
        """Questions are made only as fast as the servers take them; a question without an answer does not stop the others."""
        self.identity  # noqa: B018  which model is asked is known first
        source, most = iter(questions), 2 * self.settings.server.concurrency
        waiting: set[Future[tuple[int, Answer | None, str]]] = set()
        done: queue.SimpleQueue[Future[tuple[int, Answer | None, str]]] = queue.SimpleQueue()
        failed: list[str] = []
        more = True
        try:
            while more or waiting:
                while more and len(waiting) < most and done.empty():
                    item = next(source, None)
                    if item is None:
                        more = False
                    else:
                        future = asyncio.run_coroutine_threadsafe(self._one(*item), self._loop)
                        waiting.add(future)
                        future.add_done_callback(done.put)
                if not waiting:
                    break
                future = done.get()
                waiting.remove(future)
                number, answer, reason = future.result()
                if answer is not None:
                    yield number, answer
                else:
                    failed.append(reason)
                    more = more and not self._fleet.gone
        finally:
            for future in waiting:
                future.cancel()
        if failed:
            gone = f"no server answers any more: {self._fleet.reasons()}; " if self._fleet.gone else ""
            raise UserError(
                f"{self.settings.model}: {gone}{len(failed)} questions got no answer, the last: {failed[-1]}; "
                "the answers that came are kept, run it again to ask the others"
            )

    async def _one(self, number: int, question: Question) -> tuple[int, Answer | None, str]:
        async with self._slots:
            request = await asyncio.to_thread(self.request, question)
            try:
                return number, await self._answer(number, request, question), ""
            except NoAnswer as error:
                return number, None, str(error)

    async def _answer(self, number: int, request: dict[str, Any], question: Question) -> Answer:
        """Raises: NoAnswer."""
        wanted = self.settings.samples

        def read(content: Any) -> Answer:
            return self.answer(content, question)

        single = {name: value for name, value in request.items() if name != "n"}
        got: list[tuple[Answer, str]] = []
        if wanted > 1 and not self._one_by_one:
            got.append(await self._fleet.ask(number, request, read))
            if len(got[0][0].samples) < wanted:
                self._one_by_one = True
                say(f"{got[0][1]}: it ignores `n`, so each sample is a request of its own")
        missing = wanted - sum(len(answer.samples) for answer, _ in got) if wanted > 1 else 1
        got += await asyncio.gather(*(self._fleet.ask(number, single, read) for _ in range(missing)))
        answers, texts = [answer for answer, _ in got], [text for answer, _ in got for text in answer.samples]
        return dataclasses.replace(
            answers[0], samples=tuple(texts[:wanted]), machine=got[0][1],
            prompt_tokens=sum(a.prompt_tokens for a in answers), completion_tokens=sum(a.completion_tokens for a in answers),
        )  # fmt: skip

    def request(self, question: Question) -> dict[str, Any]:
        """The body of a chat completion."""
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
        if s.server.structured:
            result["structured_outputs"] = {"choice": [question.approve[0], question.reject[0]]}
        if s.template:
            result["chat_template_kwargs"] = s.template
        if s.prefill:  # as vLLM and SGLang take it
            result["messages"].append({"role": "assistant", "content": s.prefill})
            result |= {"continue_final_message": True, "add_generation_prompt": False}
        return result

    def answer(self, content: Any, question: Question) -> Answer:
        """What a chat completion says, without the secrets that a server may repeat.

        Raises:
            ValueError: it is no chat completion with an answer in it, or one that cannot be.
        """
        choices = content.get("choices") if isinstance(content, dict) else None
        if not isinstance(choices, list) or not choices:
            raise ValueError(f"not a chat completion: {redact(repr(content))[:200]}")
        texts = [redact(_text(choice)) for choice in choices]
        log_odds = mass = None
        if not _thought(choices[0]["message"]):  # else the first position is the thought's
            log_odds, mass = first_position(likeliest(choices[0]), question)
        usage = content.get("usage") or {}
        if not isinstance(usage, dict):
            raise ValueError(f"usage is {type(usage).__name__}")
        prompt, completion = (usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens"))
        return Answer(
            text=texts[0], log_odds=log_odds, option_mass=mass, prompt_tokens=prompt, completion_tokens=completion,
            samples=tuple(texts) if self.settings.samples > 1 else (),
        )  # fmt: skip


def _key(name: str | None) -> str | None:
    """The key in an environment variable, from here on hidden in all that is shown or kept.

    Raises:
        UserError: there is none, or none that can be sent.
    """
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(f"params.yaml: judges: server.api_key_env: the environment has no {name}")
    hide(key)
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"params.yaml: judges: server.api_key_env: {name} of the environment has characters that no header can carry")
    return key


def _text(choice: Any) -> str:
    """The text of an answer: its content, or the text parts of that. Nothing where a thought took all its tokens.

    Raises:
        ValueError: there is none.
    """
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise ValueError("a choice without a message")
    if choice.get("finish_reason") in ("error", "abort"):
        raise ValueError(f"its finish_reason is {choice['finish_reason']}")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in content]
        content = "".join(_string(part.get("text")) for part in parts if part.get("type") in ("text", "output_text"))
    if content:
        return _string(content)
    refusal = message.get("refusal") or ("by a filter" if choice.get("finish_reason") == "content_filter" else "")
    return f"[refused] {refusal}" if refusal else ""  # never reads as an option


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"its text is {type(value).__name__}")
    return value


def _thought(message: dict[str, Any]) -> bool:
    """Whether a server tells a thought apart from the answer, as vLLM, SGLang (`reasoning_content`) and others (`reasoning`) do."""
    return bool(message.get("reasoning_content") or message.get("reasoning"))


def likeliest(choice: dict[str, Any]) -> list[tuple[str, float]]:
    """(token, log-probability) of the likeliest tokens at the first position. Two tokens may have one text.

    Empty where the server gives none, or gives them in another form: then the text decides.

    Raises:
        ValueError: they are no probabilities.
    """
    try:
        top = [(row["token"], row["logprob"]) for row in choice["logprobs"]["content"][0]["top_logprobs"]]
    except (KeyError, TypeError, IndexError):
        return []
    if not all(isinstance(token, str) and isinstance(value, int | float) and not isinstance(value, bool) for token, value in top):
        return []
    try:
        top = [(token, float(value)) for token, value in top]
    except OverflowError:
        raise ValueError("no log-probabilities: an integer beyond all floats") from None
    # a little more than 1 in all is rounding
    if any(not value <= 1e-6 for _, value in top) or sum(math.exp(value) for _, value in top) > 1.05:
        raise ValueError(f"no log-probabilities: {[value for _, value in top]}"[:200])
    return [(token, value) for token, value in top if value > IMPOSSIBLE]


def first_position(top: list[tuple[str, float]], question: Question) -> tuple[float | None, float | None]:
    """(log-odds of approval, P(an option)) from (token, log-probability) of the likeliest first tokens, in any order.

    A token counts for the option of which it is a whole spelling (`option_of`). An option that is not listed has as much as the least
    likely token that is, or as all that is not listed, whichever is less; so the log-odds are finite, and nearer to 0 than the model's.

    Null where no option is listed, and where the beginning of an option is that is not: its spellings may all be of several tokens, as
    "incorrect" is of "in" and "correct", and then its probability is not to be had from one position.
    """
    sums: list[list[float]] = [[], []]
    for token, logprob in top:
        side = option_of(token, question)
        if side is not None:
            sums[side].append(logprob)
    if not sums[0] and not sums[1]:
        return None, None
    for values, spellings in zip(sums, (question.approve, question.reject)):
        if not values and any(word(token) and spelling.lower().startswith(word(token)) for token, _ in top for spelling in spellings):
            return None, None
    rest = max(1 - sum(math.exp(v) for _, v in top), 1e-9)
    unlisted = min(min(v for _, v in top), math.log(rest))
    yes, no = (float(logsumexp(values)) if values else unlisted for values in sums)
    return yes - no, min(1.0, sum(math.exp(v) for values in sums for v in values))


def data_url(picture: PIL.Image.Image) -> str:
    """A PNG: what the server sees is what was drawn, to the pixel."""
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
