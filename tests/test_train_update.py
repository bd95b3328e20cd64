"""One update, with a precision and processes that only pass things on."""

import copy
from dataclasses import replace

import pytest
import torch

from dclib.data.loading import make_loader
from dclib.train import build_model, fit, load_splits
from dclib.train.amp import FullPrecision
from dclib.train.distributed import Processes
from dclib.train.loop import Updater, part_of


@pytest.fixture
def config(tiny_config):
    return replace(tiny_config, cache=False, weight_decay=0.0)


@pytest.fixture
def splits(couples, config):
    return load_splits(couples, config)


def updater(splits, config, precision=None):
    return Updater(
        build_model(config), splits["train"], config, precision or FullPrecision(), Processes()
    )


class Watched(FullPrecision):
    """Keeps the gradients of every step instead of taking it."""

    def __init__(self):
        self.gradients = []

    def step(self, optimizer):
        groups = [group["params"] for group in optimizer.param_groups]
        self.gradients.append([p.grad.clone() for params in groups for p in params])


def gradients(splits, config, training=False):
    precision = Watched()
    update = updater(splits, config, precision)
    update.begin(0)
    update.model.train(training)  # in eval mode pictures do not see each other
    images, labels = next(iter(make_loader(splits["train"], 11, shuffle=True)))
    sums = update(images, labels, len(labels), 1.0)
    return precision.gradients[0], sums


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("weights", [None, "1,3"])
def test_parts_of_a_batch_add_up_to_it(splits, config, parts, weights):
    config = replace(config, class_weights=weights)
    whole, sums = gradients(splits, config)
    in_parts, sums_of_parts = gradients(splits, replace(config, accumulate=parts))
    assert torch.allclose(sums, sums_of_parts, rtol=1e-4)
    for a, b in zip(whole, in_parts):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_gradients_are_those_of_five_lines(splits, config):
    precision = Watched()
    update = updater(splits, replace(config, lr=0.01, dropout_loss="loss"), precision)
    model = copy.deepcopy(update.model)
    update.begin(0)
    images, labels = next(iter(make_loader(splits["train"], 8)))
    torch.manual_seed(5)
    loss, right = update(images, labels, 8, 0.5)
    torch.manual_seed(5)
    logits = model.train().sample_logits(images)
    losses = [torch.nn.functional.cross_entropy(sample, labels) for sample in logits]
    torch.stack(losses).mean().backward()
    assert loss.item() / 8 == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert right == (logits.mean(0).argmax(1) == labels).sum()
    expected = {id(p): q.grad for p, q in zip(update.model.parameters(), model.parameters())}
    groups = update.optimizer.param_groups
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


def test_parts_are_resumed(splits, config):
    update = updater(splits, config)
    update.parts = 4
    for accumulate, parts in ((1, 4), (8, 8)):  # more parts may be what the run needs to go on
        again = updater(splits, replace(config, accumulate=accumulate))
        again.load(update.state())
        assert again.parts == parts


def test_parts_of_tuples():
    images, keys = torch.arange(5), torch.arange(10).view(5, 2)
    parts = [part_of((images, keys), part, 2) for part in range(2)]
    assert [part[0].tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    assert torch.equal(torch.cat([part[1] for part in parts]), keys)
    assert torch.equal(part_of(images, 1, 2), parts[1][0])
