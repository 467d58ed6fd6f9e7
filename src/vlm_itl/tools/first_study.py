"""How far a judge agrees with an oracle, with intervals that know that decisions on one picture are correlated."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm_itl.metrics.compare import multiplicities

RATES = ("recall", "specificity", "precision", "kappa")


@dataclass(frozen=True)
class Estimate:
    """A rate and its two-sided interval; all None where nothing defines it."""

    value: float | None
    low: float | None
    high: float | None


def agreement(
    approves: Sequence[bool],
    right: Sequence[bool],
    pictures: Sequence[Hashable],
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Recall, specificity, precision and Cohen's kappa of decisions, as in `vlm_itl.metrics.judges.confusion`.

    The intervals are percentiles of a bootstrap that draws pictures with all their decisions (a cluster bootstrap: Davison and Hinkley
    1997, section 3.8). Resamples in which a rate is not defined are left out of its interval. A rate that is 0 or 1 gets no width, however
    few the decisions.

    Args:
        approves, right: what the judge and the oracle say of each decision.
        pictures: which picture each is about.
    """
    index = {name: k for k, name in enumerate(dict.fromkeys(pictures))}
    counts = np.zeros((len(index), 4), dtype=np.int64)
    for a, r, picture in zip(approves, right, pictures, strict=True):
        counts[index[picture], (0 if r else 1) if a else (2 if r else 3)] += 1
    if not len(counts):
        return dict.fromkeys(RATES, Estimate(None, None, None))
    values = rates(counts.sum(axis=0, keepdims=True))[0]
    drawn = np.concatenate([rates(weights @ counts) for weights in multiplicities(replicates, len(counts), seed)])
    tail = (1 - level) / 2
    found = {}
    for k, name in enumerate(RATES):
        defined = drawn[~np.isnan(drawn[:, k]), k]
        if np.isnan(values[k]) or not len(defined):
            found[name] = Estimate(None, None, None)
        else:
            low, high = np.quantile(defined, [tail, 1 - tail])
            found[name] = Estimate(float(values[k]), float(low), float(high))
    return found


def rates(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R, 4) of `RATES` from (R, 4) counts of true approvals, false approvals, needless and right rejections; NaN where there is none.

    All resamples at once: scikit-learn's kappa takes one at a time, a thousand times slower.
    """
    tp, fp, fn, tn = counts.T.astype(np.float64)
    n = tp + fp + fn + tn
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (tp + tn) / n
        expected = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / n**2
        kappa = np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
        return np.stack([tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), kappa], axis=1)
