"""The state of a run or a study on disk: whole or not there, read without unpickling code."""

import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from dclib.checkpoint import ENTRIES
from dclib.data.loading import CoupleFolder
from dclib.files import check_place, hold, remove_files, write_whole
from dclib.rules import TEXT, check, number, row_of

STATE, PREVIOUS = "state.pt", "state.previous.pt"
DONE = "done.json"  # the trainings of a study that have ended
SAVED = {  # what done.json holds
    "settings": {},
    "done": {
        "*": {
            "ids": row_of(TEXT, 1, 10**9),
            "logits": row_of(row_of(number(-1e9, 1e9), 2, 2), 1, 10**9),
            "temperature": ENTRIES["temperature"],
            "threshold": ENTRIES["threshold"],
            "epoch": number(0, 1e6, whole=True),
        }
    },
}
# Settings that may change between two parts of one run: where and how fast it runs.
FREE = {"device", "workers", "precision", "accumulate", "cache"}


def save_state(folder: str | Path, state: dict[str, Any]) -> None:
    """Write nested dicts, lists, numbers, strings and tensors as `folder`/state.pt.

    A kill at any moment leaves the new state, the one before, or both; never a half-written one
    under either name.
    """
    newest = Path(folder) / STATE
    with write_whole(newest) as unfinished:
        with unfinished.open("wb") as file:  # torch's own writer hides what the disk says
            torch.save(state, file)
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
            if not isinstance(state, dict):
                raise ValueError("it is no state of a run")
        except Exception as error:  # torch raises types of its own
            said = (str(error).splitlines() or [type(error).__name__])[0]
            print(f"{path} is damaged and not used ({said}).")
            continue
        if path != paths[0]:  # else the next state would push this whole one out
            paths[0].unlink(missing_ok=True)
        return state
    if paths:
        raise ValueError(
            f"No state in {folder} can be read: move that folder away, or choose another, to begin."
        )
    return None


def has_state(folder: str | Path) -> bool:
    """Whether a folder holds the state of a run, whole or damaged."""
    return any((Path(folder) / name).exists() for name in (STATE, PREVIOUS))


def hold_state(folder: str | Path | None, wait: bool = False) -> AbstractContextManager[None]:
    """Have a run's folder for this process alone; None: nothing is held. See `dclib.files.hold`."""
    busy = f"Another process trains with its state in {folder}: "
    busy += "waiting for its end." if wait else "wait for its end, or choose another folder."
    return nullcontext() if folder is None else hold(folder, busy, wait)


def forget_state(folder: str | Path) -> None:
    """Remove a run's state, for example once its checkpoint is saved; no error if there is none."""
    remove_files(folder, (STATE, PREVIOUS))


def describe_data(*datasets: CoupleFolder) -> dict[str, Any]:
    """How many pictures, and a hash of their names, labels and sizes: to be found again."""
    digest, n = hashlib.sha256(), 0
    for dataset in datasets:
        for path, label in dataset.samples:
            name = path.relative_to(dataset.root).as_posix()
            digest.update(f"{name} {label} {path.stat().st_size}\n".encode())
            n += 1
    return {"n": n, "sha256": digest.hexdigest()}


def check_same_run(folder: str | Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ValueError, naming a difference, if a saved run had other settings or data."""
    for name in wanted | saved:
        if name not in FREE and saved.get(name) != wanted.get(name):
            differs = f"has {name} = {saved.get(name)!r}, not {wanted.get(name)!r}"
            if name == "data":
                differs = f"had other data: {_compare(saved.get(name), wanted[name])}"
            raise ValueError(
                f"The run in {folder} {differs}. Use its settings and data to go on, another "
                "folder for a new run, or delete it."
            )


def _compare(saved: Any, wanted: dict[str, Any]) -> str:
    """What became of the pictures since, in words; both as `describe_data` returns them."""
    then = saved.get("n") if isinstance(saved, dict) else None
    if not isinstance(then, int) or then == wanted["n"]:
        return f"there are {wanted['n']} pictures now, but not the same as then"
    more = wanted["n"] - then
    return (
        f"now there are {abs(more)} pictures {'more' if more > 0 else 'fewer'} than the {then} then"
    )


def load_done(folder: str | Path | None, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What `train_one` returned for each training that is saved; empty if there are none."""
    path = Path(folder or "") / DONE
    if folder and not path.exists():
        if Path(folder).is_dir() and any(map(_is_foreign, Path(folder).iterdir())):
            raise ValueError(f"{folder} holds something else; choose another folder.")
        check_place(path)
    if not folder or not path.exists():
        return {}
    try:
        saved = json.loads(path.read_text())
        check(saved, SAVED)
        if any(len(row["logits"]) != len(row["ids"]) for row in saved["done"].values()):
            raise ValueError("A training in it does not have logits for each picture.")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read; choose another folder, or delete it to begin again. ({error})"
        ) from error
    check_same_run(path.parent, saved["settings"], settings)
    print(f"Going on with the run in {folder}: {len(saved['done'])} trainings were done before.")
    return saved["done"]


def _is_foreign(path: Path) -> bool:
    """Whether a study that has not yet saved anything did not put that there."""
    return path.suffix != ".run" and not path.name.startswith(".")
