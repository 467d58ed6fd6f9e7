"""A small, seeded version of bench/coverage_simulation.py: 95 % intervals contain a known difference about that often."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def coverage():
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import coverage_simulation as module
    finally:
        sys.path.remove(str(ROOT / "bench"))
    return module


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_contain_the_truth(coverage, seeds):
    """150 studies at 95 % miss 7.5 on average, and 1 to 15 in 99 of 100 such tests; half as wide they would miss about 50."""
    true, error = coverage.truth(2_000, seeds, 60, np.random.default_rng(0))
    studies = [coverage.study(120, seeds, 150, true, k) for k in range(150)]
    width = np.mean([w for _, w in studies])
    assert error < 0.1 * width
    assert 1 <= sum(not contains["as compare"] for contains, _ in studies) <= 15
    assert 0.02 < width < 0.2


def test_intervals_against_the_drawing_curve_contain_the_truth(coverage):
    """60 studies miss 3 on average, and 8 or more in 1 of 100 such tests; half as wide they would miss about 20."""
    true = coverage.curve_truth(2_000, 1, 60, np.random.default_rng(0))
    found = [coverage.curve_study(120, 1, 150, true, k) for k in range(60)]
    for name in true:
        missed = 60 - np.sum([one[name] for one in found], axis=0)
        assert (missed <= 8).all(), (name, missed)
    assert any(not all(one[name]) for one in found for name in true)  # and they can miss
