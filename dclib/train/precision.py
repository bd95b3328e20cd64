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

import os
import signal
import subprocess
import sys

import torch

from dclib.train.amp import FullPrecision, TorchAmp
from dclib.train.apex import OPT_LEVELS, _what_is_missing

PRECISIONS = ("auto", "fp32", "torch", "apex")
TRIAL_SECONDS = 180
# Opt levels; a failure is tried again, as Apex may have been installed since.
_worked: set[str] = set()


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
        from dclib.train.apex import ApexAmp

        return ApexAmp(opt_level)
    if name == "fp32":
        return FullPrecision()
    native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return TorchAmp(device, torch.bfloat16 if native else torch.float16)


def why_no_apex(opt_level: str = "O1") -> str | None:
    """None where Apex trains at this opt level, otherwise the reason in words.

    Tries some training steps in a process of its own: O1 patches torch and may fail on a new one.
    """
    reason = _what_is_missing()
    if reason or opt_level in _worked:
        return reason
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dclib.train.precision", opt_level],
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
