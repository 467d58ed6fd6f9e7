"""An answer is an approval only where it clearly begins with yes."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter

import pytest
from conftest import ROOT

from vlm_itl.judges.vlm.reading import opened, read

VERDICTS = ROOT.parent / "shared" / "data" / "ovis2-verdicts" / "verdicts.jsonl.gz"

APPROVE = [
    "yes",
    "Yes.",
    "YES",
    " yes\n",
    "**Yes**",
    "* **yes**",
    '"yes" - all fine',
    "Answer: yes",
    "**Answer:** Yes, it is",
    "The answer is: yes",
    "Final answer - **yes**",
    "- yes",
    "(yes)",
    "`yes`",
    "_yes_",
    "yes, but a bird is missing",
    "<think>No, wait.</think>\nYes",
    "Verdict: 'Yes'",
    "yes\n\nThe masks fit.",
    "Therefore, the answer is: yes",
    "\u201cYes\u201d",
]
REJECT = [
    "no",
    "No - two birds are missing",
    "**No**: spill-over",
    "Answer: no \u2013",
    "no.",
    "NO",
    "The final answer is: **no**",
    "<think>x</think> no",
]
# how models of each kind think before they answer no; the first have no opening mark, since their templates gave it
THOUGHT = [
    "Yes, it seems. But no.</think>\n\nno",
    "yes\n</think>no",
    "<think>\n\n</think>\n\nNo",
    "<think>a</think><think>yes</think>no",
    "<THINKING>yes</THINKING> no",
    "<seed:think>yes</seed:think>no",
    "<|channel>thought\nyes<channel|>no",
    "<|channel>thought\n<channel|>no<turn|>",
    "yes<channel|>no",
    "<think>yes</think>The answer is <|begin_of_box|>no<|end_of_box|>.",
    "<think>yes</think><answer>Yes or no? <|begin_of_box|>No<|end_of_box|></answer>",
    "yes</think><answer>no</answer>",
    "<|channel|>analysis<|message|>Yes?<|end|><|start|>assistant<|channel|>final<|message|>no<|return|>",
    "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>no",
    "<|channel|>commentary<|message|>yes<|end|><|start|>assistant<|channel|>final<|message|>no",
    "analysisYes, I think so.assistantfinalNo",
    "[THINK]yes[/THINK]no",
    "\u25c1think\u25b7yes\u25c1/think\u25b7no",
    "<|START_THINKING|>yes<|END_THINKING|><|START_RESPONSE|>no<|END_RESPONSE|>",
]
CUT = [
    "yes</think>",
    "<think>a</think>yes<think>no",
    "<|channel>thought\nyes",
    "<|channel|>analysis<|message|>yes",
    "<|channel|>analysis<|message|>no<|end|><|start|>assistant<|channel|>commentary<|message|>yes",
    "analysisWe have to say yes",
    "[THINK]yes",
    "\u25c1think\u25b7yes",
    "<|START_THINKING|>yes",
]
UNPARSED = [
    "",
    "   ",
    "yes or no",
    "Yes/No",
    "yes and no",
    "yesterday",
    "not sure",
    "none",
    "nothing is missing",
    "The masks are accurate: yes",
    "I would say yes",
    "The answer depends",
    "The image shows a zebra. yes",
    "<think>yes",
    "<think>the answer is yes\nyes",
    "yes_or_no",
    "noyes",
    "1",
    "Answer",
    "\u0434\u0430",
    "The answer to that is not clear",
    "yesno",
]


@pytest.mark.parametrize(
    ("outcome", "answers"),
    [("approve", APPROVE), ("reject", REJECT), ("unparsed", UNPARSED), ("reject", THOUGHT), ("unparsed", CUT)],
)
def test_first_word(outcome, answers):
    assert {a: read(a).outcome for a in answers} == dict.fromkeys(answers, outcome)


def test_a_thought_that_was_begun_for_the_model():
    assert read("yes, but", begun="<think>\n").outcome == "unparsed"
    assert read("yes, but</think>no", begun="<think>\n").outcome == "reject"
    assert read("yes", begun="<think>\n\n</think>\n\n").outcome == "approve"
    assert read("yes", begun="Considering all this, I say").outcome == "approve"
    assert opened("<|turn>model\n<|channel>thought\n") == "<|channel>thought\n"
    assert opened("assistant\n<think>\n\n</think>\n\n") == opened("assistant\n") == ""


TAKEN_BACK = [
    "yes no", "yes\nno", "yes\nanswer\nis: no", "yes, it fits.\n\n**No**", "yes\nso\n<answer: no", "yes\nso\n_so answer: no",
    "yes\nSo,\nthe\n\nfinal\nanswer\n:\nno", "yes\n-\n- __no__", "yes\nso\nno", "yes\nso so\nthus\nverdict = *no*",
]  # fmt: skip
KEPT = ["yes so no", "yes\nso\nso", "yes\nanswer no", "yes\nthe no", "yes\nnone", "yes\na no\nso answer: yes"]


def test_a_yes_that_is_taken_back():
    assert {a: read(a).outcome for a in TAKEN_BACK} == dict.fromkeys(TAKEN_BACK, "unparsed")
    assert {a: read(a).outcome for a in KEPT} == dict.fromkeys(KEPT, "approve")


def test_every_line_may_take_it_back():
    """Against the rule as one expression, which is right and takes time that grows with the square of the text's length."""
    dress = r"[^\w<]*(?:_+)?"
    label = (
        r"(?:(?:so|thus|therefore|the|my|final|short|correct)\W+)*"
        r"(?:answer|verdict|response|output|decision|result)(?:\s+is)?\s*[:=\-\u2013\u2014*_]+"
    )
    rule = re.compile(rf"^{dress}(?:{label}{dress})?(?:no)(?![^\W_])", re.IGNORECASE | re.MULTILINE)
    random_ = random.Random(1)
    pieces = ["\n", "\n", " ", "so", "the", "answer", "is", ":", "-", "_", "<", "no", "no", "x", "."]
    outcomes = Counter()
    for _ in range(20_000):
        text = "yes" + " ".join("".join(random_.choices(pieces, k=4)) for _ in range(3)).replace(" ", random_.choice(["", " ", "\n"]))
        first = re.match(r"yes(?![^\W_])(.*)", text, re.DOTALL)
        if first is not None:
            outcome = "unparsed" if rule.search(first[1]) else "approve"
            assert read(text).outcome == outcome, text
            outcomes[outcome] += 1
    assert min(outcomes.values()) > 2_000


# each would take from minutes to days if the time grew with the square of the length
@pytest.mark.timeout(60)
@pytest.mark.parametrize("answer", [
    *(piece * 20_000 for piece in ("<think>", "</think>", "<|channel>final", "so the answer ", "analysis ", "<|begin_of_box|>", "yes or ")),
    "yes" + ("\n" * 300 + "so ") * 400,
    *("yes\n" + piece * 200_000 for piece in ("\n", "so\n", "so ", "answer\n", "answer:\n", "-", "_", "so\n<", "_\n", "so answer is:\n")),
    "yes" + "/" * 400_000 + "x",
    *(start + piece * 400_000 + "x" for start in ("answer:", "yes\nanswer:", "yes\nso answer") for piece in ':-_ \n"'),
], ids=lambda answer: repr(answer[:20]))  # fmt: skip
def test_a_long_answer_is_read_at_once(answer):
    read(answer)


def test_options_in_capitals():
    assert [read(text, ["Yes"], ["NO"]).outcome for text in ("yes", "Yes.", "no")] == ["approve", "approve", "reject"]


def test_reason_is_kept():
    assert read("**No** - two birds are missing.\nLook left.").reason == "two birds are missing.\nLook left."
    assert read("yes").reason == ""
    assert read("maybe: yes").reason == ""


def test_last_line():
    answer = "I see three zebras.\nThe masks fit.\n\n* **yes** - all good\n\n"
    assert read(answer).outcome == "unparsed"
    assert read(answer, line="last").outcome == "approve"
    assert read(answer, line="last").reason == "all good"
    assert read("yes\nwell, no", line="last").outcome == "unparsed"


def test_other_options():
    assert read("B) something is missing", ["a", "complete"], ["b", "incomplete"]).outcome == "reject"
    assert read("Complete.", ["a", "complete"], ["b", "incomplete"]).outcome == "approve"
    assert read("incomplete", ["a", "complete"], ["b", "incomplete"]).outcome == "reject"
    assert read("A bird is missing", ["a"], ["b"]).outcome == "approve"  # a word of the language is a bad option


@pytest.mark.skipif(not VERDICTS.exists(), reason="no real answers in ../shared/data/ovis2-verdicts")
def test_real_answers():
    """The numbers of docs/method.md: the study read `yes` anywhere in the answer."""
    with gzip.open(VERDICTS, "rt") as stream:
        rows = [json.loads(line) for line in stream]
    numbers = {}
    for prompt in ("basic", "cot"):
        for line in ("first", "last"):
            outcomes = [(read(r["answer"], line=line).outcome, r["approved"]) for r in rows if r["prompt"] == prompt]
            numbers[prompt, line] = {k: outcomes.count(k) for k in sorted(set(outcomes))}
    assert numbers == {
        ("basic", "first"): {("approve", True): 640, ("reject", False): 106, ("unparsed", False): 3538, ("unparsed", True): 671},
        ("basic", "last"): {
            ("approve", True): 1306, ("reject", False): 3362, ("reject", True): 1, ("unparsed", False): 282, ("unparsed", True): 4
        },
        ("cot", "first"): {("unparsed", False): 679, ("unparsed", True): 3995},
        ("cot", "last"): {
            ("approve", True): 3216, ("reject", False): 344, ("reject", True): 117, ("unparsed", False): 335, ("unparsed", True): 662
        },
    }  # fmt: skip
