import numpy as np
import pytest
import torch
from conftest import lively_network
from matplotlib.colors import to_rgb
from PIL import Image

from dclib.explain.evidence import find_evidence
from dclib.explain.plots import plot_parts, show_maps
from dclib.plots import HAPPY, OPACITY, UNHAPPY, overlay, tint_over

PICTURE = np.full((60, 90, 3), (200, 100, 60), np.uint8)
SIZE = 80  # of the input: 3 x 3 cells, the first of each row half as wide as the others
GREY = PICTURE / 255 * 0.3 + PICTURE.mean() / 255 * 0.7


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
        with pytest.raises(ValueError, match="scale must be above 0"):
            tint_over(np.zeros((2, 2)), scale, (60, 90), SIZE)
    with pytest.raises(ValueError, match="scale must be above 0"):
        show_maps([PICTURE], {"margin": np.ones((1, 2, 2))}, SIZE, scale=-1)


def test_every_picture_has_its_maps():
    with pytest.raises(ValueError, match="argument 3 is longer"):
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
