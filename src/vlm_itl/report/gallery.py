"""The gallery: what a judge was shown, what it said and what is true, sorted by whether it was right, as one page.

Answers and class names are strangers' text: the template escapes everything, and the page's content security policy forbids scripts.
"""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import jinja2
from tqdm import tqdm

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.matching import all_right, iou_matrix, on_crowd, partners, rightness, same_class, shared_numbers
from vlm_itl.core.pictures import Pixels, read_picture
from vlm_itl.judges import rendering
from vlm_itl.judges.verdict import Verdict, check_about
from vlm_itl.loop.accepted import accepted_proposals
from vlm_itl.settings import Gallery, Judge, PersonJudge, Render, VlmJudge

Row = dict[str, Any]
GroupName = Literal["right", "partly right", "wrong", "no truth"]
MEANING: dict[GroupName, str] = {
    "right": "The judge decided as the oracle does.",
    "partly right": "It approved an image that is not right as a whole, but at least one accepted mask is.",
    "wrong": "It rejected a right image, or approved one without a right mask.",
    "no truth": "Nobody has labelled these images, so it is not known whether the judge was right.",
}
LONGEST = 720  # pixels of a picture's longer side on the page


@dataclass(frozen=True)
class Picture:
    caption: str
    url: str  # data:image/jpeg;base64,...
    width: int  # pixels
    height: int


@dataclass(frozen=True)
class Entry:
    """A proposal or a true instance in a card's lists."""

    number: int  # from 1; a true mask has that of its proposal
    colour: str  # as in the pictures, #rrggbb
    name: str  # class
    state: str  # proposals: right, wrong, double, ignored, not known; true masks: found, missed, ignored
    iou: float | None = None  # proposals: the highest with an instance of the same class
    score: float | None = None  # proposals: the detector's
    accepted: bool | None = None  # proposals, of a judge that decides on each
    p: float | None = None  # likewise, P(accept)


@dataclass(frozen=True)
class Card:
    """An image that was asked about."""

    image_id: int
    decision: str  # approved, rejected, unparsed
    outcome: str  # what that was worth, in words
    p_approve: float | None
    answer: str  # raw
    reason: str
    pictures: list[Picture]
    proposals: list[Entry]
    instances: list[Entry]
    file_name: str = ""  # the user's, of a picture that came from a file of theirs


@dataclass(frozen=True)
class Group:
    name: GroupName
    meaning: str
    count: int  # of images, shown or not
    approved: int  # of these
    cards: list[Card]


@dataclass(frozen=True)
class Content:
    kind: str  # of judge, in words
    simulated: bool  # neither a person nor a VLM took part
    by_instance: bool  # the judge decides on each proposal
    model: str | None
    iou: float  # of the oracle
    asked: int
    not_asked: int  # images without proposals
    groups: list[Group]


def group_of(verdict: Verdict, proposals: list[Row], truth: list[Row] | None, iou: float) -> GroupName:
    """Where the verdict on one image belongs, against the oracle (`all_right` at mask IoU `iou`); without truth, in a group of its own.

    What is compared is what would become labels: of a judge that decides on every proposal, those that it accepts.

    Returns:
        `right`: approved and all right, or rejected and not all right. `partly right`: approved, not all right, but at least one accepted
        mask is right (`rightness`). `wrong`: all right and rejected, or approved without one mask that is right.
    """
    if truth is None:
        return "no truth"
    accepted = accepted_proposals(proposals, verdict.accepted)
    if verdict.approve == all_right(accepted, truth, iou):
        return "right"
    return "partly right" if verdict.approve and True in rightness(accepted, truth, iou) else "wrong"


def choose(verdicts: list[Verdict], number: int, seed: int) -> list[Verdict]:
    """At most `number` verdicts, in an order that depends on the seed and the image ids alone."""
    return sorted(verdicts, key=lambda v: hashlib.sha256(f"{seed} {v.image_id}".encode()).digest())[:number]


def collect(
    verdicts: list[Verdict], proposals: list[Row], pool: Coco, truth: Coco, images: Path, judge: Judge, iou: float, settings: Gallery
) -> Content:
    """Sort the images that were asked about and draw the chosen ones.

    Args:
        images: the folder that `file_name`s are relative to.
        judge: its settings; a VLM's say how its pictures look, those of any other judge are drawn as they are by default.
        iou: of the oracle.

    Raises:
        UserError: a verdict and the pool or the proposals do not belong together.
    """
    shown, drawn = by_image(proposals), by_image(truth)
    instances = {image["id"]: drawn.get(image["id"], []) for image in truth["images"]}
    rows = {image["id"]: image for image in pool["images"]}
    names = {row["id"]: row["name"] for row in pool["categories"]}
    check_about(verdicts, shown)
    asked = [v for v in verdicts if v.asked]
    sorted_out: dict[GroupName, list[Verdict]] = {name: [] for name in get_args(GroupName)}
    for v in asked:
        i = v.image_id
        sorted_out[group_of(v, shown[i], instances.get(i), iou)].append(v)
    if not sorted_out["no truth"]:
        del sorted_out["no truth"]
    chosen = {name: choose(some, settings.per_group, settings.seed) for name, some in sorted_out.items()}
    look = judge.render if isinstance(judge, VlmJudge | PersonJudge) else Render()
    with tqdm(total=sum(map(len, chosen.values())), desc="drawing the gallery", unit="image") as bar:

        def card(verdict: Verdict) -> Card:
            i = verdict.image_id
            pixels = read_picture(images / rows[i]["file_name"])
            made = draw(verdict, pixels, shown[i], instances.get(i), names, look, iou)
            bar.update()
            return replace(made, file_name=rows[i].get("original_name", ""))

        groups = [
            Group(name, MEANING[name], len(some), sum(v.approve for v in some), [card(v) for v in chosen[name]])
            for name, some in sorted_out.items()
        ]
    model = None
    if isinstance(judge, VlmJudge):  # an absolute path is this machine's own
        model = Path(judge.model).name if Path(judge.model).is_absolute() else judge.model
    return Content(
        kind=judge.label, simulated=judge.simulated, model=model,
        by_instance=isinstance(judge, VlmJudge | PersonJudge) and judge.unit == "instance", iou=iou, asked=len(asked),
        not_asked=len(verdicts) - len(asked), groups=groups,
    )  # fmt: skip


def draw(
    verdict: Verdict, pixels: Pixels, proposals: list[Row], truth: list[Row] | None, names: dict[int, str], look: Render, iou: float
) -> Card:
    """One image's card: its pictures, and for each proposal and true mask what became of it. Without truth, what the judge said."""
    accepted = verdict.accepted
    known = truth is not None
    truth = truth or []
    decisions: list[bool | None] = [*accepted] if accepted else [None] * len(proposals)
    own = partners(proposals, truth, iou, accepted)
    alone, free = rightness(proposals, truth, iou), on_crowd(proposals, truth, iou)
    single = [g for g in truth if not g.get("iscrowd", 0)]
    best = (iou_matrix(proposals, single) * same_class(proposals, single)).max(axis=1, initial=0)
    states = [
        "not known" if not known else "right" if partner is not None else "ignored" if crowd else "double" if fits else "wrong"
        for partner, fits, crowd in zip(own, alone, free)
    ]  # fmt: skip
    p_mask = verdict.p_mask or [None] * len(proposals)
    listed = [
        Entry(
            k + 1, colour(k), names[row["category_id"]], states[k], float(best[k]) if known else None, row["score"], decisions[k], p_mask[k]
        )
        for k, row in enumerate(proposals)
    ]
    # a true mask has its proposal's colour; one that no proposal fits has a colour that no proposal has
    finder = {place: k for k, place in enumerate(own) if place is not None}
    numbers = shared_numbers(own, len(truth))
    found = [place in finder and decisions[finder[place]] is not False for place in range(len(truth))]
    true = [
        Entry(k + 1, colour(k), names[row["category_id"]], "ignored" if row.get("iscrowd", 0) else "found" if ok else "missed")
        for k, row, ok in sorted(zip(numbers, truth, found), key=lambda place: place[0])
    ]
    pictures = [jpeg("As judged", rendering.overlay(pixels, proposals, look))]
    if known:
        pictures.append(jpeg("True masks", rendering.overlay(pixels, truth, look, numbers)))
    if look.original:
        pictures.insert(0, jpeg("Photograph", pixels))
    counted = [entry.state for entry in listed if entry.accepted is not False and entry.state != "ignored"]
    return Card(
        image_id=verdict.image_id,
        decision="unparsed" if verdict.outcome == "unparsed" else "approved" if verdict.approve else "rejected",
        outcome=outcome(verdict.approve, counted, true) if known else "its truth is not known",
        p_approve=verdict.p_approve, answer=verdict.answer or "", reason=verdict.reason,
        pictures=pictures, proposals=listed, instances=true,
    )  # fmt: skip


def outcome(approve: bool, states: list[str], instances: list[Entry]) -> str:
    """What a decision was worth, in a few words.

    Args:
        states: of the proposals that would become labels, without those on ignored regions, which are neither right nor wrong.
    """
    good, extra = states.count("right"), sum(s in ("wrong", "double") for s in states)
    missed = sum(entry.state == "missed" for entry in instances)
    facts = ", ".join([f"{good} of {len(states)} masks right"] + ([f"{missed} missed"] if missed else []))
    if not extra and not missed:
        return "rightly: everything is there" if approve else "needlessly: everything is there"
    return f"but {facts}" if approve else f"rightly: {facts}"


def colour(index: int) -> str:
    """The index-th proposal's colour in the pictures, #rrggbb."""
    return "#" + bytes(rendering.colour(index).tolist()).hex()


def jpeg(caption: str, pixels: Pixels) -> Picture:
    """A picture that the page holds itself, at most `LONGEST` pixels long; colours at full resolution, as contours are thin."""
    picture, stream = rendering.settle(pixels, LONGEST), io.BytesIO()
    picture.save(stream, "JPEG", quality=85, subsampling=0)
    return Picture(caption, f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}", *picture.size)


def examples(content: Content, number: int) -> list[Row]:
    """The first cards of each group, for the report: one row a card, of what it shows."""
    return [
        {"group": group.name, "image_id": card.image_id, "decision": card.decision, "outcome": card.outcome, "p_approve": card.p_approve,
         "answer": card.answer[:400], "pictures": [asdict(p) for p in card.pictures if p.caption != "Photograph"]}
        for group in content.groups for card in group.cards[:number]
    ]  # fmt: skip


def render(template: str, run: str, judge: str, content: Content) -> str:
    """The page. Everything that goes into the template is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(run=run, judge=judge, content=content) + "\n"
