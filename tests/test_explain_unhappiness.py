import warnings
from dataclasses import replace

import numpy as np
import pytest
from neuron_states import make_states, simulate
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from dclib.explain.unhappiness import KINDS, own_right


def test_parts_add_up_to_the_separation_and_shares_to_one():
    result = own_right(simulate([0.5, 0.3, -0.4, -0.2], [1, 0.5, -1, 0.2]), draws=200)
    states = simulate([0.5, 0.3, -0.4, -0.2], [1, 0.5, -1, 0.2])
    margins = states.margins
    expected = margins[states.labels].mean() - margins[~states.labels].mean()
    assert result.neurons["part"].sum() == pytest.approx(expected)
    assert result.separation[0] == pytest.approx(expected)
    assert result.kinds["share"].sum() == pytest.approx(1)
    unhappy = result.neurons["kind"] == KINDS[0]
    assert result.neurons["part"][unhappy].sum() / expected == pytest.approx(
        result.kinds.loc[KINDS[0], "share"]
    )


def test_where_only_unhappiness_neurons_work_their_share_is_one():
    result = own_right(simulate([0.5, 0.4, -0.5, -0.4], [1, 1, 0, 0], n=400), draws=300)
    own, missing = result.kinds.loc[KINDS[0]], result.kinds.loc[KINDS[1]]
    assert own["share_low"] < 1 < own["share_high"]
    assert own["share"] == pytest.approx(1, abs=0.15)
    assert missing["auroc_low"] < 0.5 < missing["auroc_high"]
    assert (own["significant"], missing["significant"]) == (2, 0)
    assert "something that the others do not" in result.verdict


def test_where_only_happiness_is_missing_the_share_is_zero():
    result = own_right(simulate([0.5, 0.4, -0.5, -0.4], [0, 0, -1, -1], n=400), draws=300)
    own = result.kinds.loc[KINDS[0]]
    assert own["share_low"] < 0 < own["share_high"]
    assert own["auroc_low"] < 0.5 < own["auroc_high"]
    assert (own["significant"], result.kinds.loc[KINDS[1], "significant"]) == (0, 2)
    assert "not rejected" in result.verdict
    assert result.verdict in str(result)


def test_copies_with_the_other_sign_add_nothing():
    """A neuron and its mirror image: both tell the classes apart, neither adds to the other."""
    rng, labels = np.random.default_rng(0), np.arange(120) % 2 == 1
    a = rng.standard_normal(120) + 1.5 * labels
    result = own_right(make_states(np.stack([9 + a, 9 - a], 1), labels, [0.4, -0.6]), draws=200)
    assert result.kinds.loc[KINDS[0], "share"] == pytest.approx(0.4)
    assert result.kinds["auroc"].nunique() == 1
    assert "is not shown" in result.verdict


def test_p_values_are_corrected_by_holm_as_statsmodels_does():
    rows = own_right(simulate([0.5, 0.4, 0.3, -0.5], [0.4, 0.5, 0, -0.6]), draws=200).neurons
    error = (rows["high"] - rows["low"]) / 2 / student.ppf(0.975, 118)  # 120 groups, two strata
    p = 2 * student.sf(np.abs(rows["part"]) / error, 118)
    np.testing.assert_allclose(rows["p_holm"], multipletests(p, method="holm")[1], rtol=1e-6)


def test_neurons_that_work_against_their_sign_are_counted():
    result = own_right(simulate([0.5, 0.5, -0.9], [-1, 0.2, -1.5], n=400), draws=200)
    assert result.kinds["against"].tolist() == [1, 0]
    assert result.kinds.loc[KINDS[0], "share"] < 0


def test_alone_is_the_margin_with_the_other_kind_at_its_mean():
    states = simulate([0.5, -0.4], [1, -1])
    result = own_right(states, draws=50)
    for k, kind in enumerate(KINDS):
        held = states.const + states.contributions[:, 1 - k].mean()
        expected = roc_auc_score(states.labels, held + states.contributions[:, k])
        assert result.kinds.loc[kind, "auroc"] == pytest.approx(expected)
    whole = roc_auc_score(states.labels, states.margins)
    assert result.whole[0] == pytest.approx(whole)
    assert result.gain[0] == pytest.approx(whole - expected)  # of missing happiness


def test_groups_that_vary_as_wholes_widen_the_intervals():
    rng, labels = np.random.default_rng(0), np.arange(60) % 2 == 1
    once = 5 + rng.standard_normal((60, 2)) + labels[:, None] * np.array([1, -1])
    four = np.repeat(once, 4, 0)
    widths = []
    for groups in (np.repeat(np.arange(60), 4), np.arange(240)):
        states = make_states(four, np.repeat(labels, 4), [0.5, -0.5], groups)
        _, low, high = own_right(states, draws=300).separation
        widths.append(high - low)
    assert widths[0] > 1.7 * widths[1]  # four copies say as much as one: sqrt(4)


def test_nothing_is_divided_where_the_classes_are_not_apart():
    result = own_right(simulate([0.5, -0.4], [0, 0]), draws=100)
    assert result.kinds["share"].isna().all()
    assert "nothing to divide" in result.verdict
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "share not defined," in str(result)


def test_pictures_that_were_trained_on_prove_nothing():
    with pytest.raises(ValueError, match="trained on"):
        own_right(replace(simulate([0.5], [1]), split="train"))


@pytest.mark.parametrize("labels", [np.ones(6), np.zeros(6), np.arange(6) % 2])
def test_one_class_or_one_group_of_each_cannot_be_divided(labels):
    with pytest.raises(ValueError, match="Both classes are needed, and more than one group"):
        own_right(make_states(np.ones((6, 1)), labels, [1.0], groups=labels))
