"""From an answer's text to a decision, strictly: what is not clearly a yes is never an approval."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["approve", "reject", "unparsed"]

# markdown, quotes, list marks, brackets: whatever is no letter and no digit
DRESS = r"[^\w<]*(?:_+)?"
LABEL = (
    r"(?:(?:so|thus|therefore|the|my|final|short|correct)\W+)*"
    r"(?:answer|verdict|response|output|decision|result)(?:\s+is)?\s*[:=\-\u2013\u2014*_]+"
)


@dataclass(frozen=True)
class Reading:
    """What an answer says, and the reason that it gives (empty where there is none)."""

    outcome: Outcome
    reason: str = ""


def read(
    answer: str, approve: Sequence[str] = ("yes",), reject: Sequence[str] = ("no",), line: Literal["first", "last"] = "first"
) -> Reading:
    """Read an answer that is to begin with one of the options.

    The option must be the first word, in any case and dress (`**Yes**`, `"no" - two birds are missing`, `Answer: no`). "yes or no", "not",
    text before the option and an empty answer are `unparsed`. A `<think>` block in front is left out; one that does not end leaves nothing.

    Args:
        approve, reject: spellings of the two options, in lower case.
        line: `first`: of the whole answer; `last`: of its last line that is not empty, for prompts that ask for reasons first.
    """
    text = re.sub(r"^\s*<think>.*?(</think>|\Z)", "", answer, flags=re.DOTALL).strip()
    if line == "last" and text:
        text = text.splitlines()[-1]
    words = "|".join(sorted(map(re.escape, [*approve, *reject]), key=len, reverse=True))
    match = re.match(rf"{DRESS}(?:{LABEL}{DRESS})?({words})(?![^\W_])(.*)", text, flags=re.IGNORECASE | re.DOTALL)
    if match is None or re.match(rf"[\W_]*(?:/|(?:or|and)(?![^\W_]))[\W_]*({words})(?![^\W_])", match[2], flags=re.IGNORECASE):
        return Reading("unparsed")
    reason = re.sub(r"^[\W_]+", "", match[2]).strip()
    other = "|".join(map(re.escape, reject))
    if match[1].lower() in approve and re.search(
        rf"^{DRESS}(?:{LABEL}{DRESS})?(?:{other})(?![^\W_])", match[2], re.IGNORECASE | re.MULTILINE
    ):
        return Reading("unparsed")  # it takes its yes back on a later line
    return Reading("approve" if match[1].lower() in approve else "reject", reason)
