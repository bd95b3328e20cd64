"""Feature maps that are computed once train the same heads as a ResNet that is asked every time."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dclib.data.loading import make_loader
from dclib.predict import predict_logits
from dclib.train import build_model, features, fit, load_splits
from dclib.train.features import features_once


@pytest.fixture
def config(tiny_config):
    return replace(tiny_config, freeze_stages=5, precision="fp32", cache=False)


@pytest.fixture
def splits(couples, config):
    return load_splits(couples, config)


def counted(model, monkeypatch):
    """How many pictures the model's ResNet has seen, in a list."""
    seen, forward = [], model.forward_features
    monkeypatch.setattr(
        model, "forward_features", lambda images: (seen.append(len(images)), forward(images))[1]
    )
    return seen


def test_heads_learn_as_with_a_resnet_that_is_asked_every_time(splits, config, monkeypatch):
    histories = []
    for most in (features.MOST, 0):
        monkeypatch.setattr(features, "MOST", most)
        model = build_model(config)
        before = {name: v.clone() for name, v in model.backbone.state_dict().items()}
        histories.append(fit(model, splits["train"], splits["val"], config, progress=False))
        after = model.backbone.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    for name in ("train_loss", "val_loss"):
        once, every_time = (history.column(name) for history in histories)
        assert once == pytest.approx(every_time, rel=1e-3)


def test_answers_within_are_those_of_the_whole_network(splits, config):
    model = build_model(config)
    expected, labels = predict_logits(model, make_loader(splits["test"], 4))
    with features_once(model, config, splits["test"]) as (given,):
        assert given[0][0].shape == (512, 1, 1)
        logits, targets = predict_logits(model, make_loader(given, 4))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(labels, targets)
    assert splits["test"][0][0].shape == (3, 32, 32)  # what came in still holds pictures


def test_other_heads_on_the_same_resnet_find_its_maps_again(splits, config, monkeypatch):
    first, second = build_model(config), build_model(replace(config, stage="plain"))
    second.backbone.load_state_dict(first.backbone.state_dict())
    other = build_model(replace(config, seed=1))
    asked = []
    for model in (first, second, other):
        seen = counted(model, monkeypatch)
        with features_once(model, config, splits["val"]):
            pass
        asked.append(sum(seen))
    one = 1  # picture, to learn how large its map is
    assert asked == [len(splits["val"]) + one, one, len(splits["val"]) + one]


@pytest.mark.parametrize("changes", [{"freeze_stages": 4}, {"augment": 0.5}, {"freeze_epochs": 2}])
def test_what_changes_in_training_is_never_kept(couples, config, changes):
    config = replace(config, **({"freeze_stages": 0} | changes))
    if "augment" in changes:
        config = replace(config, freeze_stages=5, augmenter="tensor")
    splits, model = load_splits(couples, config), build_model(config)
    with features_once(model, config, splits["train"], splits["val"]) as sets:
        assert sets == (splits["train"], splits["val"])
        assert len(model.backbone) > 0


def test_the_resnet_comes_back_after_an_error(splits, config):
    model = build_model(config)
    backbone = model.backbone
    with pytest.raises(KeyError), features_once(model, config, splits["val"]):
        raise KeyError
    assert model.backbone is backbone


@pytest.mark.parametrize("workers", [0, 1])
def test_many_maps_do_not_burden_the_processes_of_loaders(splits, config, workers):
    """A forkserver passes on 252 file descriptors; each tensor takes one."""
    dataset = splits["test"]
    dataset.maps["of another network"] = {Path(str(k)): torch.zeros(1) for k in range(300)}
    model, config = build_model(config), replace(config, workers=workers)
    with features_once(model, config, dataset) as (given,):
        loader = make_loader(given, 4, workers=workers)
        assert loader.num_workers == 0
        items = [images for images, _ in loader]
        assert sum(map(len, items)) == len(dataset)
    assert len(next(iter(make_loader(dataset, 4, workers=workers)))[0]) == 4
    assert set(dataset.maps) > {"of another network"}
