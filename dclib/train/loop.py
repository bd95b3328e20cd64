"""The loop of training: batches, updates, epochs, and the state that a killed run goes on from.

`dclib.train.fit` is the way in. What stands here is one run: everything that changes while it
trains is an attribute of `Training`, so that `state` can save it and `load` bring it back.
"""

import hashlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import Subset
from tqdm.auto import tqdm

from dclib.data.loading import CoupleFolder, EpochBatches, make_loader
from dclib.model import BLOCKS, DeepConnection, dropout_loss
from dclib.predict import predict_logits, score
from dclib.train.amp import FullPrecision
from dclib.train.config import TrainConfig
from dclib.train.distributed import Processes, distribute
from dclib.train.resume import (
    check_same_run,
    drop_damaged,
    load_state,
    random_state,
    save_state,
    set_random_state,
)

LOOK_EVERY = 10  # steps on a GPU between two readings of the loss: each makes it wait for Python
# Of an epoch.
NOTHING_YET: dict[str, Any] = {"loss": 0.0, "right": 0, "n": 0, "seconds": 0.0, "waited": 0.0}
PROGRESS = ("epoch", "batch", "finished", "best_score", "lowest_loss", "idle")
WATCH_SECONDS = 2.0  # between two calls of the watchers within an epoch
Batch = Tensor | Sequence[Tensor]  # as a loader gives it, before `finish` of the transform
# From the head down; every group learns at `lr_decay` times the rate of the one above it.
GROUPS = (("head",), *BLOCKS[::-1])
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
Moment = Any  # seconds of the CPU's clock, or a torch.cuda.Event


Watcher = Callable[["History"], object]


class Training:
    """One run. `run` trains to the end; `best` then holds the weights of the best epoch.

    Args as for `dclib.train.fit`.
    """

    def __init__(
        self,
        model: DeepConnection,
        train_set: CoupleFolder,
        val_set: CoupleFolder,
        config: TrainConfig,
        precision: FullPrecision,
        processes: Processes,
        device: torch.device,
        folder: str | Path | None,
    ) -> None:
        self.model = model.to(device)
        # torch's stubs leave memory_format out
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config, self.device, self.folder = config, device, folder
        self.precision, self.processes = precision, processes
        rank, world, workers = processes.rank, processes.world, config.workers
        self.loader = make_loader(
            train_set, config.batch_size, True, config.seed, workers, rank, world
        )
        assert isinstance(self.loader.batch_sampler, EpochBatches)
        self.batches, self.transform = self.loader.batch_sampler, train_set.transform
        mine = Subset(val_set, processes.share(range(len(val_set))))
        self.val_loader = make_loader(mine, -(-config.batch_size // world), workers=workers)
        self.identity = asdict(config) | {"data": describe_data(train_set, val_set)}
        torch.manual_seed(config.seed)  # dropout masks
        self.update = Updater(self.model, train_set, config, precision, processes)
        self.epoch, self.batch, self.finished = 0, 0, False
        self.history, self.totals = History(), dict(NOTHING_YET)
        self.pending: list[tuple[float, Tensor]] = []  # rate and sums of steps not looked at yet
        self.best: dict[str, Tensor] = {}
        self.best_score: tuple[float, ...] = ()  # less than any other
        self.lowest_loss, self.idle = math.inf, 0

    def run(self, watchers: Sequence[Watcher] = (), progress: bool = True) -> None:
        """Train from where the run stands to its end.

        Raises RuntimeError when the loss is no longer a number, and what `Updater` raises.
        """
        self.watchers = watchers if self.processes.first else ()
        steps = self.config.epochs * len(self.batches)
        shown = progress and self.processes.first
        self.bar = tqdm(total=steps, desc="training", unit="batch", disable=not shown)
        self.bar.update(self.epoch * len(self.batches) + self.batch)
        self.saved = self.watched = time.monotonic()
        while not self.finished:
            self.train_epoch()
            self.end_epoch()
        self.bar.close()

    def train_epoch(self) -> None:
        """The batches of this epoch that are still to come."""
        self.update.begin(self.epoch)
        self.batches.set_epoch(self.epoch, self.batch)
        reset_peak_memory(self.device)
        self.watch = Stopwatch(self.device, self.totals["seconds"], self.totals["waited"])
        self.watch.resume()
        for batch, labels in self.loader:
            self.watch.arrived()
            step = self.epoch * len(self.batches) + self.batch
            factor = cosine(step / (self.config.epochs * len(self.batches)))
            sums = self.update(batch, labels, self.batches.size(self.batch), factor)
            self.watch.done()
            self.pending.append((factor * self.config.lr, sums))
            self.batch += 1
            self.bar.update()
            if len(self.pending) >= (LOOK_EVERY if self.device.type == "cuda" else 1):
                self.look()
                if time.monotonic() - self.saved >= 60 * self.config.save_minutes:
                    self.pause()
                    self.save()
                    self.watch.resume()
        self.look()
        self.pause()

    def pause(self) -> None:
        """Stop the watch, and keep what it says."""
        self.totals["seconds"], self.totals["waited"] = self.watch.pause()

    def look(self) -> None:
        """Read the losses that have come together; stop if one is no number."""
        if not self.pending:
            return
        rates, sums = zip(*self.pending)
        first, self.pending = self.batch - len(self.pending), []
        totals = iter(self.processes.total(*torch.stack(sums).flatten().tolist()))
        for step, (loss, right) in enumerate(zip(totals, totals)):
            if not math.isfinite(loss):
                raise RuntimeError(f"The loss became {loss}; lower lr (it is {self.config.lr}).")
            n = self.batches.size(first + step)
            self.history.steps.append({"epoch": self.epoch, "lr": rates[step], "loss": loss / n})
            for name, value in {"loss": loss, "right": round(right), "n": n}.items():
                self.totals[name] += value
        if time.monotonic() - self.watched >= WATCH_SECONDS:
            self.show()

    def show(self) -> None:
        """Call the watchers."""
        for watcher in self.watchers:
            watcher(self.history)
        self.watched = time.monotonic()

    def end_epoch(self) -> None:
        """Validate, write down, keep the best weights, decide whether to stop, save."""
        start = time.perf_counter()
        logits, labels = predict_logits(self.model, self.val_loader, self.precision.evaluating)
        loss, accuracy = score(self.processes.gather(logits), self.processes.gather(labels))
        first_step = next(row for row in self.history.steps if row["epoch"] == self.epoch)
        totals, val_seconds = self.totals, time.perf_counter() - start
        self.history.epochs.append(
            {
                "epoch": self.epoch,
                "lr": first_step["lr"],
                "size": self.transform.size_at(self.epoch),
                "train_loss": totals["loss"] / totals["n"],
                "train_accuracy": totals["right"] / totals["n"],
                "val_loss": loss,
                "val_accuracy": accuracy,
                "seconds": totals["seconds"] + val_seconds,
                "val_seconds": val_seconds,
                "images_per_s": totals["n"] / totals["seconds"],
                "waiting": totals["waited"] / totals["seconds"],
                "peak_memory": peak_memory(self.device),
            }
        )
        self.judge(loss, accuracy)
        self.epoch, self.batch, self.totals = self.epoch + 1, 0, dict(NOTHING_YET)
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
        """Write the state; a finished run keeps only what its result needs.

        A full disk or a lost drive costs the state, not the run.
        """
        self.saved = time.monotonic()
        if self.folder is None or not self.processes.first:
            return
        state = {"identity": self.identity, "history": asdict(self.history), "best": self.best}
        state |= {name: getattr(self, name) for name in PROGRESS}
        if not self.finished:
            state["totals"] = self.totals
            state["update"], state["random"] = self.update.state(), random_state()
        try:
            save_state(self.folder, state)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter
            said = str(error).splitlines()[0]
            tqdm.write(f"The state could not be saved in {self.folder} ({said}); training goes on.")

    def load(self) -> bool:
        """Go on from the state in the folder, if there is one. Returns whether there was.

        Raises ValueError for the state of another run, one that cannot be read, and a folder that
        only some of the processes see.
        """
        if self.folder is None:
            return False
        state = load_state(self.folder)
        if self.processes.total(state is not None)[0] % self.processes.world:
            raise ValueError(f"All processes must see the same folder {self.folder}.")
        if state is None:
            return False
        if self.processes.first:
            drop_damaged(self.folder)
        check_same_run(self.folder, state["identity"], self.identity)
        self.history, self.best = History(**state["history"]), state["best"]
        for name in PROGRESS:
            setattr(self, name, state[name])
        if not self.finished:
            self.totals = state["totals"]
            self.update.load(state["update"])
            set_random_state(state["random"])
        return True


def describe_data(*datasets: CoupleFolder) -> str:
    """A hash of names, labels and sizes of all pictures: what a resumed run must find again."""
    digest = hashlib.sha256()
    for dataset in datasets:
        for path, label in dataset.samples:
            name = path.relative_to(dataset.root).as_posix()
            digest.update(f"{name} {label} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


class SampleLogits(nn.Module):
    """The network as training calls it: images (B, 3, H, W) -> logits of every mask (S, B, 2).

    One forward pass under one name, which Apex and DistributedDataParallel can wrap.
    """

    def __init__(self, model: DeepConnection) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.sample_logits(images)


class Updater:
    """Changes a model's weights batch by batch.

    Args:
        model: the network, on its device.
        train_set: where batches come from, for its labels and its transform.
        precision: from `dclib.train.precision.make_precision`.
    """

    def __init__(
        self,
        model: DeepConnection,
        train_set: CoupleFolder,
        config: TrainConfig,
        precision: FullPrecision,
        processes: Processes,
    ) -> None:
        self.model, self.config, self.precision = model, config, precision
        self.processes, self.device = processes, next(model.parameters()).device
        self.finish = train_set.transform.finish
        weights = class_weights(config.class_weights, train_set.labels)
        self.class_weights = None if weights is None else weights.to(self.device)
        # Apex notes now which parameters learn, so the ones that will be thawed must be among them
        model.freeze_backbone(config.freeze_backbone)
        self.bare, self.optimizer = precision.prepare(
            SampleLogits(model), make_optimizer(model, config)
        )
        self.network: nn.Module  # the bare network for all processes; see `begin`
        self.frozen: bool | None = None
        self.parts, self.apex = config.accumulate, precision.name == "apex"

    def begin(self, epoch: int) -> None:
        """Freeze or thaw the backbone as this epoch wants it."""
        frozen = is_frozen(self.config, epoch)
        if frozen != self.frozen:
            self.model.freeze_backbone(frozen)
            self.network = distribute(self.bare, self.processes, self.device)
            self.frozen = frozen
        self.model.train()

    def __call__(self, batch: Batch, labels: Tensor, rows: int, factor: float) -> Tensor:
        """Update the weights at `factor` of their rates. Returns (2,): loss and number right.

        `rows` are the pictures of the batch in all processes; loss and number right are sums over
        those of this one. Out of memory, the batch is tried again in twice as many parts; what the
        failed attempt did to the running statistics of batch norm stays, one more step of a moving
        average. Raises RuntimeError when no smaller parts are possible, and when one of several
        processes runs out of memory, because the others cannot know.
        """
        set_learning_rate(self.optimizer, factor)
        while True:
            try:
                return self.accumulate(batch, labels, rows)
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

    def accumulate(self, batch: Batch, labels: Tensor, rows: int) -> Tensor:
        """Gradients of a batch, part by part, then one step. Returns the sums of `backward`."""
        # batch norm needs two pictures, and all processes must have equally many parts
        parts = max(1, min(self.parts, rows // (2 * self.processes.world)))
        sums = []
        self.precision.zero_grad(self.optimizer)
        for part in range(parts):
            targets = labels.tensor_split(parts)[part].to(self.device, non_blocking=True)
            with self.precision.uncast():
                images = self.finish(part_of(batch, part, parts), self.device)
            # processes exchange gradients once, with the last part; Apex unscales after every part
            exchange: AbstractContextManager = nullcontext()
            waits = part < parts - 1 and not self.apex
            if waits and isinstance(self.network, DistributedDataParallel):
                exchange = self.network.no_sync()
            with exchange:
                sums.append(self.backward(images, targets, rows))
        if self.config.clip:
            gradients = self.precision.unscaled(self.optimizer)
            nn.utils.clip_grad_norm_(gradients, self.config.clip)
        self.precision.step(self.optimizer)
        return torch.stack(sums).sum(0)

    def backward(self, images: Tensor, labels: Tensor, rows: int) -> Tensor:
        """Add the gradients of some pictures. Returns (2,): sum of losses, of right answers."""
        images = images.contiguous(memory_format=torch.channels_last)
        with self.precision.forward():
            sample_logits = self.network(images).float()  # (S, B, 2)
            loss = dropout_loss(sample_logits, labels, self.config.dropout_loss, self.class_weights)
        loss = loss * len(labels)
        # gradients are averaged over processes, while this is one process's share of a sum
        self.precision.backward(loss / rows * self.processes.world, self.optimizer)
        right = (sample_logits.detach().mean(0).argmax(1) == labels).sum()
        return torch.stack([loss.detach(), right])

    def state(self) -> dict[str, Any]:
        """What `load` goes on from; tensors are not copied."""
        return {
            "parts": self.parts,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(self.optimizer),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, in no fewer parts than the config wants."""
        self.parts = max(self.config.accumulate, state["parts"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.load_state_dict(state["precision"], self.optimizer)


def part_of(batch: Batch, part: int, parts: int) -> Batch:
    """One of `parts` nearly equal parts of the pictures of a batch."""
    if torch.is_tensor(batch):
        return batch.tensor_split(parts)[part]
    return tuple(tensor.tensor_split(parts)[part] for tensor in batch)


def make_optimizer(model: DeepConnection, config: TrainConfig) -> Optimizer:
    """Adam or AdamW over all parameters that require a gradient, with discriminative rates.

    The head learns at config.lr, each ResNet stage at config.lr_decay times the rate of the stage
    above it (Howard & Ruder, arXiv 1801.06146, section 3.2; 1 gives all the same rate). Raises
    ValueError for an unknown optimizer, or an lr_decay that is not above 0 and up to 1.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {tuple(OPTIMIZERS)}, not {config.optimizer!r}.")
    if not 0 < config.lr_decay <= 1:
        raise ValueError(f"lr_decay lies above 0 and up to 1, not {config.lr_decay}.")
    groups = []
    for depth, names in enumerate(GROUPS):
        modules = [
            model.head if name == "head" else getattr(model.backbone, name) for name in names
        ]
        params = [p for module in modules for p in module.parameters() if p.requires_grad]
        if params:
            rate = config.lr * config.lr_decay**depth
            groups.append({"params": params, "lr": rate, "initial_lr": rate})
    return OPTIMIZERS[config.optimizer](groups, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Every group at this factor of the rate that it began with."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]


def cosine(share: float) -> float:
    """Factor of the learning rate after this share of all steps: 1 at the start, 0 at the end."""
    return 0.5 * (1 + math.cos(math.pi * share))


def is_frozen(config: TrainConfig, epoch: int) -> bool:
    """Whether only the head learns in this epoch."""
    return config.freeze_backbone or epoch < config.freeze_epochs


def class_weights(wanted: str | None, labels: Tensor, n_classes: int = 2) -> Tensor | None:
    """What a picture of each class counts in the loss: (n_classes,) float, or None for all alike.

    `wanted`: None, "balanced" (n / (n_classes * pictures of the class), which is 1 on average over
    the training pictures) or a positive number a class, such as "1,2". ValueError for others.

    >>> class_weights("balanced", torch.tensor([0, 0, 0, 1]))
    tensor([0.6667, 2.0000])
    """
    if wanted is None:
        return None
    if wanted == "balanced":
        return len(labels) / (n_classes * torch.bincount(labels, minlength=n_classes).float())
    try:
        weights = torch.tensor([float(weight) for weight in wanted.split(",")])
    except ValueError:
        weights = torch.empty(0)
    if len(weights) != n_classes or not (weights > 0).all():
        raise ValueError(
            f'class_weights must be "balanced" or {n_classes} positive numbers such as "1,2", '
            f"not {wanted!r}."
        )
    return weights


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
