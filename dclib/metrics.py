"""Metrics with intervals, from a table of predictions (see dclib.predictions).

"unhappy" is the positive class wherever a metric needs one. Two kinds of interval, both 95 % and
both for other groups of pictures, given the network:

proportions (accuracy, recall, precision)   Wilson 1927, n divided by the design effect of groups
everything else                             a bootstrap that draws groups (Efron 1979) within
                                            strata by class, on a scale where it is symmetric

What the interval does not hold is another training: tables of several seeds give the mean over
seeds, and the smallest and largest seed beside it.
"""

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import binomtest
from scipy.stats import t as student

from dclib.data import CLASSES
from dclib.evaluate import group_interval, wilson_interval
from dclib.predictions import answers, by_seed, check_predictions, probabilities

DRAWS, CHUNK, BINS = 2000, 250, 10
PROPORTIONS = ("accuracy", "recall happy", "recall unhappy", "precision happy", "precision unhappy")
SCALES = {  # the scale of each other metric on which its interval is symmetric, and back
    "balanced accuracy": (logit, expit),
    "F1 happy": (logit, expit),
    "F1 unhappy": (logit, expit),
    "MCC": (np.arctanh, np.tanh),
    "AUROC": (logit, expit),
    "average precision": (logit, expit),
    "log-loss": (np.log, np.exp),
    "Brier": (logit, expit),
}
METRICS = ("accuracy", "balanced accuracy", *PROPORTIONS[1:], "F1 happy", "F1 unhappy", "MCC")
METRICS += ("AUROC", "average precision", "log-loss", "Brier", "ECE")


def measure(table, draws=DRAWS, seed=0, calibrated=True):
    """All metrics of a table: a DataFrame by metric with value, low, high, n, method.

    `value` is the mean over the table's seeds; seed_low and seed_high are its smallest and largest.
    A metric that this table cannot have (AUROC of one class, an interval of one group) is NaN.
    `calibrated`: with the temperature, or of the logits as they are.
    """
    sets = score_seeds(table, calibrated)
    values = values_by_seed(sets)
    drawn = bootstrap(sets, draws, seed)
    rows = {}
    for name in METRICS:
        value, n = values[name].mean(), sets[0].n
        if name in PROPORTIONS:
            n, low, high = proportion_interval(sets, name)
        elif name == "ECE":
            found = np.hstack([s.gaps() for s in sets])[0]
            low, high = ece_interval(found, drawn["gaps"], sets[0].n_groups)
        else:
            low, high = symmetric_interval(value, drawn[name], SCALES[name], sets[0].n_groups)
        method = "Wilson" if name in PROPORTIONS else "bootstrap"
        seeds = {"seed_low": values[name].min(), "seed_high": values[name].max()}
        rows[name] = {"value": value, "low": low, "high": high, "n": n, "method": method} | seeds
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")


def compare(a, b, draws=DRAWS, seed=0):
    """Paired differences a - b of two tables on the same pictures: a DataFrame by metric.

    Columns value, low, high (the same drawn groups for both, 2,000 draws, Student's t). Of tables
    with one seed `attrs` holds McNemar's test (1947), exact: "only a right", "only b right", "p";
    it takes pictures, not groups, as independent. Raises ValueError if the pictures differ.
    """
    sets_a, sets_b = score_seeds(a), score_seeds(b)
    first, second = sets_a[0], sets_b[0]
    if first.ids != second.ids or (first.labels != second.labels).any():
        raise ValueError("The two tables are not of the same pictures; nothing can be paired.")
    values = values_by_seed(sets_a).mean() - values_by_seed(sets_b).mean()
    drawn_a, drawn_b = (bootstrap(sets, draws, seed) for sets in (sets_a, sets_b))
    rows = {}
    for name in METRICS[:-1]:  # not the ECE, whose bins differ
        reach = _reach(drawn_a[name] - drawn_b[name], first.n_groups)
        value = values[name]
        rows[name] = {"value": value, "low": value - reach, "high": value + reach, "n": first.n}
    result = pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")
    if len(sets_a) == len(sets_b) == 1:
        only_a, only_b = (first.right & ~second.right).sum(), (second.right & ~first.right).sum()
        n = int(only_a + only_b)
        p = binomtest(int(only_a), n).pvalue if n else 1.0
        result.attrs = {"only a right": int(only_a), "only b right": int(only_b), "p": float(p)}
    return result


class Scored:
    """The answers to N pictures in the order of their ids, and metrics of weighted copies of them.

    Weights (D, N) say how often each picture was drawn in each of D draws; default once.
    """

    def __init__(self, table, calibrated=True):
        self.ids, self.n = table["id"].tolist(), len(table)
        self.probs = probabilities(table, calibrated)
        self.labels = table["label"].to_numpy() == CLASSES[1]
        self.answers = answers(table, calibrated)
        self.right = self.answers == self.labels
        self.groups = np.unique(table["group"], return_inverse=True)[1]
        self.n_groups = self.groups.max() + 1
        self.order = np.argsort(self.probs, kind="stable")
        steps = np.diff(self.probs[self.order], prepend=-1.0)
        self.starts = np.flatnonzero(steps > 0)  # of equal probabilities, in that order
        edges = np.quantile(self.probs, np.linspace(0, 1, BINS + 1)[1:-1])
        bins = np.searchsorted(np.unique(edges), self.probs, side="right")
        self.in_bin = np.eye(BINS)[bins]  # (N, BINS)

    def metrics(self, weights=None):
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
            margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
            result["MCC"] = (tp * tn - fp * fn) / np.sqrt(margins)
            result |= self._rankings(weights)
        probs = np.clip(self.probs, np.finfo(float).tiny, 1 - np.finfo(float).epsneg)
        surprise = -np.where(self.labels, np.log(probs), np.log1p(-probs))
        result["log-loss"] = weights @ surprise / total
        result["Brier"] = weights @ (self.probs - self.labels) ** 2 / total
        result["ECE"] = np.abs(self.gaps(weights)).sum(1)
        return result

    def _rankings(self, weights):
        """Area under the ROC curve, ties half (Mann and Whitney 1947), and average precision."""
        weights, labels = weights[:, self.order], self.labels[self.order]
        unhappy = np.add.reduceat(weights * labels, self.starts, axis=1)  # by probability, rising
        happy = np.add.reduceat(weights * ~labels, self.starts, axis=1)
        pairs = unhappy.sum(1) * happy.sum(1)
        area = (unhappy * (happy.cumsum(1) - happy / 2)).sum(1) / pairs
        found = unhappy[:, ::-1].cumsum(1)[:, ::-1]  # at this probability and above
        precision = np.nan_to_num(found / (found + happy[:, ::-1].cumsum(1)[:, ::-1]))
        average = (unhappy * precision).sum(1) / unhappy.sum(1)
        return {"AUROC": area, "average precision": np.where(pairs > 0, average, np.nan)}

    def gaps(self, weights=None):
        """Probability less share of unhappy pictures in each bin, times its share: (D, BINS).

        Their absolute sum is the ECE (Naeini et al. 2015) of ten bins with equally many pictures.
        """
        weights = np.ones((1, self.n)) if weights is None else weights
        return (weights * (self.probs - self.labels)) @ self.in_bin / weights.sum(1, keepdims=True)


def score_seeds(table, calibrated=True):
    """A `Scored` for each seed of a table that is in order."""
    return [Scored(part, calibrated) for part in by_seed(check_predictions(table))]


def values_by_seed(sets):
    """Metrics of each seed: a DataFrame (seeds, metrics)."""
    return pd.DataFrame([{name: v[0] for name, v in s.metrics().items()} for s in sets])


def bootstrap(sets, draws=DRAWS, seed=0):
    """{metric: (D,)}, mean over seeds, of groups drawn with replacement; "gaps": (D, S * BINS).

    As many groups are drawn as there are of each kind: with happy pictures only, with unhappy ones
    only, with both.
    """
    results = []
    for weights in draw_groups(sets[0], draws, seed):
        found = [s.metrics(weights) for s in sets]
        result = {name: np.mean([f[name] for f in found], axis=0) for name in METRICS}
        results.append(result | {"gaps": np.hstack([s.gaps(weights) for s in sets])})
    return {name: np.concatenate([r[name] for r in results]) for name in results[0]}


def draw_groups(scored, draws=DRAWS, seed=0):
    """Yield the weights (D, N) of `draws` draws, at most `CHUNK` at a time; see `bootstrap`."""
    rng = np.random.default_rng(seed)
    kinds = [np.bincount(scored.groups, scored.labels == label) > 0 for label in (False, True)]
    kinds = kinds[0] + 2 * kinds[1]
    for start in range(0, draws, CHUNK):  # memory
        times = np.zeros((min(CHUNK, draws - start), scored.n_groups))
        for kind in np.unique(kinds):
            (members,) = np.nonzero(kinds == kind)
            n = len(members)
            times[:, members] = rng.multinomial(n, np.full(n, 1 / n), size=len(times))
        yield times[:, scored.groups]


def symmetric_interval(value, drawn, scale, n_groups):
    """An interval for `value` from draws (D,), symmetric on `scale` (there, back).

    A bootstrap of percentiles is too narrow for skewed metrics of some hundred pictures. At the
    very bound (a perfect AUROC), where nothing varies, Wilson's for n_groups of n_groups.
    """
    there, back = scale
    if n_groups < 2 or not np.isfinite(value) or not np.isfinite(drawn).any():
        return np.nan, np.nan
    least = 0.25 / n_groups**2  # keeps draws at a bound finite
    low, high = (-1 + least if there is np.arctanh else least), 1 - least
    high = np.inf if there is np.log else high
    if not low < value < high:
        share, _ = wilson_interval(n_groups, n_groups)
        return (min(value, 1 - share), 1 - share) if value <= low else (share, max(value, share))
    middle, reach = there(value), _reach(there(np.clip(drawn, low, high)), n_groups)
    return float(back(middle - reach)), float(back(middle + reach))


def _reach(drawn, n_groups):
    """Half the width of a 95 % interval from draws: their standard deviation, Student's t."""
    if n_groups < 2 or np.isfinite(drawn).sum() < 2:
        return np.nan
    sd = np.nanstd(drawn, ddof=1) * np.sqrt(n_groups / (n_groups - 1))
    return student.ppf(0.975, n_groups - 1) * sd


def proportion_interval(sets, name):
    """(n, low, high) of a proportion, mean over seeds; see `group_interval`."""
    counted = np.array([_counted(s, name) for s in sets])  # pictures in the denominator
    right = np.array([s.right for s in sets])
    _, n, low, high = group_interval(right, counted, sets[0].groups)
    if name.startswith("precision") and sets[0].labels.std() == 0:
        return n, np.nan, np.nan
    return n, low, high


def _counted(scored, name):
    """Which pictures are in the denominator of a proportion."""
    kind, _, label = name.partition(" ")
    of = {"accuracy": np.ones(scored.n), "recall": scored.labels, "precision": scored.answers}[kind]
    return (of == (label == CLASSES[1])) if label else of.astype(bool)


def ece_interval(gaps, drawn, n_groups, confidence=0.95):
    """An interval for the ECE, which is too high in any sample, by inverting a test.

    The ECE that would be found if the true gaps were t times `gaps` (K,) is drawn for many t, with
    the noise of the draws (D, K); the interval holds those t for which the ECE that was found is
    among the middle 95 %. Without the noise's own variance added to the gaps it would be too low.
    """
    seeds, noise = len(gaps) / BINS, drawn - drawn.mean(0)
    found = np.abs(gaps).sum()
    if n_groups < 2 or found < 1e-12:
        return np.nan, np.nan
    wide = np.sqrt(np.square(gaps) + noise.var(0))
    along = np.copysign(wide, gaps) * found / wide.sum()
    times = np.linspace(0, 4, 81)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    sums = np.array([np.quantile(np.abs(t * along + noise).sum(1), tails) for t in times])
    low = times[(sums[:, 1] < found).nonzero()[0][-1]] if sums[0, 1] < found else 0.0
    high = times[(sums[:, 0] <= found).nonzero()[0][-1]] if sums[0, 0] <= found else 0.0
    return float(low * found / seeds), float(high * found / seeds)


def format_metrics(measured):
    """Lines of text: metric, value, 95 % interval, n."""
    seeds = (measured["seed_low"] < measured["seed_high"]).any()
    lines = [f"{'metric':18}  value  95 % interval     n" + ("  seeds" if seeds else "")]
    for name, row in measured.iterrows():
        interval = f"{row.low:.3f} to {row.high:.3f}" if np.isfinite(row.low) else "not possible"
        value = f"{row.value:5.3f}" if np.isfinite(row.value) else "  -  "
        spread = f"  {row.seed_low:.3f} to {row.seed_high:.3f}" if seeds else ""
        lines.append(f"{name:18}  {value}  {interval:14} {row.n:5}{spread}")
    return "\n".join(lines)


def side_by_side(tables, draws=DRAWS):
    """{name: table} -> a DataFrame of "value (low to high)": a row a metric, a column a name."""
    columns = {}
    for name, table in tables.items():
        measured = measure(table, draws)
        columns[name] = [
            f"{m.value:.3f} ({m.low:.3f} to {m.high:.3f})" if np.isfinite(m.value) else "-"
            for m in measured.itertuples()
        ]
    return pd.DataFrame(columns, index=pd.Index(METRICS, name="metric"))
