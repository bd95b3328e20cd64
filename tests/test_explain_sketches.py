"""Every number in a sketch is recomputed here by the formula that stands beside it."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from dclib.explain import sketches
from dclib.plots import HAPPY, INK, ORANGE, UNHAPPY


def numbers(axis):
    """What is written into the cells of a map, (rows, columns)."""
    cells = {text.get_position()[::-1]: float(text.get_text()) for text in axis.texts}
    rows, columns = (max(place[k] for place in cells) + 1 for k in (0, 1))
    return np.array([[cells[row, column] for column in range(columns)] for row in range(rows)])


@pytest.mark.parametrize("levels", [(4, 2, 1), (8, 1), (2,)])
def test_pyramid_marks_the_maximum_of_each_bin(levels):
    fig = sketches.pyramid(levels)
    channel = np.array(fig.axes[0].images[0].get_array())
    assert len(fig.axes) == 1 + len(levels)
    for axis, n in zip(fig.axes[1:], levels, strict=True):
        side = 8 // n
        dots = {
            (int(dot.get_ydata()[0]), int(dot.get_xdata()[0]))
            for dot in axis.lines
            if dot.get_color() == ORANGE
        }
        wanted = set()
        for top in range(0, 8, side):
            for left in range(0, 8, side):
                part = channel[top : top + side, left : left + side]
                row, column = np.unravel_index(part.argmax(), part.shape)
                wanted.add((top + row, left + column))
        assert dots == wanted and len(wanted) == n * n
        assert axis.get_title() == f"{n} x {n}: {n * n} {'maxima' if n > 1 else 'maximum'}"
    (total,) = (text.get_text() for text in fig.texts)
    assert f"= {sum(n * n for n in levels)} numbers" in total


def test_power_mean_draws_the_formula():
    (axis,) = sketches.power_mean(20.0).axes
    look = {to_hex(line.get_color()): line.get_xydata().T for line in axis.lines}
    x, log = look[to_hex(INK)]
    np.testing.assert_allclose(log, np.log(1 + x), rtol=1e-5)
    np.testing.assert_allclose(look[to_hex(ORANGE)][1], np.log(1 + x) ** 2, rtol=1e-5)
    said = [text.get_text() for text in axis.texts]
    assert said == [
        "x itself: 20.0",
        f"log(1 + x): {np.log(21):.1f}",
        f"its square: {np.log(21) ** 2:.1f}",
    ]


def test_dropout_masks_leave_out_half_and_are_averaged():
    state = torch.get_rng_state()
    masks, answers = sketches.dropout_masks(8).axes
    assert torch.equal(torch.get_rng_state(), state)  # a notebook's training stays as it was
    kept = np.array(masks.images[0].get_array())
    assert kept.shape == (8, 100) and 0.4 < kept.mean() < 0.6
    assert len(np.unique(kept, axis=0)) == 8
    for colour in (HAPPY, UNHAPPY):
        dots, mean = (line for line in answers.lines if line.get_color() == colour)
        assert len(dots.get_xdata()) == 8 and np.ptp(dots.get_xdata()) > 0
        assert mean.get_xdata()[0] == pytest.approx(dots.get_xdata().mean(), rel=1e-5)


def test_grad_cam_is_the_weighted_sum_of_the_channels_where_positive():
    state = torch.get_rng_state()
    *channels, total, positive = sketches.grad_cam().axes
    assert torch.equal(torch.get_rng_state(), state)
    weights = [float(axis.get_title().split(" x ")[0]) for axis in channels]
    assert tuple(weights) == sketches.CHANNEL_WEIGHTS
    wanted = sum(w * numbers(axis) for w, axis in zip(weights, channels, strict=True))
    np.testing.assert_allclose(numbers(total), wanted, atol=1e-6)
    np.testing.assert_allclose(numbers(positive), np.maximum(wanted, 0), atol=1e-6)
    assert (wanted < 0).any()  # else the last step would show nothing


def test_constant_and_cells_add_up_to_the_margin():
    state = torch.get_rng_state()
    cells, sums = sketches.cells_sum().axes
    assert torch.equal(torch.get_rng_state(), state)
    (said,) = (float(text.get_text().removeprefix("margin ")) for text in sums.texts)
    assert said == pytest.approx(sketches.CONSTANT + numbers(cells).sum(), abs=1e-6)
    heights = [bar.get_height() for bar in sums.patches]
    np.testing.assert_allclose(heights, [sketches.CONSTANT, *numbers(cells).flat], atol=1e-3)
    bottoms = [bar.get_y() for bar in sums.patches]
    np.testing.assert_allclose(bottoms[1:], np.cumsum(heights)[:-1], atol=1e-5)
    for bar in sums.patches[1:]:
        if abs(bar.get_height()) > 1e-3:
            colour = UNHAPPY if bar.get_height() > 0 else HAPPY
            assert to_hex(bar.get_facecolor()) == colour.lower()
