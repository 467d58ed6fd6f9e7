"""Intervals of single estimates. Those of differences of mAP are in `compare`."""

from __future__ import annotations

from typing import NamedTuple

from scipy.stats import binomtest

from vlm_itl.metrics.rows import Share


class Estimated(NamedTuple):
    """A share with its interval, as files have it; None over nothing."""

    share: float | None
    low: float | None
    high: float | None

    @property
    def words(self) -> str:
        return "-" if self.share is None else f"{self.share:.2f} ({self.low:.2f} to {self.high:.2f})"


def wilson(share: Share, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of something, Wilson's (1927)."""
    found = binomtest(share.part, share.whole).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def estimated(share: Share) -> Estimated:
    """A share with its 95 % Wilson interval, to six digits."""
    if not share.whole:
        return Estimated(None, None, None)
    return Estimated(*(round(x, 6) for x in (share.part / share.whole, *wilson(share))))
