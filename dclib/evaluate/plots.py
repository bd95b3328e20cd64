"""Figures of evaluation, from tables of predictions; `tables` are {name: table}, in order.

Bands and bars are 95 % intervals for other groups of pictures; of several seeds the mean is drawn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dclib.data import CLASSES
from dclib.evaluate import calibration, metrics
from dclib.evaluate.calibration import LEAST
from dclib.evaluate.intervals import TAILS
from dclib.evaluate.metrics import Scored, draw_groups, measure, score_seeds, tell_value
from dclib.evaluate.predictions import describe, kind_of, probabilities
from dclib.evaluate.robustness import SWEEPS
from dclib.files import extra
from dclib.pictures import read_picture
from dclib.plots import (
    COLOURS,
    HAPPY,
    INK,
    SMALL,
    UNHAPPY,
    Line,
    at_row,
    draw_interval,
    finish,
    lines_for,
    show_pictures,
)

with extra("plots"):
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = np.linspace(0, 1, 201)
BELOW = SMALL | {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.16)}
BAND: dict[str, Any] = {"alpha": 0.15, "lw": 0}
DOTTED: dict[str, Any] = {"color": "0.7", "lw": 1, "ls": ":"}
AREAS = ("AUROC", "average precision")
MARKS = {"worse": UNHAPPY, "better": HAPPY, "no difference seen": INK, "too few": "0.7"}
ROW = 0.2  # inches
SWEEP_COLUMNS = 3  # of sweeps
CAUTION = "lines: 95 % intervals, each for its slice alone; vertical line: all pictures"


def plot_confusion(table: pd.DataFrame) -> Figure:
    """What was answered to each class: counts, and shares of each row with their intervals."""
    sets = score_seeds(table)
    labels, answers = sets[0].labels, np.array([s.answers for s in sets])  # (N,), (seeds, N)
    counts = [[(answers == a)[:, labels == t].sum() / len(sets) for a in (0, 1)] for t in (0, 1)]
    totals = np.sum(counts, axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    texts = [
        [f"{share:.3f}" if n else "no pictures" for share in row] for row, n in zip(shares, totals)
    ]
    for place, name in enumerate(CLASSES):
        _, low, high = metrics.proportion_interval(sets, f"recall {name}")
        if np.isfinite(low):
            texts[place][place] += f"\n({low:.3f} to {high:.3f})"
            texts[place][1 - place] += f"\n({1 - high:.3f} to {1 - low:.3f})"
    form, title = (".0f", "pictures") if len(sets) == 1 else (".1f", "pictures, mean over seeds")
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    numbers = [[f"{count:{form}}" for count in row] for row in counts]
    options = {"fmt": "", "cmap": "Greys", "cbar": False, "lw": 2, "vmin": 0}
    options |= {"xticklabels": CLASSES, "yticklabels": CLASSES}
    panels = ((counts, numbers, title, totals.sum()), (shares, texts, "share of the row", 1))
    for axis, (values, text, title, most) in zip(axes, panels, strict=True):
        sns.heatmap(values, annot=np.array(text), ax=axis, vmax=most, **options)
        axis.set(xlabel="answer", ylabel="truth")
        axis.set_title(title, fontsize=9)
        axis.tick_params(length=0, rotation=0)
    return finish(fig, _sentence(table))


def plot_curves(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Receiver operating characteristic and precision against recall, with pointwise bands."""
    sentence, looks = _common(tables), lines_for(tables)
    fig, axes = plt.subplots(1, 2, figsize=(8, 4.1 + 0.18 * len(tables)))
    left, right = axes
    for name, table in tables.items():
        colour, style, _ = looks[name]
        sets, measured = score_seeds(table), measure(table)
        lines = _curves(sets, np.ones((1, sets[0].n)))[:, 0]  # (2, 201)
        bands = np.hstack([_curves(sets, weights) for weights in draw_groups(sets[0])])
        for axis, line, band, metric in zip(axes, lines, bands, AREAS, strict=True):
            label = f"{name}: {tell_value(measured.loc[metric])}"
            axis.plot(GRID, line, color=colour, ls=style, label=label)
            if sets[0].n_groups > 1 and np.isfinite(line).all():
                low, high = np.quantile(band, TAILS, axis=0)
                axis.fill_between(GRID, low, high, color=colour, **BAND)
    left.plot([0, 1], [0, 1], **DOTTED, label="guessing")
    share = score_seeds(next(iter(tables.values())))[0].labels.mean()
    right.axhline(share, **DOTTED, label="guessing")
    left.set(xlabel="share of the happy called unhappy", ylabel="share of the unhappy found")
    right.set(xlabel="share of the unhappy found", ylabel="share right of those called unhappy")
    for axis, title in zip(axes, AREAS, strict=True):
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), box_aspect=1)
        axis.legend(title=title, title_fontsize=8, alignment="left", **BELOW)
    return finish(fig, sentence)


def _curves(sets: Sequence[Scored], weights: np.ndarray) -> np.ndarray:
    """Recall by false alarms, precision by recall, on `GRID`, mean over seeds: (2, D, 201)."""
    curves = np.full((len(sets), 2, len(weights), len(GRID)), np.nan)
    for curve, scored in zip(curves, sets, strict=True):
        if 0 < scored.labels.sum() < scored.n:
            counts = scored.ranking.count(scored.labels, weights)
            unhappy, happy = (count[:, ::-1].cumsum(1) for count in counts)  # of scores, falling
            precisions = unhappy / np.maximum(unhappy + happy, 1)
            rates = zip(unhappy / unhappy[:, -1:], happy / happy[:, -1:], precisions, strict=True)
            for draw, (recall, alarms, precision) in enumerate(rates):
                curve[0, draw] = np.interp(GRID, np.r_[0, alarms], np.r_[0, recall])
                first = np.searchsorted(recall, np.maximum(GRID, 1e-9) - 1e-12)
                curve[1, draw] = precision[first]  # ties are one step here, straight lines above
    return curves.mean(0)


def plot_reliability(table: pd.DataFrame) -> Figure:
    """Share of unhappy pictures against the probability given, before and after temperature."""
    size: dict[str, Any] = {"figsize": (8, 4.9), "height_ratios": (3, 1)}
    fig, axes = plt.subplots(2, 2, **size, sharex=True, sharey="row")
    names = ("as trained", f"temperature {_span(table['temperature'])}")
    for (upper, lower), calibrated, name in zip(axes.T, (False, True), names, strict=True):
        rows = calibration.reliability(table, calibrated=calibrated)
        error = measure(table, calibrated=calibrated)
        upper.plot([0, 1], [0, 1], **DOTTED)
        reach = np.clip([rows["share"] - rows["low"], rows["high"] - rows["share"]], 0, 1)
        upper.errorbar(rows["prob"], rows["share"], reach, color="0.2", fmt="o-", lw=1)
        upper.set_title(f"{name}: ECE {tell_value(error.loc['ECE'])}", fontsize=9)
        lower.hist(probabilities(table, calibrated), np.linspace(0, 1, 21), color="0.6")
        lower.set_xlabel('probability of "unhappy"')
    axes[0, 0].set(ylabel="share of unhappy pictures", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes[1, 0].set_ylabel("answers")
    return finish(fig, _sentence(table) + "; bins of equally many")


def plot_risk_coverage(
    tables: Mapping[str, pd.DataFrame], confidence: float | None = None
) -> Figure:
    """Share wrong among the surest answers, and where abstaining below `confidence` puts it."""
    sentence, looks = _common(tables), lines_for(tables)
    fig, axis = plt.subplots(figsize=(8, 3.8 + 0.4 * len(tables)))
    for name, table in tables.items():
        colour, style, _ = looks[name]
        rows = calibration.risk_coverage(table)
        rows = rows[rows["n"] >= min(LEAST, rows["n"].max())]
        label = f"{name}, area {calibration.risk_area(table):.3f}"
        axis.plot(rows["coverage"], rows["risk"], color=colour, ls=style, label=label)
        axis.fill_between(rows["coverage"], rows["low"], rows["high"], color=colour, **BAND)
        whole = rows.iloc[-1]
        axis.plot(whole["coverage"], whole["risk"], "o", color=colour, ms=4)
        axis.vlines(whole["coverage"], whole["low"], whole["high"], color=colour, lw=1)
        mark = {"n": 0} if confidence is None else calibration.risk_at(table, confidence)
        if mark["n"]:
            share, wrong, low, high = (100 * mark[k] for k in ("coverage", "risk", "low", "high"))
            label = f"from confidence {mark['confidence']:.3f} on: {share:.0f} % answered, "
            label += f"{wrong:.1f} % wrong ({low:.1f} to {high:.1f} %)"
            place = (mark["coverage"], mark["risk"])
            axis.plot(*place, "o", color=colour, ms=8, mec="white", label=label)
    axis.set(xlim=(0, 1.01), ylim=(0, None), ylabel="share wrong")
    axis.set_xlabel(f"coverage: share of pictures answered, the surest first, {LEAST} at least")
    axis.legend(**BELOW)
    return finish(fig, sentence)


def plot_scores(table: pd.DataFrame) -> Figure:
    """How many pictures of each class got which probability, on a log scale, and the threshold."""
    fig, axes = plt.subplots(2, 1, figsize=(7, 3.8), sharex=True, sharey=True)
    probs, edges, top = probabilities(table), np.linspace(0, 1, 41), 10
    seeds = table["seed"].nunique()
    for axis, name in zip(axes, CLASSES, strict=True):
        values = probs[(table["label"] == name).to_numpy()]
        share = np.full(len(values), 1 / seeds)
        heights, *_ = axis.hist(values, edges, weights=share, color=COLOURS[name])
        top = max(top, heights.max())
        for threshold in table["threshold"].unique():
            axis.axvline(threshold, color="0.2", lw=1, ls="--")
        axis.set(xlim=(0, 1), ylabel=f"{name} pictures")
    axes[0].set_ylim(0.6 / seeds, 1.3 * top)  # before the scale, which cannot do with no picture
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_formatter("{x:g}")
    ends = _span(table["threshold"])
    axes[1].set_xlabel(f'probability of "unhappy"; dashed: "unhappy" from {ends} on')
    return finish(fig, _sentence(table))


def _span(column: pd.Series) -> str:
    """Its number, or its lowest and highest."""
    low, high = column.min(), column.max()
    return f"{low:.2f}" + (f" to {high:.2f}" if high > low else "")


def plot_mistakes(table: pd.DataFrame, root: str | Path, n: int = 12) -> Figure:
    """The `n` wrong answers of which the network was most sure, e.g. "unhappy 97 % (happy)".

    Of several seeds the mean probability decides.
    """
    columns = {"prob": probabilities(table), "label": table["label"], "cut": table["threshold"]}
    means = {"prob": "mean", "label": "first", "cut": "mean"}
    rows = table[["id"]].assign(**columns).groupby("id", as_index=False).agg(means)
    rows["answer"] = np.where(rows["prob"] >= rows["cut"], CLASSES[1], CLASSES[0])
    rows["sure"] = np.where(rows["answer"] == CLASSES[1], rows["prob"], 1 - rows["prob"])
    wrong = rows[rows["answer"] != rows["label"]].sort_values("sure", ascending=False)
    if not len(wrong):
        fig, axis = plt.subplots(figsize=(7, 1))
        axis.set_axis_off()
        axis.text(0.5, 0.5, "No picture got a wrong answer.", ha="center", va="center")
        return finish(fig, _sentence(table))
    shown = wrong.head(n)
    titles = [f"{row.answer} {100 * row.sure:.0f} % ({row.label})" for row in shown.itertuples()]
    fig = plot_pictures(shown, root, titles)
    return finish(fig, f"{len(shown)} of {len(wrong)} mistakes, {_sentence(table)}")


def plot_pictures(rows: pd.DataFrame, root: str | Path, titles: Sequence[str]) -> Figure:
    """A contact sheet of the pictures root/id of a table's rows, each with its title."""
    pictures = [read_picture(Path(root) / name).image for name in rows["id"]]
    return show_pictures(pictures, titles, columns=4)


def plot_metrics(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy, AUROC and Brier score, a panel each, of several tables side by side."""
    sentence, size = _common(tables), (8, 0.35 * len(tables) + 1.2)
    fig, axes = plt.subplots(1, 3, figsize=size, sharey=True)
    measured = [measure(table) for table in tables.values()]
    dots = any(table["seed"].nunique() > 1 for table in tables.values())
    for axis, metric in zip(axes, ("accuracy", "AUROC", "Brier"), strict=True):
        for place, row in enumerate(rows.loc[metric] for rows in measured):
            ends = [row[dot] for dot in ("seed_low", "seed_high") if dots]
            mean = {"mean": row["value"], "low": row["low"], "high": row["high"]}
            draw_interval(axis, place, mean, np.reshape(ends, (-1, 1)), "0.2")
            if not np.isfinite(row["value"]):
                axis.text(0.5, place, "not defined", **at_row(axis, "center"))
        axis.set_xlabel(metric + (" (less is better)" if metric == "Brier" else ""))
        axis.locator_params("x", nbins=4)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(tables)), list(tables))
    axes[0].set_ylim(len(tables) - 0.5, -0.5)
    return finish(fig, sentence + ("; small dots: lowest and highest seed" if dots else ""))


def plot_predictive_values(measured: pd.DataFrame) -> Figure:
    """How often each answer is right, by the share of unhappy pictures where it is asked."""
    fig, axis = plt.subplots(figsize=(7, 3.6))
    rows = calibration.predictive_values(measured, np.linspace(0, 1, 201))
    for column, name, style in (("npv", "happy", "--"), ("ppv", "unhappy", "-")):
        label = f'of the answers "{name}" ({column.upper()})'
        axis.plot(rows["prevalence"], rows[column], style, color=COLOURS[name], label=label)
        band = (rows["prevalence"], rows[f"{column}_low"], rows[f"{column}_high"])
        axis.fill_between(*band, color=COLOURS[name], **BAND)
    happy, unhappy = (measured.loc[f"recall {name}"] for name in CLASSES)
    share = unhappy["n"] / (happy["n"] + unhappy["n"])
    axis.axvline(share, **DOTTED, label="pictures measured")
    axis.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share right")
    axis.set_xlabel("prevalence: share of unhappy couples among those asked about")
    axis.legend(loc="lower center", **SMALL)
    parts = [f"{r.name} {tell_value(r)}, n = {r['n']}" for r in (happy, unhappy)]
    return finish(fig, "; ".join(parts))


def _sentence(table: pd.DataFrame) -> str:
    """How much there is, and that it is drawn if it is."""
    kind = kind_of(table)
    return describe(table) + ("" if kind == "photographs" else f"; {kind}")


def _common(tables: Mapping[str, pd.DataFrame]) -> str:
    """The sentence of tables, which must be on the same pictures."""
    first, *others = tables.values()
    if any(set(table["id"]) != set(first["id"]) for table in others):
        raise ValueError("The tables are not of the same pictures; draw them one by one.")
    return _sentence(first)


def plot_slices(frame: pd.DataFrame) -> Figure:
    """Accuracy in every slice with its interval, a block a tag, of `slices.slice_table`."""
    rows = []  # the name of each tag, followed by its slices
    for tag, slices in frame.groupby("tag", sort=False):
        rows += [tag, *slices.itertuples()]
    fig, axis = plt.subplots(figsize=(8, ROW * len(rows) + 1.2))
    for place, row in enumerate(rows):
        if isinstance(row, str):
            axis.text(-0.01, place, row, weight="bold", **at_row(axis, "right"))
            continue
        colour = MARKS[row.verdict]
        ink = {INK: "black", "0.7": "0.5"}.get(colour, colour)  # text needs more contrast
        axis.hlines(place, row.low, row.high, color=colour, lw=2)
        axis.plot(row.accuracy, place, "o", color=colour, ms=5)
        axis.text(-0.01, place, row.value, color=ink, **at_row(axis, "right"))
        axis.text(1.09, place, f"{row.n}", color=ink, **at_row(axis, "right"))
        if row.verdict != "no difference seen":
            p = "p < 0.001" if row.p_holm < 0.001 else f"p = {row.p_holm:.3f}"
            verdict = row.verdict if np.isnan(row.p) else f"{row.verdict}, {p}"
            axis.text(1.11, place, verdict, color=ink, **at_row(axis, "left"))
    most = frame[frame["tag"] == frame.groupby("tag")["n"].sum().idxmax()]  # pictures have this tag
    share, n = np.average(most["accuracy"], weights=most["n"]), most["n"].sum()
    axis.axvline(share, color="0.7", lw=1, zorder=0)
    axis.text(1.09, -1.2, "n", **at_row(axis, "right"))
    axis.text(1.11, -1.2, "p after Holm", **at_row(axis, "left"))
    axis.set(ylim=(len(rows) - 0.4, -1.6), yticks=[], xlim=(min(0.45, frame["low"].min()), 1.005))
    axis.set_xlabel(f"accuracy (n = {n})")
    axis.set_title(CAUTION, fontsize=9)
    sns.despine(fig, left=True)
    return finish(fig)


def plot_sweeps(frame: pd.DataFrame) -> Figure:
    """Accuracy along every sweep: a panel a sweep, a curve a model, of `robustness.summarise`."""
    kinds, looks = list(dict.fromkeys(frame["sweep"])), lines_for(dict.fromkeys(frame["model"]))
    columns, names = min(SWEEP_COLUMNS, len(kinds)), 5  # in a row of panels and of the legend
    rows = -(-len(kinds) // columns)
    above = 0.12 + 0.18 * -(-(len(looks) + 2) // names)
    size = (8, 2 * rows + above)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True)
    for axis in axes.flat[len(kinds) :]:
        axis.set_axis_off()
    for axis, kind in zip(axes.flat, kinds, strict=False):
        curves = draw_sweep(axis, frame[frame["sweep"] == kind], looks)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy", fontsize=8)
    axes[0, 0].set_ylim(min(0.45, frame["low"].min()), 1.01)
    sns.despine(fig)
    fig.tight_layout(rect=(0, 0, 1, 1 - above / size[1]))
    fig.legend(handles=curves, ncols=names, loc="upper center", **SMALL)
    return fig


def draw_sweep(axis: Axes, frame: pd.DataFrame, looks: Mapping[str, Line]) -> list[Artist]:
    """One sweep, levels at equal distances, {model: its line}; returns what a legend names."""
    levels = sorted(set(frame["level"]))
    place = {level: x for x, level in enumerate(levels)}
    curves = []
    for model, (colour, style, marker) in looks.items():
        part = frame[frame["model"] == model].sort_values("level")
        x = part["level"].map(place)
        axis.fill_between(x, part["low"], part["high"], color=colour, **BAND)
        look: dict = {"color": colour, "ls": style, "marker": marker, "ms": 3.5}
        curves += axis.plot(x, part["accuracy"], label=model, **look)
    for level in sorted(set(frame.loc[frame["reference"], "level"])):
        as_is = axis.axvline(place[level], color="0.85", lw=5, zorder=0, label="left as it is")
    guess = axis.axhline(0.5, **DOTTED, label="guessing")
    axis.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    axis.tick_params(labelsize=7)
    kind = frame["sweep"].iloc[0]
    axis.set_xlabel(SWEEPS[kind].unit, fontsize=8)
    axis.set_title(f"{kind} (n = {frame['n'].max()})", fontsize=9)
    return [*curves, as_is, guess]
