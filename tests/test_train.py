import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from dclib.checkpoint import load_checkpoint
from dclib.config import TrainConfig
from dclib.data import CoupleFolder, make_loader
from dclib.model import DeepConnection
from dclib.train import (
    build_model,
    cosine,
    describe_run,
    fit,
    load_or_train,
    load_splits,
    make_optimizer,
    optimise,
    predict_logits,
    score,
    train_checkpoint,
)


@pytest.fixture
def splits(couples, tiny_config):
    return load_splits(couples, tiny_config)


def test_presets():
    paper, colab, demo = TrainConfig.paper(), TrainConfig.colab(), TrainConfig.demo()
    assert (paper.backbone, paper.image_size, paper.batch_size) == ("resnet34", 512, 48)
    assert (paper.optimizer, paper.lr, paper.weight_decay) == ("adam", 1e-4, 0.1)
    assert (paper.epochs, paper.patience, paper.dropout_loss) == (16, 3, "logits")
    assert paper.augment == colab.augment == 1.0
    assert demo.weights is None
    assert TrainConfig.demo(epochs=1).epochs == 1
    with pytest.raises(AttributeError):
        paper.lr = 1.0


def test_learns_a_planted_mark(tmp_path):
    """An obvious difference is found, on pictures the network has not seen."""
    from dclib.demo import render_couples

    root = render_couples(tmp_path / "marked", n=96, size=48, shortcut="mark")
    config = TrainConfig.demo(image_size=48, epochs=6, batch_size=8, workers=0, augment=0)
    data = load_splits(root, config)
    model = build_model(config)
    fit(model, data["train"], data["val"], config, progress=False)
    logits, labels = predict_logits(model, make_loader(data["test"], 8))
    assert score(logits, labels)[1] >= 0.9


def test_same_seed_same_weights(splits, tiny_config):
    def train(config):
        model = build_model(config)
        history = fit(model, splits["train"], splits["val"], config, progress=False)
        return history.column("train_loss"), model.state_dict()

    (losses, state), (again, state_again) = train(tiny_config), train(tiny_config)
    assert losses == again
    assert all(torch.equal(state[key], state_again[key]) for key in state)
    other, _ = train(TrainConfig.demo(image_size=32, epochs=2, batch_size=8, workers=0, seed=1))
    assert other != losses


def test_history_and_best_epoch(splits, tiny_config):
    model = build_model(tiny_config)
    history = fit(model, splits["train"], splits["val"], tiny_config, progress=False)
    assert history.column("epoch") == [0, 1]
    assert history.column("lr")[0] == tiny_config.lr  # the first step has the full rate
    best = max(history.epochs, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert history.best == best
    logits, labels = predict_logits(model, make_loader(splits["val"], 4))
    assert score(logits, labels) == pytest.approx(
        (best["val_loss"], best["val_accuracy"]), rel=1e-4
    )
    assert not model.training


def scripted(monkeypatch, val):
    """Let `fit` see these (loss, accuracy) after each epoch instead of training."""
    steps = iter(val)

    def one_epoch(model, *args):
        with torch.no_grad():
            model.weight += 1
        return 0.0, 0.0

    monkeypatch.setattr("dclib.train.train_one_epoch", one_epoch)
    monkeypatch.setattr("dclib.train.predict_logits", lambda model, loader: (None, None))
    monkeypatch.setattr("dclib.train.score", lambda *args: next(steps))


class Counter(torch.nn.Module):
    """A weight that counts epochs, with the interface that `fit` uses."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, 1, 1, 1))

    def freeze_backbone(self, frozen):
        return self


@pytest.mark.parametrize(
    ("val", "epochs_run", "kept"),
    [
        ([(0.5, 0.7), (0.6, 0.7), (0.7, 0.7), (0.8, 0.9), (0.1, 1.0)], 4, 3),  # patience 3
        (
            [(0.5, 0.7), (0.5, 0.7), (0.5, 0.7), (0.5, 0.7), (0.5, 0.7)],
            4,
            0,
        ),  # equal is no progress
        ([(0.9, 0.6), (0.8, 0.8), (0.7, 0.8), (0.6, 0.7), (0.65, 0.7)], 5, 2),  # tie: lower loss
        ([(math.nan, 0.9), (0.5, 0.6), (0.4, 0.7), (0.3, 0.8), (0.2, 0.8)], 5, 0),
    ],
)
def test_early_stopping_restores_the_best(monkeypatch, couples, val, epochs_run, kept):
    scripted(monkeypatch, val)
    model, train = Counter(), CoupleFolder(couples)
    config = TrainConfig.demo(epochs=5, patience=3, workers=0)
    history = fit(model, train, train, config, progress=False)
    assert len(history.epochs) == epochs_run
    assert history.stopped_early == (epochs_run < 5)
    assert history.best_epoch == kept
    assert model.weight.item() == kept + 1


def test_frozen_backbone_stays(splits, tiny_config):
    config = TrainConfig.demo(
        image_size=32, epochs=1, batch_size=8, workers=0, freeze_backbone=True
    )
    model = build_model(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, splits["train"], splits["val"], config, progress=False)
    for name, value in model.state_dict().items():
        moved = not torch.equal(value, before[name])
        assert moved == name.startswith("head."), name


def test_accuracy_is_weighted_by_pictures(splits, tiny_config):
    """Batches of 20 and 4 count as 24 pictures, not as two batches."""
    model = build_model(tiny_config).eval()
    expected = []
    for start, stop in ((0, 20), (20, 24)):
        images = torch.stack([splits["train"][i][0] for i in range(start, stop)])
        labels = splits["train"].labels[start:stop]
        with torch.inference_mode():
            expected.append(F.cross_entropy(model(images), labels, reduction="sum").item())
    logits, labels = predict_logits(model, make_loader(splits["train"], 20))
    assert score(logits, labels)[0] == pytest.approx(sum(expected) / 24, rel=1e-4)


def test_predicting_leaves_the_mode(splits, tiny_config):
    model = build_model(tiny_config).train()
    loader = make_loader(splits["val"], 4)
    first, second = (predict_logits(model, loader)[0] for _ in range(2))
    assert model.training
    assert torch.equal(first, second)  # no dropout, no moving statistics
    assert first.shape == (6, 2)


def test_one_update_is_adams():
    """`optimise` changes the weights once, by torch's own rule."""
    layer, twin = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    twin.load_state_dict(layer.state_dict())
    x, labels = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    config = TrainConfig(lr=0.01, weight_decay=0.1)
    optimise(F.cross_entropy(layer(x), labels), make_optimizer(layer, config))
    reference = torch.optim.Adam(twin.parameters(), lr=0.01, weight_decay=0.1)
    F.cross_entropy(twin(x), labels).backward()
    reference.step()
    assert torch.equal(layer.weight, twin.weight)


def test_optimizers():
    layer = torch.nn.Linear(3, 2)
    assert type(make_optimizer(layer, TrainConfig())) is torch.optim.Adam
    assert type(make_optimizer(layer, TrainConfig.colab())) is torch.optim.AdamW
    with pytest.raises(ValueError, match="optimizer must be one of"):
        make_optimizer(layer, TrainConfig(optimizer="sgd"))


def test_cosine():
    assert [cosine(share) for share in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0], abs=1e-12)


def test_a_loss_that_is_no_number_stops_with_advice(splits, tiny_config):
    model = build_model(tiny_config)
    with torch.no_grad():
        model.head.lin2.weight.fill_(math.nan)
    with pytest.raises(RuntimeError, match="loss became nan; lower lr"):
        fit(model, splits["train"], splits["val"], tiny_config, progress=False)


@pytest.mark.parametrize("mode", ["logits", "loss"])
def test_both_dropout_losses_train(splits, mode):
    config = TrainConfig.demo(
        image_size=32, epochs=1, batch_size=8, workers=0, augment=0, dropout_loss=mode
    )
    history = fit(build_model(config), splits["train"], splits["val"], config, progress=False)
    assert math.isfinite(history.best["train_loss"])


@pytest.mark.parametrize(
    ("augmenter", "said"),
    [
        ("imgaug", "augmented by imgaug in the loader (strength 0.5)"),
        ("tensor", "augmented by tensor operations on the training device (strength 0.5)"),
    ],
)
def test_both_augmenters_train(couples, augmenter, said):
    config = TrainConfig.demo(
        image_size=32, epochs=1, batch_size=8, workers=0, augment=0.5, augmenter=augmenter
    )
    splits = load_splits(couples, config)
    history = fit(build_model(config), splits["train"], splits["val"], config, progress=False)
    assert math.isfinite(history.best["train_loss"])
    assert said in describe_run(config, splits["train"])


def test_unknown_augmenter(couples):
    with pytest.raises(ValueError, match=r"augmenter must be one of .* not 'torch'"):
        load_splits(couples, TrainConfig.demo(augmenter="torch"))


def test_train_checkpoint_measures_and_remembers(couples, tiny_config, tmp_path, capsys):
    checkpoint = train_checkpoint(couples, tmp_path / "c", tiny_config, progress=False)
    said = capsys.readouterr().out
    assert "resnet18 (stage spp+pmt) from a random start on 24 pictures at 32 px" in said
    assert "not augmented, on cpu" in said
    again = load_checkpoint(tmp_path / "c")
    assert again.config["training_data"]["kind"] == "demo drawings"
    test = CoupleFolder(couples, "test", again.transform)
    logits, labels = predict_logits(again.model, make_loader(test, 6))
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    assert again.config["metrics"]["test"]["accuracy"] == pytest.approx(accuracy)
    assert again.config["metrics"]["test"]["n"] == 6
    assert isinstance(checkpoint.model, DeepConnection)


def test_without_val(couples, tiny_config, tmp_path):
    import shutil

    root = shutil.copytree(couples, tmp_path / "data", ignore=shutil.ignore_patterns("val"))
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*val; a data set is"):
        train_checkpoint(root, tmp_path / "c", tiny_config)


def test_load_or_train_says_which(tmp_path, tiny_config, capsys):
    folder = tmp_path / "checkpoint"
    load_or_train(folder, tiny_config, n=24, root=tmp_path / "data")
    assert "training one on 24 drawn couples" in capsys.readouterr().out
    load_or_train(folder, tiny_config, n=24, root=tmp_path / "data")
    assert "Found the checkpoint" in capsys.readouterr().out


def test_command_line(couples, tmp_path):
    command = [sys.executable, "-m", "dclib.train", couples, tmp_path / "c", "--preset", "demo"]
    command += ["--stage", "spp", "--epochs", "1", "--image-size", "32", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "n = 6" in done.stdout
    assert load_checkpoint(tmp_path / "c").config["stage"] == "spp"


def test_command_line_error_is_one_sentence(tmp_path):
    command = [sys.executable, "-m", "dclib.train", tmp_path / "none", tmp_path / "c"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "There is no folder" in done.stderr
