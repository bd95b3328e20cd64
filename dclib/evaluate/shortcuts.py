"""Does a network answer from the couple, or from something that came along with the labels?

Five checks, each a number with its 95 % interval, a verdict and a sentence:

metadata            can size, weight, mean colour and source of the files tell the classes apart?
surroundings        can a coarse thumbnail in which the couple is painted over?
couple hidden       can the network, when it sees the surroundings only?
brightness matched  is the network right less often when both classes are equally bright?
source left out     is it right less often on pictures of a source that it was not trained on?

The first two need no network. A check warns if its effect is large enough to matter (`HIGH`,
`DROP`) and its interval, made wider for five checks (Bonferroni), leaves out what chance gives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import norm
from torch import Tensor
from torch.utils.data import Dataset

from dclib.checkpoint import Checkpoint
from dclib.data import CLASSES, splits_of
from dclib.data.loading import CoupleFolder, keep, make_loader, read_boxes
from dclib.evaluate.intervals import TAILS, estimate
from dclib.evaluate.metrics import compare
from dclib.evaluate.predictions import (
    answers,
    choices_of,
    describe,
    make_table,
    predict_folder,
    probabilities,
)
from dclib.evaluate.probe import HIGH, area_interval, fit_folds, measure_pictures, probe
from dclib.files import extra
from dclib.predict import predict_logits

with extra("evaluate"):
    import pandas as pd

DROP = 0.05  # accuracy lost from which on, if its interval agrees, we warn
METADATA, SURROUNDINGS, HIDDEN = "metadata", "surroundings", "couple hidden"
BRIGHTNESS = "brightness matched"
NAMES = (METADATA, SURROUNDINGS, HIDDEN, BRIGHTNESS)
CONFIDENCE = 1 - 0.05 / len(NAMES)
CHANCE = {"AUROC": 0.5, "accuracy lost": 0.0}
LEAST = {"AUROC": HIGH, "accuracy lost": DROP}
_NO_BOXES = "metadata.csv tells no boxes of the couple (column body_boxes) in both classes"
COARSE, FINE = 12, 96  # pixels a side of a thumbnail, and of the picture that it is made from
GROW = 0.2  # share of its sides by which a face box is grown on all four: hair and ears look out


@dataclass(frozen=True)
class Check:
    """One check: `value` of `measure` with its 95 % interval over `n` pictures.

    `says` is what was done; of a check that was left out (n = 0), why.
    """

    name: str
    says: str
    measure: str = ""
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n: int = 0

    @property
    def corrected_low(self) -> float:
        """Lower end of the interval, stretched from 95 % to what so many checks need."""
        wider = norm.ppf((1 + CONFIDENCE) / 2) / norm.ppf(TAILS[1])
        return self.value - wider * (self.value - self.low)

    @property
    def warns(self) -> bool:
        """Whether the effect is large enough to matter, and more than chance gives."""
        if not self.n:
            return False
        return self.value > LEAST[self.measure] and self.corrected_low > CHANCE[self.measure]

    @property
    def verdict(self) -> str:
        """In words: "WARNING", "no warning" or "left out"."""
        return ("WARNING" if self.warns else "no warning") if self.n else "left out"

    def __str__(self) -> str:
        if not self.n:
            return f"{self.name}: left out, {self.says}."
        interval = f"95 % interval {self.low:.2f} to {self.high:.2f}"
        interval = interval if np.isfinite(self.low) else "no interval"  # one group
        return (
            f"{self.name}: {self.verdict}. {self.says}: {self.measure} {self.value:.2f} "
            f"({interval}, n = {self.n})."
        )


@dataclass(frozen=True)
class Audit:
    """The checks of one network on one data set; `title` says which."""

    title: str
    checks: tuple[Check, ...]

    @property
    def warns(self) -> bool:
        """Whether one of the checks does."""
        return any(check.warns for check in self.checks)

    @property
    def table(self) -> pd.DataFrame:
        """A DataFrame with one row a check."""
        names = ("name", "measure", "value", "low", "high", "corrected_low", "n", "verdict", "says")
        return pd.DataFrame([{name: getattr(c, name) for name in names} for c in self.checks])

    def __str__(self) -> str:
        done = sum(check.n > 0 for check in self.checks)
        found = [check.name for check in self.checks if check.warns]
        end = f"Found: {', '.join(found)}; look there before you trust the accuracy."
        nothing = f"Nothing was found by {done} checks; a shortcut of another kind may be there."
        return "\n  ".join(
            [
                self.title,
                *map(str, self.checks),
                f"A warning needs an AUROC above {HIGH} or {DROP} accuracy lost, and an interval "
                f"of {100 * CONFIDENCE:.0f} % (Bonferroni, {len(NAMES)} checks) without chance.",
                end if found else nothing,
            ]
        )


def audit(checkpoint: Checkpoint, root: str | Path) -> Audit:
    """Look for shortcuts of a loaded checkpoint on a data set.

    Networks answer to the split test, which decided nothing in training; the checks without a
    network take all splits.

    Raises what `predict_folder` raises. A check that the pictures do not allow says why instead.
    """
    before = predict_folder(checkpoint, root)
    dataset = CoupleFolder(root, "test", checkpoint.transform, checkpoint.model.classes)
    checks = (
        check_metadata(root),
        check_surroundings(root),
        check_hidden(checkpoint, dataset),
        check_brightness(checkpoint, dataset, before),
    )
    title = f"{checkpoint.folder} on {Path(root).name}/test, {describe(before)}"
    return Audit(title, checks)


def check_metadata(root: str | Path) -> Check:
    """`dclib.evaluate.probe.probe` on all splits of a data set, as a `Check`."""
    try:
        found = probe(measure_pictures(root))
    except ValueError as error:
        return Check(METADATA, _because(error))
    best = max(found.columns, key=lambda name: abs(found.columns[name] - 0.5))
    says = f"Size, weight, mean colour and source of the files (most of all: {best}) by themselves"
    n = sum(found.counts.values())
    return Check(METADATA, says, "AUROC", found.auroc, found.low, found.high, n)


def check_surroundings(root: str | Path) -> Check:
    """What a logistic regression on coarse thumbnails without the couple tells of the classes.

    All splits, each picture by a fit that never saw its group. It finds what is at the same place
    in many pictures, such as a mark, or all over them, such as a gap in brightness or tone.
    """
    parts = []
    for split in splits_of(root):
        dataset, boxes = with_boxes(CoupleFolder(root, split))
        if len(set(dataset.labels.tolist())) == len(CLASSES):
            parts.append((thumbnails(dataset, boxes), dataset.labels, dataset.groups))
    if not parts:
        return Check(SURROUNDINGS, _NO_BOXES)
    columns, labels, groups = (np.concatenate(part) for part in zip(*parts, strict=True))
    groups = np.unique(groups, return_inverse=True)[1]
    try:
        scores, _ = fit_folds(columns, labels, groups, inverse_penalty=0.01)
    except ValueError as error:
        return Check(SURROUNDINGS, _because(error))
    says = "A probe of coarse thumbnails with the couple painted over"
    return _area(SURROUNDINGS, says, labels, scores, groups)


def check_hidden(checkpoint: Checkpoint, dataset: CoupleFolder) -> Check:
    """What the network tells of the classes when the couple is painted over."""
    dataset, boxes = with_boxes(dataset)
    labels = dataset.labels.numpy()
    if len(set(labels)) < len(CLASSES):
        return Check(HIDDEN, _NO_BOXES)
    hidden = pair_boxes(boxes, labels)
    table = answer(
        checkpoint, dataset, lambda image, i: Image.fromarray(paint(np.asarray(image), hidden[i]))
    )
    labels = (table["label"] == CLASSES[1]).to_numpy().astype(int)
    groups = np.unique(table["group"], return_inverse=True)[1]
    says = "The network on pictures with the couple painted over"
    return _area(HIDDEN, says, labels, probabilities(table), groups)


def check_brightness(checkpoint: Checkpoint, dataset: CoupleFolder, before: pd.DataFrame) -> Check:
    """What the network loses when both classes have the same distribution of brightness.

    `before`: the table of its answers to the pictures as they are, in the order of `dataset`.
    """
    n = range(len(dataset))
    levels = np.array([np.asarray(dataset.picture(i).convert("L")).mean() for i in n])
    factors = match_levels(levels, dataset.labels.numpy())
    after = answer(checkpoint, dataset, lambda image, i: brighten(image, factors[i]))
    means = [levels[dataset.labels.numpy() == label].mean() for label in range(len(CLASSES))]
    greys = " and ".join(f"{m:.0f} {name}" for m, name in zip(means, dataset.classes, strict=True))
    says = f"The network on pictures with both classes made equally bright (mean grey was {greys})"
    return _lost(BRIGHTNESS, says, before, after)


def answer(
    checkpoint: Checkpoint,
    dataset: CoupleFolder,
    change: Callable[[Image.Image, int], Image.Image],
) -> pd.DataFrame:
    """The table of predictions of a checkpoint; change(picture, index) gives what it sees."""
    logits, _ = predict_logits(checkpoint.model, make_loader(Changed(dataset, change), 32))
    return make_table(dataset, logits, **choices_of(checkpoint))


def _area(
    name: str, says: str, labels: np.ndarray, scores: np.ndarray, groups: np.ndarray
) -> Check:
    return Check(name, says, "AUROC", *area_interval(labels, scores, groups), len(labels))


def _lost(name: str, says: str, before: pd.DataFrame, after: pd.DataFrame) -> Check:
    """The paired difference in accuracy of two tables, rows in the same order, as a `Check`.

    Where nothing varies, as when all answers become the same, the interval is that of
    `dclib.evaluate.intervals.estimate`, so that the plainest shortcut is not left without one.
    """
    found = compare(before, after).loc["accuracy"]
    low, high = found["low"], found["high"]
    rights = [(answers(t) == (t["label"] == CLASSES[1])).to_numpy(float) for t in (before, after)]
    if not np.isfinite(low) and before["group"].nunique() > 1:
        _, low, high, *_ = estimate([rights[0] - rights[1]], before["group"])
    says += f", right {rights[1].mean():.0%} of the time instead of {rights[0].mean():.0%}"
    return Check(name, says, "accuracy lost", found["value"], low, high, int(found["n"]))


def _because(error: Exception) -> str:
    return str(error).rstrip(".")


class Changed(Dataset):
    """The items of a `CoupleFolder`, its pictures changed by `change(image, index)` before."""

    def __init__(
        self, dataset: CoupleFolder, change: Callable[[Image.Image, int], Image.Image]
    ) -> None:
        self.dataset, self.change = dataset, change

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.change(self.dataset.picture(index), index)
        return self.dataset.transform(image), self.dataset.samples[index][1]


def with_boxes(dataset: CoupleFolder) -> tuple[CoupleFolder, list[np.ndarray]]:
    """Those pictures that have boxes, and the boxes; see `find_couples`."""
    boxes = find_couples(dataset)
    wanted = [index for index, found in enumerate(boxes) if len(found)]
    return keep(dataset, wanted), [boxes[index] for index in wanted]


def find_couples(dataset: CoupleFolder) -> list[np.ndarray]:
    """Where the couple of each picture is: [(K, 4), ...], x0, y0, x1, y1 as shares of its sides.

    From the columns body_boxes and boxes (faces, grown by `GROW`) of metadata.csv. Without growing,
    hair alone told the classes of drawn couples apart with AUROC 0.73, because it shows where the
    heads are; with it 0.49. Empty (0, 4) for a picture without boxes of bodies: faces alone would
    leave most of the couple to be seen. Raises ValueError as `dclib.data.read_boxes` does.
    """
    found = []
    both = zip(read_boxes(dataset, "body_boxes"), read_boxes(dataset), strict=True)
    for index, (bodies, faces) in enumerate(both):
        if len(bodies):
            sides = np.tile(faces[:, 2:] - faces[:, :2], 2)  # (K, 4)
            grown = faces + GROW * sides * (-1, -1, 1, 1)
            bodies = np.concatenate([bodies, grown]) / np.tile(dataset.picture(index).size, 2)
        found.append(bodies)
    return found


def pair_boxes(boxes: Sequence[np.ndarray], labels: np.ndarray) -> list[np.ndarray]:
    """The boxes of each picture, and those of one of the other class drawn at random.

    What is painted over would tell by its shape how close a couple is. So does the union of the
    boxes of a happy and an unhappy picture, but not whose picture it is. `labels` (N,) are 0 and 1;
    raises ValueError if all are the same.
    """
    rng = np.random.default_rng(0)
    others = [np.flatnonzero(labels != label) for label in (0, 1)]
    return [
        np.concatenate([own, boxes[rng.choice(others[label])]])
        for own, label in zip(boxes, labels, strict=True)
    ]


def paint(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes (shares of the sides) painted with the mean colour of the rest: (H, W, 3) uint8.

    Mid grey where there is no rest. Nothing of what was painted over has a say in the colour.
    """
    height, width = pixels.shape[:2]
    hidden = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in np.clip(boxes, 0, 1) * (width, height, width, height):
        hidden[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    painted = pixels.copy()
    painted[hidden] = 127 if hidden.all() else np.rint(pixels[~hidden].mean(0))
    return painted


def thumbnails(dataset: CoupleFolder, boxes: Sequence[np.ndarray]) -> np.ndarray:
    """The surroundings of all pictures, coarse: (N, COARSE * COARSE * 3) floats, 0 to 255.

    `boxes` as `with_boxes` gives them; painted over are those of `pair_boxes`.
    """
    rows, step = [], FINE // COARSE
    for index, hidden in enumerate(pair_boxes(boxes, dataset.labels.numpy())):
        image = dataset.picture(index)
        small = image.resize((FINE, FINE), Image.Resampling.BILINEAR, reducing_gap=2.0)
        cells = paint(np.asarray(small), hidden).reshape(COARSE, step, COARSE, step, 3)
        rows.append(cells.mean((1, 3)).ravel())
    return np.array(rows)


def match_levels(levels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Factors (N,) after which both classes have the same distribution of mean levels (N,).

    Each picture gets the level that has, among all pictures, the rank that it has in its class: the
    order within a class stays, and where the classes are alike next to nothing is changed.
    """
    wanted = np.zeros(len(levels))
    for label in set(labels.tolist()):
        members = np.flatnonzero(labels == label)
        ranks = levels[members].argsort(kind="stable").argsort()
        wanted[members] = np.quantile(levels, (ranks + 0.5) / len(members), method="hazen")
    return wanted / np.maximum(levels, 1)


def brighten(image: Image.Image, factor: float) -> Image.Image:
    """All values of an RGB picture times a factor, cut off at 255."""
    return image.point([min(255, round(value * factor)) for value in range(256)] * 3)
