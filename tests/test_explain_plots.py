import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import lively_network
from matplotlib.colors import to_rgb
from PIL import Image

from dclib.explain.evidence import find_evidence
from dclib.explain.plots import (
    LOOKS,
    plot_cascade,
    plot_curves,
    plot_localisation,
    plot_parts,
    show_maps,
)
from dclib.explain.pointing import AGAINST
from dclib.plots import HAPPY, OPACITY, UNHAPPY, overlay, save_figure

PICTURE = np.full((60, 90, 3), (200, 100, 60), np.uint8)
SIZE = 80  # of the input: 3 x 3 cells, the first of each row half as wide as the others
GREY = PICTURE / 255 * 0.3 + PICTURE.mean() / 255 * 0.7
MAPS = ("evidence", "Grad-CAM", "centre", "random weights: evidence")


@pytest.mark.parametrize("smooth", [False, True])
def test_no_evidence_has_no_colour(smooth):
    np.testing.assert_allclose(overlay(PICTURE, np.zeros((3, 3)), 1.0, SIZE, smooth=smooth), GREY)


def test_colours_tell_the_sign():
    shown = overlay(Image.fromarray(PICTURE), np.array([[-1.0, 0.0, 1.0]]), 1.0, SIZE)
    assert shown.shape == (60, 90, 3)
    for part, colour in ((shown[:, :18], HAPPY), (shown[:, 54:], UNHAPPY)):
        expected = GREY[0, 0] * (1 - OPACITY) + np.array(to_rgb(colour)) * OPACITY
        np.testing.assert_allclose(part, np.broadcast_to(expected, part.shape))
    np.testing.assert_allclose(shown[:, 18:54], GREY[:, :36])


def test_a_frame_that_is_nearly_black_stays_black():
    dark = np.random.default_rng(0).integers(0, 2, (60, 90, 3), np.uint8)
    assert overlay(dark, np.zeros((3, 3)), 1.0, SIZE).max() <= 1 / 255


def test_one_scale_makes_maps_comparable():
    """A map with half the evidence has half the colour, whatever its own maximum is."""
    weak, strong = (overlay(PICTURE, np.array([[v]]), 2.0, SIZE) for v in (0.5, 1.0))
    np.testing.assert_allclose(strong - GREY, 2 * (weak - GREY))
    beyond = overlay(PICTURE, np.array([[9.0]]), 2.0, SIZE)
    np.testing.assert_allclose(beyond, overlay(PICTURE, np.array([[2.0]]), 2.0, SIZE))


def test_cells_are_squares_or_smooth():
    values = np.array([[0.0, 1.0]])
    assert len(np.unique(overlay(PICTURE, values, 1.0, SIZE)[..., 0].round(6))) == 2
    assert len(np.unique(overlay(PICTURE, values, 1.0, SIZE, smooth=True)[..., 0].round(6))) > 20


def test_a_scale_of_nothing_is_refused():
    for scale in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="scale must be above 0"):
            overlay(PICTURE, np.zeros((2, 2)), scale, SIZE)


def test_every_picture_has_its_maps():
    with pytest.raises(ValueError, match="argument 4 is longer"):
        show_maps([PICTURE], {"margin": np.ones((2, 2, 2))}, SIZE)


def test_maps_stand_beside_their_pictures_on_one_scale():
    maps = {"happy": torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]]), "margin": torch.ones(2, 1, 2)}
    fig = show_maps([PICTURE, PICTURE], maps, SIZE)
    *axes, bar = fig.axes
    shown = np.reshape([axis.images[0].get_array() for axis in axes], (2, 3, 60, 90, 3))
    np.testing.assert_allclose(shown[0, 1], overlay(PICTURE, [[-2.0, 0.0]], 2.0, SIZE))
    np.testing.assert_allclose(shown[1, 2], overlay(PICTURE, [[1.0, 1.0]], 2.0, SIZE))
    assert [axis.get_title() for axis in axes[:3]] == ["picture", "happy", "margin"]
    texts = [[text.get_text() for text in axis.texts] for axis in axes[3:]]
    assert texts == [[], ["no evidence"], []]
    assert bar.get_ylim() == (-2, 2)


def test_bars_lead_from_the_constant_to_the_margin():
    evidence = find_evidence(lively_network(), torch.rand(2, 512, 3, 3))
    axis = plot_parts(evidence, index=1).axes[0]
    bars = axis.patches
    assert len(bars) == 1 + 4 * 2
    ends = [bar.get_x() + bar.get_width() for bar in bars]
    for bar, end in zip(bars[1:], ends, strict=False):
        assert bar.get_x() == pytest.approx(end)
    assert ends[-1] == pytest.approx(evidence.margin[1].item(), abs=1e-4)
    assert bars[0].get_width() == pytest.approx(evidence.of_margin("const")[1].item())


def localisation(regions=("faces", AGAINST)):
    rows = []
    for k, name in enumerate(MAPS):
        for region in regions:
            for measure in (
                ("pointing", "energy / area") if region == "faces" else ["energy / area"]
            ):
                value, chance = 0.8 - 0.1 * k, 0.3 if measure == "pointing" else 1.0
                row = {"map": name, "region": region, "measure": measure, "value": value}
                row |= {"low": value - 0.05, "high": value + 0.05, "chance": chance}
                rows.append(row | {"n": 40, "excluded": 60 * (region == AGAINST)})
    return pd.DataFrame(rows)


def curves():
    points, areas = [], []
    for k, name in enumerate(("evidence", "Grad-CAM", "random")):
        for curve in ("deletion", "insertion"):
            keys = {"map": name, "curve": curve, "n": 30}
            areas.append(keys | {"value": 0.5 + 0.1 * k})
            for share in (0, 0.5, 1):
                value = 0.9 - 0.2 * share - 0.1 * k
                row = keys | {"share": share, "value": value}
                points.append(row | {"low": value - 0.03, "high": value + 0.03})
    return pd.DataFrame(points), pd.DataFrame(areas)


def cascade():
    rows = []
    for name in ("evidence", "HiResCAM", "Grad-CAM"):
        for similarity in ("signed", "absolute"):
            for part, value in (("another picture", 0.4), ("lin2", 0.5), ("conv1", 0.1)):
                row = {"map": name, "part": part, "similarity": similarity, "value": value}
                rows.append(row | {"low": value - 0.2, "high": value + 0.2, "n": 20})
    return pd.DataFrame(rows)


def test_every_map_has_its_point_and_interval_and_chance_a_line():
    fig = plot_localisation(localisation())
    assert [axis.get_xlabel() for axis in fig.axes] == ["pointing", *["energy / area"] * 2]
    axis = fig.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(MAPS)
    points = [line.get_xdata()[0] for line in axis.lines]
    assert points == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.3])  # the last is chance
    ends = [lines.get_segments()[0][:, 0].tolist() for lines in axis.collections]
    assert ends[0] == pytest.approx([0.75, 0.85])
    assert fig.axes[1].lines[-1].get_xdata()[0] == 1.0
    assert axis.yaxis_inverted()


def test_panels_say_how_many_pictures_are_in_them():
    titles = [axis.get_title() for axis in plot_localisation(localisation()).axes]
    assert titles[0] == "faces\n(n = 40)"
    assert titles[2] == "faces less bystanders' faces\n(n = 40; 60 excluded)"
    assert len(plot_localisation(localisation(["faces"])).axes) == 2


def test_maps_of_the_network_differ_from_what_they_must_beat():
    lines = plot_localisation(localisation()).axes[0].lines
    colours = [line.get_color() for line in lines[:4]]
    assert colours[2] == colours[3] and len(set(colours)) == 3


def test_curves_carry_their_bands_and_areas():
    fig = plot_curves(*curves())
    assert [axis.get_title() for axis in fig.axes] == [
        "deletion: lower is better",
        "insertion: higher is better",
    ]
    verbs = [axis.get_xlabel().split(",")[0] for axis in fig.axes]
    assert verbs == ["share of cells hidden", "share of cells shown"]
    axis = fig.axes[0]
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == ["evidence: 0.500", "Grad-CAM: 0.600", "random: 0.700"]
    assert axis.lines[1].get_ydata() == pytest.approx([0.8, 0.7, 0.6])
    band = axis.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((0.67, 0.93))
    assert axis.get_ylabel() == "probability of the answer (n = 30)"


def test_the_cascade_starts_at_the_trained_network_and_sets_other_pictures_apart():
    fig = plot_cascade(cascade())
    axis = fig.axes[0]
    names = [label.get_text() for label in axis.get_xticklabels()]
    assert names == ["trained", "lin2", "conv1", "another\npicture"]
    line, apart = axis.lines[:2]
    assert line.get_ydata() == pytest.approx([1, 0.5, 0.1])
    assert apart.get_ydata() == pytest.approx([0.4]) and apart.get_markerfacecolor() == "white"
    assert apart.get_xdata()[0] - line.get_xdata()[-1] > 1


def test_maps_are_told_apart_without_colour():
    looks = [(str(style), marker) for _, style, marker in LOOKS.values()]
    assert len(set(looks)) == len(LOOKS) == len({marker for _, marker in looks})


DRAWN = {
    "localisation": lambda: plot_localisation(localisation()),
    "curves": lambda: plot_curves(*curves()),
    "cascade": lambda: plot_cascade(cascade()),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_figures_fit_a_page_and_no_text_covers_another(draw, tmp_path):
    fig = draw()
    path = save_figure(fig, tmp_path / "figure.png")
    assert plt.imread(path).shape[1] <= 800 and path.stat().st_size < 400_000
    fig.canvas.draw()
    titles = [axis.title.get_window_extent() for axis in fig.axes]
    assert not any(a.overlaps(b) for k, a in enumerate(titles) for b in titles[:k])
    assert not np.isnan([box.x0 for box in titles]).any()
