"""Figures of what the network looked at.

Colours have one meaning everywhere: vermilion is evidence for unhappy, blue for happy. A map is
never stretched to its own maximum: those that are compared have one scale, and where there is no
evidence there is no colour.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dclib.explain.evidence import Evidence
from dclib.explain.pointing import AGAINST, ENERGY, FACES, POINTING
from dclib.files import extra
from dclib.framing import Frame
from dclib.plots import HAPPY, INK, SMALL, UNHAPPY, draw_scale, finish, lines_for, overlay

with extra("plots"):
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = lines_for(("evidence", "HiResCAM", "Grad-CAM", "leave one out", "centre first"))
LOOKS |= {"evidence for the answer": (INK, "-", "P"), "random": ("0.6", "-", "x")}
PANELS = ((FACES, POINTING), (FACES, ENERGY), (AGAINST, ENERGY))


def show_maps(
    pictures: Sequence[Image.Image | np.ndarray],
    maps: Mapping[str, np.ndarray | Tensor],
    size: int,
    smooth: bool = False,
    unit: str = "log-odds",
    frames: Sequence[Frame] | None = None,
) -> Figure:
    """A row for each picture: itself, then maps over it. All are on one scale, drawn beside them.

    Args:
        maps: {title: (B, h, w)} of B pictures. Positive is evidence for unhappy; in maps whose
            title begins with "happy" it is for happy, and drawn in its colour.
        size: pixels a side of the network's input.
        smooth: as `dclib.plots.overlay` takes it.
        frames: what the network looked at in each picture, if that was not all of it.
    """
    signs = {title: -1 if title.startswith("happy") else 1 for title in maps}
    signed = [torch.as_tensor(values, device="cpu") * signs[k] for k, values in maps.items()]
    scale = max(values.abs().max().item() for values in signed) or 1.0
    rows, columns = len(pictures), len(maps) + 1
    inches = (1.9 * columns + 0.8, 1.95 * rows + 0.3)
    fig, axes = plt.subplots(rows, columns, figsize=inches, squeeze=False, layout="constrained")
    looks: Sequence[Frame | None] = frames or [None] * rows
    for row, picture, look, *of_picture in zip(axes, pictures, looks, *signed, strict=True):
        row[0].imshow(picture)
        for axis, values in zip(row[1:], of_picture, strict=True):
            axis.imshow(overlay(picture, values, scale, size, smooth, look))
            if not values.any():
                place = {"x": 0.5, "y": 0.04, "ha": "center", "transform": axis.transAxes}
                axis.text(**place, s="no evidence", fontsize=8, bbox={"fc": "w", "ec": "none"})
    for axis, title in zip(axes[0], ["picture", *maps], strict=True):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set_axis_off()
    draw_scale(fig, axes, scale, unit)
    return fig


def plot_parts(evidence: Evidence, index: int = 0) -> Figure:
    """From the constant to the margin of one picture: by pyramid level and branch."""
    budget = evidence.of_margin("budget")[index]  # (L, P)
    steps = [("constant", evidence.of_margin("const")[index].item())]
    for n, row in zip(evidence.levels, budget, strict=True):
        steps += [(f"{n} x {n} bins, {b}", v) for b, v in zip(evidence.branches, row.tolist())]
    names, values = zip(*steps, strict=True)
    starts = np.cumsum([0, *values[:-1]])
    fig, axis = plt.subplots(figsize=(7, 0.3 * len(steps) + 1.2), layout="constrained")
    colours = [UNHAPPY if value > 0 else HAPPY for value in values]
    axis.barh(names, values, left=starts, color=["0.6", *colours[1:]])
    margin = evidence.margin[index].item()
    axis.axvline(margin, color="black", lw=1, label=f"margin {margin:+.2f}")
    axis.axvline(0, color="0.7", lw=1)
    axis.invert_yaxis()
    axis.set_xlabel("log-odds for unhappy, added from top to bottom")
    axis.legend(**SMALL)
    sns.despine(fig)
    return fig


def plot_localisation(table: pd.DataFrame) -> Figure:
    """Where the mass of each map lies, with its interval: a panel a measure, chance marked.

    `table` is that of `dclib.explain.pointing.locate`. Maps of the network are coloured, what they
    must beat is grey. A panel of which the table has nothing is left out.
    """
    rows = list(dict.fromkeys(table["map"]))
    parts = {key: part.set_index("map") for key, part in table.groupby(["region", "measure"])}
    panels = [key for key in PANELS if key in parts]
    size = (8, 0.24 * len(rows) + 1.1)  # inches
    fig, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, key in zip(axes[0], panels, strict=True):
        _draw_dots(axis, parts[key], rows)
        n, excluded = parts[key]["n"].max(), parts[key]["excluded"].max()
        left_out = f"; {excluded} excluded" if excluded else ""
        axis.set_title(f"{key[0]}\n(n = {n}{left_out})", fontsize=8)
        axis.set_xlabel(key[1], fontsize=8)
        axis.tick_params(labelsize=8)
    axes[0, 0].set_yticks(range(len(rows)), rows)
    for label in axes[0, 0].get_yticklabels():
        label.set_color("black" if label.get_text() in LOOKS else "0.4")
    axes[0, 0].set_ylim(len(rows) + 0.2, -0.5)  # room for a word
    sns.despine(fig, left=True)
    fig.tight_layout()
    return fig


def _draw_dots(axis: Axes, part: pd.DataFrame, rows: Sequence[str]) -> None:
    """The means of one measure with their intervals, by map, in the order of `rows`."""
    for place, name in enumerate(rows):
        colour, _, marker = LOOKS.get(name, ("0.55", "-", "o"))
        axis.hlines(place, part["low"][name], part["high"][name], color=colour, lw=2)
        axis.plot(part["value"][name], place, marker, color=colour, ms=5)
    chance = part["chance"].mean()
    axis.axvline(chance, color="0.75", lw=1, ls=":", zorder=0)
    note: dict = {"textcoords": "offset points", "fontsize": 7, "color": "0.4"}
    axis.annotate("chance", (chance, 0), (2, 2), xycoords=axis.get_xaxis_transform(), **note)
    axis.tick_params(left=False)


def plot_curves(points: pd.DataFrame, areas: pd.DataFrame) -> Figure:
    """Deletion and insertion curves with their bands; the areas under them in the legends.

    The two tables are those of `dclib.explain.sanity.hide_in_order`.
    """
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    verbs = {"deletion": "hidden", "insertion": "shown"}
    for axis, (curve, verb) in zip(axes, verbs.items(), strict=True):
        under = areas[areas["curve"] == curve].set_index("map")["value"]
        for name, part in points[points["curve"] == curve].groupby("map", sort=False):
            colour, style, marker = LOOKS[name]
            look = {"color": colour, "ls": style, "marker": marker, "ms": 3.5, "lw": 1.2}
            share, band = part["share"], (part["low"], part["high"])
            axis.fill_between(share, *band, color=colour, alpha=0.15, lw=0)
            axis.plot(share, part["value"], label=f"{name}: {under[name]:.3f}", **look)
        better = "lower" if curve == "deletion" else "higher"
        axis.set_title(f"{curve}: {better} is better", fontsize=9)
        axis.set_xlabel(f"share of cells {verb}, in the map's order", fontsize=8)
        place = "lower left" if curve == "deletion" else "lower right"
        legend = {"title": "area under the curve", "title_fontsize": 7, "fontsize": 7}
        axis.legend(loc=place, frameon=False, **legend)
    axes[0].set_ylabel(f"probability of the answer (n = {points['n'].max()})", fontsize=8)
    axes[0].set_ylim(0, 1.01)
    return finish(fig)


def plot_cascade(table: pd.DataFrame) -> Figure:
    """How like the original the maps stay while layers forget: a panel with signs, one without.

    `table` is that of `dclib.explain.sanity.cascade`; "another picture" stands apart at the end.
    """
    parts = [part for part in dict.fromkeys(table["part"]) if part != "another picture"]
    names = ["trained", *parts, "another\npicture"]
    places = [*range(len(parts) + 1), len(parts) + 1.5]
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    for axis, similarity in zip(axes, ("signed", "absolute"), strict=True):
        rows = table[table["similarity"] == similarity]
        for k, (name, part) in enumerate(rows.groupby("map", sort=False)):
            colour, style, marker = LOOKS[name]
            part = part.set_index("part").reindex([*parts, "another picture"])
            x = np.array(places) + 0.15 * (k - 1)
            y, low, high = ([1.0, *part[column]] for column in ("value", "low", "high"))
            look = {"color": colour, "marker": marker, "ms": 4}
            axis.vlines(x, low, high, color=colour, lw=1, alpha=0.6)
            axis.plot(x[:-1], y[:-1], ls=style, lw=1.2, label=name, **look)
            axis.plot(x[-1:], y[-1:], mfc="white", **look)
        axis.axhline(0, color="0.75", lw=1, ls=":", zorder=0)
        axis.set_xticks(places, names, fontsize=7, rotation=40, ha="right")
        axis.set_xlabel("randomised, with all before it", fontsize=8)
        word = "with" if similarity == "signed" else "without"
        axis.set_title(f"maps {word} their signs", fontsize=9)
    axes[0].set_ylabel(f"rank correlation with the original (n = {table['n'].max()})", fontsize=8)
    axes[0].set_ylim(-1.02, 1.05)
    axes[1].legend(**SMALL)
    return finish(fig)
