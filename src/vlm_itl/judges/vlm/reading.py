"""From an answer's text to a decision, strictly: what is not clearly a yes is never an approval."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["approve", "reject", "unparsed"]

# markdown, quotes, list marks, brackets: whatever is no letter and no digit
DRESS = r"[^\w<]*_*"
LED = r"(?:so|thus|therefore|the|my|final|short|correct)"  # words before the noun of a label
_SEPARATORS = r":=\-\u2013\u2014*"
# "answer is:" and the dress after it. Written so that any text matches in one way only: an answer may be made to take hours otherwise
NAMED = rf"(?:answer|verdict|response|output|decision|result)(?:\s+is)?\s*[{_SEPARATORS}_]+(?:[^\w<{_SEPARATORS}]{DRESS})?"
LABEL = rf"(?:{LED}\W+)*{NAMED}"

# how models mark what they think before they answer: (what opens a thought, what ends it)
_TAG = r"(?i:(?:\w+:)?(?:think|thinking|thought|reasoning)>)"
THOUGHTS = [
    (re.compile(opening), re.compile(closing, re.DOTALL))
    for opening, closing in (
        (f"<{_TAG}", f"</{_TAG}"),  # Qwen, GLM, DeepSeek and others
        (r"<\|channel>", r"<channel\|>"),  # Gemma 4
        # harmony: every channel but the last is a thought
        (r"<\|(?:channel|message)\|>", r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"),
        (r"\A\s*analysis(?=[A-Z\s])", r"\A\s*analysis.*assistantfinal"),  # harmony from a server that leaves its marks out
        (r"\[THINK\]", r"\[/THINK\]"),  # Mistral
        (r"\u25c1think\u25b7", r"\u25c1/think\u25b7"),  # Kimi
        (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Cohere
    )
]
# of the special tokens, those that `spoken` needs; any other is no part of an answer's text
MARK = re.compile(rf"</?{_TAG}|<\|?channel\|?>|<\|(?:message|constrain|begin_of_box|end_of_box|START_THINKING|END_THINKING)\|>"
                  r"|\[/?THINK\]|\u25c1/?think\u25b7|</?answer>")  # fmt: skip


def spoken(text: str) -> str:
    """What is said after the last thought, without marks; nothing where a thought does not end.

    A closing mark ends a thought even if nothing opened one: the chat template did. What stands in GLM's box is the answer, and so is what
    stands between `<answer>` and `</answer>`.
    """
    for opening, closing in THOUGHTS:
        text = _after(closing, text)
        if opening.search(text):
            return ""
    text = re.split(r"<\|begin_of_box\|>|<answer>", text)[-1]
    return re.sub(r"</answer>|<\|\w+\|>", "", text).strip()


def opened(text: str) -> str:
    """The thought that the beginning of an answer leaves open, from its mark on; empty where it leaves none."""
    for opening, closing in THOUGHTS:
        rest = _after(closing, text)
        if match := opening.search(rest):
            return rest[match.start() :]
    return ""


def _after(closing: re.Pattern[str], text: str) -> str:
    """The text after the last match, or all of it."""
    return text[max((match.end() for match in closing.finditer(text)), default=0) :]


@dataclass(frozen=True)
class Reading:
    """What an answer says, and the reason that it gives (empty where there is none)."""

    outcome: Outcome
    reason: str = ""


def read(
    answer: str, approve: Sequence[str] = ("yes",), reject: Sequence[str] = ("no",), line: Literal["first", "last"] = "first",
    begun: str = "",
) -> Reading:  # fmt: skip
    """Read an answer that is to begin with one of the options.

    The option must be the first word, in any case and dress (`**Yes**`, `"no" - two birds are missing`, `Answer: no`). "yes or no", "not",
    text before the option and an empty answer are `unparsed`. Only what is `spoken` counts.

    Args:
        approve, reject: spellings of the two options, in any case.
        line: `first`: of the whole answer; `last`: of its last line that is not empty, for prompts that ask for reasons first.
        begun: what was put in the model's mouth; a thought that it opens is part of the answer.
    """
    approve, reject = ([spelling.lower() for spelling in of] for of in (approve, reject))
    text = spoken(opened(begun) + answer)
    if line == "last" and text:
        text = text.splitlines()[-1]
    words = "|".join(sorted(map(re.escape, [*approve, *reject]), key=len, reverse=True))
    match = re.match(rf"{DRESS}(?:{LABEL})?({words})(?![^\W_])(.*)", text, flags=re.IGNORECASE | re.DOTALL)
    if match is None or re.match(
        rf"(?:(?:(?!/)[\W_])*/|[\W_]*(?:or|and)(?![^\W_]))[\W_]*({words})(?![^\W_])", match[2], flags=re.IGNORECASE
    ):
        return Reading("unparsed")
    reason = re.sub(r"^[\W_]+", "", match[2]).strip()
    if match[1].lower() not in approve:
        return Reading("reject", reason)
    return Reading("unparsed" if _taken_back(match[2], reject) else "approve", reason)


def _taken_back(text: str, reject: Sequence[str]) -> bool:
    """Whether a line of what follows a yes begins with a no, as `read` takes an answer to begin; a label may go on over line ends.

    Equal to a search for `^{DRESS}(?:{LABEL})?(?:no)` in every line, in time that grows with the text's length and not with its square:
    a dress over several lines is found from the last of them, and of the lines that lie within one row of `LED` words the first stands
    for all, since they lead to the same noun.
    """
    no = rf"(?:{'|'.join(map(re.escape, reject))})(?![^\W_])"
    begin, flags = r"^[^\w<\n]*_*", re.IGNORECASE | re.MULTILINE
    if re.search(rf"{begin}(?:{NAMED})?{no}", text, flags):
        return True
    led = rf"{begin}{LED}(?=\W)(?:\W+{LED}(?=\W))*(\W+{NAMED}{no})?"
    return any(match[1] is not None for match in re.finditer(led, text, flags))
