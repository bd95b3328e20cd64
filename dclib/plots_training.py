"""Figures of training: while it runs, where its time went, and what the parts are worth."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns


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
