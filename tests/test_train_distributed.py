"""Two real processes that meet over loopback; what each of them ends with comes back as a file."""

import os
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from conftest import FORKSERVER

from dclib.train import build_model, fit, load_splits
from dclib.train.distributed import (
    MEETING,
    Processes,
    distribute,
    join_processes,
    leave_processes,
)


def train(place, couples, config, path):
    os.environ.update(place)
    torch.set_num_threads(1)
    model, splits = build_model(config), load_splits(couples, config)
    history = fit(model, splits["train"], splits["val"], config, path.parent / "run", True)
    random = torch.rand(1)
    torch.save((model.state_dict(), history.steps, history.column("val_loss"), random), path)
    leave_processes()


def test_two_processes_end_with_equal_weights(couples, tiny_config, tmp_path):
    """Batches of 9 cannot be shared evenly, and the last one of 6 can."""
    config = replace(tiny_config, freeze_epochs=1, batch_size=9, device="cpu")
    # the store that torchrun hosts; its port is free because nobody else chose it
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2"}
    place |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    jobs = []
    for rank in range(2):
        args = place | {"RANK": str(rank)}, couples, config, tmp_path / f"{rank}.pt"
        jobs.append(FORKSERVER.Process(target=train, args=args))
        jobs[-1].start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    (first, *told, random), (second, *told_again, random_again) = (
        torch.load(tmp_path / f"{rank}.pt") for rank in range(2)
    )
    assert all(torch.equal(first[name], value) for name, value in second.items())
    assert told == told_again
    assert len(told[0]) == 2 * 3
    assert random != random_again  # each draws dropout masks of its own
    assert (tmp_path / "run" / "state.pt").exists()


def test_alone_nothing_is_shared(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    processes, device = join_processes()
    assert processes == Processes(0, 1) and processes.first
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert processes.total(torch.arange(2)).tolist() == [0, 1]
    model = torch.nn.Linear(2, 2)
    assert distribute(model, processes, device) is model
    leave_processes()
    assert not dist.is_initialized()


def test_fewer_gpus_than_processes_is_one_sentence(monkeypatch):
    place = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("dclib.train.distributed.pick_device", torch.device)
    with pytest.raises(ValueError, match="starts 4 processes on this machine, which has 1 GPU"):
        join_processes("cuda")
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("left_over", "alone"),
    [
        ({"WORLD_SIZE": "1", "RANK": "3"}, True),
        ({"WORLD_SIZE": "", "MASTER_ADDR": "127.0.0.1"}, True),
        ({"WORLD_SIZE": "2"}, False),
        ({"WORLD_SIZE": "2", "RANK": "0"}, False),
        ({"WORLD_SIZE": "two", "RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, False),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, False),
        ({"WORLD_SIZE": "-2", "RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, False),
    ],
)
def test_what_another_program_left_in_the_environment_is_said_at_once(
    left_over, alone, monkeypatch
):
    for name in ("RANK", "WORLD_SIZE", *MEETING):
        monkeypatch.delenv(name, raising=False)
    for name, value in left_over.items():
        monkeypatch.setenv(name, value)
    if alone:
        assert join_processes("cpu")[0] == Processes()
    else:
        with pytest.raises(ValueError, match="with torchrun, or unset WORLD_SIZE to train in one"):
            join_processes("cpu")
    assert not dist.is_initialized()
