"""Real processes that meet over loopback; what each of them found comes back as a file."""

import copy
import multiprocessing
import os
import signal
import time
import traceback
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from dclib.distributed import (
    Processes,
    as_one,
    distribute,
    explain_lost_process,
    join_processes,
    leave_processes,
)
from dclib.model import DeepConnection

BATCHES = (6, 5, 7, 4)  # rows of the steps; none but 6 and 4 can be shared evenly
ALONE = Processes(), torch.device("cpu")


def start(world, work, folder):
    """`world` processes that call work(processes, device) and leave what it returns in files."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision", "dclib.model", "dclib.distributed"])
    # the store that torchrun hosts; its port is free because nobody else chose it
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    places |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": str(world)}
    jobs = []
    for rank in range(world):
        place = places | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        jobs.append(context.Process(target=child, args=(place, work, folder / f"{rank}.pt")))
        jobs[-1].start()
    return jobs, store


def child(place, work, path):
    os.environ.update(place)
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    try:
        result = work(*join_processes("cpu"))
    except Exception as error:
        result = {"error": explain_lost_process(error), "trace": traceback.format_exc()}
    torch.save(result, path)
    leave_processes()


def results(jobs, folder, seconds=60):
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


def train(processes, device, dtype=torch.float64):
    """Steps with Adam on batches of several sizes. Everything that must not depend on `world`."""
    torch.manual_seed(processes.rank)  # only the first process's weights count
    model = DeepConnection("spp+pmt", "resnet18", weights=None, levels=(2, 1)).to(dtype)
    network = distribute(Samples(model), processes, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    report = {"losses": [], "gradients": [], "logits": [], "random": []}
    with as_one(model, processes):
        for n in BATCHES:
            images = torch.randn(n, 3, 32, 32, dtype=dtype, generator=generator)
            labels = torch.randint(2, (n,), generator=generator)
            logits = network(processes.share(images))
            wrong = processes.share(labels).repeat(len(logits))
            loss = F.cross_entropy(logits.flatten(0, 1), wrong, reduction="sum") / len(logits) / n
            optimizer.zero_grad()
            (loss * processes.world).backward()
            report["gradients"].append([p.grad.clone() for p in model.parameters()])
            report["losses"] += processes.total(loss.item())
            report["logits"].append(processes.gather(logits.detach().transpose(0, 1).contiguous()))
            report["random"].append(torch.get_rng_state())
            optimizer.step()
    report["state"] = copy.deepcopy(model.state_dict())
    return report


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
    started = time.monotonic()
    if processes.first:
        time.sleep(0.5)
    processes.wait()
    return {
        "processes": (processes.rank, processes.world, again == processes, str(device)),
        "total": processes.total(1, 0.25 * processes.rank),
        "waited": time.monotonic() - started,
        "gathered": pairs,
        "refusal": refusal,
        "batch_norm": largest_batch_norm_error(processes),
        "left": left_as_they_were(processes),
        "evaluated": evaluated_apart(processes),
        "exact": train(processes, device),
        "single": train(processes, device, torch.float32)["losses"],
    }


def die_in_step_two(processes, device):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    network = distribute(model, processes, device)
    with as_one(model, processes):
        for step in range(4):
            if step == 2 and processes.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            network(torch.randn(2, 3)).sum().backward()


def hang(processes, device):
    if processes.first:
        processes.total(1)
    time.sleep(4)


def join_and_hang(processes, device):
    """As `hang`, with a short patience, which must be set before the group is made."""


@pytest.fixture(scope="module", params=[2, 3])
def reports(request, tmp_path_factory):
    """What 2 and 3 processes found, one dict a process."""
    folder = tmp_path_factory.mktemp("reports")
    jobs, _store = start(request.param, all_checks, folder)
    found = results(jobs, folder)
    for report in found:
        assert report, "a process was killed or needed too long"
        assert "trace" not in report, report["trace"]
    return found


@pytest.fixture(scope="module")
def one():
    return train(*ALONE)
