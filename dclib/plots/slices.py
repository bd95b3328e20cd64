"""Figures of slices and sweeps: where a network is worse, and how much change it bears."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dclib.evaluation.sweeps import SWEEPS
from dclib.plots import HAPPY, UNHAPPY

MARKS = {"worse": UNHAPPY, "better": HAPPY, "no difference seen": "0.2", "too few": "0.7"}
LINES = (  # a colour, a line and a marker for each model
    ("0.2", "-", "o"),
    ("#E69F00", "--", "s"),
    ("#56B4E9", ":", "^"),
    ("#CC79A7", "-.", "D"),
    ("#009E73", (0, (5, 1, 1, 1, 1, 1)), "v"),
)
ROW = 0.2  # inches
CAUTION = "lines: 95 % intervals, each for its slice alone; vertical line: all pictures"


def plot_slices(frame: pd.DataFrame) -> Figure:
    """Accuracy in every slice with its interval, a block a tag.

    `frame` is that of `dclib.evaluation.slices.slice_table`.
    """
    rows = _rows_of(frame)
    fig, axis = plt.subplots(figsize=(8, ROW * len(rows) + 1.2))
    for place, row in enumerate(rows):
        if isinstance(row, str):
            axis.text(-0.01, place, row, weight="bold", **_beside(axis, "right"))
            continue
        colour = MARKS[row.verdict]
        axis.hlines(place, row.low, row.high, color=colour, lw=2)
        axis.plot(row.accuracy, place, "o", color=colour, ms=5)
        axis.text(-0.01, place, row.value, color=_ink(colour), **_beside(axis, "right"))
        axis.text(1.09, place, f"{row.n}", color=_ink(colour), **_beside(axis, "right"))
        if row.verdict != "no difference seen":
            told = row.verdict if np.isnan(row.p) else f"{row.verdict}, {_p(row.p_holm)}"
            axis.text(1.11, place, told, color=_ink(colour), **_beside(axis, "left"))
    share, n = overall(frame)
    axis.axvline(share, color="0.7", lw=1, zorder=0)
    axis.text(1.09, -1.2, "n", **_beside(axis, "right"))
    axis.text(1.11, -1.2, "p after Holm", **_beside(axis, "left"))
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


def _beside(axis: Axes, ha: str) -> dict:
    """Text left or right of the axes, at a row of the data."""
    return {"transform": axis.get_yaxis_transform(), "ha": ha, "va": "center", "fontsize": 8}


def _ink(colour: str) -> str:
    """Text needs more contrast than a line."""
    return {"0.2": "black", "0.7": "0.5"}.get(colour, colour)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def plot_sweeps(frame: pd.DataFrame, columns: int = 3) -> Figure:
    """Accuracy along every sweep: a panel a sweep, a curve a model.

    `frame` is that of `dclib.evaluation.robustness.summarise`, `columns` the most panels in a row.
    Raises ValueError for more than five models.
    """
    kinds, models = list(dict.fromkeys(frame["sweep"])), list(dict.fromkeys(frame["model"]))
    if len(models) > len(LINES):
        raise ValueError(f"Only {len(LINES)} models can be told apart, not {len(models)}.")
    columns = min(columns, len(kinds))
    rows = -(-len(kinds) // columns)
    names = 5 if columns > 1 else 3  # in a row of the legend
    above = 0.12 + 0.18 * -(-(len(models) + 2) // names)
    size = (8 if columns > 1 else 4.5, 2 * rows + above)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True)
    for axis in axes.flat[len(kinds) :]:
        axis.set_axis_off()
    for axis, kind in zip(axes.flat, kinds, strict=False):
        curves = draw_sweep(axis, frame[frame["sweep"] == kind], models)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy", fontsize=8)
    axes[0, 0].set_ylim(min(0.45, frame["low"].min()), 1.01)
    sns.despine(fig)
    fig.tight_layout(rect=(0, 0, 1, 1 - above / size[1]))
    fig.legend(handles=curves, ncols=names, loc="upper center", frameon=False, fontsize=8)
    return fig


def draw_sweep(axis: Axes, frame: pd.DataFrame, models: Sequence[str]) -> list[Artist]:
    """One sweep: levels at equal distances, the reference in grey. Returns what a legend names."""
    levels = sorted(set(frame["level"]))
    place = {level: x for x, level in enumerate(levels)}
    curves = []
    for model, (colour, style, marker) in zip(models, LINES):
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
