"""Files and folders that are whole or not there; only what is proved ours is replaced or removed.

Unfinished work lies beside its target, in a hidden folder (`.dclib-` and 16 hexadecimal digits)
that is locked as long as its process lives. What killed ones left goes at the next write beside it.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

WORKSHOP = re.compile(r"\.dclib-[0-9a-f]{16}")
ABANDONED = 24 * 3600  # seconds without a change, where a drive has no locks
Proof = Callable[[Path], bool]  # whether a folder that is there already is ours
_locks: set[int] = set()  # of this process
_held: dict[Path, int | None] = {}  # folders that `hold` has, with what keeps others from them


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end of the `with` block.

    It has the name of `path`, in another folder. Missing folders are made. After an exception or a
    kill `path` is as it was before. Raises OSError, one sentence with the place, for a full disk
    and the like.
    """
    path = _resolve(path)
    with writing(path), _workshop(path.parent) as workshop:
        unfinished = workshop / path.name
        yield unfinished
        _flush(unfinished)
        unfinished.replace(path)


@contextmanager
def write_folder(
    folder: str | Path, ours: Proof, parts: Collection[str] | None = None
) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` at the end of the `with` block.

    `ours(folder)` proves that a folder which is there is one of ours. With `parts`, the names of
    the files that we write into it, these are replaced and all else in it stays. Without, it is
    kept, and the new one given up: another process has made the same in the meantime.

    Raises FileExistsError, before the work and after it, if `folder` holds anything else; OSError
    as `write_whole`. `folder` is then as it was before, as it is after a kill (see `put_back`).
    """
    folder = _resolve(folder)
    check_folder(folder, ours)
    with writing(folder), _workshop(folder.parent) as workshop:
        new = workshop / "new"
        new.mkdir()
        yield new
        for file in filter(Path.is_file, new.iterdir()):
            _flush(file)
        with hold(_hidden(folder, "lock"), wait=True):
            _publish(new, folder, ours, parts)


def check_folder(folder: str | Path, ours: Proof) -> None:
    """Raise OSError, one sentence, if `write_folder` could not write there; before long work."""
    folder = _resolve(folder)
    with writing(folder):
        if folder.exists():
            with hold(_hidden(folder, "lock"), wait=True):  # while nobody replaces it
                other = _is_filled(folder) and not ours(folder)
            if other:
                raise FileExistsError(
                    f"{folder} holds something else: choose another folder, or move that away."
                )
        if os.path.ismount(folder):
            raise OSError(f"{folder} is where a drive begins: name a folder inside it.")
    check_place(folder)


def check_place(path: str | Path) -> None:
    """Raise OSError, one sentence, if nothing can be written at `path`; leaves nothing there."""
    path = _resolve(path)
    with writing(path):
        with contextlib.suppress(FileNotFoundError):
            path.stat()  # a name that is too long, a file where a folder should be
        with _workshop(next(parent for parent in path.parents if parent.exists())) as workshop:
            (workshop / "trial").write_bytes(bytes(4096))


def remove_files(folder: str | Path, names: Collection[str]) -> None:
    """Remove files by their paths below `folder`, then it and folders in it that are empty by that.

    Nothing else goes; what is not there is no error. ValueError for a path that leads out of it.
    """
    folder = Path(folder)
    _remove_abandoned(folder)
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{name} is not below {folder}: nothing is removed there.")
        (folder / name).unlink(missing_ok=True)
    inside = {Path(name).parents[n] for name in names for n in range(len(Path(name).parents))}
    for parent in sorted(inside, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):  # not empty, or not there
            (folder / parent).rmdir()


@contextmanager
def hold(folder: str | Path, busy: str = "", wait: bool = False) -> Iterator[None]:
    """Have a folder for this process alone; it is made, and goes in the end if nothing is in it.

    While another process has it: RuntimeError with the sentence `busy`; or, with `wait`, that
    sentence is printed, and its end awaited. Within another `hold` of the same nothing happens.
    """
    folder = _resolve(folder)
    if folder in _held:
        yield
        return
    _held[folder] = _wait_for(folder, busy, wait)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
        _unlock(_held.pop(folder, None))


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """What the disk refuses in the `with` block is an OSError of one sentence with the place."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a sentence already
            raise
        sentence = (
            f"{path} cannot be written ({error.strerror}): make room, or choose another place."
        )
        raise OSError(sentence) from error


def put_back(folder: str | Path) -> None:
    """Give a folder its place again if a kill between two renames of `write_folder` took it."""
    folder = _resolve(folder)
    old = _hidden(folder, "old")
    if old.is_dir() and not folder.exists():
        with hold(_hidden(folder, "lock"), wait=True):
            if not folder.exists():
                old.rename(folder)


def _publish(new: Path, folder: Path, ours: Proof, parts: Collection[str] | None) -> None:
    """Put `new` in the place of `folder`, which is looked at once more."""
    put_back(folder)
    old = _hidden(folder, "old")
    if _is_filled(folder) and not ours(folder):
        raise FileExistsError(f"{folder} holds something else by now: choose another folder.")
    if _is_filled(folder) and parts is None:
        return
    _carry_over(old, folder, parts or ())
    if _is_filled(folder):
        folder.rename(old)
    elif folder.exists():
        folder.rmdir()
    new.rename(folder)
    _carry_over(old, folder, parts or ())


def _carry_over(old: Path, folder: Path, parts: Collection[str]) -> None:
    """Move what is not ours out of the replaced folder into its heir, then remove the rest."""
    if old.is_dir():
        for path in old.iterdir():
            if path.name not in parts or path.is_dir():
                target = folder / path.name
                while os.path.lexists(target):
                    target = target.with_name(f"older {target.name}")
                path.rename(target)
        remove_files(old, parts)


def _hidden(folder: Path, use: str) -> Path:
    """A name beside a folder that nobody else chooses."""
    digest = hashlib.sha256(os.fsencode(folder.name)).hexdigest()
    return folder.with_name(f".dclib-{use}-{digest[:16]}")


def _resolve(path: str | Path) -> Path:
    """Where a path leads: a link stays, and what it names is written."""
    return Path(os.path.realpath(path))


def _is_filled(folder: Path) -> bool:
    """Whether anything is there; an empty folder is as good as none."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


@contextmanager
def _workshop(parent: Path) -> Iterator[Path]:
    """A folder of this process for unfinished work, made in `parent` and removed in the end."""
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    while True:
        workshop = parent / f".dclib-{uuid.uuid4().hex[:16]}"
        workshop.mkdir()
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # cleared away unlocked
            lock = _lock(workshop)
            break
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        _unlock(lock)


def _remove_abandoned(parent: Path) -> None:
    """Remove the workshops of processes that live no more."""
    for path in parent.glob(".dclib-*"):
        if WORKSHOP.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # in use, or another process was faster
                lock = _lock(path)
                if lock is not None or time.time() - path.stat().st_mtime > ABANDONED:
                    shutil.rmtree(path, ignore_errors=True)
                _unlock(lock)


def _wait_for(folder: Path, busy: str, wait: bool) -> int | None:
    """The lock of a folder that is made if it is missing; see `hold`."""
    patient = False
    while True:
        with writing(folder):
            _make(folder)
        try:
            return _lock(folder, patient)
        except FileNotFoundError:  # the process that had it removed it
            continue
        except BlockingIOError:
            if not wait:
                raise RuntimeError(busy) from None
        if busy:
            print(busy)
        patient = True


def _make(folder: Path) -> None:
    """Make a folder that is missing, and may be made and removed by others meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # also where it was there, and gone when `mkdir` asked if it is one
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(folder.stat().st_mode):
                raise


def _lock(folder: Path, wait: bool = False) -> int | None:
    """What keeps others from a folder until `_unlock` or this process's end; None without locks.

    Raises BlockingIOError if another process has it, FileNotFoundError if that one removed it.
    """
    if fcntl is None:
        return None
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(lock), os.stat(folder)):
            _locks.add(lock)
            return lock
        raise FileNotFoundError(folder)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError | FileNotFoundError):
            raise
        return None  # a drive without locks


def _unlock(lock: int | None) -> None:
    """Let others have the folder."""
    if lock is not None:
        _locks.remove(lock)
        os.close(lock)


def _let_go() -> None:
    """In a forked child: only its parent holds the locks, so that they end with the parent."""
    _held.clear()
    while _locks:
        os.close(_locks.pop())


if fcntl is not None:
    os.register_at_fork(after_in_child=_let_go)


def _flush(path: Path) -> None:
    """Onto the disk: else a computer that goes down may keep the name and no content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def save_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, readable, whole or not at all; ValueError for a number that is none."""
    with write_whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def harmless(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets a quote before it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r\n") else value


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import inside what this extra of pyproject.toml brings.

    Raises ModuleNotFoundError, saying what to install, where a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is missing: it comes with dclib's extra {name}. In a clone, "
            f"`pip install '.[{name}]'`; elsewhere put the path of its wheel in place of the dot."
        ) from error
