"""Hours from counts and prices."""

from __future__ import annotations

HOUR = 3600  # seconds


def hours_of(*work: tuple[float, float]) -> float:
    """Hours of work under any prices, each part as (how often, seconds each time)."""
    return sum(times * seconds for times, seconds in work) / HOUR
