"""The state of a run on disk: written whole or not at all, read without unpickling code."""

import os
import random
import zipfile
from pathlib import Path

import numpy as np
import torch

STATE, PREVIOUS = "state.pt", "state.previous.pt"
# Settings that may change between two parts of one run: where and how fast it runs.
FREE = {"device", "workers", "precision", "opt_level", "accumulate", "cache", "save_minutes"}


def save_state(folder, state):
    """Write nested dicts, lists, numbers, strings and tensors as `folder`/state.pt.

    A kill at any moment leaves the new state, the one before, or both; never a half-written one
    under either name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / (STATE + ".unfinished")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if (folder / STATE).exists():
        os.replace(folder / STATE, folder / PREVIOUS)
    os.replace(unfinished, folder / STATE)


def load_state(folder):
    """The newest whole state of a folder, tensors on the CPU; None if there is none.

    A damaged one (a drive may lose its last seconds) is named and the one before it taken. Raises
    ValueError if there are only damaged ones.
    """
    paths = [path for path in (Path(folder) / STATE, Path(folder) / PREVIOUS) if path.exists()]
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():
                    raise ValueError("a checksum is wrong")
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # zipfile and torch raise types of their own
            print(f"{path} is damaged and not used ({str(error).splitlines()[0]}).")
    if paths:
        raise ValueError(f"No state in {folder} can be read: delete the folder and begin again.")
    return None


def has_state(folder):
    return any((Path(folder) / name).exists() for name in (STATE, PREVIOUS))


def forget_state(folder):
    """Remove a run's state, for example once its checkpoint is saved; no error if there is none."""
    for name in (STATE, PREVIOUS, STATE + ".unfinished"):
        (Path(folder) / name).unlink(missing_ok=True)
    if Path(folder).is_dir() and not any(Path(folder).iterdir()):
        Path(folder).rmdir()


def check_same_run(folder, told, identity):
    """Raise ValueError, naming a difference, if a state is from a run of other settings or data."""
    for name in identity.keys() | told.keys():
        if name not in FREE and told.get(name) != identity.get(name):
            raise ValueError(
                f"The run in {folder} has {name} = {told.get(name)!r}, not {identity.get(name)!r}: "
                "use its settings and data to go on, another folder for a new run, or delete it."
            )


def random_state():
    """State of the random numbers of Python, NumPy and torch (CPU and all GPUs)."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state):
    """Go on where `random_state` was taken. On other or fewer GPUs than then, theirs stay as is."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
