"""Figures of what the network looked at.

Colours have one meaning everywhere: vermilion is evidence for unhappy, blue for happy. A map is
never stretched to its own maximum: those that are compared have one scale, and where there is no
evidence there is no colour.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from dclib.evidence import Evidence
from dclib.explain.cells import spread
from dclib.plots import HAPPY, SMALL, UNHAPPY

OPACITY = 0.75  # of the colour at `scale`
EVIDENCE = LinearSegmentedColormap.from_list("evidence", (HAPPY, "0.85", UNHAPPY))


def overlay(
    image: Image.Image | np.ndarray,
    values: np.ndarray | Tensor,
    scale: float,
    size: int,
    smooth: bool = False,
) -> np.ndarray:
    """A map over its picture: an array (H, W, 3), 0 to 1.

    Args:
        image: Pillow image, or array (H, W, 3) of uint8, or of floats from 0 to 1.
        values: (h, w), one a cell; `dclib.explain.cells` says where cells are.
        scale: value of full colour, for all maps that are compared; larger ones look the same.
        size: pixels a side of the network's input.
        smooth: bilinear between cells, as Grad-CAM was published; else every cell has one colour.

    The picture is greyed, and as grey where a value is 0. Raises ValueError unless scale > 0.
    """
    pixels = np.asarray(image)
    picture = pixels / 255 if pixels.dtype == np.uint8 else pixels  # (H, W, 3)
    grey = picture.mean(2, keepdims=True) * 0.7 + picture * 0.3
    colour, share = shade(values, scale, picture.shape[:2], size, smooth)
    return grey * (1 - share) + colour * share


def shade(
    values: np.ndarray | Tensor,
    scale: float,
    shape: tuple[int, ...],
    size: int,
    smooth: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """What `overlay` puts over a picture of `shape` (H, W): colour (H, W, 3), opacity (H, W, 1).

    The other arguments are those of `overlay`. Raises ValueError unless scale > 0.
    """
    if not scale > 0:
        raise ValueError(f"scale must be above 0, not {scale}.")
    cells = torch.as_tensor(values, dtype=torch.float64, device="cpu").numpy()
    height, width = shape
    strength = spread(cells / scale, (height, width), size, smooth)
    strength = strength.clip(-1, 1)[..., None]  # (H, W) -> (H, W, 1)
    colour = np.where(strength < 0, to_rgb(HAPPY), to_rgb(UNHAPPY))
    return colour, OPACITY * np.abs(strength)


def show_maps(
    pictures: Sequence[Image.Image | np.ndarray],
    maps: Mapping[str, np.ndarray | Tensor],
    size: int,
    scale: float | None = None,
    smooth: bool = False,
    unit: str = "log-odds",
) -> Figure:
    """A row for each picture: itself, then maps over it. All are on one scale, drawn beside them.

    Args:
        pictures: B of them, as `overlay` takes them.
        maps: {title: (B, h, w)}. Positive is evidence for unhappy; in maps whose title begins with
            "happy" it is for happy, and drawn in its colour.
        size: pixels a side of the network's input.
        scale: value of full colour; the largest of all these maps by default.
        smooth: as `overlay` takes it.
        unit: of the numbers.

    Raises ValueError for a scale below 0, and for maps of fewer or more than B pictures.
    """
    signs = {title: -1 if title.startswith("happy") else 1 for title in maps}
    signed = [torch.as_tensor(values, device="cpu") * signs[k] for k, values in maps.items()]
    strongest = max(values.abs().max().item() for values in signed)
    scale = scale or strongest or 1.0
    rows, columns = len(pictures), len(maps) + 1
    inches = (1.9 * columns + 0.8, 1.95 * rows + 0.3)
    fig, axes = plt.subplots(rows, columns, figsize=inches, squeeze=False, layout="constrained")
    for row, picture, *of_picture in zip(axes, pictures, *signed, strict=True):
        row[0].imshow(picture)
        for axis, values in zip(row[1:], of_picture, strict=True):
            axis.imshow(overlay(picture, values, scale, size, smooth=smooth))
            if not values.any():
                place = {"x": 0.5, "y": 0.04, "ha": "center", "transform": axis.transAxes}
                axis.text(**place, s="no evidence", fontsize=8, bbox={"fc": "w", "ec": "none"})
    for axis, title in zip(axes[0], ["picture", *maps], strict=True):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set_axis_off()
    draw_scale(fig, axes, scale, unit)
    return fig


def draw_scale(fig: Figure, axes: np.ndarray, scale: float, unit: str = "log-odds") -> None:
    """The colour bar of maps over pictures, `axes`, from -scale to scale."""
    bar = fig.colorbar(ScalarMappable(Normalize(-scale, scale), EVIDENCE), ax=axes, pad=0.01)
    bar.set_ticks([-scale, 0, scale], labels=[f"{scale:.2g}\nhappy", "0", f"unhappy\n{scale:.2g}"])
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def plot_parts(evidence: Evidence, index: int = 0) -> Figure:
    """From the constant to the margin of one picture: by pyramid level and branch.

    The bars and the constant sum to the margin.
    """
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
