"""What the figures of all rooms share. Nothing is saved but by `save_figure`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from dclib.files import extra, write_whole
from dclib.framing import Frame
from dclib.framing.cells import spread

with extra("plots"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
    from matplotlib.figure import Figure
    from matplotlib.text import Text

if TYPE_CHECKING:  # who gathers pictures needs no torch
    from torch import Tensor

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
OPACITY = 0.75  # of the colour at `scale`
EVIDENCE = LinearSegmentedColormap.from_list("evidence", (HAPPY, "0.85", UNHAPPY))


def show_pictures(
    pictures: "Sequence[Image.Image | np.ndarray | Tensor]",
    titles: Sequence[str] = (),
    columns: int = 6,
) -> Figure:
    """A grid of pictures (H, W, 3); a title that begins with the name of a class has its colour."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(1.7 * columns, 1.9 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture in zip(axes.flat, pictures, strict=False):
        axis.imshow(picture)
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set_title(title, fontsize=9, color=COLOURS.get(title.split(" ")[0], "black"))
    write_literally(fig)
    fig.tight_layout(pad=0.4, h_pad=1.0)
    return fig


def lines_for(names: Iterable[str]) -> dict[str, Line]:
    """A line for each of several things in one figure, told apart without colour too."""
    names = list(names)
    if len(names) > len(LINES):
        few = len(LINES)
        raise ValueError(f"{len(names)} lines are too many for one figure; draw {few} at most.")
    return dict(zip(names, LINES))


def at_row(axis: Axes, ha: str) -> dict[str, Any]:
    """Text at a row of the data, from the left (0) to the right (1) end of the axes and beyond."""
    return {"transform": axis.get_yaxis_transform(), "ha": ha, "va": "center", "fontsize": 8}


def draw_interval(
    axis: Axes, place: float, row: Mapping[str, float], values: ArrayLike, colour: str
) -> None:
    """A mean, low to high, in a row of its own; the means of `values` (repetitions, n) as dots."""
    axis.hlines(place, row["low"], row["high"], color=colour, lw=2)
    axis.plot(row["mean"], place, "o", color=colour)
    means = np.asarray(values).mean(axis=1)
    axis.plot(means, np.full(len(means), place + 0.25), "o", color=colour, ms=3, alpha=0.6)


def finish(fig: Figure, title: str | None = None) -> Figure:
    """The figure without frames around its axes, everything in its place."""
    if title:
        fig.suptitle(title, fontsize=9)
    for axis in fig.axes:
        axis.spines[["top", "right"]].set_visible(False)
    write_literally(fig)
    fig.tight_layout()
    return fig


def write_literally(fig: Figure) -> None:
    """Take no name for a formula: folders, tables and metadata may hold dollar signs."""
    for text in fig.findobj(Text):
        if "$" in text.get_text() and "mathdefault" not in text.get_text():  # a tick of matplotlib
            text.set_parse_math(False)


def save_figure(fig: Figure, path: str | Path, colours: int | None = None) -> Path:
    """Write a PNG without a time stamp, making its folder. Returns the path.

    `colours`: at most so many (up to 256), which makes a figure of many photographs a third as big.
    """
    with write_whole(path) as unfinished:
        fig.savefig(unfinished, dpi=85, bbox_inches="tight", metadata={"Software": None})
        if colours:
            image = Image.open(unfinished).convert("RGB")
            palette = image.quantize(colours, kmeans=1)
            image.quantize(palette=palette).save(unfinished, optimize=True)  # dithered
    return Path(path)


def overlay(
    image: Image.Image | np.ndarray,
    values: "np.ndarray | Tensor",
    scale: float,
    size: int,
    smooth: bool = False,
    frame: Frame | None = None,
) -> np.ndarray:
    """A map over its picture: an array (H, W, 3), 0 to 1.

    Args:
        image: Pillow image, or array (H, W, 3) of uint8, or of floats from 0 to 1.
        values: (h, w), one a cell; `dclib.framing.cells` says where cells are.
        scale: value of full colour, for all maps that are compared; larger ones look the same.
        size: pixels a side of the network's input.
        smooth: bilinear between cells, as Grad-CAM was published; else every cell has one colour.
        frame: the part of the picture that the network looked at, if that was not all of it.
    """
    pixels = np.asarray(image)
    picture = pixels / 255 if pixels.dtype == np.uint8 else pixels  # (H, W, 3), greyed below
    if not scale > 0:
        raise ValueError(f"scale must be above 0, not {scale}.")
    grey = picture.mean(2, keepdims=True) * 0.7 + picture * 0.3
    cells = np.asarray(values.cpu() if hasattr(values, "cpu") else values, np.float64)
    height, width = picture.shape[:2]
    if frame:
        strength = frame.spread(cells / scale, (height, width), smooth)
    else:
        strength = spread(cells / scale, (height, width), size, smooth)
    strength = strength.clip(-1, 1)[..., None]  # (H, W) -> (H, W, 1)
    colour = np.where(strength < 0, to_rgb(HAPPY), to_rgb(UNHAPPY))
    share = OPACITY * np.abs(strength)
    return grey * (1 - share) + colour * share


def draw_scale(fig: Figure, axes: np.ndarray, scale: float, unit: str = "log-odds") -> None:
    """The colour bar of maps over pictures, `axes`, from -scale to scale."""
    bar = fig.colorbar(ScalarMappable(Normalize(-scale, scale), EVIDENCE), ax=axes, pad=0.01)
    bar.set_ticks([-scale, 0, scale], labels=[f"{scale:.2g}\nhappy", "0", f"unhappy\n{scale:.2g}"])
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)
