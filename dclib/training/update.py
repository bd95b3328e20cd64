"""One update of the weights: a batch, in as many parts as memory wants, in any precision."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from dclib.config import TrainConfig
from dclib.data import CoupleFolder
from dclib.model import DeepConnection, dropout_loss
from dclib.precision import FullPrecision
from dclib.training.distributed import Processes, distribute
from dclib.training.recipe import class_weights, is_frozen, make_optimizer, set_learning_rate

Batch = Tensor | Sequence[Tensor]  # as a loader gives it, before `finish` of the transform


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
        precision: from `dclib.precision.make_precision`.
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
