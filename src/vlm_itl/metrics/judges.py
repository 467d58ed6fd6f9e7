"""How good a judge's verdicts are, against the oracle (the simulated human without errors) on the same questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import UNSET

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.matching import all_right, rightness
from vlm_itl.judges.verdict import Verdict, check_about
from vlm_itl.loop.accepted import accepted_proposals
from vlm_itl.metrics.rows import Confusion, Proposals, Quality


def judge_quality(verdicts: list[Verdict], proposals: list[dict[str, Any]], truth: Coco, iou: float) -> Quality:
    """Agreement with the oracle on the images that were asked about and that have a truth; those without are counted.

    Of a judge that decides on every proposal, what would become labels is right or not: the proposals that it accepts. Its decisions on
    single proposals are compared apart (`by_proposal`): those that `rightness` says are right or wrong. The others lie on ignored regions;
    `by_proposal.ignored` counts them. Unparsed answers count as rejections; `metrics/asking` has their number.

    Returns:
        The numbers of `confusion` for all, by class, by number of true instances and by proposal.

    Raises:
        UserError: verdicts and proposals do not belong together.
    """
    shown, instances = by_image(proposals), by_image(truth)
    check_about(verdicts, shown)
    names = {row["id"]: row["name"] for row in truth["categories"]}
    known = {image["id"] for image in truth["images"]}
    unknown = [v for v in verdicts if v.asked and v.image_id not in known]
    rows = []
    single: list[tuple[bool, bool | None]] = []
    for v in verdicts:
        if not v.asked or v.image_id not in known:
            continue
        true = [g for g in instances.get(v.image_id, []) if not g["iscrowd"]]
        proposed, accepted = shown[v.image_id], v.accepted
        right = all_right(accepted_proposals(proposed, accepted), instances.get(v.image_id, []), iou)
        if accepted is not None:
            single += zip(accepted, rightness(proposed, instances.get(v.image_id, []), iou), strict=True)
        rows.append((v.approve, right, {g["category_id"] for g in true}, size_bin(len(true))))
    return Quality(
        not_asked=sum(not v.asked for v in verdicts),
        **confusion((a, r) for a, r, _, _ in rows),
        by_class={name: Confusion(**confusion((a, r) for a, r, c, _ in rows if i in c)) for i, name in names.items()},
        by_instances={b: Confusion(**confusion((a, r) for a, r, _, n in rows if n == b)) for b in BINS},
        by_proposal=by_proposal(single) if single else UNSET,
        without_truth=len(unknown) or UNSET,
        approved_without_truth=sum(v.approve for v in unknown) if unknown else UNSET,
    )


def by_proposal(pairs: list[tuple[bool, bool | None]]) -> Proposals:
    """`confusion` of (judge accepts, `rightness`) pairs, without the `ignored` ones, which are neither right nor wrong."""
    counted = [(accepts, right) for accepts, right in pairs if right is not None]
    return Proposals(**confusion(counted), ignored=len(pairs) - len(counted))


BINS = ("0", "1", "2", "3-5", "6+")


def size_bin(n: int) -> str:
    """Of `BINS` that of so many instances."""
    return str(n) if n <= 2 else "3-5" if n <= 5 else "6+"


def confusion(pairs: Iterable[tuple[bool, bool]]) -> dict[str, Any]:
    """Counts and rates of (judge approves, oracle approves) pairs.

    Recall is P(approve | right), specificity P(reject | wrong), precision P(right | approve), base rate P(right): what a judge that
    always approves would have as precision. A rate over nothing is None.
    """
    pairs = list(pairs)
    n = len(pairs)
    tp = sum(a and r for a, r in pairs)
    fp = sum(a and not r for a, r in pairs)
    fn = sum(r and not a for a, r in pairs)
    tn = n - tp - fp - fn

    def rate(part: int, whole: int) -> float | None:
        return round(part / whole, 6) if whole else None

    return {
        "asked": n, "approved": tp + fp, "oracle_approves": tp + fn, "true_approvals": tp, "false_approvals": fp,
        "recall": rate(tp, tp + fn), "specificity": rate(tn, tn + fp), "precision": rate(tp, tp + fp),
        "accuracy": rate(tp + tn, n), "base_rate": rate(tp + fn, n), "kappa": cohen_kappa(pairs),
    }  # fmt: skip


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa (1960) of pairs of decisions; None where both say one and the same thing each time, which chance explains."""
    if len({decision for pair in pairs for decision in pair}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score  # half a second

    return round(float(cohen_kappa_score(*zip(*pairs))), 6)
