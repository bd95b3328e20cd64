"""Metrics with intervals, from a table of predictions (see predictions.py).

"unhappy" is the positive class wherever a metric needs one.

accuracy             share of right answers
recall, precision    share of right answers among the pictures of a class, or the answers of a class
balanced accuracy    mean of both recalls: accuracy if the classes were equally common
F1                   harmonic mean of recall and precision
MCC                  correlation of answer and class (Matthews 1975)
AUROC                how often an unhappy picture gets the higher probability of a random pair
average precision    mean precision over the unhappy pictures, each as the last that is answered so
log-loss, Brier      mean of -log(probability of the right class), of (probability - class)^2
ECE                  mean |probability - share of unhappy| of ten bins (Naeini et al. 2015)

Intervals are 95 % ones for other groups of pictures, given the network. They do not hold another
training: tables of several seeds give the mean over seeds, with the smallest and largest beside it.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

from dclib.data import CLASSES, strata
from dclib.evaluate.intervals import (
    NOTHING,
    difference_interval,
    draw_times,
    ece_interval,
    effective_interval,
    freedom,
    group_interval,
    logit_interval,
    mean_interval,
)
from dclib.evaluate.predictions import (
    answers,
    by_seed,
    check_predictions,
    margins,
    probabilities,
)
from dclib.files import extra

with extra("evaluate"):
    import pandas as pd

DRAWS, CHUNK, BINS = 2000, 250, 10
PROPORTIONS = ("accuracy", "recall happy", "recall unhappy", "precision happy", "precision unhappy")
RATES = {"balanced accuracy": 0, "F1 happy": 0, "F1 unhappy": 0, "MCC": -1}  # least possible
METRICS = ("accuracy", "balanced accuracy", *PROPORTIONS[1:], *list(RATES)[1:])
METRICS += ("AUROC", "average precision", "log-loss", "Brier", "ECE")
METHODS = dict.fromkeys(METRICS, "bootstrap") | dict.fromkeys(PROPORTIONS, "Wilson")
METHODS["log-loss"] = "Hall"


def measure(
    table: pd.DataFrame, draws: int = DRAWS, seed: int = 0, calibrated: bool = True
) -> pd.DataFrame:
    """All metrics of a table: a DataFrame by metric with value, low, high, n, method.

    `value` is the mean over the table's seeds; seed_low and seed_high are its smallest and largest.
    A metric that this table cannot have (AUROC of one class) is NaN, and so are intervals of which
    fewer than two groups hold a class. `calibrated`: with the temperature, or without. Raises
    ValueError for a table that is not in order.
    """
    sets = score_seeds(table, calibrated)
    values, drawn = values_by_seed(sets), bootstrap(sets, draws, seed)
    rows = {}
    for name in METRICS:
        value, n = values[name].mean(skipna=False), sets[0].n
        if name in PROPORTIONS:
            n, low, high = proportion_interval(sets, name)
        else:
            low, high = _interval(sets, name, value, drawn)
        ends = {"seed_low": values[name].min(), "seed_high": values[name].max()}
        rows[name] = {"value": value, "low": low, "high": high, "n": n, "method": METHODS[name]}
        rows[name] |= ends
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")


def compare(a: pd.DataFrame, b: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Paired differences a - b of two tables on the same pictures: a DataFrame by metric.

    All metrics but the ECE, whose bins differ. Columns value, low, high, n (all pictures); from the
    same drawn groups for both. Of tables with one seed each, `attrs` holds McNemar's test (1947),
    exact: "only a right", "only b right", "p"; it takes pictures, not groups, as independent.
    Raises ValueError if the pictures, labels or groups differ, or a table is not in order.
    """
    sets_a, sets_b = score_seeds(a), score_seeds(b)
    first, second = sets_a[0], sets_b[0]
    same = first.ids == second.ids and (first.labels == second.labels).all()
    if not same or (first.groups != second.groups).any():
        raise ValueError(
            "The two tables are not of the same pictures in the same groups; nothing can be paired."
        )
    values = values_by_seed(sets_a).mean(skipna=False) - values_by_seed(sets_b).mean(skipna=False)
    drawn_a, drawn_b = (bootstrap(sets, draws, seed) for sets in (sets_a, sets_b))
    rows, free = {}, freedom(first.kinds)
    for name in METRICS[:-1]:  # all but the ECE
        value, (low, high) = values[name], NOTHING
        drawn = drawn_a[name] - drawn_b[name]
        drawn = drawn[np.isfinite(drawn)]
        if first.fewest > 1 and free >= 1 and np.isfinite(value) and len(drawn) > 1:
            low, high = difference_interval(value, drawn, first.n_groups, free)
        rows[name] = {"value": value, "low": low, "high": high, "n": first.n}
    result = pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")
    if len(sets_a) == len(sets_b) == 1:
        only_a, only_b = (first.right & ~second.right).sum(), (second.right & ~first.right).sum()
        n = int(only_a + only_b)
        p = binomtest(int(only_a), n).pvalue if n else 1.0
        result.attrs = {"only a right": int(only_a), "only b right": int(only_b), "p": float(p)}
    return result


def judge_difference(row: pd.Series) -> str:
    """Whether a row of `compare` is "clear" of 0, "within noise", or has "no interval"."""
    if row.value and not np.isfinite(row.low):
        return "no interval"
    return "clear" if row.low > 0 or row.high < 0 else "within noise"


class Scored:
    """The answers to N pictures in the order of their ids, and metrics of weighted copies of them.

    `labels` and `answers` (N,) are True for unhappy, `right` (N,) where they agree; `groups` (N,)
    are numbers from 0. Weights (D, N) say how often each picture was drawn in each of D draws;
    default once.
    """

    def __init__(self, table: pd.DataFrame, calibrated: bool = True) -> None:
        self.ids, self.n = table["id"].tolist(), len(table)
        self.margins, self.probs = margins(table, calibrated), probabilities(table, calibrated)
        self.labels = table["label"].to_numpy() == CLASSES[1]
        self.answers = answers(table, calibrated)
        self.right = self.answers == self.labels
        self.groups = np.unique(table["group"], return_inverse=True)[1]
        self.n_groups = self.groups.max() + 1
        self.kinds = strata(self.groups, self.labels)  # (G,)
        having = [len(np.unique(self.groups[self.labels == label])) for label in (False, True)]
        self.fewest = min(n for n in having if n)  # groups that hold a class
        self.ranking = Ranking(self.margins)
        edges = np.sort(self.probs)[np.arange(1, BINS) * self.n // BINS]  # least of each bin
        bins = np.searchsorted(np.unique(edges), self.probs, side="right")
        self.in_bin = np.eye(BINS)[bins]  # (N, BINS)

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """{metric: (D,)}; NaN where it is not defined."""
        weights = np.ones((1, self.n)) if weights is None else weights
        total = weights.sum(1)
        truths, given = (self.labels, ~self.labels), (self.answers, ~self.answers)
        (tp, fn), (fp, tn) = ([weights @ (t & g) for g in given] for t in truths)
        with np.errstate(invalid="ignore", divide="ignore"):
            result = {"accuracy": (tp + tn) / total}
            both = np.where((tp + fn) * (tn + fp) > 0, 1.0, np.nan)  # else they say nothing
            for name, hit, missed, wrong in (("happy", tn, fp, fn), ("unhappy", tp, fn, fp)):
                result[f"recall {name}"] = hit / (hit + missed)
                result[f"precision {name}"] = both * hit / (hit + wrong)
                result[f"F1 {name}"] = both * 2 * hit / (2 * hit + missed + wrong)
            result["balanced accuracy"] = (result["recall happy"] + result["recall unhappy"]) / 2
            totals = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
            result["MCC"] = (tp * tn - fp * fn) / np.sqrt(totals)
            result |= self._rankings(weights)
        result["log-loss"] = weights @ self.surprises() / total
        result["Brier"] = weights @ np.square(self.probs - self.labels) / total
        result["ECE"] = np.abs(self.gaps(weights)).sum(1)
        return result

    def surprises(self) -> np.ndarray:
        """-log(probability of the right class): (N,)."""
        return np.logaddexp(0, np.where(self.labels, -self.margins, self.margins))

    def _rankings(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Area under the ROC curve, and average precision."""
        unhappy, happy = self.ranking.count(self.labels, weights)
        area = area_under_roc(unhappy, happy)
        found = unhappy[:, ::-1].cumsum(1)[:, ::-1]  # at this probability and above
        precision = np.nan_to_num(found / (found + happy[:, ::-1].cumsum(1)[:, ::-1]))
        average = (unhappy * precision).sum(1) / unhappy.sum(1)
        return {"AUROC": area, "average precision": np.where(np.isnan(area), np.nan, average)}

    def gaps(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Probability less share of unhappy pictures in each bin, times its share: (D, BINS).

        Their absolute sum is the ECE (Naeini et al. 2015) of ten bins with equally many pictures.
        """
        weights = np.ones((1, self.n)) if weights is None else weights
        return (weights * (self.probs - self.labels)) @ self.in_bin / weights.sum(1, keepdims=True)

    def doubts(self) -> np.ndarray:
        """Variance of a gap by one more picture in each bin, as the network sees it: (BINS,)."""
        doubt = np.maximum(self.probs * (1 - self.probs), 1 / self.n)
        return doubt @ self.in_bin / np.maximum(self.in_bin.sum(0), 1) / self.n**2


def score_seeds(table: pd.DataFrame, calibrated: bool = True) -> list[Scored]:
    """A `Scored` for each seed of a table. Raises ValueError if it is not in order."""
    return [Scored(part, calibrated) for part in by_seed(check_predictions(table))]


def values_by_seed(sets: Sequence[Scored]) -> pd.DataFrame:
    """Metrics of each seed: a DataFrame (seeds, metrics)."""
    return pd.DataFrame([{name: v[0] for name, v in s.metrics().items()} for s in sets])


def bootstrap(sets: Sequence[Scored], draws: int = DRAWS, seed: int = 0) -> dict[str, np.ndarray]:
    """{metric: (D,)}, mean over seeds, of groups drawn as wholes (Efron 1979) within strata.

    "noise": (D, S * BINS) is how `gaps` vary, with two more pictures in each bin that are as
    uncertain as the network says (in the spirit of Agresti and Coull 1998): a bin in which all
    answers happen to be right is not without doubt.
    """
    results = []
    for weights in draw_groups(sets[0], draws, seed):
        found = [s.metrics(weights) for s in sets]
        result = {name: np.mean([f[name] for f in found], axis=0) for name in METRICS}
        results.append(result | {"noise": np.hstack([s.gaps(weights) for s in sets])})
    drawn = {name: np.concatenate([r[name] for r in results]) for name in results[0]}
    noise, more = drawn["noise"], np.sqrt(2 * np.hstack([s.doubts() for s in sets]))
    drawn["noise"] = noise - noise.mean(0)
    drawn["noise"] += more * np.random.default_rng(seed).standard_normal(noise.shape)
    return drawn


def draw_groups(scored: Scored, draws: int = DRAWS, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the weights (D, N) of `draws` draws of groups, at most `CHUNK` at a time (memory)."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, CHUNK):
        yield draw_times(scored.kinds, min(CHUNK, draws - start), rng)[:, scored.groups]


def proportion_interval(sets: Sequence[Scored], name: str) -> tuple[int, float, float]:
    """(n, low, high) of one of `PROPORTIONS`, mean over seeds; see `group_interval`."""
    first = sets[0]
    counted = np.array([_counted(s, name) for s in sets])  # pictures in the denominator
    right = np.array([s.right for s in sets])
    _, n, low, high = group_interval(right, counted, first.groups, first.kinds)
    if name.startswith("precision") and first.labels.std() == 0:
        return n, *NOTHING
    return n, low, high


def _counted(scored: Scored, name: str) -> np.ndarray:
    """Which pictures are in the denominator of a proportion."""
    kind, _, label = name.partition(" ")
    of = {"accuracy": np.ones(scored.n), "recall": scored.labels, "precision": scored.answers}[kind]
    return (of == (label == CLASSES[1])) if label else of.astype(bool)


def _interval(
    sets: Sequence[Scored], name: str, value: float, drawn: Mapping[str, np.ndarray]
) -> tuple[float, float]:
    """(low, high) of a metric that is no proportion."""
    first, free = sets[0], freedom(sets[0].kinds)
    if first.fewest < 2 or free < 1 or not np.isfinite(value):
        return NOTHING
    if name == "log-loss":
        surprises = np.mean([s.surprises() for s in sets], axis=0)
        return mean_interval(surprises, first.groups, first.kinds)
    if name == "ECE":
        gaps = np.hstack([s.gaps() for s in sets])[0]
        low, high = ece_interval(gaps, drawn["noise"])
        return low / len(sets), high / len(sets)
    if name in RATES:
        least, width = RATES[name], 1 - RATES[name]
        variance = np.nanvar(drawn[name] / width) * first.n_groups / free
        share = (value - least) / width
        low, high = effective_interval(share, variance, first.n, first.n_groups, free)
        return least + width * low, least + width * high
    return logit_interval(value, drawn[name], first.n_groups, free)


def format_metrics(measured: pd.DataFrame) -> str:
    """Lines of text: metric, value, 95 % interval, n; the range over seeds where there is one."""
    seeds = (measured["seed_low"] < measured["seed_high"]).any()
    head = f"{'metric':18}  value  {'95 % interval':14} {'n':>5}"
    lines = [head + ("  seeds" if seeds else "")]
    for name, row in measured.iterrows():
        value = f"{row.value:5.3f}" if np.isfinite(row.value) else "  -  "
        spread = f"  {row.seed_low:.3f} to {row.seed_high:.3f}" if seeds else ""
        lines.append(f"{name:18}  {value}  {tell_interval(row):14} {row.n:5}{spread}")
    return "\n".join(lines)


def side_by_side(tables: Mapping[str, pd.DataFrame], draws: int = DRAWS) -> pd.DataFrame:
    """{name: table} -> a DataFrame of "value (low to high)": a row a metric, a column a name."""
    told = {name: measure(table, draws).apply(tell_value, axis=1) for name, table in tables.items()}
    return pd.DataFrame(told)


def tell_value(row: Mapping[str, float] | pd.Series, form: str = ".3f") -> str:
    """A row with these three as "value (low to high)", or "not defined" if it has no value."""
    if not np.isfinite(row["value"]):
        return "not defined"
    return f"{row['value']:{form}} ({tell_interval(row, form)})"


def tell_interval(row: Mapping[str, float] | pd.Series, form: str = ".3f") -> str:
    """A row with these two as "low to high", or "no interval" if it has none."""
    if not np.isfinite(row["low"]):
        return "no interval"
    return f"{row['low']:{form}} to {row['high']:{form}}"


class Ranking:
    """`scores` (N,) in rising order: `order` (N,), and where each of S different ones `starts`."""

    def __init__(self, scores: np.ndarray) -> None:
        self.order = np.argsort(scores, kind="stable")
        self.starts = np.flatnonzero(np.diff(scores[self.order], prepend=-np.inf) > 0)

    def count(self, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of the unhappy and of the happy pictures with each score, rising: two (D, S).

        `labels` (N,) are True for unhappy; `weights` (D, N) say how often each picture was drawn.
        """
        weights, labels = weights[:, self.order], labels[self.order]
        unhappy = np.add.reduceat(weights * labels, self.starts, axis=1)
        return unhappy, np.add.reduceat(weights * ~labels, self.starts, axis=1)


def area_under_roc(unhappy: np.ndarray, happy: np.ndarray) -> np.ndarray:
    """How often the unhappy one of a random pair scores higher: (D,), of `Ranking.count`.

    Ties count half (Mann and Whitney 1947). Draws without one of the classes divide by zero.
    """
    pairs = unhappy.sum(1) * happy.sum(1)
    return (unhappy * (happy.cumsum(1) - happy / 2)).sum(1) / pairs


def auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`area_under_roc` of scores (N,) straight away: (D,)."""
    return area_under_roc(*Ranking(scores).count(labels, weights))


def format_differences(paired: pd.DataFrame) -> str:
    """Lines of text from `metrics.compare`: metric, difference, 95 % interval, n."""
    lines = [f"{'difference':18}   value  95 % interval        n"]
    for name, row in paired.iterrows():
        interval = tell_interval(row, "+.3f")
        lines.append(f"{name:18}  {row.value:+.3f}  {interval:16}  {row.n:5.0f}")
    return "\n".join(lines)


def conclude(paired: pd.DataFrame, table: pd.DataFrame) -> str:
    """Whether one of two networks is more often right: a clear difference, or noise.

    `paired` is from `metrics.compare`, `table` that of the first network. With McNemar's test
    where `compare` has it, which is for one training each.
    """
    row, test = paired.loc["accuracy"], paired.attrs
    better = "the first is right more often" if row.value > 0 else "the second is right more often"
    verdict = judge_difference(row)
    verdict += f", {better}" if verdict == "clear" else ""
    if not test:
        return f"Accuracy {row.value:+.3f}, mean over seeds: {verdict}."
    return (
        f"Accuracy {row.value:+.3f}: {verdict}. McNemar's "
        f"test: {test['only a right']} pictures that only the first has right, "
        f"{test['only b right']} that only the second has, p = {test['p']:.3g}; it takes pictures "
        f"as independent ({len(table)} here, in {table['group'].nunique()} groups)."
    )
