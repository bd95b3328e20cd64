import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dclib.explain.cells import STRIDE, cell_centres, cell_edges, spread
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


def test_a_cell_looks_at_pixel_32_i():
    """Where the input's gradient of one cell lies; stretched, it would be at (4 + 1/2) * 32."""
    torch.manual_seed(0)
    model = DeepConnection("resnet34", "resnet18", None).train()  # statistics fit
    images = torch.randn(4, 3, 256, 256).requires_grad_()
    model.forward_features(images)[:, :, 4, 4].sum().backward()
    weight = images.grad.abs().sum((0, 1, 2)).double()
    seen = (weight * (torch.arange(256) + 0.5)).sum() / weight.sum()
    assert seen / 256 == pytest.approx(cell_centres(8, 256)[4], abs=4 / 256)
