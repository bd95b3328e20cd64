"""The table that all of evaluation reads: what a network answered to each picture.

    id, label, group, source    the picture: its path below the data set, its class, what it belongs
                                together with, where it is from
    seed, fold                  the training that left it out; -1 for a checkpoint that exists
    logit_happy, logit_unhappy  the answer
    temperature, threshold      chosen without this picture: probs = softmax(logits / temperature),
                                and the answer is "unhappy" from this probability on

One row for each picture and seed; every seed has answered to the same pictures.
"""

from pathlib import Path

import numpy as np

try:
    import pandas as pd
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pandas is missing: install the extra that brings it, "
        "`pip install 'deepconnection[evaluate]'`."
    ) from error

from dclib.data import CLASSES, CoupleFolder, make_loader
from dclib.evaluate import predict_logits

LOGITS = [f"logit_{name}" for name in CLASSES]
COLUMNS = ["id", "label", "group", "source", "seed", "fold", *LOGITS, "temperature", "threshold"]
TEXT = dict.fromkeys(("id", "label", "group", "source"), str)


def predict_folder(checkpoint, root, split="test", batch_size=32):
    """The table of a loaded `Checkpoint` on one split of a folder: the fast path.

    Raises ValueError if the checkpoint's classes are not those of the folder.
    """
    classes = checkpoint.model.classes
    if sorted(classes) != sorted(CLASSES):
        raise ValueError(
            f"The checkpoint {checkpoint.folder} sorts into {' and '.join(classes)}; numbers are "
            f"made for {' and '.join(CLASSES)} only."
        )
    dataset = CoupleFolder(root, split, checkpoint.transform, classes)
    logits, _ = predict_logits(checkpoint.model, make_loader(dataset, batch_size))
    chosen = {name: checkpoint.config[name] for name in ("temperature", "threshold")}
    return make_table(dataset, logits, **chosen)


def make_table(dataset, logits, seed=-1, fold=-1, temperature=1.0, threshold=0.5):
    """The table of logits (N, 2), in the order of `dataset.classes`, of a `CoupleFolder`."""
    logits = np.asarray(logits, dtype=float)
    table = pd.DataFrame(
        {
            "id": dataset.ids,
            "label": [dataset.classes[label] for _, label in dataset.samples],
            "group": dataset.groups,
            "source": dataset.column("source"),
            "seed": seed,
            "fold": fold,
        }
    )
    for name, column in zip(CLASSES, LOGITS, strict=True):
        table[column] = logits[:, dataset.classes.index(name)]
    return check_predictions(table.assign(temperature=temperature, threshold=threshold))


def probabilities(table, calibrated=True):
    """Probability of the second class, "unhappy", by row: (N,) in [0, 1].

    Of the logits as they are if not `calibrated`.
    """
    temperature = table["temperature"] if calibrated else 1.0
    margins = ((table[LOGITS[1]] - table[LOGITS[0]]) / temperature).to_numpy(float)
    return np.exp(-np.logaddexp(0, -margins))  # no overflow, whatever the margin


def answers(table, calibrated=True):
    """Whether the answer is "unhappy", by row: (N,) bool."""
    return probabilities(table, calibrated) >= table["threshold"].to_numpy(float)


def by_seed(table):
    """The table of each seed, pictures in the same order in all of them."""
    return [part.sort_values("id") for _, part in table.groupby("seed", sort=True)]


def check_predictions(table, name="The table of predictions"):
    """Return the table if everything that reads it can rely on it.

    Raises ValueError, in one sentence, for missing columns, no rows, a label that is no class,
    logits that are no numbers, a picture twice in a seed, seeds with different pictures, and a
    temperature or threshold that is none.
    """
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ValueError(f"{name} lacks the column {missing[0]}; it needs {', '.join(COLUMNS)}.")
    if not len(table):
        raise ValueError(f"{name} has no rows.")
    odd = table[~table["label"].isin(CLASSES)]
    if len(odd):
        raise ValueError(f"{name} has the label {odd['label'].iloc[0]!r} for {odd['id'].iloc[0]}.")
    numbers = table[[*LOGITS, "temperature", "threshold"]].to_numpy(float)
    odd = table[~np.isfinite(numbers).all(1) | (table["temperature"] <= 0)]
    if len(odd):
        raise ValueError(
            f"{name} has logits, a temperature or a threshold that is no number for "
            f"{odd['id'].iloc[0]} and {len(odd) - 1} others; did the training diverge?"
        )
    twice = table[table.duplicated(["id", "seed"])]
    if len(twice):
        raise ValueError(
            f"{name} has {twice['id'].iloc[0]} twice for seed {twice['seed'].iloc[0]}, "
            f"{len(twice)} such rows in all; every picture counts once."
        )
    uses = table.groupby("id").agg(seeds=("seed", "size"), labels=("label", "nunique"))
    if (uses["seeds"] < table["seed"].nunique()).any() or (uses["labels"] > 1).any():
        raise ValueError(f"{name} has seeds that do not agree on the pictures and their labels.")
    return table


def save_predictions(table, path):
    """Write the table as CSV; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    table.to_csv(unfinished, index=False)
    unfinished.replace(path)
    return path


def read_predictions(path):
    """Read such a CSV. Raises FileNotFoundError, or ValueError as `check_predictions` does."""
    try:
        empty = dict.fromkeys(LOGITS, "")  # only there; a group may be named "nan"
        table = pd.read_csv(path, dtype=TEXT, keep_default_na=False, na_values=empty)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} is no table of predictions ({error}).") from error
    return check_predictions(table, str(path))


def describe(table):
    """How much there is: pictures, groups, classes, seeds."""
    one = by_seed(table)[0]
    counts = ", ".join(f"{(one['label'] == name).sum()} {name}" for name in CLASSES)
    seeds = table["seed"].nunique()
    often = f", {seeds} seeds" if seeds > 1 else ""
    return f"n = {len(one)} pictures ({counts}) in {one['group'].nunique()} groups{often}"
