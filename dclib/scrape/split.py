"""Divide pictures into train, val and test so that nothing in one is known from another.

What belongs together stays together: the same picture again, one author, one series, one page.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from dclib.data import CLASSES, SPLITS
from dclib.data.metadata import BINDING, components, shared, told
from dclib.scrape.duplicates import distances, near_pairs

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
BRIDGE = "would link two splits"


def group_rows(rows: Sequence[dict]) -> list[list[int]]:
    """Which rows must stay together: lists of indices.

    Joined by what makes pictures duplicates (see `duplicate_groups`), and by author (whatever the
    source), page, series and group where these are known.
    """
    pairs = near_pairs(rows) + shared(rows, ("sha256", "pixel_sha256", "author", "page", *BINDING))
    return components(len(rows), pairs)


def assign(rows: Sequence[dict], seed: int = 0) -> list[dict[str, str]]:
    """Give every row a group and a split: list of dicts {"group", "split", "reason"}, as `rows`.

    Rows are dicts with file, label, and what `group_rows` looks at; one whose "split" is set was
    placed before and stays there for ever. The splits get their `SHARES` of each label, as near as
    whole groups allow. New rows in a group that links pictures of two splits get the split "" and a
    reason. Raises ValueError if a split would be without a class, or if rows placed before turn out
    to belong together across splits.
    """
    groups = group_rows(rows)
    torn = [g for g in groups if len({rows[i].get("split") or "" for i in g} - {""}) > 1]
    bridges = {i for group in torn for i in group if not rows[i].get("split")}
    if torn:
        check_leaks(rows)  # raises, and names the pictures, if those placed before are linked
        kept = [i for i in range(len(rows)) if i not in bridges]
        groups = [[kept[i] for i in group] for group in group_rows([rows[i] for i in kept])]
    names = {i: _name(rows, group) for group in groups for i in group}
    splits = _fill(rows, groups, seed)
    _check_classes(rows, splits)
    return [
        {"group": "", "split": "", "reason": BRIDGE}
        if i in bridges
        else {"group": names[i], "split": splits[i], "reason": ""}
        for i in range(len(rows))
    ]


def _name(rows: Sequence[dict], group: list[int]) -> str:
    return min((rows[i].get("sha256") or "")[:16] or rows[i]["file"] for i in group)


def _fill(rows: Sequence[dict], groups: list[list[int]], seed: int) -> dict[int, str]:
    """{index: split}: large groups first, each to where it leaves the shares least uneven."""
    labels = Counter(rows[i]["label"] for group in groups for i in group)
    now: dict[str, Counter[str]] = defaultdict(Counter)
    splits: dict[int, str] = {}

    def place(group: list[int], split: str) -> None:
        splits.update(dict.fromkeys(group, split))
        now[split].update(rows[i]["label"] for i in group)

    def cost(group: list[int], split: str) -> float:
        """Growth of the sum over classes of (now - target)^2 / target."""
        counts = Counter(rows[i]["label"] for i in group)
        return sum(
            n * ((2 * now[split][label] + n) / (labels[label] * SHARES[split]) - 2)
            for label, n in counts.items()
        )

    def lot(group: list[int]) -> tuple[int, str]:
        return -len(group), hashlib.sha256(f"{seed} {_name(rows, group)}".encode()).hexdigest()

    for group in groups:
        if before := {rows[i].get("split") or "" for i in group} - {""}:
            place(group, before.pop())
    fresh = sorted((group for group in groups if group[0] not in splits), key=lot)
    left = Counter(label for group in fresh for label in {rows[i]["label"] for i in group})
    for group in fresh:  # the last of a class go to the splits that have none of it yet
        classes = {rows[i]["label"] for i in group}
        short = {c for c in classes if left[c] <= sum(not now[s][c] for s in SHARES)}
        needy = [s for s in SHARES if any(not now[s][c] for c in short)]
        place(group, min(needy or SHARES, key=lambda split: cost(group, split)))
        left.subtract(classes)
    return splits


def _check_classes(rows: Sequence[dict], splits: dict[int, str]) -> None:
    present = {(split, rows[i]["label"]) for i, split in splits.items()}
    for split in SHARES:
        for label in CLASSES:
            if (split, label) not in present:
                raise ValueError(
                    f"{split} would have no {label} picture: there are too few pictures that are "
                    "independent of each other. Gather more."
                )


def check_leaks(rows: Sequence[dict]) -> list[list[int]]:
    """Groups of the rows that have a split. Raises ValueError if one lies in two splits."""
    placed = [row for row in rows if row.get("split")]
    groups = group_rows(placed)
    for group in groups:
        splits = sorted({placed[i]["split"] for i in group})
        if len(splits) > 1:
            names = [f"{placed[i]['file']} ({placed[i]['split']})" for i in group[:6]]
            raise ValueError(
                f"{' and '.join(splits)} share a group (picture, author, series or page): "
                f"{', '.join(names)}. Numbers from such a split are too good; divide the pictures "
                "anew, into an empty folder."
            )
    return groups


def leak_report(rows: Sequence[dict], left_out: int = 0) -> str:
    """Check a split (`check_leaks`), and say of it what there is. Rows as for `assign`."""
    sizes = [len(group) for group in check_leaks(rows)]
    lines, parts = [], []
    for split in SPLITS:
        placed = [row for row in rows if row.get("split") == split]
        labels = Counter(row["label"] for row in placed)
        counts = ", ".join(f"{labels[name]} {name}" for name in CLASSES)
        authors = len({told(row.get("author")) for row in placed} - {""})
        by = f" by {authors} known authors" if authors else ""
        if placed:
            lines.append(f"{split}: {len(placed)} pictures ({counts}){by}")
            parts.append(placed)
    n, largest = sum(map(len, parts)), max(sizes, default=0)
    known = [row for row in rows if any(map(told, map(row.get, ("author", "series", "page"))))]
    lines.append(f"{len(sizes)} groups, the largest has {largest} of {n} pictures.")
    lines.append(f"Of {len(known)} pictures the author, the series or the page is known.")
    if nearest := _closest(parts):
        bits, *pair = nearest
        lines.append(
            f"The closest two pictures in different splits ({', '.join(pair)}) differ in {bits} of "
            "64 bits."
        )
    if left_out:
        lines.append(f"{left_out} pictures left out: they would link two splits.")
    return "\n".join([*lines, "No picture, author, series or page is in two splits."])


def _closest(parts: list[list[dict]]) -> tuple[int, str, str] | None:
    """(bits, file, file) of the two most similar pictures in different parts, or None."""
    parts = [hashed for part in parts if (hashed := [row for row in part if row.get("phash")])]
    pairs = []
    for k, first in enumerate(parts):
        for second in parts[k + 1 :]:
            apart = distances(first, second)
            i, j = np.unravel_index(apart.argmin(), apart.shape)
            pairs.append((int(apart[i, j]), first[i]["file"], second[j]["file"]))
    return min(pairs, default=None)
