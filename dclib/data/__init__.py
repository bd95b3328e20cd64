"""The folder of couples that everything trains on, and loaders over it.

    root/{train,val[,test]}/{happy,unhappy}/*.jpg   and, if you have them, root/<split>/metadata.csv
    with file_name, label, group, source, ... (a Hugging Face imagefolder; torchvision reads it too)

A `group` (one couple, one photo series, one photographer) must not be in two splits.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dclib.files import file_hash
from dclib.pictures import PictureError, read_picture

CLASSES = ("happy", "unhappy")
NOT_ASSESSABLE = "not assessable"  # the label of what gets neither
DRAWN = "demo drawings"  # how the `source` of pictures that dclib.demo made begins
SPLITS = ("train", "val", "test")
Key = tuple[int, int]  # (epoch, index)
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"}


class CoupleFolder(Dataset):
    """One split of a folder of couples: items are (image tensor, label index).

    Args:
        root, split: where the pictures are; `groups` and `rows` come from metadata.csv if there.
        transform: called as transform(image, epoch, index), see `dclib.augment`; without one, items
            are (RGB Pillow image, label index).
        classes: folder names in the order of the labels (the checkpoint's, never the alphabet's).

    Every picture is decoded once; those that cannot be read are listed in `unreadable` (path,
    reason), printed and left out. Raises FileNotFoundError for a missing folder and ValueError for
    one without readable pictures, a metadata.csv without file names, a label in it that contradicts
    its folder, or a group in two splits.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: Any = None,
        classes: Sequence[str] = CLASSES,
    ) -> None:
        self.root, self.split, self.transform = Path(root), split, transform
        self.classes = tuple(classes)
        self.caches: dict[int, Any] = {}  # by size; see dclib.training.cache
        folder = self.root / split
        found = list_pictures(folder, self.classes)
        self.rows = read_metadata(folder)
        check_groups(self.root)
        with ThreadPoolExecutor() as pool:
            reasons = list(pool.map(_why_unreadable, (path for path, _ in found)))
        self.samples = [s for s, reason in zip(found, reasons, strict=True) if not reason]
        self.unreadable = [(p, r) for (p, _), r in zip(found, reasons, strict=True) if r]
        for _, reason in self.unreadable:
            print(f"Left out of {split}: {reason}")
        for index, name in enumerate(self.classes):
            if not any(label == index for _, label in self.samples):
                raise ValueError(f"No picture in {folder / name} can be read; training needs some.")
        for path, label in self.samples:
            told = self._row(path).get("label")
            if told and told != self.classes[label]:
                raise ValueError(
                    f"{path} lies under {self.classes[label]}, metadata.csv says {told}."
                )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | Key) -> tuple[Any, int]:
        """`key`: index, or (epoch, index) as `EpochBatches` gives it."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        _, label = self.samples[index]
        if not self.transform:
            return self.picture(index), label
        return self.transform(self._cached(index, epoch), epoch, index), label

    def _cached(self, index: int, epoch: int) -> Image.Image:
        """The picture as the transform takes it: from a cache, where one has its size."""
        size = self.transform.size_at(epoch) if self.caches else None
        path, _ = self.samples[index]
        try:
            if size in self.caches and path in self.caches[size].rows:
                return self.caches[size][path]
        except OSError as error:
            print(f"From now on pictures are decoded every time: {error}.")
            self.caches = {}
        return self.picture(index)

    def picture(self, index: int) -> Image.Image:
        """The picture itself, an RGB Pillow image. Raises IndexError if there is none."""
        if not -len(self) <= index < len(self):
            there = self.root / self.split
            raise IndexError(f"There is no picture {index}: {there} has {len(self)}, from 0 on.")
        return read_picture(self.samples[index][0]).image

    @property
    def labels(self) -> Tensor:
        """Index of each picture's class (N,)."""
        return torch.tensor([label for _, label in self.samples])

    def _row(self, path: Path) -> dict[str, str]:
        """What metadata.csv says of a picture; empty if nothing."""
        return self.rows.get(path.relative_to(self.root / self.split).as_posix(), {})

    @property
    def ids(self) -> list[str]:
        """Name of each picture: its path below the root."""
        return [path.relative_to(self.root).as_posix() for path, _ in self.samples]

    def column(self, name: str) -> list[str]:
        """One value a picture from metadata.csv ("" where it says nothing)."""
        return [self._row(path).get(name, "") for path, _ in self.samples]

    @property
    def groups(self) -> list[str]:
        """The group of each picture; one that nobody told a group is a group of its own."""
        return [group or name for group, name in zip(self.column("group"), self.ids, strict=True)]

    def __str__(self) -> str:
        counts = Counter(self.classes[label] for _, label in self.samples)
        parts = ", ".join(f"{counts[name]} {name}" for name in self.classes)
        left_out = f"; {len(self.unreadable)} unreadable left out" if self.unreadable else ""
        return f"{self.split}: {len(self)} pictures ({parts}){left_out}"


def read_boxes(dataset: CoupleFolder, column: str = "boxes") -> list[np.ndarray]:
    """Boxes of each picture from a column of metadata.csv: (K, 4), x0, y0, x1, y1 in pixels.

    The columns are boxes (of faces), body_boxes and bystander_boxes, JSON lists; a picture of which
    they say nothing has (0, 4). Raises ValueError for anything else.
    """
    found = []
    for name, told in zip(dataset.ids, dataset.column(column), strict=True):
        try:
            boxes = np.array(json.loads(told or "[]"), float)
        except (TypeError, ValueError):
            boxes = np.array(np.nan)
        if (boxes.size and boxes.shape[1:] != (4,)) or not np.isfinite(boxes).all():
            raise ValueError(
                f"The {column} of {name} in metadata.csv must be a JSON list of [x0, y0, x1, y1], "
                f"not {told!r}."
            )
        found.append(boxes.reshape(-1, 4))
    return found


def splits_of(root: str | Path) -> list[str]:
    """Which of train, val and test there are."""
    return [split for split in SPLITS if (Path(root) / split).is_dir()]


def check_groups(root: str | Path) -> None:
    """Raise ValueError if a group of metadata.csv is in two splits."""
    seen: dict[str, str] = {}
    for split in splits_of(root):
        for row in read_metadata(Path(root) / split).values():
            group = row.get("group")
            if group and seen.setdefault(group, split) != split:
                raise ValueError(
                    f"Group {group!r} is in {seen[group]} and in {split}: numbers from such a "
                    "split are too good. Move all pictures of a group into one split."
                )


def fingerprint(root: str | Path) -> dict[str, Any]:
    """What a checkpoint remembers of its training data: kind, counts and a hash of all files.

    `learned_from` is the kind of train and val alone (of test where there is nothing else). Raises
    as `list_pictures` and `read_metadata` do.
    """
    root, digest = Path(root), hashlib.sha256()
    n: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    for split in splits_of(root):
        rows = read_metadata(root / split)
        for path, _ in list_pictures(root / split, CLASSES):
            name = path.relative_to(root).as_posix()
            digest.update(f"{name} {file_hash(path)}\n".encode())
            row = rows.get(path.relative_to(root / split).as_posix(), {})
            n[split] += 1
            drawn[split] += row.get("source", "").startswith(DRAWN)
    name = Path(os.path.abspath(root)).name  # "." has none
    found = {"kind": _kind(n.total(), drawn.total()), "name": name, "n": dict(n)}
    from_these = {"train", "val"} & set(n) or set(n)
    learned = [sum(counts[split] for split in from_these) for counts in (n, drawn)]
    return found | {"learned_from": _kind(*learned), "sha256": digest.hexdigest()}


def _kind(n: int, drawn: int) -> str:
    return {n: DRAWN, 0: "photographs"}.get(drawn, "photographs and drawings")


class EpochBatches(Sampler[list[Key]]):
    """Batches of keys (epoch, index): a new order every epoch, the same for the same seed.

    Call `set_epoch(epoch, start)` before each pass; it begins with batch `start`. Process `rank` of
    `world` takes the rows rank, rank + world, ... of every batch. A last batch with fewer pictures
    than processes is left out, and one of a single picture: batch norm cannot train on it.

    Raises ValueError for a batch_size that does not reach all processes.

    >>> [len(batch) for batch in EpochBatches(n=7, batch_size=3)]
    [3, 3]
    """

    def __init__(
        self, n: int, batch_size: int, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size < max(world, 1):
            raise ValueError(f"batch_size must be at least {max(world, 1)}, not {batch_size}.")
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.rank, self.world, self.epoch, self.start = rank, world, 0, 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """The next pass is one of this epoch, from batch `start` on."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        full, rest = divmod(self.n, self.batch_size)
        return full + (rest >= max(2, self.world) or full == 0)

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n).tolist()
        for batch in range(self.start, len(self)):
            rows = order[batch * self.batch_size :][: self.size(batch)][self.rank :: self.world]
            yield [(self.epoch, index) for index in rows]

    def size(self, batch: int) -> int:
        """Pictures of a batch, all processes together."""
        return min(self.batch_size, self.n - batch * self.batch_size)


def make_loader(
    dataset: Any,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> DataLoader:
    """Batches of (images, labels), the same for any number of `workers`.

    `dataset`: a `CoupleFolder`, or anything else with a length and items (image tensor, label).
    Shuffled loaders draw from `EpochBatches` (as their `batch_sampler`). No loader takes from
    torch's own random numbers, so that a resumed run meets those of an undisturbed one.
    """
    options: dict[str, Any] = {"batch_size": batch_size}
    if shuffle:
        options = {"batch_sampler": EpochBatches(len(dataset), batch_size, seed, rank, world)}
    return DataLoader(
        dataset,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        generator=torch.Generator(),
        **options,
    )


def list_pictures(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """[(path, label index), ...] in the order of classes and names.

    Raises FileNotFoundError without a folder for each class, ValueError for one without pictures.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}; a data set is root/train/ and root/val/, each with "
            f"{' and '.join(classes)}."
        )
    found = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            there = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise FileNotFoundError(f"{folder} has no folder {name!r} (it has {there or 'none'}).")
        paths = [p for p in sorted((folder / name).rglob("*")) if _is_picture(p, folder)]
        if not paths:
            raise ValueError(f"{folder / name} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
        found += [(path, label) for path in paths]
    return found


def _is_picture(path: Path, folder: Path) -> bool:
    """By its name; what macOS, Jupyter and others hide beside pictures begins with a dot."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def read_metadata(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of metadata.csv by file name, "" for what they leave out; empty if there is none.

    Raises ValueError if it is no CSV in UTF-8 with a column file_name.
    """
    path = folder / "metadata.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark
            rows = list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read; save it as CSV in UTF-8, with commas.") from error
    if rows and "file_name" not in rows[0]:
        raise ValueError(f"{path} has no column file_name; is it a CSV with commas?")
    return {row["file_name"]: row for row in rows}


def _why_unreadable(path: Path) -> str | None:
    try:
        read_picture(path)
    except (PictureError, OSError) as error:
        return str(error)
    return None
