"""Which labels may be wrong? Confident learning (Northcutt et al., arXiv 1911.00068).

A picture is a suspect if its probability of the other class is at least the mean that pictures with
that label get, and larger than that of its own, by networks that did not see its label. A suspect
is a question to a person: many are hard pictures with the right label. `probe_out_of_fold` makes
such answers with a network of other pictures.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dclib.data import CLASSES, count_seen, fingerprint
from dclib.data.loading import CoupleFolder, make_loader
from dclib.evaluate.intervals import TAILS, Accuracy, share_of
from dclib.evaluate.predictions import by_seed, check_predictions, make_table, probabilities
from dclib.evaluate.probe import fit_folds
from dclib.files import extra, harmless, write_whole
from dclib.model import DeepConnection
from dclib.predict import to_device

with extra("evaluate"):
    import pandas as pd

if TYPE_CHECKING:
    from dclib.checkpoint import Checkpoint

DRAWS, TINY = 1000, 1e-6  # so much is rounding, not a difference


@dataclass(frozen=True)
class NoiseRate:
    """An estimated share of wrong labels with its 95 % interval over groups."""

    share: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return (
            f"about {self.share:.1%} of {self.n} labels are wrong "
            f"(95 % interval {self.low:.1%} to {self.high:.1%}, if the network errs at random)"
        )


def find_suspects(table: pd.DataFrame) -> pd.DataFrame:
    """Pictures whose label looks wrong, the most suspicious first, of predictions out of fold.

    A DataFrame with id, label, suggested, prob (of the suggested class, mean over seeds), margin
    (probability of the label less prob), rank (from 1) and n_seeds (that suggest it by themselves).
    """
    first, given, probs, seeds = _average(table)
    rows = np.arange(len(given))
    margins = probs[rows, given] - probs[rows, 1 - given]
    suspects = (confident_class(given, probs) == 1 - given) & (margins < -TINY)
    table = first[["id", "label"]].assign(
        suggested=[CLASSES[1 - label] for label in given],
        prob=probs[rows, 1 - given],
        margin=margins,
        n_seeds=((seeds >= 0.5) == (given == 0)).sum(0),
    )
    table = table[suspects].sort_values(["margin", "id"]).reset_index(drop=True)
    table.insert(5, "rank", table.index + 1)
    return table


def estimate_noise(table: pd.DataFrame) -> NoiseRate:
    """The share of wrong labels from the calibrated confident joint, as a `NoiseRate`.

    The interval draws groups with replacement, the predictions as they are. Confident errors of the
    network count as wrong labels: 1 % of 1,000 drawings, none of them wrong, by a network that
    erred on 6 %.
    """
    first, given, probs, _ = _average(table)
    groups = np.unique(first["group"], return_inverse=True)[1]
    rng, n_groups = np.random.default_rng(0), groups.max() + 1
    members = np.split(np.argsort(groups, kind="stable"), np.bincount(groups).cumsum()[:-1])
    shares: list[float] = []
    while len(shares) < DRAWS:
        rows = np.concatenate([members[i] for i in rng.integers(n_groups, size=n_groups)])
        if 0 < given[rows].mean() < 1:
            shares.append(noise_share(given[rows], probs[rows]))
    low, high = np.quantile(shares, TAILS).tolist()
    return NoiseRate(noise_share(given, probs), low, high, len(given))


def confident_class(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """The class that a row surely belongs to, -1 for none: labels (N,), probs (N, 2) -> (N,).

    Sure of a class is a probability at or above the mean that rows with this label get; of two such
    classes the more probable one counts (equation 2 of the paper).
    """
    thresholds = np.array([probs[labels == label, label].mean() for label in range(probs.shape[1])])
    sure = probs >= thresholds - TINY
    best = np.where(sure, probs, -1).argmax(1)
    return np.where(sure.any(1), best, -1)


def noise_share(labels: np.ndarray, probs: np.ndarray) -> float:
    """Share of wrong labels: what is off the diagonal of the joint of given and sure classes.

    The joint's rows are scaled to the counts of the given labels (equation 3 of the paper).
    """
    sure, classes = confident_class(labels, probs), range(probs.shape[1])
    joint = np.array([[((labels == i) & (sure == j)).sum() for j in classes] for i in classes])
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))  # a right label at least
    right = joint.diagonal() / joint.sum(1)  # by given label
    return float(1 - right @ np.bincount(labels, minlength=len(right)) / len(labels))


def flip_labels(
    labels: Sequence[str] | pd.Series, share: float, seed: int = 0
) -> tuple[list[str], np.ndarray]:
    """Turn a share of the class names (N,) into the other class: (new names, flipped (N,) bool)."""
    if not 0 <= share <= 1:
        raise ValueError(f"The share of labels to flip lies between 0 and 1, not {share}.")
    flipped = np.zeros(len(labels), bool)
    chosen = np.random.default_rng(seed).permutation(len(labels))[: round(share * len(labels))]
    flipped[chosen] = True
    other = dict(zip(CLASSES, CLASSES[::-1], strict=True))
    return [other[name] if f else name for name, f in zip(labels, flipped, strict=True)], flipped


def score_suspects(suspects: pd.DataFrame, wrong: Collection[str], table: pd.DataFrame) -> str:
    """Two lines: precision and recall of suspects where the ids of all wrong labels are known.

    `table`: the predictions that they were found in; it knows the groups, which count as wholes.
    """
    pictures = table.drop_duplicates("id")
    found, false = (pictures["id"].isin(ids).to_numpy() for ids in (suspects["id"], wrong))
    groups, hits = pictures["group"].to_numpy(), (found & false).sum()
    precision: Accuracy | str = "undefined, as there are no suspects"
    recall: Accuracy | str = "undefined, as no label is wrong"
    if found.any():
        precision = share_of(false[found], groups[found])
    if false.any():
        recall = share_of(found[false], groups[false])
    return f"{hits} of {found.sum()} suspects are wrong: precision {precision}\nrecall {recall}"


def save_suspects(suspects: pd.DataFrame, path: str | Path) -> Path:
    """Write suspects as CSV with an empty column "decision" for a person; returns the path."""
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already and may hold decisions; move it first.")
    with write_whole(path) as unfinished:
        suspects.map(harmless).assign(decision="").to_csv(unfinished, index=False)
    return path


def _average(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """First seed's rows, labels (N,), mean probabilities (N, 2), P(unhappy) by seed (S, N)."""
    check_predictions(table)
    if table["label"].nunique() < 2:
        raise ValueError("All labels are the same; nothing tells which of them are wrong.")
    if (table["fold"] == -1).any():
        raise ValueError(
            "The table is of a checkpoint that may have been trained on these labels, and then "
            "agrees with wrong ones. Take those of dclib.train.studies.out_of_fold."
        )
    for seed, part in table[table["fold"] >= 0].groupby("seed"):
        spread = part.groupby("group")["fold"].nunique()
        if (spread > 1).any():
            raise ValueError(
                f"Group {spread.idxmax()!r} is in several folds of seed {seed}: its pictures were "
                "answered by a network that had seen others of the group."
            )
    parts = by_seed(table)
    first, seeds = parts[0].reset_index(drop=True), np.array([probabilities(p) for p in parts])
    given, unhappy = (first["label"] == CLASSES[1]).to_numpy(int), seeds.mean(0)
    return first, given, np.stack([1 - unhappy, unhappy], 1), seeds


def probe_out_of_fold(
    checkpoint: "Checkpoint",
    root: str | Path,
    split: str = "train",
    labels: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The table of logistic regressions on a network's last neurons, each without the row's group.

    The checkpoint must be of other pictures. `labels`: class names (N,) in the order of the split,
    instead of its own.
    """
    data = fingerprint(root)
    if n := sum(count_seen(checkpoint.config["training_data"], data, [split]).values()):
        raise ValueError(
            f"{checkpoint.folder} was trained on {n} of the {data['n'][split]} pictures in "
            f"{Path(root) / split}: its features have seen these labels. Take the split test, "
            "other pictures or dclib.train.studies.out_of_fold."
        )
    dataset = CoupleFolder(root, split, checkpoint.transform, CLASSES)
    if labels is None:
        labels = [CLASSES[label] for _, label in dataset.samples]
    numbers = np.array([CLASSES.index(name) for name in labels])
    columns = read_neurons(checkpoint.model, make_loader(dataset, 32))
    groups = np.unique(dataset.groups, return_inverse=True)[1]
    scores, fold = fit_folds(columns, numbers, groups)
    logits = np.stack([-scores / 2, scores / 2], 1)  # log-odds -> (N, 2)
    return make_table(dataset, logits, seed=0).assign(fold=fold, label=list(labels))


@torch.inference_mode()
def read_neurons(model: DeepConnection, loader: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Input of the last layer for all pictures of a loader, in eval mode: (N, 100) float32."""
    model.eval()
    device = next(model.parameters()).device
    rows = [
        model.head.neurons(model.pool(model.forward_features(to_device(images, device))))
        for images, _ in loader
    ]
    return torch.cat(rows).float().cpu().numpy()
