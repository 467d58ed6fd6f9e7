"""Two arms on the same test images: the difference of their mAP, its interval, a test, and whether one is no worse than the other.

Only images and seeds are resampled; what else could have come out otherwise (the split, the selection) is in no interval here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2, norm, t

from vlm_itl.core.errors import UserError
from vlm_itl.core.runs import chain, round_of
from vlm_itl.metrics.ap import average_precision, mean_ap, swapped
from vlm_itl.metrics.matches import Matches, same_images, same_predictions
from vlm_itl.metrics.rows import Answer, Arm

if TYPE_CHECKING:
    from vlm_itl.settings import Compare, Run

Seeds = Mapping[Any, Matches]  # one model a seed of training
BLOCK = 200  # replicates drawn at a time
# test images with an instance for an interval. Resampling few images knows too few differences: of 95 % intervals .70 hold the truth with
# 3 images, .90 with 10, .93 with 20 (docs/method.md, "Is it right?"), and with one the interval has no width at all.
FEWEST_IMAGES = 20
DIGITS = 6  # after the point, of a number in a file
MOST = 10**9  # images or seeds that anybody looks for


@dataclass(frozen=True)
class Sampled:
    """One arm's models with their mAP on the test images as they are and on resamples of them, for as many comparisons as it is part of."""

    models: Seeds
    settings: Compare

    @property
    def seeds(self) -> list[Any]:
        return sorted(self.models, key=str)

    @functools.cached_property
    def ap(self) -> NDArray[np.float64]:
        """(S,) mAP, NaN where no test image shows an instance."""
        ones = np.ones((1, len(self.models[self.seeds[0]].images)), dtype=np.int64)
        return np.array([float(mean_ap(average_precision(self.models[s], ones))[0]) for s in self.seeds])

    @functools.cached_property
    def replicates(self) -> NDArray[np.float64]:
        """(R, S), see `resampled`."""
        return resampled(self.models, self.settings.replicates, self.settings.seed)


def compare(model: Seeds | Sampled, reference: Seeds | Sampled, settings: Compare, against: str = "") -> Arm:
    """The row of an arm in `metrics/comparison.json` (docs/architecture.md, "Statistics"), but for what depends on other arms.

    Where the two can say nothing about their judges, `reason` says why, the answer is `cannot tell`, and what cannot be estimated is null.

    Args:
        against: what the reference's run is called.

    Raises:
        UserError: other seeds or other test images on the two sides, or none.
    """
    ours, theirs = (side if isinstance(side, Sampled) else Sampled(side, settings) for side in (model, reference))
    if set(ours.models) != set(theirs.models) or not ours.models:
        raise UserError(f"seeds to compare must be the same for both arms ({_list(ours.models)} and {_list(theirs.models)})")
    same_images([m.models[s] for m in (ours, theirs) for s in ours.seeds])
    images, seeds = len(theirs.models[ours.seeds[0]].images), len(ours.seeds)
    difference = ours.ap - theirs.ap
    found = Arm(
        against=against, mask_AP=number(ours.ap.mean()), against_mask_AP=number(theirs.ap.mean()), difference=number(difference.mean()),
        low=None, high=None, standard_error=None, p=None, p_worse=None, p_holm=None, answer="cannot tell", answer_holm=None,
        images_needed=None, seeds_needed=None, reason=says_nothing(ours.models, theirs.models, np.array([ours.ap, theirs.ap])),
        images=images, seeds=seeds, resampled="images" if seeds == 1 else "seeds and images",
        margin=settings.margin, level=settings.level, power=settings.power, replicates=settings.replicates,
    )  # fmt: skip
    if found.reason is not None:
        return found
    replicates = ours.replicates - theirs.replicates
    interval = confidence(difference, replicates, settings.level)
    if interval.standard_error == 0:
        return replace(found, reason="no choice of the test images changes their difference")
    images_needed, seeds_needed = needed(interval, images, seeds, settings)
    return replace(
        found, low=number(interval.low), high=number(interval.high), standard_error=number(interval.standard_error),
        p=number(sign_flip(ours.models, theirs.models, settings.replicates, settings.seed)),
        p_worse=number(p_worse(difference, replicates, settings.margin)), answer=non_inferior(interval.low, interval.high, settings.margin),
        images_needed=images_needed, seeds_needed=seeds_needed,
    )  # fmt: skip


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
    return too_few_images(reference)


def too_few_images(models: Seeds) -> str | None:
    """Why their test images give no interval, in words; None where they do."""
    showing = int(next(iter(models.values())).instances.any(axis=0).sum())
    if showing >= FEWEST_IMAGES:
        return None
    return f"{showing} test {'image shows' if showing == 1 else 'images show'} an instance, and an interval needs {FEWEST_IMAGES}"


def _list(seeds: Seeds) -> str:
    return ", ".join(map(str, seeds)) or "none"


def number(x: float) -> float | None:
    """As it stands in a file: `DIGITS` after the point, null for what is not a number."""
    return None if math.isnan(x) else round(float(x), DIGITS)


def multiplicities(replicates: int, images: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Blocks of how often each of `replicates` resamples (with replacement, of the same size) holds each image."""
    random = np.random.default_rng([seed, 1])
    for first in range(0, replicates, BLOCK):
        yield random.multinomial(images, np.full(images, 1 / images), size=min(BLOCK, replicates - first))


def resampled(models: Seeds, replicates: int, seed: int) -> NDArray[np.float64]:
    """(R, S) mAP of each seed's model on R resamples of the test images, the same resamples for all models and seeds.

    A resample without any instance has no mAP and is left out, so that there may be fewer rows. Which ones it is depends on the test
    images alone: rows of two arms on the same images belong together.
    """
    seeds = sorted(models, key=str)
    images = len(models[seeds[0]].images)
    blocks = [
        np.array([mean_ap(average_precision(models[s], weights)) for s in seeds]).T for weights in multiplicities(replicates, images, seed)
    ]
    rows: NDArray[np.float64] = np.concatenate(blocks)
    return rows[~np.isnan(rows).any(axis=1)]


def bootstrap(model: Seeds, reference: Seeds, replicates: int, seed: int) -> NDArray[np.float64]:
    """(R, S) mAP differences of each seed's two models, see `resampled`."""
    return resampled(model, replicates, seed) - resampled(reference, replicates, seed)


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
    return np.asarray(np.take_along_axis(replicates, drawn, axis=1).mean(axis=1))


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


def p_worse(differences: NDArray[np.float64], replicates: NDArray[np.float64], margin: float) -> float:
    """One-sided p of "worse by `margin` or more": the tail that the lower end of `confidence`'s interval has to cut off to be -margin.

    So the answer of `non_inferior` is `yes` where p < (1 - level) / 2, and `no` where p > 1 - (1 - level) / 2. One seed: the place of
    -margin among the bootstrap's replicates; 0 where all lie above. Several: P(Q >= mean difference + margin), Q being `confidence`'s sum.

    Args:
        differences: (S,) on the test images as they are.
        replicates: (R, S), see `bootstrap`.
    """
    if len(differences) == 1:
        rows = np.sort(replicates[:, 0])  # `confidence` takes quantiles at rank / (R - 1), linear between
        return float(np.interp(-margin, rows, np.linspace(0, 1, len(rows)), left=0, right=1))
    interval = confidence(differences, replicates, 0.5)
    widths = np.sqrt(interval.shared + interval.from_seeds / mean_squares(2000, len(differences) - 1))
    return float(ndtr(-(interval.difference + margin) / widths).mean())


def holm(p: Sequence[float | None]) -> list[float]:
    """Adjusted p of several questions, each to be held against one level (Holm 1979, "A simple sequentially rejective multiple test
    procedure"): the k-th smallest of m times m - k + 1, never below the one before it, at most 1. One without p counts as 1.
    """
    filled = np.array([1.0 if value is None else value for value in p])
    order = np.argsort(filled, kind="stable")
    stepped = np.minimum(1, np.maximum.accumulate(filled[order] * np.arange(len(filled), 0, -1)))
    adjusted = np.empty(len(filled))
    adjusted[order] = stepped
    return [float(value) for value in adjusted]


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


def non_inferior(low: float, high: float, margin: float) -> Answer:
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


def last_runs(runs: Mapping[str, Run]) -> list[str]:
    """The last run of every arm: those that no other continues."""
    return [name for name in runs if all(run.prev != name for run in runs.values())]


def last_run_of(runs: Mapping[str, Run], judge: str | None) -> str | None:
    """The last run of that judge's arm, of several arms the first in `runs`; None where no arm ends with it."""
    return next((name for name in last_runs(runs) if runs[name].judge == judge), None)


def pairs(runs: Mapping[str, Run], judge: str) -> dict[str, str]:
    """Which run is compared with which: {run: reference run}, in the order of `runs`.

    The last run of every arm (one that no other continues) against the run of the same round in the arm of `judge`, or that arm's last
    where it has fewer rounds. Of several arms that `judge` ends, the first in `runs` is the reference. Empty where no arm is that judge's.
    """
    last = last_runs(runs)
    reference = last_run_of(runs, judge)
    if reference is None:
        return {}
    rounds = chain(runs, reference)
    return {
        name: rounds[min(round_of(runs, name), len(rounds)) - 1] for name in last if name != reference
    }  # fmt: skip
