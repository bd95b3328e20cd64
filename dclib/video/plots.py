"""Figures of a film: the line over time, moments to look at, and maps on one scale for all."""

from collections.abc import Sequence

import numpy as np

from dclib.data import NOT_ASSESSABLE
from dclib.files import extra
from dclib.pictures.frames import VideoSource, frames_at
from dclib.plots import COLOURS, draw_scale, finish
from dclib.video import VideoResult
from dclib.video.export import film_map

with extra("plots"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch


def plot_timeline(result: VideoResult, truth: dict | None = None) -> Figure:
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
        for part in truth["moods"]:
            if part["mood"]:
                colour = COLOURS[part["mood"]]
                axis.axvspan(part["start"], part["end"], 0.96, 1, color=colour, lw=0)
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


def plot_moments(result: VideoResult, source: VideoSource) -> Figure:
    """A contact sheet of moments in the film itself (`source`), each with a question."""
    moments = result.moments()
    if not moments:
        raise ValueError(f"{result.name} has no moment that could be judged.")
    images = frames_at(source, [moment["time"] for moment in moments])
    size = (2.3 * len(moments), 3.2)
    fig, axes = plt.subplots(1, len(moments), figsize=size, squeeze=False, layout="constrained")
    for axis, moment, image in zip(axes[0], moments, images, strict=True):
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
        sns.despine(ax=axis, left=True, bottom=True)
        axis.set_title(f"{moment['time']:.1f} s", fontsize=10)
        words = moment["question"].split(" ")
        lines = [" ".join(words[k : k + 4]) for k in range(0, len(words), 4)]
        axis.set_xlabel("\n".join(lines), fontsize=8)
    return fig


def plot_film_maps(result: VideoResult, source: VideoSource, times: Sequence[float]) -> Figure:
    """Frames at these times (seconds) above their exact evidence, on one scale for a film."""
    images, scale = frames_at(source, times), result.scale
    size = (1.9 * len(times) + 0.8, 4)
    fig, axes = plt.subplots(2, len(times), figsize=size, squeeze=False, layout="constrained")
    for column, time, image in zip(axes.T, times, images, strict=True):
        image.thumbnail((256, 256))
        column[0].imshow(image)
        column[0].set_title(f"{time:.1f} s", fontsize=9)
        column[1].imshow(film_map(result, image, time, scale))
        for axis in column:
            axis.set_axis_off()
    draw_scale(fig, axes, scale)
    return fig
