"""The report's figures: one look, equal bytes for equal numbers.

A module draws what depends on the same inputs (`data`, `arms`, `judges`, `comparison`), so that DVC draws only what changed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from vlm_itl.core.files import replacing

# Okabe and Ito (2008), colours that the colour-blind can tell apart, without the yellow that white paper swallows; black comes first
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vPX<>*hd"
SOFT = "#6b7480"
UNFIT = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
LOOK: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": SOFT, "axes.grid": True, "grid.color": "#e3e6ea", "grid.linewidth": 0.7,
    "axes.axisbelow": True, "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": "black", "ytick.labelcolor": "black",
    "legend.frameon": False, "lines.linewidth": 1.5, "lines.markersize": 5.5, "figure.dpi": 100, "figure.constrained_layout.use": True,
    "savefig.transparent": True, "svg.fonttype": "path", "svg.hashsalt": "vlm-itl",
}  # fmt: skip
plt.rcParams.update(LOOK)  # type: ignore[arg-type]  # matplotlib's stubs list every key


def canvas(width: float = 7.4, height: float = 3.6, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure in the report's look and its axes; sizes in inches."""
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as an SVG (`svg`)."""
    with replacing(path) as temporary:
        temporary.write_bytes(svg(figure))


def svg(figure: Figure) -> bytes:
    """A figure as an SVG that depends on it alone: letters as outlines, ids from a fixed salt, no date. It cannot be drawn again."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return stream.getvalue()


def styles(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Colour and marker of each name, by order; the two repeat with different periods, so that pairs differ for long."""
    return {name: {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k % len(MARKERS)]} for k, name in enumerate(dict.fromkeys(names))}


def plain(text: str) -> str:
    """`text` as it is: in matplotlib a dollar sign would begin a formula.

    matplotlib also writes it into a comment of the SVG. What XML 1.0 (2.2, "Characters") cannot hold there becomes U+FFFD, and so do the
    other control characters.
    """
    return "".join("\ufffd" if UNFIT.match(c) else c for c in text).replace("$", r"\$")


def nothing(axes: Any, why: str) -> None:
    """An empty panel that says why it is empty."""
    unnamed(axes, why)
    axes.set_yticks([])


def unnamed(axes: Any, why: str, y: float = 0.5) -> None:
    """Say why nothing is on the x axis of a panel, whose y axis may be another's, too."""
    axes.text(0.5, y, why, ha="center", va="center", transform=axes.transAxes, color=SOFT)
    axes.set_xticks([])
