"""Two arms on the same test images: the difference of their mAP, its interval, a test, and whether one is no worse than the other.

Only images and seeds are resampled; what else could have come out otherwise (the split, the selection) is in no interval here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2, norm, t

from ..base.errors import UserError
from ..base.settings import Compare, Run, chain
from .ap import average_precision, mean_ap, swapped
from .matches import Matches, same_images, same_predictions

Seeds = Mapping[Any, Matches]  # one model a seed of training
BLOCK = 200  # replicates drawn at a time
# test images with an instance for an interval. Resampling few images knows too few differences: of 95 % intervals .70 hold the truth with
# 3 images, .90 with 10, .93 with 20 (docs/method.md, "Is it right?"), and with one the interval has no width at all.
FEWEST_IMAGES = 20
MOST = 10**9  # images or seeds that anybody looks for


def compare(model: Seeds, reference: Seeds, settings: Compare) -> dict[str, Any]:
    """The row of `metrics/comparison.json` (docs/architecture.md, "Statistics") but for `against`.

    Where the two can say nothing about their judges, `reason` says why, the answer is `cannot tell`, and what cannot be estimated is null.

    Raises:
        UserError: other seeds or other test images on the two sides, or none.
    """
    if set(model) != set(reference) or not model:
        raise UserError(f"seeds to compare must be the same for both arms ({_list(model)} and {_list(reference)})")
    seeds = sorted(model, key=str)
    same_images([m[s] for m in (model, reference) for s in seeds])
    images = len(reference[seeds[0]].images)
    ones = np.ones((1, images), dtype=np.int64)
    ap = np.array([[float(mean_ap(average_precision(side[s], ones))[0]) for s in seeds] for side in (model, reference)])
    difference = ap[0] - ap[1]
    found = {
        "mask_AP": _number(ap[0].mean()), "against_mask_AP": _number(ap[1].mean()), "difference": _number(difference.mean()), "low": None,
        "high": None, "standard_error": None, "p": None, "answer": "cannot tell", "reason": says_nothing(model, reference, ap),
        "images_needed": None, "seeds_needed": None,
    }  # fmt: skip
    if found["reason"] is None:
        interval = confidence(difference, bootstrap(model, reference, settings.replicates, settings.seed), settings.level)
        if interval.standard_error == 0:
            found["reason"] = "no choice of the test images changes their difference"
        else:
            found["images_needed"], found["seeds_needed"] = needed(interval, images, len(seeds), settings)
            found |= {
                "low": _number(interval.low), "high": _number(interval.high), "standard_error": _number(interval.standard_error),
                "p": _number(sign_flip(model, reference, settings.replicates, settings.seed)),
                "answer": non_inferior(interval.low, interval.high, settings.margin),
            }  # fmt: skip
    return found | {
        "images": images, "seeds": len(seeds), "resampled": "images" if len(seeds) == 1 else "seeds and images",
        "margin": settings.margin, "level": settings.level, "power": settings.power, "replicates": settings.replicates,
    }  # fmt: skip


def says_nothing(model: Seeds, reference: Seeds, ap: NDArray[np.float64]) -> str | None:
    """Why a difference of these models says nothing about the judges of their arms, in words; None where it may say something.

    Labels are compared before predictions: on a GPU two trainings on the same labels may differ by rounding alone.

    Args:
        ap: (2, S) mAP of both on the test images as they are.
    """
    if np.isnan(ap).any():
        return "no test image shows an instance"
    if not ap.any():
        return "neither finds anything"
    if all(model[s].labels and model[s].labels == reference[s].labels for s in model):
        return "both learned from the same labels"
    if all(same_predictions(model[s], reference[s]) for s in model):
        return "both predict the same"
    showing = int(next(iter(reference.values())).instances.any(axis=0).sum())
    if showing < FEWEST_IMAGES:
        return f"{showing} test {'image shows' if showing == 1 else 'images show'} an instance, and an interval needs {FEWEST_IMAGES}"
    return None


def _list(seeds: Seeds) -> str:
    return ", ".join(map(str, seeds)) or "none"


def _number(x: float) -> float | None:
    return None if math.isnan(x) else round(float(x), 6)


def multiplicities(replicates: int, images: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Blocks of how often each of `replicates` resamples (with replacement, of the same size) holds each image."""
    random = np.random.default_rng([seed, 1])
    for first in range(0, replicates, BLOCK):
        yield random.multinomial(images, np.full(images, 1 / images), size=min(BLOCK, replicates - first))


def bootstrap(model: Seeds, reference: Seeds, replicates: int, seed: int) -> NDArray[np.float64]:
    """(R, S) mAP differences of each seed's two models on R resamples of the test images, the same resamples for all.

    A resample without any instance has no mAP and is left out, so that there may be fewer rows.
    """
    seeds = sorted(model, key=str)
    images = len(model[seeds[0]].images)
    blocks = []
    for weights in multiplicities(replicates, images, seed):
        sides = [[mean_ap(average_precision(side[s], weights)) for s in seeds] for side in (model, reference)]
        blocks.append((np.array(sides[0]) - np.array(sides[1])).T)
    rows = np.concatenate(blocks)
    return rows[~np.isnan(rows).any(axis=1)]


@dataclass(frozen=True)
class Interval:
    """A difference with its two-sided interval, and what its variance is made of (squares of standard errors).

    Attributes:
        from_images: over test images, of these trained models.
        shared: the part of `from_images` that the models of all seeds have in common; the rest is each model's own luck with the images.
        from_seeds: over seeds, that luck included. The whole variance is `shared` + `from_seeds`.
    """

    difference: float
    low: float
    high: float
    standard_error: float
    from_images: float
    shared: float
    from_seeds: float


def hierarchical(replicates: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """(R,) means over S seeds drawn with replacement anew for each row of `bootstrap`'s (R, S): seeds and images are resampled, crossed.

    Every seed's models are tested on the same images, so the two are crossed, not nested (Owen, "The pigeonhole bootstrap", 2007).
    """
    rows, seeds = replicates.shape
    drawn = np.random.default_rng([seed, 2]).integers(seeds, size=(rows, seeds))
    return np.take_along_axis(replicates, drawn, axis=1).mean(axis=1)


def confidence(differences: NDArray[np.float64], replicates: NDArray[np.float64], level: float) -> Interval:
    """The two-sided interval of the mean of S seeds' differences.

    One seed: the percentiles of the bootstrap over images (Efron and Tibshirani 1993, chapter 13).
    Several: difference -+ q. Seeds and images are crossed, so two errors add up: that of the images in common to all models, normal, whose
    variance is the mean covariance of two seeds' bootstrap differences; and that of the seeds, s / sqrt(S) times Student's t of S - 1
    degrees of freedom, since s is itself known from few. What images do to one model alone is in s already, and counted there only. q
    is the quantile of the sum, Behrens and Fisher's for means with two unknown variances (Fisher 1935), and near t's where the seeds
    differ much, near the normal where they hardly do. The percentiles of `hierarchical` are too narrow for the few seeds that anybody
    trains: resampling three of them finds two thirds of their variance, and knows of no t.

    Args:
        differences: (S,) on the test images as they are.
        replicates: (R, S), see `bootstrap`.
    """
    seeds, mean, tail = len(differences), float(differences.mean()), (1 - level) / 2
    from_images = float(replicates.mean(axis=1).var(ddof=1)) if len(replicates) > 1 else 0.0
    if seeds == 1:
        low, high = np.quantile(replicates[:, 0], [tail, 1 - tail])
        return Interval(mean, float(low), float(high), math.sqrt(from_images), from_images, from_images, 0.0)
    each = float(replicates.var(axis=0, ddof=1).mean()) if len(replicates) > 1 else 0.0
    shared = max(0.0, (seeds * from_images - each) / (seeds - 1))  # the variance of a mean is (each + (S - 1) covariance) / S
    from_seeds = float(differences.var(ddof=1)) / seeds
    variance = shared + from_seeds
    half = quantile_of_sum(1 - tail, shared, from_seeds, seeds - 1) if variance > 0 else 0.0
    return Interval(mean, mean - half, mean + half, math.sqrt(variance), from_images, shared, from_seeds)


def quantile_of_sum(level: float, normal: float, student: float, freedom: int) -> float:
    """Quantile above the median of sqrt(`normal`) Z + sqrt(`student`) T: Z standard normal, T Student's t with so many degrees of freedom.

    T is normal with variance `freedom` / chi^2, so the sum is a mixture of normals; 2,000 equally likely values of chi^2 stand for all.
    """
    widths = np.sqrt(normal + student / mean_squares(2000, freedom))
    top = math.sqrt(normal) * norm.ppf(level) + math.sqrt(student) * t.ppf(level, freedom)
    return float(brentq(lambda x: ndtr(x / widths).mean() - level, 0, 2 * top))


@functools.lru_cache(maxsize=64)
def mean_squares(number: int, freedom: int) -> NDArray[np.float64]:
    """So many equally likely values of chi^2 / freedom, which is an estimated variance over the true one; ascending."""
    return np.asarray(chi2.ppf((np.arange(number) + 0.5) / number, freedom) / freedom)


def sign_flip(model: Seeds, reference: Seeds, replicates: int, seed: int) -> float:
    """Two-sided p of a paired permutation test: if the arms are alike, it does not matter which model's detections an image has.

    Each replicate swaps the detections of the two arms on every image with probability 1/2 (of all seeds at once) and takes the difference
    of mAP again. p = (1 + replicates at least as far from 0) / (1 + replicates), which is never 0 (Phipson and Smyth 2010). It speaks of
    these trained models; whether another training would differ is the interval's matter.
    """
    seeds = sorted(model, key=str)
    images = len(model[seeds[0]].images)
    both = [swapped(model[s], reference[s]) for s in seeds]
    random = np.random.default_rng([seed, 3])
    observed, extreme = 0.0, 0
    for first in range(-1, replicates, BLOCK):  # the first row of all is the arms as they are
        stay = random.integers(2, size=(min(BLOCK, replicates - first), images))
        if first < 0:
            stay[0] = 1
        once = np.tile(np.repeat([1, 0], images), (len(stay), 1))
        sides = [np.concatenate([stay, 1 - stay], axis=1), np.concatenate([1 - stay, stay], axis=1)]
        ap = [np.mean([mean_ap(average_precision(m, once, side)) for m in both], axis=0) for side in sides]
        differences = ap[0] - ap[1]
        if first < 0:
            observed, differences = abs(differences[0]), differences[1:]
        extreme += int((np.abs(differences) >= observed - 1e-12).sum())
    return (1 + extreme) / (1 + replicates)


def non_inferior(low: float, high: float, margin: float) -> Literal["yes", "no", "cannot tell"]:
    """Is the model at most `margin` worse? `yes`: the interval lies above -margin; `no`: below it; else it `cannot` be told.

    A two-sided 95 % interval makes a one-sided test at 2.5 %, the convention for non-inferiority (ICH E9, 1998, section 3.3.2; CONSORT's
    extension, Piaggio et al. 2012).
    """
    return "yes" if low > -margin else "no" if high < -margin else "cannot tell"


def power_of_equal_arms(shared: float, from_seeds: float, seeds: int, margin: float, level: float) -> float:
    """P(`yes`) if the arms are equal: P(D + margin > q), where q is half the width of the interval that `confidence` would give.

    D, the difference found, is normal about 0 with variance `shared` + `from_seeds`. One seed: q = z sqrt(shared), so P = Phi(margin /
    sqrt(shared) - z). Several: q is `quantile_of_sum` of `shared` and of the estimate of `from_seeds`, which is it times chi^2 / (S - 1)
    and independent of D; the mean over 100 equally likely values of chi^2 stands for all. With `shared` = 0 that is P(T > t) of the
    noncentral t with S - 1 degrees of freedom and noncentrality margin / sqrt(from_seeds).

    Args:
        shared, from_seeds: variances, see `Interval`.
    """
    tail = (1 + level) / 2
    error = math.sqrt(shared + from_seeds)
    if error == 0:
        return 1.0
    if seeds == 1:
        return float(ndtr(margin / error - norm.ppf(tail)))
    halves = np.array([quantile_of_sum(tail, shared, from_seeds * s, seeds - 1) for s in mean_squares(100, seeds - 1)])
    return float(ndtr((margin - halves) / error).mean())


def needed(interval: Interval, images: int, seeds: int, settings: Compare) -> tuple[int | None, int | None]:
    """(images with these seeds, seeds with these images) from which on `yes` is to be expected with P >= `power` if the arms are equal.

    Sample size for non-inferiority of equal arms (Julious 2004, "Sample sizes for clinical trials with normal data"), by the power of the
    very interval that `confidence` gives, with Student's t where several seeds give one. The part of the variance that images make, in
    common or in one model, falls with their number, that of seeds with theirs. At least `FEWEST_IMAGES` images and 2 seeds. None: the
    other part alone is too much, or there is one seed, which says nothing about others.
    """
    of_models = min(interval.from_seeds, max(0.0, interval.from_images - interval.shared))  # what images do to single models
    of_training = interval.from_seeds - of_models  # what more images leave

    def with_images(n: int) -> bool:
        part = images / n
        power = power_of_equal_arms(part * interval.shared, of_training + part * of_models, seeds, settings.margin, settings.level)
        return power >= settings.power

    def with_seeds(n: int) -> bool:
        variance = seeds * interval.from_seeds / n
        return power_of_equal_arms(interval.shared, variance, n, settings.margin, settings.level) >= settings.power

    return fewest(with_images, FEWEST_IMAGES), None if seeds == 1 else fewest(with_seeds, 2)


def fewest(enough: Callable[[int], bool], low: int) -> int | None:
    """The smallest number from `low` on that is enough, where each larger one is too; None where `MOST` is not."""
    if not enough(MOST):
        return None
    high = low
    while not enough(high):
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def pairs(runs: Mapping[str, Run], judge: str) -> dict[str, str]:
    """Which run is compared with which: {run: reference run}, in the order of `runs`.

    The last run of every arm (one that no other continues) against the run of the same round in the arm of `judge`, or that arm's last
    where it has fewer rounds. Of several arms that `judge` ends, the first in `runs` is the reference. Empty where no arm is that judge's.
    """
    last = [name for name in runs if all(run.prev != name for run in runs.values())]
    reference = next((name for name in last if runs[name].judge == judge), None)
    if reference is None:
        return {}
    rounds = chain(runs, reference)
    return {
        name: rounds[min(len(chain(runs, name)), len(rounds)) - 1] for name in last if name != reference
    }  # fmt: skip
