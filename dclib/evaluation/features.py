"""A trained network as a fixed feature extractor: a linear probe on the input of its last layer.

For new pictures that are too few to train on, and for out-of-sample answers in seconds: only the
last layer is fitted anew, five times, each time without the pictures that it answers to.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dclib.data import CLASSES, CoupleFolder, fingerprint, make_loader
from dclib.evaluate import to_device
from dclib.evaluation.parts import fit_folds
from dclib.extras import extra
from dclib.model import DeepConnection
from dclib.predictions import make_table

with extra("evaluate"):
    import pandas as pd

if TYPE_CHECKING:
    from dclib.checkpoint import Checkpoint


def probe_out_of_fold(
    checkpoint: "Checkpoint",
    root: str | Path,
    split: str = "train",
    folds: int = 5,
    seeds: Iterable[int] = (0,),
    labels: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The table of predictions of linear probes on a frozen network, each without the row's group.

    Args:
        checkpoint: a loaded `Checkpoint`, of other pictures: one that was trained on these has seen
            their labels, whatever the folds.
        labels: class names (N,) in the order of the split, instead of its own.

    Logistic regressions on the network's neurons before the last layer, standardised; a seed is
    another division into folds. Raises ValueError if the checkpoint was trained on this very folder
    and `split` is not test, or a class has too few groups for `folds`.
    """
    seen = checkpoint.config["training_data"]["sha256"]
    if split != "test" and seen == fingerprint(root)["sha256"]:
        raise ValueError(
            f"{checkpoint.folder} was trained on {root}: its features have seen these labels. Take "
            "the split test, other pictures or dclib.crossval."
        )
    dataset = CoupleFolder(root, split, checkpoint.transform, CLASSES)
    if labels is None:
        labels = [CLASSES[label] for _, label in dataset.samples]
    numbers = np.array([CLASSES.index(name) for name in labels])
    columns = read_neurons(checkpoint.model, make_loader(dataset, 32))
    groups = np.unique(dataset.groups, return_inverse=True)[1]
    tables = []
    for seed in seeds:
        scores, fold = fit_folds(columns, numbers, groups, folds, seed)
        logits = np.stack([-scores / 2, scores / 2], 1)  # log-odds -> (N, 2)
        tables.append(make_table(dataset, logits, seed).assign(fold=fold, label=list(labels)))
    return pd.concat(tables, ignore_index=True)


@torch.inference_mode()
def read_neurons(model: DeepConnection, loader: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Input of the last layer for all pictures of a loader, in eval mode, where the model stays.

    Returns (N, 100) float32.
    """
    model.eval()
    device = next(model.parameters()).device
    rows = [
        model.head.neurons(model.pool(model.forward_features(to_device(images, device))))
        for images, _ in loader
    ]
    return torch.cat(rows).float().cpu().numpy()
