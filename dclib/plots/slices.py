"""Figures of slices and sweeps: where a network is worse, and how much change it bears."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dclib.evaluation.sweeps import SWEEPS
from dclib.plots import HAPPY, INK, SMALL, UNHAPPY, Line, at_row, lines_for

MARKS = {"worse": UNHAPPY, "better": HAPPY, "no difference seen": INK, "too few": "0.7"}
ROW = 0.2  # inches
COLUMNS = 3  # of sweeps
CAUTION = "lines: 95 % intervals, each for its slice alone; vertical line: all pictures"


def plot_slices(frame: pd.DataFrame) -> Figure:
    """Accuracy in every slice with its interval, a block a tag.

    `frame` is that of `dclib.evaluation.slices.slice_table`.
    """
    rows = _rows_of(frame)
    fig, axis = plt.subplots(figsize=(8, ROW * len(rows) + 1.2))
    for place, row in enumerate(rows):
        if isinstance(row, str):
            axis.text(-0.01, place, row, weight="bold", **at_row(axis, "right"))
            continue
        colour = MARKS[row.verdict]
        axis.hlines(place, row.low, row.high, color=colour, lw=2)
        axis.plot(row.accuracy, place, "o", color=colour, ms=5)
        axis.text(-0.01, place, row.value, color=_ink(colour), **at_row(axis, "right"))
        axis.text(1.09, place, f"{row.n}", color=_ink(colour), **at_row(axis, "right"))
        if row.verdict != "no difference seen":
            told = row.verdict if np.isnan(row.p) else f"{row.verdict}, {_p(row.p_holm)}"
            axis.text(1.11, place, told, color=_ink(colour), **at_row(axis, "left"))
    share, n = overall(frame)
    axis.axvline(share, color="0.7", lw=1, zorder=0)
    axis.text(1.09, -1.2, "n", **at_row(axis, "right"))
    axis.text(1.11, -1.2, "p after Holm", **at_row(axis, "left"))
    axis.set(ylim=(len(rows) - 0.4, -1.6), yticks=[], xlim=(min(0.45, frame["low"].min()), 1.005))
    axis.set_xlabel(f"accuracy (n = {n})")
    axis.set_title(CAUTION, fontsize=9)
    sns.despine(fig, left=True)
    fig.tight_layout()
    return fig


def overall(frame: pd.DataFrame) -> tuple[float, int]:
    """Accuracy and n of all pictures together, from the tag that most of them have."""
    tag = frame.groupby("tag")["n"].sum().idxmax()
    rows = frame[frame["tag"] == tag]
    return np.average(rows["accuracy"], weights=rows["n"]), rows["n"].sum()


def _rows_of(frame: pd.DataFrame) -> list:
    """The name of each tag, followed by its slices (named tuples)."""
    rows = []
    for tag, slices in frame.groupby("tag", sort=False):
        rows += [tag, *slices.itertuples()]
    return rows


def _ink(colour: str) -> str:
    """Text needs more contrast than a line."""
    return {INK: "black", "0.7": "0.5"}.get(colour, colour)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def plot_sweeps(frame: pd.DataFrame) -> Figure:
    """Accuracy along every sweep: a panel a sweep, a curve a model.

    `frame` is that of `dclib.evaluation.robustness.summarise`. Raises ValueError for more than five
    models.
    """
    kinds, looks = list(dict.fromkeys(frame["sweep"])), lines_for(dict.fromkeys(frame["model"]))
    columns, names = min(COLUMNS, len(kinds)), 5  # in a row of panels and of the legend
    rows = -(-len(kinds) // columns)
    above = 0.12 + 0.18 * -(-(len(looks) + 2) // names)
    size = (8, 2 * rows + above)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True)
    for axis in axes.flat[len(kinds) :]:
        axis.set_axis_off()
    for axis, kind in zip(axes.flat, kinds, strict=False):
        curves = draw_sweep(axis, frame[frame["sweep"] == kind], looks)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy", fontsize=8)
    axes[0, 0].set_ylim(min(0.45, frame["low"].min()), 1.01)
    sns.despine(fig)
    fig.tight_layout(rect=(0, 0, 1, 1 - above / size[1]))
    fig.legend(handles=curves, ncols=names, loc="upper center", **SMALL)
    return fig


def draw_sweep(axis: Axes, frame: pd.DataFrame, looks: Mapping[str, Line]) -> list[Artist]:
    """One sweep: levels at equal distances, the reference in grey. Returns what a legend names.

    `looks` are the lines of the models, by their names.
    """
    levels = sorted(set(frame["level"]))
    place = {level: x for x, level in enumerate(levels)}
    curves = []
    for model, (colour, style, marker) in looks.items():
        part = frame[frame["model"] == model].sort_values("level")
        x = part["level"].map(place)
        axis.fill_between(x, part["low"], part["high"], color=colour, alpha=0.15, lw=0)
        look: dict = {"color": colour, "ls": style, "marker": marker, "ms": 3.5}
        curves += axis.plot(x, part["accuracy"], label=model, **look)
    for level in sorted(set(frame.loc[frame["reference"], "level"])):
        as_is = axis.axvline(place[level], color="0.85", lw=5, zorder=0, label="left as it is")
    guess = axis.axhline(0.5, color="0.7", lw=1, ls=":", label="guessing")
    names = ["as is" if np.isinf(level) else f"{level:g}" for level in levels]
    axis.set_xticks(range(len(levels)), names)
    axis.tick_params(labelsize=7)
    kind = frame["sweep"].iloc[0]
    axis.set_xlabel(SWEEPS[kind].unit, fontsize=8)
    axis.set_title(f"{kind} (n = {frame['n'].max()})", fontsize=9)
    return [*curves, as_is, guess]
