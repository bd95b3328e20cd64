"""Pictures of all splits in one row, divided into folds in which no group is on two sides."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from dclib.augment import EvalTransform
from dclib.config import TrainConfig
from dclib.data import CLASSES, CoupleFolder, splits_of
from dclib.evaluation.parts import grouped_folds, keep
from dclib.train import make_transforms
from dclib.training.cache import PictureCache, build_cache

INNER = 7  # one in so many pictures of a training part decides: 14 %


class Parts(NamedTuple):
    """Indices of the pictures that one network learns from, that decide, and that it answers."""

    train: np.ndarray
    inner: np.ndarray
    scored: np.ndarray


class Pool(CoupleFolder):
    """Pictures of several splits of one folder, in one row; `part` takes some of them."""

    def __init__(self, splits: Sequence[CoupleFolder]) -> None:
        self.root, self.split, self.transform = splits[0].root, "", None
        self.classes = splits[0].classes
        self.samples = [sample for split in splits for sample in split.samples]
        self.unreadable = [left_out for split in splits for left_out in split.unreadable]
        self.rows = {f"{s.split}/{name}": row for s in splits for name, row in s.rows.items()}
        sizes = {size for split in splits for size in split.caches}
        self.caches = {
            size: PooledCache([s.caches[size] for s in splits if size in s.caches])
            for size in sizes
        }

    def part(self, indices: Iterable[int], transform: EvalTransform | None = None) -> "Pool":
        """The pictures of some indices, through a transform; without one, as they are."""
        part = keep(self, indices)
        part.transform = transform
        return part


class PooledCache:
    """Several `PictureCache`s of one size as one."""

    def __init__(self, caches: Iterable[PictureCache]) -> None:
        self.rows = {path: cache for cache in caches for path in cache.rows}

    def __getitem__(self, path: Path) -> Image.Image:
        return self.rows[path][path]


def load_pool(root: str | Path, config: TrainConfig, splits: Sequence[str] | None = None) -> Pool:
    """A `Pool` of the named splits, default all, with the decoded pictures that a run needs."""
    folders = [CoupleFolder(root, split) for split in splits or splits_of(root) or ("train",)]
    if config.cache:
        sizes = {size for transform in make_transforms(config) for size in transform.sizes}
        for folder in folders:
            build_cache(folder, sorted(sizes))
    return Pool(folders)


def divide(labels: ArrayLike, groups: ArrayLike, folds: int, seed: int) -> list[Parts]:
    """`Parts` of each fold, arrays of indices; no group is in two of them, classes are even.

    Labels (N,) 0 or 1, groups (N,). Another seed divides otherwise. Raises ValueError for less than
    2 folds, and if a class has fewer groups than folds, or too few for an inner part.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, not {folds}.")
    labels, groups = np.asarray(labels), np.unique(groups, return_inverse=True)[1]
    for index, name in enumerate(CLASSES):
        found = len(np.unique(groups[labels == index]))
        if found < folds:
            raise ValueError(
                f"{folds} folds need {folds} groups with {name} pictures or more; there are "
                f"{found}. Take fewer folds, or gather more first."
            )
    rng, plan = np.random.default_rng(seed), []
    for rest, scored in grouped_folds(labels, groups, folds, rng):
        cut = _cut_inner(labels[rest], groups[rest], rng)
        if cut is None or not len(scored):
            raise ValueError(
                f"The groups are too few or too unlike in size for {folds} folds: one of them has "
                "no picture, or leaves a class with less than two groups to train and to decide "
                "on. Take another number of folds, or gather more first."
            )
        parts = Parts(rest[cut[0]], rest[cut[1]], scored)
        sides = [set(groups[part]) for part in parts]
        assert sum(map(len, sides)) == len(set.union(*sides)), "a group is on two sides"
        plan.append(parts)
    return plan


def _cut_inner(
    labels: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """(train, inner), the nearest to one in `INNER` of each class; None if a class lacks groups."""
    fewest = min(len(np.unique(groups[labels == index])) for index in range(len(CLASSES)))
    if fewest < 2:
        return None

    def distance(cut: tuple[np.ndarray, np.ndarray]) -> float:
        inner = np.bincount(labels[cut[1]], minlength=len(CLASSES))
        return np.abs(inner / np.bincount(labels) - 1 / INNER).sum()

    cuts = grouped_folds(labels, groups, min(INNER, fewest), rng)
    both = [cut for cut in cuts if all(len(set(labels[side])) == len(CLASSES) for side in cut)]
    return min(both, key=distance, default=None)
