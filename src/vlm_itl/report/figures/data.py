"""What the data holds: images, instances and sizes, by part of the split and class."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from vlm_itl.report.figures import COLOURS, canvas, plain


def split(statistics: dict[str, Any]) -> Figure:
    """Images and instances a class, stacked by part, and the sizes of masks in each part.

    Args:
        statistics: `metrics/split.json`, by part. An image with two classes counts in both bars. Unlabelled images have no bar.
    """
    unlabelled = statistics.get("unlabelled", {}).get("images", 0)
    statistics = {part: row for part, row in statistics.items() if part != "unlabelled"}
    figure, axes = canvas(7.4, 3.2, 1, 3, width_ratios=(1, 1, 1))
    parts = list(statistics)
    colours = dict(zip(parts, (COLOURS[1], COLOURS[6], COLOURS[5], COLOURS[2], *COLOURS)))
    for panel, key, label in ((axes[0], "images_per_class", "images"), (axes[1], "instances_per_class", "instances")):
        classes = list(dict.fromkeys(name for part in parts for name in statistics[part][key]))
        below = np.zeros(len(classes))
        for part in parts:
            numbers = np.array([statistics[part][key].get(name, 0) for name in classes])
            panel.bar(range(len(classes)), numbers, 0.7, below, color=colours[part], edgecolor="white", lw=0.6,
                      label=f"{part}: {statistics[part]['images']:,} images, {statistics[part]['instances']:,} instances")  # fmt: skip
            below += numbers
        panel.set_xticks(range(len(classes)), [plain(name) for name in classes], rotation=25, ha="right", rotation_mode="anchor")
        panel.set_title(f"{label} by class")
        panel.grid(axis="x", visible=False)
        panel.yaxis.get_major_locator().set_params(integer=True)
    sizes = [(part, statistics[part]["mask_area"]) for part in parts if (statistics[part].get("mask_area") or {}).get("median")]
    for k, (part, area) in enumerate(sizes):
        axes[2].plot([area["p05"], area["p95"]], [k, k], color=colours[part], lw=4, solid_capstyle="round", alpha=0.55)
        axes[2].plot(area["median"], k, "o", color="black", ms=5)
    axes[2].set_yticks(range(len(sizes)), [part for part, _ in sizes])
    axes[2].set_ylim(max(1, len(sizes)) - 0.5, -0.5)
    if sizes:
        axes[2].set_xscale("log")
        wide = max(area["p95"] for _, area in sizes) > 100 * min(area["p05"] for _, area in sizes)
        axes[2].xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 3)))  # or the labels run into each other
        axes[2].xaxis.set_major_formatter("{x:,.0f}")
        axes[2].xaxis.set_minor_formatter(NullFormatter())
    axes[2].set_title("area of a mask")
    axes[2].set_xlabel("pixels² (5 to 95 %, median)")
    axes[2].grid(axis="y", visible=False)
    if unlabelled:
        axes[0].plot([], [], ls="none", label=f"unlabelled: {unlabelled:,} images")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
