import gc

import pytest
import torch
from captum.attr import LayerGradCam
from conftest import lively_network
from hypothesis import given, settings
from hypothesis import strategies as st

from dclib.explain.evidence import find_evidence, fold_head
from dclib.explain.gradcam import grad_cam
from dclib.model import STAGES
from dclib.predict import eval_mode, extract_features

STAGE = pytest.mark.parametrize("stage", STAGES)
METHOD = pytest.mark.parametrize("method", ["grad-cam", "hirescam"])


@pytest.fixture(scope="module")
def network(networks):
    return networks["spp+pmt"]


def images_of(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@STAGE
@pytest.mark.parametrize("size", [(96, 96), (130, 75)])
def test_grad_cam_is_captums(networks, stage, size):
    model, images = networks[stage], images_of(3, 3, *size)
    cams = grad_cam(model, extract_features(model, images))
    for index, name in enumerate(model.classes):
        theirs = LayerGradCam(model, model.backbone.layer4).attribute(images, target=index)
        torch.testing.assert_close(cams[name], theirs[:, 0].detach(), atol=1e-5, rtol=1e-5)


@METHOD
def test_maps_follow_the_formula(network, method):
    feature_map = extract_features(network, images_of(2, 3, 96, 80))
    cams = grad_cam(network, feature_map, ("unhappy", "margin"), method)
    leaf = feature_map.clone().requires_grad_()
    logits = network.forward_head(leaf)
    scores = {"unhappy": logits[:, 1], "margin": logits[:, 1] - logits[:, 0]}
    for target, score in scores.items():
        (gradient,) = torch.autograd.grad(score.sum(), leaf, retain_graph=True)
        weights = gradient.mean((2, 3), keepdim=True) if method == "grad-cam" else gradient
        expected = torch.einsum("bcij,bcij->bij", weights.expand_as(feature_map), feature_map)
        torch.testing.assert_close(cams[target], expected, atol=1e-5, rtol=1e-4)


def test_grad_cam_and_hirescam_agree_behind_an_average(networks):
    """With global average pooling every cell has the same gradient (arXiv 2011.08891)."""
    model = networks["plain"]
    feature_map = extract_features(model, images_of(2, 3, 96, 96))
    two = [grad_cam(model, feature_map, method=m).maps for m in ("grad-cam", "hirescam")]
    torch.testing.assert_close(*two)


@METHOD
def test_a_batch_is_its_pictures(network, method):
    images = images_of(5, 3, 64, 96)
    together = grad_cam(network, extract_features(network, images), method=method).maps
    alone = [
        grad_cam(network, extract_features(network, one[None]), method=method).maps
        for one in images
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


@settings(max_examples=10)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 3))
def test_any_size_of_picture(network, height, width, n):
    cams = grad_cam(network, extract_features(network, images_of(n, 3, height, width)))
    assert cams.maps.shape == (n, 2, -(-height // 32), -(-width // 32))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_whoever_calls(network, context):
    expected = grad_cam(network, extract_features(network, images_of(1, 3, 64, 64))).maps
    with context():
        found = grad_cam(network, extract_features(network, images_of(1, 3, 64, 64))).maps
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_autocast_does_not_reach_the_head(network):
    feature_map = extract_features(network, images_of(1, 3, 64, 64))
    expected = grad_cam(network, feature_map).maps
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(grad_cam(network, feature_map).maps, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_in_16_bits(dtype):
    model = lively_network().to(dtype)
    feature_map = extract_features(model, images_of(2, 3, 64, 64))
    cams = grad_cam(model, feature_map)
    assert feature_map.dtype == cams.maps.dtype == torch.float32
    expected = grad_cam(model.float(), feature_map)  # the same rounded weights
    torch.testing.assert_close(cams.maps, expected.maps)


def state_of(model):
    """All that a caller could find changed."""
    hooks = sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules())
    modes = tuple(module.training for module in model.modules())
    flags = tuple(p.requires_grad for p in model.parameters())
    grads = tuple(p.grad.sum().item() for p in model.parameters() if p.grad is not None)
    return hooks, modes, flags, grads, tuple(v.double().sum().item() for v in model.buffers())


@pytest.mark.parametrize("frozen", [False, True])
def test_the_network_is_left_as_found(frozen):
    model = lively_network().train()
    model(images_of(4, 3, 64, 64)).sum().backward()
    model.freeze_backbone(5 * frozen)
    model.head.dropout.eval()  # a part in a mode of its own
    before = state_of(model)
    in_training = grad_cam(model, extract_features(model, images_of(2, 3, 64, 64)))
    assert state_of(model) == before
    expected = grad_cam(model.eval(), extract_features(model, images_of(2, 3, 64, 64)))
    assert torch.equal(in_training.maps, expected.maps)


def test_the_network_is_left_as_found_after_exceptions():
    model = lively_network().train()
    before = state_of(model)
    fail = model.head.lin2.register_forward_pre_hook(lambda *_: 1 / 0)
    for _ in range(100):
        with pytest.raises(ZeroDivisionError):
            grad_cam(model, torch.rand(1, 512, 2, 2))
        with pytest.raises(RuntimeError):
            extract_features(model, torch.rand(1, 5, 64, 64))
    fail.remove()
    assert state_of(model) == before


@pytest.mark.parametrize("explain", [grad_cam, find_evidence])
def test_nothing_is_kept_over_many_calls(network, explain):
    def tensors():
        gc.collect()
        found = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
        return {(id(tensor), tensor.numel()) for tensor in found}

    head = fold_head(network) if explain is find_evidence else network
    feature_map, before = torch.rand(1, 512, 2, 2), state_of(network)
    explain(head, feature_map)
    first = tensors()
    for _ in range(100):
        found = explain(head, feature_map)
    assert not any(v.requires_grad for v in vars(found).values() if torch.is_tensor(v))
    del found
    assert tensors() <= first and state_of(network) == before  # garbage of others may have gone


def test_no_evidence_is_a_map_of_zeros(network):
    cams = grad_cam(network, torch.zeros(1, 512, 3, 3))
    assert not cams.maps.any() and not cams.positive.any()


def test_misuse_is_told(network):
    feature_map = torch.rand(1, 512, 2, 2)
    with pytest.raises(ValueError, match=r"targets must be .*'margin'.*not \('sad',\)"):
        grad_cam(network, feature_map, ("sad",))
    with pytest.raises(ValueError, match="There is no map of 'sad', only of happy, unhappy"):
        grad_cam(network, feature_map)["sad"]
    with pytest.raises(ValueError, match="targets must be"):
        grad_cam(network, feature_map, ())
    with pytest.raises(ValueError, match="method must be"):
        grad_cam(network, feature_map, method="grad-cam++")
    with pytest.raises(ValueError, match=r"feature_map must be \(B, C, h, w\)"):
        grad_cam(network, feature_map[0])
    with pytest.raises(ValueError):
        grad_cam(network, feature_map)["margin"]


def test_modes_are_restored_part_by_part(network):
    network.head.dropout.train()
    with pytest.raises(KeyError), eval_mode(network):
        assert not any(module.training for module in network.modules())
        raise KeyError
    assert [m.training for m in network.modules()].count(True) == 1
    network.eval()
