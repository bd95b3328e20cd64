"""NVIDIA's apex.amp as a `dclib.train.precision`, and everything it changes put back afterwards.

Meant for release 25.04, the last good one; later ones have no amp. O1 patches torch for the whole
process, O2 and O3 leave a model in half precision: `ApexAmp.restore` undoes both.
"""

import contextlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from dclib.train.amp import FullPrecision

Place = type | types.ModuleType | dict[str, Any]  # where Apex patches
# (place, its names before Apex patched it); empty while nothing is patched.
_torch_before: list[tuple[Place, dict[str, Any]]] = []
OPT_LEVELS = ("O0", "O1", "O2", "O3")


class ApexAmp(FullPrecision):
    """apex.amp: O0 float32, O1 casts around functions, O2 half weights with float32 masters, O3 all
    half (a speed ceiling; with Adam it seldom converges).

    Every backward pass unscales its own gradients, so that under DistributedDataParallel each part
    of an accumulated step has to synchronise: no `no_sync()`.
    """

    name = "apex"

    def __init__(self, opt_level: str = "O1") -> None:
        from apex import amp

        self.amp, self.opt_level, self.network = amp, opt_level, nn.Module()

    def __str__(self) -> str:
        return f"{'float32' if self.opt_level == 'O0' else 'float16'} by Apex {self.opt_level}"

    def prepare(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        self.network = network
        _remember_torch()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "apex.amp is deprecated", FutureWarning)
                network, optimizer = self.amp.initialize(
                    network, optimizer, opt_level=self.opt_level, verbosity=0
                )
            optimizer.zero_grad()  # O2 makes its masters here, of what requires grad now
        except BaseException:
            self.restore(self.network)
            raise
        return network, optimizer

    @contextlib.contextmanager
    def uncast(self) -> Iterator[None]:
        if self.opt_level != "O1":
            yield
            return
        casts = self.amp.disable_casts()  # by itself it leaves them off after an exception
        casts.__enter__()
        try:
            yield
        finally:
            casts.__exit__(None, None, None)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Casts by torch, as Apex's cache of cast weights would mix with the training pass."""
        device = next(self.network.parameters()).device.type
        half = self.opt_level != "O0"
        with self.uncast(), torch.autocast(device, torch.float16, enabled=half):
            yield

    def backward(self, loss: Tensor, optimizer: Optimizer) -> None:
        with self.amp.scale_loss(loss, optimizer) as scaled_loss:
            scaled_loss.backward()

    def unscaled(self, optimizer: Optimizer) -> list[Tensor]:
        return list(self.amp.master_params(optimizer))

    def zero_grad(self, optimizer: Optimizer) -> None:
        """To None everywhere: O2's own leaves zeros, and weights frozen then would still decay."""
        masters = self.amp.master_params(optimizer)
        for parameter in (*self.network.parameters(), *masters):
            parameter.grad = None

    def abandon(self, optimizer: Any) -> None:  # Any: Apex gave it more attributes
        self.zero_grad(optimizer)
        stash = optimizer._amp_stash
        for name, gradients in vars(stash).items():
            if name.endswith("grad_stash"):  # those of earlier parts of the step
                gradients[:] = [None] * len(gradients)
        if stash.already_patched:  # an earlier part overflowed: this call only takes the skip away
            optimizer.step()
        if self.opt_level == "O1":
            self.amp._amp_state.handle._clear_cache()

    def state_dict(self, optimizer: Optimizer) -> dict[str, Any]:
        masters = self.amp.master_params(optimizer) if self.opt_level == "O2" else []
        return super().state_dict(optimizer) | {
            "scaler": dict(self.amp.state_dict()),
            "masters": [master.detach() for master in masters],
        }

    def _load(self, state: dict[str, Any], optimizer: Any) -> None:
        self.amp.load_state_dict(state["scaler"])
        if self.opt_level == "O2":
            masters = self.amp.master_params(optimizer)
            for master, saved in zip(masters, state["masters"], strict=True):
                master.data.copy_(saved)
            optimizer._master_params_to_model_params()

    def _start_anew(self, optimizer: Any) -> None:
        if self.opt_level == "O2":
            stash = optimizer._amp_stash
            for weight, master in zip(stash.all_fp16_params, stash.all_fp32_from_fp16_params):
                master.data.copy_(weight)

    def restore(self, model: nn.Module) -> None:
        _restore_torch()
        handle = getattr(self.amp._amp_state, "handle", None)
        if handle is not None:  # for whoever imported a patched function meanwhile
            handle._is_active = False
            handle._clear_cache()
        for module in model.modules():
            hooks = module._state_dict_hooks
            for key in [key for key, hook in hooks.items() if _from_apex(hook)]:
                del hooks[key]
            if _from_apex(vars(module).get("forward")):
                del module.forward
        model.float()
        self.network = nn.Module()  # lets go of the prepared one


def try_steps(opt_level: str, device: str | torch.device = "cuda", n: int = 3) -> None:
    """Train and evaluate a small DeepConnection with Apex; raises whatever goes wrong."""
    from dclib.model import DeepConnection

    torch.manual_seed(0)
    precision = ApexAmp(opt_level)
    model = DeepConnection(backbone="resnet18", weights=None).to(device)
    optimizer: Optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images, labels = torch.randn(4, 3, 64, 64, device=device), torch.arange(4, device=device) % 2
    try:
        network, optimizer = precision.prepare(torch.nn.Sequential(model), optimizer)
        for _ in range(n):
            with precision.forward():
                loss = F.cross_entropy(network(images), labels)
            precision.backward(loss, optimizer)
            precision.step(optimizer)
            precision.zero_grad(optimizer)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"a loss of {loss.item()}")
        with precision.evaluating(), torch.inference_mode():
            model.eval()(images)
    finally:
        precision.restore(model)


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


def _names(place: Place) -> Mapping[str, Any]:
    return place if isinstance(place, dict) else vars(place)


def _from_apex(value: object) -> bool:
    """Whether a function was defined in Apex (it borrows another's name), or an object's class."""
    module = type(value).__module__
    if isinstance(value, types.FunctionType):
        module = value.__globals__.get("__name__", "")
    return str(module).split(".")[0] == "apex"


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
        try_steps(opt_level)
    except Exception as error:  # whatever an old Apex meets in a new torch
        said = str(error).strip().splitlines() or ["no message"]
        sys.exit(f"{type(error).__name__}: {said[0]}")
    print("ok")


if __name__ == "__main__":
    main()
