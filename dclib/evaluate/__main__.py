"""Measure a checkpoint on a folder of couples: the fast path of evaluation, without training.

    python -m dclib.evaluate checkpoints/mine data/mine --against checkpoints/other

Prints all metrics, writes predictions.csv and metrics.json, and, where the pictures decided nothing
in training, the model card.
"""

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch

from dclib import __version__
from dclib.checkpoint import Checkpoint, load_checkpoint
from dclib.data import fingerprint, splits_of, without_files
from dclib.evaluate.card import too_good, write_card
from dclib.evaluate.metrics import compare, conclude, format_differences, format_metrics, measure
from dclib.evaluate.predictions import (
    answered_by_both,
    describe,
    kind_of,
    predict_folder,
    save_predictions,
)
from dclib.files import check_place, extra, save_json
from dclib.predict import pick_device
from dclib.rules import sentences

with extra("evaluate"):
    import pandas as pd

TABLE, NUMBERS = "predictions.csv", "metrics.json"


def report(
    folder: Path,
    root: Path,
    split: str = "test",
    against: Path | None = None,
    out: Path | None = None,
) -> None:
    """Print and write (see the module) what a checkpoint answers, and how `against` another."""
    out = out or Path("results") / f"{folder.resolve().name}-{split}"
    check_places(root, split, out)
    data, device = fingerprint(root), pick_device()
    checkpoint = load_checkpoint(folder, device)
    second = load_checkpoint(against, device) if against else None
    table = predict_folder(checkpoint, root, split)
    print(f"Data: {root / split}, {kind_of(table)}, {describe(table)}")
    warning = _introduce("Checkpoint", checkpoint, table, data)
    measured = measure(table)
    print(f"Device: {device}\n\n{format_metrics(measured, full=True)}")
    results: dict[str, Any] = {"checkpoint": _identity(checkpoint), "data": without_files(data)}
    results |= {"split": split, "metrics": as_json(measured)}
    versions = {module.__name__: module.__version__ for module in (torch, np, scipy, pd)}
    versions |= {"deepconnection": __version__, "python": platform.python_version()}
    results |= {"versions": versions, "device": str(device)}
    others: dict[str, pd.DataFrame] = {}
    try:
        if second:
            told, others = _compare_with(second, table, root, split, data)
            results |= told
    finally:  # whatever happens to the second, the first was measured
        save_json(out / NUMBERS, results)
        save_predictions(table, out / TABLE)
        print(f"\nWrote {TABLE} and {NUMBERS} into {out}.")
        if warning:
            print("No model card was written: it is for pictures that decided nothing in training.")
        else:
            path = write_card(checkpoint, table, others=others, data=data)
            print(f"Wrote the model card {path}.")


def _compare_with(
    second: Checkpoint, table: pd.DataFrame, root: Path, split: str, data: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Print how a second network does on the same pictures.

    Returns what metrics.json says of that, and what the card shows: nothing of one that these
    pictures decided something for.
    """
    answers = predict_folder(second, root, split)
    unfair = _introduce("\nAgainst", second, answers, data)
    ours, theirs = answered_by_both(table, answers)
    if n := len(table) + len(answers) - 2 * len(ours):
        of_all = f"{n} of {n + len(ours)} pictures"
        print(f"Left out of the comparison, as only one of the two answered: {of_all}.")
    paired = compare(ours, theirs)
    print(f"\n{format_differences(paired)}\n\n{conclude(paired, ours)}")
    told = {"against": _identity(second), "differences": as_json(paired), "mcnemar": paired.attrs}
    return told, {} if unfair else {second.folder.resolve().name: answers}


def check_places(root: Path, split: str, out: Path) -> None:
    """Raise OSError if there is nothing to read, or if `out` cannot or must not be written."""
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}.")
    splits = splits_of(root)
    if split not in splits:
        have = (
            f"it has {', '.join(splits)}; choose one with --split" if splits else "it has no split"
        )
        raise FileNotFoundError(f"{root} has no folder {split}: {have}.")
    written = [name for name in (TABLE, NUMBERS) if (out / name).exists()]
    if written and not _is_report(out):
        raise FileExistsError(
            f"{out} holds a {written[0]} of something else: choose another --out."
        )
    check_place(out / TABLE)


def _is_report(out: Path) -> bool:
    """Whether what lies in a folder is an earlier report, which may be replaced."""
    try:
        return {"checkpoint", "metrics"} <= json.loads((out / NUMBERS).read_text()).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def as_json(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Rows of a DataFrame as {name: {column: value}}, with None for what is not possible."""
    return json.loads(frame.to_json(orient="index", double_precision=15))


def _introduce(role: str, checkpoint: Checkpoint, table: pd.DataFrame, data: dict[str, Any]) -> str:
    """Print what a checkpoint is and whether it can be measured on these pictures; the warning."""
    print(f"{role}: {checkpoint}")
    training = checkpoint.config["training_data"]
    warning = too_good(table, training, data)
    if data["sha256"] != training["sha256"]:
        known = "none of these pictures is in its train or val"
        known = known if "files" in training else "pictures in both were not looked for"
        print(f"It was trained on another data set{'' if warning else f'; {known}'}.")
    if warning:
        print(f"WARNING: {warning}")
    return warning


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    """What metrics.json says of a checkpoint."""
    names = ("temperature", "threshold", "weights_sha256")
    known = {name: checkpoint.config[name] for name in names}
    known["training_data"] = without_files(checkpoint.config["training_data"])
    return {"name": checkpoint.folder.resolve().name} | known


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m dclib.evaluate", description="Measure a checkpoint on a folder."
    )
    parser.add_argument("folder", type=Path, metavar="checkpoint", help="folder of the checkpoint")
    parser.add_argument("root", type=Path, metavar="data", help="folder with test/ or other splits")
    parser.add_argument("--split", default="test", help="train, val or test (default)")
    parser.add_argument("--against", type=Path, metavar="CHECKPOINT", help="compare with this one")
    parser.add_argument("--out", type=Path, help="default results/<checkpoint>-<split>")
    args = vars(parser.parse_args(argv))
    with sentences():
        report(**args)


if __name__ == "__main__":
    main()
