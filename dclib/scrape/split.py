"""Divide pictures into train, val and test so that nothing in one is known from another.

What belongs together stays together: the same picture again, one author, one series, one page.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dclib.data import CLASSES, SPLITS
from dclib.scrape.duplicates import UnionFind, distances, near_pairs

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
NOBODY = {"", "unknown", "unknown author", "unknown photographer", "anonymous", "none", "n/a"}
BRIDGE = "would link two splits"
GIANT = 0.2  # share of a class from which on one group deserves a warning
FEW = 10  # groups of a class in a split below which its numbers deserve one


def group_rows(rows: Sequence[dict]) -> list[list[int]]:
    """Which rows must stay together: lists of indices (connected components, union-find).

    Rows are dicts; joined by what makes pictures duplicates (see `duplicate_groups`), and by author
    (whatever the source), series and page where these are told.
    """
    return _groups(_links(rows))


def _links(rows: Sequence[dict]) -> list[set[tuple]]:
    """A set of keys for every row; rows with a common key belong together."""
    links: list[set[tuple]] = [set() for _ in rows]
    for i, row in enumerate(rows):
        for name in ("sha256", "pixel_sha256", "author", "series", "page"):
            if value := _told(row, name):
                links[i].add((name, value))
    for i, j in near_pairs(rows):
        links[i].add(("near", i, j))
        links[j].add(("near", i, j))
    return links


def _told(row: dict, name: str) -> str:
    """A value without what spelling makes of it; "" for nobody."""
    value = " ".join(str(row.get(name) or "").lower().split())
    return "" if value in NOBODY else value


def _groups(links: Sequence[set[tuple]]) -> list[list[int]]:
    union = UnionFind(len(links))
    first: dict[tuple, int] = {}
    for i, keys in enumerate(links):
        for key in keys:
            union.join(first.setdefault(key, i), i)
    return union.groups()


def assign(
    rows: Sequence[dict], shares: Mapping[str, float] = SHARES, seed: int = 0
) -> list[dict[str, str]]:
    """Give every row a group and a split: list of dicts {"group", "split", "reason"}, as `rows`.

    Args:
        rows: dicts with file, label, and what `group_rows` looks at; a row whose "split" is set
            was placed before and stays there for ever.
        shares: parts of the whole by name, as near as whole groups allow, for each label.

    A new row that would link pictures of two splits gets the split "" and a reason. The order of
    rows does not matter. Raises ValueError if a share is not above 0, if a split would be without a
    class, or if rows placed before turn out to belong together across splits.
    """
    if min(shares.values()) <= 0:
        raise ValueError(f"Every share must be above 0; leave out a split instead: {shares}.")
    links = _links(rows)
    bridges = _bridges(rows, links)
    kept = [i for i in range(len(rows)) if i not in bridges]
    groups = [[kept[i] for i in group] for group in _groups([links[i] for i in kept])]
    names = {i: min(_key(rows[j]) for j in group) for group in groups for i in group}
    splits = _fill(rows, groups, shares, seed)
    _check_classes(rows, splits, shares)
    return [
        {"group": "", "split": "", "reason": BRIDGE}
        if i in bridges
        else {"group": names[i], "split": splits[i], "reason": ""}
        for i in range(len(rows))
    ]


def _key(row: dict) -> str:
    return (row.get("sha256") or "")[:16] or row["file"]


def _bridges(rows: Sequence[dict], links: Sequence[set[tuple]]) -> set[int]:
    """Indices of new rows left out, so that nothing links two splits.

    Taken one by one, those placed before first, so that one bridge does not cost all it touches.
    """
    numbers = {key: n for n, key in enumerate(set().union(*links))}
    union, bridges = UnionFind(len(numbers)), set()
    split_of: dict[int, str] = {}
    for i in sorted(range(len(rows)), key=lambda i: (not rows[i].get("split"), _key(rows[i]))):
        roots = {union.find(numbers[key]) for key in links[i]}
        splits = {rows[i].get("split") or "", *(split_of.get(root, "") for root in roots)} - {""}
        if len(splits) > 1:
            if rows[i].get("split"):
                check_leaks(rows)  # raises, and names the pictures
            bridges.add(i)
            continue
        for root in roots:
            union.join(min(roots), root)
        if roots and splits:
            split_of[union.find(min(roots))] = splits.pop()
    return bridges


def _fill(
    rows: Sequence[dict], groups: list[list[int]], shares: Mapping[str, float], seed: int
) -> dict[int, str]:
    """{index: split}: large groups first, each to where it leaves the shares least uneven.

    The last groups of a class go to the splits that have none of it yet.
    """
    labels = Counter(rows[i]["label"] for group in groups for i in group)
    total = sum(shares.values())
    target = {s: {c: n * shares[s] / total for c, n in labels.items()} for s in shares}
    now: dict[str, Counter[str]] = defaultdict(Counter)
    splits: dict[int, str] = {}

    def place(group: list[int], split: str) -> None:
        splits.update(dict.fromkeys(group, split))
        now[split].update(rows[i]["label"] for i in group)

    def cost(group: list[int], split: str) -> float:
        """Growth of the sum over classes of (now - target)^2 / target."""
        counts = Counter(rows[i]["label"] for i in group)
        return sum(
            n * (2 * (now[split][c] - target[split][c]) + n) / target[split][c]
            for c, n in counts.items()
        )

    for group in groups:
        before = {rows[i].get("split") or "" for i in group} - {""}
        if before:
            place(group, before.pop())  # one at most: see _bridges
    fresh = [group for group in groups if group[0] not in splits]
    left = Counter(c for group in fresh for c in {rows[i]["label"] for i in group})
    for group in sorted(fresh, key=lambda group: (-len(group), _lot(rows, group, seed))):
        classes = {rows[i]["label"] for i in group}
        short = {c for c in classes if left[c] <= sum(not now[s][c] for s in shares)}
        needy = [s for s in shares if any(not now[s][c] for c in short)]
        place(group, min(needy or shares, key=lambda split: cost(group, split)))
        left.subtract(classes)
    return splits


def _lot(rows: Sequence[dict], group: list[int], seed: int) -> str:
    """What decides between groups of one size; the order of rows has no part in it."""
    name = min(_key(rows[i]) for i in group)
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def _check_classes(rows: Sequence[dict], splits: dict[int, str], shares: Iterable[str]) -> None:
    there = {(split, rows[i]["label"]) for i, split in splits.items()}
    for split in shares:
        for label in CLASSES:
            if (split, label) not in there:
                raise ValueError(
                    f"{split} would have no {label} picture: there are too few pictures that are "
                    "independent of each other. Gather more, or ask for fewer splits."
                )


def check_leaks(rows: Sequence[dict]) -> None:
    """Raise ValueError if a group of rows, computed anew, lies in two splits."""
    placed = [row for row in rows if row.get("split")]
    for group in group_rows(placed):
        splits = sorted({placed[i]["split"] for i in group})
        if len(splits) > 1:
            names = [f"{placed[i]['file']} ({placed[i]['split']})" for i in group[:6]]
            raise ValueError(
                f"{' and '.join(splits)} share a group (picture, author, series or page): "
                f"{', '.join(names)}. Numbers from such a split are too good; divide the pictures "
                "anew, into an empty folder."
            )


@dataclass(frozen=True)
class LeakReport:
    """What was checked about a split, as sentences; made by `leak_report`."""

    counts: dict[str, Counter[str]]  # split -> pictures of each label
    authors: dict[str, int]  # split -> known authors
    groups: int
    largest: int  # pictures in the largest group
    giant: tuple[float, str]  # (share, label): the largest part of a class that one group holds
    few: list[tuple[str, str, int]]  # (split, label, groups) below FEW
    nearest: tuple[int, str, str] | None  # (bits, file, file) of the closest pair in two splits
    left_out: int

    def __str__(self) -> str:
        lines = []
        for split, labels in self.counts.items():
            counts = ", ".join(f"{labels[name]} {name}" for name in CLASSES)
            by = f" by {self.authors[split]} known authors" if self.authors[split] else ""
            lines.append(f"{split}: {labels.total()} pictures ({counts}){by}")
        n = sum(labels.total() for labels in self.counts.values())
        lines.append(f"{self.groups} groups, the largest has {self.largest} of {n} pictures.")
        share, label = self.giant
        if share > GIANT:
            lines.append(
                f"One group has {share:.0%} of the {label} pictures: look at what holds it "
                "together before you trust a number."
            )
        for split, label, groups in self.few:
            lines.append(f"Few for a number you can trust: {groups} {label} groups in {split}.")
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


def leak_report(rows: Sequence[dict], left_out: int = 0) -> LeakReport:
    """Check a split (`check_leaks`) and describe it. Rows as for `assign`, with their splits."""
    check_leaks(rows)
    there = {row.get("split") for row in rows}
    by_split = {s: [row for row in rows if row.get("split") == s] for s in SPLITS if s in there}
    groups = [
        [placed[i] for i in group] for placed in by_split.values() for group in group_rows(placed)
    ]
    counts = {s: Counter(row["label"] for row in placed) for s, placed in by_split.items()}
    labels = sum(counts.values(), Counter())
    parts = [(Counter(row["label"] for row in group), group[0]["split"]) for group in groups]
    spread = Counter((split, label) for part, split in parts for label in part)
    shares = [(n / labels[label], label) for part, _ in parts for label, n in part.items()]
    return LeakReport(
        counts,
        {s: len({_told(row, "author") for row in placed} - {""}) for s, placed in by_split.items()},
        len(groups),
        max(map(len, groups), default=0),
        max(shares, default=(0, "")),
        [(s, c, spread[s, c]) for s in by_split for c in CLASSES if spread[s, c] < FEW],
        _closest(list(by_split.values())),
        left_out,
    )


def _closest(parts: list[list[dict]]) -> tuple[int, str, str] | None:
    """(bits, file, file) of the two most similar pictures in different parts, or None."""
    parts = [hashed for part in parts if (hashed := [row for row in part if row.get("phash")])]
    best = None
    for k, first in enumerate(parts):
        for second in parts[k + 1 :]:
            apart = distances(first, second)
            i, j = np.unravel_index(apart.argmin(), apart.shape)
            pair = (int(apart[i, j]), first[i]["file"], second[j]["file"])
            best = min(best or pair, pair)
    return best
