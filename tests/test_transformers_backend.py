"""The local back end on tiny models of native classes: the same code path as for a large one."""

from __future__ import annotations

import json
import signal
import weakref

import numpy as np
import PIL.Image
import pytest
import tiny_vlm
import torch

from vlm_itl.core.errors import UserError
from vlm_itl.judges.vlm.questions import Question, option_of
from vlm_itl.judges.vlm.transformers_backend import TransformersBackend
from vlm_itl.settings import VlmJudge


def picture(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


# of different lengths and numbers of pictures, so that a batch is padded
QUESTIONS = [
    Question("is it right", (picture(40, 40),)),
    Question("Examine this image showing object segmentation masks . yes or no", (picture(64, 48, 1), picture(50, 70, 2))),
    Question("zebra", (picture(100, 30, 3),)),
    Question("a book is missing", (picture(33, 61, 4),)),
]


@pytest.fixture(scope="module", params=tiny_vlm.FAMILIES)
def folder(request, tmp_path_factory):
    return tiny_vlm.FAMILIES[request.param](tmp_path_factory.mktemp("vlm") / request.param)


def settings(folder, **more) -> VlmJudge:
    return VlmJudge(**{"kind": "vlm", "model": str(folder), "device": "cpu", "dtype": "float32", **more})


def first_logits(backend: TransformersBackend, question: Question) -> torch.Tensor:
    """From a plain forward pass on one unpadded question, by the processor's own chat template."""
    chat = [
        {"role": "user", "content": [{"type": "image", "image": p} for p in question.pictures] + [{"type": "text", "text": question.text}]}
    ]
    inputs = backend.processor.apply_chat_template([chat], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        return backend.model(**inputs).logits[0, -1].double()


def by_hand(backend: TransformersBackend, logits: torch.Tensor, approve: str = "yes", reject: str = "no") -> tuple[float, float]:
    """(P(approve), mass), with the tokens looked for one by one."""
    p = (logits - logits.max()).exp()
    p = p / p.sum()
    words = [backend.tokenizer.decode([t]) for t in range(len(backend.tokenizer))]
    yes, no = (sum(float(p[t]) for t, w in enumerate(words) if w.strip().lower() == option) for option in (approve, reject))
    return yes / (yes + no), yes + no


def test_probability_is_that_of_a_plain_forward_pass(folder):
    backend = TransformersBackend(settings(folder))
    assert all(len(tokens) >= 3 for tokens in backend.option_tokens(QUESTIONS[0]))  # Yes, yes, and one with a space
    for question, answer in zip(QUESTIONS, backend.answer(QUESTIONS)):
        logits = first_logits(backend, question)
        p, mass = by_hand(backend, logits)
        assert answer.p_approve == pytest.approx(p, abs=1e-6)
        assert answer.option_mass == pytest.approx(mass, abs=1e-6)
        said = backend.tokenizer.decode([int(logits.argmax())])
        assert answer.text == (None if said.strip().lower() in ("yes", "no") else said)


def test_a_batch_answers_as_its_questions_alone(folder):
    backend = TransformersBackend(settings(folder, batch_size=3))
    together = dict(backend.ask(enumerate(QUESTIONS)))
    assert sorted(together) == [0, 1, 2, 3]
    assert len({a.prompt_tokens for a in together.values()}) > 1
    ps = []
    for number, question in enumerate(QUESTIONS):
        [alone] = backend.answer([question])
        assert together[number].p_approve == pytest.approx(alone.p_approve, abs=1e-6)
        assert together[number].prompt_tokens == alone.prompt_tokens
        ps.append(alone.p_approve)
    assert len({round(p, 6) for p in ps}) == 4  # it is not a constant that agrees


def test_the_picture_matters(folder):
    backend = TransformersBackend(settings(folder))
    one, other = backend.answer([Question("right", (picture(64, 64, 5),)), Question("right", (picture(64, 64, 6),))])
    assert one.p_approve != other.p_approve


def test_text_is_greedy_and_equal_in_a_batch_and_alone(folder):
    backend = TransformersBackend(settings(folder, answer="text", max_tokens=12))
    answers = backend.answer(QUESTIONS)
    for question, answer in zip(QUESTIONS, answers):
        assert backend.answer([question])[0].text == answer.text
        assert 0 < answer.completion_tokens <= 12
    assert backend.identity["max_tokens"] == 12


def test_samples_are_seeded_by_the_question(folder):
    backend = TransformersBackend(settings(folder, answer="text", max_tokens=6, samples=4, temperature=5.0))
    first = dict(backend.ask(enumerate(QUESTIONS)))
    second = dict(backend.ask(reversed(list(enumerate(QUESTIONS)))))
    for number in range(4):
        assert len(first[number].samples) == 4
        assert first[number].samples == second[number].samples
    assert len(set(first[0].samples)) > 1


def test_identity_is_the_content_of_the_folder(tmp_path):
    a, b, c = (tiny_vlm.llava(tmp_path / name / "m", seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    identities = [TransformersBackend(settings(f)).identity for f in (a, b, c)]
    assert identities[0] == identities[1] != identities[2]
    assert str(tmp_path) not in str(identities)


def test_nothing_is_loaded_before_a_question(folder):
    backend = TransformersBackend(settings(folder))
    assert list(backend.ask([])) == []
    assert "model" not in vars(backend)


def test_options_without_a_token_of_their_own(folder):
    backend = TransformersBackend(settings(folder))
    with pytest.raises(UserError, match=r"judges: approve: none of .'yes'. is a single token of"):
        backend.option_tokens(Question("x", (), ("yes",), ("yes",)))
    approve, reject = backend.option_tokens(Question("x", ()))
    assert not set(approve) & set(reject)


FIRST = {"A": 0.5, "accept": 0.1, " Accept": 0.05, "Reject": 0.2, "in": 0.1, "re": 0.05}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A model whose first token is one of `FIRST`, some of which only begin an option."""
    template = tiny_vlm.TEMPLATE.replace("assistant :", "<turn>")
    return tiny_vlm.chain(tmp_path_factory.mktemp("pieces") / "m", template, {"<turn>": FIRST, **dict.fromkeys(FIRST, "</s>")})


def test_what_begins_an_option_is_not_the_option(pieces):
    """A is no accept, and re no reject: both begin other answers too."""
    question = Question("right", QUESTIONS[0].pictures, ("accept",), ("Reject",))
    backend = TransformersBackend(settings(pieces))
    [answer] = backend.answer([question])
    assert answer.p_approve == pytest.approx(0.15 / 0.35, abs=1e-5)
    assert answer.option_mass == pytest.approx(0.35, abs=1e-5)
    assert answer.p_approve == pytest.approx(by_hand(backend, first_logits(backend, question), "accept", "reject")[0], abs=1e-6)


def test_an_option_of_several_tokens(pieces):
    question = Question("right", QUESTIONS[0].pictures, ("accept",), ("incorrect", "wrong"))
    backend = TransformersBackend(settings(pieces))
    with pytest.raises(
        UserError, match=r"judges: reject: none of \['incorrect', 'wrong'\] is a single token of .*yes and no, or answer: text"
    ):
        backend.answer([question])
    assert "model" not in vars(backend)  # it is said before gigabytes are loaded
    [answer] = TransformersBackend(settings(pieces, answer="text", max_tokens=3)).answer([question])
    assert (answer.text, answer.log_odds, answer.option_mass) == ("A", None, None)


@pytest.mark.parametrize(
    ("text", "side"),
    [("accept", 0), (" ACCEPT", 0), ("\u0120Accept\n", 0), ("\u2581refuse", 1), ("incorrect", 1)]
    + [(text, None) for text in ("a", "A", "accepted", "in", "re", "", " ")],
)
def test_whole_spellings(text, side):
    assert option_of(text, Question("x", (), ("Accept", "right"), ("refuse", "incorrect"))) == side


def test_nan_is_no_probability(folder):
    backend = TransformersBackend(settings(folder))
    with torch.no_grad():
        backend.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="gives NaN in float32; try dtype"):
        backend.answer(QUESTIONS[:1])


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"nobody/nothing is no folder here, so it is a hub id; pin its revision to a commit"):
        TransformersBackend(settings("nobody/nothing"))
    with pytest.raises(UserError, match=r"nobody/nothing cannot be loaded .*hub id"):
        list(TransformersBackend(settings("nobody/nothing", revision="0" * 40)).ask(enumerate(QUESTIONS)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"cannot be loaded") as error:
        list(TransformersBackend(settings(tmp_path)).ask(enumerate(QUESTIONS)))
    assert "\n" not in str(error.value)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="torch sees no GPU"):
            TransformersBackend(settings(tmp_path, device="cuda"))


def test_a_template_that_stands_with_the_tokenizer_alone(tmp_path):
    before = dict(TransformersBackend(settings(tiny_vlm.llava(tmp_path / "m"))).ask(enumerate(QUESTIONS)))
    template, config = tmp_path / "m/chat_template.jinja", tmp_path / "m/tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": template.read_text()}))
    template.unlink()
    backend = TransformersBackend(settings(tmp_path / "m"))
    assert backend.processor.chat_template is None
    after = dict(backend.ask(enumerate(QUESTIONS)))
    assert [after[k].log_odds for k in range(4)] == [before[k].log_odds for k in range(4)]


TEMPLATES = {
    "has no place for pictures": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}assistant:",  # of a text model
    "has no place for pictures;": "{{ messages[0]['content'][-1]['text'] }}",
    r"cannot be rendered \(TemplateSyntaxError": "{% for m in messages %}",
    r"cannot be rendered \(SecurityError": "{{ messages.__class__.__mro__ }}",
    r"cannot be rendered \(TemplateError: only text": "{{ raise_exception('only text') }}",
    r"cannot be rendered \(TypeError": "{{ 1 + messages }}",
    r"cannot be rendered \(TimeoutError: not done after": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    r"cannot be asked \(": tiny_vlm.TEMPLATE.replace("IMAGE", "<picture>"),
}


@pytest.mark.parametrize("said", TEMPLATES)
def test_templates_that_are_of_no_use(tmp_path, said, monkeypatch):
    monkeypatch.setattr("vlm_itl.judges.vlm.transformers_backend.RENDERING", 0.5)
    folder = tiny_vlm.llava(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(TEMPLATES[said])
    with pytest.raises(UserError, match=said) as error:
        list(TransformersBackend(settings(folder)).ask(enumerate(QUESTIONS)))
    assert "\n" not in str(error.value)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_model_without_chat_template_is_named(tmp_path):
    folder = tiny_vlm.llava(tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template"):
        list(TransformersBackend(settings(folder)).ask(enumerate(QUESTIONS)))


class Memory:
    """Makes `generate` run out of memory above so many questions at a time, with a tensor in the frame, as a real one has."""

    def __init__(self, backend: TransformersBackend, questions: int) -> None:
        self.generate, self.questions = backend.model.generate, questions
        self.sizes: list[int] = []
        self.held: list[weakref.ref] = []
        backend.model.generate = self

    def __call__(self, **inputs):
        size = len(inputs["input_ids"])
        assert all(tensor() is None for tensor in self.held)  # what an earlier try held is free before the next
        self.sizes.append(size)
        if size > self.questions:
            activations = torch.zeros(10)
            self.held += [weakref.ref(activations), weakref.ref(inputs["input_ids"])]
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.generate(**inputs)


MANY = [Question(f"{q.text} {k}", q.pictures) for k in range(3) for q in QUESTIONS][:11]


def test_out_of_memory_halves_the_batch(folder, capsys):
    expected = dict(TransformersBackend(settings(folder, batch_size=8)).ask(enumerate(MANY)))
    backend = TransformersBackend(settings(folder, batch_size=8))
    memory = Memory(backend, 3)
    answers = list(backend.ask(enumerate(MANY)))
    assert memory.sizes == [8, 4, 2, 2, 2, 2, 2, 1]  # the smaller size is kept
    assert [number for number, _ in answers] == list(range(11))
    for number, answer in answers:
        assert answer.p_approve == pytest.approx(expected[number].p_approve, abs=1e-6)
        assert answer.prompt_tokens == expected[number].prompt_tokens
    assert len(list(backend.ask(enumerate(MANY[:4])))) == 4
    assert memory.sizes[8:] == [2, 2]
    assert "out of memory with 8 questions at a time; 4 from here on" in capsys.readouterr().out


def test_out_of_memory_on_a_last_small_batch(folder):
    backend = TransformersBackend(settings(folder, batch_size=8))
    memory = Memory(backend, 1)
    assert [number for number, _ in backend.ask(enumerate(MANY[:3]))] == [0, 1, 2]
    assert memory.sizes == [3, 1, 1, 1]


def test_out_of_memory_on_one_question(folder):
    backend = TransformersBackend(settings(folder, batch_size=2))
    Memory(backend, 0)
    with pytest.raises(UserError, match=r"runs out of memory on a single question; smaller pictures \(render.longest\).*server") as error:
        list(backend.ask(enumerate(MANY)))
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_that_does_not_fit(folder, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(UserError, match=r"does not fit into the memory of the cpu device; take dtype: bfloat16"):
        list(TransformersBackend(settings(folder)).ask(enumerate(QUESTIONS)))
