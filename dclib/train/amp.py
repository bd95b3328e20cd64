"""float32 and torch's mixed precision behind the interface that Apex has too (see `apex`)."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Precision:
    """float32 without a `dtype`; with one torch's autocast, and for float16 its GradScaler.

    The scaler is there because small gradients would vanish. Order of calls: `prepare`, then for
    each step what `train_step` does, then `restore`.
    """

    def __init__(
        self, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        self.device, self.dtype = torch.device(device).type, dtype
        self.name = "torch" if dtype else "fp32"
        self._new_scaler()

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} by torch AMP" if self.dtype else "float32"

    def prepare(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Both, ready to train; `restore` follows in the end, even if this raises.

        Call it while every weight that will ever train requires grad, and wrap the network in
        DistributedDataParallel afterwards.
        """
        return network, optimizer

    def forward(self) -> AbstractContextManager:
        """Context of the training forward pass and the loss."""
        return torch.autocast(self.device, self.dtype) if self.dtype else contextlib.nullcontext()

    def evaluating(self) -> AbstractContextManager:
        """Context of an evaluation of the bare model (not of the prepared network) in training."""
        return self.forward()

    def uncast(self) -> AbstractContextManager:
        """Context of other work on the training device, such as augmentation: nothing is cast."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor, optimizer: Optimizer) -> None:
        """Add the gradients of a loss; several calls before a step accumulate."""
        self.scaler.scale(loss).backward()

    def unscaled(self, optimizer: Optimizer) -> list[Tensor]:
        """Parameters whose gradients now have their true size, for clipping; once a step."""
        self.scaler.unscale_(optimizer)
        return [p for group in optimizer.param_groups for p in group["params"]]

    def step(self, optimizer: Optimizer) -> None:
        """Update the weights, unless float16 gradients overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def abandon(self, optimizer: Optimizer) -> None:
        """Forget a step that failed half-way, so that its batch can be tried again."""
        optimizer.zero_grad()
        scale = self.scaler.state_dict()
        self._new_scaler()  # the old one may believe that this step's gradients are unscaled
        self.scaler.load_state_dict(scale)

    def state_dict(self) -> dict[str, Any]:
        """Everything of a run that model and optimiser do not hold."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same precision."""
        self.scaler.load_state_dict(state)

    def restore(self) -> None:
        """Leave the process as before `prepare`; safe to call at any time, and again."""

    def _new_scaler(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.dtype == torch.float16)
