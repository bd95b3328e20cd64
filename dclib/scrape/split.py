"""Divide pictures into train, val and test so that nothing in one is known from another.

What belongs together stays together: the same picture again, one author, one series, one page.
"""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from dclib.data import CLASSES, SPLITS
from dclib.scrape.duplicates import UnionFind, distances, duplicate_groups

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
NOBODY = {"", "unknown", "unknown author", "unknown photographer", "anonymous", "none", "n/a"}
BRIDGE = "would link two splits"
GIANT = 0.2  # share of all pictures from which on one group deserves a warning


def group_rows(rows):
    """Which rows must stay together: lists of indices (connected components, union-find).

    Rows are dicts; joined by `duplicate_groups`, and by author (whatever the source), series and
    page where these are told.
    """
    union = UnionFind(len(rows))
    for group in duplicate_groups(rows):
        for other in group[1:]:
            union.join(group[0], other)
    for name in ("author", "series", "page"):
        values = (" ".join(str(row.get(name) or "").lower().split()) for row in rows)
        union.join_equal(["" if value in NOBODY else value for value in values])
    return union.groups()


def assign(rows, shares=SHARES, seed=0):
    """Give every row a group and a split: list of dicts {"group", "split", "reason"}, as `rows`.

    Args:
        rows: dicts with file, label, and what `group_rows` looks at; a row whose "split" is set
            was placed before and stays there for ever.
        shares: parts of the whole by name, as near as whole groups allow, for each label.

    A new row that would link pictures of two splits gets the split "" and a reason. The order of
    rows does not matter. Raises ValueError if a split would be without a class.
    """
    placed = [row.get("split") or "" for row in rows]
    bridges = set()
    for group in group_rows(rows):
        if len({placed[i] for i in group} - {""}) > 1:
            bridges |= {i for i in group if not placed[i]}
    kept = [i for i in range(len(rows)) if i not in bridges]
    groups = [[kept[i] for i in group] for group in group_rows([rows[i] for i in kept])]
    names = {i: min(_key(rows[j]) for j in group) for group in groups for i in group}
    splits = _fill(rows, groups, shares, seed)
    _check_classes(rows, splits, shares)
    return [
        {"group": "", "split": "", "reason": BRIDGE}
        if i in bridges
        else {"group": names[i][:16], "split": splits[i], "reason": ""}
        for i in range(len(rows))
    ]


def _key(row):
    return row.get("sha256") or row["file"]


def _fill(rows, groups, shares, seed):
    """{index: split}: large groups first, each to where it leaves the shares least uneven."""
    labels = Counter(rows[i]["label"] for group in groups for i in group)
    total = sum(shares.values())
    target = {s: {c: n * shares[s] / total for c, n in labels.items()} for s in shares}
    now, splits = defaultdict(Counter), {}

    def place(group, split):
        splits.update(dict.fromkeys(group, split))
        now[split].update(rows[i]["label"] for i in group)

    def cost(group, split):
        """Growth of the sum over classes of (now - target)^2 / target."""
        counts = Counter(rows[i]["label"] for i in group)
        return sum(
            n * (2 * (now[split][c] - target[split][c]) + n) / target[split][c]
            for c, n in counts.items()
        )

    fresh = []
    for group in groups:
        before = {rows[i].get("split") for i in group} - {"", None}
        if before:
            place(group, before.pop())
        else:
            name = min(_key(rows[i]) for i in group)
            lot = hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
            fresh.append((-len(group), lot, group))
    for _, _, group in sorted(fresh):
        place(group, min(shares, key=lambda split: cost(group, split)))
    return splits


def _check_classes(rows, splits, shares):
    there = {(split, rows[i]["label"]) for i, split in splits.items()}
    for split in shares:
        for label in CLASSES:
            if (split, label) not in there:
                raise ValueError(
                    f"{split} would have no {label} picture: there are too few pictures that are "
                    "independent of each other. Gather more, or ask for fewer splits."
                )


def check_leaks(rows):
    """Raise ValueError if a group of rows, computed anew, lies in two splits."""
    placed = [row for row in rows if row.get("split")]
    for group in group_rows(placed):
        splits = sorted({placed[i]["split"] for i in group})
        if len(splits) > 1:
            names = [f"{placed[i]['file']} ({placed[i]['split']})" for i in group[:6]]
            raise ValueError(
                f"{' and '.join(splits)} share a group (picture, author, series or page): "
                f"{', '.join(names)}. Numbers from such a split are too good."
            )


@dataclass(frozen=True)
class LeakReport:
    """What was checked about a split, as sentences; made by `leak_report`."""

    counts: dict  # split -> Counter of labels
    groups: int
    largest: int  # pictures in the largest group
    nearest: tuple  # (bits, file, file) of the closest pair in two splits, None if there is none
    left_out: int

    def __str__(self):
        lines = []
        for split, labels in self.counts.items():
            counts = ", ".join(f"{labels[name]} {name}" for name in CLASSES)
            lines.append(f"{split}: {labels.total()} pictures ({counts})")
        n = sum(labels.total() for labels in self.counts.values())
        lines.append(f"{self.groups} groups, the largest has {self.largest} of {n} pictures.")
        if self.largest > GIANT * n:
            lines.append("That is much: look at what holds it together before you trust a number.")
        if self.nearest:
            bits, first, second = self.nearest
            lines.append(
                f"The closest two pictures in different splits ({first}, {second}) differ in "
                f"{bits} of 64 bits."
            )
        if self.left_out:
            lines.append(f"{self.left_out} pictures left out: they would link two splits.")
        lines.append("No picture, author, series or page is in two splits.")
        return "\n".join(lines)


def leak_report(rows, left_out=0):
    """Check a split (`check_leaks`) and describe it. Rows as for `assign`, with their splits."""
    check_leaks(rows)
    there = {row.get("split") for row in rows}
    by_split = {s: [row for row in rows if row.get("split") == s] for s in SPLITS if s in there}
    groups = group_rows([row for placed in by_split.values() for row in placed])
    return LeakReport(
        {split: Counter(row["label"] for row in placed) for split, placed in by_split.items()},
        len(groups),
        max(map(len, groups), default=0),
        _closest(list(by_split.values())),
        left_out,
    )


def _closest(parts):
    """(bits, file, file) of the two most similar pictures in different parts, or None."""
    best = None
    for k, first in enumerate(parts):
        for second in parts[k + 1 :]:
            apart = distances(first, second)
            i, j = np.unravel_index(apart.argmin(), apart.shape)
            pair = (int(apart[i, j]), first[i]["file"], second[j]["file"])
            best = min(best or pair, pair)
    return best
