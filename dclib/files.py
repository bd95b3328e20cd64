"""Files that are whole or not there, and a missing package as a sentence."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end of the `with` block.

    Missing folders are made. After an exception or a kill `path` is as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    yield unfinished
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())  # else a computer that goes down may keep the name and no content
    unfinished.replace(path)


def save_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, readable, whole or not at all; ValueError for a number that is none."""
    with write_whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


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
