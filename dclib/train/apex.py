"""NVIDIA's apex.amp at O1, and everything it changes put back afterwards.

    python -m dclib.train.apex    # does Apex train on this machine? prints ok, or what is wrong

Meant for release 25.04, the last one with amp. O1, the authors' level, casts around functions of
torch, which it patches for the whole process: `ApexAmp.restore` undoes that.
"""

import contextlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from dclib.model import DeepConnection
from dclib.train.amp import Precision
from dclib.train.config import TrainConfig, make_optimizer
from dclib.train.loop import SampleLogits, train_step

# (where Apex patches, its names before that); empty while nothing is patched.
_torch_before: list[tuple[Any, dict[str, Any]]] = []


class ApexAmp(Precision):
    """apex.amp at O1."""

    def __init__(self, device: str | torch.device = "cuda") -> None:
        from apex import amp

        super().__init__(device)
        self.name, self.amp = "apex", amp

    def __str__(self) -> str:
        return "float16 by Apex O1"

    def prepare(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        _remember_torch()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "apex.amp is deprecated", FutureWarning)
            return self.amp.initialize(network, optimizer, opt_level="O1", verbosity=0)

    @contextlib.contextmanager
    def uncast(self) -> Iterator[None]:
        casts = self.amp.disable_casts()  # by itself it leaves them off after an exception
        casts.__enter__()
        try:
            yield
        finally:
            casts.__exit__(None, None, None)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Casts by torch, as Apex's cache of cast weights would mix with the training pass."""
        with self.uncast(), torch.autocast(self.device, torch.float16):
            yield

    def backward(self, loss: Tensor, optimizer: Optimizer) -> None:
        with self.amp.scale_loss(loss, optimizer) as scaled_loss:
            scaled_loss.backward()

    def abandon(self, optimizer: Any) -> None:  # Any: Apex gave it more attributes
        super().abandon(optimizer)
        stash = optimizer._amp_stash
        for name, gradients in vars(stash).items():
            if name.endswith("grad_stash"):  # those of earlier parts of the step
                gradients[:] = [None] * len(gradients)
        if stash.already_patched:  # an earlier part overflowed: this call only takes the skip away
            optimizer.step()
        self.amp._amp_state.handle._clear_cache()

    def state_dict(self) -> dict[str, Any]:
        return dict(self.amp.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.amp.load_state_dict(state)

    def restore(self) -> None:
        _restore_torch()
        handle = getattr(self.amp._amp_state, "handle", None)
        if handle is not None:  # for whoever imported a patched function meanwhile
            handle._is_active = False
            handle._clear_cache()


def try_steps(device: str | torch.device = "cuda", n: int = 3) -> None:
    """Train and evaluate a small DeepConnection with Apex; raises whatever goes wrong."""
    torch.manual_seed(0)
    config, precision = TrainConfig.demo(), ApexAmp(device)
    model = DeepConnection(backbone="resnet18", weights=None).to(device).train()
    images, labels = torch.randn(4, 3, 32, 32, device=device), torch.arange(4, device=device) % 2
    try:
        network, optimizer = precision.prepare(SampleLogits(model), make_optimizer(model, config))
        for _ in range(n):
            loss, _ = train_step(network, optimizer, precision, [(images, labels)], 4, config)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"a loss of {loss.item()}")
        with precision.evaluating(), torch.inference_mode():
            model.eval()(images)
    finally:
        precision.restore()


def _remember_torch() -> None:
    _restore_torch()
    rnn = torch.nn.modules.rnn
    for place in (torch, F, torch.Tensor, rnn, rnn._rnn_impls):
        _torch_before.append((place, dict(_names(place))))


def _restore_torch() -> None:
    """Undo Apex's patches and nothing else: torch adds names of its own when they are first used.

    Apex's `_deactivate` forgets its RNN shim and leaves a hundred names on torch.Tensor that had
    been inherited.
    """
    while _torch_before:
        place, before = _torch_before[-1]
        for name in [name for name, value in _names(place).items() if _from_apex(value)]:
            if isinstance(place, dict):
                place[name] = before[name]
            elif name in before:
                setattr(place, name, before[name])
            else:
                delattr(place, name)
        _torch_before.pop()


def _names(place: Any) -> Any:
    return place if isinstance(place, dict) else vars(place)


def _from_apex(value: object) -> bool:
    """Whether a function was defined in Apex (it borrows another's name), or an object's class."""
    module = type(value).__module__
    if isinstance(value, types.FunctionType):
        module = value.__globals__.get("__name__", "")
    return str(module).split(".")[0] == "apex"


def what_is_missing() -> str | None:
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
    """Try Apex on this machine."""
    if reason := what_is_missing():
        sys.exit(f"Apex cannot be used: {reason}.")
    try:
        try_steps()
    except Exception as error:  # whatever an old Apex meets in a new torch
        said = str(error).strip().splitlines() or ["no message"]
        sys.exit(f"{type(error).__name__}: {said[0]}")
    print("ok")


if __name__ == "__main__":
    main()
