"""What is special about Google Colab, and what any notebook should say about its machine."""

import os
import platform
import sys

import torch
import torchvision


def in_colab():
    """True in a Colab kernel and in processes it starts."""
    return "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules


def describe_machine():
    """One line: where this runs and on what. Print it at the top of a notebook."""
    where = "Colab" if in_colab() else "local"
    device = f"{os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        device = f"{torch.cuda.get_device_name()}, {device}"
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    return f"{where}, Python {platform.python_version()}, {versions}, {device}"


def upload_photos():
    """Ask for files with Colab's own dialog: {name: bytes}. Outside Colab an empty dict.

    Colab's dialog takes files of any size, where the upload widget there may lose them from 1 MB.
    It also writes them beside the notebook; those copies are removed.
    """
    if not in_colab():
        return {}
    from google.colab import files

    uploads = files.upload()
    for name in uploads:
        if os.path.exists(name):
            os.remove(name)
    return uploads
