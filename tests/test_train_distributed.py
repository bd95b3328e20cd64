"""Real processes that meet over loopback; what each of them finds comes back as a file."""

import copy
import os
import signal
import time
import traceback
import warnings
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import FORKSERVER
from torch import nn

from dclib.model import DeepConnection
from dclib.train import distributed
from dclib.train.distributed import (
    Processes,
    as_one,
    distribute,
    explain_lost_process,
    join_processes,
    leave_processes,
)

BATCHES = (6, 5, 7, 4)  # rows of the steps; 5 and 7 cannot be shared evenly
ALONE = Processes(), torch.device("cpu")


def start(world, work, folder, patience=60):
    """`world` processes that call work(processes, device) and leave what it returns in files.

    Returns the processes and where they meet, which must live as long as they do.
    """
    # the store that torchrun hosts; its port is free because nobody else chose it
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    places |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": str(world)}
    jobs, meet = [], FORKSERVER.Barrier(world)
    for rank in range(world):
        place = places | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        args = place, work, folder / f"{rank}.pt", patience, meet
        jobs.append(FORKSERVER.Process(target=child, args=args))
        jobs[-1].start()
    return jobs, (store, meet)


def child(place, work, path, patience, meet):
    os.environ.update(place)
    distributed.PATIENCE = timedelta(seconds=patience)
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    meet.wait(300)  # the patience is for what comes now, not for imports
    try:
        result = work(*join_processes("cpu"))
    except Exception:
        result = {"trace": traceback.format_exc()}
    torch.save(result, path)
    leave_processes()


def results(jobs, folder, seconds=600):
    """What each process returned, None for one that was killed."""
    for job in jobs:
        job.join(seconds)
        job.kill()
        job.join()
    paths = [folder / f"{rank}.pt" for rank in range(len(jobs))]
    return [torch.load(path) if path.exists() else None for path in paths]


# What the processes do


class Samples(nn.Module):
    """The network as training calls it: images -> logits of every mask."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model.sample_logits(images)


def train(processes, device, dtype=torch.float64, frozen=False, lr=1e-3):
    """Steps with Adam on batches of several sizes. Everything that must not depend on `world`."""
    torch.manual_seed(processes.rank)  # only the first process's weights count
    model = DeepConnection("spp+pmt", "resnet18", weights=None, levels=(2, 1)).to(dtype)
    model.freeze_backbone(frozen)
    network = distribute(Samples(model), processes, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    report = {"losses": [], "gradients": [], "logits": [], "random": []}
    with as_one(model, processes):
        for n in BATCHES:
            images = torch.randn(n, 3, 32, 32, dtype=dtype, generator=generator)
            labels = torch.randint(2, (n,), generator=generator)
            logits = network(processes.share(images))
            targets = processes.share(labels).repeat(len(logits))
            loss = F.cross_entropy(logits.flatten(0, 1), targets, reduction="sum") / len(logits) / n
            optimizer.zero_grad()
            (loss * processes.world).backward()
            report["gradients"].append(
                digest(p.grad for p in model.parameters() if p.requires_grad)
            )
            report["losses"] += processes.total(loss.item())
            report["logits"].append(processes.gather(logits.detach().transpose(0, 1).contiguous()))
            report["random"].append(torch.get_rng_state())
            optimizer.step()
    report["state"] = digest(model.state_dict().values())
    return report


def digest(tensors):
    """Norm and a weighted sum of every tensor, which no change of its elements leaves alone."""
    rows = []
    for tensor in tensors:
        flat = tensor.double().flatten()
        rows.append([flat.norm(), flat @ torch.arange(1.0, 1 + len(flat)).sin().double()])
    return torch.tensor(rows)


def batch_norm_cases():
    """(layer, whole input, rows of each process) with odd shapes, splits and settings."""
    draw = torch.Generator().manual_seed(1)
    for i, n_spatial in enumerate([0, 2, 1, 3, 2, 0, 2, 2]):
        kind = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
        channels = 1 + i % 4
        layer = kind[n_spatial](
            channels,
            momentum=(0.1, None, 0.7)[i % 3],
            affine=i != 4,
            track_running_stats=i != 6,
            eps=10.0 ** -(2 + i),
        ).double()
        if layer.affine:
            nn.init.normal_(layer.weight, generator=draw)
            nn.init.normal_(layer.bias, generator=draw)
        rows = [1 + (5 * i + 3 * rank) % 4 for rank in range(dist.get_world_size())]
        shape = (sum(rows), channels, *[2 + i % 2] * n_spatial)
        yield layer, torch.randn(*shape, dtype=torch.float64, generator=draw) * 3 + 5, rows


def largest_batch_norm_error(processes):
    """Of outputs, gradients and running statistics in two steps, against torch on the whole."""
    worst = 0.0
    for layer, whole, rows in batch_norm_cases():
        ours = copy.deepcopy(layer)
        part = whole.split(rows)[processes.rank].clone().requires_grad_()
        whole.requires_grad_()
        weights = torch.linspace(-1, 2, whole.numel(), dtype=whole.dtype).view_as(whole)
        own_weights = weights.split(rows)[processes.rank]
        for _ in range(2):
            with as_one(ours, processes):
                output = ours(part)
            (output.pow(2) * own_weights).sum().backward()
            wanted = layer(whole)
            (wanted.pow(2) * weights).sum().backward()
        pairs = [(output, wanted.split(rows)[processes.rank])]
        pairs.append((part.grad, whole.grad.split(rows)[processes.rank]))
        pairs += zip(ours.buffers(), layer.buffers())
        for parameter, reference in zip(ours.parameters(), layer.parameters()):
            dist.all_reduce(parameter.grad)
            pairs.append((parameter.grad, reference.grad))
        worst = max(worst, *((a - b).abs().max().item() for a, b in pairs))
    return worst


def gathered(processes):
    """Wholes of 0 to 7 rows after `share` and `gather`, as pairs; and a refused one."""
    pairs = []
    for n in range(8):
        for whole in (torch.arange(n), torch.randn(n, 2, generator=torch.manual_seed(n)).exp()):
            pairs.append((whole, processes.gather(processes.share(whole))))
    try:
        processes.gather(torch.zeros(processes.rank))  # the first has fewest
    except ValueError as error:
        return pairs, str(error)
    return pairs, None


def layers_of(model):
    """Every module with its class, mode and tensors, by identity."""
    tensors = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    return [(name, id(m), type(m), m.training) for name, m in model.named_modules()], tensors


def left_as_they_were(processes):
    """Whether layers are the same objects after `as_one`, after an error in it, too."""
    model = DeepConnection(backbone="resnet18", weights=None, levels=(1,))
    model.freeze_backbone()
    before, state = layers_of(model), copy.deepcopy(model.state_dict())
    with pytest.raises(KeyError), as_one(model, processes):
        inside = layers_of(model)
        model.train()(processes.share(torch.randn(6, 3, 32, 32)))
        raise KeyError
    same = {k for k, value in model.state_dict().items() if torch.equal(value, state[k])}
    changed = sorted(state.keys() - same)
    return before == layers_of(model) and before != inside, changed


def evaluated_apart(processes):
    """Eval mode inside `as_one` needs no other process: only the first one calls the network."""
    model = DeepConnection(backbone="resnet18", weights=None, levels=(1,)).eval()
    images = torch.randn(2, 3, 32, 32)
    wanted = model(images)
    with as_one(model, processes):
        return not processes.first or torch.equal(model(images), wanted)


def all_checks(processes, device):
    again, _ = join_processes("cpu")
    pairs, refusal = gathered(processes)
    if processes.first:
        time.sleep(0.5)
    came = time.monotonic()  # one clock for all processes
    processes.wait()
    left = time.monotonic()
    return {
        "processes": (processes.rank, processes.world, again == processes, str(device)),
        "total": processes.total(1, 0.25 * processes.rank),
        "came": came,
        "left_wait": left,
        "gathered": pairs,
        "refusal": refusal,
        "batch_norm": largest_batch_norm_error(processes),
        "left": left_as_they_were(processes),
        "evaluated": evaluated_apart(processes),
        "exact": train(processes, device),
        "single": train(processes, device, torch.float32)["losses"][0],
        "head": train(processes, device, torch.float32, frozen=True, lr=1e-4)["losses"],
    }


def prepare_longer_than_patience(processes, device):
    if processes.first:
        time.sleep(4)
    processes.wait()
    return {"total": processes.total(1)}


def die_in_step_two(processes, device):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    network = distribute(model, processes, device)
    with as_one(model, processes):
        network(torch.randn(2, 3)).sum().backward()
        if processes.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return lost(lambda: network(torch.randn(2, 3)).sum().backward())


def hang(processes, device):
    if processes.rank == 1:
        time.sleep(10)
        return {}
    return lost(lambda: processes.total(0))


def lost(act):
    """What is said of the error that `act` raises, and after how many seconds."""
    started = time.monotonic()
    with pytest.raises(RuntimeError) as raised:
        act()
    return {"said": explain_lost_process(raised.value), "after": time.monotonic() - started}


@pytest.fixture(scope="module", params=[2, 3])
def reports(request, tmp_path_factory):
    """What 2 and 3 processes found, one dict a process."""
    folder = tmp_path_factory.mktemp("reports")
    jobs, _place = start(request.param, all_checks, folder)
    found = results(jobs, folder)
    for report in found:
        assert report, "a process was killed or needed too long"
        assert "trace" not in report, report["trace"]
    return found


@pytest.fixture(scope="module")
def one():
    single = train(*ALONE, torch.float32)["losses"][0]
    head = train(*ALONE, torch.float32, frozen=True, lr=1e-4)["losses"]
    return train(*ALONE) | {"single": single, "head": head}


def test_processes_know_their_rank_and_joining_twice_is_joining_once(reports):
    world = len(reports)
    assert [r["processes"] for r in reports] == [(i, world, True, "cpu") for i in range(world)]


def test_totals_are_the_same_sums_everywhere(reports):
    world = len(reports)
    wanted = [world, 0.25 * sum(range(world))]
    assert all(report["total"] == wanted for report in reports)


def test_all_wait_for_the_last(reports):
    last = max(report["came"] for report in reports)
    assert last - min(report["came"] for report in reports) > 0.1
    assert all(report["left_wait"] > last for report in reports)


def test_gather_undoes_share_for_uneven_and_empty_parts(reports):
    for report in reports:
        assert len(report["gathered"]) == 16
        for whole, again in report["gathered"]:
            assert again.dtype == whole.dtype and torch.equal(again, whole)


def test_gather_refuses_parts_whose_order_it_cannot_know(reports):
    rows = list(range(len(reports)))
    for report in reports:
        assert f"{rows} rows, which are not the shares of {sum(rows)}" in report["refusal"]


def test_batch_norm_of_parts_equals_torchs_on_the_whole(reports):
    """Outputs, gradients, running statistics; 1 to 3 dimensions, momentum None, not affine ..."""
    assert max(report["batch_norm"] for report in reports) < 1e-9


def test_layers_are_the_same_objects_afterwards(reports):
    """After an error, too. Of a frozen backbone nothing changes, of the head its statistics."""
    head = ["head.bn1." + name for name in ("num_batches_tracked", "running_mean", "running_var")]
    assert all(report["left"] == (True, head) for report in reports)


def test_eval_mode_needs_no_other_process(reports):
    assert all(report["evaluated"] for report in reports)


def test_every_step_equals_that_of_one_process(reports, one):
    """In float64: logits of every dropout mask, gradients, loss, random state, uneven batches."""
    for report in reports:
        exact = report["exact"]
        assert exact["losses"] == pytest.approx(one["losses"], rel=1e-7)
        for logits, wanted in zip(exact["logits"], one["logits"], strict=True):
            torch.testing.assert_close(logits, wanted, rtol=1e-6, atol=1e-8)
        for state, wanted in zip(exact["random"], one["random"], strict=True):
            assert torch.equal(state, wanted)
        for gradients, wanted in zip(exact["gradients"], one["gradients"], strict=True):
            assert_close_digests(gradients, wanted)
        assert_close_digests(exact["state"], one["state"])  # weights and running statistics


def assert_close_digests(found, wanted):
    norms = wanted[:, :1]
    assert ((found - wanted).abs() <= 1e-6 * norms + 1e-12).all()


def test_in_float32_the_curves_agree_as_far_as_rounding_lets_them(reports, one):
    """The first loss of the whole network, and a head's curve on a frozen backbone.

    Later losses of the whole network say nothing: in one process alone, two threads instead of one
    change the fourth by up to a quarter, because a few steps from a random start with batches of
    this size magnify every rounding. The test in float64 covers those steps.
    """
    for report in reports:
        assert report["single"] == pytest.approx(one["single"], rel=1e-4)
        assert report["head"] == pytest.approx(one["head"], rel=1e-4)


def test_the_first_may_prepare_for_longer_than_the_others_wait(tmp_path):
    jobs, _place = start(2, prepare_longer_than_patience, tmp_path, patience=2)
    assert results(jobs, tmp_path) == [{"total": [2.0]}] * 2


@pytest.mark.parametrize("work, world, patience", [(die_in_step_two, 3, 60), (hang, 2, 3)])
def test_a_lost_process_ends_the_others_with_one_sentence(tmp_path, work, world, patience):
    jobs, _place = start(world, work, tmp_path, patience)
    found = results(jobs, tmp_path)
    assert (found.pop(1) is None) == (work is die_in_step_two)
    for report in found:
        assert report["said"].startswith("Another process of this run died or hangs (")
        assert report["said"].count("\n") == 0
        assert report["after"] < 9


@pytest.mark.parametrize(
    "error, lost",
    [
        (RuntimeError("[tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:29500"), True),
        (
            RuntimeError("[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(...)"),
            True,
        ),
        (RuntimeError("ncclRemoteError: ... a remote process exiting prematurely."), True),
        (dist.DistStoreError("wait timeout after 300000ms, keys: /default_pg/0//0"), True),
        (RuntimeError("DataLoader worker (pid 7) exited unexpectedly"), False),
        (RuntimeError("The loss became nan; lower lr (it is 1.0)."), False),
        (ConnectionResetError("Connection reset by peer"), False),  # of a download, say
        (RuntimeError(), False),
    ],
)
def test_only_errors_of_lost_processes_are_explained(error, lost):
    assert (explain_lost_process(error) is not None) == lost


def test_alone_nothing_is_shared_and_nothing_waits(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    processes, device = join_processes()
    assert processes == Processes(0, 1) and processes.first
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    part = torch.arange(3)
    assert processes.gather(part) is part
    assert processes.share(["a", "b"]) == ["a", "b"]
    assert processes.total(1, 2) == [1.0, 2.0]
    processes.wait()
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    assert distribute(model, processes, device) is model
    with as_one(model, processes):
        assert [type(layer) for layer in model] == [nn.BatchNorm1d, nn.Dropout]
    leave_processes()
    assert not dist.is_initialized()


def test_fewer_gpus_than_processes_is_one_sentence(monkeypatch):
    place = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="starts 4 processes on this machine, which has 1 GPU"):
        join_processes("cuda")
    assert not dist.is_initialized()
