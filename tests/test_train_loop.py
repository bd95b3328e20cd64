"""One update, and what a run tells: speed, waiting, memory."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dclib.data.loading import make_loader
from dclib.train import build_model, fit, load_splits
from dclib.train.amp import Precision
from dclib.train.distributed import Processes
from dclib.train.loop import History, Stopwatch, Training, peak_memory


@pytest.fixture
def config(tiny_config):
    return replace(tiny_config, cache=False, weight_decay=0.0)


@pytest.fixture
def splits(couples, config):
    return load_splits(couples, config)


def training(splits, config, precision):
    device, sets = torch.device("cpu"), (splits["train"], splits["val"])
    return Training(build_model(config), *sets, config, precision, Processes(), device, None)


class Watched(Precision):
    """Keeps the gradients of every step instead of taking it."""

    def __init__(self):
        super().__init__()
        self.gradients = []

    def step(self, optimizer):
        groups = [group["params"] for group in optimizer.param_groups]
        self.gradients.append([p.grad.clone() for params in groups for p in params])


def gradients(splits, config):
    precision = Watched()
    run = training(splits, config, precision)
    run.freeze()
    run.model.eval()  # in eval mode pictures do not see each other
    images, labels = next(iter(make_loader(splits["train"], 11, shuffle=True)))
    sums = run.step(images, labels, len(labels), 1.0)
    return precision.gradients[0], sums


def test_the_rate_falls_like_torchs_cosine(splits, config):
    run = training(splits, replace(config, epochs=4), Precision())
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for run.epoch in range(4):
        for number in range(3):
            expected = reference.get_last_lr()[0]
            assert run.rate_factor(number) == pytest.approx(expected, abs=1e-9)
            optimizer.step()
            reference.step()
    assert run.rate_factor(3) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({}, [0, 0, 0]),
        ({"freeze_stages": 2, "freeze_epochs": 2}, [5, 5, 2]),
        ({"freeze_stages": 5, "freeze_epochs": 1}, [5, 5, 5]),
    ],
)
def test_which_epochs_are_frozen(splits, config, changes, frozen):
    run = training(splits, replace(config, **changes), Precision())
    for run.epoch in range(3):
        run.freeze()
        assert run.frozen == frozen[run.epoch]
        assert run.model.backbone.conv1.weight.requires_grad != run.frozen


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_parts_of_a_batch_add_up_to_it(splits, config, parts):
    whole, sums = gradients(splits, config)
    in_parts, sums_of_parts = gradients(splits, replace(config, accumulate=parts))
    assert torch.allclose(sums, sums_of_parts, rtol=1e-4)
    for a, b in zip(whole, in_parts):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("mode", ["loss", "logits"])
def test_gradients_are_those_of_five_lines(splits, config, mode):
    precision = Watched()
    run = training(splits, replace(config, lr=0.01, dropout_loss=mode), precision)
    model = copy.deepcopy(run.model)
    run.freeze()
    images, labels = next(iter(make_loader(splits["train"], 8)))
    torch.manual_seed(5)
    loss, right = run.step(images, labels, 8, 0.5)
    torch.manual_seed(5)
    logits = model.train().sample_logits(images)
    samples = logits if mode == "loss" else logits.mean(0, keepdim=True)
    losses = [torch.nn.functional.cross_entropy(sample, labels) for sample in samples]
    torch.stack(losses).mean().backward()
    assert loss.item() / 8 == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert right == (logits.mean(0).argmax(1) == labels).sum()
    expected = {id(p): q.grad for p, q in zip(run.model.parameters(), model.parameters())}
    groups = run.optimizer.param_groups
    assert {group["lr"] for group in groups} == {0.005}
    parameters = [p for group in groups for p in group["params"]]
    for parameter, gradient in zip(parameters, precision.gradients[0], strict=True):
        wanted = expected[id(parameter)]
        assert (gradient - wanted).norm() <= 5e-3 * wanted.norm()


def test_gradients_are_clipped_together(splits, config):
    free, _ = gradients(splits, config)
    norm = torch.stack([g.norm() for g in free]).norm()
    clipped, _ = gradients(splits, replace(config, clip=norm.item() / 10))
    for a, b in zip(free, clipped):
        assert torch.allclose(a / 10, b, rtol=1e-3, atol=1e-7)


def out_of_memory_above(monkeypatch, model, n):
    """Let the model's forward pass fail as a full GPU does."""
    real, seen = model.sample_logits, []

    def sample_logits(images):
        seen.append(len(images))
        if len(images) > n:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return real(images)

    monkeypatch.setattr(model, "sample_logits", sample_logits)
    return seen


def test_out_of_memory_goes_on_in_smaller_parts(monkeypatch, splits, config, capsys):
    model = build_model(config)
    seen = out_of_memory_above(monkeypatch, model, 3)
    history = fit(model, splits["train"], splits["val"], config, progress=False)
    assert seen[:6] == [8, 4, 2, 2, 2, 2]
    assert set(seen[3:]) == {2}
    said = capsys.readouterr().out
    assert "Out of memory with 8 pictures at once: from now on batches are worked off in 2" in said
    assert "Out of memory with 4 pictures at once: from now on batches are worked off in 4" in said
    small = build_model(config)
    config = replace(config, accumulate=4)
    expected = fit(small, splits["train"], splits["val"], config, progress=False)
    assert history.steps == expected.steps
    state = small.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_out_of_memory_with_two_pictures_is_the_end(monkeypatch, splits, config):
    model = build_model(config)
    out_of_memory_above(monkeypatch, model, 1)
    with pytest.raises(RuntimeError, match="8 pictures in 4 parts do not fit into the memory of"):
        fit(model, splits["train"], splits["val"], config, progress=False)


def test_parts_are_resumed(splits, config, tmp_path):
    config = replace(config, epochs=1)
    for accumulate, parts in ((1, 4), (8, 8)):  # more parts may be what the run needs to go on
        run = training(splits, config, Precision())
        run.folder, run.parts = tmp_path, 4
        run.save()
        again = training(splits, replace(config, accumulate=accumulate), Precision())
        again.folder = tmp_path
        assert again.load() and again.parts == parts


def test_parts_of_a_batch_that_is_augmented_on_the_device(couples, config):
    config = replace(config, augment=0.5, augmenter="tensor", accumulate=2)
    splits = load_splits(couples, config)
    run = training(splits, config, Precision())
    batch, labels = next(iter(make_loader(splits["train"], 5)))
    images, targets = zip(*run.divide(batch, labels, 5))
    assert [len(part) for part in images] == [3, 2]
    assert torch.equal(torch.cat(images), run.finish(batch, "cpu"))
    assert torch.equal(torch.cat(targets), labels)


ROW = {
    "epoch": 0,
    "lr": 1e-3,
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


def test_the_stopwatch_counts_the_time_before_each_batch(monkeypatch):
    moments = [0, 6, 8, 14, 16, 17]  # made, twice arrived and done, stopped
    clock = SimpleNamespace(perf_counter=iter(moments).__next__)
    monkeypatch.setattr("dclib.train.loop.time", clock)
    watch = Stopwatch("cpu")
    for _ in range(2):
        watch.arrived()
        watch.done()
    assert watch.stop() == (17, 12)


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
    for _ in range(2):
        watch.arrived()
        watch.done()
    assert watch.stop() == (pytest.approx(2.0), pytest.approx(0.3))


def test_peak_memory_is_bytes_of_this_process():
    before = peak_memory("cpu")
    assert 2**26 < before < 2**37
    block = torch.ones(2**26)  # 256 MiB
    assert peak_memory("cpu") >= before
    del block
