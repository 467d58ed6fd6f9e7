"""mAP against what it cost: the arms of one experiment, under several prices, and those of a sweep."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from vlm_itl.core.runs import DRAWING
from vlm_itl.metrics.hours import Price, hours_of, price_name
from vlm_itl.report.figures import SOFT, canvas, plain, styles, unnamed
from vlm_itl.report.points import Point, SweepPoint

CURVE: dict[str, Any] = {"color": SOFT, "ls": (0, (5, 3)), "lw": 1.3, "marker": ".", "ms": 8}  # looks like no arm


def by_arm(points: list[Point]) -> tuple[dict[str, list[Point]], list[Point]]:
    """Points of `curve` that have an AP, by arm and in the order of rounds; those of the drawing curve apart."""
    arms: dict[str, list[Point]] = defaultdict(list)
    for row in sorted((row for row in points if row.mask_AP is not None), key=lambda r: r.round):
        arms[row.arm].append(row)
    drawn = [row for name in arms for row in arms[name] if row.drawing]
    order = dict.fromkeys(row.arm for row in points if not row.drawing)
    return {name: arms[name] for name in order if name in arms}, drawn


def draw_curve(axes: Any, hours: Iterable[float], drawn: list[Point]) -> None:
    """The line through the drawing runs; what lies above it pays."""
    if drawn:
        axes.plot(list(hours), [row.mask_AP for row in drawn], label=plain(drawn[0].arm), zorder=1, **CURVE)


def number(axes: Any, row: Point, x: float, colour: str) -> None:
    axes.annotate(str(row.round), (x, row.mask_AP), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7, color=colour)


def hours(points: list[Point]) -> Figure:
    """mAP of each arm after each round.

    On the left the arms that cost no human time after the initial labels, side by side; on the right the others, by the human hours
    that they added, and the drawing curve; on the left that is a level line, drawing for no hours.
    """
    arms, drawn = by_arm(points)
    look = styles(arms)
    free = [name for name, rows in arms.items() if all(row.added_human_hours == 0 for row in rows)]
    paid = [name for name in arms if name not in free]
    figure, (left, right) = canvas(7.4, 4.2, 1, 2, sharey=True, width_ratios=(max(1.5, len(free)), max(3, len(paid))))
    for k, name in enumerate(free):
        rows = arms[name]
        # rounds of a column stand a little beside each other, so that equal APs stay two points
        places = [k + 0.22 * (n - (len(rows) - 1) / 2) for n in range(len(rows))]
        left.plot(places, [row.mask_AP for row in rows], lw=1, mec="white", mew=0.6, **look[name])
        for row, x in zip(rows, places):
            number(left, row, x, look[name]["color"])
    for name in paid:
        rows = arms[name]
        right.plot([r.added_human_hours for r in rows], [r.mask_AP for r in rows], mec="white", mew=0.6, label=plain(name), **look[name])
        for row in rows:
            number(right, row, row.added_human_hours, look[name]["color"])
    left.set_xticks(range(len(free)), [plain(name) for name in free], rotation=35, ha="right", rotation_mode="anchor")
    left.set_title("no human time added")
    left.set_ylabel("mask AP on the test images")
    left.margins(x=0.12, y=0.16)
    right.set_title("human time added")
    right.set_xlabel("human hours after the initial labels")
    right.margins(x=0.08)
    draw_curve(right, (row.added_human_hours for row in drawn), drawn)
    for row in drawn[:1]:
        left.axhline(row.mask_AP, **{key: CURVE[key] for key in ("color", "ls", "lw")})
    for axes, names in ((left, free), (right, paid or drawn)):
        if not names:
            unnamed(axes, "no such arm", 0.95)
    if paid or drawn:
        right.legend(loc="best")
    return figure


@dataclass(frozen=True)
class Computing:
    """What the judges' computing would cost if it were human time.

    Attributes:
        seconds: machine seconds of all judges on the way to a run, by run; None where they are not known.
        price: human hours an hour of it.
        decision: the seconds a decision that are paid.
    """

    seconds: dict[str, float | None]
    price: float
    decision: Price


def prices(points: list[Point], verify_seconds: list[float], computing: Computing | None = None) -> Figure:
    """mAP against hours, one panel a price.

    Hours of a point, after the initial labels: drawing hours - those of `start` + (decisions x v + computing x c) / 3600, with v seconds
    a decision, the judges' computing in machine seconds, and c human hours an hour of it. Below 0 they are hours that an arm without
    initial labels did not need. c is 0, but for one more panel where `computing` is given.
    An arm of which the computing is not known is not in that one.

    Args:
        verify_seconds: of a person, a decision.
    """
    arms, drawn = by_arm(points)
    look = styles(arms)

    def paid(row: Point, decision: Price, *more: tuple[float, float]) -> float:
        if decision == "measured":
            return row.added_human_hours + hours_of(*more)
        return row.added_draw_hours + hours_of((row.human_decisions, decision), *more)

    def at(decision: float) -> Callable[[Point], float | None]:
        return lambda row: paid(row, decision)

    def with_computing(of: Computing) -> Callable[[Point], float | None]:
        def cost(row: Point) -> float | None:
            seconds = of.seconds[row.run] if of.price else 0.0
            return None if seconds is None else paid(row, of.decision, (seconds, of.price))

        return cost

    panels = [(f"{v:g} s a decision", at(v)) for v in verify_seconds]
    if computing is not None:
        title = f"{price_name(computing.decision)}, and {computing.price:g} h for an hour of computing"
        panels.append((title, with_computing(computing)))
    figure, grid = canvas(7.4, 5.4, 2, 2, sharey=True, sharex=False)
    ends = [0.0]
    for axes, (title, cost) in zip(grid.flat, panels):
        unknown = []
        for name, rows in arms.items():
            values = [cost(row) for row in rows]
            if any(v is None for v in values):
                unknown.append(name)
                continue
            x = [v for v in values if v is not None]
            ends += x
            axes.plot(x, [row.mask_AP for row in rows], lw=1.1, mec="white", mew=0.6, label=plain(name), **look[name])
        along = [cost(row) or 0.0 for row in drawn]  # no judge computed anything
        ends += along
        draw_curve(axes, along, drawn)
        axes.set_title(title)
        axes.set_xlabel("hours after the initial labels")
        if unknown:
            names = textwrap.fill(", ".join(unknown), 44)
            axes.text(0.99, 0.03, plain(f"computing not known, left out:\n{names}"), transform=axes.transAxes, ha="right", va="bottom",
                      fontsize=7, color=SOFT)  # fmt: skip
    for axes in grid.flat[: len(panels)]:
        room = 0.06 * (max(ends) - min(ends) or 1)
        axes.set_xlim(min(ends) - room, max(ends) + room)
        axes.margins(y=0.16)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supylabel("mask AP on the test images", fontsize=9)
    handles = {label: h for axes in grid.flat for h, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4)
    return figure


def sweep(points: list[SweepPoint]) -> Figure:
    """mAP against all human hours: one cluster an initial fraction, the mean over seeds, the spread over seeds as bars.

    Args:
        points: several of one fraction, arm and round are seeds of one point, and so are several of one fraction and drawing run. Arms at
            the same hours are drawn a little beside each other.
    """
    figure, axes = canvas(7.4, 4.4)
    groups: dict[tuple[str, Any, int], list[SweepPoint]] = defaultdict(list)
    for row in points:
        if not row.drawing:
            groups[row.arm, row.fraction, row.round].append(row)
    names = list(dict.fromkeys(row.arm for row in points if not row.drawing))
    look = styles(names)
    fractions = sorted({row.fraction for row in points if row.fraction is not None})
    for k, name in enumerate(names):
        beside = axes.transData + ScaledTranslation((k - (len(names) - 1) / 2) * 4 / 72, 0, figure.dpi_scale_trans)
        for fraction in fractions:
            chain = [groups[key] for key in sorted((g for g in groups if g[:2] == (name, fraction)), key=lambda g: g[2])]
            if not chain:
                continue
            x = [np.mean([row.human_hours for row in rows]) for rows in chain]
            y = [[row.mask_AP for row in rows] for rows in chain]
            mean = [float(np.mean(v)) for v in y]
            spread = [[m - min(v) for m, v in zip(mean, y)], [max(v) - m for m, v in zip(mean, y)]]
            axes.errorbar(x, mean, spread, lw=1, elinewidth=1, mec="white", mew=0.5, transform=beside, **look[name],
                          label=plain(name) if fraction == fractions[0] else None)  # fmt: skip
    for fraction in fractions:
        own = [row for row in points if row.fraction == fraction and row.round == 0]
        if own:
            axes.axvline(own[0].human_hours, color="#eceff2", lw=10, zorder=0)
            axes.annotate(
                f"{fraction:.0%}", (own[0].human_hours, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=SOFT
            )
    label: str | None = DRAWING
    for fraction in fractions:
        runs: dict[str, list[SweepPoint]] = defaultdict(list)
        own = [row for row in points if row.fraction == fraction]
        places = {round(row.human_hours, 6) for row in own if row.drawing}
        for row in own:
            if row.drawing or (row.round == 0 and round(row.human_hours, 6) not in places):
                runs[row.run].append(row)
        if any(row.drawing for rows in runs.values() for row in rows):
            line = sorted(
                (float(np.mean([row.human_hours for row in rows])), float(np.mean([row.mask_AP for row in rows]))) for rows in runs.values()
            )
            axes.plot(*zip(*line), zorder=1, label=label, **CURVE)
            label = None  # in the legend once
    axes.set_xlabel("human hours, initial labels included")
    axes.set_ylabel("mask AP on the test images")
    axes.xaxis.set_major_locator(MaxNLocator(8))
    # what is drawn beside its place does not count for matplotlib's own limits
    for values, limit, margin in (
        ([row.human_hours for row in points], axes.set_xlim, 0.08), ([row.mask_AP for row in points], axes.set_ylim, 0.1),
    ):  # fmt: skip
        low, high = min(values, default=0.0), max(values, default=1.0)
        room = margin * (high - low or 0.1)
        limit(low - room, high + room)
    figure.legend(loc="outside lower center", ncols=4)
    return figure
