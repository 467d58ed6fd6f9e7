"""Hours from counts and prices."""

from __future__ import annotations

from typing import Literal

HOUR = 3600  # seconds
Price = float | Literal["measured"]  # seconds of a person, a decision


def hours_of(*work: tuple[float, float]) -> float:
    """Hours of work under any prices, each part as (how often, seconds each time)."""
    return sum(times * seconds for times, seconds in work) / HOUR


def price_name(price: Price) -> str:
    """A price of a decision where it is a key."""
    return price if isinstance(price, str) else f"{price:g} s"
