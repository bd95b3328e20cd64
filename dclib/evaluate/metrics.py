"""Metrics with intervals, from a table of predictions; "unhappy" is the positive class.

MCC                  correlation of answer and class (Matthews 1975)
AUROC                how often an unhappy picture gets the higher probability of a random pair
average precision    mean precision over the unhappy pictures, each as the last that is answered so
log-loss, Brier      mean of -log(probability of the right class), of (probability - class)^2
ECE                  mean |probability - share of unhappy| of ten bins (Naeini et al. 2015)

Intervals are 95 % ones for other groups of pictures, not for another training.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

from dclib.data import CLASSES, strata
from dclib.evaluate.intervals import (
    NOTHING,
    Ranking,
    area_under_roc,
    difference_interval,
    draw_times,
    ece_interval,
    effective_interval,
    freedom,
    group_interval,
    logit_interval,
    mean_interval,
)
from dclib.evaluate.predictions import answers, by_seed, check_predictions, margins, probabilities
from dclib.files import extra

with extra("evaluate"):
    import pandas as pd

DRAWS, CHUNK, BINS = 2000, 250, 10
PROPORTIONS = ("accuracy", "recall happy", "recall unhappy", "precision happy", "precision unhappy")
RATES = {"balanced accuracy": 0, "F1 happy": 0, "F1 unhappy": 0, "MCC": -1}  # least possible
METRICS = ("accuracy", "balanced accuracy", *PROPORTIONS[1:], *list(RATES)[1:])
METRICS += ("AUROC", "average precision", "log-loss", "Brier", "ECE")
FIRST = ["accuracy", "recall happy", "recall unhappy", "AUROC", "ECE"]  # to be read before the rest
METHODS = dict.fromkeys(METRICS, "bootstrap") | dict.fromkeys(PROPORTIONS, "Wilson")
METHODS["log-loss"] = "Hall"


def measure(
    table: pd.DataFrame, draws: int = DRAWS, seed: int = 0, calibrated: bool = True
) -> pd.DataFrame:
    """All metrics of a table: a DataFrame by metric with value, low, high, n, method.

    `value` is the mean over the table's seeds; seed_low and seed_high are its smallest and largest.
    NaN are metrics that this table cannot have (AUROC of one class), and intervals where fewer than
    two groups hold a class. `calibrated`: with the temperature.
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
        rows[name] = {"value": value, "low": low, "high": high, "n": n, "method": METHODS[name]}
        rows[name] |= {"seed_low": values[name].min(), "seed_high": values[name].max()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")


def compare(a: pd.DataFrame, b: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Paired differences a - b of two tables on the same pictures: a DataFrame by metric.

    All but the ECE, whose bins differ; with value, low, high, n. Of tables with one seed each,
    `attrs` holds McNemar's exact test (1947): "only a right", "only b right", "p"; it takes
    pictures, not groups, as independent.
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
        only_a = int((first.right & ~second.right).sum())
        only_b = int((second.right & ~first.right).sum())
        p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
        result.attrs = {"only a right": only_a, "only b right": only_b, "p": p}
    return result


def judge_difference(row: pd.Series) -> str:
    """Whether a row of `compare` is "clear" of 0, "within noise", or has "no interval"."""
    if row.value and not np.isfinite(row.low):
        return "no interval"
    return "clear" if row.low > 0 or row.high < 0 else "within noise"


class Scored:
    """The answers to N pictures in the order of the table, and metrics of D weighted draws of them.

    `labels` and `answers` (N,) are True for unhappy. Weights (D, N) say how often each picture was
    drawn, default once.
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
        """Probability less share of unhappy pictures in each bin, times its share: (D, BINS)."""
        weights = np.ones((1, self.n)) if weights is None else weights
        return (weights * (self.probs - self.labels)) @ self.in_bin / weights.sum(1, keepdims=True)

    def doubts(self) -> np.ndarray:
        """Variance of a gap by one more picture in each bin, as the network sees it: (BINS,)."""
        doubt = np.maximum(self.probs * (1 - self.probs), 1 / self.n)
        return doubt @ self.in_bin / np.maximum(self.in_bin.sum(0), 1) / self.n**2


def score_seeds(table: pd.DataFrame, calibrated: bool = True) -> list[Scored]:
    """A `Scored` for each seed of a table."""
    return [Scored(part, calibrated) for part in by_seed(check_predictions(table))]


def values_by_seed(sets: Sequence[Scored]) -> pd.DataFrame:
    """Metrics of each seed: a DataFrame (seeds, metrics)."""
    return pd.DataFrame([{name: v[0] for name, v in s.metrics().items()} for s in sets])


def bootstrap(sets: Sequence[Scored], draws: int = DRAWS, seed: int = 0) -> dict[str, np.ndarray]:
    """{metric: (D,)}, mean over seeds, of groups drawn as wholes (Efron 1979) within strata.

    "noise" (D, S * BINS) is how `gaps` vary, with two more pictures in each bin that are as
    uncertain as the network says (after Agresti and Coull 1998): a bin in which all answers happen
    to be right is not without doubt.
    """
    results = []
    for weights in draw_groups(sets[0], draws, seed):
        each = [s.metrics(weights) for s in sets]
        result = {name: np.mean([m[name] for m in each], axis=0) for name in METRICS}
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
    counted, right = np.array([_counted(s, name) for s in sets]), np.array([s.right for s in sets])
    _, n, low, high = group_interval(right, counted, first.groups, first.kinds)
    one_class = first.labels.all() or not first.labels.any()
    return (n, *NOTHING) if name.startswith("precision") and one_class else (n, low, high)


def _counted(scored: Scored, name: str) -> np.ndarray:
    """Which pictures are in the denominator of a proportion."""
    if name == "accuracy":
        return np.ones(scored.n, bool)
    kind, label = name.split()
    return (scored.labels if kind == "recall" else scored.answers) == (label == CLASSES[1])


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


def format_metrics(measured: pd.DataFrame, full: bool = False) -> str:
    """Lines of text for the metrics to be read first, or all if `full`; seeds with their range."""
    measured = measured if full else measured.loc[FIRST]
    seeds = (measured["seed_low"] < measured["seed_high"]).any()
    head = f"{'metric':18}  value  {'95 % interval':14} {'n':>5}"
    lines = [head + ("  seeds" if seeds else "")]
    for name, row in measured.iterrows():
        value = f"{row.value:5.3f}" if np.isfinite(row.value) else "  -  "
        spread = f"  {row.seed_low:.3f} to {row.seed_high:.3f}" if seeds else ""
        lines.append(f"{name:18}  {value}  {tell_interval(row):14} {row.n:5}{spread}")
    return "\n".join(lines)


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A DataFrame of "value (low to high)": a row a metric, a column a name."""
    return pd.DataFrame({k: measure(t).apply(tell_value, axis=1) for k, t in tables.items()})


def tell_value(row: Mapping[str, float] | pd.Series, form: str = ".3f") -> str:
    """A row as "value (low to high)", or "not defined" if it has no value."""
    if not np.isfinite(row["value"]):
        return "not defined"
    return f"{row['value']:{form}} ({tell_interval(row, form)})"


def tell_interval(row: Mapping[str, float] | pd.Series, form: str = ".3f") -> str:
    """A row as "low to high", or "no interval" if it has none."""
    if not np.isfinite(row["low"]):
        return "no interval"
    return f"{row['low']:{form}} to {row['high']:{form}}"


def format_differences(paired: pd.DataFrame) -> str:
    """Lines of text from `compare`: metric, difference, 95 % interval, n."""
    lines = [f"{'difference':18}   value  95 % interval        n"]
    for name, row in paired.iterrows():
        interval = tell_interval(row, "+.3f")
        lines.append(f"{name:18}  {row.value:+.3f}  {interval:16}  {row.n:5.0f}")
    return "\n".join(lines)


def conclude(paired: pd.DataFrame, table: pd.DataFrame) -> str:
    """In words: is one of two networks more often right? Of `compare`, and the first's table."""
    row, test = paired.loc["accuracy"], paired.attrs
    verdict = judge_difference(row)
    if verdict == "clear":
        verdict += f", the {'first' if row.value > 0 else 'second'} is right more often"
    if not test:
        return f"Accuracy {row.value:+.3f}, mean over seeds: {verdict}."
    return (
        f"Accuracy {row.value:+.3f}: {verdict}. McNemar's test: {test['only a right']} pictures "
        f"that only the first has right, {test['only b right']} that only the second has, p = "
        f"{test['p']:.3g}; it takes pictures as independent ({len(table)} here, in "
        f"{table['group'].nunique()} groups)."
    )
