"""Mixed precision behind one small interface: float32, torch AMP, or NVIDIA's Apex (O0 to O3).

python -m dclib.precision O1    # does Apex train on this machine? prints ok, or what is wrong

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
import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

PRECISIONS = ("auto", "fp32", "torch", "apex")
OPT_LEVELS = ("O0", "O1", "O2", "O3")
TRIAL_SECONDS = 180


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


def make_precision(name: str, device: str | torch.device, opt_level: str = "O1") -> FullPrecision:
    """The precision of a run, with the interface of `FullPrecision`.

    Args:
        name: "auto" (torch AMP on CUDA, float32 elsewhere), "fp32", "torch" or "apex"; where Apex
            does not work on a GPU, torch AMP takes its place and a printed sentence says why.
        device: where the model is trained.
        opt_level: of Apex.

    Raises ValueError for an unknown name or opt level, and for Apex without a GPU.
    """
    device = torch.device(device)
    if name == "apex" and device.type != "cuda":
        raise ValueError(
            f'precision="apex" needs an NVIDIA GPU and this run is on {device.type}; '
            'use precision="auto", which is float32 there.'
        )
    chosen, sentence = choose_precision(name, device, opt_level)
    if name == "apex" and chosen != "apex":
        print(sentence)
    return _build(chosen, device, opt_level)


def choose_precision(
    wanted: str, device: str | torch.device, opt_level: str = "O1"
) -> tuple[str, str]:
    """What `wanted` comes to on this device: (name, a sentence that says so and why).

    Raises ValueError for an unknown name or opt level, never for a missing GPU or Apex.
    """
    if wanted not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, not {wanted!r}.")
    if opt_level not in OPT_LEVELS:
        raise ValueError(f"opt_level must be one of {OPT_LEVELS}, not {opt_level!r}.")
    device, name = torch.device(device), wanted
    reason: str | None = None
    if wanted == "apex":
        on_gpu = device.type == "cuda"
        reason = why_no_apex(opt_level) if on_gpu else f"this run is on {device.type}"
    if wanted == "auto" or reason:
        name = "torch" if device.type == "cuda" else "fp32"
    sentence = f"Training in {_build(name, device, opt_level)}."
    return name, f"Apex cannot be used: {reason}. {sentence}" if reason else sentence


def _build(name: str, device: torch.device, opt_level: str) -> FullPrecision:
    if name == "apex":
        from dclib.training.apex_amp import ApexAmp

        return ApexAmp(opt_level)
    if name == "fp32":
        return FullPrecision()
    native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return TorchAmp(device, torch.bfloat16 if native else torch.float16)


# Opt levels; a failure is tried again, as Apex may have been installed since.
_worked: set[str] = set()


def why_no_apex(opt_level: str = "O1") -> str | None:
    """None where Apex trains at this opt level, otherwise the reason in words.

    Tries some training steps in a process of its own: O1 patches torch and may fail on a new one.
    """
    reason = _what_is_missing()
    if reason or opt_level in _worked:
        return reason
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dclib.precision", opt_level],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"a trial at {opt_level} did not end within {TRIAL_SECONDS} s"
    if done.returncode < 0:
        return f"a trial at {opt_level} crashed with {signal.Signals(-done.returncode).name}"
    if done.returncode > 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return f"a trial at {opt_level} failed with {said[-1]}".rstrip(".")
    _worked.add(opt_level)
    return None


def _what_is_missing() -> str | None:
    """Looks at the disk only: importing another project's apex could do anything."""
    if not torch.cuda.is_available():
        return "there is no NVIDIA GPU"
    spec = importlib.util.find_spec("apex")
    if spec is None:
        return "the package is not installed"
    if not any(Path(folder, "amp").is_dir() for folder in spec.submodule_search_locations or []):
        return "the installed apex has no amp (it is not NVIDIA's, or newer than release 25.04)"
    return None


def main() -> None:
    """Try Apex at the opt level that the command line names; without one, at O1."""
    opt_level = sys.argv[1] if len(sys.argv) > 1 else "O1"
    if opt_level not in OPT_LEVELS:
        sys.exit(f"opt_level must be one of {OPT_LEVELS}, not {opt_level!r}.")
    if reason := _what_is_missing():
        sys.exit(f"Apex cannot be used: {reason}.")
    try:
        from dclib.training.apex_amp import try_steps

        try_steps(opt_level)
    except Exception as error:  # whatever an old Apex meets in a new torch
        said = str(error).strip().splitlines() or ["no message"]
        sys.exit(f"{type(error).__name__}: {said[0]}")
    print("ok")


if __name__ == "__main__":
    main()
