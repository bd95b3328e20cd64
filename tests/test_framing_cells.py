import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dclib.drawn.drawing import MARK
from dclib.framing.cells import STRIDE, box_mask, cell_centres, cell_edges, covered_cells, spread
from dclib.model import DeepConnection


@given(st.integers(1, 800))
def test_cells_cover_a_side_and_have_their_centres_inside(size):
    n = -(-size // STRIDE)
    edges, centres = cell_edges(n, size), cell_centres(n, size)
    assert edges[0] == 0 and edges[-1] == 1 and len(edges) == n + 1
    assert (np.diff(edges) > 0).all()
    assert ((edges[:-1] <= centres) & (centres < edges[1:])).all()


@given(st.integers(1, 300), st.integers(1, 90))
def test_every_pixel_has_the_value_of_the_nearest_centre(size, pixels):
    n = -(-size // STRIDE)
    shown = spread(np.arange(n)[None], (1, pixels), size)[0]
    places = (np.arange(pixels) + 0.5) / pixels
    away = np.abs(places[:, None] - cell_centres(n, size))  # (pixels, n)
    assert (np.abs(away[np.arange(pixels), shown] - away.min(1)) < 1e-9).all()


@given(st.integers(1, 300), st.integers(1, 60), st.integers(1, 60))
def test_smooth_maps_are_linear_between_centres(size, height, width):
    n = -(-size // STRIDE)
    values = np.random.default_rng(0).normal(size=(n, n))
    shown = spread(values, (height, width), size, smooth=True)
    y, x = ((np.arange(side) + 0.5) / side for side in (height, width))
    by_row = np.stack([np.interp(x, cell_centres(n, size), row) for row in values])  # (n, W)
    both = np.stack([np.interp(y, cell_centres(n, size), column) for column in by_row.T], 1)
    np.testing.assert_allclose(shown, both, atol=1e-9)


def test_a_mask_holds_the_points_that_are_in_a_box():
    points = np.array([1, 3, 5, 7]) / 8
    mask = box_mask([(0, 0, 0.5, 0.5), (0.25, 0, 0.5, 1)], points, points)
    assert mask.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    assert box_mask([], points[:2], points).tolist() == [[False] * 4] * 2


BOX = st.tuples(*[st.floats(-0.2, 1.2)] * 4).map(
    lambda e: (min(e[0], e[2]), min(e[1], e[3]), max(e[0], e[2]), max(e[1], e[3]))
)


BOXES = st.lists(BOX, max_size=4)


@given(BOXES, BOXES, st.integers(33, 160), st.integers(33, 160))
def test_cells_are_covered_as_many_points_say(boxes, hiding, height, width):
    """Boxes overlap, are empty, and reach beyond the picture."""
    down, across = (cell_edges(-(-side // STRIDE), side) for side in (height, width))
    fine = (np.arange(60) + 0.5) / 60
    y, x = ((e[:-1, None] + np.diff(e)[:, None] * fine).ravel() for e in (down, across))
    points = box_mask(boxes, y, x) & ~box_mask(hiding, y, x)
    points = points.reshape(len(down) - 1, 60, len(across) - 1, 60)
    found = covered_cells(boxes, down, across, hiding)
    np.testing.assert_allclose(found, points.mean((1, 3)), atol=0.1)
    assert ((found >= 0) & (found <= 1)).all()


@given(BOXES)
def test_what_is_hidden_is_nothing_but_for_no_rounding(boxes):
    assert not covered_cells(boxes, cell_edges(3, 80), cell_edges(4, 112), boxes).any()
    all_of_it = [(-1, -1, 2, 2)]
    assert not covered_cells(boxes, cell_edges(3, 80), cell_edges(4, 112), all_of_it).any()


@given(BOX)
def test_a_box_covers_its_area(box):
    x0, y0, x1, y1 = np.clip(box, 0, 1)
    down, across = cell_edges(3, 80), cell_edges(4, 112)
    areas = np.diff(down)[:, None] * np.diff(across)
    covered = (covered_cells([box], down, across) * areas).sum()
    assert covered == pytest.approx((x1 - x0) * (y1 - y0))
    twice = covered_cells([box, box], down, across)
    np.testing.assert_array_equal(twice, covered_cells([box], down, across))


def test_cells_are_those_that_a_box_touches():
    def touched(box, n, size):
        edges = cell_edges(n, size)
        return np.argwhere(covered_cells([box], edges, edges) > 0).tolist()

    assert touched(MARK, 3, 96) == [[0, 0]]
    assert touched(MARK, 8, 256) == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert touched((0.25, 0, 1, 0.25), 2, 64) == [[0, 1]]


def test_a_cell_looks_at_pixel_32_i():
    """Where the input's gradient of one cell lies; stretched, it would be at (4 + 1/2) * 32."""
    torch.manual_seed(0)
    model = DeepConnection("plain", "resnet18", None).train()  # statistics fit
    images = torch.randn(4, 3, 256, 256).requires_grad_()
    model.forward_features(images)[:, :, 4, 4].sum().backward()
    weight = images.grad.abs().sum((0, 1, 2)).double()
    seen = (weight * (torch.arange(256) + 0.5)).sum() / weight.sum()
    assert seen / 256 == pytest.approx(cell_centres(8, 256)[4], abs=4 / 256)
