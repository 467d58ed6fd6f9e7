"""The first study's published verdicts, re-analysed: what its judge knew, and what its reading of the answers did.

Prints, as Markdown tables, recall, specificity, precision and kappa of Ovis2 against an oracle at IoU 0.6, with intervals clustered by
photograph, by prompt, class and number of true instances, what was wrong where it should have rejected, and what the substring "yes"
made of the answers. docs/first-study.md has the tables and what follows from them.
Usage: python bench/first_study.py VERDICTS.jsonl[.gz] [--iou 0.6] [--replicates 2000]

A line of VERDICTS is one judgement: image, prop (initial labelled fraction), prompt, answer, approved (the study's reading), n_pred and
n_gt, gt_classes, pred_classes, and iou, the mask IoU of each declared prediction with each true instance.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from vlm_itl.core.errors import UserError
from vlm_itl.judges.vlm.reading import read
from vlm_itl.metrics.judges import size_bin as size_of
from vlm_itl.tools.first_study import RATES, Estimate, agreement

Row = dict[str, Any]
NEEDED = {"image", "prop", "prompt", "answer", "approved", "n_pred", "n_gt", "gt_classes", "pred_classes", "iou"}


def load(path: Path) -> list[Row]:
    """The judgements of a file.

    Raises:
        UserError: it is missing, not JSON lines, or a line lacks a field.
    """
    rows = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                row = json.loads(line)
                lacking = NEEDED - set(row) if isinstance(row, dict) else NEEDED
                if lacking:
                    raise UserError(f"{path}:{number}: no '{min(lacking)}'")
                rows.append(row)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read as JSON lines: {error}") from None
    if not rows:
        raise UserError(f"{path}: no judgement in it")
    return rows


def pairs(row: Row, at: float) -> int:
    """How many declared predictions have a true instance of their own at IoU >= `at`."""
    if not row["n_pred"] or not row["n_gt"]:
        return 0
    fits = np.array(row["iou"]) >= at
    return int(fits[linear_sum_assignment(fits, maximize=True)].sum())


def right(row: Row, at: float) -> bool:
    """The oracle: predictions and instances pair off, nothing is left over, and the same classes are on both sides.

    The classes of single instances were not published; the sets of classes are compared.
    """
    return pairs(row, at) == row["n_pred"] == row["n_gt"] and set(row["pred_classes"]) == set(row["gt_classes"])


def shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def quality(groups: Iterable[tuple[str, list[Row]]], at: float, replicates: int, approves: Callable[[Row], bool]) -> str:
    """A table of agreement with the oracle, a line a group."""
    lines = []
    for name, rows in groups:
        oracle = [right(r, at) for r in rows]
        found = agreement([approves(r) for r in rows], oracle, [r["image"] for r in rows], replicates)
        pictures = len({r["image"] for r in rows})
        lines.append([name, len(rows), pictures, sum(oracle), *(shown(found[rate]) for rate in RATES)])
    return table(lines, ["answers", "judgements", "photographs", "oracle approves", *RATES])


def table(lines: list[list[Any]], headers: list[str]) -> str:
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)


def by_last_line(row: Row) -> str:
    return read(row["answer"], line="last").outcome


def missing(rows: list[Row], at: float) -> str:
    """What was wrong with what was declared, where the oracle rejects and objects were declared."""
    lines = []
    for prompt, some in by_prompt(rows):
        wrong = [r for r in some if r["n_pred"] and not right(r, at)]
        lacking = [r for r in wrong if pairs(r, at) < r["n_gt"]]
        extra = [r for r in wrong if pairs(r, at) < r["n_pred"]]
        declared = sum(r["n_pred"] for r in some)
        good = sum(pairs(r, at) for r in some)
        lines.append([prompt, len(wrong), share(len(lacking), len(wrong)), share(len(extra), len(wrong)),
                      share(len(lacking) - len([r for r in lacking if r in extra]), len(wrong)), share(good, declared)])  # fmt: skip
    return table(lines, ["prompt", "oracle rejects", "an instance is missing", "a mask is wrong", "only missing", "masks that are right"])


def share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else "-"


def reading(rows: list[Row]) -> str:
    """The study's approvals (the substring "yes") beside what the last line of the answer says."""
    lines = []
    for prompt, some in by_prompt(rows):
        for outcome in ("approve", "reject", "unparsed"):
            said = [r for r in some if by_last_line(r) == outcome]
            lines.append([prompt, outcome, len(said), sum(r["approved"] for r in said), sum(not r["approved"] for r in said)])
    return table(lines, ["prompt", "the last line says", "answers", "the substring approves", "the substring rejects"])


def first_words(rows: list[Row]) -> str:
    lines = [
        [prompt, len(some), share(sum(read(r["answer"]).outcome != "unparsed" for r in some), len(some))]
        for prompt, some in by_prompt(rows)
    ]
    return table(lines, ["prompt", "answers", "begin with yes or no, as asked"])


def by_prompt(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    return [(p, [r for r in rows if r["prompt"] == p]) for p in sorted({r["prompt"] for r in rows})]


def report(rows: list[Row], at: float, replicates: int) -> str:
    """All tables, in the order of docs/first-study.md."""
    study: Callable[[Row], bool] = lambda r: bool(r["approved"])  # noqa: E731
    last: Callable[[Row], bool] = lambda r: by_last_line(r) == "approve"  # noqa: E731
    kinds: list[tuple[str, Callable[[Row], bool]]] = [
        ("all", lambda r: True),
        ("no objects declared", lambda r: not r["n_pred"]),
        ("objects declared", lambda r: r["n_pred"] > 0),
    ]
    both = [(f"{p}, {kind}", [r for r in some if keep(r)]) for p, some in by_prompt(rows) for kind, keep in kinds]
    declared = [(p, [r for r in some if r["n_pred"]]) for p, some in by_prompt(rows)]
    classes = sorted({c for r in rows for c in r["gt_classes"]})
    by_class = [(f"{p}, {c}", [r for r in some if c in r["gt_classes"]]) for p, some in declared for c in classes]
    sizes = ("1", "2", "3-5", "6+")
    by_size = [(f"{p}, {size}", [r for r in some if size_of(r["n_gt"]) == size]) for p, some in declared for size in sizes]
    by_fraction = [
        (f"{p}, {f:.0%}", [r for r in some if r["prop"] == f]) for p, some in declared for f in sorted({r["prop"] for r in some})
    ]
    parts = [
        ("Read as the study read", quality(both, at, replicates, study)),
        ("Read by the last line", quality(both, at, replicates, last)),
        ("By class, objects declared, by the last line", quality(by_class, at, replicates, last)),
        ("By true instances, objects declared, by the last line", quality(by_size, at, replicates, last)),
        ("By initial fraction, objects declared, by the last line", quality(by_fraction, at, replicates, last)),
        ("What was wrong", missing(rows, at)),
        ("The substring", reading(rows)),
        ("The first word", first_words(rows)),
    ]
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verdicts", type=Path)
    parser.add_argument("--iou", type=float, default=0.6)
    parser.add_argument("--replicates", type=int, default=2000)
    arguments = parser.parse_args()
    try:
        print(report(load(arguments.verdicts), arguments.iou, arguments.replicates))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
