"""Every arm against the reference: difference, interval, margin."""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vlm_itl.metrics.rows import Answer, Arm, span
from vlm_itl.report.figures import COLOURS, SOFT, canvas, nothing, plain

LOOK: dict[Answer, tuple[str, str]] = {"yes": (COLOURS[3], "o"), "no": (COLOURS[2], "X"), "cannot tell": (COLOURS[1], "s")}


def differences(rows: dict[str, Arm], labels: dict[str, str]) -> Figure:
    """One line a compared run; the answer shows as colour and marker. Those without an interval are named with the reason, and so is what
    takes the answer from those that have one.

    Args:
        rows: `arms` of `metrics/comparison.json`; AP as a fraction of 1, drawn in points (hundredths).
        labels: how a run is called in the figure; its own name where there is none.
    """
    figure, axes = canvas(7.4, 1.1 + 0.42 * max(2, len(rows)))
    known = {name: (row, found) for name, row in rows.items() if (found := span(row))}
    why = {name: row.reason for name, row in rows.items() if row.reason}
    said = [f"no interval, {labels.get(name, name)}: {reason}" for name, reason in why.items() if name not in known]
    said += dict.fromkeys(f"cannot tell: {reason}" for name, reason in why.items() if name in known)
    without = "\n".join(textwrap.fill(plain(line), 100) for line in said)
    if not known:
        nothing(axes, without or "nothing to compare")
        return figure
    axes.set_title(without, loc="left", fontsize=8, color=SOFT)
    low, high = 100 * min(found.low for _, found in known.values()), 100 * max(found.high for _, found in known.values())
    margin = 100 * max(row.margin for row, _ in known.values())
    left, right = min(low, -1.6 * margin) - 0.06 * (high - low), max(high, margin) + 0.06 * (high - low)
    axes.axvspan(left, -margin, color="#eceff3", lw=0, zorder=0)
    axes.axvline(0, color=SOFT, lw=1)
    axes.set_xlim(left, right)
    used: dict[Answer, Line2D] = {}
    for place, (row, found) in enumerate(known.values()):
        colour, marker = LOOK[row.answer]
        used[row.answer] = Line2D([], [], color=colour, lw=2, marker=marker, ms=7, mec="white")
        axes.plot([100 * found.low, 100 * found.high], [place, place], color=colour, lw=2, solid_capstyle="butt")
        axes.plot(100 * found.difference, place, marker, color=colour, ms=7, mec="white")
    axes.set_yticks(
        range(len(known)),
        [plain(f"{labels.get(name, name)}\nminus {labels.get(row.against, row.against)}") for name, (row, _) in known.items()],
    )
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    level = next(row.level for row, _ in known.values())
    axes.set_xlabel(f"difference of mask AP in points, {100 * level:g} % interval; shaded: worse by more than the margin")
    words = [f"no worse by more than {margin:.1f} {'point' if margin == 1 else 'points'}: {answer}" for answer in used]
    figure.legend(used.values(), words, loc="outside lower center", ncols=3)
    return figure
