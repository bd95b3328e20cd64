"""Which precision a run gets: float32, torch AMP or Apex, and why not the one that was wanted."""

import os
import signal
import subprocess
import sys

import torch

from dclib.train.amp import Precision
from dclib.train.config import PRECISIONS

TRIAL_SECONDS = 180
_worked = False  # whether a trial did; a failure is tried again, as Apex may be installed since


def make_precision(name: str, device: str | torch.device) -> Precision:
    """The precision of a run on a device.

    "auto" is torch AMP on CUDA and on a CPU with units for bfloat16, else float32. Where "apex"
    does not work on a GPU, torch AMP takes its place and a printed sentence says why. Raises
    ValueError for an unknown name, and for Apex without a GPU.
    """
    device = torch.device(device)
    if name == "apex" and device.type != "cuda":
        raise ValueError(
            f'precision="apex" needs an NVIDIA GPU and this run is on {device.type}; '
            'use precision="auto".'
        )
    chosen, sentence = choose_precision(name, device)
    if name == "apex" and chosen != "apex":
        print(sentence)
    return _build(chosen, device)


def choose_precision(wanted: str, device: str | torch.device) -> tuple[str, str]:
    """What `wanted` comes to on this device: (name, a sentence that says so and why).

    Raises ValueError for an unknown name, never for a missing GPU or Apex.
    """
    if wanted not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, not {wanted!r}.")
    device, name = torch.device(device), wanted
    reason: str | None = None
    if wanted == "apex":
        reason = why_no_apex() if device.type == "cuda" else f"this run is on {device.type}"
    if wanted == "auto" or reason:
        name = "torch" if device.type == "cuda" or _is_fast_in_16_bits(device) else "fp32"
    sentence = f"Training in {_build(name, device)}."
    return name, f"Apex cannot be used: {reason}. {sentence}" if reason else sentence


def _build(name: str, device: torch.device) -> Precision:
    if name == "apex":
        from dclib.train.apex import ApexAmp  # late, as `python -m dclib.train.apex` comes by here

        return ApexAmp(device)
    if name == "fp32":
        return Precision(device)
    native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return Precision(device, torch.bfloat16 if native else torch.float16)


def _is_fast_in_16_bits(device: torch.device) -> bool:
    """Whether this is a CPU that multiplies in bfloat16 (AVX-512 BF16, AMX)."""
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch has no public name for it
    return device.type == "cpu" and ask is not None and bool(ask())


def why_no_apex() -> str | None:
    """None where Apex trains, otherwise the reason in words.

    Tries some training steps in a process of its own: it patches torch and may fail on a new one.
    """
    global _worked
    from dclib.train.apex import what_is_missing

    reason = what_is_missing()
    if reason or _worked:
        return reason
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dclib.train.apex"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"a trial at O1 did not end within {TRIAL_SECONDS} s"
    if done.returncode < 0:
        return f"a trial at O1 crashed with {signal.Signals(-done.returncode).name}"
    if done.returncode > 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return f"a trial at O1 failed with {said[-1]}".rstrip(".")
    _worked = True
    return None
