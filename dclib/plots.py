"""Figures of the notebooks: here what several share, in a file for each what it has alone.

All but `save_figure` save nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from dclib.extras import extra

with extra("plots"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from dclib.photo import Prediction

# Told apart by every kind of colour vision (Okabe and Ito). Two mean the classes, nothing else.
HAPPY, UNHAPPY = "#0072B2", "#D55E00"  # blue and vermilion
COLOURS = {"happy": HAPPY, "unhappy": UNHAPPY}
INK, ORANGE, PINK, SKY, GREEN = "0.2", "#E69F00", "#CC79A7", "#56B4E9", "#009E73"
Line = tuple[str, Any, str]  # a colour, a line and a marker, as matplotlib takes them
LINES: tuple[Line, ...] = (
    *((INK, "-", "o"), (ORANGE, "--", "s"), (PINK, "-.", "^"), (SKY, ":", "v")),
    (GREEN, (0, (5, 1, 1, 1, 1, 1)), "D"),
)
SMALL = {"fontsize": 8, "frameon": False}  # a legend


def show_pictures(
    pictures: Sequence[Image.Image | np.ndarray | Tensor],
    titles: Sequence[str] = (),
    columns: int = 6,
) -> Figure:
    """A grid of pictures, Pillow images, arrays or tensors (H, W, 3), each with its title.

    A title that begins with the name of a class has its colour.
    """
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(1.7 * columns, 1.9 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture in zip(axes.flat, pictures, strict=False):
        axis.imshow(picture)
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set_title(title, fontsize=9, color=COLOURS.get(title.split(" ")[0], "black"))
    fig.tight_layout(pad=0.4, h_pad=1.0)
    return fig


def plot_prediction(image: Image.Image, prediction: "Prediction") -> Figure:
    """A photo beside the probability of each class."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=(1, 1.2))
    left.imshow(image)
    left.set_axis_off()
    names, probs = list(prediction.probs), list(prediction.probs.values())
    right.barh(names, probs, color=[COLOURS[name] for name in names])
    for row, prob in enumerate(probs):
        inside = prob > 0.8
        place = {"ha": "right", "color": "white"} if inside else {"ha": "left"}
        right.text(prob + (-0.02 if inside else 0.02), row, f"{prob:.1%}", va="center", **place)
    right.set(xlim=(0, 1), xlabel="probability, as the network sees it")
    return finish(fig)


def lines_for(names: Iterable[str]) -> dict[str, Line]:
    """A line for each of several things in one figure, told apart without colour too.

    Raises ValueError for more than there are lines.
    """
    names = list(names)
    if len(names) > len(LINES):
        raise ValueError(
            f"{len(names)} lines are too many for one figure; draw {len(LINES)} at most."
        )
    return dict(zip(names, LINES))


def at_row(axis: Axes, ha: str) -> dict[str, Any]:
    """Text at a row of the data, from the left (0) to the right (1) end of the axes and beyond."""
    return {"transform": axis.get_yaxis_transform(), "ha": ha, "va": "center", "fontsize": 8}


def draw_interval(
    axis: Axes, place: float, row: Mapping[str, float], values: ArrayLike, colour: str
) -> None:
    """A mean with its interval in a row of its own, the mean of each repetition as a dot below.

    `row` holds mean, low and high; `values` are (repetitions, n).
    """
    axis.hlines(place, row["low"], row["high"], color=colour, lw=2)
    axis.plot(row["mean"], place, "o", color=colour)
    means = np.asarray(values).mean(axis=1)
    axis.plot(means, np.full(len(means), place + 0.25), "o", color=colour, ms=3, alpha=0.6)


def finish(fig: Figure, title: str | None = None) -> Figure:
    """The figure without frames around its axes, everything in its place."""
    if title:
        fig.suptitle(title, fontsize=9)
    sns.despine(fig)
    fig.tight_layout()
    return fig


def save_figure(fig: Figure, path: str | Path, colours: int | None = None) -> Path:
    """Write a PNG without a time stamp, making its folder. Returns the path.

    `colours`: at most so many (up to 256), which makes a figure of many photographs a third as big.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=85, bbox_inches="tight", metadata={"Software": None})
    if colours:
        image = Image.open(path).convert("RGB")
        palette = image.quantize(colours, kmeans=1)
        image.quantize(palette=palette).save(path, optimize=True)  # dithered
    return path
