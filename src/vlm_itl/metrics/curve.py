"""An arm against the drawing curve: what mAP a human reaches who draws random images for some hours, and asks no judge.

The curve goes through the drawing runs by human hours, from the one that draws nothing on (`drawing_nothing`). It is linear between two of
them, and never falling, since more labels are worth no less (isotonic regression of the mAPs, least squares, each run with the same
weight: Barlow et al. 1972, "Statistical Inference under Order Restrictions"). Two questions are asked of it. How much mAP does an arm lose
against drawing for the same hours? How many hours does it save against drawing until the same mAP? Both have an interval over test images,
and over seeds where there are several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from vlm_itl.metrics.compare import Interval, confidence, number
from vlm_itl.metrics.hours import Price, hours_of
from vlm_itl.metrics.rows import Against, Answer, Estimate

Values = NDArray[np.float64]
STEPS = 40  # halvings of the curve's range: hours are then exact to far less than they are written with


@dataclass(frozen=True)
class Curve:
    """One seed's drawing curve, and what it is in each resample of the test images.

    Attributes:
        hours: (K,) human hours, ascending, at least two.
        ap: (1 + R, K) mAP, never falling; the first row on the test images as they are, then a row a resample.
    """

    hours: Values
    ap: Values

    @staticmethod
    def through(hours: Values, ap: Values) -> Curve | None:
        """The curve through runs in any order; None where they have fewer than two different hours.

        Args:
            hours: (N,) of the runs. Those with equal hours are one point: their mean mAP, with their number as weight.
            ap: (1 + R, N) of them.
        """
        places, which, counts = np.unique(hours, return_inverse=True, return_counts=True)
        if len(places) < 2:
            return None
        points = ap @ (np.eye(len(places))[which] / counts)
        return Curve(places, np.array([isotonic_regression(row, weights=counts).x for row in points]))

    def at(self, hours: float) -> Values:
        """(1 + R,) mAP at hours that the curve has."""
        k = int(np.clip(np.searchsorted(self.hours, hours), 1, len(self.hours) - 1))
        part = (hours - self.hours[k - 1]) / (self.hours[k] - self.hours[k - 1])
        return np.asarray((1 - part) * self.ap[:, k - 1] + part * self.ap[:, k])


def against(curves: list[Curve], hours: Values, ap: Values, level: float) -> Against:
    """An arm's models, one a seed, against their seeds' curves.

    `AP_lost` is a difference of mAP as any other: `confidence` gives its interval. `hours_saved` comes from it by inversion: x more hours
    of drawing than the arm took are worth D(x) mAP more than the arm; the number is the x with D(x) = 0, and its interval holds every x of
    which the interval of D(x) contains 0. With one seed these are the percentiles of the hours that each replicate's curve needs to reach
    that replicate's mAP of the arm. The answer is that of `AP_lost` where the curve has the arm's hours, else that of `hours_saved`.

    Hours are censored at the curve's ends. An arm above the whole curve saves more than (its last hours - the arm's), one below it less
    than (its first hours - the arm's). An end of the interval that lies there is null, except where the whole interval does: then the
    bound itself is the end that is known. An arm with more hours than the curve has loses at least as much as at the curve's last hours;
    one with fewer than `start` at most what it loses there.

    Args:
        curves: S, one a seed.
        hours: (S,) of the arm.
        ap: (1 + R, S) of the arm, rows as the curves'.
        level: of the two-sided intervals.
    """
    least = max(float(curve.hours[0] - h) for curve, h in zip(curves, hours))
    most = min(float(curve.hours[-1] - h) for curve, h in zip(curves, hours))
    taken = float(hours.mean())
    if least > most:
        nothing = Estimate(None, None, None, "beyond: the seeds' curves have no hours in common")
        return Against(taken, nothing, nothing, "cannot tell")

    def lost(more: float) -> Interval:
        values = np.stack([curve.at(h + more) for curve, h in zip(curves, hours)], axis=1) - ap
        values = np.round(values, 12)  # pooled points are means, whose last digit must not decide between equals
        return confidence(values[0], values[1:], level)

    def first(f: Callable[[Interval], float], above: bool = False) -> float:
        """The fewest hours more at which a rising function of `lost` reaches 0, or gets above it; -inf or inf: off the curve's ends."""
        low, high = least, most
        # equal to `start` in fewer hours than it: fewer still may do
        if f(lost(low)) > 0 or (low > 0 and not above and f(lost(low)) == 0):
            return -np.inf
        if f(lost(high)) < 0 or (above and f(lost(high)) == 0):
            return np.inf
        for _ in range(STEPS):
            middle = (low + high) / 2
            there = f(lost(middle)) > 0 if above else f(lost(middle)) >= 0
            low, high = (low, middle) if there else (middle, high)
        return high

    saved = _saved(first(lambda i: i.difference), first(lambda i: i.high), first(lambda i: i.low, above=True), least, most)
    loss = _lost(lost, least, most)
    worse, better = (loss.low, loss.high and -loss.high) if least <= 0 <= most else (saved.high and -saved.high, saved.low)
    answer: Answer = "cannot tell"
    if better is not None and better > 0:
        answer = "yes"
    elif worse is not None and worse > 0:
        answer = "no"
    return Against(taken, saved, loss, answer)


def _saved(value: float, low: float, high: float, least: float, most: float) -> Estimate:
    words = []
    for off, text in ((np.inf, f"beyond the last hours of the curve: more than {most:.2f}"),
                      (-np.inf, f"beyond the first hours of the curve: less than {least:.2f}")):  # fmt: skip
        names = [name for name, x in (("value", value), ("low", low), ("high", high)) if x == off]
        if names:
            words.append(f"{', '.join(names)} {text}")
    return Estimate(
        _hours(value) if np.isfinite(value) else None, None if low == -np.inf else _hours(min(low, most)),
        None if high == np.inf else _hours(max(high, least)), "; ".join(words) or None,
    )  # fmt: skip


def _lost(lost: Callable[[float], Interval], least: float, most: float) -> Estimate:
    if least <= 0 <= most:
        i = lost(0.0)
        return Estimate(number(i.difference), number(i.low), number(i.high))
    if most < 0:
        i = lost(most)
        return Estimate(None, number(i.low), None, f"beyond the last hours of the curve: more than {i.difference:.4f}")
    i = lost(least)
    return Estimate(None, None, number(i.high), f"beyond the first hours of the curve: less than {i.difference:.4f}")


def _hours(x: float) -> float:
    return round(float(x), 4) + 0.0  # no -0.0


def hours_at(cost: dict[str, Any], draw: float, verify: Price, correct: float) -> float:
    """Human hours of a run by its file of `metrics/cost`, at prices in seconds an instance drawn, a decision, an instance corrected.

    A `measured` price is that of the file.
    """
    if verify == "measured":
        return float(cost["hours"])
    return hours_of((cost["drawn_instances"], draw), (cost.get("corrected_instances", 0), correct), (cost["human_decisions"], verify))
