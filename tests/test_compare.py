"""Two arms against each other: the bootstrap by hand, the test, the three answers, and who is compared with whom."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from conftest import instance
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import nct
from scipy.stats import t as student
from test_ap import matches_of, world

from vlm_itl.core.errors import UserError
from vlm_itl.metrics import compare as statistics
from vlm_itl.metrics.ap import average_precision, mean_ap
from vlm_itl.metrics.compare import (
    Interval,
    bootstrap,
    compare,
    confidence,
    hierarchical,
    needed,
    non_inferior,
    pairs,
    power_of_equal_arms,
    quantile_of_sum,
    sign_flip,
)
from vlm_itl.settings import Compare, Run

QUICK = Compare(replicates=300)


def two_arms(seed: int = 0, images: int = 30):
    """A model, and one that lacks a third of its detections."""
    truth, results = world(seed, images=images, steps=10_000)
    return matches_of(truth, results), matches_of(truth, [r for k, r in enumerate(results) if k % 3])


def ap_at(matches, weights):
    return float(mean_ap(average_precision(matches, np.asarray(weights)[None]))[0])


def test_differences_are_paired_and_repeat():
    a, b = two_arms()
    rows = bootstrap({0: a}, {0: b}, 50, seed=4)
    weights = np.concatenate(list(statistics.multiplicities(50, 30, 4)))
    np.testing.assert_allclose(rows[:, 0], [ap_at(a, w) - ap_at(b, w) for w in weights], atol=1e-12)
    assert (weights.sum(axis=1) == 30).all()
    assert compare({0: a}, {0: b}, QUICK) == compare({0: a}, {0: b}, QUICK)
    assert compare({0: a}, {0: b}, QUICK) != compare({0: a}, {0: b}, QUICK.model_copy(update={"seed": 1}))


def test_percentiles_are_scipys():
    a, b = two_arms(1)
    row = compare({0: a}, {0: b}, Compare(replicates=4000))

    def difference(index):
        weights = np.bincount(index, minlength=30)
        return ap_at(a, weights) - ap_at(b, weights)

    theirs = scipy_bootstrap(
        (np.arange(30),), difference, n_resamples=2000, vectorized=False, method="percentile", rng=np.random.default_rng(0)
    )
    spread = theirs.standard_error
    assert row.low == pytest.approx(theirs.confidence_interval.low, abs=0.25 * spread)
    assert row.high == pytest.approx(theirs.confidence_interval.high, abs=0.25 * spread)
    assert row.standard_error == pytest.approx(spread, rel=0.1)


def test_a_model_against_itself():
    a, _ = two_arms()
    row = compare({0: a}, {0: a}, QUICK)
    assert (row.difference, row.low, row.high, row.p, row.images_needed) == (0, None, None, None, None)
    assert (row.answer, row.reason) == ("cannot tell", "both predict the same")
    assert compare({1: a, 2: a}, {1: a, 2: a}, QUICK).reason == "both predict the same"


def test_arms_that_learned_the_same_cannot_tell():
    """On a GPU two trainings on the same labels differ by rounding: a difference, but none of the judges'."""
    a, b = two_arms()
    own, same, other, unknown = (replace(m, labels=labels) for m, labels in ((a, "x"), (b, "x"), (b, "y"), (b, "")))
    row = compare({0: own}, {0: same}, QUICK)
    assert (row.answer, row.reason) == ("cannot tell", "both learned from the same labels")
    assert row.difference > 0
    for against in (other, unknown):
        assert compare({0: own}, {0: against}, QUICK).answer == "yes"
    assert compare({0: replace(a, labels="")}, {0: unknown}, QUICK).answer == "yes"
    assert compare({0: own, 1: own}, {0: same, 1: other}, QUICK).reason is None  # in one seed they do not


def test_models_that_ap_cannot_tell_apart_cannot_tell():
    a, _ = two_arms()
    row = compare({0: a}, {0: replace(a, score=a.score / 2)}, QUICK)
    assert (row.difference, row.low, row.answer) == (0, None, "cannot tell")
    assert row.reason == "no choice of the test images changes their difference"


def test_one_image_and_no_predictions():
    truth, results = world(3, images=1)
    a, b = matches_of(truth, results), matches_of(truth, [])
    row = compare({0: a}, {0: b}, QUICK)
    assert row.against_mask_AP == 0
    assert row.difference == row.mask_AP > 0
    assert (row.low, row.high, row.p, row.images_needed, row.answer) == (None, None, None, None, "cannot tell")
    assert row.reason == "1 test image shows an instance, and an interval needs 20"
    json.dumps(asdict(row), allow_nan=False)


def test_an_interval_needs_twenty_images_that_show_an_instance():
    def arms(showing: int):
        truth, results = perfect(showing, images=showing + 30)
        return {0: matches_of(truth, results)}, {0: matches_of(truth, results[::2])}

    assert compare(*arms(20), QUICK).answer == "yes"
    row = compare(*arms(19), QUICK)
    assert (row.answer, row.low, row.images) == ("cannot tell", None, 49)
    assert row.reason == "19 test images show an instance, and an interval needs 20"


def perfect(showing: int, images: int):
    """A truth in which the first images show an instance each, and the results that find them all."""
    truth, _ = world(0, images=images)
    truth["annotations"] = [instance((2, 2, 20, 20), 3, i, id=i) for i in range(1, showing + 1)]
    return truth, [instance((2, 2, 20, 20), 3, i, score=0.5 + i / 1000) for i in range(1, showing + 1)]


def test_no_instance_anywhere_is_null():
    truth, results = world(3)
    truth["annotations"] = []
    row = compare({0: matches_of(truth, results)}, {0: matches_of(truth, [])}, QUICK)
    assert row.answer == "cannot tell"
    assert row.difference is row.low is row.p is row.images_needed is row.mask_AP is None
    assert row.reason == "no test image shows an instance"
    json.dumps(asdict(row), allow_nan=False)


def test_two_models_that_find_nothing_say_nothing():
    truth, _ = world(3)
    row = compare({0: matches_of(truth, [])}, {0: matches_of(truth, [])}, QUICK)
    assert (row.mask_AP, row.difference, row.answer, row.images_needed) == (0, 0, "cannot tell", None)
    assert row.reason == "neither finds anything"


def test_hierarchical_by_hand():
    """Two seeds: a replicate takes the first's difference twice, the second's twice or their mean, with P = 1/4, 1/4, 1/2."""
    drawn = hierarchical(np.tile([[1.0, 3.0]], (4000, 1)))
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [1, 2, 3]
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.03)


def test_interval_over_seeds_by_hand():
    """Differences 1 and 3: s^2 / S = 1. Images add (means of the rows 1 and 3) a variance of 2."""
    interval = confidence(np.array([1.0, 3.0]), np.array([[0.0, 2.0], [2.0, 4.0]]), level=0.95)
    random = np.random.default_rng(0)
    drawn = 2**0.5 * random.normal(size=1_000_000) + random.standard_t(1, size=1_000_000)
    assert interval.standard_error == pytest.approx(3**0.5)
    assert interval.high - 2 == pytest.approx(2 - interval.low) == pytest.approx(np.quantile(np.abs(drawn), 0.95), rel=0.01)
    assert (interval.from_images, interval.shared, interval.from_seeds) == (2, 2, 1)


def test_what_images_do_to_one_model_alone_counts_once():
    """Differences that vary over images independently, by 1 each: nothing in common, and s^2 knows the rest."""
    rows = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) * 0.75**0.5
    interval = confidence(np.array([1.0, 3.0]), rows, level=0.95)
    assert interval.from_images == pytest.approx(0.5)
    assert interval.shared == pytest.approx(0, abs=1e-12)
    assert (interval.standard_error, interval.from_seeds) == (pytest.approx(1), 1)
    assert interval.high - interval.difference == pytest.approx(12.7062, rel=1e-3)  # Student's of one degree of freedom


def test_the_sum_of_a_normal_and_a_student():
    """Either alone is its own quantile; both are between it and the sum of the two."""
    assert quantile_of_sum(0.975, 4, 0, 2) == pytest.approx(2 * 1.959964, abs=1e-5)
    assert quantile_of_sum(0.975, 0, 4, 2) == pytest.approx(2 * 4.302653, abs=1e-3)
    assert 4.302653 < quantile_of_sum(0.975, 1, 1, 2) < 1.959964 + 4.302653


def test_seeds_that_agree_are_one_and_seeds_that_do_not_widen():
    a, b = two_arms()
    alike = compare({1: a, 2: a}, {1: b, 2: b}, QUICK)
    one = compare({1: a}, {1: b}, QUICK)
    assert alike.standard_error == pytest.approx(one.standard_error, abs=1e-6)
    assert (alike.resampled, one.resampled, alike.seeds) == ("seeds and images", "images", 2)
    assert alike.seeds_needed is None  # more of them leave the images' part
    apart = compare({1: a, 2: b}, {1: b, 2: a}, QUICK)
    assert apart.difference == 0
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


def test_sign_flip_by_hand():
    """Two images, on one of which the arms differ: half of all swaps leave the difference, half turn its sign; none is nearer to 0."""
    a, b = two_arms()
    assert sign_flip({0: a}, {0: a}, 100, 0) == 1
    random = np.random.default_rng([7, 3])
    stay = random.integers(2, size=(101, 30))
    stay[0] = 1
    mixed = []
    for row in stay:
        keep = row.astype(bool)
        ours, theirs = replace_on(a, b, keep), replace_on(b, a, keep)
        mixed.append(abs(ap_at(ours, np.ones(30, dtype=int)) - ap_at(theirs, np.ones(30, dtype=int))))
    expected = (1 + sum(m >= mixed[0] - 1e-12 for m in mixed[1:])) / 101
    assert sign_flip({0: a}, {0: b}, 100, 7) == pytest.approx(expected)
    assert expected < 0.05


def replace_on(a, b, keep):
    """`a` on the images to keep, `b` on the others."""
    from_a, from_b = keep[a.image], ~keep[b.image]
    joined = {
        name: np.concatenate([getattr(a, name)[..., from_a], getattr(b, name)[..., from_b]], axis=-1)
        for name in ("image", "category", "score", "found", "ignored")
    }
    order = np.lexsort((joined["image"], joined["category"]))
    return replace(a, **{name: values[..., order] for name, values in joined.items()})


def test_the_three_answers():
    assert [non_inferior(*interval, 0.01) for interval in ((-0.009, 0.02), (-0.05, -0.02), (-0.02, 0.01), (-0.01, 0.0))] == [
        "yes", "no", "cannot tell", "cannot tell",
    ]  # fmt: skip
    a, b = two_arms()
    assert compare({0: a}, {0: b}, QUICK).answer == "yes"  # better is not worse
    assert compare({0: b}, {0: a}, QUICK).answer == "no"
    assert compare({0: b}, {0: a}, QUICK.model_copy(update={"margin": 0.9})).answer == "yes"
    slightly = compare({0: b}, {0: a}, QUICK)
    inside = QUICK.model_copy(update={"margin": -slightly.difference})
    assert compare({0: b}, {0: a}, inside).answer == "cannot tell"


def test_images_needed_of_one_seed_by_hand():
    """margin .01, level .95, power .8: the standard error must be .01 / (1.95996 + .84162) = .0035694."""
    one = Interval(0, 0, 0, 0.02, from_images=0.0004, shared=0.0004, from_seeds=0)
    assert needed(one, 260, 1, Compare()) == (int(np.ceil(260 * 0.0004 / 0.0035694**2)), None)
    sure = Interval(0, 0, 0, 1e-5, from_images=1e-10, shared=1e-10, from_seeds=0)
    assert needed(sure, 260, 1, Compare()) == (statistics.FEWEST_IMAGES, None)


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("seed_error", [0.0025, 0.006])  # of one seed
def test_seeds_needed_are_those_that_a_simulation_needs(share, seed_error):
    """Equal arms many times over: that many seeds say `yes` in 80 % of studies, one seed less does not. With z it would be too few."""
    shared = share * (0.01 / 2.80158) ** 2
    interval = Interval(0, 0, 0, 0, from_images=shared, shared=shared, from_seeds=seed_error**2 / 3)
    _, seeds = needed(interval, 260, 3, Compare())
    assert seeds is not None
    assert seeds > max(2, np.ceil(seed_error**2 / ((0.01 / 2.80158) ** 2 - shared)))
    random = np.random.default_rng(0)

    def says_yes(s: int, studies: int = 3000) -> float:
        found = random.normal(0, seed_error, (studies, s))
        middle = found.mean(axis=1) + random.normal(0, shared**0.5, studies)
        own = found.var(axis=1, ddof=1) / s
        grid = np.quantile(own, np.linspace(0, 1, 60))
        half = np.interp(own, grid, [quantile_of_sum(0.975, shared, float(v), s - 1) for v in grid])
        if not shared:
            half = student.ppf(0.975, s - 1) * np.sqrt(own)
        return float(np.mean(middle - half > -0.01))

    assert says_yes(seeds) > 0.78  # .8 but for chance: three standard errors are .02
    assert says_yes(seeds - 1) < 0.8
    assert says_yes(seeds) == pytest.approx(power_of_equal_arms(shared, seed_error**2 / seeds, seeds, 0.01, 0.95), abs=0.025)


def test_power_is_the_noncentral_ts_and_the_normals():
    for seeds, error in ((2, 0.0005), (2, 0.004), (3, 0.004), (10, 0.003)):
        expected = nct.sf(student.ppf(0.975, seeds - 1), seeds - 1, 0.01 / error)
        assert power_of_equal_arms(0, error**2, seeds, 0.01, 0.95) == pytest.approx(expected, abs=1e-3)
    assert power_of_equal_arms(0.0035694**2, 0, 1, 0.01, 0.95) == pytest.approx(0.8, abs=1e-4)
    # the case: two seeds, for which z promises .8
    assert power_of_equal_arms(0, 0.0035694**2, 2, 0.01, 0.95) == pytest.approx(0.19, abs=0.03)


def test_more_images_do_not_help_where_seeds_are_too_few():
    """Two seeds know so little of their own spread that images without end leave `yes` unlikely; five do not."""
    interval = Interval(0, 0, 0, 0, from_images=1e-5, shared=1e-5, from_seeds=4e-6)
    assert needed(interval, 260, 2, Compare())[0] is None
    images, _ = needed(interval, 260, 5, Compare())
    assert images is not None
    power = [power_of_equal_arms(260 / n * 1e-5, 4e-6, 5, 0.01, 0.95) for n in (images - 1, images)]
    assert power[0] < 0.8 <= power[1]
    assert needed(Interval(0, 0, 0, 1, from_images=1.0, shared=1.0, from_seeds=1.0), 260, 3, Compare()) == (None, None)


def test_two_seeds_at_least():
    assert needed(Interval(0, 0, 0, 0, from_images=0, shared=0, from_seeds=1e-12), 260, 3, Compare())[1] == 2


def test_other_images_or_seeds_are_refused():
    a, b = two_arms()
    with pytest.raises(UserError, match="different images"):
        compare({0: a}, {0: two_arms(images=20)[0]}, QUICK)
    with pytest.raises(UserError, match=r"same for both arms \(1, 2 and 1\)"):
        compare({1: a, 2: a}, {1: b}, QUICK)
    with pytest.raises(UserError, match="none and none"):
        compare({}, {}, QUICK)


def runs(**of: tuple[str, str]) -> dict[str, Run]:
    return {name.replace("_", "-"): Run(judge=judge, prev=prev) for name, (judge, prev) in of.items()}


def test_who_is_compared_with_whom():
    made = runs(
        human_1=("human", "start"), human_2=("human", "human-1"), vlm_1=("vlm", "start"), vlm_2=("vlm", "vlm-1"), vlm_3=("vlm", "vlm-2"),
        once=("always", "start"),
    )  # fmt: skip
    assert pairs(made, "human") == {"vlm-3": "human-2", "once": "human-1"}
    assert pairs(made, "always") == {"human-2": "once", "vlm-3": "once"}
    assert pairs(made, "nobody") == {}
    assert pairs(runs(human_1=("human", "start")), "human") == {}


def test_p_worse_by_hand():
    """Five replicates; -.01 is the second of them, a quarter of the way."""
    rows = np.array([[0.02], [-0.03], [-0.01], [0.0], [0.01]])
    assert statistics.p_worse(np.array([0.0]), rows, 0.01) == 0.25
    assert statistics.p_worse(np.array([0.0]), rows, 0.02) == 0.125  # half way between the first and the second
    assert statistics.p_worse(np.array([0.0]), rows, 0.04) == 0
    assert statistics.p_worse(np.array([0.0]), rows, -0.03) == 1


def test_p_worse_over_seeds_is_that_of_the_sum():
    """The case of the interval over seeds by hand: a normal of variance 2 and Student's t of one degree of freedom around 2."""
    random = np.random.default_rng(0)
    drawn = 2**0.5 * random.normal(size=1_000_000) + random.standard_t(1, size=1_000_000)
    found = statistics.p_worse(np.array([1.0, 3.0]), np.array([[0.0, 2.0], [2.0, 4.0]]), 1.0)
    assert found == pytest.approx(np.mean(drawn > 3.0), abs=0.002)


@pytest.mark.parametrize("seeds", [1, 3])
def test_p_worse_agrees_with_the_answer(seeds):
    random = np.random.default_rng(seeds)
    answers = []
    for _ in range(300):
        differences = random.normal(-0.01, 0.03, seeds)
        rows = differences + random.normal(0, 0.01, (400, 1)) + random.normal(0, 0.004, (400, seeds))
        interval, p = confidence(differences, rows, 0.95), statistics.p_worse(differences, rows, 0.01)
        answers.append(non_inferior(interval.low, interval.high, 0.01))
        assert answers[-1] == ("yes" if p < 0.025 else "no" if p > 0.975 else "cannot tell")
    assert set(answers) == {"yes", "no", "cannot tell"}


def test_holm_by_hand():
    """.005 x 4, .01 x 3, .03 x 2, then .04 x 1, which may not fall below the one before it."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.4, 0.5, None]) == [1, 1, 1]
    assert statistics.holm([]) == []
    assert statistics.holm([0.02]) == [0.02]
