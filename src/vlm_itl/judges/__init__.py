"""Judges: from the proposals of a pool to one verdict an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_itl.core.coco import Coco, by_image
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import read_json, read_text
from vlm_itl.judges import simple
from vlm_itl.judges.calibration import readable
from vlm_itl.settings import ConfidenceJudge, ConstantJudge, HumanJudge, Judge, NoisyJudge, RandomJudge, VlmJudge

Verdict = dict[str, Any]


def question(folder: Path, settings: Judge) -> tuple[str, dict[str, Any] | None]:
    """What a judge is asked, and its calibration where it has one, from the judge's folder.

    A calibrated judge asks what the judge was asked whose answers gave it its thresholds (`calibration.json` holds the text), and needs no
    prompt.txt.

    Raises:
        UserError: a file is missing, or a calibrated judge has a prompt.txt of its own that says something else.
    """
    own = folder / "prompt.txt"
    if not (isinstance(settings, VlmJudge) and settings.calibrated):
        return read_text(own), None
    path = folder / "calibration.json"
    if not path.exists():
        raise UserError(f"{path}: no such file; `calibrations` in params.yaml needs a line {folder.name}: {{probed: ...}}")
    calibration = read_json(path)
    prompt: str = calibration["of"]["prompt"]
    if own.exists() and read_text(own) != prompt:
        raise UserError(
            f"{own}: another question than the one that the thresholds of {folder.name} were fitted on; remove the file: a calibrated "
            "judge asks what the judge asks that `calibrations` names for it"
        )
    return prompt, calibration


def judge(pool: Coco, proposals: list[dict[str, Any]], truth: Coco, prompt: str, settings: Judge, seed: int) -> list[Verdict]:
    """One verdict for each image of the pool, by ascending image id.

    An image without proposals is not asked about: there is nothing to approve, it costs nothing and stays unapproved.

    Args:
        pool: the images to judge.
        proposals: COCO results; all of an image's proposals are judged together.
        truth: the pool's ground truth, used by the simulated humans (`human`, `noisy`) and by no other judge.
        prompt: what the judge is asked. A simulated judge does not understand it, but another prompt is another question to it.
        seed: of the simulated randomness.

    Returns:
        Rows of `image_id`, `proposals` (how many were shown), `asked`, `actor` (`human`, `model` or `none`: whose time it took),
        `approve`, `log_odds` of P(approve) (null where the judge gives none), `answer` (raw text, null where there is none), of a judge
        that decides on every mask `accepted` and `questions` (one a mask, one for completeness), and what
        `vlm_itl.judges.calibration.readable`
        adds.
    """
    shown = by_image(proposals)
    instances = by_image(truth)
    verdicts = []
    for image_id in sorted(image["id"] for image in pool["images"]):
        rows = shown.get(image_id, [])
        asked = bool(rows)
        decision = simple.Decision(approve=False)
        if asked:
            question = simple.Question(image_id, rows, prompt, seed)
            match settings:
                case HumanJudge():
                    decision = simple.human(question, instances.get(image_id, []), settings)
                case NoisyJudge():
                    decision = simple.noisy(question, instances.get(image_id, []), settings)
                case ConfidenceJudge():
                    decision = simple.confidence(question, settings)
                case RandomJudge():
                    decision = simple.coin(question, settings)
                case ConstantJudge():
                    decision = simple.Decision(approve=settings.kind == "always")
                case VlmJudge():
                    raise TypeError("a VLM looks at pictures: vlm_itl.judges.vlm.judge")
        verdicts.append(readable({
            "image_id": image_id, "proposals": len(rows), "asked": asked, "actor": actor(settings),
            "approve": decision.approve, "log_odds": decision.log_odds, "answer": decision.answer,
            **({} if decision.accepted is None else {"accepted": decision.accepted, "questions": len(rows) + 1}),
        }))  # fmt: skip
    return verdicts


def actor(settings: Judge) -> str:
    """Whose time a decision of this judge takes: `human`, `model` (a VLM or its stand-in) or `none` (a rule)."""
    if isinstance(settings, HumanJudge):
        return "human"
    return settings.actor if isinstance(settings, NoisyJudge) else "none"
