"""Models that think before they answer, as those of 2026 do: tiny ones with chat templates of each kind, and a server."""

from __future__ import annotations

import math

import numpy as np
import PIL.Image
import pytest
import tiny_vlm
from conftest import clear_proxies
from scipy.special import expit
from vlm_server import VlmServer

from vlm_itl.core.errors import UserError
from vlm_itl.judges.vlm.judging import PREFLIGHT, Asker, Store
from vlm_itl.judges.vlm.openai_backend import OpenAIBackend
from vlm_itl.judges.vlm.questions import Answer, Question, asking
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
from vlm_itl.settings import VlmJudge

QUESTIONS = [
    Question(f"is it right {k}", (PIL.Image.fromarray(np.random.default_rng(k).integers(0, 255, (40, 40, 3), dtype=np.uint8)),))
    for k in range(12)
]

ANSWER = {"yes": 0.7, "no": 0.2, "well": 0.1}
P, MASS = 0.7 / 0.9, 0.9
END = dict.fromkeys(ANSWER, "</s>")


def turn(beginning: str) -> str:
    """A chat template that makes an answer begin so."""
    return tiny_vlm.TEMPLATE.replace("assistant :{% endif %}", f"assistant{beginning}{{% endif %}}")


def qwen(folder):
    """Qwen3.5: the template opens a thought, or gives an empty one. The thought begins with Yes."""
    opening = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
    then = {"\n": " Yes", " Yes": "hmm", "hmm": "</think>", "</think>": "\n\n", "\n\n": ANSWER, **END}
    return tiny_vlm.chain(folder, turn(opening), {**then, "<think>": "\n"})


def gemma(folder):
    """Gemma 4: marks that are special tokens, and an empty thought although nobody asked for one."""
    then = {"<turn>": "<|channel>", "<|channel>": "thought", "thought": "\n", "\n": "<channel|>", "<channel|>": ANSWER, **END}
    return tiny_vlm.chain(folder, turn("<turn>"), then, ("<turn>", "<|channel>", "<channel|>"))


def glm(folder):
    """GLM-4.5V: thinks unless told otherwise, and puts its answer into a box of special tokens."""
    opening = "<turn>{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    then = {"<turn>": "<think>", "<think>": "hmm", "hmm": "</think>", "</think>": "<|begin_of_box|>", "<|begin_of_box|>": ANSWER}
    then |= {**dict.fromkeys(ANSWER, "<|end_of_box|>"), "<|end_of_box|>": "</s>"}
    return tiny_vlm.chain(folder, turn(opening), then, ("<turn>", "<|begin_of_box|>", "<|end_of_box|>"))


KINDS = {"qwen": qwen, "gemma": gemma, "glm": glm}
OFF = {"enable_thinking": False}
# what helps
HELP = {
    "qwen": [{"template": OFF}, {"prefill": "</think>\n\n"}],
    "gemma": [{"prefill": "<|channel>thought\n<channel|>"}],
    "glm": [{"template": OFF, "prefill": "<|begin_of_box|>"}, {"prefill": "<think></think><|begin_of_box|>"}],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp("thinking") / name) for name, make in KINDS.items()}


def backend(folder, **more) -> TransformersBackend:
    return TransformersBackend(VlmJudge(**{"kind": "vlm", "model": str(folder), "device": "cpu", "dtype": "float32", **more}))


def ask(back, tmp_path, questions=QUESTIONS):
    asker = Asker(back.settings, back, Store(tmp_path))
    return [asker.decide(answer) for answer in asker.ask(questions, len(questions), "asking")]


@pytest.mark.parametrize(("kind", "begins"), [("gemma", "<|channel>"), ("glm", "<think>")])
def test_a_run_stops_when_the_model_means_to_think(folders, kind, begins, tmp_path):
    back = backend(folders[kind])
    with pytest.raises(UserError, match=r"the first 8 answers neither option \(yes, no\).*template: \{enable_thinking: false\}") as error:
        ask(back, tmp_path)
    assert f"they begin with {begins!r}." in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("kind", "more"), [("qwen", {}), ("gemma", {"prefill": "<|channel>thought\n"}), ("qwen", {"prefill": "Let me"})])
def test_the_first_word_of_a_thought_is_no_answer(folders, kind, more):
    """Qwen's would be a sure approval: it thinks Yes, and then answers."""
    back = backend(folders[kind], **more)
    with pytest.raises(UserError, match=r"opens a thought \('(<think>|<.channel>thought).*set template: .enable_thinking: false"):
        back.answer(QUESTIONS[:1])
    assert "model" not in vars(back)


@pytest.mark.parametrize(("kind", "more"), [(kind, more) for kind, some in HELP.items() for more in some])
def test_with_its_settings_the_probability_is_the_answer_s(folders, kind, more, tmp_path):
    back = backend(folders[kind], **more)
    for outcome, log_odds, _ in ask(back, tmp_path):
        assert (outcome, expit(log_odds)) == ("approve", pytest.approx(P, abs=1e-5))
    [answer] = back.answer(QUESTIONS[:1])
    assert answer.option_mass == pytest.approx(MASS, abs=1e-5)
    assert answer.text is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_read_after_the_thought(folders, kind, tmp_path):
    assert ask(backend(folders[kind], answer="text", max_tokens=12), tmp_path) == [("approve", None, "")] * len(QUESTIONS)


@pytest.mark.parametrize(("kind", "tokens"), [("qwen", 1), ("qwen", 3), ("gemma", 3), ("glm", 2)])
def test_a_thought_that_is_cut_off_is_no_answer(folders, kind, tokens, tmp_path):
    """Qwen's begins with Yes, and only the template says that it is a thought."""
    back = backend(folders[kind], answer="text", max_tokens=tokens)
    assert ask(back, tmp_path, QUESTIONS[:3]) == [("unparsed", None, "")] * 3
    with pytest.raises(UserError, match=rf"nothing is said beside thoughts within {tokens} tokens.*a larger max_tokens"):
        ask(back, tmp_path)


def test_samples_are_read_after_their_thoughts(folders, tmp_path):
    back = backend(folders["gemma"], answer="text", max_tokens=12, samples=40, temperature=1.0)
    [(outcome, log_odds, _)] = ask(back, tmp_path, QUESTIONS[:1])
    assert 0.4 < expit(log_odds) < 0.95  # .7 of 40
    assert outcome == "approve"


def test_settings_are_part_of_the_identity_where_they_are_used(folders):
    plain = VlmJudge(kind="vlm", model="m")
    assert asking(plain) == {"answer": "probability"}  # what was answered before there were such settings is found again
    identities = [backend(folders["glm"], **more).identity for more in ({}, *HELP["glm"], {"template": OFF}, {"answer": "text"})]
    assert len({str(i) for i in identities}) == len(identities)
    assert identities[1]["template"] == OFF
    assert identities[1]["prefill"] == "<|begin_of_box|>"


def test_an_argument_that_the_template_does_not_have(folders):
    with pytest.raises(UserError, match=r"template: the chat template of .*gemma has no 'enable_thinking'; leave it out"):
        backend(folders["gemma"], template=OFF).answer(QUESTIONS[:1])
    with pytest.raises(ValueError, match="template: tokenize: set by this program"):
        VlmJudge(kind="vlm", model="m", template={"tokenize": False})
    with pytest.raises(ValueError, match="template"):
        VlmJudge(kind="vlm", model="m", template={"when": object()})


class Thinker(VlmServer):
    """Answers after a thought, unless the template's arguments or the beginning of its answer are against that."""

    def completion(self, request: dict) -> dict:
        body = super().completion(request)
        if request.get("chat_template_kwargs") != OFF and not self.begun(request):
            for choice in body["choices"]:
                choice["message"]["content"] = "<think>\nYes, the user wants"
                rows = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in (("<think>", 0.98), ("The", 0.01))]
                choice["logprobs"] = {"content": [{**rows[0], "top_logprobs": rows}]}
        return body

    def begun(self, request: dict) -> bool:
        last = request["messages"][-1]
        return last["role"] == "assistant" and request["continue_final_message"] and not request["add_generation_prompt"]


@pytest.fixture
def server(monkeypatch):
    clear_proxies(monkeypatch)
    with Thinker() as running:
        yield running


def served(server, **more) -> OpenAIBackend:
    own = {"base_urls": [server.url], "retries": 0, "concurrency": 2}
    return OpenAIBackend(VlmJudge(**{"kind": "vlm", "backend": "openai", "model": "m", "server": own, **more}))


@pytest.mark.parametrize("more", [{"template": OFF}, {"prefill": "<think>\n\n</think>\n\n"}])
def test_a_server_is_told(server, more, tmp_path):
    many = [Question(f"{k}", ()) for k in range(60)]
    with pytest.raises(UserError, match=r"in the first 8 answers neither option.*they begin with '<think> Yes, the user wants'"):
        ask(served(server), tmp_path, many)
    assert len(server.requests) < 20  # of 60
    with Thinker() as second:  # requests to the first may still be on their way
        assert all((outcome, expit(x)) == ("approve", pytest.approx(0.8)) for outcome, x, _ in ask(served(second, **more), tmp_path, many))
    request = second.requests[0]
    assert request.get("chat_template_kwargs") == more.get("template")
    assert [m["role"] for m in request["messages"]] == ["user"] + ["assistant"] * ("prefill" in more)
    assert request["messages"][-1]["content"] == more.get("prefill", request["messages"][-1]["content"])


class Told:
    """Answers what it is told to; null is a model that wants to say something else."""

    def __init__(self, log_odds: list[float | None]) -> None:
        self.log_odds, self.identity, self.asked = log_odds, {"backend": "told"}, 0

    def ask(self, questions):
        for number, _ in questions:
            self.asked += 1
            x = self.log_odds[number]
            yield number, Answer("Okay", 0.0, 0.01, 1, 1, 0.1) if x is None else Answer(None, x, 0.9, 1, 1, 0.1)


def test_one_question_without_an_answer_stops_nobody(tmp_path):
    many = [Question(f"{k}", ()) for k in range(30)]
    for said, name in ((7, "late"), (0, "early")):
        told = Told([None] * said + [1.0] + [None] * (29 - said))
        outcomes = [outcome for outcome, _, _ in ask(Run(told), tmp_path / name, many)]
        assert outcomes == ["unparsed"] * said + ["approve"] + ["unparsed"] * (29 - said)
    told = Told([None] * 30)
    with pytest.raises(UserError, match="begin with 'Okay'"):
        ask(Run(told), tmp_path / "never", many)
    assert told.asked == PREFLIGHT
    with pytest.raises(UserError, match="begin with 'Okay'"):  # what is in the store does not help it past
        ask(Run(told), tmp_path / "never", many)
    assert told.asked == PREFLIGHT + 1


class Run:
    """A back end with its judge's settings."""

    def __init__(self, told: Told) -> None:
        self.settings, self.identity, self.ask = VlmJudge(kind="vlm", model="m"), told.identity, told.ask
