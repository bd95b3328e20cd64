"""Figures of the 100 neurons before the last layer.

Vermilion is towards unhappy, blue towards happy, in log-odds; maps of one figure have one scale.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from dclib.checkpoint import Checkpoint
from dclib.data import CLASSES, DRAWN
from dclib.data.loading import CoupleFolder
from dclib.explain.evidence import Evidence, alike_neurons, fold_head, waterfall_steps
from dclib.explain.neurons import States, top_crops
from dclib.explain.unhappiness import KINDS, OwnRight
from dclib.files import extra
from dclib.framing import Frame
from dclib.plots import (
    COLOURS,
    EVIDENCE,
    HAPPY,
    INK,
    SMALL,
    UNHAPPY,
    at_row,
    draw_scale,
    finish,
    overlay,
)

with extra("plots"):
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

HEAT = "YlOrRd"  # the authors' colours of activation


def plot_scatter(checkpoint: Checkpoint, evidence: Evidence, index: int = 0) -> Figure:
    """The last layer's two weights of every neuron, coloured by what one picture does to it.

    Left as the authors drew it: weights as trained, colour from -1 to 1.5 for the neuron after
    BatchNorm, where one that is off has any colour. Right with BatchNorm folded, where off is 0 and
    drawn hollow, and sizes are by |contribution|. Neurons off far outside of those that are on are
    counted, not drawn. `evidence` is that of a batch, from `find_evidence`, `index` the picture.
    """
    head = fold_head(checkpoint.model, checkpoint.config["temperature"])
    order = [head.classes.index(name) for name in CLASSES]
    raw = checkpoint.model.head.lin2.weight.detach().float().cpu().numpy()[order]  # (2, 100)
    activation = evidence.z[index].clamp(min=0).cpu()
    incoming = activation * head.scale.cpu() + head.shift.cpu()  # (100,), as lin2 gets it
    with plt.style.context("ggplot"):
        fig = plt.figure(figsize=(8, 3.6))
        left = fig.add_subplot(1, 2, 1)
        look: dict = {"cmap": HEAT, "vmin": -1, "vmax": 1.5, "edgecolor": "gray", "alpha": 0.8}
        points = left.scatter(raw[0], raw[1], s=30, c=incoming.numpy(), **look)
        left.set(xlabel="Happy Weight", ylabel="Unhappy Weight")
        left.set_title("Activation of Neurons in Last Layer", fontsize=10)
        fig.colorbar(points, ax=left).set_label("Incoming Activation Values")
    sizes = evidence.of_margin("contributions")[index].abs().cpu().numpy()
    right = fig.add_subplot(1, 2, 2)
    _draw_folded(fig, right, head.last.cpu().numpy()[order], activation.numpy(), sizes)
    fig.tight_layout()
    return fig


def _draw_folded(
    fig: Figure, axis: Axes, weights: np.ndarray, activation: np.ndarray, sizes: np.ndarray
) -> None:
    """Weights (2, 100), coloured by activation (100,); `sizes` (100,) are relative."""
    on = activation > 0
    reach = 1.25 * np.abs(weights[:, on]).max() if on.any() else np.abs(weights).max()
    near = (np.abs(weights) <= reach).all(0)
    sizes = 12 + 150 * sizes / max(sizes.max(), 1e-12)
    axis.axline((0, 0), slope=1, color="0.85", lw=1, zorder=0)
    off = near & ~on
    happy, unhappy = weights
    axis.scatter(happy[off], unhappy[off], s=sizes[off], facecolor="none", edgecolor="0.6")
    look: dict = {"cmap": HEAT, "vmin": 0, "edgecolor": "gray", "alpha": 0.85}
    points = axis.scatter(happy[on], unhappy[on], s=sizes[on], c=activation[on], **look)
    fig.colorbar(points, ax=axis, label="activation relu(z) in this picture")
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axis.set(xlabel="folded weight of happy", ylabel="folded weight of unhappy")
    axis.set_title(
        f"{on.sum()} on, {(~on).sum()} off ({(~near).sum()} of them outside)", fontsize=9
    )
    text: dict = {"transform": axis.transAxes, "fontsize": 9}
    axis.text(0.03, 0.97, "towards unhappy", color=UNHAPPY, ha="left", va="top", **text)
    axis.text(0.97, 0.03, "towards happy", color=HAPPY, ha="right", va="bottom", **text)
    sns.despine(ax=axis)


def plot_region_maps(
    image: Image.Image | np.ndarray,
    evidence: Evidence,
    size: int,
    n: int = 4,
    frame: Frame | None = None,
) -> Figure:
    """What each region adds to the margin through neurons, on one scale.

    Neurons whose maps resemble each other are one map, their sum; the n that add most are drawn,
    and all together are the margin map. Through neurons that pull towards unhappy, vermilion
    regions switch them on and blue ones off; through those that pull towards happy it is the
    reverse. `evidence` is of this picture, the first of its batch; `size`, pixels a side of the
    network's input; `frame`, what it looked at, if that was not all of it.
    """
    groups = alike_neurons(evidence, n)
    if not groups:
        raise ValueError("No neuron is on in this picture: no region has a say in the margin.")
    added, through = evidence.of_margin("contributions")[0], evidence.through_neurons[0].cpu()
    maps = torch.stack([through[group].sum(0) for group in groups])  # (n, h, w)
    scale = float(maps.abs().max())
    rows = -(-len(groups) // 4)
    inches = (8, 2.3 * rows + 0.3)
    fig, axes = plt.subplots(rows, 4, figsize=inches, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (first, *others), values in zip(axes.flat, groups, maps, strict=False):
        axis.imshow(overlay(image, values, scale, size, frame=frame))
        total = added[[first, *others]].sum().item()
        name = f"neuron {first}" + f" and {len(others)} alike" * bool(others)
        colour = UNHAPPY if total > 0 else HAPPY
        axis.set_title(f"{name}:\n{total:+.2f}", fontsize=9, color=colour)
    draw_scale(fig, axes, scale, "log-odds a cell")
    return fig


def plot_waterfall(evidence: Evidence, index: int = 0, n: int = 10) -> Figure:
    """How the strongest neurons, one after another, lead from the constant to the margin.

    The rest of the neurons is drawn as two bars, one each way.
    """
    steps = waterfall_steps(evidence, index, n)
    fig, axis = plt.subplots(figsize=(8, 0.27 * (len(steps) + 1) + 0.9))
    place = 0.0
    for row, (_, value) in enumerate(steps):
        colour = UNHAPPY if value > 0 else HAPPY
        axis.barh(row, value, left=place, color=colour if row else "0.6")
        place += value
        axis.vlines(place, row - 0.4, row + 1.4, color="0.5", lw=0.8)
        axis.text(1.01, row, f"{value:+.2f}", **at_row(axis, "left"))
    axis.plot(place, len(steps), "D", color=INK)
    answer = "unhappy" if place > 0 else "happy"
    axis.text(1.01, len(steps), f"{place:+.2f}", color=COLOURS[answer], **at_row(axis, "left"))
    axis.axvline(0, color="0.7", lw=1, ls=":")
    axis.use_sticky_edges = False
    axis.margins(x=0.02)
    axis.set_yticks(range(len(steps) + 1), [*(name for name, _ in steps), "margin"])
    axis.invert_yaxis()
    axis.set_xlabel("happy   ←   log-odds for unhappy   →   unhappy")
    return finish(fig)


def plot_cards(
    states: States, table: pd.DataFrame, dataset: CoupleFolder, neurons: Sequence[int], n: int = 5
) -> Figure:
    """A row a neuron: the n crops that excite it most, its activations by class, its evidence.

    `states`, `table` and `dataset` are from `activation_states`, `neuron_table`, and their
    pictures. The map is the mean over the pictures on which the neuron is on, in log-odds, on one
    scale.
    """
    fig = plt.figure(figsize=(8, 1.75 * len(neurons) + 0.5), layout="constrained")
    rows = fig.subfigures(len(neurons), 1, squeeze=False)[:, 0]
    maps = {k: states.pull[k] * states.maps[k] for k in neurons}
    scale = max(max(np.abs(values).max() for values in maps.values()), 1e-6)
    for part, k in zip(rows, neurons, strict=True):
        axes = part.subplots(1, n + 2, width_ratios=[1] * n + [1.7, 1])
        for axis in (*axes[:n], axes[-1]):
            axis.set_axis_off()
        for axis, crop in zip(axes, top_crops(states, dataset, k, n), strict=False):
            axis.imshow(crop.image)
            axis.set_title(crop.label, fontsize=8, color=COLOURS[crop.label], pad=2)
        _draw_activations(axes[n], states, k)
        axes[-1].imshow(maps[k], cmap=EVIDENCE, vmin=-scale, vmax=scale)
        axes[-1].set_title("evidence", fontsize=8, pad=2)
        part.suptitle(_describe(k, table.loc[k]), fontsize=8, x=0.01, ha="left")
    drawn = all(source.startswith(DRAWN) for source in states.sources)
    about = f"{states}{'; drawn couples' if drawn else ''}"
    fig.supxlabel(f"{about}; full colour of a map: {scale:.2f} log-odds", fontsize=8)
    return fig


def _draw_activations(axis: Axes, states: States, k: int) -> None:
    """Histograms of one neuron's activations, happy above and unhappy below the line."""
    values = states.activations[:, k]
    edges = np.linspace(0, max(values.max(), 1e-6), 25)
    for name, part, sign in zip(CLASSES, (~states.labels, states.labels), (1, -1), strict=True):
        heights, _ = np.histogram(values[part], edges)
        axis.bar(edges[:-1], sign * heights, np.diff(edges), align="edge", color=COLOURS[name])
    axis.axhline(0, color="0.5", lw=0.8)
    axis.set_yticks([])
    axis.tick_params(labelsize=7)
    axis.set_title("activation by class", fontsize=8, pad=2)
    sns.despine(ax=axis, left=True)


def _describe(k: int, row: pd.Series) -> str:
    """Two lines about a neuron, of its row in the table."""
    side = "unhappy" if row["pull"] > 0 else "happy"
    area = f"{row['auroc']:.2f}"
    if np.isfinite(row["auroc_low"]):
        area += f" ({row['auroc_low']:.2f} to {row['auroc_high']:.2f})"
    copy = f", says what neuron {row['duplicate_of']:.0f} says" if row["duplicate_of"] >= 0 else ""
    rates = [
        f"{name} {row[f'rate_{name}']:.0%} ({row[f'rate_{name}_low']:.0%} to "
        f"{row[f'rate_{name}_high']:.0%})"
        for name in CLASSES
    ]
    faces = ""
    if np.isfinite(row["on_faces"]):
        faces = f"; of what excites it {row['on_faces']:.0%} on faces"
        faces += f" ({row['face_area']:.0%} of the area)"
    bins = f"{row['level']} x {row['level']} bins"
    first = f"Neuron {k}: pulls towards {side}{copy}; AUROC for unhappy {area}; by the {bins}"
    return f"{first}\non: {', '.join(rates)}{faces}"


def plot_own_right(result: OwnRight) -> Figure:
    """Which neurons part the classes, by kind, and how well each kind does alone (`own_right`)."""
    fig, axes = plt.subplots(1, 3, figsize=(8, 3.4), width_ratios=(2.2, 1, 1))
    left, share, area = axes
    colours = dict(zip(KINDS, (UNHAPPY, HAPPY), strict=True))
    neurons = result.neurons.dropna(subset="low").sort_values("part", ascending=False)
    for row, (_, neuron) in enumerate(neurons.iterrows()):
        colour = colours[neuron["kind"]]
        left.barh(row, neuron["part"], color=colour, alpha=0.45)
        left.hlines(row, neuron["low"], neuron["high"], color=colour, lw=1.2)
    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    left.legend(handles=handles, loc="lower right", **SMALL)
    left.axvline(0, color="0.7", lw=1)
    left.invert_yaxis()
    left.set(yticks=[], xlabel="part of the separation, log-odds")
    left.set_title(f"{len(neurons)} neurons that vary", fontsize=9)
    for place, (name, row) in enumerate(result.kinds.iterrows()):
        for axis, column in ((share, "share"), (area, "auroc")):
            ends = [row[column + end] for end in ("", "_low", "_high")]
            _tell_interval(axis, place, ends, colours[name])
    _tell_interval(share, 2, (1, np.nan, np.nan), INK)
    _tell_interval(area, 2, result.whole, INK)
    share.set(yticks=range(3), yticklabels=["unhappiness", "missing\nhappiness", "all"])
    share.set_xlim(min(-0.05, result.kinds["share_low"].min()), 1.1)
    area.set_xlim(min(0.45, result.kinds["auroc_low"].min()), 1.03)
    area.set_yticks([])
    for axis, none, name in ((share, 0, "share"), (area, 0.5, "AUROC alone")):
        axis.axvline(none, color="0.7", lw=1, ls=":")
        axis.set(ylim=(2.4, -0.6), xlabel=name)
    gain, low, high = result.gain
    gained = f"AUROC of all less missing happiness alone: {gain:+.3f} ({low:+.3f} to {high:+.3f})"
    return finish(fig, f"{result.about}; lines: 95 % intervals\n{gained}")


def _tell_interval(axis: Axes, place: float, ends: Sequence[float], colour: str) -> None:
    """A value, told beside it, with the low and high end of its interval."""
    value, low, high = ends
    axis.hlines(place, low, high, color=colour, lw=2)
    axis.plot(value, place, "o", color=colour, ms=5)
    look: dict = {"textcoords": "offset points", "fontsize": 8, "ha": "center"}
    axis.annotate(f"{value:.2f}", (value, place), (0, 6), **look)
