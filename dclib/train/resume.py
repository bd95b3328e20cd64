"""The state of a run on disk: written whole or not at all, read without unpickling code."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from dclib.data.loading import CoupleFolder
from dclib.files import write_whole

STATE, PREVIOUS = "state.pt", "state.previous.pt"
# Settings that may change between two parts of one run: where and how fast it runs.
FREE = {"device", "workers", "precision", "accumulate", "cache"}


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
    """The newest state of a folder that can be read, tensors on the CPU; None if there is none.

    A damaged one (a drive may lose its last seconds) is named and the one before it taken. Raises
    ValueError if there are only damaged ones.
    """
    paths = [path for path in (Path(folder) / STATE, Path(folder) / PREVIOUS) if path.exists()]
    for path in paths:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises types of its own
            said = (str(error).splitlines() or [type(error).__name__])[0]
            print(f"{path} is damaged and not used ({said}).")
            continue
        if path != paths[0]:  # else the next state would push this whole one out
            paths[0].unlink(missing_ok=True)
        return state
    if paths:
        raise ValueError(f"No state in {folder} can be read: delete the folder and begin again.")
    return None


def has_state(folder: str | Path) -> bool:
    """Whether a folder holds the state of a run, whole or damaged."""
    return any((Path(folder) / name).exists() for name in (STATE, PREVIOUS))


def forget_state(folder: str | Path) -> None:
    """Remove a run's state, for example once its checkpoint is saved; no error if there is none."""
    for name in (STATE, PREVIOUS, STATE + ".unfinished"):
        (Path(folder) / name).unlink(missing_ok=True)
    if Path(folder).is_dir() and not any(Path(folder).iterdir()):
        Path(folder).rmdir()


def describe_data(*datasets: CoupleFolder) -> str:
    """A hash of names, labels and sizes of all pictures: what a resumed run must find again."""
    digest = hashlib.sha256()
    for dataset in datasets:
        for path, label in dataset.samples:
            name = path.relative_to(dataset.root).as_posix()
            digest.update(f"{name} {label} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def check_same_run(folder: str | Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ValueError, naming a difference, if a saved run had other settings or data."""
    for name in wanted | saved:
        if name not in FREE and saved.get(name) != wanted.get(name):
            raise ValueError(
                f"The run in {folder} has {name} = {saved.get(name)!r}, not {wanted.get(name)!r}: "
                "use its settings and data to go on, another folder for a new run, or delete it."
            )
