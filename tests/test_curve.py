"""Arms against the drawing curve: by hand, replicate for replicate, and at the curve's ends."""

from __future__ import annotations

import numpy as np
import pytest

from vlm_itl.metrics.compare import confidence
from vlm_itl.metrics.curve import Curve, against, hours_at
from vlm_itl.metrics.hours import price_name

HOURS = np.array([2.0, 6.0, 12.0, 24.0])
AP = np.array([0.40, 0.45, 0.47, 0.49])


def exact(ap=AP, hours=HOURS, rows: int = 100) -> Curve:
    """A curve that no resample changes."""
    made = Curve.through(hours, np.tile(ap, (1 + rows, 1)))
    assert made is not None
    return made


def arm(*ap: float, spread: float = 0.0, rows: int = 100):
    """(1 + R, S): models whose mAP every resample changes alike, evenly by up to `spread` either way."""
    return np.vstack([ap, np.array(ap) + np.linspace(-spread, spread, rows)[:, None]])


def test_a_curve_never_falls_and_needs_no_order():
    """.4 and .3 are pooled to .35; of two runs at equal hours the mean counts, with their number as weight."""
    assert exact(np.array([0.2, 0.4, 0.3, 0.5])).ap[0].tolist() == pytest.approx([0.2, 0.35, 0.35, 0.5])
    made = Curve.through(np.array([4.0, 1.0, 2.0, 2.0]), np.array([[0.30, 0.20, 0.45, 0.35], [0.3, 0.2, 0.1, 0.1]]))
    assert made is not None
    assert made.hours.tolist() == [1, 2, 4]
    np.testing.assert_allclose(made.ap, [[0.2, 1.1 / 3, 1.1 / 3], [0.4 / 3, 0.4 / 3, 0.3]])  # (.4 x 2 + .3) / 3; (.2 + .1 x 2) / 3
    assert Curve.through(np.array([2.0, 2.0]), np.array([[0.1, 0.2]])) is None


def test_hours_and_map_by_hand():
    """.46 takes 9 hours of drawing, half way from 6 to 12; 13 hours reach .47 + .02 / 12."""
    found = against([exact()], np.array([13.0]), arm(0.46), 0.95)
    assert found.hours == 13
    assert (found.hours_saved.value, found.hours_saved.low, found.hours_saved.high) == pytest.approx((-4, -4, -4), abs=1e-3)
    assert found.AP_lost.value == pytest.approx(0.01 + 0.02 / 12, abs=1e-6)
    assert found.answer == "no"
    assert against([exact()], np.array([5.0]), arm(0.46), 0.95).hours_saved.value == pytest.approx(4, abs=1e-3)
    assert against([exact()], np.array([5.0]), arm(0.46), 0.95).answer == "yes"
    unsure = against([exact()], np.array([9.0]), arm(0.46, spread=0.005), 0.95)
    assert (unsure.answer, unsure.hours_saved.value) == ("cannot tell", pytest.approx(0, abs=1e-3))


def pooled_adjacent(values):
    """Isotonic regression by hand: neighbours out of order become their mean."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return np.concatenate([[np.mean(block)] * len(block) for block in blocks])


def test_one_seed_is_the_percentiles_of_replicates_that_are_each_made_anew():
    random = np.random.default_rng(0)
    common = random.normal(0, 0.006, (2001, 1))
    ap = AP + common + random.normal(0, 0.006, (2001, 4))
    own = 0.455 + common + random.normal(0, 0.004, (2001, 1))
    ap[0], own[0] = AP, 0.455
    curve = Curve.through(HOURS, ap)
    assert curve is not None
    found = against([curve], np.array([8.0]), own, 0.95)
    saved, lost = [], []
    for row, (level,) in zip(ap, own):
        rising = pooled_adjacent(row)
        lost.append(np.interp(8.0, HOURS, rising) - level)
        k = int(np.searchsorted(rising, level))  # the first point that reaches it
        if k in (0, 4):
            saved.append(-np.inf if k == 0 else np.inf)
        else:
            saved.append(HOURS[k - 1] + (HOURS[k] - HOURS[k - 1]) * (level - rising[k - 1]) / (rising[k] - rising[k - 1]) - 8)
    assert np.isfinite(saved).mean() > 0.99
    assert found.hours_saved.value == pytest.approx(saved[0], abs=1e-3)
    for end, share in ((found.hours_saved.low, 0.025), (found.hours_saved.high, 0.975)):
        # between two neighbours of the replicates
        assert np.quantile(saved[1:], share - 0.001, method="lower") <= end <= np.quantile(saved[1:], share + 0.001, method="higher")
    assert (found.AP_lost.value, found.AP_lost.low, found.AP_lost.high) == pytest.approx(
        (lost[0], *np.quantile(lost[1:], [0.025, 0.975])), abs=2e-6
    )


def test_several_seeds_are_a_mean_with_its_t():
    """On a straight curve of .005 a hour, hours are mAP over .005, and so are the ends of their interval."""
    curves = [exact(np.array([0.40, 0.50]), np.array([0.0, 20.0])) for _ in range(3)]
    hours, ap = np.array([8.0, 9.0, 10.0]), arm(0.445, 0.452, 0.449, spread=0.004)
    differences = 0.40 + 0.005 * hours - ap[0]
    interval = confidence(differences, 0.40 + 0.005 * hours - ap[1:], 0.95)
    found = against(curves, hours, ap, 0.95)
    assert (found.AP_lost.value, found.AP_lost.low, found.AP_lost.high) == pytest.approx(
        (interval.difference, interval.low, interval.high), abs=1e-6
    )
    assert (found.hours_saved.value, found.hours_saved.low, found.hours_saved.high) == pytest.approx(
        (-interval.difference / 0.005, -interval.high / 0.005, -interval.low / 0.005), abs=1e-3
    )
    assert found.hours == 9
    apart = against([exact(hours=HOURS), exact(hours=HOURS + 30)], np.array([5.0, 5.0]), arm(0.4, 0.4), 0.95)
    assert (apart.answer, apart.hours_saved.value) == ("cannot tell", None)
    assert "no hours in common" in str(apart.hours_saved.beyond)


def test_above_the_whole_curve_and_below_it():
    above = against([exact()], np.array([20.0]), arm(0.60, spread=0.01), 0.95)
    assert (above.hours_saved.value, above.hours_saved.low, above.hours_saved.high) == (None, 4, None)
    assert above.hours_saved.beyond == "value, low, high beyond the last hours of the curve: more than 4.00"
    assert above.answer == "yes"
    assert above.AP_lost.high is not None
    assert above.AP_lost.high < 0
    below = against([exact()], np.array([2.5]), arm(0.30, spread=0.01), 0.95)
    assert (below.hours_saved.value, below.hours_saved.low, below.hours_saved.high, below.answer) == (None, None, -0.5, "no")
    # one end of the interval alone
    partly = against([exact()], np.array([20.0]), arm(0.485, spread=0.01), 0.95).hours_saved
    assert (partly.value, partly.high) == (pytest.approx(1, abs=1e-3), None)
    assert partly.low == pytest.approx(15.3 - 20, abs=0.01)  # the 2.5 % are at .4755, which takes 12 + 12 x 55 / 200 hours
    assert partly.beyond == "high beyond the last hours of the curve: more than 4.00"


def test_more_hours_than_the_curve_and_fewer():
    more = against([exact()], np.array([30.0]), arm(0.48, spread=0.001), 0.95)
    assert (more.AP_lost.value, more.AP_lost.high) == (None, None)
    assert more.AP_lost.low == pytest.approx(0.01 - 0.00095, abs=1e-4)
    assert more.AP_lost.beyond == "beyond the last hours of the curve: more than 0.0100"
    assert (more.hours_saved.value, more.answer) == (pytest.approx(-12, abs=1e-3), "no")
    fewer = against([exact()], np.array([0.0]), arm(0.30), 0.95)
    assert (fewer.AP_lost.value, fewer.AP_lost.low, fewer.AP_lost.high) == (None, None, pytest.approx(0.1))
    assert (fewer.hours_saved.value, fewer.hours_saved.low, fewer.hours_saved.high, fewer.answer) == (None, None, 2, "cannot tell")


def test_an_arm_that_is_start_loses_and_saves_nothing():
    found = against([exact()], np.array([2.0]), arm(0.40), 0.95)
    assert (found.hours_saved.value, found.AP_lost.value, found.answer) == (0, 0, "cannot tell")
    assert (found.hours_saved.low, found.hours_saved.high) == (0, 0)


def test_where_all_find_the_same_nothing_is_said():
    """A flat curve and an arm upon it: pooling rounds .2 to .20000000000000004, and an arm may begin below start."""
    flat = Curve.through(np.array([1.0, 2.0, 3.0]), np.tile([0.2, 0.2, 0.2], (101, 1)))
    assert flat is not None
    for hours in (0.5, 1.5, 9.0):
        found = against([flat], np.array([hours]), arm(0.2), 0.95)
        assert (found.answer, found.hours_saved.high) == ("cannot tell", None), hours
    nothing = against([exact(np.zeros(4))], np.array([0.5]), arm(0.0), 0.95)
    assert (nothing.answer, nothing.hours_saved.value, nothing.hours_saved.low) == ("cannot tell", None, None)


def test_hours_of_a_price():
    cost = {"drawn_instances": 90, "human_decisions": 600, "hours": 99}
    assert [hours_at(cost, 80, v, 80) for v in (0, 3, 9)] == pytest.approx([2, 2.5, 3.5])
    assert [price_name(v) for v in (1.6, 3.0, 9)] == ["1.6 s", "3 s", "9 s"]
