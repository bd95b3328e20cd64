"""Figures of training: while it runs, what came of it, and what the parts are worth."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from dclib.data import DRAWN
from dclib.data.loading import CoupleFolder
from dclib.files import extra
from dclib.plots import HAPPY, ORANGE, SMALL, UNHAPPY, draw_interval, finish, show_pictures
from dclib.train.loop import History

with extra("plots"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from dclib.train.studies import Ablation


class LivePlot:
    """A watcher of `fit` that redraws loss and accuracy in a notebook's output while it trains."""

    def __init__(self) -> None:
        # pyplot does not know it: a notebook keeps its figures, 3 MB each, until the cell ends
        self.fig = Figure(figsize=(8, 2.6))
        self.handle: Any = None

    def __call__(self, history: History) -> None:
        from IPython.display import Image, display

        draw_progress(self.fig, history)
        file = io.BytesIO()
        self.fig.savefig(file, format="png")
        image = Image(file.getvalue())
        if self.handle is None:
            self.handle = display(image, display_id=True)
        else:
            self.handle.update(image)


def draw_progress(fig: Figure, history: History) -> None:
    """Draw loss of every step and accuracy of every epoch so far onto a figure, anew."""
    fig.clear()
    left, right = fig.subplots(1, 2)
    left.plot([row["loss"] for row in history.steps], color="0.75", lw=1, label="batch")
    ends = [sum(step["epoch"] <= row["epoch"] for step in history.steps) for row in history.epochs]
    left.plot(ends, history.column("val_loss"), "o-", color="0.2", ms=4, label="val")
    left.set(xlabel="update", ylabel="loss", ylim=(0, None))
    left.legend(**SMALL)
    draw_epochs(right, history, "accuracy", "o-")
    right.axhline(0.5, color="0.7", lw=1, ls=":", label="guessing")
    right.set_ylim(0.3, 1.02)
    right.legend(**SMALL)
    finish(fig)


def draw_epochs(axis: Axes, history: History, quantity: str, val_style: str = "-") -> None:
    """A quantity of train and val by epoch, counted from 1."""
    epochs = np.array(history.column("epoch")) + 1
    for split, style in (("train", "--"), ("val", val_style)):
        values = history.column(f"{split}_{quantity}")
        axis.plot(epochs, values, style, color="0.2", ms=4, label=split)
    axis.set(xlabel="epoch", ylabel=quantity)
    axis.locator_params("x", integer=True)


def plot_history(history: History) -> Figure:
    """Loss and accuracy by epoch, training and validation, the kept epoch marked."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 3))
    for axis, quantity in zip(axes, ("loss", "accuracy"), strict=True):
        draw_epochs(axis, history, quantity)
        axis.axvline(history.best_epoch + 1, color="0.7", lw=5, zorder=0, label="kept")
    axes[0].set_ylim(bottom=0)
    axes[1].axhline(0.5, color="0.7", lw=1, ls=":", label="guessing")
    axes[1].set_ylim(0.3, 1.02)
    axes[1].legend(**SMALL)
    return finish(fig)


def plot_pace(history: History) -> Figure:
    """The learning rate of every step, and what each epoch's seconds were spent on."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6))
    left.plot([row["lr"] for row in history.steps], color="0.2")
    left.set(xlabel="update", ylabel="learning rate of the head", ylim=(0, None))
    validating = np.array(history.column("val_seconds"))
    training = np.array(history.column("seconds")) - validating
    waiting = training * np.array(history.column("waiting"))
    epochs = np.array(history.column("epoch")) + 1
    bottom = np.zeros(len(epochs))
    parts = {"model at work": training - waiting, "waiting for pictures": waiting}
    shades = zip((parts | {"validation": validating}).items(), ("0.35", ORANGE, "0.75"))
    for (name, seconds), shade in shades:
        right.bar(epochs, seconds, bottom=bottom, color=shade, label=name)
        bottom = bottom + seconds
    right.set(xlabel="epoch", ylabel="seconds", ylim=(0, 1.45 * bottom.max()))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(ncols=2, **SMALL)
    return finish(fig)


def show_answers(dataset: CoupleFolder, logits: Tensor) -> Figure:
    """12 pictures from all over a split, each with the network's answer, of logits (N, 2)."""
    shown = np.linspace(0, len(dataset) - 1, min(12, len(dataset))).astype(int)
    titles = []
    for index in shown:
        answer, truth = logits[index].argmax(), dataset.labels[index]
        wrong = "" if answer == truth else " (wrong)"
        titles.append(f"{dataset.classes[answer]}{wrong}")
    return show_pictures([dataset.picture(index) for index in shown], titles)


def plot_ablation(ablation: "Ablation") -> Figure:
    """Accuracy of each variant, and their paired differences around zero."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(1, 1.2))
    rows, pairs = ablation.table(), ablation.pairs
    for place, row in enumerate(rows):
        draw_interval(left, place, row, ablation.answers(row["variant"]), "0.2")
    variants = [row["variant"].replace(", ", ",\n") for row in rows]
    left.set_yticks(range(len(rows)), variants)
    n, k, groups = (rows[0][name] for name in ("n", "k", "groups"))
    left.set_xlabel(f"accuracy on {ablation.split} (n = {n} in {groups} groups)")
    for place, row in enumerate(ablation.differences()):
        a, b = (ablation.answers(variant) for variant in pairs[row["name"]])
        clear = row["verdict"].endswith("is better")
        colour = (HAPPY if row["mean"] > 0 else UNHAPPY) if clear else "0.5"
        draw_interval(right, place, row, a - b, colour)
    right.set_yticks(range(len(pairs)), [name.replace(" - ", "\n- ") for name in pairs])
    right.axvline(0, color="0.7", lw=1, zorder=0)
    grey = "within noise" if k > 1 else "open with one repetition"
    right.set_xlabel(f"difference of accuracy (n = {n}); grey: {grey}")
    for axis in (left, right):
        axis.invert_yaxis()
        axis.locator_params("x", nbins=6)
        axis.tick_params(labelsize=8)
        axis.xaxis.label.set_fontsize(8)
    kind = "drawn couples" if ablation.kind == DRAWN else ablation.kind
    return finish(
        fig, f"Stages on {kind}; small dots: repetitions (k = {k}); lines: 95 % intervals"
    )
