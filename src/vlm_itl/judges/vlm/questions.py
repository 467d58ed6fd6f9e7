"""What a VLM is asked, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import PIL.Image
from scipy.special import expit

from vlm_itl.core.errors import UserError
from vlm_itl.judges.vlm.settings import VlmJudge

MOST_TOKENS = 10**8  # of one answer


@dataclass(frozen=True)
class Question:
    """Pictures, then text; to be answered with a spelling of one of two options."""

    text: str
    pictures: tuple[PIL.Image.Image, ...]  # RGB
    approve: tuple[str, ...] = ("yes",)
    reject: tuple[str, ...] = ("no",)
    variant: str = ""  # of a question that is asked in another way, or once more: its answer is kept beside that of the question itself
    again: Callable[[], tuple[PIL.Image.Image, ...]] | None = field(default=None, compare=False, repr=False)  # draws the pictures elsewhere

    def without_pixels(self) -> Question:
        """To be sent to another machine; as it is where its pictures cannot be drawn there."""
        return self if self.again is None else replace(self, pictures=())

    def with_pixels(self) -> Question:
        """What `without_pixels` was made of."""
        return self if self.again is None or self.pictures else replace(self, pictures=self.again())


@dataclass(frozen=True)
class Answer:
    """What came back."""

    # what it says, an opened thought included; where only the probability was asked for, its likeliest first token if that is no option
    text: str | None
    # ln(P(approve) / P(reject)) at the first position of the answer, finite; null where the back end gives none. Not the probability:
    # a sure model's answers, which differ in the logits, would all be 1.
    log_odds: float | None
    option_mass: float | None  # probability of all options together: little of it means that the model wants to say something else
    prompt_tokens: int
    completion_tokens: int
    seconds: float = 0.0  # its share of the wall time of asking, which `Asker.ask` measures
    samples: tuple[str, ...] | list[str] = ()  # further texts, where several were asked for
    machine: str = ""  # address of the server that gave it; empty: this machine

    def __post_init__(self) -> None:
        """Raises:
        ValueError: it is none that could be given, so that no such answer enters the store, nor comes out of it.
        """
        if not isinstance(self.samples, tuple | list):
            raise ValueError(f"an answer's samples are {type(self.samples).__name__}")
        for text in (*([] if self.text is None else [self.text]), *self.samples, self.machine):
            if not isinstance(text, str):
                raise ValueError(f"an answer's text is {type(text).__name__}")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError("an answer with half a character (a lone surrogate)") from None
        for name, least, most in (("log_odds", -math.inf, math.inf), ("option_mass", 0, 1 + 1e-6), ("seconds", 0, math.inf)):
            value = getattr(self, name)
            if value is None and name != "seconds":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not least <= value <= most:
                raise ValueError(f"an answer's {name} is {str(value)[:40]}")
        for name in ("prompt_tokens", "completion_tokens"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= MOST_TOKENS:
                raise ValueError(f"an answer's {name} is {str(value)[:40]}")

    @property
    def p_approve(self) -> float | None:
        """P(approve | one of the options)."""
        return None if self.log_odds is None else float(expit(self.log_odds))


def word(token: str) -> str:
    """What a token reads as: without spaces, in any tokenizer's writing, and in lower case."""
    return token.strip(" \t\r\n\u00a0\u2581\u0120\u010a").lower()


def option_of(text: str, question: Question) -> int | None:
    """0 where a token's text is a whole spelling of the approving option, 1 of the rejecting one, else None.

    Both back ends count the first position's tokens by this. Spaces and case do not matter. The beginning of a spelling does not count: "A"
    begins "accept" and many other sentences, "in" begins "incorrect" and "In the image".
    """
    said = word(text)
    sides = [said in {word(s) for s in spellings} for spellings in (question.approve, question.reject)]
    return sides.index(True) if sides[0] != sides[1] else None


class Backend(Protocol):
    """Something that answers."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that can change an answer, apart from the question."""
        ...

    def ask(self, questions: Iterable[tuple[int, Question]]) -> Iterator[tuple[int, Answer]]:
        """Answer numbered questions, in any order, as they come.

        Raises:
            UserError: the model or the server cannot be used, or some questions got no answer; all the others were yielded before.
        """
        ...


SECTIONS = ("mask", "missing")


def fill(prompt: str, class_names: list[str], options: Sequence[str] = ("yes", "no")) -> str:
    """Put the declared classes in place of `{pred_class_names_str}`, `no objects` where there are none, and `yes or no` in that of
    `{options}`; other braces stay."""
    text = prompt.strip().replace("{options}", " or ".join(options))
    return text.replace("{pred_class_names_str}", ", ".join(class_names) or "no objects")


def sections(prompt: str, where: str) -> dict[str, str]:
    """The texts of the two questions of `unit: instance`, under the lines `[mask]` and `[missing]`.

    Raises:
        UserError: one of them is not there, or empty.
    """
    texts: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in prompt.splitlines():
        name = line.strip()
        if name in (f"[{s}]" for s in SECTIONS):
            current = texts.setdefault(name[1:-1], [])
        elif current is not None:
            current.append(line)
    result = {name: "\n".join(lines).strip() for name, lines in texts.items()}
    for name in SECTIONS:
        if not result.get(name):
            raise UserError(f"{where}: unit: instance asks two questions; there is no text under a line '[{name}]'")
    return result


def asking(judge: VlmJudge) -> dict[str, Any]:
    """What of a judge's settings can change an answer, apart from the model and the question."""
    shaped = {name: value for name in ("template", "prefill") if (value := getattr(judge, name))}
    if judge.answer == "probability":
        return {"answer": judge.answer, **shaped}
    sampling = {"samples": judge.samples, "temperature": judge.temperature} if judge.samples > 1 else {}
    return {"answer": judge.answer, "max_tokens": judge.max_tokens, **sampling, **shaped}
