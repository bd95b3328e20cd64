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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from dclib.data import CLASSES, DRAWN
from dclib.data.loading import CoupleFolder, make_loader
from dclib.files import extra, harmless, write_whole
from dclib.predict import predict_logits

with extra("evaluate"):
    import pandas as pd

if TYPE_CHECKING:
    from dclib.checkpoint import Checkpoint

DRAWINGS = "drawn couples"  # what `kind_of` calls pictures that dclib.drawn made
LOGITS = [f"logit_{name}" for name in CLASSES]
CHOICES = ("temperature", "threshold")
TEXT, NUMBERS = ["id", "label", "group", "source"], [*LOGITS, *CHOICES]
COLUMNS = [*TEXT, "seed", "fold", *NUMBERS]


def predict_folder(checkpoint: "Checkpoint", root: str | Path, split: str = "test") -> pd.DataFrame:
    """The table of a loaded `Checkpoint` on one split of a folder.

    Prints a warning where it learned from drawings and these are photographs, or the other way.
    """
    dataset = CoupleFolder(root, split, checkpoint.transform, checkpoint.model.classes)
    logits, _ = predict_logits(checkpoint.model, make_loader(dataset, 32))
    table = make_table(dataset, logits, **choices_of(checkpoint))
    kind, learned = kind_of(table), checkpoint.config["training_data"]
    known = learned.get("learned_from", learned["kind"])
    if known in (DRAWN, "photographs") and (known == DRAWN) != (kind == DRAWINGS):
        known = "only drawings" if known == DRAWN else known
        print(f"WARNING: this network knows {known}, and is measured on {kind}.")
    return table


def choices_of(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Temperature and threshold of a `Checkpoint`, as `make_table` takes them."""
    return {name: checkpoint.config[name] for name in CHOICES}


def make_table(
    dataset: CoupleFolder,
    logits: ArrayLike,
    seed: int = -1,
    fold: int = -1,
    temperature: float = 1.0,
    threshold: float = 0.5,
) -> pd.DataFrame:
    """The table of logits (N, 2), in the order of `dataset.classes`, of a `CoupleFolder`."""
    values, labels = np.asarray(logits, dtype=float), dataset.classes
    columns: dict[str, Any] = {"id": dataset.ids}
    columns |= {"label": [labels[label] for _, label in dataset.samples]}
    columns |= {"group": dataset.groups, "source": dataset.column("source")}
    columns |= {"seed": seed, "fold": fold}
    columns |= {f"logit_{name}": values[:, labels.index(name)] for name in CLASSES}
    columns |= {"temperature": temperature, "threshold": threshold}
    return check_predictions(pd.DataFrame(columns))


def margins(table: pd.DataFrame, calibrated: bool = True) -> np.ndarray:
    """Log-odds of "unhappy", by row: (N,); of the logits as they are if not `calibrated`."""
    temperature = table["temperature"] if calibrated else 1.0
    return ((table[LOGITS[1]] - table[LOGITS[0]]) / temperature).to_numpy(float)


def probabilities(table: pd.DataFrame, calibrated: bool = True) -> np.ndarray:
    """Probability of "unhappy", by row: (N,) in [0, 1]."""
    return np.exp(-np.logaddexp(0, -margins(table, calibrated)))  # no overflow


def answers(table: pd.DataFrame, calibrated: bool = True) -> np.ndarray:
    """Whether the answer is "unhappy", by row: (N,) bool."""
    return probabilities(table, calibrated) >= table["threshold"].to_numpy(float)


def by_seed(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The table of each seed, in order of seeds, its pictures in order of ids."""
    return [part.sort_values("id") for _, part in table.groupby("seed", sort=True)]


def answered_by_both(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables without the pictures that one of them lacks, as no two faces were found there."""
    pair = a[a["id"].isin(b["id"])], b[b["id"].isin(a["id"])]
    if not len(pair[0]):
        raise ValueError("No picture was answered by both networks; nothing can be compared.")
    return pair


def check_predictions(table: pd.DataFrame) -> pd.DataFrame:
    """The table itself, or ValueError if it is not in order."""
    name = "The table of predictions"
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ValueError(f"{name} lacks the column {missing[0]}; it needs {', '.join(COLUMNS)}.")
    if not len(table):
        raise ValueError(f"{name} has no rows.")
    unnamed = table[["id", "group", "seed"]].isna() | (table[["id", "group", "seed"]] == "")
    numbers = table[NUMBERS].apply(pd.to_numeric, errors="coerce")
    counted = table[["seed", "fold"]].apply(pd.to_numeric, errors="coerce")
    faults = {
        "no id, group or seed (what belongs to nothing is a group by its id)": unnamed.any(axis=1),
        "a seed or fold that is no whole number": (counted % 1 != 0).any(axis=1),
        f"a label that is neither {' nor '.join(CLASSES)}": ~table["label"].isin(CLASSES),
        "logits, a temperature or a threshold that is no number (did the training diverge?)": (
            ~np.isfinite(numbers).all(axis=1)
        ),
        "a temperature that is not positive": numbers["temperature"] <= 0,
        "a picture that is there before, with the same seed": table.duplicated(["id", "seed"]),
    }
    for fault, has_it in faults.items():
        if n := has_it.sum():
            first = table[has_it].iloc[0]
            rows = "one row," if n == 1 else f"{n} rows, the first is"
            where = f"id {first['id']!r}, label {first['label']!r}"
            raise ValueError(f"{name} has {fault}: {rows} {where}.")
    uses = table.groupby("id")[["seed", "label", "group"]].nunique()
    lacking = uses["seed"] < table["seed"].nunique()
    if (lacking | (uses["label"] > 1) | (uses["group"] > 1)).any():
        raise ValueError(f"{name} has seeds that differ in pictures, or in their labels or groups.")
    return table


def save_predictions(table: pd.DataFrame, path: str | Path) -> Path:
    """Write the table as CSV, whole or not at all, safe for spreadsheets; returns the path."""
    with write_whole(path) as unfinished:
        table.assign(**table[TEXT].map(harmless)).to_csv(unfinished, index=False)
    return Path(path)


def describe(table: pd.DataFrame) -> str:
    """How much there is, e.g. "n = 90 pictures (40 happy, 50 unhappy) in 30 groups, 3 seeds"."""
    first, seeds = by_seed(table)[0], table["seed"].nunique()
    counts = ", ".join(f"{(first['label'] == name).sum()} {name}" for name in CLASSES)
    often = f", {seeds} seeds" if seeds > 1 else ""
    return f"n = {len(first)} pictures ({counts}) in {first['group'].nunique()} groups{often}"


def kind_of(table: pd.DataFrame) -> str:
    """What the pictures of a table are: photographs, drawn couples, or both."""
    share = table["source"].astype(str).str.startswith(DRAWN).mean()
    return {0: "photographs", 1: DRAWINGS}.get(share, f"photographs and {DRAWINGS}")
