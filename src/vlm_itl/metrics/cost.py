"""From the ledger to human hours."""

from __future__ import annotations

from typing import Any

from vlm_itl.loop.labels import Ledger
from vlm_itl.metrics.hours import hours_of
from vlm_itl.settings import Seconds


def human_cost(ledger: Ledger, seconds: Seconds) -> dict[str, Any]:
    """Human hours of the whole chain that led to a run.

    Args:
        ledger: every action since the initial labels.
        seconds: prices, in seconds of a person, per drawn instance and per verified image.

    Returns:
        `hours` = `draw_hours` + `verify_hours` = (instances drawn x `seconds.draw` + decisions of people x `seconds.verify`) / 3600;
        `validation_hours` apart, since every arm pays them alike; and how often what was done. Decisions of machines cost no human time;
        they are counted in `machine_decisions`.
    """

    def total(key: str, **where: str) -> int:
        return sum(row[key] for row in ledger if all(row.get(k) == v for k, v in where.items()))

    drawn = total("instances", action="draw", purpose="labels")
    verified = total("decisions", action="verify", actor="human")
    return {
        "hours": round(hours_of((drawn, seconds.draw), (verified, seconds.verify)), 6),
        "draw_hours": round(hours_of((drawn, seconds.draw)), 6),
        "verify_hours": round(hours_of((verified, seconds.verify)), 6),
        "validation_hours": round(hours_of((total("instances", action="draw", purpose="validation"), seconds.draw)), 6),
        "drawn_instances": drawn,
        "human_decisions": verified,
        "machine_decisions": total("decisions", action="verify", actor="model"),
    }
