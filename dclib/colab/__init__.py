"""What is special about Google Colab, and what any notebook shows of its machine and of dclib."""

import contextlib
import importlib.util
import inspect
import os
import platform
import subprocess
import sys
import tempfile
from typing import Any

import torch
import torchvision

APEX = "https://github.com/NVIDIA/apex/archive/refs/tags/25.04.tar.gz"


def in_colab() -> bool:
    """True in a Colab kernel and in processes it starts."""
    return "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules


def describe_machine() -> str:
    """One line: where this runs and on what. Print it at the top of a notebook."""
    where = "Colab" if in_colab() else "local"
    device = f"{os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        device = f"{torch.cuda.get_device_name()}, {device}"
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    return f"{where}, Python {platform.python_version()}, {versions}, {device}"


def show_source(*things: Any) -> None:
    """Show how functions or classes are written: in a notebook with colours, else as text."""
    from IPython import get_ipython
    from IPython.display import display

    for thing in things:
        source = inspect.getsource(thing).strip()
        if get_ipython() is None:
            print(source)
        else:  # Markdown takes the colours of light and dark themes, which `display.Code` does not
            fenced = f"````python\n{source}\n````"
            display({"text/markdown": fenced, "text/plain": source}, raw=True)


def install_apex() -> str:
    """Install the last Apex with mixed precision, where that can work. Returns what happened.

    Only in Colab with a GPU: its Python-only build takes a quarter of a minute, but needs the CUDA
    toolkit that is there. `dclib.train.precision.why_no_apex` tells afterwards whether Apex trains.
    """
    if importlib.util.find_spec("apex"):
        return "There is an apex already: nothing installed."
    if not in_colab() or not torch.cuda.is_available():
        return "Apex is only installed in Colab with a GPU: nothing installed."
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", APEX]
    done = subprocess.run(pip, capture_output=True, text=True)
    importlib.invalidate_caches()
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        return f"Apex could not be installed: {said[-1]}"
    return f"Installed Apex from {APEX}."


def upload_photos() -> dict[str, bytes]:
    """Ask for files with Colab's own dialog: {name: bytes}. Outside Colab an empty dict.

    Colab's dialog takes files of any size, where the upload widget there may lose them from 1 MB.
    It also writes copies into the current folder: meanwhile one of its own, removed afterwards.
    """
    if not in_colab():
        return {}
    from google.colab import files

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return files.upload()
