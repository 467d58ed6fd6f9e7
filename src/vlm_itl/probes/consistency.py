"""Is the judge looking at all? Some probes, asked once more in ways that should change nothing, or everything.

| variant | the question |
| --- | --- |
| `again` | as it was, at another place in another batch |
| `blank` | with grey pictures of the same size: what is approved now is not approved for what it shows |
| `swapped` | with the options named in the other order, where the prompt has `{options}` |
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
from scipy.special import expit

from vlm_itl.core.coco import Coco
from vlm_itl.core.redact import say
from vlm_itl.judges.vlm.composing import Composer, Row, Subject
from vlm_itl.judges.vlm.judging import Asker, check_classes, make_backend
from vlm_itl.judges.vlm.questions import Answer, Backend, Question
from vlm_itl.judges.vlm.reading import Outcome
from vlm_itl.judges.vlm.settings import VlmJudge
from vlm_itl.judges.vlm.store import Store

VARIANTS = ("again", "blank", "swapped")
GREY = (128, 128, 128)

Said = tuple[Outcome, float | None]  # decision and P(approve)


def measure(
    pool: Coco,
    proposals: list[Row],
    images: Path,
    prompt: str,
    settings: VlmJudge,
    store: Store,
    number: int,
    seed: int,
    backend: Backend | None = None,
) -> dict[str, Any]:
    """Ask about some probes as the judge stage does, and again in every variant.

    `unit: instance` asks about every mask, and whether anything is missing with all proposals drawn, accepted or not.

    Args:
        pool, proposals: see `vlm_itl.probes.making`.
        images: the folder that `file_name`s are relative to.
        number: of probes to ask about.
        seed: of which, and of the order in which they are asked again.
        backend: another than the settings' own.

    Returns:
        See `summary`.

    Raises:
        UserError: the model or server cannot be used, or not every question was answered.
    """
    check_classes(settings, pool)
    asker = Asker(settings, backend or make_backend(settings, store), store)
    composer = Composer(pool, proposals, images, prompt, settings)
    chosen = sample(composer.asked, number, seed)
    whole: list[Subject] = [("missing" if settings.unit == "instance" else "image", i, composer.shown[i["id"]]) for i in chosen]
    masks: list[Subject] = [("mask", image, [row]) for _, image, rows in whole for row in rows if settings.unit == "instance"]
    subjects = masks + whole

    first = asker.ask((composer.question(*subject) for subject in subjects), len(subjects), "judging probes")
    before = [_said(asker, answer) for answer in first]

    # all variants of a question follow each other, and the questions are shuffled: no batch is one of the judge stage's
    possible: dict[int, list[str]] = {}
    for k in random.Random(seed).sample(range(len(subjects)), len(subjects)):
        open_order = "{options}" in composer.texts[subjects[k][0]]
        possible[k] = [variant for variant in VARIANTS if variant != "swapped" or open_order]
    asked = [(k, variant) for k, variants in possible.items() for variant in variants]

    def questions() -> Iterator[Question]:
        for k, variants in possible.items():
            kind, image, rows = subjects[k]
            question, turned = composer.question(kind, image, rows), composer.text(kind, rows, turned=True)
            yield from (vary(question, variant, turned) for variant in variants)

    pairs: dict[str, list[tuple[Said, Said]]] = {variant: [] for variant in VARIANTS}
    for (k, variant), answer in zip(asked, asker.ask(questions(), len(asked), "judging probes again")):
        pairs[variant].append((before[k], _said(asker, answer)))
    say(f"{asker.counts['questions']:,} questions, {asker.asked:,} of them asked now and the others answered before")
    return summary(len(chosen), before, pairs)


def _said(asker: Asker, answer: Answer) -> Said:
    outcome, log_odds, _ = asker.decide(answer)
    return outcome, None if log_odds is None else float(expit(log_odds))


def sample(images: list[Row], number: int, seed: int) -> list[Row]:
    """`number` of the images (all, where there are fewer), by ascending id and as many of each `kind` as can be.

    The choice depends on the seed, the kinds and the ids, not on the order of the list.
    """
    kinds: dict[str, list[Row]] = {}
    for image in sorted(images, key=lambda i: i["id"]):
        kinds.setdefault(image["kind"], []).append(image)
    for kind, rows in kinds.items():
        random.Random(f"{seed}/{kind}").shuffle(rows)
    turns = itertools.zip_longest(*(kinds[kind] for kind in random.Random(seed).sample(sorted(kinds), len(kinds))))
    drawn = (image for turn in turns for image in turn if image is not None)
    return sorted(itertools.islice(drawn, number), key=lambda i: i["id"])


def vary(question: Question, variant: str, turned: str) -> Question:
    """A question in one of the `VARIANTS`; `turned` is its text with the options in the other order."""
    changes: dict[str, Any] = {}
    if variant == "blank":
        changes["pictures"] = tuple(PIL.Image.new("RGB", picture.size, GREY) for picture in question.pictures)
        changes["again"] = None  # nobody else can draw them
    elif variant == "swapped":
        changes["text"] = turned
    return replace(question, variant=variant, **changes)


def summary(images: int, before: list[Said], pairs: dict[str, list[tuple[Said, Said]]]) -> dict[str, Any]:
    """Numbers of the answers to the unchanged questions, and of each variant's, paired with those.

    Returns:
        `images` (probes asked about); for `unchanged` and every variant the number of `questions`, the shares `unparsed` and `approved`
        and the mean `p_approve`; for a variant also `flipped`, the share of questions whose decision changed (approved or not: an
        unparsed answer approves nothing), and `p_change`, the mean absolute change of P(approve) where both answers give one. Null where
        there is nothing to count.
    """
    result: dict[str, Any] = {"images": images or None, "unchanged": _numbers(before)}
    for variant in VARIANTS:
        said = pairs.get(variant, [])
        result[variant] = {
            **_numbers([after for _, after in said]),
            "flipped": _mean((a[0] == "approve") != (b[0] == "approve") for a, b in said),
            "p_change": _mean(abs(a[1] - b[1]) for a, b in said if a[1] is not None and b[1] is not None),
        }
    return result


def _numbers(said: list[Said]) -> dict[str, Any]:
    return {
        "questions": len(said) or None,
        "unparsed": _mean(outcome == "unparsed" for outcome, _ in said),
        "approved": _mean(outcome == "approve" for outcome, _ in said),
        "p_approve": _mean(p for _, p in said if p is not None),
    }


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return round(sum(listed) / len(listed), 4) if listed else None


NOTHING = summary(0, [], {})  # of a judge that looks at no pictures
