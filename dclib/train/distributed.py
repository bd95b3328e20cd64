"""Several processes that train as one: torchrun --nproc-per-node 2 -m dclib.train ...

Every process takes its rows of the same global batch. DistributedDataParallel averages gradients;
batch statistics are the global batch's and dropout masks those that one process would draw, so that
the loss curve is that of one process but for rounding.

The usual step, in which row i of a batch belongs to process i % world:

    processes, device = join_processes()
    network = distribute(model, processes, device)
    with as_one(model, processes):
        images, labels = processes.share(images), processes.share(labels)
        loss = F.cross_entropy(network(images), labels, reduction="sum")
        (loss / batch_size * processes.world).backward()  # averaging divides by world
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from dclib.predict import pick_device

PATIENCE = timedelta(minutes=10)  # how long a process waits for another before it gives up
PREPARING = timedelta(hours=6)  # the same while the first prepares data, perhaps on a slow drive
# What gloo, NCCL and the store behind them say when they lose a process.
LOST = re.compile(
    "(closed|reset) by peer|broken pipe|connection was likely closed|timed out waiting|wait timeout"
    "|waiting for clients|pair closure|collective operation timeout|remote process exit"
    "|socket .*timed out|operations have failed or timed out",
    re.IGNORECASE,
)
Rows = TypeVar("Rows", Tensor, list, range)
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Processes:
    """This process (`rank`, from 0) among all that train together (`world`).

    All but `first` and `share` must be called by every process, in the same order.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, batch: Rows) -> Rows:
        """This process's rows of a global batch: a sequence or (B, ...) -> every world-th row.

        >>> Processes(rank=1, world=2).share(["a", "b", "c", "d"])
        ['b', 'd']
        """
        return batch[self.rank :: self.world]

    def gather(self, part: Tensor) -> Tensor:
        """The whole, on every process, of which each has its `share`: (b, ...) -> (B, ...).

        `part` holds numbers on the CPU; an empty one is (0, ...). Raises ValueError for parts that
        `share` does not make, because their order is not known.
        """
        if self.world == 1:
            return part
        lengths = self.total(*(len(part) * (rank == self.rank) for rank in range(self.world)))
        rows = range(int(sum(lengths)))
        if lengths != [len(rows[rank :: self.world]) for rank in range(self.world)]:
            raise ValueError(
                f"The processes have {[int(n) for n in lengths]} rows, which are not the shares of "
                f"{len(rows)}: share the whole first, then cut it into batches."
            )
        whole = part.new_zeros(len(rows), *part.shape[1:])
        whole[self.rank :: self.world] = part
        dist.all_reduce(whole)  # all others have zeros in these rows
        return whole

    def total(self, *numbers: float) -> list[float]:
        """Sums over all processes, one for each of the numbers."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        if self.world > 1:
            dist.all_reduce(sums)
        return sums.tolist()

    def wait(self) -> None:
        """Go on when every process has come here, even if one has prepared data for hours."""
        if self.world > 1:
            patient = dist.new_group(backend="gloo", timeout=PREPARING)
            dist.barrier(patient)
            dist.destroy_process_group(patient)

    def first_prepares(self, load: Callable[[], Loaded]) -> Loaded:
        """What `load()` returns; the first process goes ahead, and the others find its files."""
        if not self.first:
            self.wait()
        loaded = load()
        if self.first:
            self.wait()
        self.wait()
        return loaded


def join_processes(device: str | torch.device = "auto") -> tuple[Processes, torch.device]:
    """Meet the other processes that torchrun started. Returns (`Processes`, device).

    Started without torchrun, a process is alone. On CUDA each has the GPU of its local rank, which
    becomes torch's current one, as does a GPU that is named ("cuda:1"). A second call changes
    nothing. Raises ValueError if there are fewer GPUs than processes.
    """
    device = pick_device(device)
    processes = Processes(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if processes.world == 1:
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)
        return processes, device
    if device.type == "cuda":
        here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > gpus:
            raise ValueError(
                f"torchrun starts {here} processes on this machine, which has {gpus} GPUs: "
                "give --nproc-per-node no more than that, or train with --device cpu."
            )
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():  # gloo beside NCCL: counts and metrics lie on the CPU
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    return processes, device


def has_joined() -> bool:
    """Whether this process works with others."""
    return dist.is_available() and dist.is_initialized()


def leave_processes() -> None:
    """Part from the other processes, if there are any."""
    if has_joined():
        dist.destroy_process_group()


def distribute(network: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """The network with its gradients averaged over all processes; itself when alone.

    All start with the first one's weights. Buffers need no broadcast: under `as_one` all compute
    the same running statistics. Distribute anew when parameters are frozen or unfrozen.
    """
    if processes.world == 1:
        return network
    gpu = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=gpu, broadcast_buffers=False)


@contextmanager
def as_one(model: nn.Module, processes: Processes) -> Iterator[None]:
    """Inside, batch norms and dropout of `model` act as if one process had the whole batch.

    The model must be on its device, which decides between two kinds of batch norm. Only the class
    of these layers changes, as in torch.nn.utils.parametrize, and comes back on leaving:
    parameters, buffers, names and train or eval mode are theirs throughout.
    """
    on_cuda = any(parameter.is_cuda for parameter in model.parameters())
    batch_norm = BatchNormOnCUDA if on_cuda else BatchNormOnCPU
    layers = [(m, type(m)) for m in model.modules() if isinstance(m, (_BatchNorm, nn.Dropout))]
    try:
        if processes.world > 1:
            for layer, kind in layers:
                layer.__class__ = SharedDropout if issubclass(kind, nn.Dropout) else batch_norm
        yield
    finally:
        for layer, kind in layers:
            layer.__class__ = kind


class BatchNormOnCUDA(nn.SyncBatchNorm):
    """torch's own; no group means all processes."""

    process_group = None


class BatchNormOnCPU(_BatchNorm):
    """Batch norm (arXiv 1502.03167) over all processes for tensors that nn.SyncBatchNorm refuses.

    Shape: (b, C, ...) -> the same; b may differ between processes.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"Batch norm takes (b, C, ...), not {tuple(input.shape)}.")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        # differentiable; imported here because not every build of torch has it
        from torch.distributed.nn.functional import all_reduce

        self._check_input_dim(x)
        dims, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        wide = x if x.dtype == torch.float64 else x.float()
        count = wide.new_tensor([x.numel() / x.shape[1]])
        sums = all_reduce(torch.cat([wide.sum(dims), count]))  # (C + 1,)
        n = sums[-1].detach()
        mean = sums[:-1] / n
        centred = wide - mean.view(shape)
        var = all_reduce(centred.square().sum(dims)) / n
        if self.track_running_stats:
            self._track(mean.detach(), (var * n / (n - 1)).detach())
        normed = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(x.dtype)

    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        seen = self.get_buffer("num_batches_tracked").add_(1)
        momentum = 1 / seen.item() if self.momentum is None else self.momentum
        self.get_buffer("running_mean").lerp_(mean, momentum)
        self.get_buffer("running_var").lerp_(unbiased_var, momentum)


class SharedDropout(nn.Dropout):
    """This process's rows of the mask that one would draw for the whole batch: (..., b, F).

    Every process draws all of it, so that their random states stay equal.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        processes, features = Processes(dist.get_rank(), dist.get_world_size()), x.shape[-1]
        rows = int(*processes.total(x.shape[-2]))
        # laid out in memory as the head's expanded input, on which the order of drawing depends
        ones = x.new_ones(rows, features).expand(*x.shape[:-2], rows, features)
        return x * super().forward(ones)[..., processes.rank :: processes.world, :]


def explain_lost_process(error: Exception) -> str | None:
    """One sentence if a collective failed because another process died or hangs, else None."""
    if not isinstance(error, RuntimeError) or not LOST.search(str(error)):
        return None
    return (
        f"Another process of this run died or hangs ({str(error).strip().splitlines()[0]}): see "
        "what it printed."
    )
