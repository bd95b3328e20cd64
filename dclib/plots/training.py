"""Figures of training: while it runs, where its time went, and what the parts are worth."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from dclib.data import DRAWN
from dclib.plots import HAPPY, UNHAPPY


class LivePlot:
    """A watcher of `fit` that redraws loss and accuracy in a notebook's output while it trains."""

    def __init__(self):
        self.handle = None

    def __call__(self, history):
        from IPython.display import display

        fig = plot_progress(history)
        plt.close(fig)  # else the notebook would show it once more
        if self.handle is None:
            self.handle = display(fig, display_id=True)
        else:
            self.handle.update(fig)


def plot_progress(history):
    """Loss of every step and accuracy of every epoch, as far as a run has come."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6))
    left.plot([row["loss"] for row in history.steps], color="0.75", lw=1, label="batch")
    ends = [sum(step["epoch"] <= row["epoch"] for step in history.steps) for row in history.epochs]
    left.plot(ends, history.column("val_loss"), "o-", color="0.2", ms=4, label="val")
    left.set(xlabel="update", ylabel="loss", ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    epochs = np.array(history.column("epoch")) + 1
    for split, style in (("train", "--"), ("val", "o-")):
        right.plot(
            epochs, history.column(f"{split}_accuracy"), style, color="0.2", ms=4, label=split
        )
    right.axhline(0.5, color="0.7", lw=1, ls=":", label="guessing")
    right.set(xlabel="epoch", ylabel="accuracy", ylim=(0.3, 1.02))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(frameon=False, fontsize=8)
    sns.despine(fig)
    fig.tight_layout()
    return fig


def plot_pace(history):
    """The learning rate of every step, and what each epoch's seconds were spent on."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6))
    left.plot([row["lr"] for row in history.steps], color="0.2")
    left.set(xlabel="update", ylabel="learning rate of the head", ylim=(0, None))
    validating = np.array(history.column("val_seconds"))
    training = np.array(history.column("seconds")) - validating
    waiting = training * np.array(history.column("waiting"))
    epochs, bottom = np.array(history.column("epoch")) + 1, 0
    parts = {"model at work": training - waiting, "waiting for pictures": waiting}
    shades = zip((parts | {"validation": validating}).items(), ("0.35", "#E69F00", "0.75"))
    for (name, seconds), shade in shades:
        right.bar(epochs, seconds, bottom=bottom, color=shade, label=name)
        bottom = bottom + seconds
    right.set(xlabel="epoch", ylabel="seconds", ylim=(0, 1.45 * bottom.max()))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(frameon=False, fontsize=8, ncols=2)
    sns.despine(fig)
    fig.tight_layout()
    return fig


def plot_ablation(ablation):
    """Accuracy of each arm of an `Ablation`, and their paired differences around zero."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(1, 1.2))
    rows, pairs = ablation.table(), ablation.pairs
    for place, row in enumerate(rows):
        draw_interval(left, place, row, ablation.answers(row["arm"]), "0.2")
    arms = [row["arm"].replace(", ", ",\n") for row in rows]
    left.set_yticks(range(len(rows)), arms)
    n, k, groups = (rows[0][name] for name in ("n", "k", "groups"))
    left.set_xlabel(f"accuracy on {ablation.split} (n = {n} in {groups} groups)")
    for place, row in enumerate(ablation.differences()):
        a, b = (ablation.answers(arm) for arm in pairs[row["name"]])
        clear = row["verdict"].endswith("is better")
        colour = (HAPPY if row["mean"] > 0 else UNHAPPY) if clear else "0.5"
        draw_interval(right, place, row, a - b, colour)
    right.set_yticks(range(len(pairs)), [name.replace(" - ", "\n- ") for name in pairs])
    right.axvline(0, color="0.7", lw=1, zorder=0)
    right.set_xlabel(f"difference of accuracy (n = {n}); grey: within noise")
    for axis in (left, right):
        axis.invert_yaxis()
        axis.locator_params("x", nbins=6)
        axis.tick_params(labelsize=8)
        axis.xaxis.label.set_fontsize(8)
    kind = "drawn couples" if ablation.kind == DRAWN else ablation.kind
    fig.suptitle(
        f"Stages on {kind}; small dots: repetitions (k = {k}); lines: 95 % intervals", fontsize=9
    )
    sns.despine(fig)
    fig.tight_layout()
    return fig


def draw_interval(axis, place, row, values, colour):
    """A mean with its interval in a row of its own, the mean of each repetition as a dot below."""
    axis.hlines(place, row["low"], row["high"], color=colour, lw=2)
    axis.plot(row["mean"], place, "o", color=colour)
    means = np.asarray(values).mean(axis=1)
    axis.plot(means, np.full(len(means), place + 0.25), "o", color=colour, ms=3, alpha=0.6)
