"""One round: what verdicts and a policy do to labels, pool and annotation log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vlm_itl.core.coco import Coco, by_image, empty_like, first, without_truth
from vlm_itl.core.errors import UserError
from vlm_itl.judges.verdict import Verdict
from vlm_itl.loop.annotation_log import Entry, Log, drawn
from vlm_itl.loop.labels import add
from vlm_itl.loop.policy import Outcome, Policy, Shown

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
) -> tuple[Coco, Coco, Log]:
    """Labels, pool and log after a run's verdicts.

    A round concerns the first `batch` images of the pool; the others stay in it. An image that was not asked about (no proposals) is
    treated as rejected.

    Args:
        name, run: the run and its line in params.yaml.
        policy: that of the run.
        truth: the pool's ground truth; a policy that does not see it never gets it.
        iou: mask IoU from which on a mask stands for an instance.

    Returns:
        New labels (earlier ones unchanged, then this run's, by pool order), the images still unlabelled, the log with this run's actions.

    Raises:
        UserError: verdicts and proposals do not belong together, or the policy needs the truth of images that have none.
    """
    round_images = first(pool, run.batch)["images"]
    if truth is not None and policy.sees_truth and (unknown := without_truth(round_images, truth)):
        raise UserError(
            f"params.yaml: runs.{name}.policy: {run.policy} takes what a simulated human draws from labels, and {len(unknown):,} of "
            f"{len(round_images):,} images have none; take policy: pool or drop (docs/guides/own-data.md)"
        )
    shown = by_image(proposals)
    true = by_image(truth) if truth is not None and policy.sees_truth else None
    said = {v.image_id: v for v in verdicts}
    new_labels: Coco = {**labels, "images": list(labels["images"]), "annotations": list(labels["annotations"])}
    new_pool = empty_like(pool)
    batch = {image["id"] for image in round_images}
    outcomes = []
    for image in pool["images"]:
        i = image["id"]
        if i not in batch:
            new_pool["images"].append(image)
            continue
        one = Shown(image, shown.get(i, []), said.get(i), None if true is None else true.get(i, []), iou)
        if one.is_approved and not one.proposals:
            raise UserError(f"an approval of image {i}, which has no proposals: they do not belong together")
        outcome = policy.approved(one) if one.is_approved else policy.rejected(one)
        outcomes.append(outcome)
        if outcome.labels is not None:
            add(new_labels, image, outcome.labels, run=name, judge=run.judge)
        elif outcome.stays:
            new_pool["images"].append(image)
    return new_labels, new_pool, [*log, *charged(name, run.judge, verdicts, outcomes)]


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
        actor, number = asked[0].actor, sum(1 if v.questions is None else v.questions for v in asked)
        about = counted(unit for v in asked for unit in units(v)) if actor == "human" else None
        entries.append(Entry(run=run, action="verify", actor=actor, judge=judge, decisions=number, about=about))
    for kind, sizes in (
        ("image", [v.proposals if v.accepted is None else sum(v.accepted) for v in passed_on]),
        ("missing", [len((outcome.labels or {}).get("model", [])) for outcome in looks]),
    ):
        if sizes:
            about = counted((kind, size) for size in sizes)
            entries.append(Entry(run=run, action="verify", actor="human", judge=judge, decisions=len(sizes), about=about))
    if by_hand := [outcome.drawn for outcome in outcomes if outcome.drawn is not None]:
        entries.append(drawn(run, "labels", by_hand))
    if dropped := sum(outcome.leaves for outcome in outcomes):
        entries.append(Entry(run=run, action="drop", actor="none", images=dropped))
    return entries


def units(verdict: Verdict) -> list[tuple[str, int]]:
    """(unit, number of masks shown) of each decision behind a person's verdict. Two equal masks of an image are one question."""
    if verdict.accepted is None:
        return [("image", verdict.proposals)]
    kept, questions = sum(verdict.accepted), verdict.questions or 0
    missing = kept > 0 or questions > len(verdict.accepted)
    return [("mask", 1)] * (questions - missing) + ([("missing", kept)] if missing else [])


def counted(decisions: Iterable[tuple[str, int]]) -> dict[str, dict[str, int]]:
    """How often each (unit, number of masks) is there, as the log has it."""
    found: dict[str, dict[str, int]] = {}
    for (unit, masks), number in sorted(Counter(decisions).items()):
        found.setdefault(unit, {})[str(masks)] = number
    return found
