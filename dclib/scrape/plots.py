"""Figures of a collection: what was left out of it, and what its files tell of the label."""

from collections.abc import Sequence

from dclib.evaluate.probe import Check
from dclib.files import extra
from dclib.plots import COLOURS, finish

with extra("plots"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.figure import Figure


def plot_funnel(steps: Sequence[tuple[str, str, int]]) -> Figure:
    """From all candidates to those kept: (stage, reason, count) of `dataset.funnel`."""
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
    return finish(fig)


def plot_probe(probe: Check) -> Figure:
    """What each column that was probed tells of the label, and all of them together."""
    columns = dict(sorted(probe.columns.items(), key=lambda column: abs(column[1] - 0.5)))
    fig, axis = plt.subplots(figsize=(6, 0.25 * len(columns) + 1.3))
    for name, area in columns.items():
        larger = "unhappy" if area > 0.5 else "happy"
        axis.barh(name, area - 0.5, left=0.5, color=COLOURS[larger], alpha=0.6)
    axis.hlines("all, on pictures left out", probe.low, probe.high, color="0.2", lw=2)
    axis.plot(probe.auroc, "all, on pictures left out", "o", color="0.2")
    axis.axvline(0.5, color="0.7", lw=1, ls=":")
    axis.set(xlim=(0, 1), xlabel="happy have more   ←   AUROC   →   unhappy have more")
    axis.set_title(f"n = {probe.n} in {probe.groups} groups; line: 95 % interval", fontsize=9)
    return finish(fig)
