import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F

from dclib.checkpoint import load_checkpoint
from dclib.data.loading import CoupleFolder, make_loader
from dclib.evaluate.calibration import abstain_confidence, fit_temperature
from dclib.model import DeepConnection
from dclib.predict import predict_logits, score
from dclib.train import (
    TrainConfig,
    build_model,
    calibrate,
    check_agreement,
    describe_run,
    fit,
    load_or_train,
    load_splits,
    train_checkpoint,
)
from dclib.train.__main__ import main
from dclib.train.amp import FullPrecision
from dclib.train.resume import load_state


@pytest.fixture
def splits(couples, tiny_config):
    return load_splits(couples, tiny_config)


def trained(splits, config, **options):
    """A fresh model after `fit`, and its history."""
    model = build_model(config)
    history = fit(model, splits["train"], splits["val"], config, progress=False, **options)
    return model, history


def test_presets():
    paper, colab, demo = TrainConfig.paper(), TrainConfig.colab(), TrainConfig.demo()
    assert (paper.backbone, paper.image_size, paper.batch_size) == ("resnet34", 512, 48)
    assert (paper.optimizer, paper.lr, paper.weight_decay) == ("adam", 1e-4, 0.1)
    assert (paper.epochs, paper.patience, paper.dropout_loss) == (16, 3, "logits")
    assert (paper.freeze_epochs, paper.lr_decay, paper.clip, paper.augment) == (0, 1, None, 1)
    assert colab.freeze_epochs > 0
    assert demo.weights is None
    assert TrainConfig.demo(epochs=1).epochs == 1
    with pytest.raises(AttributeError):
        paper.lr = 1.0


def test_learns_a_planted_mark(tmp_path):
    """An obvious difference is found, on pictures the network has not seen."""
    from dclib.drawn import render_couples

    root = render_couples(tmp_path / "marked", n=96, size=48, shortcut="mark")
    config = TrainConfig.demo(image_size=48, epochs=6, batch_size=8, workers=0, augment=0)
    data = load_splits(root, config)
    model, _ = trained(data, config)
    logits, labels = predict_logits(model, make_loader(data["test"], 8))
    assert score(logits, labels)[1] >= 0.9


def test_same_seed_same_weights(splits, tiny_config):
    (model, history), (again, history_again) = (trained(splits, tiny_config) for _ in range(2))
    assert history.steps == history_again.steps
    state, state_again = model.state_dict(), again.state_dict()
    assert all(torch.equal(state[key], state_again[key]) for key in state)
    _, other = trained(splits, replace(tiny_config, seed=1))
    assert other.steps != history.steps


def test_history_and_best_epoch(splits, tiny_config):
    model, history = trained(splits, tiny_config)
    assert history.column("epoch") == [0, 1]
    assert history.column("lr")[0] == tiny_config.lr  # the first step has the full rate
    assert [row["epoch"] for row in history.steps] == [0] * 3 + [1] * 3
    for row in history.epochs:
        losses = [step["loss"] for step in history.steps if step["epoch"] == row["epoch"]]
        assert row["train_loss"] == pytest.approx(sum(losses) / 3)  # three batches of eight
        assert 0 <= row["waiting"] <= 1
        assert 0 < row["val_seconds"] < row["seconds"]
        assert row["images_per_s"] == pytest.approx(24 / (row["seconds"] - row["val_seconds"]))
        assert row["peak_memory"] > 2**26
    best = max(history.epochs, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert history.best == best
    logits, labels = predict_logits(model, make_loader(splits["val"], 4))
    assert score(logits, labels) == pytest.approx(
        (best["val_loss"], best["val_accuracy"]), rel=1e-4
    )
    assert not model.training


@pytest.mark.parametrize(
    ("val", "epochs_run", "kept"),
    [
        ([(0.5, 0.7), (0.6, 0.7), (0.7, 0.7), (0.8, 0.9), (0.1, 1.0)], 4, 3),  # patience 3
        ([(0.5, 0.7)] * 5, 4, 0),  # equal is no progress
        ([(0.9, 0.6), (0.8, 0.8), (0.7, 0.8), (0.6, 0.7), (0.65, 0.7)], 5, 2),  # tie: lower loss
        ([(math.nan, 0.9), (0.5, 0.6), (0.4, 0.7), (0.3, 0.8), (0.2, 0.8)], 5, 0),
    ],
)
def test_early_stopping_restores_the_best(monkeypatch, splits, val, epochs_run, kept):
    config = TrainConfig.demo(
        image_size=32, batch_size=24, epochs=5, patience=3, workers=0, augment=0
    )
    scores, seen = iter(val), []
    monkeypatch.setattr("dclib.train.loop.score", lambda *_: next(scores))
    model = build_model(config)

    def keep(history):
        if len(history.epochs) > len(seen):
            seen.append(model.head.lin2.weight.detach().clone())

    history = fit(model, splits["train"], splits["val"], config, watchers=[keep], progress=False)
    assert len(history.epochs) == epochs_run
    assert history.stopped_early == (epochs_run < 5)
    assert history.best_epoch == kept
    for epoch, weight in enumerate(seen):
        assert torch.equal(model.head.lin2.weight, weight) == (epoch == kept)


def test_frozen_backbone_stays(splits, tiny_config):
    config = replace(tiny_config, freeze_backbone=True)
    before = build_model(config).state_dict()
    model, _ = trained(splits, config)
    for name, value in model.state_dict().items():
        moved = not torch.equal(value, before[name])
        assert moved == name.startswith("head."), name


def test_freeze_then_thaw(splits, tiny_config):
    """First the head alone learns, batch statistics of the backbone included; then everything."""
    config = replace(tiny_config, freeze_epochs=1)
    model, states = build_model(config), []
    states.append({name: value.clone() for name, value in model.state_dict().items()})

    def keep(history):
        if len(history.epochs) == len(states):
            states.append({name: value.clone() for name, value in model.state_dict().items()})

    fit(model, splits["train"], splits["val"], config, watchers=[keep], progress=False)
    for name in states[0]:
        first, second = (not torch.equal(states[i][name], states[i + 1][name]) for i in (0, 1))
        assert first == name.startswith("head."), name
        assert second, name


def test_sizes_alternate(couples, tiny_config):
    config = replace(tiny_config, epochs=3, train_sizes=(32, 48))
    splits = load_splits(couples, config)
    _, history = trained(splits, config)
    assert history.column("size") == [32, 48, 32]
    assert splits["val"][0][0].shape == (3, 32, 32)
    assert "pictures at 32 and 48 px" in describe_run(config, splits["train"])


def test_the_cache_changes_nothing(couples, tmp_path, tiny_config):
    import shutil

    root = shutil.copytree(couples, tmp_path / "data")
    runs = []
    for cache in (False, True):
        config = replace(tiny_config, augment=0.5, cache=cache)
        splits = load_splits(root, config)
        assert bool(splits["train"].caches) == cache
        runs.append(trained(splits, config)[1].steps)
    assert runs[0] == runs[1]


def test_resuming_a_finished_run_returns_it(splits, tiny_config, tmp_path, capsys):
    model, history = trained(splits, tiny_config, folder=tmp_path)
    again, told = trained(splits, tiny_config, folder=tmp_path, resume=True)
    assert "Going on with the run in" in capsys.readouterr().out
    assert asdict(told) == asdict(history)
    state, state_again = model.state_dict(), again.state_dict()
    assert all(torch.equal(state[key], state_again[key]) for key in state)


def test_a_state_is_never_overwritten_by_another_run(splits, tiny_config, tmp_path):
    trained(splits, tiny_config, folder=tmp_path)
    with pytest.raises(ValueError, match="holds the state of an earlier run: go on from it with"):
        trained(splits, tiny_config, folder=tmp_path)
    with pytest.raises(ValueError, match="has epochs = 2, not 3"):
        trained(splits, replace(tiny_config, epochs=3), folder=tmp_path, resume=True)
    other = {**splits, "train": splits["test"]}
    with pytest.raises(ValueError, match="has data = "):
        trained(other, tiny_config, folder=tmp_path, resume=True)


def test_a_full_disk_costs_the_state_not_the_run(splits, tiny_config, tmp_path, capsys):
    (tmp_path / "file").write_text("where a folder should be")
    _, history = trained(splits, tiny_config, folder=tmp_path / "file" / "run")
    assert len(history.epochs) == 2
    assert "The state could not be saved in" in capsys.readouterr().out


def test_a_run_may_go_on_elsewhere(splits, tiny_config, tmp_path, capsys):
    """On another device, in another precision, with other workers; what changed is said."""

    with pytest.raises(KeyboardInterrupt):
        trained(splits, tiny_config, folder=tmp_path, watchers=[stop_after(1)])
    config = replace(tiny_config, precision="torch", workers=1)
    _, history = trained(splits, config, folder=tmp_path, resume=True)
    said = capsys.readouterr().out
    assert "1 of 2 epochs and 0 batches done" in said
    assert "it goes on in bfloat16 by torch AMP" in said
    assert len(history.epochs) == 2


def test_bfloat16_follows_float32(splits, tiny_config):
    _, exact = trained(splits, tiny_config)
    model, rounded = trained(splits, replace(tiny_config, precision="torch"))
    assert rounded.steps != exact.steps
    first = [history.steps[0]["loss"] for history in (exact, rounded)]
    assert first[0] == pytest.approx(first[1], rel=0.2)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_apex_without_a_gpu_is_an_error(splits, tiny_config):
    with pytest.raises(ValueError, match='precision="apex" needs an NVIDIA GPU'):
        trained(splits, replace(tiny_config, precision="apex", device="cpu"))


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


def test_a_loss_that_is_no_number_stops_with_advice(splits, tiny_config):
    model = build_model(tiny_config)
    with torch.no_grad():
        model.head.lin2.weight.fill_(math.nan)
    with pytest.raises(RuntimeError, match="loss became nan; lower lr"):
        fit(model, splits["train"], splits["val"], tiny_config, progress=False)


@pytest.mark.parametrize("mode", ["logits", "loss"])
def test_both_dropout_losses_train(splits, mode, tiny_config):
    _, history = trained(splits, replace(tiny_config, epochs=1, dropout_loss=mode))
    assert math.isfinite(history.best["train_loss"])


@pytest.mark.parametrize(
    ("augmenter", "said"),
    [
        ("imgaug", "augmented by imgaug in the loader (strength 0.5)"),
        ("tensor", "augmented by tensor operations on the training device (strength 0.5)"),
    ],
)
def test_both_augmenters_train(couples, augmenter, said, tiny_config):
    config = replace(tiny_config, epochs=1, augment=0.5, augmenter=augmenter)
    splits = load_splits(couples, config)
    _, history = trained(splits, config)
    assert math.isfinite(history.best["train_loss"])
    assert said in describe_run(config, splits["train"])


def test_unknown_augmenter(couples):
    with pytest.raises(ValueError, match=r"augmenter must be one of .* not 'torch'"):
        load_splits(couples, TrainConfig.demo(augmenter="torch"))


def test_train_checkpoint_measures_and_remembers(couples, tiny_config, tmp_path, capsys):
    checkpoint = train_checkpoint(couples, tmp_path / "c", tiny_config, progress=False)
    said = capsys.readouterr().out
    assert "resnet18 (stage spp+pmt) from a random start on 24 pictures at 32 px" in said
    assert "not augmented, on cpu in float32" in said
    again = load_checkpoint(tmp_path / "c")
    assert again.config["training_data"]["kind"] == "demo drawings"
    test = CoupleFolder(couples, "test", again.transform)
    logits, labels = predict_logits(again.model, make_loader(test, 6))
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    assert again.config["metrics"]["test"]["accuracy"] == pytest.approx(accuracy)
    assert again.config["metrics"]["test"]["n"] == 6
    val = CoupleFolder(couples, "val", again.transform)
    expected = fit_temperature(*predict_logits(again.model, make_loader(val, 6)))
    assert again.config["temperature"] == pytest.approx(expected, rel=1e-3)
    assert f"Temperature {expected:.2f}, fitted on val (n = 6); threshold 0.5; photos get" in said
    assert again.abstain is None  # six pictures promise nothing
    assert again.config["threshold"] == 0.5
    assert isinstance(checkpoint.model, DeepConnection)
    assert not (tmp_path / "c.run").exists()  # a checkpoint needs no state


def test_the_confidence_from_which_on_photos_get_an_answer_is_that_of_val(capsys):
    margins = torch.cat([torch.linspace(-4, 4, 400), torch.linspace(-1, 1, 40)])
    labels = torch.cat([torch.arange(400) >= 200, torch.arange(40) < 20]).long()
    logits = torch.stack([-margins / 2, margins / 2], 1)
    chosen = calibrate(logits, labels, ("happy", "unhappy"))
    probs = (margins / chosen["temperature"]).sigmoid().numpy()
    assert chosen["abstain"] == abstain_confidence(probs, labels.numpy())
    assert 0.5 < chosen["abstain"] < 0.9
    assert f"from a confidence of {chosen['abstain']:.2f} on" in capsys.readouterr().out
    swapped = calibrate(logits.flip(1), 1 - labels, ("unhappy", "happy"))
    assert swapped == pytest.approx(chosen)


def test_without_val(couples, tiny_config, tmp_path):
    import shutil

    root = shutil.copytree(couples, tmp_path / "data", ignore=shutil.ignore_patterns("val"))
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*val; a data set is"):
        train_checkpoint(root, tmp_path / "c", tiny_config)


def stop_after(epochs):
    """A watcher that ends a run like Ctrl-C once so many epochs are done."""

    def watcher(history):
        if len(history.epochs) >= epochs:
            raise KeyboardInterrupt

    return watcher


def test_load_or_train_goes_on_where_it_was_cut_off(tmp_path, tiny_config, couples, capsys):
    with pytest.raises(KeyboardInterrupt):
        train_checkpoint(couples, tmp_path / "c", tiny_config, watchers=[stop_after(1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dclib.train.render_couples", lambda root, n: couples)
        load_or_train(tmp_path / "c", tiny_config)
    assert "1 of 2 epochs and 0 batches done" in capsys.readouterr().out


def test_load_or_train_says_which(tmp_path, tiny_config, capsys):
    folder = tmp_path / "checkpoint"
    load_or_train(folder, tiny_config, n=24, root=tmp_path / "data")
    assert "training one on 24 drawings of couples" in capsys.readouterr().out
    load_or_train(folder, tiny_config, n=24, root=tmp_path / "data")
    assert "Found the checkpoint" in capsys.readouterr().out


SMALL = ["--preset", "demo", "--image-size", "32", "--workers", "0", "--augment", "0"]


def run(*command):
    command = [sys.executable, "-m", "dclib.train", *map(str, command)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_line(couples, tmp_path):
    options = ["--stage", "spp", "--epochs", "1", "--no-cache", "--train-sizes", "32", "40"]
    done = run(couples, tmp_path / "c", *SMALL, *options, "--class-weights", "1,2")
    assert done.returncode == 0, done.stderr
    assert "n = 6" in done.stdout
    assert "at 32 and 40 px" in done.stdout
    assert load_checkpoint(tmp_path / "c").config["stage"] == "spp"


def test_batch_norm_is_chosen_for_the_device_of_the_run(splits, tiny_config, monkeypatch):
    seen = []

    def as_one(model, processes):
        seen.append(next(model.parameters()).device.type)
        raise KeyboardInterrupt

    monkeypatch.setattr("dclib.train.as_one", as_one)
    with pytest.raises(KeyboardInterrupt):
        trained(splits, replace(tiny_config, device="meta"))
    assert seen == ["meta"]


def test_processes_must_agree_on_apex():
    class Two:
        world = 2

        def total(self, *mine):
            return [a + b for a, b in zip(mine, theirs)]

    theirs = [0, 1, 0, 0]  # auto, fp32, torch, apex
    check_agreement(FullPrecision(), Two())
    theirs = [0, 0, 0, 1]
    with pytest.raises(RuntimeError, match="Apex works in some of the processes only: train with"):
        check_agreement(FullPrecision(), Two())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epochs", "0"], "epochs must be at least 1, not 0."),
        (["--clip", "-1"], "clip must be at least 0, not -1.0."),
        (["--accumulate", "0"], "accumulate must be at least 1, not 0."),
        (["--ablate", "0"], "repetitions must be at least 1, not 0."),
        (["--ablate", "--resume"], "--ablate goes on by itself and has no curves: leave out"),
    ],
)
def test_settings_that_mean_nothing(couples, tmp_path, monkeypatch, options, said):
    monkeypatch.setattr(sys, "argv", ["train", str(couples), str(tmp_path / "c"), *options])
    with pytest.raises(SystemExit, match=said):
        main()
    assert not (tmp_path / "c").exists()


def test_a_comparison_is_drawn(couples, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dclib.train.studies.train_arm", lambda *_: [1, 0, 1, 1, 0, 1])
    monkeypatch.setattr(sys, "argv", ["train", str(couples), "out", *SMALL, "--ablate", "2"])
    main()
    assert (tmp_path / "out" / "ablation.png").stat().st_size > 5000
    said = capsys.readouterr().out
    assert "Accuracy on test (demo drawings), 2 repetitions, n = 6" in said
    assert "Drawn in out/ablation.png." in said


def test_command_line_error_is_one_sentence(tmp_path):
    done = run(tmp_path / "none", tmp_path / "c")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "There is no folder" in done.stderr


def torchrun(couples, folder, *options):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone"]
    command += ["-m", "dclib.train", couples, folder, *SMALL, "--device", "cpu", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(job, seconds=600):
    """What torchrun says; one that takes longer is ended, and with it its processes."""
    try:
        return job.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        job.terminate()
        return job.communicate()


def test_two_processes_are_one(couples, tmp_path):
    """torchrun gives the losses of one process, through thawing and an uneven last batch."""
    options = ["--epochs", "2", "--freeze-epochs", "1", "--batch-size", "9", "--lr", "1e-4"]
    options += ["--clip", "1", "--class-weights", "1,2", "--resume"]
    job = torchrun(couples, tmp_path / "two", *options, "--tensorboard", tmp_path / "curves-two")
    said, errors = finish(job)
    assert job.returncode == 0, errors
    assert said.count("Training resnet18") == 1
    assert "in 2 processes in float32" in said
    curves = ["--tensorboard", tmp_path / "curves-one"]
    assert run(couples, tmp_path / "one", *SMALL, *options, *curves).returncode == 0
    one, two = (read_curves(tmp_path / f"curves-{name}") for name in ("one", "two"))
    assert len(one["step/loss"]) == len(two["step/loss"]) == 6
    # later ones differ by rounding, which the whole network amplifies; so it does with more threads
    assert two["step/loss"][:4] == pytest.approx(one["step/loss"][:4], rel=1e-3)
    assert two["epoch/val_loss"][0] == pytest.approx(one["epoch/val_loss"][0], rel=1e-3)
    assert two["epoch/val_accuracy"][0] == one["epoch/val_accuracy"][0]


def read_curves(folder):
    """Loss by step, and losses and accuracies by epoch, as TensorBoard has them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    names = [name for name in events.Tags()["scalars"] if "loss" in name or "accuracy" in name]
    return {name: [event.value for event in events.Scalars(name)] for name in names}


def test_a_dead_process_ends_the_run_with_a_state(couples, tmp_path):
    options = ["--epochs", "500", "--patience", "500", "--batch-size", "24"]
    job = torchrun(couples, tmp_path / "c", *options)
    state = tmp_path / "c.run" / "state.pt"
    deadline = time.monotonic() + 300
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    children = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True)
    if children.stdout:
        os.kill(max(map(int, children.stdout.split())), signal.SIGKILL)
    _, errors = finish(job, 600 if children.stdout else 0)
    assert job.returncode != 0
    assert "nother process of " in errors
    assert "tart again with --resume" in errors
    config = TrainConfig.demo(image_size=32, workers=0, augment=0, batch_size=24, device="cpu")
    config = replace(config, epochs=500, patience=500)
    epoch = load_state(state.parent)["epoch"]
    with pytest.raises(KeyboardInterrupt):
        trained(
            load_splits(couples, config),
            config,
            folder=state.parent,
            resume=True,
            watchers=[stop_after(epoch + 1)],
        )
    assert load_state(state.parent)["epoch"] == epoch + 1
