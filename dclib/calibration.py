"""Temperature and threshold, chosen on pictures that nothing is measured on."""

import numpy as np
from scipy.optimize import minimize_scalar

LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits, labels):
    """The temperature with the least log-loss (arXiv 1706.04599): logits (N, 2), labels (N,)."""
    logits, labels = np.asarray(logits, float), np.asarray(labels)
    margins = (logits[:, 1] - logits[:, 0]) * (2 * labels - 1)

    def loss(log_temperature):
        return np.logaddexp(0, -margins / np.exp(log_temperature)).mean()

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def choose_threshold(probs, labels):
    """The threshold with the best balanced accuracy, a tie nearest to 0.5: probs, labels (N,)."""
    probs, labels = np.asarray(probs, float), np.asarray(labels).astype(bool)
    values = np.unique(probs)
    candidates = np.concatenate([[0.5], (values[1:] + values[:-1]) / 2])
    given = probs >= candidates[:, None]
    score = given[:, labels].mean(1) + (~given[:, ~labels]).mean(1)
    best = candidates[np.isclose(score, score.max())]
    return float(best[np.abs(best - 0.5).argmin()])
