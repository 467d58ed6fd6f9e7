"""How benchmarks print rates that were measured side by side. Not a benchmark."""

from __future__ import annotations

import statistics


def show(rates: dict[str, list[float]], unit: str) -> None:
    """A line a way: the median of its rates, all of them, and how many times the first way's median that is."""
    base = statistics.median(next(iter(rates.values())))
    for way, values in rates.items():
        rate, all_of_them = statistics.median(values), ", ".join(f"{v:.1f}" for v in values)
        print(f"{way:30} {rate:7.1f} {unit} (median of {len(values)}: {all_of_them}) {rate / base:5.2f} x")
