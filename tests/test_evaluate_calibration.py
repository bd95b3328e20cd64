import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score
from statsmodels.stats.proportion import proportion_confint
from tables import make_table, simulate

from dclib.evaluate.calibration import (
    abstain_confidence,
    choose_threshold,
    confidences,
    fit_temperature,
    predictive_values,
    reliability,
    risk_area,
    risk_at,
    risk_coverage,
)
from dclib.evaluate.metrics import measure


def logits_of(table):
    labels = (table["label"] == "unhappy").to_numpy(int)
    return table[["logit_happy", "logit_unhappy"]].to_numpy(), labels


def log_loss(logits, labels, temperature):
    scaled = logits / temperature
    right = scaled[np.arange(len(labels)), labels]
    return (np.logaddexp(*scaled.T) - right).mean()


def test_neither_a_choice_nor_a_probe_needs_torch_or_pandas():
    code = "import sys, dclib.evaluate.calibration, dclib.evaluate.probe; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "pandas", "sklearn", "matplotlib"} & set(run.stdout.split())


@pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 3.0])
def test_the_temperature_is_that_of_a_grid_search(factor):
    logits, labels = logits_of(simulate())
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 4001))
    n = len(labels)
    cost = {t: n * log_loss(factor * logits, labels, t) + np.log(t) ** 2 / 2 for t in grid}
    best = min(cost, key=cost.get)
    assert fit_temperature(factor * logits, labels) == pytest.approx(best, rel=2e-3)


MARGINS = st.lists(st.tuples(st.floats(-8, 8), st.integers(0, 1)), min_size=2, max_size=40)


@given(MARGINS, st.floats(0.1, 10), st.floats(-5, 5))
def test_a_temperature_never_raises_the_log_loss(rows, scale, shift):
    margins, labels = (np.array(column) for column in zip(*rows, strict=True))
    assume(0 < labels.sum() < len(labels))
    logits = scale * np.stack([np.full(len(margins), shift), margins + shift], axis=1)
    temperature = fit_temperature(logits, labels)
    assert 0.05 <= temperature <= 20
    assert log_loss(logits, labels, temperature) <= log_loss(logits, labels, 1.0) + 1e-12


def test_temperatures_of_few_pictures_and_of_a_network_without_a_mistake():
    """Without the prior the temperature would be the least there is, at several times the loss."""
    labels = np.array([0, 0, 1, 1])
    right = np.array([[1, 0], [900, 0], [0, 2], [0, 900]])
    assert 0.5 < fit_temperature(right, labels) < 1  # four right answers prove little
    assert fit_temperature(right, 1 - labels) > 5  # nothing but mistakes
    assert fit_temperature(np.zeros((4, 2)), labels) == 1  # says nothing: left alone
    rng = np.random.default_rng(0)
    labels = np.arange(4000) % 2
    margins = np.where(labels, 1, -1) * 4 + 2 * rng.normal(size=len(labels))  # true log-odds: 2 *
    logits = np.stack([-margins, margins], axis=1)
    seen = np.flatnonzero(np.where(labels, 1, -1) * margins > 0)[:40]  # all of them right
    temperature = fit_temperature(logits[seen], labels[seen])
    others = log_loss(logits, labels, temperature)
    assert others < 1.5 * log_loss(logits, labels, 1.0) < log_loss(logits, labels, 0.05)


@pytest.mark.parametrize("choose", [choose_threshold, fit_temperature])
def test_nothing_is_chosen_from_one_class_or_no_picture_or_nan(choose):
    def answers(n, value=0.5):
        return np.full((n, 2) if choose is fit_temperature else n, value)

    for labels in ([], [1, 1], [0, 2]):
        with pytest.raises(ValueError, match="both classes"):
            choose(answers(len(labels)), labels)
    with pytest.raises(ValueError, match="finite"):
        choose(answers(2, np.nan), [0, 1])
    with pytest.raises(ValueError, match="one finite answer for each"):
        choose(answers(3), [0, 1])


PROBS = st.one_of(st.floats(0, 1), st.integers(0, 10).map(lambda k: k / 10))
ANSWERS = st.lists(st.tuples(PROBS, st.integers(0, 1)), min_size=2, max_size=25)


@given(ANSWERS)
def test_the_threshold_is_the_best_of_all_and_the_nearest_to_a_half(rows):
    probs, labels = (np.array(column) for column in zip(*rows, strict=True))
    assume(0 < labels.sum() < len(labels))
    edges = sorted({0.0, 1.0, *probs.tolist()})
    scores = {}
    for low, high in pairwise(edges):
        middle = (low + high) / 2
        scores[middle] = balanced_accuracy_score(labels, probs >= middle)
    best = max(scores.values())
    chosen = choose_threshold(probs, labels)
    assert scores[chosen] == pytest.approx(best)
    ties = [threshold for threshold, score in scores.items() if score > best - 1e-12]
    assert abs(chosen - 0.5) == min(abs(threshold - 0.5) for threshold in ties)
    assert choose_threshold([0.1, 0.2, 0.4, 0.9], [0, 0, 1, 1]) == pytest.approx(0.3)


@pytest.mark.parametrize("decimals", [1, 6])  # with many ties, with none
def test_the_risk_at_each_coverage_is_that_of_a_plain_loop(decimals):
    table = simulate(120, temperature=1.7, threshold=0.6, groups=np.arange(120))
    table["logit_unhappy"] = table["logit_unhappy"].round(decimals)
    table["logit_happy"] = -table["logit_unhappy"]
    rows = risk_coverage(table)
    probs = 1 / (1 + np.exp(-(table["logit_unhappy"] - table["logit_happy"]) / 1.7))
    sure = np.maximum(probs, 1 - probs)
    wrong = (probs >= 0.6) != (table["label"] == "unhappy")
    expected = []
    for confidence in sorted(set(sure.round(9)), reverse=True):
        answered = sure >= confidence - 1e-8
        expected.append((confidence, answered.mean(), answered.sum(), wrong[answered].mean()))
    assert rows.columns.tolist() == ["confidence", "coverage", "n", "risk", "low", "high"]
    np.testing.assert_allclose(rows.iloc[:, :4], expected, atol=1e-8)
    some = rows[rows["risk"] > 0]  # each picture its own group: Wilson's plain formula or wider
    low, high = proportion_confint(some["risk"] * some["n"], some["n"], method="wilson")
    np.testing.assert_allclose(some["low"], low, rtol=0.05, atol=2e-3)
    np.testing.assert_allclose(some["high"], high, rtol=0.05, atol=2e-3)


def test_groups_that_err_together_widen_the_interval_of_the_risk():
    together = simulate(200, separation=1.5, groups=np.arange(200))
    copies = pd.concat([together, together.assign(id=together["id"] + " again")])
    first, twice = risk_coverage(together).iloc[-1], risk_coverage(copies).iloc[-1]
    assert twice["n"] == 2 * first["n"] and twice["risk"] == first["risk"]
    assert twice["low"] == pytest.approx(first["low"], rel=0.01)
    assert twice["high"] == pytest.approx(first["high"], rel=0.01)


def test_several_seeds_are_the_mean_at_the_same_coverage():
    tables = [_of_seed(seed) for seed in (0, 1)]
    rows = risk_coverage(pd.concat(tables))
    each = [risk_coverage(table) for table in tables]
    for column in ("coverage", "n", "risk", "confidence"):
        mean = (each[0][column] + each[1][column]) / 2
        np.testing.assert_allclose(rows[column], mean)
    assert risk_area(pd.concat(tables)) == pytest.approx(np.mean([risk_area(t) for t in tables]))


def _of_seed(seed):
    return simulate(80, seed).assign(seed=seed)


SURE = [3.0, -2.0, 1.0, -0.5]  # the surest first; right are unhappy, happy, unhappy, happy


@pytest.mark.parametrize(
    ("margins", "labels", "area"),
    [
        (SURE, [1, 0, 1, 0], 0),
        (SURE, [0, 1, 0, 1], 1),
        (SURE, [1, 0, 1, 1], (0 + 0 + 0 + 1 / 4) / 4),  # the least sure is wrong
        (SURE, [0, 0, 1, 0], (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4),  # the surest is wrong
        ([1, 1, 1, 1], [1, 1, 1, 0], 1 / 4),  # equally sure: they come together
        ([2, 1, 1, 1], [1, 0, 0, 1], (0 + 3 * 1 / 2) / 4),
    ],
)
def test_areas_by_hand(margins, labels, area):
    assert risk_area(make_table(margins, labels)) == pytest.approx(area)


def test_the_risk_at_a_confidence_is_its_row_of_the_curve():
    table = _of_seed(0)
    for _, row in risk_coverage(table).iloc[::13].iterrows():
        assert risk_at(table, row["confidence"]) == pytest.approx(row.to_dict())
    assert risk_at(table, 1.1)["n"] == 0 and np.isnan(risk_at(table, 1.1)["risk"])


@given(st.integers(0, 10_000), st.integers(20, 300), st.sampled_from([0.02, 0.05, 0.2]))
def test_abstaining_keeps_the_risk_below_its_bound_on_its_own_pictures(seed, n, risk):
    rng = np.random.default_rng(seed)
    probs, labels = rng.random(n).round(2), rng.integers(0, 2, n)
    labels = np.where(rng.random(n) < 0.8, probs > 0.5, labels).astype(int)
    threshold = rng.choice([0.3, 0.5])
    wrong, sure = (probs >= threshold) != labels, confidences(probs)

    def allowed(confidence):
        answered = sure >= confidence
        high = proportion_confint(wrong[answered].sum(), answered.sum(), 0.1, "wilson")[1]
        return answered.sum() >= 30 and high <= risk

    chosen = abstain_confidence(probs, labels, risk, threshold)
    possible = [confidence for confidence in sure if allowed(confidence)]
    assert chosen == (min(possible) if possible else None)
    if chosen is not None:
        assert wrong[sure >= chosen].mean() <= risk


def test_a_promise_needs_enough_pictures():
    for n, confidence in ((51, None), (52, 0.9)):
        assert abstain_confidence(np.full(n, 0.9), np.ones(n)) == confidence
    assert abstain_confidence(np.full(29, 0.9), np.ones(29), risk=0.5) is None
    assert abstain_confidence([], []) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        abstain_confidence([0.9], [1], risk=5)


def test_the_promise_holds_on_new_pictures():
    broken = {}
    for name, share in (("promised", 0.05), ("hoped", None)):
        risks = []
        for seed in range(150):
            probs, labels = _probs(simulate(150, seed, 2.5))
            sure, wrong = confidences(probs), (probs >= 0.5) != labels
            if share:
                least = abstain_confidence(probs, labels, share)
            else:  # by the share of mistakes itself
                possible = [c for c in np.sort(sure)[:-30] if wrong[sure >= c].mean() <= 0.05]
                least = min(possible, default=None)
            if least is not None:
                new, truth = _probs(simulate(4000, seed + 1000, 2.5))
                answered = confidences(new) >= least
                risks.append(((new >= 0.5) != truth)[answered].mean() > 0.05)
        broken[name] = np.sum(risks) / 150
    assert broken["promised"] < 0.1 < 0.35 < broken["hoped"]


def _probs(table):
    logits, labels = logits_of(table)
    return 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), labels


@pytest.mark.parametrize("calibrated", [True, False])
def test_bins_are_those_of_scikit_learn(calibrated):
    table = simulate(200, temperature=2.0)  # as many in each bin, whoever rounds
    logits, labels = logits_of(table)
    scaled = (logits[:, 1] - logits[:, 0]) / (2.0 if calibrated else 1.0)
    probs = 1 / (1 + np.exp(-scaled))
    share, prob = calibration_curve(labels, probs, n_bins=10, strategy="quantile")
    rows = reliability(table, calibrated)
    assert rows.columns.tolist() == ["bin", "prob", "share", "n", "low", "high"]
    np.testing.assert_allclose(rows["share"], share)
    np.testing.assert_allclose(rows["prob"], prob)
    assert rows["n"].sum() == 200 and rows["n"].max() - rows["n"].min() <= 1
    inside = (rows["low"] <= rows["share"]) & (rows["share"] <= rows["high"] + 1e-12)
    assert inside.all()


def test_bins_add_up_to_the_calibration_error_and_their_seeds_are_averaged():
    table = simulate(200)
    rows = reliability(table)
    error = (rows["n"] * (rows["prob"] - rows["share"]).abs()).sum() / 200
    assert error == pytest.approx(measure(table, draws=2).loc["ECE", "value"])
    tables = [_of_seed(seed) for seed in (0, 1)]
    both, each = reliability(pd.concat(tables)), [reliability(table) for table in tables]
    for column in ("prob", "share"):
        np.testing.assert_allclose(both[column], (each[0][column] + each[1][column]) / 2)
    alike = reliability(make_table(np.zeros(40), np.arange(40) % 2))  # equal ones stay together
    assert alike[["prob", "share", "n"]].to_numpy().tolist() == [[0.5, 0.5, 40]]


def test_predictive_values_by_hand():
    columns = {"value": [0.9, 0.8], "low": [0.85, 0.7], "high": [0.95, 0.9]}
    measured = pd.DataFrame(columns, index=["recall happy", "recall unhappy"])
    row = predictive_values(measured, 0.1).iloc[0]  # of 1,000: 80 + 20 unhappy, 810 + 90 happy
    assert row["ppv"] == pytest.approx(80 / 170) and row["npv"] == pytest.approx(810 / 830)
    assert row["ppv_low"] == pytest.approx(70 / (70 + 135))
    assert row["npv_high"] == pytest.approx(855 / (855 + 10))
    ends = predictive_values(measured, [0, 1])
    assert ends["ppv"].tolist() == [0, 1] and ends["npv"].tolist() == [1, 0]
    for wrong in (-0.1, 50, np.nan):
        with pytest.raises(ValueError, match="share between 0 and 1"):
            predictive_values(measured, wrong)
    # at the prevalence measured they are the precisions
    measured = measure(simulate(300), draws=2)
    row = predictive_values(measured, 0.5).iloc[0]
    assert row["ppv"] == pytest.approx(measured.loc["precision unhappy", "value"])
    assert row["npv"] == pytest.approx(measured.loc["precision happy", "value"])


def test_one_class_and_one_picture():
    one = simulate(2).head(1)
    assert len(risk_coverage(one)) == len(reliability(one)) == 1
    happy = simulate(60).query("label == 'happy'")
    assert (reliability(happy)["share"] == 0).all() and len(risk_coverage(happy)) == 30
    assert np.isnan(predictive_values(measure(happy, draws=2), 0.3).loc[0, "ppv"])
