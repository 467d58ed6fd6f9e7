"""The judge that looks: a vision-language model, asked about pictures of proposals.

Questions are composed one after the other from the pool, looked up in the store, and, where it has no answer, asked; every answer is stored
as it comes. The back ends import their own heavy packages and are loaded when they are needed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...base.coco import Coco
from ...base.settings import VlmJudge
from ...calibration import Fitted, recalibrated, weakest
from .composing import Composer, Row
from .questions import Answer, Backend, Question
from .reading import Outcome, read
from .store import Store, key

Person = Callable[[int, list[Row]], bool]


def make_backend(settings: VlmJudge, store: Store) -> Backend:
    """Load the model, or make the server's client.

    Args:
        store: remembers what servers said of themselves.

    Raises:
        UserError: it cannot be had; the message says what to do.
    """
    if settings.backend == "openai":
        from .openai_backend import OpenAIBackend

        return OpenAIBackend(settings, store)
    from .transformers_backend import TransformersBackend

    return TransformersBackend(settings)


class Asker:
    """Asks a back end through the store and counts what it took."""

    def __init__(self, settings: VlmJudge, backend: Backend, store: Store) -> None:
        self.settings, self.backend, self.store = settings, backend, store
        self.counts = {"questions": 0, "unparsed": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0, "machines": 1}
        self._machines: set[str] = set()
        self.asked = 0  # of the back end, not found in the store

    def ask(self, questions: Iterable[Question], total: int, desc: str) -> list[Answer]:
        """Answers in the order of the questions.

        `seconds` is wall time. The share of an answer begins when the answer before it came, to whatever question. So shares add up to the
        time that the asking took, however many questions were under way at once. Looking up answers in the store counts only while the back
        end is at work. Shares are kept with the answers: an answer from the store costs what it cost then. `machines` is how many servers
        gave the answers, or 1.

        Raises:
            UserError: see `Backend.ask`; the answers that came are in the store.
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
        result = [answers[number] for number in sorted(answers)]
        for answer in result:
            self.counts["questions"] += 1
            self.counts["unparsed"] += self.decide(answer)[0] == "unparsed"
            self.counts["prompt_tokens"] += answer.prompt_tokens
            self.counts["completion_tokens"] += answer.completion_tokens
            self.counts["seconds"] = round(self.counts["seconds"] + answer.seconds, 6)
            self._machines.add(answer.machine)
        self.counts["machines"] = max(1, len(self._machines))
        return result

    def decide(self, answer: Answer) -> tuple[Outcome, float | None, str]:
        """(outcome, P(approve), reason): by the probability where one was asked for and given, else by the text."""
        s = self.settings
        if s.answer == "probability" and answer.p_approve is not None:
            if answer.option_mass is not None and answer.option_mass < s.min_mass:
                return "unparsed", None, "the model wants to say something else"
            return ("approve" if answer.p_approve >= s.threshold else "reject"), answer.p_approve, ""
        if s.samples > 1:
            outcomes = [read(text, s.approve, s.reject, s.answer_line).outcome for text in answer.samples]
            if all(o == "unparsed" for o in outcomes):
                return "unparsed", None, ""
            share = outcomes.count("approve") / len(outcomes)  # what cannot be read approves nothing
            return ("approve" if share >= s.threshold else "reject"), share, ""
        said = read(answer.text or "", s.approve, s.reject, s.answer_line)
        return said.outcome, None, said.reason


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
) -> tuple[list[Row], dict[str, Any], dict[str, Any]]:
    """Verdicts, as `vlm_itl.judging.judge` gives them, by ascending image id.

    Args:
        images: the folder that `file_name`s are relative to.
        backend: another than the settings' own.
        calibration: of `vlm_itl.evaluation.probes.calibrate`, for a judge that is `calibrated`.
        person: says of an image id and its accepted proposals whether that is all right; asked between the calibration's two thresholds.

    Returns:
        The verdicts, with `outcome` (`approve`, `reject`, `unparsed`), `reason` and `option_mass`; under `unit: instance` also, in the
        order of the image's proposals, `accepted` and `p_mask`, and `p_missing` and `questions` (how many it took); `p_approve` is then
        that of the least sure of all of these. `person`: whether a person decided. What identifies the judge: model,
        revision, prompt, rendering, versions. What it took: questions, unparsed answers, tokens, seconds.

    Raises:
        UserError: the model or server cannot be used, or not every question was answered.
    """
    backend = backend or make_backend(settings, store)
    asker = Asker(settings, backend, store)
    composer = Composer(pool, proposals, images, prompt, settings)
    if settings.unit == "instance":
        decided = _judge_instances(asker, composer, Calibrated(calibration) if calibration else None, person)
    else:
        decided = _judge_images(asker, composer)
    verdicts = []
    for i in (image["id"] for image in composer.pool):
        nothing = {"approve": False, "p_approve": None, "answer": None, "outcome": None, "reason": "", "option_mass": None}
        verdicts.append({
            "image_id": i, "proposals": len(composer.shown.get(i, [])), "asked": i in decided, "actor": "model",
            **decided.get(i, nothing),
        })  # fmt: skip
    print(f"{asker.counts['questions']:,} questions, {asker.asked:,} of them asked now and the others answered before")
    identity = {
        **backend.identity,
        "prompt_md5": hashlib.md5(prompt.encode()).hexdigest(),
        "unit": settings.unit, "threshold": settings.threshold, "render": settings.render.model_dump(),
        **({"calibration": calibration} if calibration else {}),
        "versions": getattr(backend, "versions", {}),
    }  # fmt: skip
    return verdicts, identity, asker.counts


def _judge_images(asker: Asker, composer: Composer) -> dict[int, Row]:
    """One question an image: all its proposals, drawn and declared."""
    questions = (composer.question("image", image, composer.shown[image["id"]]) for image in composer.asked)
    answers = asker.ask(questions, len(composer.asked), "judging images")
    return {image["id"]: _verdict(asker, answer) for image, answer in zip(composer.asked, answers)}


class Calibrated:
    """Thresholds of a calibration, and its P(approve)."""

    def __init__(self, row: Row) -> None:
        self.mask, self.missing = (Fitted(row[k]["scale"], row[k]["shift"]) for k in ("mask", "missing"))
        self.threshold, self.reject, self.approve = row["threshold"], row["reject"], row["approve"]


def _judge_instances(asker: Asker, composer: Composer, by: Calibrated | None, person: Person | None) -> dict[int, Row]:
    """First every proposal alone, then, with the accepted ones drawn, whether anything is missing. No second question without any."""
    asked, shown = composer.asked, composer.shown
    rows = [(image, row) for image in asked for row in shown[image["id"]]]
    masks = asker.ask((composer.question("mask", image, [row]) for image, row in rows), len(rows), "judging masks")
    accepted: dict[int, list[bool]] = {image["id"]: [] for image in asked}
    p_mask: dict[int, list[float | None]] = {image["id"]: [] for image in asked}
    for (image, _), answer in zip(rows, masks):
        outcome, p, _ = asker.decide(answer)
        if by and p is not None:
            outcome = "approve" if recalibrated(p, by.mask) >= asker.settings.threshold else "reject"
        accepted[image["id"]].append(outcome == "approve")
        p_mask[image["id"]].append(None if p is None else round(p, 4))
    kept = {i: [row for row, ok in zip(shown[i], oks) if ok] for i, oks in accepted.items()}
    with_accepted = [image for image in asked if kept[image["id"]]]
    about_the_rest = (composer.question("missing", image, kept[image["id"]]) for image in with_accepted)
    rest = asker.ask(about_the_rest, len(with_accepted), "judging completeness")
    complete = {image["id"]: _verdict(asker, answer) for image, answer in zip(with_accepted, rest)}
    none: Row = {
        "approve": False, "p_approve": None, "answer": None, "outcome": "reject", "reason": "no proposal accepted", "option_mass": None,
    }  # fmt: skip
    verdicts = {}
    for i, oks in accepted.items():
        v = dict(complete.get(i, none))
        p_missing = v["p_approve"]
        if p_missing is not None:
            fitted = (by.mask, by.missing) if by else ()
            v["p_approve"] = round(weakest(p_mask[i], oks, p_missing, *fitted), 4)
            if by:
                v |= _decided(v["p_approve"], by, person and (lambda i=i: person(i, kept[i])))
        questions = len(oks) + (i in complete)
        verdicts[i] = {**v, "accepted": oks, "p_mask": p_mask[i], "p_missing": p_missing, "questions": questions}
    return verdicts


def _decided(p: float, by: Calibrated, person: Callable[[], bool] | None) -> Row:
    """A calibrated judge's decision: by one threshold, or by two with a person between them."""
    if person is None:
        approve, asked = p >= by.threshold, False
    elif by.reject <= p < by.approve:
        approve, asked = person(), True
    else:
        approve, asked = p >= by.approve, False
    return {"approve": approve, "outcome": "approve" if approve else "reject", "person": asked}


def _verdict(asker: Asker, answer: Answer) -> Row:
    outcome, p, reason = asker.decide(answer)
    return {
        "approve": outcome == "approve", "p_approve": None if p is None else round(p, 4), "answer": answer.text, "outcome": outcome,
        "reason": reason, "option_mass": None if answer.option_mass is None else round(answer.option_mass, 4),
    }  # fmt: skip
