import pytest
import torch
from conftest import lively_network

from dclib.explain.evidence import find_evidence
from dclib.explain.hide import hide_cells, leave_one_out


@pytest.fixture(scope="module")
def network():
    return lively_network()


@pytest.fixture(scope="module")
def feature_map():
    return torch.randn(2, 512, 9, 8, generator=torch.Generator().manual_seed(1)).clamp(min=0)


def test_hiding_is_the_head_of_a_map_with_zeros(network, feature_map):
    hidden = torch.rand(2, 9, 8, generator=torch.Generator().manual_seed(2)) < 0.4
    zeroed = feature_map.clone()
    for index in range(2):
        zeroed[index, :, hidden[index]] = 0
    with torch.no_grad():
        torch.testing.assert_close(
            hide_cells(network, feature_map, hidden), network.forward_head(zeroed)
        )
    nothing = hide_cells(network, feature_map, torch.zeros(2, 9, 8, dtype=torch.bool))
    torch.testing.assert_close(nothing, find_evidence(network, feature_map).logits)


def test_leave_one_out_is_a_loop(network, feature_map):
    found = leave_one_out(network, feature_map)  # 72 cells: more than one chunk
    for index, (y, x) in [(0, (0, 0)), (0, (8, 7)), (1, (4, 3)), (1, (7, 7))]:
        without = feature_map[index : index + 1].clone()
        without[..., y, x] = 0
        with torch.no_grad():
            two = [network.forward_head(m) for m in (feature_map[index : index + 1], without)]
        whole, rest = (logits[0, 1] - logits[0, 0] for logits in two)
        assert found[index, y, x].item() == pytest.approx((whole - rest).item(), abs=1e-4)


def test_masks_of_another_shape_are_refused(network, feature_map):
    for shape in [(9, 8), (2, 8, 9), (2, 512, 9, 8)]:
        with pytest.raises(ValueError, match=r"hidden must be \('B', 9, 8\)"):
            hide_cells(network, feature_map, torch.zeros(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match="3 masks do not fit 2 feature maps"):
        hide_cells(network, feature_map, torch.zeros(3, 9, 8, dtype=torch.bool))


def test_maps_in_16_bits_are_hidden_in_32(network, feature_map):
    half, nothing = feature_map.half(), torch.zeros(2, 9, 8, dtype=torch.bool)
    found = hide_cells(network, half, nothing)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, hide_cells(network, half.float(), nothing))
