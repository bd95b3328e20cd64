"""What may be chosen after training, and whether probabilities can be taken at their word.

`fit_temperature`, `choose_threshold` and `abstain_confidence` choose, on pictures that nothing is
then measured on, and need no pandas; all others measure, with the intervals of `group_interval`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from dclib.data import CLASSES
from dclib.evaluate.intervals import group_interval, wilson_interval

if TYPE_CHECKING:
    import pandas as pd

    from dclib.evaluate.metrics import Scored

TEMPERATURES = (0.05, 20.0)
LEAST = 30  # pictures that must be answered before a share of mistakes is believed


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature with which softmax(logits / temperature) can be taken at its word.

    Logits (N, 2), labels (N,) 0 or 1. Of the temperatures between 0.05 and 20 it has the least
    log-loss (Guo et al. 2017, arXiv 1706.04599), to which a standard normal prior adds
    log(temperature)**2 / 2. With hundreds of pictures the prior hardly counts; without it, a few
    that are all right would be taken for proof that the network never errs.
    """
    values, unhappy = _both_classes(logits, labels)
    margins = np.where(unhappy, 1, -1) * (values[:, 1] - values[:, 0])  # (N,), of the right class

    def cost(log_temperature: float) -> float:
        losses = np.logaddexp(0, -margins / np.exp(log_temperature))
        return losses.sum() + log_temperature**2 / 2

    bounds = np.log(TEMPERATURES)
    best = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-8}).x
    # 0 is temperature 1: the log-loss of these pictures never rises
    return float(np.exp(min((0.0, *bounds, best), key=cost)))


def choose_threshold(probs: ArrayLike, labels: ArrayLike) -> float:
    """The threshold with the largest balanced accuracy of the answers probs >= threshold.

    Probabilities (N,) of the second class, labels (N,) 0 or 1. It lies half way between
    neighbouring probabilities (0 and 1 are neighbours too), of equally good ones nearest to 0.5.
    """
    values, unhappy = _both_classes(probs, labels)
    edges = np.unique([0.0, 1.0, *values])
    thresholds = (edges[:-1] + edges[1:]) / 2
    positive, negative = np.sort(values[unhappy]), np.sort(values[~unhappy])
    hits = len(positive) - np.searchsorted(positive, thresholds)
    spared = np.searchsorted(negative, thresholds)
    score = hits * len(negative) + spared * len(positive)  # whole numbers: ties are ties
    best = thresholds[score == score.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def abstain_confidence(
    probs: ArrayLike, labels: ArrayLike, risk: float = 0.05, threshold: float = 0.5
) -> float | None:
    """The smallest confidence from which on at most a share `risk` of the answers is wrong.

    Probabilities (N,) of the second class, labels (N,) 0 or 1; confidence is max(p, 1 - p). None
    if no confidence has that; with `risk=0.05`, none can with fewer than 52 pictures.

    Held below `risk` is the upper end of the share's one-sided 95 % Wilson interval, for the
    confidence is the luckiest of many: by the share alone, simulated networks of 84 to 93 %
    accuracy broke the promise on new pictures in 45 to 81 % of draws (N = 60 to 1,000), by the
    upper end in at most 5 %. Pictures count as independent.
    """
    if not 0 < risk < 1:
        raise ValueError(f"risk is a share between 0 and 1, such as 0.05, not {risk}.")
    values = np.asarray(probs, float)
    sure, wrong = confidences(values), (values >= threshold) != np.asarray(labels).astype(bool)
    n, allowed = _answered(sure), []
    order = np.argsort(-sure, kind="stable")
    errors = np.cumsum(wrong[order])
    for k in np.unique(n):
        if k >= LEAST and wilson_interval(errors[k - 1], k, 0.9)[1] <= risk:
            allowed.append(float(sure[order[k - 1]]))
    return min(allowed, default=None)


def confidences(probs: np.ndarray) -> np.ndarray:
    """Probability of the more probable class, of probabilities (N,) of one: (N,) in [0.5, 1]."""
    return np.maximum(probs, 1 - probs).round(12)  # p and 1 - p are equally sure


def risk_coverage(table: "pd.DataFrame") -> "pd.DataFrame":
    """Share of wrong answers among the surest: a DataFrame, one row a step of coverage.

    Columns confidence (of the least sure answer), coverage, n (answered), risk, low, high. Answers
    that are equally sure come together. Of several seeds, their means where each answers at least
    1, 2, ... N pictures (El-Yaniv and Wiener 2010).
    """
    import pandas as pd

    sets, sures = _score(table)
    steps = np.array([np.sort(sure)[::-1] for sure in sures])  # the surest first
    rows = [_selective(sets, sures, step[:, None]) for step in np.unique(steps, axis=1).T[::-1]]
    return pd.DataFrame(rows)


def risk_at(table: "pd.DataFrame", confidence: float) -> dict[str, float]:
    """The row of `risk_coverage` for answers at least so sure: a dict; risk NaN if none is."""
    return _selective(*_score(table), confidence)


def _score(table: "pd.DataFrame") -> tuple[list["Scored"], np.ndarray]:
    """A `Scored` a seed, and their confidences (seeds, N)."""
    from dclib.evaluate.metrics import score_seeds

    sets = score_seeds(table)
    return sets, np.array([confidences(s.probs) for s in sets])


def _selective(
    sets: Sequence["Scored"], sures: np.ndarray, least: float | np.ndarray
) -> dict[str, float]:
    """Risk where confidences (seeds, N) reach `least`, one for all seeds or (seeds, 1)."""
    answered = sures >= least
    wrong = np.array([~s.right for s in sets])
    risk, n, low, high = group_interval(wrong, answered, sets[0].groups)
    row = {"confidence": float(np.mean(least)), "coverage": float(answered.mean()), "n": n}
    return row | {"risk": risk, "low": low, "high": high}


def risk_area(table: "pd.DataFrame") -> float:
    """Area under the risk-coverage curve, mean over seeds: 0 is best.

    Mean risk where the surest 1, 2, ... N pictures are answered; Geifman et al., arXiv 1805.08206.
    """
    areas = []
    for scored, sure in zip(*_score(table), strict=True):
        n, order = _answered(sure), np.argsort(-sure, kind="stable")
        areas.append((np.cumsum(~scored.right[order])[n - 1] / n).mean())
    return float(np.mean(areas))


def _answered(sure: np.ndarray) -> np.ndarray:
    """How many are answered with the 1, 2, ... N surest, where equally sure ones come together."""
    return np.searchsorted(np.sort(-sure), np.sort(-sure), side="right")


def reliability(table: "pd.DataFrame", calibrated: bool = True) -> "pd.DataFrame":
    """Mean probability of "unhappy" and share of unhappy pictures in the ten bins of the ECE.

    A DataFrame with bin, prob, share, n, low, high; means over seeds. Equal probabilities stay
    together, so there can be fewer bins.
    """
    import pandas as pd

    from dclib.evaluate.metrics import score_seeds

    sets = score_seeds(table, calibrated)
    labels, probs = (np.array([getattr(s, name) for s in sets]) for name in ("labels", "probs"))
    places = np.array([s.in_bin.argmax(1) for s in sets])  # (seeds, N)
    rows = []
    for place in np.unique(places):
        has = (places == place).any(1)  # not each seed fills each bin
        inside = places[has] == place
        share, n, low, high = group_interval(labels[has], inside, sets[0].groups)
        prob = float(np.mean([p[i].mean() for p, i in zip(probs[has], inside)]))
        row = {"bin": int(place), "prob": prob, "share": share, "n": n}
        rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def predictive_values(measured: "pd.DataFrame", prevalence: ArrayLike) -> "pd.DataFrame":
    """How often each answer would be right where a share `prevalence` of pictures is unhappy.

    By Bayes' rule from the recalls of `metrics.measure`. A DataFrame with prevalence, ppv (of the
    answer "unhappy") and npv (of "happy"), each with _low and _high: both recalls at the low or
    high ends of their intervals, which is a bit too wide.
    """
    import pandas as pd

    share = np.atleast_1d(np.asarray(prevalence, float))
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError("A prevalence is a share between 0 and 1, such as 0.1.")
    result = {"prevalence": share}
    for end, name in (("", "value"), ("_low", "low"), ("_high", "high")):
        happy, unhappy = (measured.loc[f"recall {label}", name] for label in CLASSES)
        hits, alarms = unhappy * share, (1 - happy) * (1 - share)
        spared, missed = happy * (1 - share), (1 - unhappy) * share
        with np.errstate(invalid="ignore"):  # 0 / 0: no such answer
            result[f"ppv{end}"] = hits / (hits + alarms)
            result[f"npv{end}"] = spared / (spared + missed)
    return pd.DataFrame(result)


def _both_classes(answers: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Arrays of numbers and of bool, or ValueError."""
    values, classes = np.asarray(answers, float), np.asarray(labels)
    if len(values) != len(classes) or not np.isfinite(values).all():
        raise ValueError("A choice needs one finite answer for each label; did training diverge?")
    if (kinds := set(classes.tolist())) != {0, 1}:
        raise ValueError(
            f"A choice needs pictures of both classes, labelled 0 and 1; of {len(classes)} "
            f"pictures the labels are {sorted(kinds) or 'none'}."
        )
    return values, classes.astype(bool)
