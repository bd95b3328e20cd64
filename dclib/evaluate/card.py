"""The model card: README.md of a checkpoint folder, in the format of Hugging Face.

Its names and numbers come from config.json and from tables of predictions (see predictions.py);
it claims no more than these hold. Loading a checkpoint does not read it.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dclib.evaluate.metrics import (
    DRAWS,
    compare,
    judge_difference,
    measure,
    tell_interval,
    tell_value,
)
from dclib.evaluate.predictions import CHOICES, describe, kind_of
from dclib.files import extra, write_whole

with extra("evaluate"):
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

if TYPE_CHECKING:
    import pandas as pd

    from dclib.checkpoint import Checkpoint

CARD = "README.md"
PAGE = Path(__file__).with_name("model_card.md")
KNOWS = {  # by whether it has only ever seen drawings
    True: {
        "title": "This network knows only drawn couples",
        "first": "It has only ever seen drawings; what it says about a photograph means nothing.",
        "limits": "The mood was drawn into faces and bodies by rules: no number here carries over "
        "to photographs.",
        "consent": "There are none in the pictures that it was trained on.",
    },
    False: {
        "title": "Happy or unhappy couple",
        "first": "This network sorts pictures of couples into happy and unhappy.",
        "limits": "It learns momentary depicted affect in staged photos, not relationship quality. "
        "Other sources of pictures and other shares of unhappy ones give other numbers.",
        "consent": "Whether those in the training pictures agreed is not recorded here.",
    },
}
STAGE_TEXTS = {
    "resnet34": "global average pooling",
    "spp": "spatial pyramid pooling (levels {})",
    "spp+pmt": "spatial pyramid pooling (levels {}) and a power mean transformation",
}
HUB_NAMES = {  # of kinds of metric that the Hub calls something else
    "F1": "f1",
    "MCC": "matthews_correlation",
    "AUROC": "roc_auc",
    "log-loss": "log_loss",
    "Brier": "brier_score",
    "ECE": "expected_calibration_error",
}
DECIDED = {
    "train": "the network was trained on these pictures",
    "val": "these pictures chose the epoch, and the temperature if it is not 1",
}


def write_card(
    checkpoint: "Checkpoint",
    table: "pd.DataFrame",
    slices: "pd.DataFrame | None" = None,
    others: "Mapping[str, pd.DataFrame] | None" = None,
    data: dict | None = None,
) -> Path:
    """Write README.md into the folder of a loaded `Checkpoint`; returns its path.

    Args:
        table: the predictions that its numbers are measured on.
        slices: from `dclib.evaluate.slices.slice_table`.
        others: {name: table} of other networks or baselines on the same pictures.
        data: `dclib.data.fingerprint` of the data set that was measured on; None: not told.

    An older card is replaced as a whole. Raises ValueError, and writes nothing, for a table that is
    not in order, or others that are of other pictures.
    """
    config, measured, path = checkpoint.config, measure(table), checkpoint.folder / CARD
    warning = too_good(table, config["training_data"], data)
    front = ModelCardData(**describe_model(checkpoint, table, measured, data))
    told = PAGE.read_text(encoding="utf-8").format(
        **KNOWS[checkpoint.knows_only_drawings],
        pictures=kind_of(table),
        warning=warning and f"**{warning}**",
        network=describe_network(config),
        training=describe_data(config["training_data"]),
        measuring=describe_measuring(table, config, data),
        numbers=format_numbers(measured),
        others=format_others(table, measured, others) if others else "",
        slices=format_slices(slices) if slices is not None else "",
        calibration=describe_calibration(table, config, measured),
    )
    paragraphs = [part.strip() for part in told.split("\n\n") if part.strip()]
    body = "\n\n".join(part if part[0] in "|#" else _wrap(part) for part in paragraphs)
    with write_whole(path) as unfinished:
        ModelCard(f"---\n{front.to_yaml()}\n---\n\n{body}\n").save(unfinished)
    return path


def describe_model(
    checkpoint: "Checkpoint",
    table: "pd.DataFrame",
    measured: "pd.DataFrame",
    data: dict | None = None,
) -> dict:
    """The machine-readable front matter, with every metric: arguments of `ModelCardData`."""
    data = data or {"name": "not told", "sha256": None}
    of = {
        "task_type": "image-classification",
        "dataset_type": "imagefolder",
        "dataset_name": data["name"],
        "dataset_split": "out-of-fold" if is_out_of_fold(table) else "+".join(splits_in(table)),
        "dataset_revision": data["sha256"],
    }
    counts = {"groups": table["group"].nunique(), "seeds": table["seed"].nunique()}
    results = []
    for metric, row in measured[np.isfinite(measured["value"])].iterrows():
        args = {"n": int(row.n), **counts, "pictures": kind_of(table)}
        if np.isfinite(row.low):
            ends = {end: round(float(row[end]), 6) for end in ("low", "high")}
            args["interval"] = {"confidence": 0.95, **ends, "method": row.method}
        results.append(
            EvalResult(
                metric_type=hub_name(metric),
                metric_name=metric,
                metric_value=round(float(row.value), 6),
                metric_args=args,
                **of,
            )
        )
    drawn = ["drawings-only"] if checkpoint.knows_only_drawings else []
    return {
        "model_name": checkpoint.folder.resolve().name,
        "pipeline_tag": "image-classification",
        "tags": ["deepconnection", *drawn],
        "eval_results": results,
    }


def hub_name(metric: str) -> str:
    """The Hub's name of a kind of metric: that of "recall unhappy" is "recall"."""
    kind = re.sub(" (un)?happy$", "", metric)
    return HUB_NAMES.get(kind, kind.replace(" ", "_"))


def is_out_of_fold(table: "pd.DataFrame") -> bool:
    """Whether the answers are of trainings that left each picture out (see dclib.train)."""
    return bool((table["fold"] >= 0).all())


def splits_in(table: "pd.DataFrame") -> list[str]:
    """Names of the splits that the pictures of a table lie in."""
    return sorted({name.split("/")[0] for name in table["id"]})


def too_good(table: "pd.DataFrame", training: dict, data: dict | None) -> str:
    """Why numbers of this table are too good, a sentence; "" if its pictures decided nothing.

    `training` and `data`: `dclib.data.fingerprint` of the data sets trained and measured on; None:
    not told.
    """
    if is_out_of_fold(table) or (data and data["sha256"] != training["sha256"]):
        return ""
    reasons = [why for split, why in DECIDED.items() if split in splits_in(table)]
    condition = "" if data else ", if they are of the data set that was trained on"
    return f"Too good to rely on: {' and '.join(reasons)}{condition}." if reasons else ""


def describe_network(config: dict) -> str:
    """Architecture, start, input, versions and hash of the weights, from config.json."""
    parts = STAGE_TEXTS[config["stage"]].format(", ".join(map(str, config["levels"])))
    known = {None: "a random start", "imagenet": "ImageNet weights"}
    start = known.get(config["start_weights"], code(config["start_weights"]))
    return (
        f"A {config['backbone']} with {parts}: stage {code(config['stage'])}, from {start}. "
        f"Classes {' and '.join(config['classes'])}, input {config['image_size']} x "
        f"{config['image_size']} px, weights {code(config['weights_sha256'][:12])}, made with "
        f"dclib {config['versions']['deepconnection']} and torch {config['versions']['torch']}."
    )


def describe_data(data: dict) -> str:
    """Name, kind, counts and hash of a data set, from `dclib.data.fingerprint`."""
    counts = ", ".join(f"{n:,} {split}" for split, n in data["n"].items())
    hashed = code(data["sha256"][:12])
    return f"{code(data['name'])}, {data['kind']} ({counts}; fingerprint {hashed})"


def describe_measuring(table: "pd.DataFrame", config: dict, data: dict | None) -> str:
    """Which networks, which pictures, which choices, which intervals."""
    training = config["training_data"]
    if data is None:
        of = "a data set that was not told"
    elif data["sha256"] == training["sha256"]:
        of = "the data set that it was trained on"
    else:
        of = f"another data set than that, by fingerprint ({describe_data(data)}); pictures that "
        of += "may be in both were not looked for"
    if is_out_of_fold(table):
        how = (
            f"Out of fold on {of}: every picture was answered by a network trained without its "
            f"group, {table['fold'].nunique()} folds, whose epoch an inner part chose; none of "
            "them is the network in this folder."
        )
    else:
        where = " and ".join(splits_in(table))
        how = f"This network's answers to {where} of {of}; training chose the epoch on val."
    return (
        f'{how} {describe(table)}; "unhappy" is the positive class. Intervals (95 %) are for '
        "other groups of pictures, not for another training: Wilson's for proportions, with n "
        f"divided by the design effect of groups, Hall's for the log-loss, and {DRAWS:,} bootstrap "
        "draws of groups for everything else."
    )


def format_numbers(measured: "pd.DataFrame") -> str:
    """All metrics as a Markdown table; with the range over seeds where there are several."""
    spread = measured["seed_low"] < measured["seed_high"]
    rows = []
    for name, row in measured.iterrows():
        seeds = [f"{row.seed_low:.3f} to {row.seed_high:.3f}"] if spread.any() else []
        value = f"{row.value:.3f}" if np.isfinite(row.value) else "-"
        rows.append([name, value, tell_interval(row), row.n, *seeds])
    return _table(["metric", "value", "95 % interval", "n"] + ["seeds"] * bool(spread.any()), rows)


def format_others(
    table: "pd.DataFrame", measured: "pd.DataFrame", others: "Mapping[str, pd.DataFrame]"
) -> str:
    """Other networks on the same pictures, and how much more often this one is right."""
    shown, rows = ["accuracy", "AUROC", "log-loss"], []
    for name, other in {"this one": None, **others}.items():
        found, gain = measured if other is None else measure(other), ""
        if other is not None:
            paired = compare(table, other).loc["accuracy"]
            ends = f" ({tell_interval(paired, '+.3f')})" if np.isfinite(paired.low) else ""
            gain = f"{paired.value:+.3f}{ends}: {judge_difference(paired)}"
        rows.append([name, *(tell_value(found.loc[metric]) for metric in shown), gain])
    return "## Beside others\n\n" + _table(["", *shown, "accuracy, this one's less that"], rows)


def format_slices(slices: "pd.DataFrame") -> str:
    """Slices that differ from the rest, the worst first, and what the others leave open."""
    differ = slices[slices["verdict"].isin(["worse", "better"])]
    rest = slices[slices["verdict"] == "no difference seen"]
    rows = []
    for s in differ.sort_values("gap").itertuples():
        accuracy = f"{s.accuracy:.3f} ({s.low:.3f} to {s.high:.3f})"
        gap = f"{s.gap:+.3f} ({s.gap_low:+.3f} to {s.gap_high:+.3f})"
        rows.append([f"{s.tag} = {s.value}", accuracy, s.n, gap, f"{s.p_holm:.3g}"])
    head = ["slice that differs", "accuracy", "n", "gap to all others", "p (Holm)"]
    text = _table(head, rows) if rows else "No slice differs clearly from all others."
    if len(rest):
        least, tags = rest.loc[rest["gap_low"].idxmin()], ", ".join(sorted(set(rest["tag"])))
        text += (
            f"\n\nNo gap seen in {len(rest)} slices by {tags}; their intervals still allow one of "
            f"{least.gap_low:+.3f} ({least.tag} = {least.value}, n = {least.n})."
        )
    if few := len(slices) - len(differ) - len(rest):
        text += f"\n\nSlices with too few pictures to tell: {few}."
    return f"## Slices\n\n{text}"


def describe_calibration(table: "pd.DataFrame", config: dict, measured: "pd.DataFrame") -> str:
    """Temperature and threshold, and what the temperature does to these answers."""
    temperature, threshold = (_span(table[name]) for name in CHOICES)
    as_trained = (table["temperature"] == 1).all()
    if is_out_of_fold(table):
        fitted = chosen = "chosen on an inner part of each training"
    else:
        fitted = "not fitted" if as_trained else "fitted on val"
        plain = (table["threshold"] == 0.5).all()
        chosen = "not chosen on pictures" if plain else "chosen without these pictures"
    text = (
        f"Probabilities are softmax(logits / temperature), temperature {temperature} ({fitted}); "
        f'the answer is "unhappy" from {threshold} on ({chosen}).'
    )
    if not as_trained:
        before = measure(table, calibrated=False)
        for name in ("log-loss", "ECE"):
            with_it, without = (tell_value(rows.loc[name]) for rows in (measured, before))
            text += f" {name} {with_it} with it, {without} without."
    return text


def code(text: object) -> str:
    """A name as code in Markdown, on one line."""
    return f"`{' '.join(str(text).replace('`', chr(39)).split())}`"


def _wrap(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _span(column: "pd.Series") -> str:
    low, high = (f"{end:.3g}" for end in (column.min(), column.max()))
    return low if low == high else f"{low} to {high}"


def _table(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A table in Markdown, one line a row."""
    rows = [head, ["---"] * len(head), *rows]
    cells = ([" ".join(str(cell).replace("|", "/").split()) for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
