from dataclasses import fields
from math import inf, nan

import pytest
import torch

from dclib.model import DeepConnection
from dclib.train.config import TrainConfig, make_optimizer


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
        TrainConfig(optimizer="sgd")


ODD = (-1, -0.5, 0.0, 10**30, nan, inf, -inf, "", "nothing", None, True, (), ("a",), [[]], {})
FITTING = {"clip": {None, 0.0}, "weights": {None, "", "nothing"}, "freeze_stages": {5}}
FITTING |= {"cache": {True}, "backbone": {"", "nothing"}, "device": {"", "nothing"}}
FITTING |= {"augment": {0.0}, "lr": {0.0}, "weight_decay": {0.0}, "frame_margin": {0.0}}
FITTING |= {"freeze_norm": {True}}


@pytest.mark.parametrize("name", [setting.name for setting in fields(TrainConfig)])
def test_every_setting_has_its_values(name):
    for value in ODD:
        if any(value is fit for fit in FITTING.get(name, ())):
            continue
        with pytest.raises(ValueError, match=rf"^{name} must be .*, not .*\.$"):
            TrainConfig(**{name: value})


def test_presets():
    paper, colab, demo = TrainConfig.paper(), TrainConfig.colab(), TrainConfig.demo()
    assert (paper.backbone, paper.image_size, paper.batch_size) == ("resnet34", 512, 48)
    assert (paper.optimizer, paper.lr, paper.weight_decay) == ("adam", 1e-4, 0.1)
    assert (paper.epochs, paper.patience, paper.dropout_loss) == (16, 3, "logits")
    assert (paper.freeze_epochs, paper.lr_decay, paper.clip, paper.augment) == (0, 1, None, 1)
    assert colab.freeze_epochs > 0
    assert (paper.frame, colab.frame, demo.frame) == ("whole", "faces", "whole")
    assert demo.weights is None
    assert TrainConfig.demo(epochs=1).epochs == 1
    with pytest.raises(AttributeError):
        paper.lr = 1.0
