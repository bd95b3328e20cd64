"""Several processes that train as one: torchrun --nproc-per-node 2 -m dclib.train ...

Every process takes its rows of the same batch, and DistributedDataParallel averages gradients. On
GPUs batch norm sees the whole batch, on CPUs (torch has no such layer for them) only these rows.
Every process validates everything; what the first finds decides.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dclib.predict import pick_device

MEETING = "MASTER_ADDR", "MASTER_PORT"


@dataclass(frozen=True)
class Processes:
    """This process (`rank`, from 0) among all that train together (`world`).

    All methods must be called by every process, in the same order.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def total(self, numbers: Tensor) -> Tensor:
        """Sums over all processes, of the same shape."""
        if self.world > 1:
            dist.all_reduce(numbers)
        return numbers

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes, in place, what the first one has."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)


def join_processes(device: str | torch.device = "auto") -> tuple[Processes, torch.device]:
    """Meet the other processes that torchrun started; without it, a process is alone.

    On CUDA each has the GPU of its local rank, which becomes torch's current one, as does a GPU
    that is named ("cuda:1"). A second call changes nothing.
    """
    device, processes = pick_device(device), _find_place()
    if device.type == "cuda" and processes.world > 1:
        local, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
        if local > gpus:
            raise ValueError(
                f"torchrun starts {local} processes on this machine, which has {gpus} GPUs: "
                "give --nproc-per-node no more than that, or train with --device cpu."
            )
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    if processes.world > 1 and not dist.is_initialized():
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            place = ":".join(os.environ[name] for name in MEETING)
            print(f"Waiting for all {processes.world} processes (WORLD_SIZE) at {place}.")
        # gloo beside NCCL: counts and metrics lie on the CPU
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return processes, device


def _find_place() -> Processes:
    """Which process this is among how many, as torchrun tells it."""
    rank, world, *meeting = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", *MEETING))
    if world in ("", "0", "1"):
        return Processes()
    numbers = rank.isdecimal() and world.isdecimal() and int(rank) < int(world)
    if not numbers or not all(meeting):
        raise ValueError(
            f"WORLD_SIZE is {world!r:.20}, and RANK, MASTER_ADDR and MASTER_PORT do not fit it: "
            "start several processes with torchrun, or unset WORLD_SIZE to train in one."
        )
    return Processes(int(rank), int(world))


def leave_processes() -> None:
    """Part from the other processes, if there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def distribute(network: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """The network with its gradients averaged over all processes; itself when alone.

    All start with the first one's weights. Distribute anew when parameters are frozen or unfrozen.
    """
    if processes.world == 1:
        return network
    return DistributedDataParallel(network, [device.index] if device.type == "cuda" else None)
