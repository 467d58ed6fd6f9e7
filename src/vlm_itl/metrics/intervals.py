"""Intervals of single estimates. Those of differences of mAP are in `compare`."""

from __future__ import annotations

from scipy.stats import binomtest

from vlm_itl.metrics.rows import Share


def wilson(share: Share, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of something, Wilson's (1927)."""
    found = binomtest(share.part, share.whole).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)
