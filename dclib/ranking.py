"""Scores in order, counted for many weighted copies of the pictures at once.

Many draws of a bootstrap need many areas under the ROC curve: here they share one sorting, and one
formula, for the network's probability as for each of its neurons.
"""

import numpy as np


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
