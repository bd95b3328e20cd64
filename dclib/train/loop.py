"""The loop of training: batches, updates, epochs, and the state that a killed run goes on from.

`dclib.train.fit` is the way in. What stands here is one run: everything that changes while it
trains is an attribute of `Training`, so that `state` can save it and `load` bring it back.
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset
from tqdm.auto import tqdm

from dclib.config import TrainConfig
from dclib.data import CoupleFolder, EpochBatches, make_loader
from dclib.evaluate import predict_logits, score
from dclib.model import DeepConnection
from dclib.precision import FullPrecision
from dclib.training.distributed import Processes
from dclib.training.history import History, Stopwatch, peak_memory, reset_peak_memory
from dclib.training.recipe import cosine
from dclib.training.resume import (
    check_same_run,
    drop_damaged,
    load_state,
    random_state,
    save_state,
    set_random_state,
)
from dclib.training.update import Updater

Watcher = Callable[[History], object]
LOOK_EVERY = 10  # steps on a GPU between two readings of the loss: each makes it wait for Python
# Of an epoch.
NOTHING_YET: dict[str, Any] = {"loss": 0.0, "right": 0, "n": 0, "seconds": 0.0, "waited": 0.0}
PROGRESS = ("epoch", "batch", "finished", "best_score", "lowest_loss", "idle")
WATCH_SECONDS = 2.0  # between two calls of the watchers within an epoch


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
