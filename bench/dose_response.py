"""How good must a judge be? Simulated judges over a grid of recall and specificity: mask AP and human hours, means over seeds.

Each makes one round of the default's protocol (`bench/protocol.py`: policy `annotate`, the whole pool). As for a VLM, its decisions cost no
human time. It writes docs/dose-response.csv, a row a judge and seed, and draws docs/dose-response.svg from it; `--draw` only draws. What is
there already in `--out` is not run again, so seeds can run side by side. Usage:

    OMP_NUM_THREADS=1 python bench/dose_response.py --out /tmp/protocol --seeds 1 2 3
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from tabulate import tabulate

from vlm_itl.report import figures

RECALL = (0.25, 0.5, 0.75, 0.9, 1.0)
SPECIFICITY = (0.0, 0.25, 0.5, 0.8, 1.0)
CSV, SVG = ROOT / "docs/dose-response.csv", ROOT / "docs/dose-response.svg"
# measured judges: (specificity, recall), docs/method.md, "The simulated VLM"; the small VLM's are those of the default
MEASURED = {
    "Ovis2, basic": (0.803, 0.948),
    "the same, objects declared": (0.115, 0.948),
    "Ovis2, cot": (0.169, 0.934),
    "cot, objects declared": (0.314, 0.934),
}
Row = dict[str, Any]


def run(out: Path, seeds: list[int]) -> list[Row]:
    import protocol

    from vlm_itl.settings import load

    settings = load(ROOT / "params.yaml")
    args = protocol.parser(settings).parse_args(["--out", str(out)])
    rows = []
    for seed in seeds:
        world = protocol.World(out, settings, args, seed)
        for recall, specificity in itertools.product(RECALL, SPECIFICITY):
            found = world.arm(f"noisy@{recall}@{specificity}:annotate")
            rows.append({
                "seed": seed, "recall": recall, "specificity": specificity, "mask_AP": found["AP"], "hours": round(found["hours"], 4),
                "approved": found["model"], "recall_found": found["recall"], "specificity_found": found["specificity"],
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def means(rows: list[Row], key: str) -> dict[tuple[float, float], list[float]]:
    """The values of all seeds by (recall, specificity)."""
    found: dict[tuple[float, float], list[float]] = {}
    for row in rows:
        found.setdefault((float(row["recall"]), float(row["specificity"])), []).append(float(row[key]))
    return found


def draw(rows: list[Row], vlm: Row, target: Path) -> None:
    """Two panels over specificity and recall: mask AP and human hours, means over seeds; letters are measured judges."""
    figure, panels = figures.canvas(7.4, 4.2, 1, 2, sharey=True)
    judges = {**MEASURED, "the default's VLM, calibrated": (vlm["judge_specificity"], vlm["judge_recall"])}
    seeds = len({row["seed"] for row in rows})
    for axes, key, title, form in zip(panels, ("mask_AP", "hours"), ("mask AP on the test images", "human hours"), ("{:.3f}", "{:.0f}")):
        found = means(rows, key)
        r, s = np.array(list(found)).T
        values = np.array([np.mean(v) for v in found.values()])
        axes.scatter(s, r, c=values, s=430, marker="s", cmap="viridis", alpha=0.85, lw=0)
        dark = values < (values.min() + values.max()) / 2
        for x, y, value, light in zip(s, r, values, dark):
            text = form.format(value).removeprefix("0")
            axes.annotate(text, (x, y), ha="center", va="center", fontsize=7, color="white" if light else "black")
        for letter, (name, (x, y)) in zip("ABCDE", judges.items()):
            axes.plot(x, y, "o", color=figures.COLOURS[2], mec="white", ms=11, label=f"{letter}: {name}")
            axes.annotate(letter, (x, y), ha="center", va="center", fontsize=7, weight="bold", color="white")
        axes.set_title(f"{title}, mean of {seeds} seeds")
        axes.set_xlabel("specificity: wrong images rejected")
        axes.grid(visible=False)
        axes.margins(0.1)
    panels[0].set_ylabel("recall: right images approved")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, handlelength=0, markerscale=0)
    figure.set_facecolor("white")
    figures.save(figure, target)


def table(rows: list[Row], key: str, digits: int) -> str:
    """Markdown: rows of recall, columns of specificity; the mean over seeds, the lowest and the highest."""
    found = means(rows, key)

    def cell(values: list[float]) -> str:
        low, mean, high = (f"{f(values):.{digits}f}".removeprefix("0") for f in (min, np.mean, max))
        return f"{mean} ({low} to {high})"

    head = ["recall", *(f"specificity {s:g}" for s in SPECIFICITY)]
    return tabulate([[r, *(cell(found[r, s]) for s in SPECIFICITY)] for r in RECALL], head, tablefmt="github")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("/tmp/protocol"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--draw", action="store_true", help="draw docs/dose-response.svg from the CSV, and run nothing")
    args = parser.parse_args()
    from vlm_itl.core.files import read_json

    if not args.draw:
        made = run(args.out, args.seeds)
        with CSV.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(made[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(made)
    with CSV.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    draw(rows, read_json(ROOT / "metrics/summary.json")["calibrated-1"], SVG)
    print(table(rows, "mask_AP", 3), table(rows, "hours", 1), sep="\n\n")


if __name__ == "__main__":
    main()
