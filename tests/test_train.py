import errno
import math
import os
import shutil
from copy import copy
from dataclasses import asdict, replace

import pytest
import torch
from conftest import FORKSERVER
from safetensors.torch import save_file
from test_files import hold_it

from dclib.checkpoint import load_checkpoint
from dclib.data.loading import CoupleFolder, make_loader
from dclib.evaluate.calibration import abstain_confidence, fit_temperature
from dclib.evaluate.intervals import Accuracy, accuracy
from dclib.model import DeepConnection
from dclib.predict import predict_logits, score
from dclib.train import (
    TrainConfig,
    build_model,
    calibrate,
    describe_run,
    fit,
    load_or_train,
    load_splits,
    train_checkpoint,
)

TINY = TrainConfig.demo(
    image_size=32, epochs=2, batch_size=8, workers=0, augment=0, precision="fp32"
)


@pytest.fixture(scope="module")
def splits(couples):
    return load_splits(couples, TINY)


def trained(splits, config, **options):
    """A fresh model after `fit`, and its history."""
    model = build_model(config)
    history = fit(model, splits["train"], splits["val"], config, progress=False, **options)
    return model, history


@pytest.fixture(scope="module")
def finished(splits, tmp_path_factory):
    """A run of `TINY`: its model, its history and the folder with its state."""
    folder = tmp_path_factory.mktemp("finished")
    return *trained(splits, TINY, folder=folder), folder


def test_learns_a_planted_mark(fooled):
    """An obvious difference is found, on pictures the network has not seen."""
    assert fooled[1].config["metrics"]["test"]["accuracy"] >= 0.9


def test_same_seed_same_weights(splits, finished):
    model, history, _ = finished
    again, history_again = trained(splits, TINY)
    assert history.steps == history_again.steps
    state, state_again = model.state_dict(), again.state_dict()
    assert all(torch.equal(state[key], state_again[key]) for key in state)
    _, other = trained(splits, replace(TINY, epochs=1, seed=1))
    assert other.steps[0] != history.steps[0]


def test_history_and_best_epoch(splits, finished):
    model, history, _ = finished
    assert history.column("epoch") == [0, 1]
    assert history.column("lr")[0] == TINY.lr  # the first step has the full rate
    assert [row["epoch"] for row in history.steps] == [0] * 3 + [1] * 3
    for row in history.epochs:
        losses = [step["loss"] for step in history.steps if step["epoch"] == row["epoch"]]
        assert row["train_loss"] == pytest.approx(sum(losses) / 3)  # three batches of eight
        assert 0 <= row["waiting"] <= 1
        assert 0 < row["val_seconds"] < row["seconds"]
        assert row["images_per_s"] == pytest.approx(24 / (row["seconds"] - row["val_seconds"]))
        assert row["peak_memory"] > 2**26
    best = max(history.epochs, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert history.epochs[history.best_epoch] == best
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


def test_freeze_then_thaw(splits):
    """First the head alone learns, batch statistics of the backbone included; then everything."""
    config = replace(TINY, freeze_epochs=1)
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


def test_the_cache_changes_nothing(couples, tmp_path):
    root = shutil.copytree(couples, tmp_path / "data")
    runs = []
    for cache in (False, True):
        config = replace(TINY, augment=0.5, cache=cache)
        splits = load_splits(root, config)
        assert bool(splits["train"].caches) == cache
        runs.append(trained(splits, config)[1].steps)
    assert runs[0] == runs[1]


def test_resuming_a_finished_run_returns_it(splits, finished, capsys):
    model, history, folder = finished
    again, told = trained(splits, TINY, folder=folder, resume=True)
    assert f"Going on with the run in {folder}: 2 of 2 epochs done." in capsys.readouterr().out
    assert asdict(told) == asdict(history)
    state, state_again = model.state_dict(), again.state_dict()
    assert all(torch.equal(state[key], state_again[key]) for key in state)


def test_a_state_is_never_overwritten_by_another_run(splits, finished):
    folder = finished[2]
    with pytest.raises(ValueError, match="holds the state of an earlier run: go on from it with"):
        trained(splits, TINY, folder=folder)
    with pytest.raises(ValueError, match="has epochs = 2, not 3"):
        trained(splits, replace(TINY, epochs=3), folder=folder, resume=True)
    other = {**splits, "train": splits["test"]}
    with pytest.raises(
        ValueError, match="had other data: now there are 18 pictures fewer than the 30 then"
    ):
        trained(other, TINY, folder=folder, resume=True)


def test_a_run_does_not_go_on_from_other_start_weights(splits, finished, tmp_path):
    file = str(tmp_path / "start.safetensors")
    config, run = replace(TINY, weights=file, epochs=1), {"folder": tmp_path / "run"}
    save_file(build_model(TINY).state_dict(), file)
    trained(splits, config, **run)
    trained(splits, config, resume=True, **run)
    save_file(build_model(replace(TINY, seed=1)).state_dict(), file)
    with pytest.raises(ValueError, match=r"has weights = 'sha256 .*', not 'sha256 "):
        trained(splits, config, resume=True, **run)


def test_a_full_disk_costs_the_state_not_the_run(splits, tmp_path, capsys, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    _, history = trained(splits, TINY, folder=tmp_path / "run")
    assert len(history.epochs) == 2
    said = capsys.readouterr().out
    assert "The state could not be saved, and training goes on: " in said
    assert "state.pt cannot be written (No space left on device)" in said
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_said_before_the_work(couples, splits, tmp_path):
    (tmp_path / "file").write_text("where a folder should be")
    with pytest.raises(OSError, match=r"run cannot be written \(Not a directory\)"):
        trained(splits, TINY, folder=tmp_path / "file" / "run")
    with pytest.raises(OSError, match=r"c cannot be written \(Not a directory\)"):
        train_checkpoint(couples, tmp_path / "file" / "c", TINY)
    with pytest.raises(FileExistsError, match="holds something else"):
        train_checkpoint(couples, couples, TINY)


def test_another_process_trains_there(couples, splits, tmp_path, start_child, capsys):
    held, done = FORKSERVER.Event(), FORKSERVER.Event()
    child = start_child(hold_it, tmp_path / "demo.run", held, done)
    assert held.wait(60)
    busy = "Another process trains with its state in .*demo.run: wait for its end, or choose"
    with pytest.raises(RuntimeError, match=busy):
        trained(splits, TINY, folder=tmp_path / "demo.run")
    with pytest.raises(RuntimeError, match=busy):
        train_checkpoint(couples, tmp_path / "demo", TINY)
    done.set()
    child.join()


def load_from_drawings(folder):
    torch.set_num_threads(1)
    load_or_train(folder / "demo", TINY, n=24, root=folder / "data")


def test_two_notebooks_that_both_must_train_share_one_training(tmp_path, start_child):
    children = [start_child(load_from_drawings, tmp_path) for _ in range(2)]
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert load_checkpoint(tmp_path / "demo").config["training_data"]["n"]["train"] > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "demo"]


def test_a_named_checkpoint_that_is_not_there_is_never_made_of_drawings(tmp_path):
    for name in ("mine", "my-demo", "dmeo"):
        said = rf"There is no checkpoint at .*{name}\. Name the folder of yours .*checkpoints/demo"
        with pytest.raises(FileNotFoundError, match=said):
            load_or_train(tmp_path / "checkpoints" / name, TINY, n=24, root=tmp_path / "data")
    assert not any(tmp_path.iterdir())


def test_a_preset_for_drawings_on_photographs_is_said(splits):
    photographs = copy(splits["train"])
    photographs.column = lambda name: [""] * len(photographs)
    assert "WARNING: a random start is for drawn couples" in describe_run(TINY, photographs)
    assert "WARNING" not in describe_run(TINY, splits["train"])
    assert "WARNING" not in describe_run(replace(TINY, weights="imagenet"), photographs)


def test_a_run_may_go_on_elsewhere(splits, tmp_path, capsys):
    """On another device, in another precision, with other workers; what changed is said."""

    with pytest.raises(KeyboardInterrupt):
        trained(splits, TINY, folder=tmp_path, watchers=[stop_after(1)])
    config = replace(TINY, precision="torch", workers=1)
    _, history = trained(splits, config, folder=tmp_path, resume=True)
    said = capsys.readouterr().out
    assert "1 of 2 epochs done" in said
    assert "it goes on in bfloat16 by torch AMP" in said
    assert len(history.epochs) == 2


def test_bfloat16_follows_float32(splits, finished):
    exact = finished[1]
    model, rounded = trained(splits, replace(TINY, epochs=1, precision="torch"))
    assert rounded.steps[0] != exact.steps[0]
    first = [history.steps[0]["loss"] for history in (exact, rounded)]
    assert first[0] == pytest.approx(first[1], rel=0.2)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_loss_that_is_no_number_stops_with_advice(splits):
    model = build_model(TINY)
    with torch.no_grad():
        model.head.lin2.weight.fill_(math.nan)
    with pytest.raises(RuntimeError, match="loss became nan; lower lr"):
        fit(model, splits["train"], splits["val"], TINY, progress=False)


@pytest.mark.parametrize(
    ("augmenter", "said"),
    [
        ("imgaug", "augmented by imgaug in the loader (strength 0.5)"),
        ("tensor", "augmented by tensor operations on the training device (strength 0.5)"),
    ],
)
def test_both_augmenters_train(couples, augmenter, said):
    config = replace(TINY, epochs=1, augment=0.5, augmenter=augmenter)
    splits = load_splits(couples, config)
    _, history = trained(splits, config)
    assert math.isfinite(history.epochs[0]["train_loss"])
    assert said in describe_run(config, splits["train"])


def test_train_checkpoint_measures_and_remembers(couples, tmp_path, capsys):
    checkpoint = train_checkpoint(couples, tmp_path / "c", TINY, progress=False)
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


def test_what_the_network_looks_at_is_kept_in_its_checkpoint(couples, tmp_path, tiny_config):
    config = replace(tiny_config, frame="faces", frame_margin=0.2, epochs=1, freeze_norm=True)
    trained = train_checkpoint(couples, tmp_path / "c", config, progress=False)
    again = load_checkpoint(tmp_path / "c")
    assert (again.transform.frame, again.transform.margin) == ("faces", 0.2)
    settings = [
        [getattr(c.transform, n) for n in ("view", "mean", "std")] for c in (again, trained)
    ]
    assert settings[0] == settings[1]
    assert "looks at faces and couple" in str(again)
    test = CoupleFolder(couples, "test", again.transform)
    logits, labels = predict_logits(again.model, make_loader(test, 6))
    assert accuracy(logits, labels, test.groups) == Accuracy(**again.config["metrics"]["test"])


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


def stop_after(epochs):
    """A watcher that ends a run like Ctrl-C once so many epochs are done."""

    def watcher(history):
        if len(history.epochs) >= epochs:
            raise KeyboardInterrupt

    return watcher


def test_load_or_train_goes_on_where_it_was_cut_off(tmp_path, couples, capsys):
    with pytest.raises(KeyboardInterrupt):
        train_checkpoint(couples, tmp_path / "demo", TINY, watchers=[stop_after(1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dclib.train.render_couples", lambda root, n: couples)
        load_or_train(tmp_path / "demo", TINY)
    assert "1 of 2 epochs done" in capsys.readouterr().out


def test_load_or_train_says_which(tmp_path, capsys):
    folder = tmp_path / "demo"
    load_or_train(folder, TINY, n=24, root=tmp_path / "data")
    assert "training one on 24 drawings of couples" in capsys.readouterr().out
    load_or_train(folder, TINY, n=24, root=tmp_path / "data")
    assert "Found the checkpoint" in capsys.readouterr().out
