"""The report: one HTML page of what the graph has written, and of the revision that it belongs to. `make report`.

It is no stage: a stage's output must not change with the commit, or nothing that depends on it would ever be found in a cache again; and
this page names the commit. Figures, numbers and example cases are outputs of stages; here they are only brought together.
"""

from __future__ import annotations

import argparse
import base64
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from matplotlib.figure import Figure as MatplotlibFigure

from vlm_itl.core import timing
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import md5, read_json, write_text
from vlm_itl.core.git import changed, git
from vlm_itl.core.redact import line, say
from vlm_itl.core.runs import arm_of, called, draws
from vlm_itl.loop import annotation_log
from vlm_itl.metrics import audit
from vlm_itl.metrics.intervals import estimated, wilson
from vlm_itl.metrics.people import read_measured
from vlm_itl.metrics.rows import Answer, Arm, Comparison, Quality, read_comparison, read_quality
from vlm_itl.report import study
from vlm_itl.report import summary as report
from vlm_itl.report.figures import arms as arm_figures
from vlm_itl.report.figures import svg
from vlm_itl.report.figures.comparison import differences
from vlm_itl.report.lineage import changed_settings, recorded, written
from vlm_itl.report.points import Point, read_points
from vlm_itl.settings import Run, Settings, load, read_yaml

Row = dict[str, Any]
T = TypeVar("T")
TEMPLATE = Path(__file__).with_name("page.html.jinja")
FIGURES = {  # name of the SVG: what is to be seen
    "comparison": "Difference of mask AP between each arm's last run and the reference arm at the same round, with its interval. Shaded: "
    "worse by more than the margin. An interval wholly outside the shade is a yes, one wholly inside a no; any other cannot tell.",
    "hours": "Mask AP after each round (0 is the shared start) against human hours added after the initial labels. The dashed line is what "
    "a human reaches who draws random images and asks no judge, as its runs came out; the answers above take a line that never falls. "
    "Points of one training each; their intervals stand in the tables.",
    "prices": "The same under other prices of a decision.",
    "crowding": "Judges by number of true instances in the image, first round only, where all arms judge the same proposals. Bars: 95 % "
    "Wilson intervals. An image is right when every instance has its mask and nothing is extra.",
    "rounds": "Images that each run approved, and how many of them were right: the purity of the labels that it made.",
    "data": "Images and instances by class and part of the split, and sizes of masks. An image with two classes counts in both.",
}


@dataclass(frozen=True)
class Figure:
    name: str
    caption: str
    url: str  # data:image/...;base64,...


@dataclass(frozen=True)
class Verdict:
    """One comparison in words; AP differences in points (hundredths)."""

    run: str
    row: Arm

    @property
    def against(self) -> str:
        return self.row.against

    @property
    def answer(self) -> Answer:
        return self.row.answer


@dataclass(frozen=True)
class Provenance:
    commit: str | None
    committed: str | None  # date of the commit
    branch: str | None
    dirty: list[str]  # tracked files that differ from the commit
    params: str  # md5 of params.yaml
    lock: str | None  # md5 of dvc.lock
    other: list[str]  # files shown here whose content is not what dvc.lock records
    checked: int  # files shown here that dvc.lock records
    changed: list[str]  # settings that are others now than when these files were made
    versions: dict[str, str]


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def maybe(path: Path) -> Any:
    """The JSON in a file, None where there is no such file."""
    return read_json(path) if path.exists() else None


def provenance(shown: list[Path]) -> Provenance:
    """Which state of the project this is, and whether the files shown are those that dvc.lock records for it."""
    lock = Path("dvc.lock")
    made: dict[str, str] = {}
    content: Any = None
    if lock.exists():
        content = read_yaml(lock)
        if not recorded(content):
            raise UserError(f"{lock}: no stage is recorded here as DVC does it; git checkout {lock}, or dvc repro")
        made = written(content)
    known = [path for path in shown if str(path) in made]
    return Provenance(
        commit=git("rev-parse", "HEAD"), committed=git("show", "-s", "--format=%cs", "HEAD"),
        branch=git("branch", "--show-current") or None, dirty=changed(),
        params=md5(Path("params.yaml")), lock=md5(lock) if lock.exists() else None,
        other=[str(path) for path in shown if path not in known or md5(path) != made[str(path)]], checked=len(known),
        changed=changed_settings(content, map(str, shown), read_yaml(Path("params.yaml"))),
        versions={"Python": platform.python_version(), **{name: version(name) for name in ("dvc", "torch", "detectron2", "pycocotools")
                                                          if installed(name)}},
    )  # fmt: skip


def installed(name: str) -> bool:
    try:
        version(name)
    except ImportError:  # PackageNotFoundError
        return False
    return True


def verdicts(comparison: Comparison, settings: Settings) -> list[Verdict]:
    """Those of judges that are models first, not simulated ones before simulated ones, then the rules; else by order of the runs."""

    def rank(run: str) -> tuple[bool, bool]:
        judge = settings.judges[settings.runs[run].judge] if run in settings.runs else None
        return judge is None or not judge.computes, judge is not None and judge.simulated

    return [Verdict(run, comparison.arms[run]) for run in sorted(comparison.arms, key=rank)]


def drawn_by_people(run: str) -> annotation_log.DrawnCounts | None:
    path = Path("loop", run, "ledger.json")
    return annotation_log.drawing_in(annotation_log.read(path), run) if path.exists() else None


def with_intervals(quality: Quality) -> dict[str, tuple[float, float, float] | None]:
    """A judge's shares as (share, low, high) with 95 % Wilson intervals; None over nothing."""
    return {
        name: (share.part / share.whole, *wilson(share)) if share.whole else None for name, share in quality.shares.items()
    }  # fmt: skip


def sweep_figure(rows: list[Row]) -> Figure | None:
    points = study.sweep_points(rows)
    if not points:
        return None
    caption = ("The sweep: mask AP against all human hours, one cluster an initial fraction, means over seeds with bars from the lowest to "
               "the highest seed. Arms at equal hours are drawn a little beside each other.")  # fmt: skip
    return Figure("sweep", caption, inline(arm_figures.sweep(points)))


def over_seeds(pooled: list[study.Pooled], repository: Path = Path(".")) -> study.Pooled | None:
    """Of a sweep's verdicts those of the working tree's own experiment with the most seeds; None where none has several."""
    own = [row for row in pooled if len(row.seeds) > 1 and any(study.of_this_tree(one, repository) for one in row.revisions)]
    return max(own, key=lambda row: len(row.seeds), default=None)


def prices_figure(points: list[Point], computed: dict[str, float | None], settings: Settings) -> Figure:
    """The stage's figure with one more panel, of what was measured on this machine and so is in no stage's output."""
    caption = FIGURES["prices"].rstrip(".") + (
        ", and with the judge's computing counted as if it were human time: wall time times machines of its questions, of the probes that "
        "its thresholds come from, and of its training, as measured on this machine."
    )  # fmt: skip
    computing = arm_figures.Computing(computed, settings.report.compute_price, settings.evaluate.seconds.verify)
    drawn = arm_figures.prices(points, settings.report.verify_seconds, computing)
    return Figure("prices", caption, inline(drawn))


def comparison_figure(rows: dict[str, Arm], settings: Settings) -> Figure:
    return Figure("comparison", FIGURES["comparison"], inline(differences(rows, report.labels(settings.runs, settings.judges))))


def inline(drawn: MatplotlibFigure) -> str:
    return data_url(svg(drawn), "image/svg+xml")


def experiments_table(rows: list[Row]) -> list[Row]:
    """One row an experiment of a study: name, state, seed, fraction, and the AP of each arm's last run."""
    found: dict[str, Row] = {}
    for row in rows:
        one = found.setdefault(row["revision"], {
            "experiment": row["experiment"], "revision": row["revision"][:7], "state": row["state"], "seed": row["seed"],
            "fraction": row["fraction"], "arms": {}, "last": {},
        })  # fmt: skip
        if row["metric"] == "mask_AP" and row["arm"] and row["round"] >= one["last"].get(row["arm"], 0):
            name = called(row["arm"], row["simulated"])
            one["arms"][name], one["last"][row["arm"]] = row["value"], row["round"]
    return list(found.values())


def collect(settings: Settings, study_csv: Path | None = None, pooled_json: Path | None = None) -> Row:
    """Everything that the page shows, from the repository's top folder; what is not there is None or absent.

    Args:
        study_csv, pooled_json: what `make study` wrote.

    Raises:
        UserError: a file is there and broken.
    """
    shown: list[Path] = []

    def take(path: Path) -> Any:
        content = maybe(path)
        if content is not None:
            shown.append(path)
        return content

    def take_typed(path: Path, read: Callable[[Path], T]) -> T | None:
        if not path.exists():
            return None
        shown.append(path)
        return read(path)

    runs: dict[str, Run | None] = {"start": None, **settings.runs}
    summary_file, comparison_file = Path("metrics/summary.json"), Path("metrics/comparison.json")
    summary = take_typed(summary_file, report.read_summary) or {}
    comparison = take_typed(comparison_file, read_comparison)
    figures = {}
    for name, caption in FIGURES.items():
        path = Path(f"artifacts/report/{name}.svg")
        if path.exists():
            shown.append(path)
            figures[name] = Figure(name, caption, data_url(path.read_bytes(), "image/svg+xml"))
    computed = report.computing(settings, timing.of_output)
    points = take_typed(Path("artifacts/report/curve.json"), read_points) or []
    before = report.computed_before(settings.runs, computed)
    if any(before[point.run] for point in points):
        figures["prices"] = prices_figure(points, before, settings)
    quality = {name: take_typed(Path(f"metrics/judge/{name}.json"), read_quality) for name in settings.runs}
    examples = {}
    for name, run in settings.runs.items():
        if run.prev == "start" and settings.judges[run.judge].examples:
            cards = take(Path(f"loop/{name}/examples.json"))
            if cards:
                examples[name] = cards
    sheets = []
    for name in settings.autolabels:
        path = Path(f"loop/{name}/contact_sheet.jpg")
        if path.exists():
            shown.append(path)
            sheets.append(Figure(name, f"Pseudo-labels of {name} beside the true masks.", data_url(path.read_bytes(), "image/jpeg")))
    rows = study.read(study_csv) if study_csv else []
    pooled = study.read_pooled(pooled_json) if pooled_json else []
    seeds = over_seeds(pooled)
    if seeds:
        comparison = seeds.comparison
        figures["comparison"] = comparison_figure(comparison.arms, settings)
    content: Row = {
        "settings": settings,
        "summary": summary,
        "computing": computed,
        "unparsed": {name: row.unparsed_of for name, row in summary.items()},
        "decided_nothing": report.decided_nothing(summary, settings.runs),
        "comparison": comparison,
        "tells_apart": comparison.assay.answer if comparison else None,
        "beats": report.beats_drawing(comparison) if comparison else {},
        "pays": report.pays(comparison) if comparison else None,
        "in_words": report.PAYS,
        "verdicts": verdicts(comparison, settings) if comparison else [],
        "figures": figures,
        "simulated_judges": {name for name, judge in settings.judges.items() if judge.simulated},
        "simulated": {name for name, run in settings.runs.items() if settings.judges[run.judge].simulated},
        "kinds": {name: settings.judges[run.judge].kind for name, run in settings.runs.items()},
        "looking": {name for name, run in settings.runs.items() if settings.judges[run.judge].looks},
        "detection": {name: found for name in runs if (found := take(Path(f"metrics/detection/{name}.json")))},
        "quality": {name: (q, with_intervals(q)) for name, q in quality.items() if q and not draws(settings.runs[name], settings.judges)},
        "drawn": {name: found for name in settings.runs if (found := drawn_by_people(name))},
        "audits": {name: found for name in settings.runs if (found := audit.current(name))},
        "people": {name: found for name in settings.people if (found := take_typed(Path(f"metrics/people/{name}.json"), read_measured))},
        "probes": {name: found for name in settings.probed if (found := take(Path(f"metrics/probes/{name}.json")))},
        "autolabel": {
            name: study.flatten(found) for name in settings.autolabels if (found := take(Path(f"metrics/autolabel/{name}.json")))
        },
        "sheets": sheets,
        "split": take(Path("metrics/split.json")),
        "examples": examples,
        "sweep": sweep_figure(rows) if rows else None,
        "experiments": experiments_table(rows),
        "pooled": pooled,
        # settings may also differ in experiments that failed, and are in no group
        "pooled_settings": [
            key for key in (pooled[0].settings if pooled else ()) if key in study.ALWAYS or len({row.settings[key] for row in pooled}) > 1
        ],
        "over_seeds": seeds.seeds if seeds else [],
        "params": Path("params.yaml").read_text(encoding="utf-8"),
    }
    wanted = ["metrics/summary.json", "metrics/comparison.json", *(f"artifacts/report/{name}.svg" for name in FIGURES)]
    content["missing"] = [path for path in wanted if not Path(path).exists()]
    content["provenance"] = provenance(shown)
    return content


def render(content: Row) -> str:
    """The page. Everything that goes into the template is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["points"] = lambda ap: f"{100 * ap:+.1f}".replace("-", "\u2212")
    environment.filters["hours"] = lambda hours: f"{hours:+.1f}".replace("-", "\u2212")
    environment.filters["ap"] = lambda ap: "-" if ap is None else f"{ap:.3f}"
    arms = {name: run.arm for name, run in content["settings"].runs.items()}
    environment.filters["arm"] = lambda run: arm_of(run, arms.get(run)).replace("-", "\u2011")  # no line break at a hyphen
    environment.filters["p"] = lambda p: "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
    environment.filters["share"] = lambda v: "-" if v is None else f"{v:.2f}"
    environment.filters["estimate"] = lambda share: estimated(share).words
    environment.filters["number"] = lambda v: "-" if v is None else json.dumps(v) if not isinstance(v, float) else f"{v:,.4g}"
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(content) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--page", type=Path, default=Path("artifacts/report/index.html"), metavar="FILE", help="what to write (default %(default)s)"
    )
    parser.add_argument("--study", type=Path, metavar="FILE", help="a table of `vlm_itl.report.study`, CSV: the page also shows that sweep")
    parser.add_argument("--pooled", type=Path, metavar="FILE", help="and its verdicts over seeds, of `--pooled`")
    arguments = parser.parse_args(argv)
    try:
        content = collect(load(), arguments.study, arguments.pooled)
        write_text(arguments.page, render(content))
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(line(f"error: {error.filename or arguments.page}: {error.strerror}"))
    except (KeyError, TypeError, AttributeError, jinja2.UndefinedError) as error:
        sys.exit(line(f"error: a file in metrics or artifacts/report is not as this version writes it ({error!r}); `dvc repro` makes it"))
    say(f"{arguments.page} ({arguments.page.stat().st_size / 1e6:.1f} MB)")
    for path in content["missing"]:
        say(f"missing, and left out: {path} (dvc repro makes it)")


if __name__ == "__main__":
    main()
