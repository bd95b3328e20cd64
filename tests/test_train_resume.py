import itertools
import os
import pickle
import random
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dclib.train import TrainConfig, build_model, fit, load_splits
from dclib.train.amp import FullPrecision
from dclib.train.distributed import Processes
from dclib.train.loop import Training
from dclib.train.resume import (
    PREVIOUS,
    STATE,
    check_same_run,
    drop_damaged,
    forget_state,
    load_state,
    random_state,
    save_state,
    set_random_state,
)

KILLS = int(os.environ.get("DCLIB_KILLS", "4"))  # more, for an afternoon


@pytest.fixture
def states(tmp_path):
    for epoch in (1, 2):
        save_state(tmp_path, {"epoch": epoch, "weights": torch.full((4000,), float(epoch))})
    return tmp_path


def cut(path):
    path.write_bytes(path.read_bytes()[:-2000])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class HalfBlind(Processes):
    """Two processes of which one finds no state."""

    def total(self, *numbers):
        return [1.0]


def test_all_processes_must_see_the_state(couples, tiny_config, tmp_path):
    train, val, _ = load_splits(couples, tiny_config).values()
    rest = tiny_config, FullPrecision(), HalfBlind(0, 2), torch.device("cpu"), tmp_path
    training = Training(build_model(tiny_config), train, val, *rest)
    with pytest.raises(ValueError, match="All processes must see the same folder"):
        training.load()


def test_what_is_saved_comes_back(tmp_path):
    state = {"a": torch.arange(3), "b": [1.5, None, (2, "x")], "c": {"d": True}}
    save_state(tmp_path / "new", state)
    again = load_state(tmp_path / "new")
    assert torch.equal(again.pop("a"), state.pop("a"))
    assert again == state
    assert load_state(tmp_path / "nowhere") is None


@pytest.mark.parametrize("harm", [cut, flip_a_bit, lambda path: path.write_bytes(b"")])
def test_a_damaged_state_is_named_and_the_one_before_is_taken(states, harm, capsys):
    harm(states / STATE)
    assert load_state(states)["epoch"] == 1
    assert "state.pt is damaged and not used" in capsys.readouterr().out
    harm(states / PREVIOUS)
    with pytest.raises(ValueError, match="delete the folder and begin again"):
        load_state(states)


def test_a_kill_between_the_two_renames_leaves_the_one_before(states):
    (states / STATE).rename(states / PREVIOUS)
    assert load_state(states)["epoch"] == 2


def test_after_a_damaged_state_saving_keeps_the_whole_one(states):
    """Killed between its two renames, it would otherwise leave the damaged one only."""
    flip_a_bit(states / STATE)
    drop_damaged(states)
    with pytest.raises(RuntimeError, match="killed"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", kill)
        save_state(states, {"epoch": 3})
    assert load_state(states)["epoch"] == 1
    drop_damaged(states)
    assert load_state(states)["epoch"] == 1


def kill(*_):
    raise RuntimeError("killed")


def test_a_half_written_state_is_never_read(states):
    (states / (STATE + ".unfinished")).write_bytes(b"half")
    assert load_state(states)["epoch"] == 2
    save_state(states, {"epoch": 3})
    assert sorted(path.name for path in states.iterdir()) == [PREVIOUS, STATE]


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
    told = {"lr": 1e-3, "device": "cpu", "data": "a"}
    check_same_run(tmp_path, told, told | {"device": "cuda"})
    with pytest.raises(ValueError, match=r"has lr = 0.001, not 0.01: use its settings"):
        check_same_run(tmp_path, told, told | {"lr": 1e-2})
    with pytest.raises(ValueError, match="has data = 'a', not 'b'"):
        check_same_run(tmp_path, told, told | {"data": "b"})
    with pytest.raises(ValueError, match="has clip = None, not 1"):
        check_same_run(tmp_path, told, told | {"clip": 1})


def test_random_numbers_go_on_where_they_were(tmp_path):
    def draw():
        return random.random(), np.random.rand(), torch.rand(2).tolist(), random.gauss(0, 1)

    draw()
    save_state(tmp_path, random_state())
    expected = draw()
    draw()
    set_random_state(load_state(tmp_path))
    assert draw() == expected


def train(root, folder, out):
    """A run of seconds that saves after every step; one process of several in `test_kills`."""
    small = {"image_size": 32, "epochs": 4, "batch_size": 8, "workers": 0, "cache": False}
    recipe = {"freeze_epochs": 1, "train_sizes": (32, 48), "augmenter": "tensor", "accumulate": 2}
    recipe |= {"class_weights": "balanced", "lr_decay": 0.5, "clip": 1.0, "save_minutes": 0}
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


def test_kills(couples, start_child, tmp_path):
    """However often and whenever a run is killed, its weights come out bit by bit the same."""

    def start(run):
        return start_child(train, couples, run, run / "out.safetensors")

    reference = tmp_path / "undisturbed"
    process, begun = start(reference), time.monotonic()
    process.join()
    seconds, kills, rng = time.monotonic() - begun, 0, random.Random(0)
    expected, told = outcome(reference / "out.safetensors")
    for number in itertools.count():
        if kills >= KILLS:
            break
        run, before = tmp_path / f"killed-{number}", kills
        while not (run / "out.safetensors.txt").exists():
            process = start(run)
            process.join(rng.uniform(0.05, 0.6) * seconds if kills < KILLS else None)
            if process.exitcode is None:
                process.kill()  # SIGKILL
                process.join()
                kills += 1
            else:
                assert process.exitcode == 0
        found, told_again = outcome(run / "out.safetensors")
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert told_again == told
        if kills == before:
            seconds /= 2  # it was faster than the one that was timed
