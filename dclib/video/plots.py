"""Figures of a film: the line over time, moments to look at, and maps on one scale for all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dclib.data import CLASSES, NOT_ASSESSABLE
from dclib.frames import VideoSource, frames_at
from dclib.plots import COLOURS, draw_scale, finish, overlay

if TYPE_CHECKING:
    from dclib.video import VideoResult

STRIP = 40  # pixels, the height of a timeline that is a picture


def plot_timeline(result: "VideoResult", truth: dict | None = None) -> Figure:
    """Frames as dots, the smoothed line with its 95 % band, cuts, and where there is no label.

    `truth` as of `dclib.drawn.render_film` is drawn as a strip above.
    """
    table = result.frames
    fig, axis = plt.subplots(figsize=(10, 3.6))
    axis.plot(table["time"], table["margin"], ".", color="0.6", ms=3)
    for _, shot in table.groupby("shot"):
        axis.fill_between(shot["time"], shot["low"], shot["high"], color="0.8", lw=0)
        axis.plot(shot["time"], shot["smooth"], color="0.15", lw=1.8)
    axis.axhline(np.log(result.threshold / (1 - result.threshold)), color="0.5", lw=1, ls=":")
    for cut in result.cuts:
        axis.axvline(cut, color="0.3", lw=0.8, ls=(0, (4, 3)))
    handles: list[Patch] = []
    hatched: dict = {"fc": "none", "ec": "0.6", "hatch": "//", "label": NOT_ASSESSABLE}
    for span in result.spans:
        if span["label"] == NOT_ASSESSABLE:
            handles = [axis.axvspan(span["start"], span["end"], **hatched)]
    if truth:
        _draw_truth(axis, truth)
        handles += [Patch(color=COLOURS[name], label=f"drawn {name}") for name in COLOURS]
    axis.set(xlabel="seconds", xlim=(0, result.duration))
    axis.set_ylabel("happy   ←   log-odds   →   unhappy")
    if handles:
        axis.legend(handles=handles, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_title(
        f"{result.name}: dots are frames (n = {len(table)}), dashes cuts; band: 95 %, of dropout "
        f"and scatter; labels for {result.coverage:.0%} of the seconds",
        fontsize=9,
    )
    return finish(fig)


def _draw_truth(axis: Axes, truth: dict) -> None:
    """What is drawn, as a strip along the top."""
    for part in truth["moods"]:
        if part["mood"]:
            place = {"xmin": part["start"], "xmax": part["end"], "lw": 0}
            axis.axvspan(**place, ymin=0.96, ymax=1, color=COLOURS[part["mood"]])


def plot_moments(result: "VideoResult", source: VideoSource) -> Figure:
    """A contact sheet of moments to look at, each with a question; ValueError if there is none.

    `source` is the film itself.
    """
    found = result.moments()
    if not found:
        raise ValueError(f"{result.name} has no moment that could be judged.")
    images = frames_at(source, [moment["time"] for moment in found])
    size = (2.3 * len(found), 3.2)
    fig, axes = plt.subplots(1, len(found), figsize=size, squeeze=False, layout="constrained")
    for axis, moment, image in zip(axes[0], found, images, strict=True):
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
        sns.despine(ax=axis, left=True, bottom=True)
        axis.set_title(f"{moment['time']:.1f} s", fontsize=10)
        words = moment["question"].split(" ")
        lines = [" ".join(words[k : k + 4]) for k in range(0, len(words), 4)]
        axis.set_xlabel("\n".join(lines), fontsize=8)
    return fig


def plot_film_maps(result: "VideoResult", source: VideoSource, times: Sequence[float]) -> Figure:
    """Frames at these times (seconds) above their exact evidence, on one scale for a film."""
    scale = map_scale(result)
    images = frames_at(source, times)
    size = (1.9 * len(times) + 0.8, 4)
    fig, axes = plt.subplots(2, len(times), figsize=size, squeeze=False, layout="constrained")
    for column, time, image in zip(axes.T, times, images, strict=True):
        square = image.resize((256, 256))
        column[0].imshow(square)
        column[0].set_title(f"{time:.1f} s", fontsize=9)
        column[1].imshow(overlay(square, result.maps[result.at(time)], scale, result.size))
        for axis in column:
            axis.set_axis_off()
    draw_scale(fig, axes, scale)
    return fig


def map_scale(result: "VideoResult") -> float:
    """Log-odds of full colour, the same for all frames of a film: 99 % of all cells are below."""
    return float(np.quantile(np.abs(result.maps), 0.99)) or 1.0


def strip(result: "VideoResult", width: int) -> np.ndarray:
    """The timeline as a narrow picture (40, width, 3), 0 to 1: colour by label and strength."""
    middle = STRIP // 2
    line = np.full((STRIP, width, 3), 0.85)
    for row in result.seconds.itertuples():
        ends = [round(width * t / result.duration) for t in (row.second, row.second + 1)]
        if row.label == NOT_ASSESSABLE:
            line[:, ends[0] : ends[1]][::4] = 0.6
            continue
        colour = np.array(to_rgb(COLOURS[row.label]))
        tall = max(2, round(middle * min(1, abs(row.margin) / 4)))
        top = middle - tall if row.label == CLASSES[1] else middle
        line[top : top + tall, ends[0] : ends[1]] = colour
    return line
