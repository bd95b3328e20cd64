"""What a run remembers of itself: losses, accuracies, speed, memory and time spent waiting."""

import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

Moment = Any  # seconds of the CPU's clock, or a torch.cuda.Event


@dataclass
class History:
    """What happened, epoch by epoch and step by step.

    `epochs` holds one dict an epoch: epoch, lr (of the head, at its start), size (pixels a side),
    loss and accuracy of train and val, seconds, val_seconds (of them, for validation), images_per_s
    and waiting (while training; the share of that time in which the model had no pictures to work
    on), peak_memory (bytes; of the GPU if there is one, else of the process). `steps` holds one an
    update: epoch, lr, loss.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    stopped_early: bool = False

    @property
    def best(self) -> dict[str, Any]:
        """Of `epochs`, the best one; IndexError before the first has ended."""
        return self.epochs[self.best_epoch]

    def column(self, name: str) -> list:
        """One value an epoch, by its name in `epochs`."""
        return [row[name] for row in self.epochs]

    def __str__(self) -> str:
        """One line on the last epoch."""
        row = self.epochs[-1]
        memory = f", peak memory {row['peak_memory'] / 2**30:.1f} GiB" if row["peak_memory"] else ""
        return (
            f"epoch {row['epoch'] + 1}: loss {row['train_loss']:.3f} (val {row['val_loss']:.3f}), "
            f"accuracy {row['train_accuracy']:.3f} (val {row['val_accuracy']:.3f}), "
            f"{row['seconds']:.0f} s, {row['images_per_s']:.0f} images/s, "
            f"waited for pictures {row['waiting']:.0%} of the time{memory}"
        )


class Stopwatch:
    """How long training took, and how much of it the model had nothing to work on.

    Call `resume` before the first batch, `arrived` when a batch has come and `done` when its step
    was given to the device. A GPU works behind Python's back, so there its own clock is read: the
    gap between the end of one step and the arrival of the next batch, which is 0 as long as the GPU
    has work left.
    """

    def __init__(
        self, device: str | torch.device, seconds: float = 0.0, waited: float = 0.0
    ) -> None:
        self.cuda = torch.device(device).type == "cuda"
        self.seconds, self.waited = seconds, waited
        self.gaps: list[tuple[Moment, Moment]] = []

    def resume(self) -> None:
        """Count from now on."""
        self.start = self.before = self._now()

    def arrived(self) -> None:
        """A batch has come: the wait for it is over."""
        self.gaps.append((self.before, self._now()))

    def done(self) -> None:
        """A step was given to the device: the wait for the next batch begins."""
        self.before = self._now()

    def pause(self) -> tuple[float, float]:
        """Add up everything until now: (seconds, seconds waited)."""
        self.done()
        self.seconds += self._between(self.start, self.before)
        self.waited += sum(self._between(*gap) for gap in self.gaps)
        self.gaps, self.start = [], self.before
        return self.seconds, self.waited

    def _now(self) -> Moment:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, begin: Moment, end: Moment) -> float:
        if not self.cuda:
            return end - begin
        end.synchronize()
        return begin.elapsed_time(end) / 1000


def peak_memory(device: str | torch.device) -> int:
    """Most bytes in use so far: on the GPU since `reset_peak_memory`, else by this process.

    0 where the system does not tell (Windows).
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory(device: str | torch.device) -> None:
    """Let `peak_memory` of a GPU begin anew; that of a process cannot."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


class TensorBoard:
    """A watcher of `fit` that writes every step and epoch for TensorBoard into `folder`.

    Raises ModuleNotFoundError, saying what to install, where the package tensorboard is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "TensorBoard is not installed: pip install tensorboard, or train without it."
            ) from error
        self.open_writer = partial(SummaryWriter, folder, purge_step=0)
        self.writer: SummaryWriter | None = None
        self.steps, self.epochs = 0, 0

    def __call__(self, history: History) -> None:
        if self.writer is None:  # here, because of several processes only one comes here
            # a resumed run brings its whole history: what an earlier part wrote is replaced
            self.writer = self.open_writer()
        for step in range(self.steps, len(history.steps)):
            for name in ("loss", "lr"):
                self.writer.add_scalar(f"step/{name}", history.steps[step][name], step)
        for row in history.epochs[self.epochs :]:
            for name, value in row.items():
                self.writer.add_scalar(f"epoch/{name}", value, row["epoch"])
        self.steps, self.epochs = len(history.steps), len(history.epochs)
        self.writer.flush()
