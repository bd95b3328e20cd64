import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from conftest import lively_network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dclib.explain.evidence import find_evidence, fold_head
from dclib.explain.gradcam import grad_cam
from dclib.model import STAGES, DeepConnection
from dclib.pmt import power_mean_transform

STAGE = pytest.mark.parametrize("stage", STAGES)
SHAPES = [(1, 1), (3, 3), (8, 8), (7, 10), (16, 11)]


def features_of(*shape, seed=1):
    """As a last ReLU gives them: about half are zero."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).clamp(min=0)


def relative(found, expected):
    return ((found - expected).abs() / expected.abs().clamp(min=1)).max().item()


@settings(max_examples=40)
@given(st.sampled_from(STAGES), st.integers(1, 24), st.integers(1, 24), st.integers(0, 999))
def test_everything_sums_to_the_logits(networks, stage, height, width, seed):
    model, feature_map = networks[stage], features_of(2, 512, height, width, seed=seed)
    with torch.no_grad():
        logits = model.forward_head(feature_map)
    found = find_evidence(model, feature_map)
    assert relative(found.const + found.maps.sum((2, 3)), logits) <= 1e-4
    assert relative(found.const + found.budget.sum((2, 3)), logits) <= 1e-4
    assert relative(fold_head(model).offset + found.contributions.sum(2), logits) <= 1e-4
    assert relative(found.margin, logits[:, 1] - logits[:, 0]) <= 1e-4
    assert relative(found.of_margin("const") + found.margin_map.sum((1, 2)), found.margin) <= 1e-4
    assert relative(sum(found.masses) + found.of_margin("const"), found.margin) <= 1e-4


@STAGE
@pytest.mark.parametrize("shape", SHAPES)
def test_region_maps_sum_to_what_the_neuron_gets(networks, stage, shape):
    model, feature_map = networks[stage], features_of(2, 512, *shape)
    found = find_evidence(model, feature_map)
    with torch.no_grad():
        z = model.head.lin1(model.pool(feature_map))
    assert relative(found.neuron_maps.sum((2, 3)) + model.head.lin1.bias, z) <= 1e-4
    assert relative(found.z, z) <= 1e-4


@STAGE
def test_maps_through_neurons_sum_to_the_margin_map_and_off_is_zero(networks, stage):
    found, head = find_evidence(networks[stage], features_of(2, 512, 3, 4)), networks[stage].head
    with torch.no_grad():
        gain = head.lin2.weight * head.bn1.weight / (head.bn1.running_var + head.bn1.eps).sqrt()
    expected = (gain[1] - gain[0])[:, None, None] * found.neuron_maps
    expected[found.z <= 0] = 0
    assert relative(found.through_neurons, expected) <= 1e-4
    assert relative(found.through_neurons.sum(1), found.margin_map) <= 1e-4


def loop_over_bins(model, feature_map):
    """Region maps (100, h, w) of one picture, bin by bin, in float64."""
    _, channels, h, w = feature_map.shape
    weights = model.head.lin1.weight.detach().double()
    bins = sum(n * n for n in model.levels)
    branches = weights.shape[1] // (channels * bins)
    weights = weights.view(100, branches, channels * bins)
    maps, start = torch.zeros(100, h * w, dtype=torch.float64), 0
    for n in model.levels:
        for i, j in np.ndindex(n, n):
            rows = slice(i * h // n, -(-(i + 1) * h // n))
            columns = slice(j * w // n, -(-(j + 1) * w // n))
            part = feature_map[0, :, rows, columns].double()  # (C, height, width)
            at = part.flatten(1).argmax(1)  # (C,)
            cells = (rows.start + at // part.shape[2]) * w + columns.start + at % part.shape[2]
            values = part.amax((1, 2))[None]
            values = power_mean_transform(values) if branches == 2 else values
            own = start + i * n + j + n * n * torch.arange(channels)  # columns of this bin
            gains = weights[:, :, own] * values.view(branches, channels)  # (100, P, C)
            maps.index_add_(1, cells, gains.sum(1))
        start += channels * n * n
    return maps.view(100, h, w)


@pytest.mark.parametrize("stage", ["spp", "spp+pmt"])
@pytest.mark.parametrize("shape", [(2, 5), (4, 4), (5, 3)])
def test_region_maps_are_those_of_a_loop(stage, shape):
    model = lively_network(stage, levels=(3, 2, 1))
    feature_map = features_of(1, 512, *shape)
    found = find_evidence(model, feature_map).neuron_maps[0].double()
    torch.testing.assert_close(found, loop_over_bins(model, feature_map), atol=1e-4, rtol=1e-4)


class NeuronInputs(nn.Module):
    """z and, with gates held, the logits of a feature map."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, feature_map):
        return self.model.head.lin1(self.model.pool(feature_map))


@pytest.mark.parametrize("stage", ["spp", "spp+pmt"])
def test_region_maps_are_integrated_gradients(stage):
    """Numerically, by captum, from an empty feature map (arXiv 1703.01365)."""
    model = lively_network(stage, levels=(4, 2, 1)).double()
    feature_map = features_of(1, 512, 5, 6).double()
    found = find_evidence(fold_double(model), feature_map).neuron_maps[0]
    numeric = IntegratedGradients(NeuronInputs(model))
    for neuron in (0, 17, 99):
        cells = numeric.attribute(feature_map, target=neuron, n_steps=64).sum(1)[0]
        assert (found[neuron] - cells).abs().max() <= 1e-3


def fold_double(model):
    """A head folded from a network in float64: everything below is computed in float64."""
    folded = fold_head(model)
    values = {
        name: value.double() for name, value in vars(folded).items() if torch.is_tensor(value)
    }
    weights = tuple(part.double() for part in folded.weights)
    return type(folded)(**{**vars(folded), **values, "weights": weights})


def test_an_empty_map_has_no_evidence(networks):
    model = networks["spp+pmt"]
    found = find_evidence(model, torch.zeros(1, 512, 8, 8))
    assert not found.maps.any() and not found.neuron_maps.any() and not found.budget.any()
    with torch.no_grad():
        torch.testing.assert_close(found.const, model.forward_head(torch.zeros(1, 512, 8, 8)))


@STAGE
def test_a_batch_is_its_pictures(networks, stage):
    head, feature_map = fold_head(networks[stage]), features_of(4, 512, 9, 5)
    together = find_evidence(head, feature_map)
    alone = [find_evidence(head, one[None]) for one in feature_map]
    for name in ("logits", "maps", "neuron_maps", "budget", "margin_sd"):
        expected = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), expected, atol=1e-4, rtol=1e-4)


def test_temperature_divides_all_evidence(networks):
    model, feature_map = networks["spp+pmt"], features_of(2, 512, 4, 4)
    warm, plain = (find_evidence(fold_head(model, t), feature_map) for t in (2.0, 1.0))
    for name in ("logits", "const", "maps", "contributions", "budget", "margin_sd"):
        torch.testing.assert_close(getattr(warm, name) * 2, getattr(plain, name))
    torch.testing.assert_close(warm.neuron_maps, plain.neuron_maps)


@pytest.mark.parametrize("samples", [1, 8])
def test_dropout_deviation_is_that_of_many_masks(samples):
    model = lively_network(dropout_samples=samples)
    feature_map = features_of(1, 512, 3, 3)
    expected = find_evidence(model, feature_map).margin_sd.item()
    with torch.no_grad():
        neurons = model.head.neurons(model.pool(feature_map))  # (1, 100)
        masked = model.head.dropout.train()(neurons.expand(20_000 * samples, -1))
        logits = model.head.lin2(masked).view(20_000, samples, 2).mean(1)
    measured = (logits[:, 1] - logits[:, 0]).std().item()
    assert measured == pytest.approx(expected, rel=0.03)  # standard error is 0.5 %


def test_classes_are_told_by_name():
    """A network with its classes the other way round has the same margin, sign and all."""
    model, turned = lively_network(), lively_network(classes=("unhappy", "happy"))
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(turned.head.lin2, name).copy_(getattr(model.head.lin2, name).flip(0))
    feature_map = features_of(2, 512, 3, 3)
    ours, theirs = find_evidence(model, feature_map), find_evidence(turned, feature_map)
    torch.testing.assert_close(ours.margin_map, theirs.margin_map)
    torch.testing.assert_close(ours.margin_sd, theirs.margin_sd)
    cams = [grad_cam(m, feature_map, ("happy", "margin")).maps for m in (model, turned)]
    torch.testing.assert_close(*cams)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_in_16_bits_are_explained_in_32(dtype):
    model = lively_network().to(dtype)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = find_evidence(model, features_of(2, 512, 4, 4).to(dtype))
    assert found.maps.dtype == torch.float32
    expected = find_evidence(model.float(), features_of(2, 512, 4, 4).to(dtype).float())
    torch.testing.assert_close(found.maps, expected.maps, atol=1e-4, rtol=1e-4)


def test_any_mode_and_nothing_is_changed():
    model = lively_network()
    feature_map = features_of(1, 512, 3, 3)
    expected, before = find_evidence(model, feature_map), model.state_dict()
    found = find_evidence(model.train().freeze_backbone(), feature_map)
    torch.testing.assert_close(found.maps, expected.maps)
    assert model.training and not found.maps.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_folded_head_is_a_copy():
    model, feature_map = lively_network(), features_of(1, 512, 3, 3)
    head = fold_head(model)
    before = find_evidence(head, feature_map).logits
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()
    assert torch.equal(find_evidence(head, feature_map).logits, before)


def test_misuse_is_told(networks):
    model = networks["spp"]
    for shape in [(512, 3, 3), (1, 64, 3, 3), (1, 512, 0, 3), (0, 512, 3, 3)]:
        with pytest.raises(ValueError, match=r"feature_map must be \(B, 512, h, w\), not"):
            find_evidence(model, torch.rand(shape))


def test_the_receptive_field_is_that_of_resnet34():
    """From the strides and kernels of its layers: each adds (kernel - 1) times the step before."""
    backbone = DeepConnection("plain", weights=None).backbone
    seen, step = 1, 1
    for name, layer in backbone.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)) and "downsample" not in name:
            kernel, stride = (
                v if isinstance(v, int) else v[0] for v in (layer.kernel_size, layer.stride)
            )
            seen, step = seen + (kernel - 1) * step, step * stride
    assert (seen, step) == (899, 32)  # as README says
