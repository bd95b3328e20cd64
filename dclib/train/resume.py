"""The state of a run on disk: written whole or not at all, read without unpickling code."""

import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dclib.files import write_whole

STATE, PREVIOUS = "state.pt", "state.previous.pt"
# Settings that may change between two parts of one run: where and how fast it runs.
FREE = {"device", "workers", "precision", "opt_level", "accumulate", "cache", "save_minutes"}


def save_state(folder: str | Path, state: dict[str, Any]) -> None:
    """Write nested dicts, lists, numbers, strings and tensors as `folder`/state.pt.

    A kill at any moment leaves the new state, the one before, or both; never a half-written one
    under either name.
    """
    newest = Path(folder) / STATE
    with write_whole(newest) as unfinished:
        torch.save(state, unfinished)
        if newest.exists():
            newest.replace(newest.with_name(PREVIOUS))


def load_state(folder: str | Path) -> dict[str, Any] | None:
    """The newest whole state of a folder, tensors on the CPU; None if there is none.

    A damaged one (a drive may lose its last seconds) is named and the one before it taken. Raises
    ValueError if there are only damaged ones.
    """
    paths = [path for path in (Path(folder) / STATE, Path(folder) / PREVIOUS) if path.exists()]
    for path in paths:
        state, complaint = _read(path)
        if not complaint:
            return state
        print(f"{path} is damaged and not used ({complaint}).")
    if paths:
        raise ValueError(f"No state in {folder} can be read: delete the folder and begin again.")
    return None


def _read(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """(state, None), or (None, what is wrong with the file)."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():
                return None, "a checksum is wrong"
        return torch.load(path, map_location="cpu", weights_only=True), None
    except Exception as error:  # zipfile and torch raise types of their own
        return None, (str(error).splitlines() or [type(error).__name__])[0]


def drop_damaged(folder: str | Path) -> None:
    """Remove a damaged newest state, before saving puts it in the place of the whole one before."""
    path = Path(folder) / STATE
    if path.exists() and _read(path)[1]:
        path.unlink()


def has_state(folder: str | Path) -> bool:
    """Whether a folder holds the state of a run, whole or damaged."""
    return any((Path(folder) / name).exists() for name in (STATE, PREVIOUS))


def forget_state(folder: str | Path) -> None:
    """Remove a run's state, for example once its checkpoint is saved; no error if there is none."""
    for name in (STATE, PREVIOUS, STATE + ".unfinished"):
        (Path(folder) / name).unlink(missing_ok=True)
    if Path(folder).is_dir() and not any(Path(folder).iterdir()):
        Path(folder).rmdir()


def check_same_run(folder: str | Path, told: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raise ValueError, naming a difference, if a state is from a run of other settings or data.

    `told` is what the state says of its run, `identity` what the run says that wants to go on.
    """
    for name in identity | told:
        if name not in FREE and told.get(name) != identity.get(name):
            raise ValueError(
                f"The run in {folder} has {name} = {told.get(name)!r}, not {identity.get(name)!r}: "
                "use its settings and data to go on, another folder for a new run, or delete it."
            )


def random_state() -> dict[str, Any]:
    """State of the random numbers of Python, NumPy and torch (CPU and the current GPU)."""
    numpy = np.random.get_state(legacy=True)
    assert isinstance(numpy, tuple)
    name, keys, *rest = numpy
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Go on where `random_state` was taken, on the GPU that is the current one now."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
