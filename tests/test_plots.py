import matplotlib.pyplot as plt
import numpy as np
import pytest

from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.evaluate.probe import Check
from dclib.photo import predict_photo
from dclib.photo.plots import plot_prediction
from dclib.plots import COLOURS, HAPPY, LINES, UNHAPPY, lines_for, save_figure, show_pictures
from dclib.scrape.plots import plot_funnel, plot_probe

COLUMNS = {"width": 0.5, "brightness": 0.2, "source commons": 0.6}


def names(axis):
    return [tick.get_text() for tick in axis.get_yticklabels()]


def test_pictures_stand_in_rows_and_classes_have_their_colour():
    pictures = [np.full((4, 5, 3), level, np.uint8) for level in range(7)]
    axes = show_pictures(pictures, ["happy 0.9", "unhappy", "maybe"], columns=3).axes
    assert len(axes) == 9  # three rows
    assert [axis.images[0].get_array().max() for axis in axes[:7]] == list(range(7))
    assert not any(axis.images for axis in axes[7:])
    colours = [axis.title.get_color() for axis in axes[:3]]
    assert colours == [HAPPY, UNHAPPY, "black"]


def test_each_line_has_a_colour_a_dash_and_a_marker_of_its_own():
    looks = lines_for(f"seed {k}" for k in range(5))
    assert list(looks) == [f"seed {k}" for k in range(5)]
    for part in zip(*looks.values(), strict=True):
        assert len(set(part)) == 5
    assert not {colour for colour, *_ in LINES} & set(COLOURS.values())
    assert lines_for(["one"]) == {"one": LINES[0]}
    with pytest.raises(ValueError, match="6 lines are too many for one figure; draw 5 at most"):
        lines_for("abcdef")


def test_a_prediction_shows_both_probabilities(drawn_checkpoint):
    image = draw_scene(sample_scene(0, 0)[0], 64)
    prediction = predict_photo(image, drawn_checkpoint)
    _, axis = plot_prediction(image, prediction).axes
    assert [bar.get_width() for bar in axis.patches] == list(prediction.probs.values())
    assert names(axis) == list(prediction.probs)
    assert [text.get_text() for text in axis.texts] == [
        f"{prob:.1%}" for prob in prediction.probs.values()
    ]


def test_without_a_verdict_there_are_reasons_and_no_bars(drawn_checkpoint):
    image = draw_scene(sample_scene(0, 0)[0], 64).point(lambda value: value * 0.1)
    _, axis = plot_prediction(image, predict_photo(image, drawn_checkpoint)).axes
    assert not axis.patches
    assert axis.texts[0].get_text() == "Not assessable.\nThe picture is too dark."


def test_the_probe_shows_every_column_around_a_half_and_the_whole_with_its_interval():
    probe = Check("metadata", "", 0.75, 0.66, 0.81, 50, 40, COLUMNS)
    axis = plot_probe(probe).axes[0]
    assert names(axis)[:3] == ["width", "source commons", "brightness"]
    ends = [bar.get_x() + bar.get_width() for bar in axis.patches]
    assert ends == pytest.approx([0.5, 0.6, 0.2])
    colours = [plt.matplotlib.colors.to_hex(bar.get_facecolor()) for bar in axis.patches[1:]]
    assert colours == [UNHAPPY.lower(), HAPPY.lower()]
    [interval] = axis.collections[0].get_segments()
    assert interval[:, 0].tolist() == pytest.approx([0.66, 0.81])
    assert axis.lines[0].get_xdata()[0] == 0.75
    assert "n = 50 in 40 groups" in axis.get_title()


STEPS = [
    ("listing", "listed before", 10),
    ("licence", "unknown licence", 30),
    ("licence", "no derivatives", 5),
    ("duplicates", "under both labels", 5),
    ("open", "", 2),
    ("kept", "", 48),
]


def test_the_funnel_leads_from_all_candidates_to_those_kept():
    axis = plot_funnel(STEPS).axes[0]
    assert names(axis) == [
        "all candidates",
        "listing: listed before",
        "licence: unknown licence",
        "licence: no derivatives",
        "duplicates: under both labels",
        "open",
        "kept",
    ]
    bars = [(bar.get_x(), bar.get_width()) for bar in axis.patches]
    assert bars == [(0, 100), (90, 10), (60, 30), (55, 5), (50, 5), (48, 2), (0, 48)]
    colours = [bar.get_facecolor() for bar in axis.patches]
    assert colours[2] == colours[3] and len(set(colours)) == 6
    assert [text.get_text() for text in axis.texts] == ["100", "10", "30", "5", "5", "2", "48"]
    assert axis.yaxis_inverted()


@pytest.mark.parametrize("steps", [[], [("kept", "", 3)], [("fetch", "http 404", 3)]])
def test_a_funnel_may_keep_all_or_nothing(steps, tmp_path):
    fig = plot_funnel(steps)
    kept = sum(count for stage, _, count in steps if stage == "kept")
    assert fig.axes[0].patches[-1].get_width() == kept
    assert save_figure(fig, tmp_path / "funnel.png").stat().st_size < 400_000
