"""From the annotation log to human hours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlm_itl.core.errors import UserError
from vlm_itl.loop.annotation_log import Log
from vlm_itl.metrics.hours import hours_of

if TYPE_CHECKING:
    from vlm_itl.metrics.people import Measured
    from vlm_itl.settings import Seconds


def human_cost(log: Log, seconds: Seconds, measured: Measured | None = None) -> dict[str, Any]:
    """Human hours of the whole chain that led to a run.

    Args:
        log: every action since the initial labels.
        seconds: prices, in seconds of a person, per drawn and corrected instance and per decision.
        measured: what decisions took, where `seconds.verify` is `measured`.

    Returns:
        `hours` = `draw_hours` + `verify_hours` = (instances drawn x `seconds.draw` + decisions of people x `seconds.verify`) / 3600;
        `validation_hours` apart, since every arm pays them alike; and how often what was done. Decisions of machines cost no human time;
        they are counted in `machine_decisions`. Where people have corrected proposals, also `correct_hours` = `corrected_instances` x
        `seconds.correct` / 3600, which is part of `hours`. Where prices are measured, each decision has that of its unit and number of
        masks, and `decisions_like_others` counts those whose number of masks nobody was measured on.

    Raises:
        UserError: a price is to be measured, and nobody was measured on such decisions, or the log does not say what they were about.
    """

    def instances(purpose: str) -> int:
        return sum(entry.instances or 0 for entry in log if entry.action == "draw" and entry.purpose == purpose)

    def decisions(actor: str) -> int:
        return sum(entry.decisions or 0 for entry in log if entry.action == "verify" and entry.actor == actor)

    drawn, verified = instances("labels"), decisions("human")
    more: dict[str, float] = {}
    if seconds.verify == "measured":
        assert measured is not None  # the stage brings it
        by_people = [entry for entry in log if entry.action == "verify" and entry.actor == "human"]
        if unknown := [entry.run for entry in by_people if entry.about is None]:
            raise UserError(f"ledger.json: the decisions of {unknown[0]} do not say what they were about; `dvc repro` writes it anew")
        found = [(number, *measured.seconds(unit, int(masks))) for entry in by_people
                 for unit, table in (entry.about or {}).items() for masks, number in table.items()]  # fmt: skip
        verifying = [(number, each) for number, each, _ in found]
        more = {"decisions_like_others": sum(number for number, _, other in found if other)}
    else:
        verifying = [(verified, seconds.verify)]
    corrected = sum(entry.instances or 0 for entry in log if entry.action == "correct")
    if corrected:
        more |= {"corrected_instances": corrected, "correct_hours": round(hours_of((corrected, seconds.correct)), 6)}
    return {
        "hours": round(hours_of((drawn, seconds.draw), (corrected, seconds.correct), *verifying), 6),
        "draw_hours": round(hours_of((drawn, seconds.draw)), 6),
        "verify_hours": round(hours_of(*verifying), 6),
        "validation_hours": round(hours_of((instances("validation"), seconds.draw)), 6),
        "drawn_instances": drawn,
        "human_decisions": verified,
        "machine_decisions": decisions("model"),
        **more,
    }
