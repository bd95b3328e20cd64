import os
import pickle
import signal
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from dclib.train import TrainConfig, build_model, fit, load_splits, loop
from dclib.train.resume import (
    PREVIOUS,
    STATE,
    check_same_run,
    forget_state,
    has_state,
    load_state,
    save_state,
)


@pytest.fixture
def states(tmp_path):
    for epoch in (1, 2):
        save_state(tmp_path, {"epoch": epoch, "weights": torch.full((4000,), float(epoch))})
    return tmp_path


def cut(path):
    path.write_bytes(path.read_bytes()[:-2000])


def test_what_is_saved_comes_back(tmp_path):
    state = {"a": torch.arange(3), "b": [1.5, None, (2, "x")], "c": {"d": True}}
    save_state(tmp_path / "new", state)
    again = load_state(tmp_path / "new")
    assert torch.equal(again.pop("a"), state.pop("a"))
    assert again == state
    assert load_state(tmp_path / "nowhere") is None


@pytest.mark.parametrize("harm", [cut, lambda path: path.write_bytes(b"")])
def test_a_damaged_state_is_named_and_the_one_before_is_taken(states, harm, capsys):
    harm(states / STATE)
    assert load_state(states)["epoch"] == 1
    assert "state.pt is damaged and not used" in capsys.readouterr().out
    save_state(states, {"epoch": 3})
    harm(states / STATE)
    assert load_state(states)["epoch"] == 1  # the damaged one has not pushed it out
    harm(states / PREVIOUS)
    with pytest.raises(ValueError, match="move that folder away, or choose another"):
        load_state(states)


def test_a_kill_between_the_two_renames_leaves_the_one_before(states):
    (states / STATE).rename(states / PREVIOUS)
    assert load_state(states)["epoch"] == 2


def test_pickled_code_is_not_run(states, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"epoch": Trap()}, states / STATE)
    assert load_state(states)["epoch"] == 1
    (states / STATE).write_bytes(pickle.dumps(Trap()))
    assert load_state(states)["epoch"] == 1
    assert not (tmp_path / "trapped").exists()


def test_forgetting_removes_the_empty_folder_only(states):
    (states / "notes.txt").write_text("mine")
    forget_state(states)
    assert [path.name for path in states.iterdir()] == ["notes.txt"]
    (states / "notes.txt").unlink()
    forget_state(states)
    forget_state(states)
    assert not states.exists()


def test_another_run_is_named(tmp_path):
    told = {"lr": 1e-3, "device": "cpu", "data": {"n": 36, "sha256": "a"}}
    check_same_run(tmp_path, told, told | {"device": "cuda"})
    with pytest.raises(ValueError, match=r"has lr = 0.001, not 0.01. Use its settings"):
        check_same_run(tmp_path, told, told | {"lr": 1e-2})
    for n, said in (
        (48, "now there are 12 pictures more than the 36 then"),
        (35, "1 pictures fewer than"),
        (36, "there are 36 pictures now, but not the same as then"),
    ):
        with pytest.raises(ValueError, match=said):
            check_same_run(tmp_path, told, told | {"data": {"n": n, "sha256": "b"}})
    with pytest.raises(ValueError, match="has clip = None, not 1"):
        check_same_run(tmp_path, told, told | {"clip": 1})


def train(root, folder, out):
    """A run of seconds; one process of several in the tests below."""
    small = {"image_size": 32, "epochs": 4, "batch_size": 8, "workers": 0, "cache": False}
    recipe = {"freeze_epochs": 1, "augmenter": "tensor", "accumulate": 2}
    recipe |= {"lr_decay": 0.5, "clip": 1.0}
    config = TrainConfig.demo(**small | recipe)
    splits = load_splits(root, config)
    model = build_model(config)
    history = fit(
        model, splits["train"], splits["val"], config, folder, resume=True, progress=False
    )
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, out)
    rows = [{k: v for k, v in row.items() if "loss" in k or "acc" in k} for row in history.epochs]
    (out.parent / (out.name + ".txt")).write_text(repr((rows, history.steps)))


def outcome(path):
    """Weights and history that `train` left."""
    return load_file(path), path.with_name(path.name + ".txt").read_text()


def train_and_stop(root, folder, out, epoch):
    """`train` that stands still once it has saved the state after so many epochs."""
    save = loop.save_state

    def save_and_wait(folder, state):
        save(folder, state)
        if state["epoch"] == epoch:
            time.sleep(600)

    loop.save_state = save_and_wait
    train(root, folder, out)


def test_killed_after_each_epoch_a_run_ends_with_the_same_weights(couples, start_child, tmp_path):
    start_child(train, couples, tmp_path / "whole", tmp_path / "whole" / "out").join()
    run = tmp_path / "killed"
    for epoch in (1, 2, 3):
        process = start_child(train_and_stop, couples, run, run / "out", epoch)
        while process.is_alive() and not (has_state(run) and load_state(run)["epoch"] == epoch):
            time.sleep(0.05)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    start_child(train, couples, run, run / "out").join()
    (expected, told), (found, told_again) = (
        outcome(tmp_path / name / "out") for name in ("whole", "killed")
    )
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert told_again == told
