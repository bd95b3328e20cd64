"""Can the labels be guessed without looking at the couple? A probe for any data set.

If size, weight or mean colour of a file give its label away, a network may learn that instead.
Here are also what every check for shortcuts tells, and fits that leave whole groups out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import norm

from dclib.data import CLASSES, read_split, splits_of
from dclib.data.listing import patiently, sort_out
from dclib.data.metadata import group_names
from dclib.evaluate.intervals import TAILS, area_intervals, auroc
from dclib.files import extra
from dclib.pictures import read_picture

HIGH = 0.65  # area under the curve from which on, if its interval agrees, we warn
NUMBERS = ("width", "height", "bytes", "red", "green", "blue")
FOLDS = 5
METADATA = "metadata"


@dataclass(frozen=True)
class Check:
    """How well something other than the couple tells the classes apart, with a 95 % interval."""

    name: str
    says: str  # what was tried, or why it could not be (n = 0)
    auroc: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    groups: int = 0
    columns: Mapping[str, float] = field(default_factory=dict)  # the AUROC of each by itself
    alone: int = 0  # pictures whose group nobody told
    checks: int = 1  # made at once, for which a warning is corrected (Bonferroni)

    @property
    def corrected_low(self) -> float:
        """Lower end of the interval, stretched from 95 % to what so many checks need."""
        wider = norm.isf(0.025 / self.checks) / norm.isf(TAILS[0])
        return self.auroc - wider * (self.auroc - self.low)

    @property
    def warns(self) -> bool:
        """Whether the area is above `HIGH`, and more than chance gives."""
        return bool(self.auroc > HIGH and self.corrected_low > 0.5)

    def __str__(self) -> str:
        if not self.n:
            return f"{self.name}: left out, {self.says}."
        ends = f"95 % interval {self.low:.2f} to {self.high:.2f}"
        ends = ends if np.isfinite(self.low) else "no interval"
        verdict = "WARNING" if self.warns else "no warning"
        sentences = [
            f"{self.name}: {verdict}. {self.says} told the classes apart with AUROC "
            f"{self.auroc:.2f} ({ends}; 0.5 is guessing), n = {self.n} in {self.groups} groups."
        ]
        if self.alone:
            sentences.append(
                f"{self.alone} pictures have no group and count as one each; if some belong "
                "together, the interval is too narrow."
            )
        if self.columns and self.warns:
            sentences.append("A network may learn that: gather both classes in the same way.")
        elif self.columns:
            sentences.append("There may be other shortcuts.")
        return " ".join(sentences)


def probe(rows: Sequence[dict], seed: int = 0) -> Check:
    """Try to tell the classes apart by metadata alone, with a cross-validated logistic regression.

    `rows` are dicts with label, width, height (pixels), bytes, red, green, blue (means, 0 to 255)
    and perhaps source and group; without a group every row is its own. The interval takes the
    scores as they are: of labels by lot, 85 of 100 held 0.5, and 1 of 100 probes warned.
    """
    scores, groups = guess(rows, seed)
    names, columns = _columns(rows)
    labels = np.array([row["label"] == CLASSES[1] for row in rows])
    once = np.ones((1, len(rows)))
    areas = {name: auroc(c, labels, once).item() for name, c in zip(names, columns.T, strict=True)}
    best = sorted(areas, key=lambda name: -abs(areas[name] - 0.5))[:3]
    counts = Counter(row["label"] for row in rows)
    says = (
        f"Size, weight, mean colour and source of {counts['happy']} happy and {counts['unhappy']} "
        f"unhappy pictures (most of all {', '.join(best)})"
    )
    area, low, high = area_intervals(scores[None], labels, groups, seed=seed)[0].tolist()
    alone = group_names(rows).count("")
    n, n_groups = len(rows), int(groups.max()) + 1
    return Check(METADATA, says, area, low, high, n, n_groups, areas, alone)


def guess(rows: Sequence[dict], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of "unhappy" by metadata alone, of fits without the row's group; and the groups."""
    labels, (_, columns) = np.array([CLASSES.index(row["label"]) for row in rows]), _columns(rows)
    names = [name or f"row {i}" for i, name in enumerate(group_names(rows))]
    groups = np.unique(names, return_inverse=True)[1]
    return fit_folds(columns, labels, groups, seed=seed)[0], groups


def _columns(rows: Sequence[dict]) -> tuple[list[str], np.ndarray]:
    """Names and values, (rows, columns), of what may give a label away."""
    values = {name: np.array([float(row[name]) for row in rows]) for name in NUMBERS}
    values["aspect"] = values["width"] / values["height"]
    values["bytes a pixel"] = values["bytes"] / (values["width"] * values["height"])
    values["brightness"] = (values["red"] + values["green"] + values["blue"]) / 3
    sources = [str(row.get("source") or "") for row in rows]
    for source in sorted(set(sources)):
        values[f"source {source or 'unknown'}"] = np.array([float(s == source) for s in sources])
    for name in ("width", "height", "bytes", "bytes a pixel"):
        values[name] = np.log(values[name])
    return list(values), np.stack(list(values.values()), axis=1)


def measure_pictures(root: str | Path, splits: Iterable[str] | None = None) -> list[dict]:
    """Rows for `probe` from a data set folder, with id and what its metadata.csv says.

    All splits by default. Size and bytes are those of metadata.csv where it has them (of the
    originals), else the file's. Pictures that cannot be read are printed and left out.
    """
    rows = []
    for split in splits or splits_of(root):
        folder = Path(root) / split
        pictures, metadata, notes = read_split(folder)
        pictures, unreadable = sort_out(pictures)
        for sentence in (*notes, *(f"Left out of {split}: {why}" for _, why in unreadable)):
            print(sentence)
        for path, label in pictures:
            row = metadata.get(path.relative_to(folder).as_posix(), {})
            known = {name: value for name, value in row.items() if value}
            _check_numbers(known, folder / "metadata.csv")
            name = {"id": path.relative_to(root).as_posix(), "label": CLASSES[label]}
            rows.append(_measure(path) | known | name)
    return rows


def _check_numbers(row: Mapping[str, str], path: Path) -> None:
    """Raise ValueError, naming file and column, for a number of a picture that is none."""
    for name in NUMBERS:
        least, wanted = (0, "above 0") if name in NUMBERS[:3] else (-np.inf, "finite")
        try:
            fits = least < float(row.get(name, 1)) < np.inf
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"{path} has {name} {row[name]!r} for {row['file_name']}; write a number that is "
                f"{wanted}, or leave the cell empty."
            )


def _measure(path: Path) -> dict:
    image = patiently(read_picture, path).image
    row = {"width": image.width, "height": image.height, "bytes": path.stat().st_size}
    means = np.asarray(image).mean((0, 1)).tolist()
    return row | dict(zip(("red", "green", "blue"), means, strict=True))


def grouped_folds(
    labels: np.ndarray, groups: np.ndarray, n: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rest, fold), indices, of n folds that hold whole groups and even shares of the classes."""
    with extra("evaluate"):
        from sklearn.model_selection import StratifiedGroupKFold
    # Groups are shuffled here: with shuffle=True scikit-learn before 1.8 loses the strata.
    names = rng.permutation(groups.max() + 1)[groups]
    return list(StratifiedGroupKFold(n).split(labels, labels, names))


def fit_folds(
    columns: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int = 0,
    inverse_penalty: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of "unhappy" by logistic regressions that never saw the row's group, and its fold.

    `columns` (N, columns) are standardised here, `labels` (N,) 0 or 1, `groups` (N,) numbers from
    0; `inverse_penalty` is C of scikit-learn: the smaller, the flatter the fit.
    """
    with extra("evaluate"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    for index, name in enumerate(CLASSES):
        if len(set(groups[labels == index])) < FOLDS:
            raise ValueError(
                f"The probe needs {FOLDS} independent {name} pictures or more; gather more first."
            )
    scores, fold = np.zeros(len(labels)), np.zeros(len(labels), int)
    cuts = grouped_folds(labels, groups, FOLDS, np.random.default_rng(seed))
    for number, (train, test) in enumerate(cuts):
        regression = LogisticRegression(C=inverse_penalty, max_iter=1000)
        model = make_pipeline(StandardScaler(), regression)
        model.fit(columns[train], labels[train])
        scores[test], fold[test] = model.decision_function(columns[test]), number
    return scores, fold
