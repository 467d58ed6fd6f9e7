"""P(approve) made to mean what it says, and decisions by it; what comes from fitting is in `evaluation.probes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fitted:
    """A calibration of probabilities: logit -> scale x logit + shift."""

    scale: float = 1.0  # 1 / temperature
    shift: float = 0.0


def logit(p: Any) -> NDArray[np.float64]:
    """log(p / (1 - p)), of probabilities kept 1e-6 away from certainty."""
    clipped = np.clip(np.asarray(p, dtype=float), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))


def recalibrated(p: Any, by: Fitted) -> NDArray[np.float64]:
    """Probabilities after a calibration."""
    return np.asarray(1 / (1 + np.exp(-(by.scale * logit(p) + by.shift))))


def weakest(
    p_mask: list[float | None], accepted: list[bool], p_missing: float | None, mask: Fitted = Fitted(), missing: Fitted = Fitted()
) -> float:
    """P(approve) of an image by the least sure of what has to be right: each accepted mask, and that nothing is missing. 0 without any."""
    if p_missing is None:
        return 0.0
    sure = [float(recalibrated(p, mask)) for p, ok in zip(p_mask, accepted) if ok and p is not None]
    return min([*sure, float(recalibrated(p_missing, missing))])
