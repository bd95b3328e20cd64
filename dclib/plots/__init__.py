"""Figures of the notebooks. Every function returns a matplotlib figure and saves nothing."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from PIL import Image

HAPPY, UNHAPPY = (
    "#0072B2",
    "#D55E00",
)  # blue and vermilion: told apart by every kind of colour vision
COLOURS = {"happy": HAPPY, "unhappy": UNHAPPY}


def show_pictures(pictures, titles=(), columns=6):
    """A grid of pictures: Pillow images or arrays (H, W, 3), each with its title."""
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


def show_answers(dataset, logits, n=12):
    """`n` pictures from all over a `CoupleFolder`, each with the network's answer to it."""
    shown = np.linspace(0, len(dataset) - 1, min(n, len(dataset))).astype(int)
    titles = []
    for index in shown:
        answer, truth = logits[index].argmax(), dataset.labels[index]
        wrong = "" if answer == truth else " (wrong)"
        titles.append(f"{dataset.classes[answer]}{wrong}")
    return show_pictures([dataset.picture(index) for index in shown], titles)


def plot_history(history):
    """Loss and accuracy by epoch, training and validation, the kept epoch marked."""
    fig, axes = plt.subplots(1, 2, figsize=(8, 3))
    epochs = np.array(history.column("epoch")) + 1
    for axis, quantity in zip(axes, ("loss", "accuracy"), strict=True):
        for split, style in (("train", "--"), ("val", "-")):
            axis.plot(
                epochs, history.column(f"{split}_{quantity}"), style, color="0.2", label=split
            )
        axis.axvline(history.best_epoch + 1, color="0.7", lw=5, zorder=0, label="kept")
        axis.set(xlabel="epoch", ylabel=quantity)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylim(bottom=0)
    axes[1].axhline(0.5, color="0.7", lw=1, ls=":", label="guessing")
    axes[1].set_ylim(0.3, 1.02)
    axes[1].legend(frameon=False, fontsize=8)
    sns.despine(fig)
    fig.tight_layout()
    return fig


def plot_prediction(image, prediction):
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
    sns.despine(fig)
    fig.tight_layout()
    return fig


def plot_probe(probe):
    """What each column of a `shortcuts.Probe` tells of the label, and all of them together."""
    columns = dict(sorted(probe.columns.items(), key=lambda column: abs(column[1] - 0.5)))
    fig, axis = plt.subplots(figsize=(6, 0.25 * len(columns) + 1.3))
    for name, area in columns.items():
        larger = "unhappy" if area > 0.5 else "happy"
        axis.barh(name, area - 0.5, left=0.5, color=COLOURS[larger], alpha=0.6)
    axis.hlines("all, on pictures left out", probe.low, probe.high, color="0.2", lw=2)
    axis.plot(probe.auroc, "all, on pictures left out", "o", color="0.2")
    axis.axvline(0.5, color="0.7", lw=1, ls=":")
    axis.set(xlim=(0, 1), xlabel="happy have more   ←   AUROC   →   unhappy have more")
    n = sum(probe.counts.values())
    axis.set_title(f"n = {n} in {probe.groups} groups; line: 95 % interval", fontsize=9)
    sns.despine(fig)
    fig.tight_layout()
    return fig


def plot_funnel(steps):
    """From all candidates to those kept: `steps` are (stage, reason, count), as `funnel` gives."""
    left = sum(count for _, _, count in steps)
    stages = list(dict.fromkeys(stage for stage, _, _ in steps if stage != "kept"))
    colours = dict(zip(stages, sns.color_palette("crest", len(stages)), strict=True))
    bars = [("all candidates", left, 0, "0.75")]
    for stage, reason, count in steps:
        if stage != "kept":
            left -= count
            bars.append((f"{stage}: {reason}" if reason else stage, count, left, colours[stage]))
    bars.append(("kept", left, 0, "0.2"))
    fig, axis = plt.subplots(figsize=(7, 0.25 * len(bars) + 0.9))
    for row, (_, count, start, colour) in enumerate(bars):
        axis.barh(row, count, left=start, color=colour)
        axis.annotate(
            f"{count}", (start + count, row), (3, 0), textcoords="offset points", va="center"
        )
    axis.set_yticks(range(len(bars)), [name for name, *_ in bars])
    axis.invert_yaxis()
    axis.set_xlabel("pictures")
    axis.margins(x=0.1)
    sns.despine(fig)
    fig.tight_layout()
    return fig


def plot_distributions(samples):
    """Cumulative shares of {quantity: {source: values}}, one panel a quantity."""
    fig, axes = plt.subplots(1, len(samples), figsize=(3.2 * len(samples), 2.6), sharey=True)
    for axis, (quantity, sources) in zip(np.atleast_1d(axes), samples.items(), strict=True):
        for (source, values), style in zip(sources.items(), ("-", "--"), strict=False):
            values = np.sort(values)
            shares = np.arange(1, len(values) + 1) / len(values)
            axis.step(values, shares, style, color="0.2", label=f"{source}, n = {len(values)}")
        axis.set(xlabel=quantity, ylim=(0, 1))
    np.atleast_1d(axes)[0].set_ylabel("share of draws below")
    np.atleast_1d(axes)[-1].legend(frameon=False, fontsize=8, loc="lower right")
    sns.despine(fig)
    fig.tight_layout()
    return fig


def plot_accuracies(results):
    """Bars of {model: {test set: Accuracy}} with their intervals, one group a test set."""
    fig, axis = plt.subplots(figsize=(8, 3.2))
    width, greys = 0.8 / len(results), np.linspace(0.75, 0.3, len(results))
    for place, (model, tests) in enumerate(results.items()):
        at = np.arange(len(tests)) + (place - (len(results) - 1) / 2) * width
        heights = [test.accuracy for test in tests.values()]
        reach = [[t.accuracy - t.low for t in tests.values()]]
        reach += [[t.high - t.accuracy for t in tests.values()]]
        axis.bar(at, heights, 0.9 * width, color=str(greys[place]), label=model)
        axis.errorbar(at, heights, reach, fmt="none", ecolor="black", capsize=3, lw=1)
        for x, test in zip(at, tests.values(), strict=True):
            axis.text(x, test.high + 0.02, f"{test.accuracy:.2f}", ha="center", fontsize=9)
    n = {test.n for tests in results.values() for test in tests.values()}
    axis.set_xticks(range(len(tests)), list(tests))
    axis.axhline(0.5, color="0.5", lw=1, ls=":")
    axis.set(ylim=(0, 1.15), ylabel=f"accuracy (n = {', '.join(map(str, sorted(n)))})")
    axis.legend(frameon=False, fontsize=9, ncols=len(results), loc="upper right")
    sns.despine(fig)
    fig.tight_layout()
    return fig


def save_figure(fig, path, colours=None):
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
