import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dclib.spp import LEVELS, SpatialPyramidPool, spatial_pyramid_pool

sizes = st.integers(1, 26)


def pool_by_hand(feature_map, levels):
    """The definition, bin by bin, in plain loops."""
    batch, channels, height, width = feature_map.shape
    parts = []
    for n in levels:
        out = feature_map.new_empty(batch, channels, n, n)
        for i in range(n):
            for j in range(n):
                rows = slice(i * height // n, -(-(i + 1) * height // n))
                columns = slice(j * width // n, -(-(j + 1) * width // n))
                out[:, :, i, j] = feature_map[:, :, rows, columns].amax((2, 3))
        parts.append(out.reshape(batch, -1))
    return torch.cat(parts, 1)


def pool_of_2019(feature_map, levels):
    """The 2019 rule, derived anew: windows of ceil(a / n) laid edge to edge over a padded map."""
    parts = []
    for n in levels:
        window = [math.ceil(a / n) for a in feature_map.shape[2:]]
        pad = [(w * n - a + 1) // 2 for w, a in zip(window, feature_map.shape[2:], strict=True)]
        parts.append(F.max_pool2d(feature_map, window, window, pad).flatten(1))
    return torch.cat(parts, 1)


def test_known_values():
    feature_map = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooled = spatial_pyramid_pool(feature_map, (2, 1))
    assert pooled.tolist() == [[5.0, 7.0, 13.0, 15.0, 15.0]]


@given(
    sizes,
    sizes,
    st.integers(1, 4),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_equals_the_definition(height, width, channels, levels, dtype):
    feature_map = torch.randn(2, channels, height, width).to(dtype)
    pooled = spatial_pyramid_pool(feature_map, levels)
    assert pooled.dtype == dtype
    assert pooled.shape == (2, SpatialPyramidPool(levels).out_features(channels))
    assert torch.equal(pooled, pool_by_hand(feature_map, levels))


@pytest.mark.parametrize("cells", [8, 16, 24])
def test_bit_equal_to_2019_where_8_divides_the_map(cells):
    feature_map = torch.randn(2, 5, cells, cells)
    ours, theirs = spatial_pyramid_pool(feature_map), pool_of_2019(feature_map, LEVELS)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", [(7, 7), (9, 9), (10, 10), (12, 12), (20, 20), (15, 20)])
def test_runs_where_2019_raised(shape):
    feature_map = torch.randn(1, 3, *shape)  # 224, 288, 320, 384, 640 and 480 x 640 px
    with pytest.raises(RuntimeError, match="pad"):
        pool_of_2019(feature_map, LEVELS)
    assert spatial_pyramid_pool(feature_map).shape == (1, 3 * 85)


def test_gradient_goes_to_the_winners():
    feature_map = torch.arange(16.0).reshape(1, 1, 4, 4).requires_grad_()
    spatial_pyramid_pool(feature_map, (1,)).sum().backward()
    assert feature_map.grad.nonzero().tolist() == [[0, 0, 3, 3]]


def test_an_empty_batch_stays_empty():
    assert spatial_pyramid_pool(torch.zeros(0, 3, 7, 7)).shape == (0, 255)


@pytest.mark.parametrize("levels", [(), (0,), (4, -1), (2.0,)])
def test_bad_levels(levels):
    with pytest.raises(ValueError, match="levels must be"):
        SpatialPyramidPool(levels)


@pytest.mark.parametrize("shape", [(3, 7, 7), (1, 3, 0, 7), (2, 0, 3, 3)])
def test_bad_maps(shape):
    with pytest.raises(ValueError, match="feature_map must be"):
        spatial_pyramid_pool(torch.zeros(shape))
