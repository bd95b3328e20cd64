import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dclib.model import DeepConnection, dropout_loss
from dclib.train import TrainConfig
from dclib.train.loop import class_weights, cosine, is_frozen, make_optimizer, set_learning_rate


@pytest.fixture(scope="module")
def model():
    return DeepConnection("spp", "resnet18", weights=None, levels=(1,))


def rates_by_name(model, optimizer):
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in optimizer.param_groups)
    return {name: rates.get(id(p)) for name, p in model.named_parameters()}


def test_every_stage_learns_at_a_share_of_the_next(model):
    rates = rates_by_name(model, make_optimizer(model, TrainConfig(lr=0.01, lr_decay=0.5)))
    powers = {"head": 0, "layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4, "conv1": 5, "bn1": 5}
    for name, rate in rates.items():
        part = name.split(".")[0 if name.startswith("head") else 1]
        assert rate == pytest.approx(0.01 * 0.5 ** powers[part]), name


def test_one_rate_for_all_without_decay(model):
    assert set(rates_by_name(model, make_optimizer(model, TrainConfig(lr=0.01))).values()) == {0.01}


def test_a_frozen_backbone_is_not_in_the_optimizer():
    model = DeepConnection("spp", "resnet18", weights=None, levels=(1,)).freeze_backbone()
    rates = rates_by_name(model, make_optimizer(model, TrainConfig()))
    assert {name for name, rate in rates.items() if rate} == {
        name for name, _ in model.named_parameters() if name.startswith("head.")
    }


def test_the_optimizers(model):
    assert type(make_optimizer(model, TrainConfig())) is torch.optim.Adam
    assert type(make_optimizer(model, TrainConfig(optimizer="adamw"))) is torch.optim.AdamW
    with pytest.raises(ValueError, match="optimizer must be one of"):
        make_optimizer(model, TrainConfig(optimizer="sgd"))
    for wrong in (0, -0.5, 1.5):
        with pytest.raises(ValueError, match="lr_decay lies above 0"):
            make_optimizer(model, TrainConfig(lr_decay=wrong))


def test_a_factor_applies_to_the_rates_at_the_start(model):
    optimizer = make_optimizer(model, TrainConfig(lr=0.1, lr_decay=0.5))
    for factor in (0.5, 0.25, 1.0):
        set_learning_rate(optimizer, factor)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([factor * 0.1 * 0.5**depth for depth in range(6)])


def test_cosine():
    assert [cosine(share) for share in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0], abs=1e-12)


def test_cosine_is_torchs():
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for step in range(10):
        assert cosine(step / 10) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({}, [False, False, False]),
        ({"freeze_epochs": 2}, [True, True, False]),
        ({"freeze_backbone": True, "freeze_epochs": 1}, [True, True, True]),
    ],
)
def test_which_epochs_are_frozen(changes, frozen):
    assert [is_frozen(TrainConfig(**changes), epoch) for epoch in range(3)] == frozen


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.tensor([0] * 7 + [1] * 3)
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels.numpy())
    assert class_weights("balanced", labels).tolist() == pytest.approx(expected.tolist())


def test_given_weights_and_none():
    labels = torch.tensor([0, 1])
    assert class_weights(None, labels) is None
    assert class_weights("1, 2.5", labels).tolist() == [1, 2.5]
    for wrong in ("even", "1", "1,2,3", "1,-2", "1,0", "nan,1", ""):
        with pytest.raises(ValueError, match="class_weights must be"):
            class_weights(wrong, labels)


@given(st.lists(st.integers(0, 1), min_size=2, max_size=12), st.integers(1, 11), st.booleans())
def test_a_weighted_loss_is_the_mean_of_its_parts(labels, cut, averaged):
    """However a batch is divided, its parts' sums of losses add up to the whole's."""
    labels, mode = torch.tensor(labels), "loss" if averaged else "logits"
    logits = torch.randn(3, len(labels), 2, generator=torch.Generator().manual_seed(len(labels)))
    weights = torch.tensor([0.5, 3.0])
    cut = min(cut, len(labels) - 1)
    parts = [slice(0, cut), slice(cut, None)]
    sums = [
        dropout_loss(logits[:, part], labels[part], mode, weights) * len(labels[part])
        for part in parts
    ]
    whole = dropout_loss(logits, labels, mode, weights)
    assert (sum(sums) / len(labels)).item() == pytest.approx(whole.item(), rel=1e-5)
    by_hand = [
        weights[y] * F.cross_entropy(sample[i], y)
        for i, y in enumerate(labels)
        for sample in (logits if averaged else logits.mean(0, keepdim=True))
    ]
    assert whole.item() == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)
