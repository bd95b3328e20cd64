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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import norm

from dclib.checkpoint import Checkpoint
from dclib.config import TrainConfig
from dclib.data import CLASSES, CoupleFolder, make_loader, splits_of
from dclib.evaluate import predict_logits
from dclib.evaluation.interventions import (
    Changed,
    brighten,
    match_levels,
    paint,
    pair_boxes,
    thumbnails,
    with_boxes,
)
from dclib.evaluation.parts import fit_folds, keep
from dclib.evaluation.shortcuts import HIGH, area_interval, measure_pictures, probe
from dclib.extras import extra
from dclib.intervals import TAILS, estimate
from dclib.metrics import compare
from dclib.predictions import (
    answers,
    choices_of,
    describe,
    make_table,
    predict_folder,
    probabilities,
)
from dclib.train import build_model, fit, load_splits

with extra("evaluate"):
    import pandas as pd

DROP = 0.05  # accuracy lost from which on, if its interval agrees, we warn
METADATA, SURROUNDINGS, HIDDEN = "metadata", "surroundings", "couple hidden"
BRIGHTNESS, SOURCES = "brightness matched", "source left out"
NAMES = (METADATA, SURROUNDINGS, HIDDEN, BRIGHTNESS, SOURCES)
CONFIDENCE = 1 - 0.05 / len(NAMES)
CHANCE = {"AUROC": 0.5, "accuracy lost": 0.0}
LEAST = {"AUROC": HIGH, "accuracy lost": DROP}


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
        """Lower end of the interval, stretched from 95 % to what five checks need."""
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
    """The five checks of one network on one data set; `title` says which."""

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


def audit(checkpoint: Checkpoint, root: str | Path, train: TrainConfig | None = None) -> Audit:
    """Look for shortcuts of a loaded checkpoint on a data set.

    Networks answer to the split test, which decided nothing in training; the checks without a
    network take all splits.

    Args:
        train: settings for "source left out", which trains two networks for each source, so it
            takes long. None leaves that check out.

    Raises what `dclib.predictions.predict_folder` raises, and with `train` what `load_splits` and
    `fit` do. A check that the pictures do not allow says why instead.
    """
    before = predict_folder(checkpoint, root)
    dataset = CoupleFolder(root, "test", checkpoint.transform, checkpoint.model.classes)
    checks = (
        check_metadata(root),
        check_surroundings(root),
        check_hidden(checkpoint, dataset),
        check_brightness(checkpoint, dataset, before),
        check_sources(root, train),
    )
    title = f"{checkpoint.folder} on {Path(root).name}/test, {describe(before)}"
    return Audit(title, checks)


def check_metadata(root: str | Path) -> Check:
    """`dclib.evaluation.shortcuts.probe` on all splits of a data set, as a `Check`."""
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


def check_sources(root: str | Path, train: TrainConfig | None) -> Check:
    """What a network loses on pictures of a source that it was not trained on.

    For each source one network is trained without it, and one on as many pictures drawn from all
    sources; both answer to the source's pictures in test, as those in val have chosen the epoch of
    one of the two. The sizes are equal, so that a loss is not for want of pictures.
    """
    if train is None:
        return Check(SOURCES, "no settings for the trainings that it takes were given (train=)")
    sets = load_splits(root, train)
    if "test" not in sets:
        return Check(SOURCES, "it asks about pictures in test, and there is no such split")
    sources = [s for s in sorted(set(sets["test"].column("source"))) if _can_leave_out(sets, s)]
    if len(sources) < 2:
        return Check(SOURCES, "it needs two sources or more, each with pictures of both classes")
    rng = np.random.default_rng(0)
    known: list[pd.DataFrame] = []
    unknown: list[pd.DataFrame] = []
    for source in sources:
        there = {name: np.array(sets[name].column("source")) == source for name in sets}
        without = {name: ~rows for name, rows in there.items()}
        alike = {name: rng.permutation(without[name]) for name in sets}  # as many, of all sources
        asked = keep(sets["test"], np.flatnonzero(there["test"]))
        for wanted, tables in ((without, unknown), (alike, known)):
            model = build_model(train)
            learned, decided = (
                keep(sets[name], np.flatnonzero(wanted[name])) for name in ("train", "val")
            )
            fit(model, learned, decided, train, progress=False)
            logits, _ = predict_logits(model, make_loader(asked, train.batch_size))
            tables.append(make_table(asked, logits))
    says = f"Networks trained without the source they are asked about ({len(sources)} sources)"
    return _lost(SOURCES, says, *(pd.concat(tables) for tables in (known, unknown)))


def _can_leave_out(sets: Mapping[str, CoupleFolder], source: str) -> bool:
    """Whether it has both classes in test, train has them without it, and val has pictures."""
    there = {name: np.array(sets[name].column("source")) == source for name in sets}
    asked, left = sets["test"].labels[there["test"]], sets["train"].labels[~there["train"]]
    return len(set(asked.tolist())) == len(set(left.tolist())) == len(CLASSES) and any(
        ~there["val"]
    )


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
    `dclib.intervals.estimate`, so that the plainest shortcut is not left without one.
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


_NO_BOXES = "metadata.csv tells no boxes of the couple (column body_boxes) in both classes"
