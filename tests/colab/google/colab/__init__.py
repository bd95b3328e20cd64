"""A stand-in for Colab's package: a dialog in which nothing is chosen, and a Drive in a folder."""

from pathlib import Path
from types import SimpleNamespace


def mount(place):
    """As after "Connect to Google Drive"."""
    Path(place, "MyDrive").mkdir(parents=True, exist_ok=True)


files = SimpleNamespace(upload=lambda: {})
drive = SimpleNamespace(mount=mount)
