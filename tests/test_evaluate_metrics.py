import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest, norm
from scipy.stats import t as student
from sklearn import metrics as sk
from statsmodels.api import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint
from tables import make_table

from dclib.data import CLASSES, strata
from dclib.evaluate.intervals import (
    effective_interval,
    group_interval,
    logit_interval,
    mean_interval,
)
from dclib.evaluate.metrics import (
    METRICS,
    PROPORTIONS,
    Scored,
    bootstrap,
    compare,
    conclude,
    draw_groups,
    format_differences,
    format_metrics,
    measure,
    score_seeds,
    side_by_side,
)

RANKED = ["AUROC", "average precision"]
NEED_BOTH = [m for m in METRICS if m.split(" ")[0] in ("precision", "F1", "MCC", "balanced")]


def simulate(rng, n=100, accuracy=0.8, size=1, common=0.0, **columns):
    """A calibrated network on n pictures, half of them unhappy, in groups of `size`."""
    unhappy, groups = np.arange(n) % 2 == 1, np.arange(n) // size
    sign, distance = np.where(unhappy, 1, -1), norm.ppf(accuracy)
    shared = rng.standard_normal(n)[groups] * sign * np.sqrt(common)
    scores = sign * distance + shared + np.sqrt(1 - common) * rng.standard_normal(n)
    return make_table(2 * distance * scores, unhappy, groups, **columns)


@st.composite
def scored_pictures(draw):
    """(margins with ties, unhappy, whole weights): both classes are drawn at least once."""
    n = draw(st.integers(2, 40))
    margins = draw(st.lists(st.integers(-8, 8), min_size=n, max_size=n))
    unhappy = draw(st.lists(st.booleans(), min_size=n - 2, max_size=n - 2))
    weights = draw(st.lists(st.integers(0, 3), min_size=n - 2, max_size=n - 2))
    return np.array(margins) / 4, np.array([False, True, *unhappy]), np.array([1, 2, *weights])


def by_scikit_learn(probs, unhappy, weights):
    answers, of = probs >= 0.5, {"sample_weight": weights}
    found = {"accuracy": sk.accuracy_score(unhappy, answers, **of)}
    found["balanced accuracy"] = sk.balanced_accuracy_score(unhappy, answers, **of)
    for name, kind in zip(CLASSES, (False, True), strict=True):
        same = {"pos_label": kind, "zero_division": np.nan} | of
        found[f"recall {name}"] = sk.recall_score(unhappy, answers, **same)
        found[f"precision {name}"] = sk.precision_score(unhappy, answers, **same)
        found[f"F1 {name}"] = sk.f1_score(unhappy, answers, **same)
    one_answer = len(set(answers[weights > 0])) < 2  # scikit-learn calls that 0
    found["MCC"] = np.nan if one_answer else sk.matthews_corrcoef(unhappy, answers, **of)
    found["AUROC"] = sk.roc_auc_score(unhappy, probs, **of)
    found["average precision"] = sk.average_precision_score(unhappy, probs, **of)
    found["log-loss"] = sk.log_loss(unhappy, probs, **of)
    return found | {"Brier": sk.brier_score_loss(unhappy, probs, **of)}


def ece_by_loop(probs, unhappy, weights):
    """The ECE picture by picture; bins begin with every tenth part of the sorted pictures."""
    cuts = {sorted(probs)[k * len(probs) // 10] for k in range(1, 10)}
    bins = {}
    for prob, label, weight in zip(probs, unhappy, weights, strict=True):
        bins.setdefault(sum(cut <= prob for cut in cuts), []).append((prob, label, weight))
    gaps = [abs(sum(w * p for p, _, w in b) - sum(w * y for _, y, w in b)) for b in bins.values()]
    return sum(gaps) / sum(weights)


@settings(max_examples=25)  # scikit-learn takes its time
@given(scored_pictures())
def test_every_metric_is_that_of_scikit_learn(pictures):
    margins, unhappy, weights = pictures
    scored = Scored(make_table(margins, unhappy))
    found = scored.metrics(np.stack([np.ones(len(weights)), weights]))
    expected = by_scikit_learn(scored.probs, unhappy, weights)
    expected["ECE"] = ece_by_loop(scored.probs, unhappy, weights)
    assert set(found) == set(METRICS)
    for name in METRICS:
        assert found[name][1] == pytest.approx(expected[name], abs=1e-9, nan_ok=True), name
        assert found[name][0] == pytest.approx(scored.metrics()[name][0], nan_ok=True)


def test_ece_and_log_loss_by_hand():
    """One bin of 0.2 with 1 of 4 unhappy, one of 0.9 with 2 of 4: 0.5 * 0.05 + 0.5 * 0.4."""
    margins = np.log([1 / 4] * 4 + [9] * 4)
    table = make_table(margins, [1, 0, 0, 0, 1, 1, 0, 0])
    assert Scored(table).metrics()["ECE"] == pytest.approx(0.225)
    gaps = Scored(table).gaps()[0]
    assert sorted(gaps[gaps != 0]) == pytest.approx([-0.025, 0.2])
    # of a sure mistake it is not cut off
    for margins, unhappy in (([800.0, -1.0], [0, 1]), ([-800.0, 1.0], [1, 0])):
        expected = (800 + np.logaddexp(0, 1)) / 2
        assert Scored(make_table(margins, unhappy)).metrics()["log-loss"][0] == expected


@pytest.mark.parametrize("size", [1, 2])
def test_copies_of_pictures_in_a_group_change_nothing(size):
    """n is not the number of pictures but that of independent ones."""
    table = simulate(np.random.default_rng(0), 60, size=size)
    copies = pd.concat([table.assign(id=table["id"] + letter) for letter in "abc"])
    one, three = measure(table, 200).drop("ECE"), measure(copies, 200).drop("ECE")
    columns = ["value", "low", "high"]
    pd.testing.assert_frame_equal(one[columns], three[columns], rtol=1e-9)
    assert (three["n"] == 3 * one["n"]).all()
    apart = measure(copies.assign(group=copies["id"]), 200).drop("ECE")
    assert (apart["high"] - apart["low"] < 0.7 * (one["high"] - one["low"])).all()


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_proportions_of_pairs_by_a_sandwich_and_by_statsmodels(seed):
    table = simulate(np.random.default_rng(seed), 40, size=2, common=0.5)
    scored = Scored(table)
    fit = OLS(scored.right.astype(float), np.ones(40))
    error = fit.fit(cov_type="cluster", cov_kwds={"groups": scored.groups}).bse[0]
    share = scored.right.mean()
    if 0 < share < 1:
        n = min(share * (1 - share) / error**2, 160)
        n *= (norm.ppf(0.975) / student.ppf(0.975, 19)) ** 2
        expected = proportion_confint(share * n, n, method="wilson")
    else:
        expected = proportion_confint(20 * share, 20, method="wilson")
    found = measure(table, 10).loc["accuracy"]
    assert (found["low"], found["high"]) == pytest.approx(expected, abs=1e-9)


def test_strata_take_what_classes_differ_in_out_of_the_variance():
    """40 of 50 and 10 of 50 right: variance (40 * 10 + 10 * 40) / 50 / 49 * 50 / 100^2."""
    unhappy, right = np.arange(100) < 50, (np.arange(100) % 50 < 40) == (np.arange(100) < 50)
    kinds, everyone = strata(np.arange(100), unhappy), np.ones((1, 100), bool)
    share, n, low, high = group_interval(right[None], everyone, np.arange(100), kinds)
    assert (share, n) == (0.5, 100)
    variance = (40 * 10 + 10 * 40) / 50 / 49 * 50 / 100**2
    assert (low, high) == effective_interval(0.5, variance, 100, 100, 98)
    _, _, wider, _ = group_interval(right[None], everyone, np.arange(100))
    assert wider < low


def test_few_groups_widen_and_no_variance_is_not_believed():
    narrow, wide = (effective_interval(0.5, 0.01, 25, 5, free) for free in (1000, 2))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    known = tuple(binomtest(50, 100).proportion_ci(method="wilson"))
    assert effective_interval(0.5, 0.0, 25, 5, 1e9) == pytest.approx(known, abs=1e-6)


def test_mean_of_even_scores_has_students_interval_and_of_skewed_ones_halls():
    scores = np.concatenate([np.arange(1, 11.0), np.arange(1, 11.0)])
    found = mean_interval(scores, np.arange(20), np.ones(20, int))
    error = scores.std(ddof=1) / np.sqrt(20)
    assert found == pytest.approx(student.interval(0.95, 19, scores.mean(), error))
    scores = np.random.default_rng(0).lognormal(size=30)
    low, high = mean_interval(scores, np.arange(30), np.ones(30, int))
    skew = ((scores - scores.mean()) ** 3).mean() / scores.std() ** 3 / np.sqrt(30)

    def turned(t):
        return t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6

    error, reach = scores.std(ddof=1) / np.sqrt(30), student.ppf(0.975, 29)
    ends = [brentq(lambda t, r=r: turned(t) - r, -99, 99) for r in (reach, -reach)]
    assert (low, high) == pytest.approx([scores.mean() - end * error for end in ends])
    assert high - scores.mean() > 1.5 * (scores.mean() - low)


@pytest.mark.parametrize(
    "name", ["one class", "one picture", "one group", "one of each", "one unhappy"]
)
def test_too_little_gets_nan_or_a_wide_interval(name):
    margins, unhappy, groups = {
        "one class": ([1.0, -1, 2, 3, -2, 1], [1] * 6, None),
        "one picture": ([1.0], [1], None),
        "one group": ([1.0, -1, 2, -2], [1, 0, 0, 1], [0] * 4),
        "one of each": ([1.0, 2.0], [1, 0], None),
        "one unhappy": ([1.0, -1, -2, -3], [1, 0, 0, 0], None),
    }[name]
    found = measure(make_table(margins, unhappy, groups), 100)
    if name in ("one class", "one picture"):
        assert found.loc[[*NEED_BOTH, *RANKED, "recall happy"], "value"].isna().all()
        given_ = found.loc[["accuracy", "recall unhappy", "log-loss", "Brier", "ECE"], "value"]
        assert np.isfinite(given_).all()
    if name != "one class":
        rest = found.drop(list(PROPORTIONS))
        assert rest[["low", "high"]].isna().all(axis=None)
    shares = found.loc[list(PROPORTIONS)].dropna()
    assert {"accuracy", "recall unhappy"} <= set(shares.index)
    assert ((shares["low"] <= shares["value"]) & (shares["value"] <= shares["high"])).all()
    assert (shares["high"] - shares["low"] > 0.4).all()
    format_metrics(found)


def test_without_degrees_of_freedom_or_difference_there_is_no_interval():
    """Three groups, each of another kind: nothing varies within any."""
    table = make_table([-1.0, 2, 1, -2, 1, 0.5], [0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 2, 2])
    found = measure(table, 100)
    assert found.loc[["AUROC", "MCC", "log-loss"], ["low", "high"]].isna().all(axis=None)
    assert compare(table, table, 100)[["low", "high"]].isna().all(axis=None)
    table = simulate(np.random.default_rng(0))
    found = compare(table, table.sample(frac=1, random_state=1), 50)
    assert (found["value"] == 0).all() and found[["low", "high"]].isna().all(axis=None)
    assert found.attrs == {"only a right": 0, "only b right": 0, "p": 1.0}


def test_perfect_answers_are_not_certain():
    unhappy = np.arange(40) % 2 == 1
    found = measure(make_table(np.where(unhappy, 9, -9), unhappy), 100)
    rates = found.loc[[m for m in METRICS if m not in ("log-loss", "Brier", "ECE")]]
    assert (rates["value"] == 1).all() and (rates["high"] == 1).all()
    assert (rates["low"] < 0.95).all()
    assert rates.loc["accuracy", "low"] == pytest.approx(0.9124, abs=1e-4)
    losses = found.loc[["Brier", "ECE"]]
    assert (losses["low"] == 0).all() and (losses["high"] > 0.01).all()
    assert np.isnan(found.loc["log-loss", "low"])  # all the same: how much a mistake costs is open


def test_one_answer_to_everything():
    found = measure(make_table(np.zeros(40), np.arange(40) % 2 == 1), 100)
    assert found.loc["recall unhappy", ["value", "high"]].tolist() == [1, 1]
    assert found.loc["recall happy", ["value", "low"]].tolist() == [0, 0]
    assert found.loc["AUROC", "value"] == 0.5 and np.isnan(found.loc["AUROC", "low"])
    assert found.loc[["precision happy", "MCC"], "value"].isna().all()
    low, high = found.loc["accuracy", ["low", "high"]]
    assert low < 0.5 < high and high - low < 0.2


@given(scored_pictures(), st.integers(1, 4))
def test_an_interval_holds_the_value_and_stays_in_its_range(pictures, size):
    margins, unhappy, _ = pictures
    found = measure(make_table(margins, unhappy, np.arange(len(margins)) // size), 30)
    assert (found["low"].isna() == found["high"].isna()).all()
    found = found.drop("ECE").dropna()  # the value of the ECE is too high on average
    slack = 1e-9
    assert (found["low"] <= found["value"] + slack).all()
    assert (found["value"] <= found["high"] + slack).all()
    assert (found["low"] >= np.where(found.index == "MCC", -1, 0)).all()
    assert (found.drop("log-loss", errors="ignore")["high"] <= 1).all()


def test_groups_are_drawn_whole_and_within_strata():
    unhappy = np.array([0] * 10 + [1] * 6 + [0, 1] * 4, bool)
    groups = np.array([*np.arange(10) // 2, *range(5, 11), *np.repeat(range(11, 15), 2)])
    scored = Scored(make_table(np.zeros(24), unhappy, [f"{group:02d}" for group in groups]))
    assert scored.kinds.tolist() == [1] * 5 + [2] * 6 + [3] * 4
    weights = np.concatenate(list(draw_groups(scored, 600, seed=1)))
    assert weights.shape == (600, 24)
    for group in range(15):
        assert (np.ptp(weights[:, scored.groups == group], axis=1) == 0).all()
    assert (weights[:, :10].sum(1) == 10).all() and (weights[:, 10:16].sum(1) == 6).all()
    assert (weights[:, 16:].sum(1) == 8).all()
    assert weights.mean(0) == pytest.approx(1, abs=0.2) and weights.max() > 2
    assert (np.concatenate(list(draw_groups(scored, 600, seed=1))) == weights).all()


def make_seeds():
    rng = np.random.default_rng(0)
    return [simulate(rng, 60, accuracy, 2, seed=seed) for seed, accuracy in enumerate((0.7, 0.9))]


def test_several_seeds_are_averaged_with_their_range():
    parts = make_seeds()
    found = measure(pd.concat(parts).sample(frac=1, random_state=0), 100)
    alone = [measure(part, 100) for part in parts]
    for name in METRICS:
        values = [one.loc[name, "value"] for one in alone]
        assert found.loc[name, "value"] == pytest.approx(np.mean(values))
        ends = found.loc[name, ["seed_low", "seed_high"]].tolist()
        assert ends == pytest.approx([min(values), max(values)])
    assert found.loc["accuracy", "n"] == 60
    twins = pd.concat([parts[0], parts[0].assign(seed=5)])
    columns = ["value", "low", "high"]  # a seed that answers the same is no new information
    twin, one = (found[columns].drop("ECE") for found in (measure(twins, 100), alone[0]))
    pd.testing.assert_frame_equal(twin, one)
    # the same groups are drawn for every seed
    both = bootstrap(score_seeds(pd.concat(parts)), 50, seed=3)
    alone = [bootstrap(score_seeds(part), 50, seed=3) for part in parts]
    for name in METRICS:
        assert both[name] == pytest.approx((alone[0][name] + alone[1][name]) / 2)


def test_calibrated_or_not():
    table = simulate(np.random.default_rng(0)).assign(temperature=3.0)
    plain = measure(table.assign(temperature=1.0), 50)
    pd.testing.assert_frame_equal(measure(table, 50, calibrated=False), plain)
    losses = ["log-loss", "Brier", "ECE"]
    assert (measure(table, 50).loc[losses, "value"] != plain.loc[losses, "value"]).all()


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_mcnemar_is_that_of_statsmodels(seed):
    rng = np.random.default_rng(seed)
    a, b = simulate(rng, 30), simulate(rng, 30, 0.6)
    right = [Scored(table).right for table in (a, b)]
    right_or_not = (pd.Categorical(r, [False, True]) for r in right)
    expected = mcnemar(pd.crosstab(*right_or_not, dropna=False))
    found = compare(a, b, 10).attrs
    assert found["p"] == pytest.approx(expected.pvalue)
    assert found["only a right"] == (right[0] & ~right[1]).sum()
    assert found["only b right"] == (right[1] & ~right[0]).sum()


def test_differences_are_paired_and_change_sign():
    rng = np.random.default_rng(0)
    a = simulate(rng, 80, 0.8)
    b = a.copy()
    b.loc[:4, ["logit_happy", "logit_unhappy"]] *= -1
    there, back = compare(a, b, 200), compare(b, a, 200)
    assert there["value"].to_numpy() == pytest.approx(-back["value"])
    assert there["low"].to_numpy() == pytest.approx(-back["high"])
    values = [measure(table, 20)["value"].drop("ECE") for table in (a, b)]
    assert there["value"].to_numpy() == pytest.approx(values[0] - values[1])
    narrow, wide = (found.loc["accuracy"] for found in (there, measure(a, 200)))
    assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]
    assert "ECE" not in there.index
    seeds = pd.concat(make_seeds())  # McNemar's test is for one
    found = compare(seeds, seeds.assign(threshold=0.2), 50)
    assert found.attrs == {} and np.isfinite(found.loc["accuracy", "low"])


def test_tables_of_other_pictures_cannot_be_compared():
    table = simulate(np.random.default_rng(0))
    turned = table.assign(label=table["label"].to_numpy()[::-1])
    others = [table[1:], table.assign(id="x" + table["id"]), turned, table.assign(group="one")]
    for other in others:
        with pytest.raises(ValueError, match="not of the same pictures in the same groups"):
            compare(table, other, 10)


def test_logit_interval_of_normal_draws_is_that_of_student():
    drawn = expit(np.random.default_rng(0).normal(1, 0.5, 100_000))
    found = logit_interval(expit(1), drawn, 12, 10)
    expected = student.interval(0.95, 10, 1, 0.5 * np.sqrt(12 / 10))
    assert found == pytest.approx(expit(expected), abs=0.002)
    shifted = logit_interval(expit(1.3), drawn, 12, 10)  # draws that are biased widen it
    assert np.ptp(logit(shifted)) > np.ptp(logit(found))


SETS = 300


@pytest.fixture(scope="module")
def coverage():
    """Share of 300 drawn data sets whose intervals hold the truth: of metrics, of differences."""
    rng = np.random.default_rng(0)
    truths = [Scored(simulate(rng, 100_000, a, 2, 0.4)).metrics() for a in (0.85, 0.75)]
    truths = [pd.Series({name: value[0] for name, value in t.items()}) for t in truths]
    alone, paired = [], []
    for index in range(SETS):
        rng = np.random.default_rng([7, index])
        a, b = (simulate(rng, 120, accuracy, 2, 0.4) for accuracy in (0.85, 0.75))
        found, difference = measure(a, 120, index), compare(a, b, 120, index)
        gap = (truths[0] - truths[1])[difference.index]
        alone.append(truths[0][found.index].between(found["low"], found["high"]))
        paired.append(gap.between(difference["low"], difference["high"]))
    return pd.concat(alone, axis=1).mean(axis=1), pd.concat(paired, axis=1).mean(axis=1)


@pytest.mark.parametrize("which", [0, 1])
def test_intervals_hold_the_truth_as_often_as_they_say(coverage, which):
    """Standard error 1.3 points; benchmarks/coverage.py measures it well."""
    assert coverage[which].between(0.91, 0.99).all(), coverage[which]


def test_lines_of_metrics():
    unhappy = np.arange(100) % 2 == 1
    table = make_table(np.where(unhappy, 1, -1) * np.where(np.arange(100) < 10, -1, 1), unhappy)
    measured = measure(table, 100)
    lines = format_metrics(measured, full=True).split("\n")
    assert lines[0] == "metric              value  95 % interval      n"
    assert lines[1].startswith("accuracy            0.900  0.82") and lines[1].endswith("   100")
    assert len({len(line) for line in lines}) == 1 and len(lines) == 1 + len(METRICS)
    first = format_metrics(measured).split("\n")
    names = ["metric", "accuracy", "recall happy", "recall unhappy", "AUROC", "ECE"]
    assert [line[:18].strip() for line in first] == names and set(first) < set(lines)
    one_class = format_metrics(measure(table[unhappy], 20))
    assert "recall happy          -    no interval        0" in one_class
    seeds = format_metrics(measure(pd.concat(make_seeds()), 20)).split("\n")
    assert seeds[0].endswith("  seeds") and " to " in seeds[1][45:]


def test_tables_side_by_side():
    rng = np.random.default_rng(0)
    tables = {"ours": simulate(rng), "majority": make_table([-1.0] * 10, np.arange(10) % 2)}
    found = side_by_side(tables)
    assert list(found) == ["ours", "majority"] and list(found.index) == list(METRICS)
    row = measure(tables["ours"]).loc["AUROC"]
    assert found.loc["AUROC", "ours"] == f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f})"
    assert found.loc["MCC", "majority"] == "not defined"
    few = side_by_side({"few": make_table([1.0, 2.0], [1, 0])})
    assert few.loc["Brier", "few"].endswith(" (no interval)")


def make_paired(value, low, high):
    paired = pd.DataFrame({"value": [value], "low": [low], "high": [high], "n": 6}, ["accuracy"])
    paired.attrs = {"only a right": 3, "only b right": 1, "p": 0.625}
    return paired


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (0.1, 0.02, 0.18, "clear, the first is right more often"),
        (-0.1, -0.18, -0.02, "clear, the second is right more often"),
        (0.1, -0.02, 0.22, "within noise"),
        (0.0, np.nan, np.nan, "within noise"),
        (0.5, np.nan, np.nan, "no interval"),
    ],
)
def test_a_difference_is_clear_or_noise(value, low, high, verdict):
    table = pd.DataFrame({"group": list("aabbcc")})
    assert conclude(make_paired(value, low, high), table) == (
        f"Accuracy {value:+.3f}: {verdict}. McNemar's test: 3 pictures that only the first has "
        "right, 1 that only the second has, p = 0.625; it takes pictures as independent (6 here, "
        "in 3 groups)."
    )
    seeds = make_paired(value, low, high)
    seeds.attrs = {}
    assert conclude(seeds, table) == f"Accuracy {value:+.3f}, mean over seeds: {verdict}."
    assert ("no interval" in format_differences(seeds)) == np.isnan(low)
