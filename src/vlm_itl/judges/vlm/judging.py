"""How the judge that looks decides: a vision-language model is asked about pictures of proposals.

Questions are composed one after the other from the pool, looked up in the store, and, where it has no answer, asked; every answer is stored
as it comes. The back ends import their own heavy packages and are loaded when they are needed.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy.special import logit
from tqdm import tqdm

from vlm_itl import engine
from vlm_itl.core.coco import Coco
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json
from vlm_itl.core.redact import say
from vlm_itl.judges.base import Judged, Task
from vlm_itl.judges.calibration import Calibrated, finite_log_odds, weakest
from vlm_itl.judges.verdict import Verdict
from vlm_itl.judges.vlm.composing import Composer, Row
from vlm_itl.judges.vlm.questions import Answer, Backend, Question
from vlm_itl.judges.vlm.reading import Outcome, opened, read, spoken
from vlm_itl.judges.vlm.settings import VlmJudge
from vlm_itl.judges.vlm.store import Store, key

PREFLIGHT = 8  # first answers of a run; if none of them says anything, nor will the others

Person = Callable[[int, list[Row]], bool]

LOUD, TOO_MANY, ENOUGH = 0.1, 0.9, 20  # shares of unparsed answers: said loudly; an error, where so many answers came
NOT_ASKED = ("prompt", "versions", "transformers", "calibration")  # of an identity, what does not make another question of it


def make_backend(settings: VlmJudge, store: Store) -> Backend:
    """Load the model, or make the server's client.

    Args:
        store: remembers what servers said of themselves.

    Raises:
        UserError: it cannot be had; the message says what to do.
    """
    if settings.backend == "openai":
        from vlm_itl.judges.vlm.openai_backend import OpenAIBackend

        return OpenAIBackend(settings, store)
    where = engine.chosen()
    if where.kind != "local":
        from vlm_itl.judges.vlm.elsewhere import Elsewhere

        return Elsewhere(settings, where)
    from vlm_itl.judges.vlm.transformers_backend import TransformersBackend

    return TransformersBackend(settings)


def check_classes(settings: VlmJudge, pool: Coco) -> None:
    """A model folder may say in `classes.json` that its model was taught these classes and knows no others.

    Raises:
        UserError: the pool has others, or the file holds no list of names.
    """
    path = Path(settings.model) / "classes.json"
    if not path.is_file():
        return
    known = read_json(path)
    if not isinstance(known, list) or not all(isinstance(name, str) for name in known):
        raise UserError(f"{path}: a list of names of classes is expected")
    unknown = [row["name"] for row in pool["categories"] if row["name"] not in known]
    if unknown:
        raise UserError(
            f"params.yaml: judges: model: {settings.model} was taught {', '.join(known)} and knows nothing else ({path}), so it cannot "
            f"judge {', '.join(unknown)}; give the judge another model (docs/guides/vlm-judges.md), or take it out of runs, probed and "
            "calibrations"
        )


class Asker:
    """Asks a back end through the store and counts what it took."""

    def __init__(self, settings: VlmJudge, backend: Backend, store: Store) -> None:
        self.settings, self.backend, self.store = settings, backend, store
        self.counts = {"questions": 0, "unparsed": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0, "machines": 1}
        self._machines: set[str] = set()
        self.asked = 0  # of the back end, not found in the store
        self.unread: Answer | None = None  # the first answer that says neither
        self._first: list[Answer] = []  # as they came, for `preflight`
        self._underway = False  # it has

    def ask(self, questions: Iterable[Question], total: int, desc: str) -> list[Answer]:
        """Answers in the order of the questions.

        `seconds` is wall time. The share of an answer begins when the answer before it came, to whatever question. So shares add up to the
        time that the asking took, however many questions were under way at once. Looking up answers in the store counts only while the back
        end is at work. Shares are kept with the answers: an answer from the store costs what it cost then. `machines` is how many servers
        gave the answers, or 1.

        Raises:
            UserError: see `Backend.ask` and `preflight`; the answers that came are in the store.
        """
        answers: dict[int, Answer] = {}
        keys: dict[int, str] = {}
        since, asking = time.perf_counter(), 0  # when the last share ended; questions that the back end has
        with tqdm(total=total, desc=desc, unit="question") as bar:

            def missing() -> Iterator[tuple[int, Question]]:
                nonlocal since, asking
                for number, question in enumerate(questions):
                    keys[number] = key(self.backend.identity, question)
                    found = self.store.get(keys[number])
                    if found is None:
                        asking += 1
                        yield number, question
                    else:
                        answers[number] = found
                        self._note(found)
                        bar.update()
                        if not asking:
                            since = time.perf_counter()

            for number, answer in self.backend.ask(missing()):
                now, asking = time.perf_counter(), asking - 1
                answer, since = replace(answer, seconds=round(now - since, 6)), now
                self.store.put(keys[number], answer)
                # another process may have been first: what is stored counts
                answers[number] = self.store.get(keys[number]) or answer
                self.asked += 1
                bar.update()
                self._note(answers[number])
                self.preflight()
        self.preflight()  # of answers that all were in the store
        result = [answers[number] for number in sorted(answers)]
        for answer in result:
            self.counts["questions"] += 1
            if self.decide(answer)[0] == "unparsed":
                self.counts["unparsed"] += 1
                self.unread = self.unread or answer
            self.counts["prompt_tokens"] += answer.prompt_tokens
            self.counts["completion_tokens"] += answer.completion_tokens
            self.counts["seconds"] = round(self.counts["seconds"] + answer.seconds, 6)
            self._machines.add(answer.machine)
        self.counts["machines"] = max(1, len(self._machines))
        return result

    def _note(self, answer: Answer) -> None:
        if len(self._first) < PREFLIGHT:
            self._first.append(answer)

    def preflight(self) -> None:
        """Stop a run at its start if the model means to say something else than the options, which most often is a thought.

        Raises:
            UserError: the first `PREFLIGHT` answers hold neither option, or end within a thought; what they begin with is quoted.
        """
        s, first = self.settings, self._first
        if self._underway or len(first) < PREFLIGHT:
            return
        self._underway = not all(map(self._says_nothing, first))
        if self._underway:
            return
        begin = Counter(" ".join((answer.text or "").split())[:60] for answer in first).most_common(2)
        if s.answer == "probability":
            what, other = f"neither option ({s.approve[0]}, {s.reject[0]}) has a probability of min_mass, {s.min_mass:g}", "answer: text"
        else:
            what, other = f"nothing is said beside thoughts within {s.max_tokens} tokens", "a larger max_tokens"
        raise UserError(
            f"params.yaml: judges: {s.model}: in the first {PREFLIGHT} answers {what}; they begin with "
            f"{' and '.join(repr(text) for text, _ in begin)}. If the model thinks first, set template: {{enable_thinking: false}} or a "
            f"prefill, such as an empty thought (docs/guides/vlm-judges.md); else change the prompt or the options, or set {other}"
        )

    def _says_nothing(self, answer: Answer) -> bool:
        """Whether neither option has any mass, or a text holds nothing but thoughts."""
        if self.settings.answer == "text":
            return not any(spoken(opened(self.settings.prefill) + text) for text in answer.samples or [answer.text or ""])
        return self.decide(answer)[0] == "unparsed"

    def decide(self, answer: Answer) -> tuple[Outcome, float | None, str]:
        """(outcome, log-odds of approval, reason): by the probability where one was asked for and given, else by the text."""
        s = self.settings
        if s.answer == "probability" and answer.log_odds is not None:
            if answer.option_mass is not None and answer.option_mass < s.min_mass:
                return "unparsed", None, "the model wants to say something else"
            return ("approve" if answer.log_odds >= logit(s.threshold) else "reject"), answer.log_odds, ""
        if s.samples > 1:
            outcomes = [read(text, s.approve, s.reject, s.answer_line, s.prefill).outcome for text in answer.samples]
            if all(o == "unparsed" for o in outcomes):
                return "unparsed", None, ""
            share = outcomes.count("approve") / len(outcomes)  # what cannot be read approves nothing
            return ("approve" if share >= s.threshold else "reject"), finite_log_odds(share), ""
        said = read(answer.text or "", s.approve, s.reject, s.answer_line, s.prefill)
        return said.outcome, None, said.reason

    def check_parsed(self) -> str:
        """A line about the answers that said neither yes nor no, of all that came so far; empty where there are none.

        Raises:
            UserError: nearly all.
        """
        unparsed, questions, s = self.counts["unparsed"], self.counts["questions"], self.settings
        if not unparsed or self.unread is None:
            return ""
        yes, no, share = s.approve[0], s.reject[0], unparsed / questions
        said = [repr(text[:200]) for text in (self.unread.text, *self.unread.samples[:1]) if text is not None][-1:]
        if s.answer == "probability" and self.unread.option_mass is not None:
            said.append(f"{yes} or {no} together have {self.unread.option_mass:.2g} of the probability at the answer's first position")
            help = "make the prompt ask for one of them, name others in approve and reject, or set answer: text"
        else:
            help = "make the prompt ask for one of them first, or change approve, reject, answer_line or max_tokens"
        line = f"{unparsed:,} of {questions:,} answers unparsed (neither {yes} nor {no}), for example: {'; '.join(said)}"
        if questions >= ENOUGH and share >= TOO_MANY:
            raise UserError(f"params.yaml: judges: model: {s.model}: {line}; {help}")
        return f"WARNING: {line}; {help}" if share >= LOUD else line


def question(folder: Path, settings: VlmJudge) -> tuple[str, Row | None]:
    """What a judge is asked, and its calibration where it has one, from the judge's folder.

    A calibrated judge asks what the judge was asked whose answers gave it its thresholds: `calibration.json` holds the text.

    Raises:
        UserError: there is no question, the calibration is missing, or a calibrated judge's own question is another.
    """
    key = f"params.yaml: judges.{folder.name}.prompt"
    if not settings.calibrated:
        if not settings.prompt.strip():
            raise UserError(f"{key}: a judge of kind vlm needs a question")
        return settings.prompt, None
    path = folder / "calibration.json"
    if not path.exists():
        raise UserError(f"{path}: no such file; `calibrations` in params.yaml needs a line {folder.name}: {{probed: ...}}")
    calibration = read_json(path)
    prompt: str = Calibrated.read(calibration, path).of["prompt"]
    if settings.prompt and settings.prompt != prompt:
        raise UserError(
            f"{key}: another question than the one that the thresholds of {folder.name} were fitted on; take it out, or give it the text "
            "of the judge that `calibrations` names for it"
        )
    return prompt, calibration


def judge_task(settings: VlmJudge, task: Task) -> Judged:
    """`judge` of what the stage gives."""
    prompt, calibration = question(task.folder, settings)
    store, person = Store(task.answers), settings.human.person(task.known()) if settings.human else None
    return Judged(*judge(
        task.pool, task.proposals, task.images, prompt, settings, store, calibration=calibration, person=person
    ))  # fmt: skip


def judge(
    pool: Coco,
    proposals: list[Row],
    images: Path,
    prompt: str,
    settings: VlmJudge,
    store: Store,
    backend: Backend | None = None,
    calibration: Row | None = None,
    person: Person | None = None,
) -> tuple[list[Verdict], dict[str, Any], dict[str, Any]]:
    """Verdicts by ascending image id. An image without proposals is not asked about.

    Args:
        images: the folder that `file_name`s are relative to.
        backend: another than the settings' own.
        calibration: of `vlm_itl.probes.metrics.calibrate`, with the identity `of` the judge that it was fitted on, for a judge that is
            `calibrated`.
        person: says of an image id and its accepted proposals whether that is all right; asked between the calibration's two thresholds.

    Returns:
        The verdicts; under `unit: instance` their `log_odds` are those of the least sure of all that was asked, after the calibration where
        there is one. What identifies the judge: model, revision, prompt, rendering, versions. What it took: questions, unparsed answers
        and images that have one, tokens, seconds, machines.

    Raises:
        UserError: the model or server cannot be used, knows none of the pool's classes, is not the one that the calibration was fitted on,
            or gives answers that cannot be read; not every question was answered.
    """
    check_classes(settings, pool)
    backend = backend or make_backend(settings, store)
    identity = {
        **backend.identity,
        "prompt": prompt, "prompt_md5": hashlib.md5(prompt.encode()).hexdigest(),
        "unit": settings.unit, "threshold": settings.threshold, "min_mass": settings.min_mass, "approve": settings.approve,
        "reject": settings.reject, "render": settings.render.model_dump(),
        **({"calibration": calibration} if calibration else {}),
        "versions": getattr(backend, "versions", {}),
    }  # fmt: skip
    by = Calibrated.read(calibration, Path("calibration.json")) if calibration else None
    if by:
        check_same(identity, by.of)
    asker = Asker(settings, backend, store)
    composer = Composer(pool, proposals, images, prompt, settings)
    decided = _judge_instances(asker, composer, by, person) if settings.unit == "instance" else _judge_images(asker, composer)
    nobody = {"approve": False, "unparsed": 0}
    verdicts = [
        Verdict(i, len(composer.shown.get(i, [])), i in decided, settings.whose_time, **decided.get(i, nobody))
        for i in (image["id"] for image in composer.pool)
    ]
    say(f"{asker.counts['questions']:,} questions, {asker.asked:,} of them asked now and the others answered before")
    took = {**asker.counts, "images_unparsed": sum(bool(v.unparsed) for v in verdicts)}
    if line := asker.check_parsed():
        say(f"{line}; {took['images_unparsed']:,} of {len(decided):,} images have one, and it approves nothing")
    return verdicts, identity, took


def check_same(identity: Row, of: Row) -> None:
    """Whether a judge is the one that its calibration was fitted on, but for versions of libraries.

    Raises:
        UserError: its thresholds are another judge's, or another question's.
    """
    keys = [key for key in dict.fromkeys([*of, *identity]) if key not in NOT_ASKED]
    other = [f"{key}: {identity.get(key)!r}, there {of.get(key)!r}" for key in keys if identity.get(key) != of.get(key)]
    if other:
        raise UserError(
            f"params.yaml: judges: this judge ({identity.get('model')}) has thresholds that were fitted on answers to another question "
            f"({'; '.join(other)}); give it the settings of the judge that `calibrations` names for it, then run `dvc repro`"
        )


def _judge_images(asker: Asker, composer: Composer) -> dict[int, Row]:
    """One question an image: all its proposals, drawn and declared."""
    questions = (composer.question("image", image, composer.shown[image["id"]]) for image in composer.asked)
    answers = asker.ask(questions, len(composer.asked), "judging images")
    verdicts = {image["id"]: _verdict(asker, answer) for image, answer in zip(composer.asked, answers)}
    return {i: {**v, "unparsed": int(v["outcome"] == "unparsed")} for i, v in verdicts.items()}


def _judge_instances(asker: Asker, composer: Composer, by: Calibrated | None, person: Person | None) -> dict[int, Row]:
    """First every proposal alone, then, with the accepted ones drawn, whether anything is missing. No second question without any.

    A calibrated judge accepts the masks that it would accept without: so it asks about completeness what was asked on the probes, and its
    thresholds mean here what they meant there. The calibration enters the image's log-odds alone.
    """
    asked, shown = composer.asked, composer.shown
    rows = [(image, row) for image in asked for row in shown[image["id"]]]
    masks = asker.ask((composer.question("mask", image, [row]) for image, row in rows), len(rows), "judging masks")
    asker.check_parsed()
    accepted: dict[int, list[bool]] = {image["id"]: [] for image in asked}
    log_odds: dict[int, list[float | None]] = {image["id"]: [] for image in asked}
    unparsed = {image["id"]: 0 for image in asked}
    for (image, _), answer in zip(rows, masks):
        outcome, x, _ = asker.decide(answer)
        accepted[image["id"]].append(outcome == "approve")
        log_odds[image["id"]].append(x)
        unparsed[image["id"]] += outcome == "unparsed"
    kept = {i: [row for row, ok in zip(shown[i], oks) if ok] for i, oks in accepted.items()}
    with_accepted = [image for image in asked if kept[image["id"]]]
    about_the_rest = (composer.question("missing", image, kept[image["id"]]) for image in with_accepted)
    rest = asker.ask(about_the_rest, len(with_accepted), "judging completeness")
    complete = {image["id"]: _verdict(asker, answer) for image, answer in zip(with_accepted, rest)}
    none: Row = {
        "approve": False, "log_odds": None, "answer": None, "outcome": "reject", "reason": "no proposal accepted", "option_mass": None,
    }  # fmt: skip
    verdicts = {}
    for i, oks in accepted.items():
        v = dict(complete.get(i, none))
        missing = v["log_odds"]
        unparsed[i] += v["outcome"] == "unparsed"
        if missing is not None:
            v["log_odds"] = weakest(log_odds[i], oks, missing, by or Calibrated())
            if by:
                v |= _decided(v["log_odds"], by, person and (lambda i=i: person(i, kept[i])))
        verdicts[i] = {
            **v, "unparsed": unparsed[i], "accepted": oks, "log_odds_mask": log_odds[i], "log_odds_missing": missing,
            "questions": len(oks) + (i in complete),
        }  # fmt: skip
    return verdicts


def _decided(log_odds: float, by: Calibrated, person: Callable[[], bool] | None) -> Row:
    """A calibrated judge's decision: by one threshold, or by two with a person between them."""
    if person is None:
        approve, asked = log_odds >= by.threshold, False
    elif by.reject <= log_odds < by.approve:
        approve, asked = person(), True
    else:
        approve, asked = log_odds >= by.approve, False
    return {"approve": approve, "outcome": "approve" if approve else "reject", "person": asked}


def _verdict(asker: Asker, answer: Answer) -> Row:
    outcome, log_odds, reason = asker.decide(answer)
    return {
        "approve": outcome == "approve", "log_odds": log_odds, "answer": answer.text, "outcome": outcome,
        "reason": reason, "option_mass": None if answer.option_mass is None else round(answer.option_mass, 4),
    }  # fmt: skip
