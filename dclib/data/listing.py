"""Which files of a folder are pictures, whatever their names, and which of these can be read."""

import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

from dclib.pictures import PictureError, read_picture
from dclib.pictures.heif import read_container

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"}
KINDS = {  # how a picture begins, by the end that its name should have
    ".jpg": rb"\xff\xd8\xff",
    ".png": rb"\x89PNG\r\n\x1a\n",
    ".webp": rb"RIFF....WEBP",
    ".gif": rb"GIF8[79]a",
    ".bmp": rb"BM....\0\0\0\0",
    ".tif": rb"II\*\0|MM\0\*",
}
BOXES = {"HEIF": ".heic", "AVIF": ".avif", "": ""}
# What systems lay beside pictures under a name without a dot: Synology, QNAP, macOS, Windows, ext4.
SYSTEM = {"@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "lost+found"}
SYSTEM |= {"thumbs.db", "ehthumbs.db", "desktop.ini", "system volume information"}
PAUSES = (0.1, 0.4, None)  # seconds before a read that failed is tried again

Result = TypeVar("Result")
Samples = list[tuple[Path, int]]  # path, label index


def patiently(read: Callable[[Path], Result], path: Path) -> Result:
    """read(path), tried again after an OSError: a mounted drive may lose its line for a moment.

    Raises OSError, one sentence that names the file, so that no data set shrinks in silence.
    """
    for pause in PAUSES:
        try:
            return read(path)
        except OSError as error:
            if pause is None:
                raise OSError(
                    f"{path} cannot be read ({error.strerror or error}): see to the drive or the "
                    "permissions, or move it away, and run it again."
                ) from error
            time.sleep(pause)
    raise AssertionError


def kind(content: bytes) -> str:
    """The end that a picture's name should have, by its first 1,024 bytes; "" for no picture."""
    ends = (end for end, start in KINDS.items() if re.match(start, content, re.DOTALL))
    return next(ends, BOXES[read_container(content[:1024]).format])


def suffix_of(path: Path) -> str:
    """The end of a file's name where it is that of a picture, else its `kind`."""
    suffix = path.suffix.lower()
    return suffix if suffix in SUFFIXES else kind(patiently(_head, path))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a person sees in a folder, in the order of names."""
    with os.scandir(folder) as entries:
        seen = [e for e in entries if not (e.name.startswith(".") or e.name.casefold() in SYSTEM)]
    return sorted(seen, key=lambda entry: entry.name)


def walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """Pictures below a folder, and what else is there. Links to folders are not followed."""
    pictures: list[Path] = []
    others: list[Path] = []
    for entry in patiently(_entries, folder):
        path = Path(entry)
        if entry.is_dir(follow_symlinks=False):
            for known, found in zip((pictures, others), walk(path), strict=True):
                known += found
        else:  # Path.is_file has no trouble with links that lead nowhere or in a circle
            is_file = path.is_file() if entry.is_symlink() else entry.is_file()
            (pictures if is_file and suffix_of(path) else others).append(path)
    return pictures, others


def list_pictures(folder: Path, classes: Sequence[str]) -> tuple[Samples, list[Path]]:
    """Pictures in the order of classes and names, and what else is in the folder.

    Raises FileNotFoundError without a folder for each class, ValueError for one without pictures.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}; a data set is root/train/ and root/val/, each with "
            f"{' and '.join(classes)}."
        )
    entries = [Path(entry) for entry in patiently(_entries, folder)]
    others = [path for path in entries if path.name not in classes]
    pictures: Samples = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            present = [path.name for path in entries if path.is_dir()]
            raise FileNotFoundError(
                f"{folder} has no folder {name!r} (it has {present or 'none'})."
            )
        found, more = walk(folder / name)
        if not found:
            raise ValueError(f"{folder / name} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
        pictures += [(path, label) for path in found]
        others += more
    return pictures, others


def overlooked(folder: Path, others: Sequence[Path]) -> list[str]:
    """A sentence on what is in a folder and no picture, where there is any."""
    if not others:
        return []
    what = f"{len(others)} files, folders or links that are no pictures"
    return [f"Not looked at in {folder}: {what}, such as {others[0].relative_to(folder)}."]


def sort_out(pictures: Samples) -> tuple[Samples, list[tuple[Path, str]]]:
    """Decode every picture once: those that can be read, and (path, why not) of the others.

    Raises OSError where the drive is at fault, and not the picture.
    """
    with ThreadPoolExecutor() as pool:
        faults = list(pool.map(lambda picture: _fault(*_version(picture[0])), pictures))
    sound = [picture for picture, fault in zip(pictures, faults, strict=True) if not fault]
    return sound, [(p, fault) for (p, _), fault in zip(pictures, faults, strict=True) if fault]


def _version(path: Path) -> tuple[Path, int, int]:
    stat = patiently(Path.stat, path)
    return path, stat.st_mtime_ns, stat.st_size


@cache
def _fault(path: Path, mtime_ns: int, size: int) -> str:
    """Why this version of a picture cannot be used; "" if it can."""
    try:
        patiently(read_picture, path)
    except PictureError as error:
        return str(error)
    return ""
