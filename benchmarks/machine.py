"""What every benchmark's result says about where it was made."""

import importlib.metadata
import os
import platform
from pathlib import Path


def machine():
    """CPU, cores, GPU (None without torch or CUDA) and system."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((li.split(":")[1].strip() for li in lines if li.startswith("model name")), cpu)
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "system": platform.system()}


def versions(names):
    """Python's version, and those of the distributions that are installed."""
    found: dict[str, str] = {}
    for d in importlib.metadata.distributions():
        found.setdefault(d.metadata["Name"].lower(), d.version)  # the first is what is imported
    return {"python": platform.python_version()} | {n: found[n] for n in names if n in found}
