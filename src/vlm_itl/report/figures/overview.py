"""The picture in README: two images with the VLM's answers, beside mAP against human hours. `make picture` draws it again.

The answers lie beside it (`docs/overview.json`), since the outputs that they come from are not in git; all other numbers are those of
`metrics/`. So a test can draw it again in any clone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pycocotools import mask as mask_util

from vlm_itl.core.coco import by_image, read_instances, read_results
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import write_json
from vlm_itl.core.pictures import IMAGES, Pixels, read_picture
from vlm_itl.core.redact import say
from vlm_itl.core.runs import DRAWING, drawing_runs
from vlm_itl.judges.verdict import Verdict, read
from vlm_itl.metrics.rows import Comparison, read_comparison, span
from vlm_itl.report import summary as report
from vlm_itl.report.figures import COLOURS, SOFT, canvas, plain, save, styles
from vlm_itl.report.figures.arms import CURVE
from vlm_itl.report.gallery import choose
from vlm_itl.settings import load

Row = dict[str, Any]
RUN = "calibrated-1"  # whose answers are shown
SVG, ANSWERS = Path("docs/overview.svg"), Path("docs/overview.json")
ACCEPTED, REFUSED = COLOURS[6], COLOURS[2]


def examples(verdicts: list[Verdict], proposals: list[Row], seed: int) -> list[Row]:
    """An approved and a rejected image with at least three proposals each, the first of them in the gallery's order.

    Returns:
        Rows of `image_id`, `approve`, `masks` (RLE) and `accepted` (one a mask).
    """
    shown = by_image(proposals)
    found = []
    for approve in (True, False):
        some = [v for v in verdicts if v.asked and v.approve == approve and v.proposals >= 3]
        for v in choose(some, 1, seed):
            own = shown[v.image_id]
            accepted = [True] * len(own) if v.accepted is None else v.accepted  # of a verdict on the image as a whole
            found.append({"image_id": v.image_id, "approve": approve, "masks": [row["segmentation"] for row in own], "accepted": accepted})
    return found


def overview(shown: list[tuple[Row, Pixels]], summary: report.Summary, comparison: Comparison, names: dict[str, str],
             drawn: list[str]) -> Figure:  # fmt: skip
    """Images with accepted and refused masks on the left; on the right each run's mAP, and how far it may lie from the reference's.

    Args:
        shown: rows of `examples` with their pictures.
        summary, comparison: `metrics/summary.json` and `metrics/comparison.json`.
        names: how a run is called.
        drawn: the drawing runs.
    """
    if not comparison.arms:
        raise UserError("metrics/comparison.json: no arm is held against a reference arm, so there is nothing to draw")
    figure, _ = canvas(7.4, 3.5)
    figure.clear()
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 2.1))
    for place, (row, pixels) in enumerate(shown):
        axes = figure.add_subplot(grid[place, 0])
        axes.imshow(pixels, interpolation="nearest")
        for rle, accepted in zip(row["masks"], row["accepted"], strict=True):
            axes.contour(mask_util.decode(rle), [0.5], colors=ACCEPTED if accepted else REFUSED, linewidths=1.6,
                         linestyles="solid" if accepted else "dashed")  # fmt: skip
        axes.set_title("the VLM approves" if row["approve"] else "the VLM rejects: a human draws", fontsize=8)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[:, 1])
    line = sorted((point.hours, point.mask_AP) for point in comparison.curve.points.values() if point.mask_AP is not None)
    axes.plot(*zip(*line), label=DRAWING, zorder=1, **CURVE)
    start = place_of("start", summary)
    axes.plot(*start, color=SOFT, marker=CURVE["marker"], ms=CURVE["ms"], ls="none")
    compared = next(iter(comparison.arms.values()))
    reference = compared.against
    _, level = place_of(reference, summary)
    axes.axhline(level, color=SOFT, lw=0.6, zorder=0)
    for run, look in styles(run for run in names if run not in drawn).items():
        hours, ap = place_of(run, summary)
        known = span(comparison.arms[run]) if run in comparison.arms else None
        if known:
            ends = [[ap - level - known.low], [known.high - ap + level]]
            axes.errorbar(hours, ap, np.maximum(ends, 0), color=look["color"], capsize=2.5, lw=1.2)
        axes.plot(hours, ap, ls="none", mec="white", ms=7, label=plain(names[run]), color=look["color"],
                  marker=look["marker"])  # fmt: skip
    axes.annotate("start", start, xytext=(-5, -3), textcoords="offset points", ha="right", fontsize=8, color=SOFT)
    axes.set_xlabel("human hours (simulated)")
    axes.set_ylabel(f"mask AP on {compared.images} test images")
    axes.set_title(f"bars: {compared.level:.0%} interval of the difference from {plain(names[reference])}", fontsize=8, color=SOFT)
    axes.legend(loc="lower right")
    figure.set_facecolor("white")
    return figure


def place_of(run: str, summary: report.Summary) -> tuple[float, float]:
    """A run's human hours and mAP.

    Raises:
        UserError: it has no mAP.
    """
    row = summary[run]
    if row.mask_AP is None:
        raise UserError(f"metrics/summary.json: {run} has no mask AP, so there is nothing to draw")
    return row.human_hours, row.mask_AP


def draw(root: Path, answers: list[Row], target: Path) -> None:
    """Draw the committed answers and numbers of the repository at `root`; pictures are those of `artifacts/data`."""
    settings = load(root / "params.yaml")
    images = {i["id"]: i["file_name"] for i in read_instances(root / "artifacts/data/train.json")["images"]}
    shown = [(row, read_picture(root / IMAGES / images[row["image_id"]])) for row in answers]
    names = report.labels(settings.runs, settings.judges)
    numbers = report.read_summary(root / "metrics/summary.json"), read_comparison(root / "metrics/comparison.json")
    save(overview(shown, *numbers, names, drawing_runs(settings.runs, settings.judges)), target)


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(prog="vlm-itl picture", description=__doc__).parse_args(argv)
    try:
        settings = load()
        if RUN not in settings.runs:
            raise UserError(f"params.yaml: runs: the picture shows the answers of '{RUN}', and there is no such run")
        proposals = read_results(Path("loop", settings.runs[RUN].prev, "proposals.json"))
        answers = examples(read(Path("loop", RUN, "verdicts.jsonl")), proposals, settings.gallery.seed)
        if len(answers) < 2:
            raise UserError(f"loop/{RUN}/verdicts.jsonl: no approved, or no rejected image with three masks or more to show")
        draw(Path(), answers, SVG)
        write_json(ANSWERS, answers)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}; `make repro` makes it")
    except (KeyError, TypeError) as error:
        sys.exit(f"error: a file in loop, metrics or artifacts/data is not that of params.yaml's runs ({error!r}); `make repro` makes it")
    say(f"wrote {SVG} and {ANSWERS}")


if __name__ == "__main__":
    main()
