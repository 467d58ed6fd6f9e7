"""One round: what verdicts and a policy do to labels, pool and annotation log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_itl.core.coco import Coco, by_image, empty_like, first, without_truth
from vlm_itl.core.errors import UserError
from vlm_itl.core.redact import say
from vlm_itl.judges.verdict import Unit, Verdict, check_about
from vlm_itl.loop import drawings
from vlm_itl.loop.annotation_log import Entry, Log, drawn
from vlm_itl.loop.labels import add
from vlm_itl.loop.policy import Drawn, Outcome, Policy, Shown

if TYPE_CHECKING:
    from vlm_itl.settings import Run


def update(
    name: str,
    run: Run,
    policy: Policy,
    labels: Coco,
    pool: Coco,
    proposals: list[dict[str, Any]],
    verdicts: Sequence[Verdict],
    truth: Coco | None,
    log: Log,
    iou: float,
    by_people: Path | None = None,
) -> tuple[Coco, Coco, Log]:
    """Labels, pool and log after a run's verdicts.

    A round concerns the first `batch` images of the pool; the others stay in it. An image that was not asked about (no proposals) is
    treated as rejected.

    Args:
        name, run: the run and its line in params.yaml.
        policy: that of the run.
        truth: the pool's ground truth; a policy that does not see it never gets it.
        iou: mask IoU from which on a mask stands for an instance.
        by_people: the folder of the run's drawings, where real people draw what is rejected (`drawn_by: people`).

    Returns:
        New labels (earlier ones unchanged, then this run's, by pool order), the images still unlabelled, the log with this run's actions.

    Raises:
        UserError: verdicts and proposals do not belong together, the policy needs the truth of images that have none, or images wait for
            people to draw on them.
    """
    round_images = first(pool, run.batch)["images"]
    if truth is not None and policy.sees_truth and (unknown := without_truth(round_images, truth)):
        raise UserError(
            f"params.yaml: runs.{name}.policy: {run.policy} takes what a simulated human draws from labels, and {len(unknown):,} of "
            f"{len(round_images):,} images have none; take policy: pool or drop, or drawn_by: people (docs/guides/own-data.md)"
        )
    round_shown = shown_in(run, pool, proposals, verdicts, truth if policy.sees_truth else None, iou)
    people = {} if by_people is None else drawn_on(name, round_shown, by_people, pool)
    new_labels: Coco = {**labels, "images": list(labels["images"]), "annotations": list(labels["annotations"])}
    new_pool = empty_like(pool)
    outcomes = []
    for one in round_shown:
        if one.is_approved:
            outcome = policy.approved(one)
        elif by_people is not None:
            outcome = policy.drawn(one, people[one.image["id"]])
        else:
            outcome = policy.rejected(one)
        outcomes.append(outcome)
        if outcome.labels is not None:
            add(new_labels, one.image, outcome.labels, run=name, judge=None if outcome.by_people else run.judge)
        elif outcome.stays:
            new_pool["images"].append(one.image)
    new_pool["images"] += pool["images"][len(round_images) :]
    return new_labels, new_pool, [*log, *charged(name, run.judge, verdicts, outcomes)]


def shown_in(
    run: Run, pool: Coco, proposals: list[dict[str, Any]], verdicts: Sequence[Verdict], truth: Coco | None, iou: float
) -> list[Shown]:
    """The images of a round, in the pool's order, with what was proposed and said of them.

    Raises:
        UserError: verdicts and proposals do not belong together.
    """
    rows, batch = by_image(proposals), first(pool, run.batch)["images"]
    check_about(verdicts, rows, batch)
    true = None if truth is None else by_image(truth)
    said = {v.image_id: v for v in verdicts}
    result = []
    for image in batch:
        i = image["id"]
        result.append(Shown(image, rows.get(i, []), said[i], None if true is None else true.get(i, []), iou))
    return result


def drawn_on(name: str, round_shown: Sequence[Shown], folder: Path, pool: Coco) -> dict[int, Drawn]:
    """What people drew on the rejected images of a round, by image id.

    Raises:
        UserError: it is not there of all of them, or a file is no drawing.
    """
    names = {row["id"]: row["name"] for row in pool["categories"]}
    rejected = [one for one in round_shown if not one.is_approved]
    found, stale = drawings.fresh(folder, rejected, names)
    if stale:
        say(f"{folder}: {len(stale):,} drawings are of another picture or of other proposals than today's, so they are not used")
    if waiting := len(rejected) - len(found):
        raise UserError(f"{name}: {waiting:,} of {len(rejected):,} images wait to be drawn: make export RUN={name}")
    ids = {label: i for i, label in names.items()}
    return {
        one.image["id"]: drawings.rows(found[one.image["id"]], one, ids, str(drawings.path_of(folder, one.image["id"])))
        for one in rejected
    }  # fmt: skip


def charged(run: str, judge: str, verdicts: Sequence[Verdict], outcomes: Sequence[Outcome]) -> Log:
    """What was done in a round, as entries of the log; what did not happen has none.

    Args:
        verdicts: of the round's judge.
        outcomes: of the round's images.
    """
    asked = [v for v in verdicts if v.asked]
    passed_on = [v for v in asked if v.person]  # by a model, to a person
    looks = [outcome for outcome in outcomes if outcome.looked]  # whether anything is missing: also where nothing is
    entries = []
    if asked:
        actor, number = asked[0].actor, sum(v.decisions for v in asked)
        about = counted(unit for v in asked for unit in units(v)) if actor == "human" else None
        entries.append(Entry(run=run, action="verify", actor=actor, judge=judge, decisions=number, about=about))
    by_people: dict[Unit, list[int]] = {
        "image": [v.proposals if v.accepted is None else sum(v.accepted) for v in passed_on],
        "missing": [len((outcome.labels or {}).get("model", [])) for outcome in looks],
    }
    for kind, sizes in by_people.items():
        if sizes:
            about = counted((kind, size) for size in sizes)
            entries.append(Entry(run=run, action="verify", actor="human", judge=judge, decisions=len(sizes), about=about))
    if by_hand := [outcome.drawn for outcome in outcomes if outcome.drawn is not None]:
        kept = [len((outcome.labels or {}).get("model", [])) for outcome in outcomes if outcome.by_people]
        entries.append(drawn(run, "labels", by_hand, sum(kept) if kept else None))
    if mended := [outcome for outcome in outcomes if outcome.corrected or outcome.removed]:
        entries.append(
            Entry(
                run=run, action="correct", actor="human", purpose="labels", images=len(mended),
                instances=sum(len(outcome.corrected) for outcome in mended), removed=sum(outcome.removed for outcome in mended),
            )
        )  # fmt: skip
    if dropped := sum(outcome.leaves for outcome in outcomes):
        entries.append(Entry(run=run, action="drop", actor="none", images=dropped))
    return entries


def units(verdict: Verdict) -> list[tuple[Unit, int]]:
    """(unit, number of masks shown) of each decision behind a person's verdict. Two equal masks of an image are one question."""
    if verdict.accepted is None:
        return [("image", verdict.proposals)]
    kept = sum(verdict.accepted)
    missing = kept > 0 or verdict.decisions > len(verdict.accepted)
    masks: list[tuple[Unit, int]] = [("mask", 1)] * (verdict.decisions - missing)
    return [*masks, ("missing", kept)] if missing else masks


def counted(decisions: Iterable[tuple[Unit, int]]) -> dict[Unit, dict[str, int]]:
    """How often each (unit, number of masks) is there, as the log has it."""
    found: dict[Unit, dict[str, int]] = {}
    for (unit, masks), number in sorted(Counter(decisions).items()):
        found.setdefault(unit, {})[str(masks)] = number
    return found
