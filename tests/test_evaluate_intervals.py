"""Intervals of a mean, and p-values of many tests; those of metrics: tests/test_metrics.py."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.multitest import multipletests

from dclib.evaluate.intervals import holm, mean_row, wilson_interval


def test_a_mean_of_single_pictures_has_students_interval():
    values = np.random.default_rng(0).normal(size=30)
    row, known = mean_row(values, range(30)), ttest_1samp(values, 0).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx((known.low, known.high))
    assert row["value"] == pytest.approx(values.mean()) and row["n"] == 30


def test_copies_of_a_picture_in_its_group_make_no_interval_narrower():
    values = np.random.default_rng(1).normal(size=20)
    once, twice = mean_row(values, range(20)), mean_row(np.repeat(values, 2), np.arange(40) // 2)
    assert (once["low"], once["high"]) == pytest.approx((twice["low"], twice["high"]))
    assert np.isnan(mean_row(values, np.zeros(20))["low"])


def test_a_share_has_wilsons_interval_within_0_and_1():
    hits = np.arange(400) < 396
    row, known = mean_row(hits, range(400), proportion=True), wilson_interval(396, 400)
    assert (row["low"], row["high"]) == pytest.approx(known, abs=1e-3) and row["high"] < 1
    row = mean_row(np.ones(20), np.arange(20) // 2, proportion=True)
    assert (row["low"], row["high"]) == wilson_interval(10, 10)


@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_holm_equals_statsmodels(m):
    p = np.random.default_rng(m).random(m).round(1) ** 3  # with ties
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
