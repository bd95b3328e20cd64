import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tables
from matplotlib.colors import to_hex
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from dclib.data import CLASSES, DRAWN
from dclib.evaluate.calibration import (
    LEAST,
    predictive_values,
    reliability,
    risk_area,
    risk_coverage,
)
from dclib.evaluate.metrics import measure
from dclib.evaluate.plots import (
    GRID,
    plot_confusion,
    plot_curves,
    plot_metrics,
    plot_mistakes,
    plot_pictures,
    plot_predictive_values,
    plot_reliability,
    plot_risk_coverage,
    plot_scores,
    plot_slices,
    plot_sweeps,
)
from dclib.evaluate.predictions import LOGITS, answers, probabilities
from dclib.plots import HAPPY, LINES, UNHAPPY, finish, save_figure, show_pictures


def simulate(n=200, seed=-1, separation=1.8):
    """A table of a network too sure of itself, each couple once happy and once unhappy."""
    table = tables.simulate(n, seed + 1, separation)
    table[LOGITS] *= 1.5
    table["id"] = table["id"].str.replace("jpg", "png")
    return table.assign(seed=seed, temperature=1.5, threshold=0.4)


@pytest.fixture(scope="module")
def table():
    return simulate()


@pytest.fixture(scope="module")
def seeds():
    return pd.concat([simulate(seed=seed) for seed in (0, 1, 2)], ignore_index=True)


def title(fig):
    return fig.get_suptitle()


def segments(axis):
    """Ends of all lines that `hlines` or `vlines` drew, (lines, 2, 2)."""
    return np.concatenate([c.get_segments() for c in axis.collections])


def texts(axis):
    return [text.get_text() for text in axis.texts]


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_the_confusion_is_that_of_scikit_learn_with_intervals_and_of_seeds_their_mean(table, seeds):
    left, right = plot_confusion(table).axes
    counts = confusion_matrix(table["label"] == "unhappy", answers(table))
    assert texts(left) == [str(count) for count in counts.ravel()]
    measured = measure(table, draws=2)
    for place, name in ((0, "happy"), (3, "unhappy")):
        row = measured.loc[f"recall {name}"]
        assert texts(right)[place] == f"{row['value']:.3f}\n({row['low']:.3f} to {row['high']:.3f})"
    missed = 1 - measured.loc["recall unhappy", ["value", "high", "low"]]
    assert texts(right)[2] == "{:.3f}\n({:.3f} to {:.3f})".format(*missed)
    assert [tick.get_text() for tick in left.get_yticklabels()] == list(CLASSES)
    assert "n = 200" in title(left.figure)
    left, _ = plot_confusion(seeds).axes
    counts = confusion_matrix(seeds["label"] == "unhappy", answers(seeds)) / 3
    assert texts(left) == [f"{count:.1f}" for count in counts.ravel()]
    assert "3 seeds" in title(left.figure)


def test_curves_are_those_of_scikit_learn_and_lie_within_their_bands(table):
    left, right = plot_curves({"demo": table}).axes
    labels, probs = table["label"] == "unhappy", probabilities(table)
    alarms, recall, _ = roc_curve(labels, probs, drop_intermediate=False)
    best = [recall[alarms <= x + 1e-12].max() for x in GRID[::2]]  # where a step may be
    np.testing.assert_allclose(left.lines[0].get_ydata()[::2], best)
    precision, recall, _ = precision_recall_curve(labels, probs)
    expected = [precision[:-1][recall[:-1] >= max(x, 1e-9) - 1e-12][-1] for x in GRID]
    np.testing.assert_allclose(right.lines[0].get_ydata(), expected)
    row = measure(table).loc["average precision"]
    assert right.lines[0].get_ydata()[1:].mean() == pytest.approx(row["value"], abs=0.01)
    assert legend(right)[0] == f"demo: {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    assert right.lines[-1].get_ydata()[0] == 0.5  # share of the unhappy
    for axis in (left, right):
        low, high = band(axis)
        line = axis.lines[0].get_ydata()
        assert (low <= line + 0.02).all() and (line <= high + 0.02).all() and (high > low).any()


def band(axis):
    """Lowest and highest y at each x of the grid, of the first band of an axis."""
    points = axis.collections[0].get_paths()[0].vertices
    at = [points[np.isclose(points[:, 0], x), 1] for x in GRID]
    return np.array([ys.min() for ys in at]), np.array([ys.max() for ys in at])


def test_ties_are_a_straight_line_and_one_precision_and_curves_of_seeds_their_mean(seeds):
    guess = simulate().assign(logit_happy=0.0, logit_unhappy=0.0)
    left, right = plot_curves({"guess": guess}).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), GRID)
    np.testing.assert_allclose(right.lines[0].get_ydata(), 0.5)
    parts = [part for _, part in seeds.groupby("seed")]
    each = [plot_curves({"one": part}).axes[0].lines[0].get_ydata() for part in parts]
    mean = plot_curves({"all": seeds}).axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(mean, np.mean(each, axis=0))


def test_reliability_is_drawn_before_and_after_temperature(table):
    axes = plot_reliability(table).axes
    for axis, histogram, calibrated in zip(axes[:2], axes[2:], (False, True), strict=True):
        rows = reliability(table, calibrated=calibrated)
        assert axis.lines[1].get_xdata().tolist() == rows["prob"].tolist()
        assert axis.lines[1].get_ydata().tolist() == rows["share"].tolist()
        np.testing.assert_allclose(segments(axis)[:, :, 1], rows[["low", "high"]], atol=1e-12)
        error = measure(table, calibrated=calibrated).loc["ECE", "value"]
        assert f"ECE {error:.3f} (" in axis.get_title()
        assert sum(bar.get_height() for bar in histogram.patches) == 200
    assert "temperature 1.50" in axes[1].get_title() and "as trained" in axes[0].get_title()


def test_the_risk_is_drawn_from_enough_pictures_on_and_the_confidence_marked(table, seeds):
    axis = plot_risk_coverage({"a": table, "b": seeds}, 0.8).axes[0]
    rows = risk_coverage(table)
    rows = rows[rows["n"] >= LEAST]
    assert axis.lines[0].get_ydata().tolist() == rows["risk"].tolist()
    assert axis.lines[0].get_xdata()[[0, -1]].tolist() == [LEAST / 200, 1]
    curve, first, marked, other = legend(axis)
    assert curve == f"a, area {risk_area(table):.3f}" and marked.startswith("b, area")
    assert first.startswith("from confidence 0.800") and other.startswith("from confidence 0.800")
    [x], [y] = axis.lines[-1].get_data()
    sure = np.maximum(probabilities(seeds), 1 - probabilities(seeds)) >= 0.8
    wrong = answers(seeds) != (seeds["label"] == "unhappy")
    by_seed = wrong[sure].groupby(seeds["seed"][sure]).mean()
    assert (x, y) == pytest.approx((sure.mean(), by_seed.mean()))
    assert f"{100 * x:.0f} % answered, {100 * y:.1f} % wrong" in other
    assert len(legend(plot_risk_coverage({"a": table}, 0.8).axes[0])) == 2
    assert len(legend(plot_risk_coverage({"a": table}, 1.0).axes[0])) == 1  # nobody is so sure


def test_scores_count_the_pictures_of_each_class_on_both_sides(table, seeds):
    for shown in (table, seeds):
        fig = plot_scores(shown)
        for axis, name in zip(fig.axes, CLASSES, strict=True):
            bars = [(bar.get_x(), bar.get_height()) for bar in axis.patches]
            probs = probabilities(shown)[(shown["label"] == name).to_numpy()]
            right_side = sum(height for x, height in bars if x >= 0.4 - 1e-9)
            assert right_side == pytest.approx((probs >= 0.4).sum() / shown["seed"].nunique())
            assert sum(height for _, height in bars) == pytest.approx(100)
            assert axis.lines[0].get_xdata()[0] == 0.4 and name in axis.get_ylabel()
            colour = to_hex(axis.patches[0].get_facecolor())
            assert colour == {"happy": HAPPY, "unhappy": UNHAPPY}[name].lower()


@pytest.fixture
def root(table, tmp_path):
    """A grey picture for each row, as bright as its number."""
    for number, name in enumerate(table["id"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number,) * 3).save(tmp_path / name)
    return tmp_path


def brightness(axes):
    """Numbers of the pictures that are shown."""
    return [int(axis.images[0].get_array()[0, 0, 0]) for axis in axes if axis.images]


def test_the_surest_mistakes_come_first_with_answer_and_truth(table, root):
    fig = plot_mistakes(table.assign(source=DRAWN), root, n=5)
    probs, given = probabilities(table), answers(table)
    sure = np.where(given, probs, 1 - probs)
    wrong = np.flatnonzero(given != (table["label"] == "unhappy"))
    first = wrong[np.argsort(-sure[wrong])][:5]
    assert brightness(fig.axes) == first.tolist()
    top, truth = first[0], table["label"].iloc[first[0]]
    answer = {"happy": "unhappy", "unhappy": "happy"}[truth]
    assert fig.axes[0].get_title() == f"{answer} {100 * sure[top]:.0f} % ({truth})"
    assert title(fig).startswith(f"5 of {len(wrong)} mistakes, n = 200")
    assert title(fig).endswith("drawn couples")


def test_mistakes_of_seeds_are_those_of_the_mean_probability(table, root):
    flipped = table.assign(seed=1)
    flipped[LOGITS] = table[LOGITS[::-1]].to_numpy()
    fig = plot_mistakes(pd.concat([table, flipped]), root, n=3)  # a half each: all "unhappy"
    assert title(fig).startswith("3 of 100 mistakes")
    assert [axis.get_title() for axis in fig.axes[:3]] == ["unhappy 50 % (happy)"] * 3
    fig = plot_mistakes(simulate(20, separation=30), root)
    assert texts(fig.axes[0]) == ["No picture got a wrong answer."]


def test_a_contact_sheet_shows_the_rows_it_is_given(table, root):
    axes = plot_pictures(table.iloc[[7, 3]], root, ["happy?", "unhappy?"]).axes
    assert brightness(axes) == [7, 3]
    assert [axis.get_title() for axis in axes if axis.images] == ["happy?", "unhappy?"]


def test_metrics_of_tables_stand_side_by_side_with_intervals(table, seeds):
    tables = {"one": table, "three": seeds}
    fig = plot_metrics(tables)
    for axis, metric in zip(fig.axes, ("accuracy", "AUROC", "Brier"), strict=True):
        for place, shown in enumerate(tables.values()):
            row = measure(shown).loc[metric]
            [interval] = axis.collections[place].get_segments()
            assert interval[:, 0].tolist() == pytest.approx([row["low"], row["high"]])
            mean, dots = axis.lines[2 * place : 2 * place + 2]
            assert mean.get_data() == ([row["value"]], [place])
            assert dots.get_xdata().tolist() == [row["seed_low"], row["seed_high"]]
    assert [tick.get_text() for tick in fig.axes[0].get_yticklabels()] == list(tables)
    assert fig.axes[2].get_xlabel() == "Brier (less is better)"
    assert fig.axes[0].yaxis_inverted() and "n = 200" in title(fig)


def test_predictive_values_are_drawn_by_prevalence(table):
    measured = measure(table)
    axis = plot_predictive_values(measured).axes[0]
    for line, column, colour in zip(axis.lines, ("npv", "ppv"), (HAPPY, UNHAPPY), strict=False):
        expected = predictive_values(measured, line.get_xdata())[column]
        np.testing.assert_allclose(line.get_ydata(), expected)
        assert line.get_color() == colour
    assert axis.lines[2].get_xdata()[0] == 0.5
    assert "n = 100" in title(axis.figure) and "recall unhappy" in title(axis.figure)


def test_tables_in_one_figure_are_of_the_same_pictures_and_few(table):
    for plot in (plot_curves, plot_risk_coverage, plot_metrics):
        with pytest.raises(ValueError, match="not of the same pictures"):
            plot({"all": table, "some": table.head(100)})
    many = {str(place): table for place in range(len(LINES) + 1)}
    for plot in (plot_curves, plot_risk_coverage):
        with pytest.raises(ValueError, match="6 lines are too many"):
            plot(many)
    assert len(plot_metrics(many).axes[0].get_yticks()) == 6  # rows need no lines


CASES = {
    "one class": simulate().query("label == 'unhappy'"),
    "one picture": simulate(2).head(1),
    "two pictures": simulate(2),
    "one group": simulate(40).assign(group="a"),
    "all alike": simulate(40).assign(logit_happy=0.0, logit_unhappy=0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_little_to_draw_is_drawn(case, tmp_path):
    few = CASES[case]
    figs = [plot_confusion(few), plot_reliability(few), plot_scores(few)]
    figs += [plot_curves({"few": few}), plot_risk_coverage({"few": few}, 0.7)]
    figs += [plot_metrics({"few": few})]
    figs += [plot_predictive_values(measure(few))]
    for place, fig in enumerate(figs):  # at the README's width, with no warning
        path = save_figure(fig, tmp_path / f"{place}.png")
        with Image.open(path) as image:
            assert 500 < image.width < 720
        assert path.stat().st_size < 400_000
    if case in ("one class", "one picture"):
        assert "no pictures" in texts(figs[0].axes[1])
        assert legend(figs[3].axes[0])[0] == "few: not defined"
        assert texts(figs[5].axes[1]) == ["not defined"]


NAN = math.nan
SLICES = pd.DataFrame(
    [
        ("light", "day", 100, 0.9, 0.8, 0.95, 0.02, "no difference seen", 0.7),
        ("light", "dim", 60, 0.5, 0.4, 0.6, -0.4, "worse", 0.00002),
        ("light", "warm", 20, 1.0, 0.84, 1.0, 0.2, "too few", NAN),
        ("faces", "2", 80, 0.95, 0.9, 0.98, 0.1, "better", 0.012),
    ],
    columns=["tag", "value", "n", "accuracy", "low", "high", "gap", "verdict", "p_holm"],
).assign(p=lambda frame: frame["p_holm"], groups=50)


def sweep_frame(models=("spp", "plain"), kinds=("rotation", "hidden", "size", "aspect")):
    levels = {"rotation": (-90, 0, 90), "hidden": (0, 0.5)}
    levels |= {"size": (64, 80, 96), "aspect": (0.5, 1)}
    rows = []
    for kind in kinds:
        for k, model in enumerate(models):
            own = {"rotation": 0, "hidden": 0, "size": 64 + 16 * k, "aspect": 1}[kind]
            for level in levels[kind]:
                accuracy = 0.9 - 0.1 * k - 0.2 * (level != own)
                rows.append((model, kind, level, accuracy, accuracy - 0.05, accuracy + 0.05))
                rows[-1] += (100 - 60 * (kind == "hidden"), level == own)
    columns = ["model", "sweep", "level", "accuracy", "low", "high", "n", "reference"]
    return pd.DataFrame(rows, columns=columns)


def test_slices_stand_below_their_tag_with_n_interval_and_what_was_seen():
    axis = plot_slices(SLICES).axes[0]
    expected = ["light", "day", "100", "dim", "60", "worse, p < 0.001", "warm", "20", "too few"]
    expected += ["faces", "2", "80", "better, p = 0.012", "n", "p after Holm"]
    assert texts(axis) == expected
    heights = {text.get_text(): text.get_position()[1] for text in axis.texts}
    assert [heights[name] for name in ("light", "day", "dim", "warm", "faces", "2")] == [*range(6)]
    assert axis.yaxis_inverted()
    ends = [lines.get_segments()[0][:, 0].tolist() for lines in axis.collections]
    assert ends == [[0.8, 0.95], [0.4, 0.6], [0.84, 1.0], [0.9, 0.98]]
    colours = [plt.matplotlib.colors.to_hex(lines.get_color()[0]) for lines in axis.collections]
    assert colours == ["#333333", UNHAPPY.lower(), "#b2b2b2", HAPPY.lower()]
    points = [line.get_xdata()[0] for line in axis.lines]
    everyone = (90 + 30 + 20) / 180  # counted by the tag that most pictures have
    assert points == pytest.approx([0.9, 0.5, 1.0, 0.95, everyone])
    assert axis.get_xlabel() == "accuracy (n = 180)"


def test_a_long_list_of_slices_has_no_texts_over_each_other(tmp_path):
    many = pd.concat([SLICES.assign(tag=f"{tag} {k}") for k in range(8) for tag in ("a", "b")])
    fig = plot_slices(many)
    fig.canvas.draw()
    boxes = [text.get_window_extent() for text in fig.axes[0].texts]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    path = save_figure(fig, tmp_path / "slices.png")
    assert path.stat().st_size < 400_000 and plt.imread(path).shape[1] <= 680


def test_names_with_dollar_signs_are_no_formulas(tmp_path):
    odd = r"$\frac$ 5$ and $x_"
    fig = plot_slices(SLICES.assign(tag=odd, value=odd))
    assert odd in texts(fig.axes[0])
    save_figure(fig, tmp_path / "slices.png")
    save_figure(show_pictures([np.zeros((9, 9, 3))], [odd]), tmp_path / "pictures.png")
    save_figure(finish(plt.figure(), odd), tmp_path / "title.png")


def test_each_sweep_has_a_panel_and_each_model_a_curve_of_its_own_line():
    fig = plot_sweeps(sweep_frame())
    titles = ["rotation (n = 100)", "hidden (n = 40)", "size (n = 100)", "aspect (n = 100)"]
    assert [axis.get_title() for axis in fig.axes] == [*titles, "", ""]
    for axis in fig.axes[:4]:
        spp, plain = axis.lines[:2]
        assert (spp.get_label(), plain.get_label()) == ("spp", "plain")
        assert spp.get_linestyle() != plain.get_linestyle()
        assert spp.get_color() != plain.get_color() and spp.get_marker() != plain.get_marker()
    assert fig.axes[0].lines[0].get_ydata() == pytest.approx([0.7, 0.9, 0.7])
    band = fig.axes[0].collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((0.65, 0.95))
    [legend] = fig.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["spp", "plain", "left as it is", "guessing"]


def test_levels_are_named_and_the_reference_of_each_model_is_marked():
    rotation, hidden, size, _ = plot_sweeps(sweep_frame()).axes[:4]

    def names(axis):
        return [tick.get_text() for tick in axis.get_xticklabels()]

    def marked(axis):
        lines = [line for line in axis.lines if line.get_label() == "left as it is"]
        return [names(axis)[int(line.get_xdata()[0])] for line in lines]

    assert (names(rotation), marked(rotation)) == (["-90", "0", "90"], ["0"])
    assert (names(hidden), marked(hidden)) == (["0", "0.5"], ["0"])
    assert (names(size), marked(size)) == (["64", "80", "96"], ["64", "80"])
    assert size.get_xlabel() == "px, input"


def test_up_to_five_models_are_told_apart(tmp_path):
    fig = plot_sweeps(sweep_frame([f"seed {k}" for k in range(5)], ["rotation"]))
    assert len(fig.axes) == 1
    for looks in ("color", "marker"):
        assert len({plt.getp(line, looks) for line in fig.axes[0].lines[:5]}) == 5
    fig.canvas.draw()
    legend = fig.legends[0].get_window_extent()
    assert not legend.overlaps(fig.axes[0].title.get_window_extent())
    assert save_figure(fig, tmp_path / "sweep.png").stat().st_size < 400_000
