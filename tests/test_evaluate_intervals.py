"""Intervals of a mean and an AUROC, p-values of many tests; the rest: test_evaluate_metrics.py."""

from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests
from tables import make_table

from dclib.data import strata
from dclib.evaluate.intervals import (
    Ranking,
    accuracy,
    area_intervals,
    auroc,
    draw_times,
    freedom,
    holm,
    logit_interval,
    mean_row,
    proportion,
    wilson_interval,
)
from dclib.evaluate.metrics import measure


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


PICTURES = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=1, max_size=40
)


def both_classes(pictures):
    return {label for _, label, times in pictures if times} == {True, False}


@given(PICTURES.filter(both_classes))
def test_auroc_is_that_of_scikit_learn(pictures):
    scores, labels, times = map(np.array, zip(*pictures, strict=True))
    weights = np.stack([times, times + 1])
    expected = [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(auroc(scores.astype(float), labels, weights), expected)


@given(PICTURES)
def test_counts_are_the_weights_of_each_score(pictures):
    scores, labels, times = map(np.array, zip(*pictures, strict=True))
    unhappy, happy = Ranking(scores.astype(float)).count(labels, times[None])
    each = np.unique(scores)
    assert unhappy.tolist() == [[times[labels & (scores == score)].sum() for score in each]]
    assert happy.tolist() == [[times[~labels & (scores == score)].sum() for score in each]]


@settings(max_examples=10)  # scikit-learn takes its time
@given(st.integers(0, 2**32 - 1))
def test_the_interval_of_an_auroc_is_that_of_many_drawn_sets(seed):
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(2, size=18)] == 1
    scores = rng.integers(6, size=(2, 20)).astype(float)  # many are equal
    groups = np.unique(rng.integers(8, size=20), return_inverse=True)[1]
    kinds, rows = strata(groups, labels), area_intervals(scores, labels, groups, 12, seed)
    weights = draw_times(kinds, 12, np.random.default_rng(seed))[:, groups]
    for values, (area, *ends) in zip(scores, rows, strict=True):
        assert area == pytest.approx(roc_auc_score(labels, values))
        drawn = np.array([roc_auc_score(labels, values, sample_weight=w) for w in weights])
        expected = (np.nan, np.nan)
        if freedom(kinds) > 0:
            expected = logit_interval(area, drawn, len(kinds), freedom(kinds))
        assert ends == pytest.approx(expected, nan_ok=True)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts):
    expected = binomtest(*counts).proportion_ci(method="wilson")
    assert wilson_interval(*counts) == pytest.approx((expected.low, expected.high), abs=1e-9)
    (low, high), (below, _), (_, above) = (wilson_interval(c, 100) for c in (50.5, 50, 51))
    assert below < low < high < above  # between whole counts


def photographers(rng, n=30, each=10):
    """Logits, labels and groups of pictures by `n` photographers with a rate of their own, 0.8."""
    groups, labels = np.repeat(np.arange(n), each), rng.integers(2, size=n * each)
    right = rng.random(n * each) < rng.beta(4, 1, n)[groups]
    answers = np.where(right, labels, 1 - labels)
    return torch.eye(2)[torch.tensor(answers)], torch.tensor(labels), groups


def test_the_accuracy_of_groups_has_the_interval_of_metrics():
    logits, labels, groups = photographers(np.random.default_rng(0))
    found, row = accuracy(logits, labels, groups), make_table(logits[:, 1] - 0.5, labels, groups)
    row = measure(row, draws=2).loc["accuracy"]
    assert astuple(found) == pytest.approx((row.value, row.n, row.low, row.high))
    alone = accuracy(logits, labels, range(300))
    assert alone == accuracy(logits, labels) == proportion(round(300 * row.value), 300)


def test_accuracy_counts():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]])
    result = accuracy(logits, torch.tensor([0, 1, 1, 1]))
    assert (result.accuracy, result.n) == (0.75, 4)
    assert str(result) == "0.750 (95 % interval 0.301 to 0.954, n = 4)"
    for impossible in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(ValueError, match="no share"):
            wilson_interval(*impossible)
