"""The model card: README.md of a checkpoint folder, in the format of Hugging Face.

Its sentences are in card.md, its numbers come from tables of predictions; nothing reads it back.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dclib.checkpoint import CARD, LOOKS, is_card
from dclib.data import count_seen
from dclib.evaluate import metrics
from dclib.evaluate.metrics import compare, judge_difference, measure, tell_interval, tell_value
from dclib.evaluate.predictions import answered_by_both, describe, kind_of
from dclib.files import extra, write_whole
from dclib.model import INSIDE

with extra("evaluate"):
    import pandas as pd
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

if TYPE_CHECKING:
    from dclib.checkpoint import Checkpoint

PAGE = Path(__file__).with_name("card.md")
HUB_NAMES = {  # of kinds of metric that the Hub calls something else
    "F1": "f1",
    "MCC": "matthews_correlation",
    "AUROC": "roc_auc",
    "log-loss": "log_loss",
    "Brier": "brier_score",
    "ECE": "expected_calibration_error",
}
DECIDED = {
    "train": "the network was trained on {} pictures",
    "val": "{} pictures chose the epoch, and the temperature if it is not 1",
}


def write_card(
    checkpoint: "Checkpoint",
    table: pd.DataFrame,
    slices: pd.DataFrame | None = None,
    others: Mapping[str, pd.DataFrame] | None = None,
    *,
    data: dict,
    folder: str | Path | None = None,
) -> Path:
    """Write README.md into the folder of a loaded `Checkpoint`, or another; returns its path.

    Raises FileExistsError for one that is no card of ours, ValueError for answers of others, and
    for the network inside the package, whose card stays, without a `folder`.

    Args:
        table: this network's predictions, that its numbers are measured on.
        slices: from `dclib.evaluate.slices.slice_table`.
        others: {name: table} of other networks or baselines on the same pictures.
        data: `dclib.data.fingerprint` of the data set that was measured on.
    """
    if (table["fold"] >= 0).any():
        raise ValueError("These are answers of networks that left pictures out, not of this one.")
    path = (checkpoint.folder if folder is None else Path(folder)) / CARD
    if path.parent == INSIDE:
        raise ValueError("The network inside the package keeps its card: name another folder.")
    if path.exists() and not is_card(path):
        raise FileExistsError(
            f"{path} was not written by dclib: move it, to make room for the card."
        )
    training, measured = checkpoint.config["training_data"], measure(table)
    calibrated = bool((table["temperature"] != 1).any())
    card = ModelCard.from_template(
        ModelCardData(**describe_model(checkpoint, table, measured, data)),
        str(PAGE),
        config=checkpoint.config,
        looks=LOOKS[checkpoint.config["frame"]],
        drawings=checkpoint.knows_only_drawings,
        pictures=kind_of(table),
        warning=too_good(table, training, data),
        data=data,
        splits=splits_in(table),
        description=describe(table),
        draws=f"{metrics.DRAWS:,}",
        measured=measured.to_dict("index"),
        temperature=table["temperature"].iloc[0],
        threshold=table["threshold"].iloc[0],
        uncalibrated=measure(table, calibrated=False).to_dict("index") if calibrated else {},
        others=[_beside(name, table, other) for name, other in (others or {}).items()],
        slices=[] if slices is None else list(slices.itertuples()),
        tell_value=tell_value,
        tell_interval=tell_interval,
    )
    with write_whole(path) as unfinished:
        card.save(unfinished)
    return path


def describe_model(
    checkpoint: "Checkpoint", table: pd.DataFrame, measured: pd.DataFrame, data: dict
) -> dict:
    """The machine-readable front matter, with every metric: arguments of `ModelCardData`."""
    same = {
        "task_type": "image-classification",
        "dataset_type": "imagefolder",
        "dataset_name": data["name"],
        "dataset_split": "+".join(splits_in(table)),
        "dataset_revision": data["sha256"],
    }
    counts = {"groups": table["group"].nunique(), "seeds": table["seed"].nunique()}
    results = []
    for metric, row in measured[np.isfinite(measured["value"])].iterrows():
        args = {"n": int(row.n), **counts, "pictures": kind_of(table)}
        if np.isfinite(row.low):
            ends = {end: round(float(row[end]), 6) for end in ("low", "high")}
            args["interval"] = {"confidence": 0.95, **ends, "method": row.method}
        kind = re.sub(" (un)?happy$", "", metric)  # that of "recall unhappy" is "recall"
        names = {"metric_type": HUB_NAMES.get(kind, kind.replace(" ", "_")), "metric_name": metric}
        value = round(float(row.value), 6)
        results.append(EvalResult(**same, **names, metric_value=value, metric_args=args))
    drawn = ["drawings-only"] if checkpoint.knows_only_drawings else []
    return {
        "model_name": checkpoint.folder.resolve().name,
        "pipeline_tag": "image-classification",
        "tags": ["deepconnection", *drawn],
        "eval_results": results,
    }


def splits_in(table: pd.DataFrame) -> list[str]:
    """Names of the splits that the pictures of a table lie in."""
    return sorted({name.split("/")[0] for name in table["id"]})


def too_good(table: pd.DataFrame, training: dict, data: dict) -> str:
    """Why numbers are too good; "" if their pictures decided nothing. Two fingerprints of data."""
    splits = splits_in(table)
    all_of_them, reasons = sum(data["n"].get(split, 0) for split in splits), []
    for split, n in count_seen(training, data, splits).items():
        if n:
            these = "these" if n == all_of_them else f"{n} of the {all_of_them}"
            reasons.append(DECIDED[split].format(these))
    return f"Too good to rely on: {' and '.join(reasons)}." if reasons else ""


def _beside(name: str, table: pd.DataFrame, other: pd.DataFrame) -> tuple[str, dict, str]:
    """Name and metrics of another network, and how much more often this one is right."""
    ours, other = answered_by_both(table, other)
    paired = compare(ours, other).loc["accuracy"]
    ends = f" ({tell_interval(paired, '+.3f')})" if np.isfinite(paired.low) else ""
    gain = f"{paired.value:+.3f}{ends}: {judge_difference(paired)}"
    if len(ours) < len(table):
        gain += f", on the {paired.n:.0f} pictures that both answered"
    return name, measure(other).to_dict("index"), gain
