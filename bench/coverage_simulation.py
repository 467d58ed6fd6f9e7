"""Do 95 % intervals contain the truth in 95 % of studies? Studies with a known true difference, each compared as `compare` does it.

A study draws its own test images and its own models from a made-up world (bench/made_up.py); the truth is the mean difference of mAP over
many images and models of that world. Printed for each size: how often the interval contains the truth, and the same of two other ways of
making it from the same replicates. With --curve an arm is held against a drawing curve of four runs instead. Printed: how often the
intervals of the mAP lost at equal hours and of the hours saved at equal mAP contain the truth, where the curve is steep and where flat.
Usage: python bench/coverage_simulation.py [--studies 1000] [--sizes 120 500] [--seeds 1 3] [--curve]
"""

from __future__ import annotations

import argparse

import numpy as np
from made_up import model, world
from scipy.stats import norm
from tqdm import tqdm

from vlm_itl.metrics.ap import average_precision, mean_ap
from vlm_itl.metrics.compare import bootstrap, confidence, hierarchical, resampled
from vlm_itl.metrics.curve import Curve, against
from vlm_itl.metrics.matches import Matches

CLASSES = 2
SKILLS = (0.70, 0.68)  # mean IoU of the two arms
FEW = 60  # test images whose own expected difference is the truth
SPREAD = 0.01  # standard deviation of the skill between seeds, where there are several


def map_of(matches: Matches) -> float:
    return float(mean_ap(average_precision(matches, np.ones((1, len(matches.images)), dtype=int)))[0])


def draw(images: int, seeds: int, random: np.random.Generator) -> tuple[dict[int, Matches], dict[int, Matches]]:
    """The models of both arms on the same new images; with several seeds each model has a skill of its own."""
    instances, difficulty = world(images, CLASSES, random)
    spread = SPREAD if seeds > 1 else 0.0
    arms = [{s: model(instances, difficulty, random.normal(skill, spread), random) for s in range(seeds)} for skill in SKILLS]
    return arms[0], arms[1]


def truth(images: int, seeds: int, worlds: int, random: np.random.Generator) -> tuple[float, float]:
    """(expected difference of mAP on test sets of that size, its standard error)."""
    differences = []
    for _ in range(worlds):
        a, b = draw(images, seeds, random)
        differences.append(np.mean([map_of(a[s]) - map_of(b[s]) for s in a]))
    return float(np.mean(differences)), float(np.std(differences, ddof=1) / np.sqrt(worlds))


def study(images: int, seeds: int, replicates: int, true: float, number: int) -> tuple[dict[str, bool], float]:
    """({way: its interval contains the truth}, width of ours) of one study."""
    a, b = draw(images, seeds, np.random.default_rng([number, images, seeds]))
    drawn = bootstrap(a, b, replicates, number)
    differences = np.array([map_of(a[s]) - map_of(b[s]) for s in a])
    ours = confidence(differences, drawn, 0.95)
    rows = hierarchical(drawn, number)
    low, high = np.quantile(rows, [0.025, 0.975])
    half = norm.ppf(0.975) * rows.std(ddof=1)
    middle = differences.mean()
    contains = {
        "as compare": ours.low <= true <= ours.high,
        "percentiles": bool(low <= true <= high),
        "normal": bool(abs(middle - true) <= half),
    }
    return contains, ours.high - ours.low


HOURS = np.array([2.0, 7.0, 13.0, 24.0])  # of the drawing runs
CURVE_SKILLS = (0.62, 0.69, 0.71, 0.72)
ARMS = {"steep": (5.0, 0.655), "flat": (14.0, 0.707)}  # hours and skill


def draw_curve(images: int, seeds: int, random: np.random.Generator) -> list[dict[int, Matches]]:
    """The models of the drawing runs, then those of the arms, on the same new images; with several seeds as in `draw`."""
    instances, difficulty = world(images, CLASSES, random)
    spread = SPREAD / 2 if seeds > 1 else 0.0
    skills = [*CURVE_SKILLS, *(skill for _, skill in ARMS.values())]
    return [{s: model(instances, difficulty, random.normal(skill, spread), random) for s in range(seeds)} for skill in skills]


def curve_truth(images: int, seeds: int, worlds: int, random: np.random.Generator) -> dict[str, tuple[float, float]]:
    """{arm: (mAP lost, hours saved)} of the expected mAPs."""
    found = [[np.mean([map_of(m) for m in one.values()]) for one in draw_curve(images, seeds, random)] for _ in range(worlds)]
    *line, steep, flat = np.mean(found, axis=0)
    return {
        name: (float(np.interp(hours, HOURS, line)) - ap, float(np.interp(ap, line, HOURS)) - hours)
        for (name, (hours, _)), ap in zip(ARMS.items(), (steep, flat))
    }


def curve_study(
    images: int, seeds: int, replicates: int, true: dict[str, tuple[float, float]], number: int
) -> dict[str, tuple[bool, bool]]:
    """{arm: whether the intervals of mAP lost and of hours saved contain the truth}; an end beyond the curve holds all that is there."""
    drawn = draw_curve(images, seeds, np.random.default_rng([number, images, seeds, 1]))
    both = [np.vstack([[map_of(m) for m in one.values()], resampled(one, replicates, number)]) for one in drawn]
    curves = [Curve.through(HOURS, np.stack([rows[:, s] for rows in both[:4]], axis=1)) for s in range(seeds)]
    contains = {}
    for (name, (hours, _)), ap in zip(ARMS.items(), both[4:]):
        found = against([curve for curve in curves if curve], np.full(seeds, hours), ap, 0.95)
        contains[name] = [
            (one.low is None or one.low <= value) and (one.high is None or value <= one.high)
            for one, value in zip((found.AP_lost, found.hours_saved), true[name])
        ]
    return contains


def curve_main(studies: int, sizes: list[int], seeds: int, replicates: int) -> None:
    true = curve_truth(5_000, seeds, 150 if seeds > 1 else 60, np.random.default_rng(0))
    for images in sizes:
        found = [curve_study(images, seeds, replicates, true, k) for k in tqdm(range(studies), desc=f"{images} images", disable=None)]
        for name, (lost, saved) in true.items():
            share = np.mean([one[name] for one in found], axis=0)
            print(
                f"{seeds} seed(s), {images} images, {studies} studies, {name}: mAP lost ({lost:+.4f}) {share[0]:.3f}, "
                f"hours saved ({saved:+.2f}) {share[1]:.3f}", flush=True,
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[120, 260])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--curve", action="store_true")
    arguments = parser.parse_args()
    for seeds in arguments.seeds:
        if arguments.curve:
            curve_main(arguments.studies, arguments.sizes, seeds, arguments.replicates)
            continue
        many = truth(5_000, seeds, 600 if seeds > 1 else 100, np.random.default_rng(0))
        for images in arguments.sizes:
            # AP of few images is another number than that of many
            true, error = truth(images, seeds, 4_000, np.random.default_rng(0)) if images < FEW else many
            print(f"{seeds} seed(s), {images} images: true difference {true:.4f} (known to {error:.4f})", flush=True)
            studies = [
                study(images, seeds, arguments.replicates, true, k)
                for k in tqdm(range(arguments.studies), desc=f"{images} images", disable=None)
            ]
            ways = "; ".join(f"{way} {np.mean([c[way] for c, _ in studies]):.3f}" for way in studies[0][0])
            print(f"{images:6} images, {len(studies)} studies: {ways}; mean width {np.mean([w for _, w in studies]):.4f}", flush=True)


if __name__ == "__main__":
    main()
