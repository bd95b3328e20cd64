from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dclib.checkpoint import load_checkpoint
from dclib.model import STAGES, DeepConnection, MultiSampleDropoutHead, dropout_loss


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DeepConnection(backbone="resnet18", weights=None).eval()


WIDTHS = {"plain": 512, "spp": 43_520, "spp+pmt": 87_040}


@pytest.mark.parametrize("stage", WIDTHS)
def test_stages_differ_in_the_width_of_the_head(stage):
    network = DeepConnection(stage, weights=None)
    assert tuple(WIDTHS) == STAGES and network.head.lin1.in_features == WIDTHS[stage]
    assert network.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 2)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_any_torchvision_resnet(backbone):
    network = DeepConnection("spp+pmt", backbone, weights=None, levels=(2, 1)).eval()
    assert network(torch.randn(1, 3, 64, 64)).shape == (1, 2)


@settings(max_examples=12)
@given(st.integers(1, 130), st.integers(1, 130))
def test_any_picture_size(model, height, width):
    with torch.inference_mode():
        assert model(torch.randn(1, 3, height, width)).shape == (1, 2)


def test_head_of_features_is_the_model(model):
    images = torch.randn(2, 3, 70, 50)
    feature_map = model.forward_features(images)
    assert feature_map.shape == (2, 512, 3, 2)
    assert torch.equal(model.forward_head(feature_map), model(images))


def test_backbone_is_torchvisions():
    """Same layers, same order, same weights: the features equal those of the original."""
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(weights=None).eval()
    network = DeepConnection("plain", "resnet18", weights=None).eval()
    for name, part in network.backbone.named_children():
        part.load_state_dict(getattr(resnet, name).state_dict())
    images = torch.randn(2, 3, 64, 64)
    resnet.fc = torch.nn.Identity()
    pooled = network.pool(network.forward_features(images))
    assert torch.allclose(pooled, resnet(images), atol=1e-5)


def make_head(samples=8):
    torch.manual_seed(0)
    return MultiSampleDropoutHead(20, samples=samples)


def test_eval_is_a_single_pass_without_noise():
    head = make_head().eval()
    x = torch.randn(5, 20)
    calls = []
    head.lin2.register_forward_hook(lambda *_: calls.append(1))
    assert head.sample_logits(x).shape == (1, 5, 2)
    assert torch.allclose(head(x), head.lin2(head.bn1(F.relu(head.lin1(x)))))
    assert len(calls) == 3  # once each for sample_logits, forward and the line above


def test_training_draws_independent_masks():
    logits = make_head().train().sample_logits(torch.randn(5, 20))
    assert logits.shape == (8, 5, 2)
    assert len({tuple(sample.flatten().tolist()) for sample in logits}) == 8


def test_mean_logits_equal_one_pass_with_the_mean_mask():
    head = make_head().double().train()
    neurons = torch.randn(5, 100, dtype=torch.double)
    torch.manual_seed(3)
    masks = head.dropout(torch.ones(8, 5, 100, dtype=torch.double))
    torch.manual_seed(3)
    masked = head.dropout(neurons.expand(8, 5, 100))
    mean_logits = head.lin2(masked).mean(0)
    assert torch.allclose(mean_logits, head.lin2(neurons * masks.mean(0)), atol=1e-12)
    # ... and this is what forward computes
    head.neurons = lambda x: neurons
    torch.manual_seed(3)
    assert torch.allclose(head(None), mean_logits, atol=1e-12)


@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 10_000))
def test_loss_mode_is_never_below_logits_mode(samples, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(samples, batch, 2, generator=generator, dtype=torch.double)
    labels = torch.randint(0, 2, (batch,), generator=generator)
    of_mean, mean_of = (dropout_loss(logits, labels, mode) for mode in ("logits", "loss"))
    assert mean_of >= of_mean - 1e-12
    by_hand = torch.stack([F.cross_entropy(sample, labels) for sample in logits]).mean()
    assert torch.allclose(mean_of, by_hand)
    assert torch.allclose(of_mean, F.cross_entropy(logits.mean(0), labels))


def count_trainable(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_freezing_leaves_exactly_the_head():
    network = DeepConnection("spp", "resnet18", weights=None, levels=(1,))
    everything = count_trainable(network)
    network.freeze_backbone()
    head = 512 * 100 + 100 + 2 * 100 + 100 * 2 + 2  # lin1, bn1, lin2
    assert count_trainable(network) == head < everything
    network.freeze_backbone(0)
    assert count_trainable(network) == everything
    assert network.backbone.bn1.training


@pytest.mark.parametrize("stages", range(6))
@pytest.mark.parametrize("norm", [False, True])
def test_only_later_stages_move_and_batch_norm_if_it_may(stages, norm):
    torch.manual_seed(0)
    network = DeepConnection("spp", "resnet18", weights=None, levels=(1,))
    network.freeze_backbone(stages, norm).train()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    logits = network.sample_logits(torch.randn(4, 3, 64, 64))
    dropout_loss(logits, torch.tensor([0, 1, 0, 1]), "loss").backward()
    optimizer.step()
    after = network.backbone.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    blocks = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    free = {name for block in blocks[stages:] for name in block}
    expected = {name for name in before if name.split(".")[0] in free}
    statistics = {name for name in before if "running" in name or "tracked" in name}
    assert moved == (expected - statistics if norm else expected)
    assert network.head.training and network.head.bn1.training


def test_the_backbone_of_the_network_inside_the_package_is_a_start():
    network, inside = DeepConnection(weights="faces"), load_checkpoint().model
    expected = inside.backbone.state_dict()
    found = network.backbone.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert network.levels != inside.levels  # the head is new
    with pytest.raises(ValueError, match="inside the package does not fit the backbone"):
        DeepConnection(backbone="resnet18", weights="faces")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_bare_state_dict(tmp_path, suffix):
    torch.manual_seed(1)
    state = torchvision.models.resnet18(weights=None).state_dict()
    path = tmp_path / f"backbone{suffix}"
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, path) if suffix == ".safetensors" else torch.save(state, path)
    network = DeepConnection(backbone="resnet18", weights=path)
    assert network.backbone.conv1.weight.dtype == torch.float32
    assert torch.allclose(network.backbone.conv1.weight, state["conv1.weight"], atol=1e-3)


def test_weights_from_a_whole_network(tmp_path):
    """Of a state dict of ours the ResNet is taken, whatever stage its head was of."""
    torch.manual_seed(0)
    whole = DeepConnection("plain", "resnet18", weights=None)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    model = DeepConnection("spp+pmt", "resnet18", tmp_path / "whole.safetensors")
    theirs = whole.backbone.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in model.backbone.state_dict().items())


def test_weights_of_another_resnet(tmp_path):
    save_file(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="does not fit the backbone: 96 entries differ"):
        DeepConnection(backbone="resnet34", weights=tmp_path / "w.safetensors")


class Evil:
    def __reduce__(self):
        return print, ("pickled code ran",)


@pytest.mark.parametrize("content", ["pickle", "text", "cut off", "nothing"])
def test_files_that_are_no_weights(tmp_path, capsys, content):
    path = tmp_path / "weights.pth"
    torch.save({"a": Evil()} if content == "pickle" else {"a": torch.ones(50_000)}, path)
    if content == "text":
        path.write_text("<html>Not found</html>")
    if content == "cut off":
        path.write_bytes(path.read_bytes()[:100_000])
    if content == "nothing":  # torch's error has no message then
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a plain file of weights"):
        DeepConnection(backbone="resnet18", weights=path)
    assert "pickled code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {0: torch.ones(2)}])
def test_weights_that_are_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="something other than a state dict"):
        DeepConnection(backbone="resnet18", weights=tmp_path / "weights.pth")


def test_imagenet_without_network_names_the_ways_out(monkeypatch):
    offline = Mock(side_effect=OSError("Name or service not known"))
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", offline)
    with pytest.raises(OSError, match=r'go online, .*= "faces", a file .* or None'):
        DeepConnection(backbone="resnet18", weights="imagenet")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"stage": "spp+"}, ValueError, "stage must be one of"),
        ({"backbone": "vgg16"}, ValueError, "backbone must be a torchvision ResNet"),
        ({"dropout_samples": 0}, ValueError, "at least 1"),
        ({"levels": (0,)}, ValueError, "levels must be"),
        ({"weights": "nothing.pth"}, FileNotFoundError, "no weights at"),
    ],
)
def test_bad_arguments(arguments, kind, message):
    with pytest.raises(kind, match=message):
        DeepConnection(**{"weights": None} | arguments)


def test_unknown_dropout_loss():
    with pytest.raises(ValueError, match="dropout_loss must be"):
        dropout_loss(torch.zeros(1, 1, 2), torch.tensor([0]), "mean")
