"""P(approve) made to mean what it says, and decisions by it; what comes from fitting is in `vlm_itl.probes.metrics`.

Everything is reckoned in log-odds, ln(P / (1 - P)): probabilities of a sure model are all 1, its log-odds still differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit

from vlm_itl.core import typed
from vlm_itl.core.errors import UserError

EDGE = 2.0**-53  # P(approve) of exactly 0 or 1, of a judge that gives no log-odds, is taken to be so far from it


@dataclass(frozen=True)
class Fitted:
    """A calibration: log-odds -> scale x log-odds + shift."""

    scale: float = 1.0  # 1 / temperature
    shift: float = 0.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError("a scale is above 0: it must not turn the order around")

    def __call__(self, log_odds: Any) -> Any:
        """Log-odds after the calibration; a number or an array."""
        return self.scale * log_odds + self.shift


@dataclass(frozen=True)
class Calibrated:
    """A judge's two calibrations, and its thresholds of an image's log-odds; infinity is above all of them."""

    mask: Fitted = Fitted()
    missing: Fitted = Fitted()
    threshold: float = 0.0  # approved from here on
    reject: float = 0.0  # with a person: rejected below,
    approve: float = 0.0  # approved from here on, and between them the person decides
    of: dict[str, Any] = field(default_factory=dict)  # identity of the judge whose answers taught it

    @classmethod
    def read(cls, row: Any, where: Path) -> Calibrated:
        """From the content of `calibration.json`, where a threshold that nothing reaches is null.

        Raises:
            UserError: it is no calibration.
        """
        found = typed.convert(row, _File)
        if found is None or not isinstance(found.of.get("prompt"), str):
            raise UserError(f"{where}: not a calibration as this version writes it; `dvc repro` makes it (stage calibrate)")
        bounds = {k: inf if (bound := getattr(found, k)) is None else bound for k in ("threshold", "reject", "approve")}
        return cls(found.mask, found.missing, **bounds, of=found.of)


@dataclass(frozen=True)
class _File:
    mask: Fitted
    missing: Fitted
    threshold: float | None
    reject: float | None
    approve: float | None
    of: dict[str, Any]

    def __post_init__(self) -> None:
        if self.approve is not None and (self.reject is None or self.reject > self.approve):
            raise ValueError("rejected and approved at once")


def finite_log_odds(p: float) -> float:
    """Log-odds of a probability that a judge gave as such; finite for 0 and 1 too."""
    return float(logit(min(max(p, EDGE), 1 - EDGE)))


def probability(log_odds: float | None) -> float | None:
    """P(approve) for people to read, to four digits. Nothing is computed from it. The one place where it is made."""
    return None if log_odds is None else round(float(expit(log_odds)), 4)


def weakest(
    log_odds_mask: list[float | None], accepted: list[bool], log_odds_missing: float | None, by: Calibrated = Calibrated()
) -> float:
    """Log-odds of an image by the least sure of what has to be right: each accepted mask, and that nothing is missing.

    -inf, which no threshold lets pass, where completeness was not asked about (nothing is accepted) or has no log-odds.
    """
    if log_odds_missing is None:
        return -inf
    sure = [by.mask(x) for x, ok in zip(log_odds_mask, accepted, strict=True) if ok and x is not None]
    return float(np.min([*sure, by.missing(log_odds_missing)]))
