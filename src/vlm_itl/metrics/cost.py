"""From the annotation log to human hours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlm_itl.loop.annotation_log import Log
from vlm_itl.metrics.hours import hours_of

if TYPE_CHECKING:
    from vlm_itl.settings import Seconds


def human_cost(log: Log, seconds: Seconds) -> dict[str, Any]:
    """Human hours of the whole chain that led to a run.

    Args:
        log: every action since the initial labels.
        seconds: prices, in seconds of a person, per drawn and corrected instance and per verified image.

    Returns:
        `hours` = `draw_hours` + `verify_hours` = (instances drawn x `seconds.draw` + decisions of people x `seconds.verify`) / 3600;
        `validation_hours` apart, since every arm pays them alike; and how often what was done. Decisions of machines cost no human time;
        they are counted in `machine_decisions`. Where people have corrected proposals, also `correct_hours` = `corrected_instances` x
        `seconds.correct` / 3600, which is part of `hours`.
    """

    def instances(purpose: str) -> int:
        return sum(entry.instances or 0 for entry in log if entry.action == "draw" and entry.purpose == purpose)

    def decisions(actor: str) -> int:
        return sum(entry.decisions or 0 for entry in log if entry.action == "verify" and entry.actor == actor)

    drawn, verified = instances("labels"), decisions("human")
    corrected = sum(entry.instances or 0 for entry in log if entry.action == "correct")
    of_corrections = {"corrected_instances": corrected, "correct_hours": round(hours_of((corrected, seconds.correct)), 6)}
    return {
        "hours": round(hours_of((drawn, seconds.draw), (corrected, seconds.correct), (verified, seconds.verify)), 6),
        "draw_hours": round(hours_of((drawn, seconds.draw)), 6),
        "verify_hours": round(hours_of((verified, seconds.verify)), 6),
        "validation_hours": round(hours_of((instances("validation"), seconds.draw)), 6),
        "drawn_instances": drawn,
        "human_decisions": verified,
        "machine_decisions": decisions("model"),
        **(of_corrections if corrected else {}),
    }
