"""Which protocol tells judges apart? Arms of one round on drawn pictures, in one process, without DVC: quick enough to try settings.

Every arm begins at one start and trains for equal steps. For each it prints human hours and mask AP, and keeps the matches, so that
arms can be compared as `compare` does. What params.yaml says holds, but for the options. What is there already is not run again. Usage:

    python bench/protocol.py --out /tmp/protocol --seeds 1 2 3 --arms human:annotate vlm:correct draw:60
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from vlm_itl.core.coco import first, subset
from vlm_itl.core.files import read_json, write_json
from vlm_itl.core.matching import partners
from vlm_itl.data.splitting import queue, split
from vlm_itl.data.synthetic.dataset import write_dataset
from vlm_itl.detectors import ToPredict, detector
from vlm_itl.judges.verdict import Verdict
from vlm_itl.judges.vlm import judging
from vlm_itl.judges.vlm.store import Store
from vlm_itl.loop.labels import counts, fingerprint
from vlm_itl.loop.policy import Policy
from vlm_itl.loop.start import initial
from vlm_itl.loop.update import update
from vlm_itl.metrics.compare import Sampled
from vlm_itl.metrics.cost import human_cost
from vlm_itl.metrics.curve import Curve, against
from vlm_itl.metrics.detection import evaluate, numbers
from vlm_itl.metrics.judges import judge_quality
from vlm_itl.metrics.matches import from_coco, save
from vlm_itl.metrics.matches import load as load_matches
from vlm_itl.probes.making import make_probes
from vlm_itl.probes.metrics import calibrate, observations
from vlm_itl.registry import POLICIES
from vlm_itl.settings import Judge, ModelLabels, Run, Settings, Training, VlmJudge, load
from vlm_itl.verifier.held_back import parts

IGNORED = ("out", "seeds", "arms")  # options that change no arm's result


class World:
    """The pictures, their split and the start of one seed, on disk below `out`."""

    def __init__(self, out: Path, settings: Settings, args: argparse.Namespace, seed: int) -> None:
        self.settings, self.args, self.seed, self.out = settings, args, seed, out
        data = out / f"data-{args.train}-{args.test}"
        if not (data / "test.json").exists():
            write_dataset(data, args.train, args.test, settings.data.synthetic.long_side, settings.data.seed)
        self.images = data / "images"
        training, self.test = read_json(data / "train.json"), read_json(data / "test.json")
        fractions = settings.split.model_copy(update={"initial_fraction": args.initial / to_label(args.train, settings)})
        drawn, pool, validation = split(training, fractions)
        self.labels, pool_images, self.log = initial(training, drawn, pool, validation)
        self.pool, self.truth = queue(pool_images, settings.split.seed), subset(training, pool | drawn)
        said = {key: value for key, value in vars(args).items() if key not in IGNORED}, settings.model_dump(mode="json", exclude={"runs"})
        self.start = out / f"{hashlib.md5(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]}-s{seed}"
        self.fit(self.start, self.labels, args.pretrain, args.rate, None, self.pool)

    def fit(self, folder: Path, labels: Any, steps: int, rate: float, previous: Path | None, pool: Any, **model_labels: Any) -> None:
        """Train, predict and measure, once."""
        if (folder / "numbers.json").exists():
            return
        a = self.args
        s = Training(schedule="fixed_steps", steps=steps, learning_rate=rate, model_labels=ModelLabels(**model_labels))
        given = {"init": a.init, "weights": a.weights, "config": a.config, "device": "cpu", "processes": 1}
        one = detector(self.settings.detector.model_copy(update=given))
        one.train(labels, self.images, folder / "model", s, self.seed, previous)
        p = self.settings.predict
        sets = [ToPredict({**self.test, "annotations": []}, p.test_score_threshold, "test", folder / "predictions.json")]
        if pool is not None:
            sets.append(ToPredict(pool, p.score_threshold, "pool", folder / "proposals.json"))
        one.predict(folder / "model", self.images, sets, p)
        evaluations = evaluate(self.test, read_json(folder / "predictions.json"))
        save(from_coco(evaluations["mask"], fingerprint(labels)), folder / "matches.npz")
        write_json(folder / "numbers.json", numbers(evaluations))

    def verdicts(self, name: str, unit: str) -> list[Verdict]:
        """Of a judge of params.yaml: `human@.8` at another IoU, `noisy@.9@.7` with other rates."""
        kind, *numbers_ = name.split("@")
        judge_name = {"noisy": "vlm-sim"}.get(kind, kind)
        given = self.settings.judges[judge_name]
        change: dict[str, Any] = {"unit": unit} if kind in ("human", "noisy") else {}
        if kind == "human" and numbers_:
            change["iou"] = float(numbers_[0])
        if kind == "noisy":
            change |= {"recall": float(numbers_[0]), "specificity": float(numbers_[1])}
        s: Judge = given.model_copy(update=change)
        proposals = read_json(self.start / "proposals.json")
        if not isinstance(s, VlmJudge):
            return s.verdicts(self.pool, proposals, self.truth, self.seed)
        text, store = s.prompt, Store(self.out / "answers")
        calibration = self.calibration(text, store) if s.calibrated else None
        return judging.judge(self.pool, proposals, self.images, text, s, store, calibration=calibration)[0]

    def calibration(self, text: str, store: Store) -> dict[str, Any]:
        held_out = parts(self.labels, self.settings.hold_back)[2]
        pool, proposals, truth = make_probes(held_out, self.settings.probes.per_kind, self.settings.probes.seed)
        said, who, _ = judging.judge(pool, proposals, self.images, text, self.settings.judges["vlm"], store)  # type: ignore[arg-type]
        return {
            **calibrate(observations(pool, proposals, truth, said, self.settings.evaluate.judge_iou), self.settings.probes.prices, "vlm"),
            "of": who,
        }

    def arm(self, name: str) -> dict[str, Any]:
        """`judge:policy`, `draw:images` or `draw:all`; after a `+`, options such as `+mask_weight=0`, `+batch=100`, `+perfect`, `+again`.

        Accepted masks are replaced where they match others at IoU .5: with `perfect` by the true ones, with `again` by those that the arm's
        own model predicts once it has learned from them; the arm then trains from the start model anew.
        """
        a = self.args
        what, *options = name.split("+")
        who, policy = what.split(":")
        given = dict(option.partition("=")[::2] for option in options)
        batch = int(given.pop("batch", a.batch)) or None
        if who == "draw":
            run, said = Run(judge="never", prev="start", policy="annotate", batch=None if policy == "all" else int(policy)), []
        else:
            run = Run(judge=who.split("@")[0], prev="start", policy=policy, batch=batch)
            by_mask = resolve_name(POLICIES[policy]).by_mask
            said = self.verdicts(who, "instance" if by_mask else "image")
            shown = {i["id"] for i in first(self.pool, batch)["images"]}
            said = [v for v in said if v.image_id in shown]
        proposals = read_json(self.start / "proposals.json")
        by: Policy = resolve_name(POLICIES[run.policy])()
        new, _, log = update(name, run, by, self.labels, self.pool, proposals, said, self.truth, self.log, self.settings.evaluate.judge_iou)
        folder = self.out / f"{self.start.name}-{name.replace(':', '_')}"
        weights = {k: float(v) for k, v in given.items() if v}
        if "perfect" in given:
            new = refined(new, self.truth["annotations"])
        if "again" in given:
            by_model = subset(new, {row["image_id"] for row in new["annotations"] if row["source"] == "model"})
            first_pass = folder.with_name(f"{folder.name}-first")
            self.fit(first_pass, new, a.steps, a.then, self.start / "model", {**by_model, "annotations": []}, **weights)
            new = refined(new, read_json(first_pass / "proposals.json"))
        self.fit(folder, new, a.steps, a.then, self.start / "model", None, **weights)
        quality = judge_quality(said, proposals, self.truth, self.settings.evaluate.judge_iou)
        return {
            "seed": self.seed, "arm": name, "AP": read_json(folder / "numbers.json")["mask"]["AP"],
            "hours": human_cost(log, self.settings.evaluate.seconds)["hours"], **counts(new)["images"],
            "recall": quality.recall, "specificity": quality.specificity, "folder": folder.name,
        }  # fmt: skip


def refined(labels: Any, better: list[dict[str, Any]]) -> Any:
    """The labels with a model's masks replaced by the better ones that they match at IoU .5."""
    rows = []
    for image in labels["images"]:
        own = [a for a in labels["annotations"] if a["image_id"] == image["id"]]
        others = [a for a in better if a["image_id"] == image["id"]]
        for row, place in zip(own, partners(own, others, 0.5)):
            new = {k: others[place][k] for k in ("segmentation", "bbox", "area")} if place is not None and row["source"] == "model" else {}
            rows.append({**row, **new})
    return {**labels, "annotations": rows}


def to_label(images: int, settings: Settings) -> int:
    """Training images that are not for validation."""
    return images - round(settings.split.validation_fraction * images)


def parser(settings: Settings) -> argparse.ArgumentParser:
    s, drawn = settings, settings.data.synthetic
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--train", type=int, default=drawn.train_images, help="drawn training images")
    parser.add_argument("--test", type=int, default=drawn.test_images, help="drawn test images")
    initial = round(s.split.initial_fraction * to_label(drawn.train_images, settings))
    parser.add_argument("--initial", type=int, default=initial, help="labelled images at the start")
    parser.add_argument("--pretrain", type=int, default=s.pretrain.steps, help="steps of the start")
    parser.add_argument("--rate", type=float, default=s.pretrain.learning_rate, help="learning rate of the start")
    parser.add_argument("--steps", type=int, default=s.train.steps, help="steps of each arm")
    parser.add_argument("--then", type=float, default=s.train.learning_rate, help="learning rate of each arm")
    parser.add_argument("--batch", type=int, default=0, help="images of the pool that are shown; 0: all")
    parser.add_argument("--init", default=s.detector.init)
    parser.add_argument("--weights", default=s.detector.weights)
    parser.add_argument("--config", default=s.detector.config)
    parser.add_argument("--arms", nargs="+", default=["human:annotate", "vlm:annotate", "always:annotate", "draw:all"])
    return parser


def table(out: Path, rows: list[dict[str, Any]], settings: Settings) -> str:
    """Markdown, an arm a line: hours, mAP of each seed, and mAP above drawing random images for the same hours, with its interval over
    seeds and test images (`statistics.curve.against`; the curve goes through the arms `draw:...`)."""
    arms: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        arms.setdefault(row["arm"], {})[row["seed"]] = row
    seeds = sorted(arms["start"])
    s = settings.compare
    sampled = {
        arm: Sampled({seed: load_matches(out / own[seed]["folder"] / "matches.npz") for seed in seeds}, s) for arm, own in arms.items()
    }
    ap = {arm: np.vstack([one.ap, one.replicates]) for arm, one in sampled.items()}
    hours = {arm: np.array([own[seed]["hours"] for seed in seeds]) for arm, own in arms.items()}
    drawn = [arm for arm in arms if arm.startswith("draw:")]
    curves = [
        Curve.through(np.array([hours[arm][k] for arm in drawn]), np.stack([ap[arm][:, k] for arm in drawn], axis=1))
        for k in range(len(seeds))
    ]
    lines = []
    for arm in sorted(arms, key=lambda name: hours[name].mean()):
        above = ""
        whole = [curve for curve in curves if curve is not None]
        if len(whole) == len(seeds) and arm not in drawn and arm != "start":
            lost = against(whole, hours[arm], ap[arm], s.level).AP_lost
            above = lost.beyond or f"{-(lost.value or 0):+.3f} ({-(lost.high or 0):+.3f} to {-(lost.low or 0):+.3f})"
        lines.append([arm, f"{hours[arm].mean():.1f}", *(f"{arms[arm][seed]['AP']:.3f}"[1:] for seed in seeds), above])
    return tabulate(lines, ["arm", "hours", *(f"seed {seed}" for seed in seeds), "above the drawing curve"], tablefmt="github")


def main() -> None:
    settings = load(ROOT / "params.yaml")
    options = parser(settings)
    args = options.parse_args()
    if not 0 < args.initial < args.train:
        options.error(f"--initial: {args.initial} of {args.train} training images")
    for name in args.arms:
        who, _, what = name.partition("+")[0].partition(":")
        judge_name, *rates = who.split("@")
        known = what.isdigit() or what == "all" if who == "draw" else what in POLICIES
        rated = judge_name == "noisy" and len(rates) == 2
        if not known or not (who == "draw" or rated or (judge_name in settings.judges and len(rates) <= (judge_name == "human"))):
            options.error(f"--arms: {name}: JUDGE:POLICY, draw:IMAGES or draw:all is expected; judges: {', '.join(settings.judges)}")
    made: list[dict[str, Any]] = []
    for seed in args.seeds:
        world = World(args.out, settings, args, seed)
        start = read_json(world.start / "numbers.json")["mask"]["AP"]
        hours = human_cost(world.log, settings.evaluate.seconds)["hours"]
        rows = [{"seed": seed, "arm": "start", "AP": start, "hours": hours, "folder": world.start.name}]
        for name in args.arms:
            rows.append(world.arm(name))
            print(json.dumps(rows[-1]), flush=True)
        print(json.dumps(rows[0]), flush=True)
        made += rows
    print(table(args.out, made, settings))


if __name__ == "__main__":
    main()
