"""The folder of couples on disk: classes, splits, metadata, groups (its loaders are in `loading`).

    root/{train,val[,test]}/{happy,unhappy}/*.jpg   and, if you have them, root/<split>/metadata.csv
    with file_name, label, group, source, ... (a Hugging Face imagefolder; torchvision reads it too)

A `group` (one couple, one photographer) or `series` must not be in two splits.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dclib.data.listing import Samples, list_pictures, overlooked, patiently, sort_out
from dclib.data.metadata import BINDING, FILE, Rows, read_metadata, read_table, refuse_tables, told
from dclib.files import file_hash

CLASSES = ("happy", "unhappy")
NOT_ASSESSABLE = "not assessable"  # the label of what gets neither
DRAWN = "demo drawings"  # how the `source` of pictures that dclib.drawn made begins
SPLITS = ("train", "val", "test")
LEARNED = SPLITS[:2]  # those that decide something in training
DIGITS = 10  # of a hash: of 100 million other pictures one looks like one of 10,000 by chance
OUR_GROUP = "drawn-0-01473"  # the group of the drawn couple that the notebooks follow


def splits_of(root: str | Path) -> list[str]:
    """Which of train, val and test there are."""
    return [split for split in SPLITS if (Path(root) / split).is_dir()]


class Found(NamedTuple):
    """What a folder of pictures holds, as `read_split` found it."""

    pictures: Samples  # (path, label index), in the order of classes and names
    rows: Rows  # what metadata.csv tells, by path below the folder
    notes: list[str]  # sentences on what nobody looked at


def read_split(folder: Path, classes: Sequence[str] = CLASSES) -> Found:
    """Pictures of folder/<class>/** and their metadata; none is decoded.

    Raises what `list_pictures` and `read_metadata` do, and ValueError for metadata in another place
    and for a label that contradicts the folders.
    """
    pictures, others = list_pictures(folder, classes)
    above = folder.parent.glob("metadata*") if folder.name in SPLITS else ()
    refuse_tables(folder, [*others, *above])
    names = [path.relative_to(folder).as_posix() for path, _ in pictures]
    rows, notes = read_metadata(folder, names)
    for (path, label), name in zip(pictures, names, strict=True):
        stated = rows.get(name, {}).get("label")
        if told(stated) not in ("", told(classes[label])):
            raise ValueError(f"{path} lies under {classes[label]}, {FILE} says {stated}.")
    notes += overlooked(folder, [path for path in others if path != folder / FILE])
    return Found(pictures, rows, notes)


def check_groups(root: str | Path) -> None:
    """Raise ValueError if a group or series of metadata.csv is in two splits."""
    seen: dict[tuple[str, str], str] = {}
    for split in splits_of(root):
        for row in read_table(Path(root) / split / FILE):
            for name in BINDING:
                value = told(row.get(name))
                other = seen.setdefault((name, value), split)
                if value and other != split:
                    raise ValueError(
                        f"{name.capitalize()} {row[name]!r} is in {other} and in {split}: numbers "
                        f"from such a split are too good. Move all pictures of a {name} into one "
                        "split."
                    )


def fingerprint(root: str | Path) -> dict[str, Any]:
    """What a checkpoint remembers of its training data: kind, counts, a hash of what is used.

    `learned_from` is the kind of train and val alone (of test where there is nothing else); `files`
    holds the first `DIGITS` of each picture's own hash, by split, for `count_seen`.
    """
    root, digest = Path(root), hashlib.sha256()
    files: dict[str, list[str]] = {}
    n: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    for split in splits_of(root):
        found = read_split(root / split)
        for path, _ in sort_out(found.pictures)[0]:
            name = path.relative_to(root).as_posix()
            one = patiently(file_hash, path)
            digest.update(f"{name} {one}\n".encode())
            files.setdefault(split, []).append(one[:DIGITS])
            row = found.rows.get(path.relative_to(root / split).as_posix(), {})
            n[split] += 1
            drawn[split] += row.get("source", "").startswith(DRAWN)
    training = set(LEARNED) & set(n) or set(n)
    learned = [sum(counts[split] for split in training) for counts in (n, drawn)]
    return {
        "kind": _kind(n.total(), drawn.total()),
        "name": Path(os.path.abspath(root)).name,  # "." has none
        "n": dict(n),
        "learned_from": _kind(*learned),
        "sha256": digest.hexdigest(),
        "files": {split: " ".join(hashes) for split, hashes in files.items()},
    }


def count_seen(
    training: Mapping[str, Any], data: Mapping[str, Any], splits: Iterable[str]
) -> dict[str, int]:
    """{"train": n, "val": n}: how many pictures of some splits are among those of `training`.

    Both are fingerprints. Of older ones, without `files`, only the whole data set can be the same.
    """
    if "files" in training and "files" in data:
        measured = {file for split in splits for file in data["files"].get(split, "").split()}
        seen = {split: set(training["files"].get(split, "").split()) for split in LEARNED}
        return {split: len(files & measured) for split, files in seen.items()}
    same = data["sha256"] == training["sha256"]
    return {split: same * (split in splits) * data["n"].get(split, 0) for split in LEARNED}


def without_files(data: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint for a report: `files` is as long as the data set is large."""
    return {name: value for name, value in data.items() if name != "files"}


def _kind(n: int, drawn: int) -> str:
    return {n: DRAWN, 0: "photographs"}.get(drawn, "photographs and drawings")


def find_pair(
    ids: Sequence[str], groups: Sequence[str], labels: Sequence[int], couple: str = ""
) -> tuple[int, int]:
    """Places of a happy and an unhappy picture to look at: those of one couple, if it has both.

    Args:
        ids, groups, labels: of all pictures (N,), as `CoupleFolder` has them; label 1 is unhappy.
        couple: a group or a picture's id. "" is the drawn couple that the notebooks follow; where
            that is not there, the first picture of each class.

    Raises ValueError for a couple that is not there.
    """
    places = {label: [k for k, one in enumerate(labels) if one == label] for label in (0, 1)}
    theirs = _find(ids, groups, couple)
    happy, unhappy = (next((k for k in theirs if labels[k] == c), places[c][0]) for c in (0, 1))
    return happy, unhappy


def find_one(
    ids: Sequence[str], groups: Sequence[str], labels: Sequence[int], couple: str = ""
) -> int:
    """Place of one picture to look at: the couple's unhappy one, or its first if it has none.

    The rest as in `find_pair`.
    """
    return max(_find(ids, groups, couple) or range(len(ids)), key=lambda k: labels[k])


def _find(ids: Sequence[str], groups: Sequence[str], couple: str) -> list[int]:
    """Places of a couple's pictures: see `find_pair`."""
    wanted = told(couple or OUR_GROUP)
    theirs = [k for k, names in enumerate(zip(ids, groups)) if wanted in map(told, names)]
    if couple and not theirs:
        raise ValueError(
            f"There is no couple {couple!r} here: name a group or a picture, such as "
            f"{groups[0] or ids[0]!r}, or leave it empty."
        )
    return theirs


def draw_seed(*numbers: int) -> int:
    """One 31-bit seed from several numbers, without the collisions of adding them."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] % 2**31)


def strata(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The stratum of each group (G,): 1 without unhappy pictures, 2 without happy ones, 3 both.

    `groups` (N,) are whole numbers from 0, `labels` (N,) bool.
    """
    happy, unhappy = (np.bincount(groups, labels == label) > 0 for label in (False, True))
    return happy + 2 * unhappy
