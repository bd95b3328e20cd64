"""The folder of couples on disk: classes, splits, metadata, groups (its loaders are in `loading`).

    root/{train,val[,test]}/{happy,unhappy}/*.jpg   and, if you have them, root/<split>/metadata.csv
    with file_name, label, group, source, ... (a Hugging Face imagefolder; torchvision reads it too)

A `group` (one couple, one photo series, one photographer) must not be in two splits.
"""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dclib.files import file_hash

CLASSES = ("happy", "unhappy")
NOT_ASSESSABLE = "not assessable"  # the label of what gets neither
DRAWN = "demo drawings"  # how the `source` of pictures that dclib.drawn made begins
SPLITS = ("train", "val", "test")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"}


def splits_of(root: str | Path) -> list[str]:
    """Which of train, val and test there are."""
    return [split for split in SPLITS if (Path(root) / split).is_dir()]


def check_groups(root: str | Path) -> None:
    """Raise ValueError if a group of metadata.csv is in two splits."""
    seen: dict[str, str] = {}
    for split in splits_of(root):
        for row in read_metadata(Path(root) / split).values():
            group = row.get("group")
            if group and seen.setdefault(group, split) != split:
                raise ValueError(
                    f"Group {group!r} is in {seen[group]} and in {split}: numbers from such a "
                    "split are too good. Move all pictures of a group into one split."
                )


def fingerprint(root: str | Path) -> dict[str, Any]:
    """What a checkpoint remembers of its training data: kind, counts and a hash of all files.

    `learned_from` is the kind of train and val alone (of test where there is nothing else).
    """
    root, digest = Path(root), hashlib.sha256()
    n: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    for split in splits_of(root):
        rows = read_metadata(root / split)
        for path, _ in list_pictures(root / split, CLASSES):
            name = path.relative_to(root).as_posix()
            digest.update(f"{name} {file_hash(path)}\n".encode())
            row = rows.get(path.relative_to(root / split).as_posix(), {})
            n[split] += 1
            drawn[split] += row.get("source", "").startswith(DRAWN)
    training = {"train", "val"} & set(n) or set(n)
    learned = [sum(counts[split] for split in training) for counts in (n, drawn)]
    return {
        "kind": _kind(n.total(), drawn.total()),
        "name": Path(os.path.abspath(root)).name,  # "." has none
        "n": dict(n),
        "learned_from": _kind(*learned),
        "sha256": digest.hexdigest(),
    }


def _kind(n: int, drawn: int) -> str:
    return {n: DRAWN, 0: "photographs"}.get(drawn, "photographs and drawings")


def list_pictures(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """[(path, label index), ...] in the order of classes and names.

    Raises FileNotFoundError without a folder for each class, ValueError for one without pictures.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}; a data set is root/train/ and root/val/, each with "
            f"{' and '.join(classes)}."
        )
    pictures = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            present = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise FileNotFoundError(
                f"{folder} has no folder {name!r} (it has {present or 'none'})."
            )
        paths = [p for p in sorted((folder / name).rglob("*")) if _is_picture(p, folder)]
        if not paths:
            raise ValueError(f"{folder / name} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
        pictures += [(path, label) for path in paths]
    return pictures


def _is_picture(path: Path, folder: Path) -> bool:
    """By its name; what macOS, Jupyter and others hide beside pictures begins with a dot."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def read_metadata(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of metadata.csv by file name, "" for what they leave out; empty if there is none.

    Raises ValueError if it is no CSV in UTF-8 with a column file_name.
    """
    path = folder / "metadata.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark
            rows = list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read; save it as CSV in UTF-8, with commas.") from error
    if rows and "file_name" not in rows[0]:
        raise ValueError(f"{path} has no column file_name; is it a CSV with commas?")
    return {row["file_name"]: row for row in rows}


def draw_seed(*numbers: int) -> int:
    """One 31-bit seed from several numbers, without the collisions of adding them."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] % 2**31)


def strata(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The stratum of each group (G,): 1 without unhappy pictures, 2 without happy ones, 3 both.

    `groups` (N,) are whole numbers from 0, `labels` (N,) bool.
    """
    happy, unhappy = (np.bincount(groups, labels == label) > 0 for label in (False, True))
    return happy + 2 * unhappy
