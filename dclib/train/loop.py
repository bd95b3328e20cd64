"""One update of the weights (`train_step`), one epoch, one run (`Training`), and what it tells."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from dclib.data import draw_seed
from dclib.data.loading import CoupleFolder, EpochBatches, make_loader
from dclib.model import BLOCKS, DeepConnection, dropout_loss
from dclib.predict import predict_logits, score
from dclib.train.amp import Precision
from dclib.train.config import TrainConfig, make_optimizer
from dclib.train.distributed import Processes, distribute
from dclib.train.resume import check_same_run, describe_data, load_state, save_state

LOOK_EVERY = 10  # steps on a GPU between two readings of the loss: each makes it wait for Python
WATCH_SECONDS = 2.0  # between two calls of the watchers within an epoch
# Of `Training`, in its state.
PROGRESS = ("epoch", "finished", "best", "best_score", "lowest_loss", "idle", "parts")
Batch = Tensor | Sequence[Tensor]  # as a loader gives it, before `finish` of the transform
Moment = Any  # seconds of the CPU's clock, or a torch.cuda.Event


@dataclass
class History:
    """What happened, epoch by epoch and step by step.

    `epochs` holds one dict an epoch: epoch, lr (of the head, at its start), loss and accuracy of
    train and val, seconds, val_seconds (of them), images_per_s and waiting (while training; the
    share of that time in which the model had no pictures), peak_memory (bytes; see `peak_memory`).
    `steps` holds one an update: epoch, lr, loss.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    stopped_early: bool = False

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


Watcher = Callable[[History], object]


def train_step(
    network: nn.Module,
    optimizer: Optimizer,
    precision: Precision,
    parts: Iterable[tuple[Tensor, Tensor]],
    rows: float,
    config: TrainConfig,
) -> Tensor:
    """One update of the weights, by one batch. Returns (2,): sum of losses, number right.

    `parts` of the batch, as large as memory allows: images (b, 3, H, W) and labels (b,); `rows`:
    pictures in all of them.
    """
    sums = []
    optimizer.zero_grad()
    for images, labels in parts:
        with precision.forward():
            logits = network(images).float()  # (S, b, 2): an answer of each dropout mask
            loss = dropout_loss(logits, labels, config.dropout_loss) * len(labels)
        precision.backward(loss / rows, optimizer)  # gradients of all parts add up
        right = (logits.detach().mean(0).argmax(1) == labels).sum()
        sums.append(torch.stack([loss.detach(), right]))
    if config.clip:
        nn.utils.clip_grad_norm_(precision.unscaled(optimizer), config.clip)
    precision.step(optimizer)
    return torch.stack(sums).sum(0)


class SampleLogits(nn.Module):
    """The network as Apex and DistributedDataParallel can wrap it: images -> logits (S, B, 2)."""

    def __init__(self, model: DeepConnection) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.sample_logits(images)


class Training:
    """One run, as `dclib.train.fit` begins it; in the end `best` holds the weights to keep."""

    def __init__(
        self,
        model: DeepConnection,
        train_set: CoupleFolder,
        val_set: CoupleFolder,
        config: TrainConfig,
        precision: Precision,
        processes: Processes,
        device: torch.device,
        folder: str | Path | None,
    ) -> None:
        self.model, self.config, self.precision = model.to(device), config, precision
        # torch's stubs leave memory_format out
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.processes, self.device, self.folder = processes, device, folder
        size, workers = config.batch_size, config.workers
        place = processes.rank, processes.world
        self.loader = make_loader(train_set, size, True, config.seed, workers, *place)
        assert isinstance(self.loader.batch_sampler, EpochBatches)
        self.batches, self.finish = self.loader.batch_sampler, train_set.transform.finish
        self.val_loader = make_loader(val_set, size, workers=workers)
        self.identity = config.identity() | {"data": describe_data(train_set, val_set)}
        torch.manual_seed(config.seed)  # dropout masks
        if processes.world > 1 and device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place; it sees the whole batch
        # Apex notes now which parameters learn, so the ones that will be thawed must be among them
        model.freeze_backbone(config.freeze_stages, config.freeze_norm)
        optimizer = make_optimizer(model, config)
        self.bare, self.optimizer = precision.prepare(SampleLogits(model), optimizer)
        self.network: nn.Module  # the bare network for all processes; see `freeze`
        self.frozen: int | None = None
        self.epoch, self.finished, self.parts = 0, False, config.accumulate
        self.history, self.best = History(), dict[str, Tensor]()
        self.best_score: tuple[float, ...] = ()  # less than any other
        self.lowest_loss, self.idle = math.inf, 0

    def run(self, watchers: Sequence[Watcher] = (), progress: bool = True) -> None:
        """Train from where the run stands to its end."""
        self.watchers = watchers if self.processes.first else ()
        total, shown = self.config.epochs * len(self.batches), progress and self.processes.first
        self.bar = tqdm(total=total, desc="training", unit="batch", disable=not shown)
        self.bar.update(self.epoch * len(self.batches))
        self.watched = time.monotonic()
        while not self.finished:
            self.end_epoch(self.train_epoch())
        self.processes.broadcast(self.best.values())  # on CPUs running statistics differ
        self.bar.close()

    def train_epoch(self) -> dict[str, float]:
        """Train on every picture once; returns the first half of the epoch's row in the history."""
        if self.processes.rank:  # dropout masks of its own; the state knows those of the first
            torch.manual_seed(draw_seed(self.config.seed, self.epoch, self.processes.rank))
        self.freeze()
        self.batches.set_epoch(self.epoch)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        waiting: list[Tensor] = []  # what steps returned that were not looked at yet
        done: list[list[float]] = []  # what all others did
        watch = Stopwatch(self.device)
        for number, (batch, labels) in enumerate(self.loader):
            watch.arrived()
            rows, factor = self.batches.size(number), self.rate_factor(number)
            waiting.append(self.step(batch, labels, rows, factor))
            watch.done()
            self.bar.update()
            last = number + 1 == len(self.batches)
            if last or self.device.type != "cuda" or len(waiting) == LOOK_EVERY:
                done += self.look(waiting)
                waiting = []
        seconds, waited = watch.stop()
        loss, right = map(sum, zip(*done))
        n = sum(map(self.batches.size, range(len(self.batches))))
        return {
            "epoch": self.epoch,
            "lr": self.rate_factor(0) * self.config.lr,
            "train_loss": loss / n,
            "train_accuracy": right / n,
            "seconds": seconds,
            "images_per_s": n / seconds,
            "waiting": waited / seconds,
        }

    def rate_factor(self, number: int) -> float:
        """Factor of all learning rates in step `number` of the epoch: a cosine, from 1 to 0."""
        n = len(self.batches)
        share = (self.epoch * n + number) / (self.config.epochs * n)
        return 0.5 * (1 + math.cos(math.pi * share))

    def freeze(self) -> None:
        """Freeze or thaw the backbone as this epoch wants it."""
        alone = self.epoch < self.config.freeze_epochs  # the head
        frozen = len(BLOCKS) if alone else self.config.freeze_stages
        if frozen != self.frozen:
            self.model.freeze_backbone(frozen, self.config.freeze_norm)
            self.network = distribute(self.bare, self.processes, self.device)
            self.frozen = frozen
        self.model.train()

    def step(self, batch: Batch, labels: Tensor, rows: int, factor: float) -> Tensor:
        """`train_step` at `factor` of the learning rates, in parts that fit into memory.

        `rows`: pictures of the batch in all processes. Out of memory, the batch is tried again in
        twice as many parts (batch norm's running statistics keep the failed attempt), unless there
        are two pictures a part, or several processes, as the others cannot know.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
        while True:
            parts = self.divide(batch, labels, rows)
            mean_rows = rows / self.processes.world  # gradients are averaged over processes
            try:
                return train_step(
                    self.network, self.optimizer, self.precision, parts, mean_rows, self.config
                )
            except torch.OutOfMemoryError as error:
                if self.processes.world > 1 or 2 * self.parts > len(labels) // 2:
                    raise RuntimeError(
                        f"{len(labels)} pictures in {self.parts} parts do not fit into the memory "
                        f"of {self.device}: raise accumulate, or lower batch_size or image_size."
                    ) from error
            self.halve(len(labels))  # not in the except block: its error holds on to tensors

    def halve(self, n: int) -> None:
        """Work off this batch of n pictures, and all after it, in twice as many parts."""
        self.precision.abandon(self.optimizer)
        torch.cuda.empty_cache()
        self.parts *= 2
        tqdm.write(
            f"Out of memory with {2 * n // self.parts} pictures at once: from now on batches are "
            f"worked off in {self.parts} parts whose gradients add up."
        )

    def divide(self, batch: Batch, labels: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The parts of a batch, one by one on the device, as `train_step` takes them."""
        # batch norm needs two pictures, and all processes must have equally many parts
        n = max(1, min(self.parts, rows // (2 * self.processes.world)))
        for part, targets in enumerate(labels.tensor_split(n)):
            if torch.is_tensor(batch):
                inputs: Batch = batch.tensor_split(n)[part]
            else:
                inputs = tuple(tensor.tensor_split(n)[part] for tensor in batch)
            with self.precision.uncast():
                images = self.finish(inputs, self.device)
            images = images.contiguous(memory_format=torch.channels_last)
            yield images, targets.to(self.device, non_blocking=True)

    def look(self, sums: Sequence[Tensor]) -> list[list[float]]:
        """Read what the last steps returned, and write it down; stop if a loss is no number."""
        rows = self.processes.total(torch.stack(list(sums)).double().cpu()).tolist()
        for loss, _ in rows:
            if not math.isfinite(loss):
                raise RuntimeError(f"The loss became {loss}; lower lr (it is {self.config.lr}).")
            number = len(self.history.steps) - self.epoch * len(self.batches)
            row = {"epoch": self.epoch, "lr": self.rate_factor(number) * self.config.lr}
            self.history.steps.append(row | {"loss": loss / self.batches.size(number)})
        if time.monotonic() - self.watched >= WATCH_SECONDS:
            self.show()
        return rows

    def show(self) -> None:
        """Call the watchers."""
        for watcher in self.watchers:
            watcher(self.history)
        self.watched = time.monotonic()

    def end_epoch(self, row: dict[str, float]) -> None:
        """Validate, write down, keep the best weights, decide whether to stop, save."""
        start = time.perf_counter()
        logits, labels = predict_logits(self.model, self.val_loader, self.precision.evaluating)
        scores = torch.tensor(score(logits, labels), dtype=torch.float64)
        self.processes.broadcast([scores])  # the first one decides
        row["val_loss"], row["val_accuracy"] = loss, accuracy = scores.tolist()
        row["val_seconds"] = time.perf_counter() - start
        row["seconds"] += row["val_seconds"]
        self.history.epochs.append(row | {"peak_memory": peak_memory(self.device)})
        self.judge(loss, accuracy)
        self.epoch += 1
        self.finished = self.history.stopped_early or self.epoch == self.config.epochs
        self.save()
        self.show()
        if not self.bar.disable:
            self.bar.write(str(self.history))

    def judge(self, loss: float, accuracy: float) -> None:
        """Highest validation accuracy is best, a tie goes to the lower loss; count idle epochs."""
        if (accuracy, -loss) > self.best_score:
            self.best_score, self.history.best_epoch = (accuracy, -loss), self.epoch
            self.best = {name: v.cpu().clone() for name, v in self.model.state_dict().items()}
        self.idle = 0 if loss < self.lowest_loss else self.idle + 1
        self.lowest_loss = min(self.lowest_loss, loss)
        self.history.stopped_early = self.idle >= self.config.patience

    def save(self) -> None:
        """Write the state; a full disk or a lost drive costs it, not the run."""
        if self.folder is None or not self.processes.first:
            return
        state: dict[str, Any] = {name: getattr(self, name) for name in PROGRESS}
        state |= {"identity": self.identity, "history": asdict(self.history)}
        if not self.finished:  # else the result is enough
            state |= {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "precision": str(self.precision),
                "scaler": self.precision.state_dict(),
                "random": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            }
        try:
            save_state(self.folder, state)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter
            tqdm.write(f"The state could not be saved, and training goes on: {error}")

    def load(self) -> bool:
        """Go on from the state in the folder, if there is one. Returns whether there was."""
        state = None if self.folder is None else load_state(self.folder)
        seen = self.processes.total(torch.tensor(float(state is not None))).item()
        if seen % self.processes.world:
            raise ValueError(f"All processes must see the same folder {self.folder}.")
        if self.folder is None or state is None:
            return False
        try:
            check_same_run(self.folder, state["identity"], self.identity)
            self.restore(state)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"What lies in {self.folder} is no state of such a run ({type(error).__name__}): "
                "move it away, or choose another folder."
            ) from error
        return True

    def restore(self, state: dict[str, Any]) -> None:
        """Be where the run was when it saved this state."""
        self.history = History(**state["history"])
        for name in PROGRESS:
            setattr(self, name, state[name])
        self.parts = max(self.parts, self.config.accumulate)
        if self.finished:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["precision"] == str(self.precision):
            self.precision.load_state_dict(state["scaler"])
        else:
            print(f"The saved run was in {state['precision']}; it goes on in {self.precision}.")
        torch.set_rng_state(state["random"])
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])


class Stopwatch:
    """How long training took since it was made, and how long the model had nothing to work on.

    A GPU works behind Python's back, so there its own clock is read: the gap between the end of one
    step and the arrival of the next batch, which is 0 as long as the GPU has work left.
    """

    def __init__(self, device: str | torch.device) -> None:
        self.cuda = torch.device(device).type == "cuda"
        self.gaps: list[tuple[Moment, Moment]] = []
        self.start = self.before = self._now()

    def arrived(self) -> None:
        """A batch has come: the wait for it is over."""
        self.gaps.append((self.before, self._now()))

    def done(self) -> None:
        """A step was given to the device: the wait for the next batch begins."""
        self.before = self._now()

    def stop(self) -> tuple[float, float]:
        """(seconds until now, seconds waited)."""
        self.done()
        return self._between(self.start, self.before), sum(self._between(*gap) for gap in self.gaps)

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
    """Most bytes in use, in this epoch on a GPU, else so far by this process; 0 on Windows."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
