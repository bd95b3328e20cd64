"""Parts of a folder of couples: kept, chosen by lot, in folds; lots and folds take whole groups."""

from collections.abc import Iterable
from copy import copy
from typing import TypeVar

import numpy as np

from dclib.data import CLASSES, CoupleFolder
from dclib.extras import extra
from dclib.intervals import strata

with extra("evaluate"):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

FOLDS = 5
Folder = TypeVar("Folder", bound=CoupleFolder)


def keep(dataset: Folder, indices: Iterable[int]) -> Folder:
    """Another `CoupleFolder` with the pictures of some indices (M,), in their order."""
    part = copy(dataset)
    part.samples = [dataset.samples[index] for index in indices]
    return part


def choose_pictures(dataset: CoupleFolder, n: int | None, seed: int = 0) -> list[int]:
    """Indices of about n pictures of a `CoupleFolder`: whole groups, by lot, each class its share.

    All if n is None. Raises ValueError for fewer than two.
    """
    if n is not None and n < 2:
        raise ValueError(f"n must be at least 2 pictures, or None for all, not {n}.")
    if n is None or n >= len(dataset):
        return list(range(len(dataset)))
    groups = np.unique(dataset.groups, return_inverse=True)[1]
    kinds = strata(groups, dataset.labels.numpy() == 1)
    rng, places = np.random.default_rng(seed), np.empty(len(kinds))
    for kind in np.unique(kinds):
        members = rng.permutation(np.flatnonzero(kinds == kind))
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.argsort(places, kind="stable")
    sizes = np.bincount(groups)[order]
    kept = order[np.cumsum(sizes) - sizes < n]
    return np.flatnonzero(np.isin(groups, kept)).tolist()


def grouped_folds(
    labels: np.ndarray, groups: np.ndarray, n: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rest, fold), indices, of n folds that hold whole groups and even shares of the classes."""
    # Groups are shuffled here: with shuffle=True scikit-learn before 1.8 loses the strata.
    names = rng.permutation(groups.max() + 1)[groups]
    return list(StratifiedGroupKFold(n).split(labels, labels, names))


def fit_folds(
    columns: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    folds: int = FOLDS,
    seed: int = 0,
    inverse_penalty: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of "unhappy" by logistic regressions that never saw the row's group.

    Args:
        columns: (N, columns), standardised here.
        labels: (N,) 0 or 1.
        groups: (N,) numbers from 0.
        inverse_penalty: C of scikit-learn; the smaller, the flatter the fit.

    Returns them (N,) and each row's fold (N,). Raises ValueError if a class has fewer groups than
    `folds`.
    """
    for index, name in enumerate(CLASSES):
        if len(set(groups[labels == index])) < folds:
            raise ValueError(
                f"The probe needs {folds} independent {name} pictures or more; gather more first."
            )
    scores, fold = np.zeros(len(labels)), np.zeros(len(labels), int)
    cuts = grouped_folds(labels, groups, folds, np.random.default_rng(seed))
    for number, (train, test) in enumerate(cuts):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=1000)
        )
        model.fit(columns[train], labels[train])
        scores[test], fold[test] = model.decision_function(columns[test]), number
    return scores, fold
