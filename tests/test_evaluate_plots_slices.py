import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from dclib.evaluate.plots import overall, plot_slices, plot_sweeps
from dclib.plots import HAPPY, UNHAPPY, save_figure

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


def sweep_frame(models=("spp", "plain"), kinds=("hue", "jpeg", "size", "aspect")):
    levels = {"hue": (-90, 0, 90), "jpeg": (5, math.inf), "size": (64, 80, 96), "aspect": (0.5, 1)}
    rows = []
    for kind in kinds:
        for k, model in enumerate(models):
            own = {"hue": 0, "jpeg": math.inf, "size": 64 + 16 * k, "aspect": 1}[kind]
            for level in levels[kind]:
                accuracy = 0.9 - 0.1 * k - 0.2 * (level != own)
                rows.append((model, kind, level, accuracy, accuracy - 0.05, accuracy + 0.05))
                rows[-1] += (100 - 60 * (kind == "jpeg"), level == own)
    columns = ["model", "sweep", "level", "accuracy", "low", "high", "n", "reference"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_slices_stand_below_their_tag_with_n_and_what_was_seen():
    axis = plot_slices(SLICES).axes[0]
    expected = ["light", "day", "100", "dim", "60", "worse, p < 0.001", "warm", "20", "too few"]
    expected += ["faces", "2", "80", "better, p = 0.012", "n", "p after Holm"]
    assert texts(axis) == expected
    heights = {text.get_text(): text.get_position()[1] for text in axis.texts}
    assert [heights[name] for name in ("light", "day", "dim", "warm", "faces", "2")] == [*range(6)]
    assert axis.yaxis_inverted()


def test_the_intervals_of_slices_have_the_colour_of_their_verdict():
    axis = plot_slices(SLICES).axes[0]
    ends = [lines.get_segments()[0][:, 0].tolist() for lines in axis.collections]
    assert ends == [[0.8, 0.95], [0.4, 0.6], [0.84, 1.0], [0.9, 0.98]]
    colours = [plt.matplotlib.colors.to_hex(lines.get_color()[0]) for lines in axis.collections]
    assert colours == ["#333333", UNHAPPY.lower(), "#b2b2b2", HAPPY.lower()]
    points = [line.get_xdata()[0] for line in axis.lines]
    assert points == pytest.approx([0.9, 0.5, 1.0, 0.95, overall(SLICES)[0]])


def test_all_pictures_together_are_counted_by_the_tag_that_most_have():
    share, n = overall(SLICES)
    assert (share, n) == (pytest.approx((90 + 30 + 20) / 180), 180)
    assert plot_slices(SLICES).axes[0].get_xlabel() == "accuracy (n = 180)"


def test_a_long_list_of_slices_has_no_texts_over_each_other(tmp_path):
    many = pd.concat([SLICES.assign(tag=f"{tag} {k}") for k in range(8) for tag in ("a", "b")])
    fig = plot_slices(many)
    fig.canvas.draw()
    boxes = [text.get_window_extent() for text in fig.axes[0].texts]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    path = save_figure(fig, tmp_path / "slices.png")
    assert path.stat().st_size < 400_000 and plt.imread(path).shape[1] <= 680


def test_each_sweep_has_a_panel_and_each_model_a_curve_of_its_own_line():
    fig = plot_sweeps(sweep_frame())
    titles = ["hue (n = 100)", "jpeg (n = 40)", "size (n = 100)", "aspect (n = 100)"]
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
    hue, jpeg, size, _ = plot_sweeps(sweep_frame()).axes[:4]

    def names(axis):
        return [tick.get_text() for tick in axis.get_xticklabels()]

    def marked(axis):
        lines = [line for line in axis.lines if line.get_label() == "left as it is"]
        return [names(axis)[int(line.get_xdata()[0])] for line in lines]

    assert (names(hue), marked(hue)) == (["-90", "0", "90"], ["0"])
    assert (names(jpeg), marked(jpeg)) == (["5", "as is"], ["as is"])
    assert (names(size), marked(size)) == (["64", "80", "96"], ["64", "80"])
    assert size.get_xlabel() == "px, input"


def test_up_to_five_models_are_told_apart(tmp_path):
    models = [f"seed {k}" for k in range(6)]
    fig = plot_sweeps(sweep_frame(models[:5], ["hue"]))
    assert len(fig.axes) == 1
    for looks in ("color", "marker"):
        assert len({plt.getp(line, looks) for line in fig.axes[0].lines[:5]}) == 5
    fig.canvas.draw()
    legend = fig.legends[0].get_window_extent()
    assert not legend.overlaps(fig.axes[0].title.get_window_extent())
    assert save_figure(fig, tmp_path / "sweep.png").stat().st_size < 400_000
    with pytest.raises(ValueError, match="6 lines are too many for one figure; draw 5 at most"):
        plot_sweeps(sweep_frame(models))
