"""Figures of training: while it runs, where its time went, and what the parts are worth."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from dclib.data import DRAWN
from dclib.plots import HAPPY, UNHAPPY


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
        colour = (
            "0.5" if row["verdict"] == "within noise" else UNHAPPY if row["high"] < 0 else HAPPY
        )
        draw_interval(right, place, row, a - b, colour)
    right.set_yticks(range(len(pairs)), [name.replace(" - ", "\n- ") for name in pairs])
    right.axvline(0, color="0.7", lw=1, zorder=0)
    right.set_xlabel(f"difference of accuracy (k = {k}, n = {n}); grey: within noise")
    for axis in (left, right):
        axis.invert_yaxis()
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
