"""Figures of augmentation: whether two ways of it agree, and what it is good for."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dclib.evaluate.intervals import Accuracy
from dclib.plots import SMALL, finish


def plot_distributions(samples: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """Cumulative shares of {quantity: {source: values}}, one panel a quantity."""
    size = (3.2 * len(samples), 2.6)
    fig, axes = plt.subplots(1, len(samples), figsize=size, sharey=True, squeeze=False)
    for axis, (quantity, sources) in zip(axes[0], samples.items(), strict=True):
        for (source, values), style in zip(sources.items(), ("-", "--"), strict=False):
            values = np.sort(values)
            shares = np.arange(1, len(values) + 1) / len(values)
            axis.step(values, shares, style, color="0.2", label=f"{source}, n = {len(values)}")
        axis.set(xlabel=quantity, ylim=(0, 1))
    axes[0, 0].set_ylabel("share of draws below")
    axes[0, -1].legend(loc="lower right", **SMALL)
    return finish(fig)


def plot_accuracies(results: Mapping[str, Mapping[str, Accuracy]]) -> Figure:
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
    return finish(fig)
