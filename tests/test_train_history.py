import re
from types import SimpleNamespace

import pytest
import torch

from dclib.train.loop import History, Stopwatch, TensorBoard, peak_memory

ROW = {
    "epoch": 0,
    "lr": 1e-3,
    "size": 32,
    "train_loss": 0.7,
    "train_accuracy": 0.5,
    "val_loss": 0.6,
    "val_accuracy": 0.75,
    "seconds": 12.0,
    "val_seconds": 2.0,
    "images_per_s": 96.0,
    "waiting": 0.25,
    "peak_memory": 3 * 2**30,
}


def test_a_line_tells_of_speed_waiting_and_memory():
    line = str(History([ROW]))
    assert line.startswith("epoch 1: loss 0.700 (val 0.600), accuracy 0.500 (val 0.750)")
    assert "96 images/s, waited for pictures 25% of the time, peak memory 3.0 GiB" in line
    assert "memory" not in str(History([ROW | {"peak_memory": 0}]))


def set_clock(monkeypatch, moments):
    clock = SimpleNamespace(perf_counter=iter(moments).__next__)
    monkeypatch.setattr("dclib.train.loop.time", clock)


def test_the_stopwatch_counts_the_time_before_each_batch(monkeypatch):
    moments = [0, 6, 8, 14, 16, 17]  # resume, twice arrived and done, pause
    moments += [50, 51, 53]  # after saving, which is not training: resume, arrived, pause
    set_clock(monkeypatch, moments)
    watch = Stopwatch("cpu")
    watch.resume()
    for _ in range(2):
        watch.arrived()
        watch.done()
    assert watch.pause() == (17, 12)
    watch.resume()
    watch.arrived()
    assert watch.pause() == (20, 13)


def test_a_resumed_stopwatch_goes_on(monkeypatch):
    set_clock(monkeypatch, [0, 2])
    watch = Stopwatch("cpu", seconds=10, waited=4)
    watch.resume()
    assert watch.pause() == (12, 4)


class Event:
    """A GPU's clock: every event happens a given time after the one before."""

    times, clock = [], 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        Event.clock += Event.times.pop(0)
        self.at = Event.clock

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return end.at - self.at  # milliseconds


def test_on_a_gpu_its_own_clock_counts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    Event.times = [0, 300, 700, 0, 1000, 0]  # start, arrived, done, arrived at once, done, pause
    watch = Stopwatch("cuda:0")
    watch.resume()
    for _ in range(2):
        watch.arrived()
        watch.done()
    assert watch.pause() == (pytest.approx(2.0), pytest.approx(0.3))


def test_peak_memory_is_bytes_of_this_process():
    before = peak_memory("cpu")
    assert 2**26 < before < 2**37
    block = torch.ones(2**26)  # 256 MiB
    assert peak_memory("cpu") >= before
    del block


def test_tensorboard_gets_every_step_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history, board = History(), TensorBoard(tmp_path)
    for step in range(4):
        history.steps.append({"epoch": 0, "lr": 0.1, "loss": float(step)})
        if step % 2:
            board(history)
    history.epochs.append(ROW)
    board(history)
    TensorBoard(tmp_path)(history)  # a resumed run
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("step/loss")] == [(i, i) for i in range(4)]
    assert events.Scalars("epoch/val_accuracy")[0].value == 0.75


def test_without_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install tensorboard")):
        TensorBoard(tmp_path)
