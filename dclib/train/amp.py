"""Mixed precision behind one small interface: float32, torch AMP, or NVIDIA's Apex (O0 to O3).

python -m dclib.train.precision O1    # does Apex train on this machine? prints ok, or what is wrong

    precision = make_precision("auto", device)
    try:
        network, optimizer = precision.prepare(network, optimizer)
        with precision.forward():
            loss = criterion(network(images), labels)
        precision.backward(loss, optimizer)
        clip_grad_norm_(precision.unscaled(optimizer), 1.0)
        precision.step(optimizer)
        precision.zero_grad(optimizer)
    finally:
        precision.restore(model)
"""

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class FullPrecision:
    """float32; also what the other two offer. Prepare, train (forward to zero_grad), restore."""

    name = "fp32"

    def __str__(self) -> str:
        return "float32"

    def prepare(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Both, ready to train.

        Call it while every weight that will ever train requires grad, and wrap the network in
        DistributedDataParallel afterwards.
        """
        return network, optimizer

    def forward(self) -> AbstractContextManager:
        """Context of the training forward pass and the loss."""
        return contextlib.nullcontext()

    def uncast(self) -> AbstractContextManager:
        """Context of other work on the training device, such as augmentation: nothing is cast."""
        return contextlib.nullcontext()

    def evaluating(self) -> AbstractContextManager:
        """Context of an evaluation of the bare model (not of the prepared network) in training."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor, optimizer: Optimizer) -> None:
        """Add the gradients of a loss; several calls before a step accumulate."""
        loss.backward()

    def unscaled(self, optimizer: Optimizer) -> list[Tensor]:
        """Parameters whose gradients now have their true size, for clipping; once a step."""
        return [p for group in optimizer.param_groups for p in group["params"]]

    def step(self, optimizer: Optimizer) -> None:
        """Update the weights, unless float16 gradients overflowed."""
        optimizer.step()

    def zero_grad(self, optimizer: Optimizer) -> None:
        """Forget all gradients: they become None."""
        optimizer.zero_grad(set_to_none=True)

    def abandon(self, optimizer: Optimizer) -> None:
        """Forget a step that failed half-way, so that its batch can be tried again."""
        self.zero_grad(optimizer)

    def state_dict(self, optimizer: Optimizer) -> dict[str, Any]:
        """Everything of a run that model and optimiser do not hold; tensors are not copied."""
        return {"name": self.name, "precision": str(self)}

    def load_state_dict(self, state: dict[str, Any], optimizer: Optimizer) -> None:
        """Go on from a state. Load the model's and the optimiser's own before this one.

        A run that was saved in another precision goes on in this one; a printed line says so.
        """
        if state["precision"] == str(self):
            self._load(state, optimizer)
        else:
            print(f"The saved run was in {state['precision']}; it goes on in {self}.")
            self._start_anew(optimizer)

    def restore(self, model: nn.Module) -> None:
        """Leave model and process as before `prepare`; safe to call at any time, and again."""

    def _load(self, state: dict[str, Any], optimizer: Optimizer) -> None:
        pass

    def _start_anew(self, optimizer: Optimizer) -> None:
        pass


class TorchAmp(FullPrecision):
    """torch's autocast; float16 also needs its GradScaler, as small gradients would vanish."""

    name = "torch"

    def __init__(self, device: str | torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self._new_scaler()

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} by torch AMP"

    def forward(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype)

    evaluating = forward

    def backward(self, loss: Tensor, optimizer: Optimizer) -> None:
        self.scaler.scale(loss).backward()

    def unscaled(self, optimizer: Optimizer) -> list[Tensor]:
        self.scaler.unscale_(optimizer)
        return super().unscaled(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        self.scaler.step(optimizer)
        self.scaler.update()

    def abandon(self, optimizer: Optimizer) -> None:
        super().abandon(optimizer)
        scale = self.scaler.state_dict()
        self._new_scaler()  # the old one may believe that this step's gradients are unscaled
        self.scaler.load_state_dict(scale)

    def state_dict(self, optimizer: Optimizer) -> dict[str, Any]:
        return super().state_dict(optimizer) | {"scaler": self.scaler.state_dict()}

    def _load(self, state: dict[str, Any], optimizer: Optimizer) -> None:
        self.scaler.load_state_dict(state["scaler"])

    def _new_scaler(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
