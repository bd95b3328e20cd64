"""Can the labels be guessed without looking at the couple? A probe for any data set.

If size, weight or mean colour of a file give its label away, a network may learn that instead.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dclib.data import CLASSES, list_pictures, read_metadata, splits_of
from dclib.evaluate.intervals import TAILS
from dclib.evaluate.metrics import Ranking, area_under_roc, auroc
from dclib.files import extra
from dclib.pictures import PictureError, read_picture

with extra("evaluate"):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

HIGH = 0.65  # area under the curve from which on, if its interval agrees, we warn
DRAWS = 1000
NUMBERS = ("width", "height", "bytes", "red", "green", "blue")
FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """How well metadata alone separates the classes: areas under the ROC curve, 0.5 is guessing.

    `auroc` with its 95 % interval `low` to `high` over `groups` groups, `alone` of them pictures
    whose group nobody told; `counts`: pictures by class; `columns`: the area of each by itself.
    """

    auroc: float
    low: float
    high: float
    counts: dict[str, int]
    groups: int
    columns: dict[str, float]
    alone: int = 0

    @property
    def warns(self) -> bool:
        """Whether the area is above `HIGH`, and the interval above guessing."""
        return self.auroc > HIGH and self.low > 0.5

    def __str__(self) -> str:
        n = sum(self.counts.values())
        counts = ", ".join(f"{self.counts[name]} {name}" for name in CLASSES)
        text = (
            f"{n} pictures ({counts}) in {self.groups} groups. A classifier that sees only size, "
            f"weight, mean colour and source tells the classes apart with AUROC {self.auroc:.2f} "
            f"(95 % interval {self.low:.2f} to {self.high:.2f}; 0.5 is guessing). "
        )
        if self.alone:
            text += (
                f"{self.alone} pictures have no group and count as one each; if some belong "
                "together, the interval is too narrow. "
            )
        if self.warns:
            best = sorted(self.columns, key=lambda name: -abs(self.columns[name] - 0.5))[:3]
            return text + (
                f"WARNING: the labels can be guessed from {', '.join(best)}; a network may learn "
                "that instead of the couple. Gather both classes in the same way."
            )
        return text + "No shortcut found in these columns; there may be others."


def probe(rows: Sequence[dict], seed: int = 0) -> Probe:
    """Try to tell the classes apart by metadata alone.

    Args:
        rows: dicts with label, width, height (pixels), bytes, red, green, blue (means, 0 to 255)
            and perhaps source and group; without a group every row is its own.

    Logistic regression, cross-validated so that no group is in training and test; the interval is
    a bootstrap over groups, of the scores as they are: for labels drawn by lot, 82 of 100 such
    intervals held 0.5 (100 pictures each), and 4 of 100 probes warned. Raises ValueError if a class
    has fewer than `dclib.evaluate.probe.FOLDS` groups.
    """
    labels = np.array([CLASSES.index(row["label"]) for row in rows])
    scores, groups = guess(rows, seed)
    unknown = sum(not row.get("group") for row in rows)
    names, columns = _columns(rows)
    once = np.ones((1, len(rows)))
    areas = [auroc(column, labels == 1, once).item() for column in columns.T]
    alone = dict(zip(names, areas, strict=True))
    counts = Counter(CLASSES[label] for label in labels)
    found = area_interval(labels, scores, groups, seed)
    return Probe(*found, counts, int(groups.max()) + 1, alone, unknown)


def guess(rows: Sequence[dict], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of "unhappy" from metadata alone, each from a fit that left its group out: (N,).

    Returns them and the number of each row's group (N,). Raises as `probe` does.
    """
    labels, (_, columns) = np.array([CLASSES.index(row["label"]) for row in rows]), _columns(rows)
    told = [row.get("group") or f"row {i}" for i, row in enumerate(rows)]
    groups = np.unique(told, return_inverse=True)[1]
    return fit_folds(columns, labels, groups, seed=seed)[0], groups


def _columns(rows: Sequence[dict]) -> tuple[list[str], np.ndarray]:
    """Names and values, (rows, columns), of what may give a label away."""
    values = {name: np.array([float(row[name]) for row in rows]) for name in NUMBERS}
    pixels = values["width"] * values["height"]
    values["aspect"] = values["width"] / values["height"]
    values["bytes a pixel"] = values["bytes"] / pixels
    values["brightness"] = (values["red"] + values["green"] + values["blue"]) / 3
    sources = [str(row.get("source") or "") for row in rows]
    for source in sorted(set(sources)):
        values[f"source {source or 'unknown'}"] = np.array([float(s == source) for s in sources])
    for name in ("width", "height", "bytes", "bytes a pixel"):
        values[name] = np.log(values[name])
    return list(values), np.stack(list(values.values()), axis=1)


def area_interval(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """(area, low, high): AUROC of scores (N,), groups drawn with replacement (Efron 1979).

    `labels` (N,) are 0 and 1, both of them there; `groups` (N,) are numbers from 0.
    """
    rng, n = np.random.default_rng(seed), groups.max() + 1
    ranking = Ranking(scores)
    areas: list[float] = []
    while len(areas) < DRAWS:
        times = np.bincount(rng.integers(n, size=n), minlength=n)[groups]  # each row was drawn
        unhappy, happy = ranking.count(labels == 1, times[None])
        if unhappy.any() and happy.any():
            areas.append(area_under_roc(unhappy, happy).item())
    low, high = np.quantile(areas, TAILS).tolist()
    return auroc(scores, labels == 1, np.ones((1, len(scores)))).item(), low, high


def measure_pictures(root: str | Path, splits: Iterable[str] | None = None) -> list[dict]:
    """Rows for `probe` from a data set folder, with id and what its metadata.csv tells.

    All splits by default, or those that are named.
    Size and bytes are those of metadata.csv where it has them (of the originals), else the file's.
    Pictures that cannot be read are printed and left out, as `CoupleFolder` does. Raises
    FileNotFoundError for a missing folder, and ValueError for one of a class without pictures and
    for a width, height or bytes in metadata.csv that is not above 0, or a red, green or blue that
    is no number.
    """
    rows = []
    for split in splits or splits_of(root):
        folder = Path(root) / split
        told = read_metadata(folder)
        for path, label in list_pictures(folder, CLASSES):
            row = told.get(path.relative_to(folder).as_posix(), {})
            known = {name: value for name, value in row.items() if value}
            _check_numbers(known, folder / "metadata.csv")
            try:
                name = {"id": path.relative_to(root).as_posix(), "label": CLASSES[label]}
                rows.append(_measure(path) | known | name)
            except (PictureError, OSError) as error:
                print(f"Left out of {split}: {error}")
    return rows


def _check_numbers(told: Mapping[str, str], path: Path) -> None:
    """Raise ValueError, naming file and column, for a number of a picture that is none."""
    for name in NUMBERS:
        least, wanted = (0, "above 0") if name in NUMBERS[:3] else (-np.inf, "finite")
        try:
            fits = least < float(told.get(name, 1)) < np.inf
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"{path} has {name} {told[name]!r} for {told['file_name']}; write a number that is "
                f"{wanted}, or leave the cell empty."
            )


def _measure(path: Path) -> dict:
    image = read_picture(path).image
    row = {"width": image.width, "height": image.height, "bytes": path.stat().st_size}
    means = np.asarray(image).mean((0, 1)).tolist()
    return row | dict(zip(("red", "green", "blue"), means, strict=True))


def grouped_folds(
    labels: np.ndarray, groups: np.ndarray, n: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rest, fold), indices, of n folds that hold whole groups and even shares of the classes."""
    # Groups are shuffled here: with shuffle=True scikit-learn before 1.8 loses the strata.
    names = rng.permutation(groups.max() + 1)[groups]
    return list(StratifiedGroupKFold(n).split(labels, labels, names))


def fit_folds(
    columns: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    folds: int = FOLDS,
    seed: int = 0,
    inverse_penalty: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of "unhappy" by logistic regressions that never saw the row's group.

    Args:
        columns: (N, columns), standardised here.
        labels: (N,) 0 or 1.
        groups: (N,) numbers from 0.
        inverse_penalty: C of scikit-learn; the smaller, the flatter the fit.

    Returns them (N,) and each row's fold (N,). Raises ValueError if a class has fewer groups than
    `folds`.
    """
    for index, name in enumerate(CLASSES):
        if len(set(groups[labels == index])) < folds:
            raise ValueError(
                f"The probe needs {folds} independent {name} pictures or more; gather more first."
            )
    scores, fold = np.zeros(len(labels)), np.zeros(len(labels), int)
    cuts = grouped_folds(labels, groups, folds, np.random.default_rng(seed))
    for number, (train, test) in enumerate(cuts):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=1000)
        )
        model.fit(columns[train], labels[train])
        scores[test], fold[test] = model.decision_function(columns[test]), number
    return scores, fold
