"""The folder of couples as PyTorch takes it: a data set, its loaders, and the plain transform."""

import json
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import functional

from dclib.data import CLASSES, DRAWN, check_groups, read_split, strata
from dclib.data.listing import patiently, sort_out
from dclib.data.metadata import group_names
from dclib.framing import KINDS, Frame, find_couple, frame_picture, pick_two
from dclib.pictures import Boxes, read_picture

Key = tuple[int, int]  # (epoch, index)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# How loaders start their processes, on each Python: one that is forked may wait for ever for a lock
# that a thread of torch held. A server, which has imported this module, forks them instead.
WAYS = multiprocessing.get_all_start_methods()
START = multiprocessing.get_context("forkserver" if "forkserver" in WAYS else "spawn")
if "forkserver" in WAYS:
    START.set_forkserver_preload(["dclib.data.loading"])


class Kept(dict):
    """A dict that stays where it is: a loader's processes get an empty one.

    A tensor costs them a file descriptor, of which a forkserver passes on 252 at most.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()


class CoupleFolder(Dataset):
    """One split of a folder of couples: items are (image tensor, label index).

    Args:
        root, split: where the pictures are; `groups` and `rows` come from metadata.csv if there.
        transform: called as transform(image, epoch, index), see `dclib.augment`; without one, items
            are (RGB Pillow image, label index).
        classes: folder names in the order of the labels (the checkpoint's, never the alphabet's).

    Every picture is decoded once; those that cannot be read, and those without two faces where the
    transform looks at faces, are listed in `left_out` (path, reason), printed and left out. Raises
    FileNotFoundError for a missing folder, ValueError for one without pictures that can be used and
    for what `read_split` and `check_groups` refuse, OSError where the drive is at fault and not the
    picture.
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
        self.caches: dict[Path, Any] = {}  # by picture; see dclib.train.cache
        # feature maps: those of each ResNet, and what items are instead; see dclib.train.features
        self.maps: dict[str, dict[Path, Tensor]] = Kept()
        self.given: dict[Path, Tensor] = {}
        folder = self.root / split
        pictures, self.rows, notes = read_split(folder, self.classes)
        check_groups(self.root)
        self.samples, self.left_out = sort_out(pictures)
        for sentence in (*notes, *(f"Left out of {split}: {why}" for _, why in self.left_out)):
            print(sentence)
        self.couples: dict[Path, Boxes] = {}  # by picture, where the transform looks at faces
        if getattr(transform, "frame", KINDS[0]) != KINDS[0]:
            self._find_couples()
        for index, name in enumerate(self.classes):
            if not any(label == index for _, label in self.samples):
                raise ValueError(f"No picture in {folder / name} can be used; training needs some.")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | Key) -> tuple[Any, int]:
        """`key`: index, or (epoch, index) as `EpochBatches` gives it."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        path, label = self.samples[index]
        if self.given:
            return self.given[path], label
        if not self.transform:
            return self.picture(index), label
        return self.transform(self._cached(index), epoch, index), label

    def _cached(self, index: int) -> Frame:
        """What the transform's network looks at: from a cache, where one has its view."""
        path, _ = self.samples[index]
        cache = self.caches.get(path)
        try:
            if cache and cache.view == self.transform.view:
                return cache[path]
        except OSError as error:
            print(f"From now on pictures are decoded every time: {error}.")
            self.caches = {}
        return self.framed(index)

    def framed(self, index: int) -> Frame:
        """What the transform's network looks at in a picture."""
        return self.transform.cut(self.picture(index), self.couples.get(self.samples[index][0]))

    def _find_couples(self) -> None:
        """Where the two of each picture are."""
        without = []
        known = zip(read_boxes(self), self.column("source"), strict=True)
        for index, (boxes, source) in enumerate(known):
            path = self.samples[index][0]
            try:
                self.couples[path] = self._couple(index, boxes.tolist(), source)
            except ValueError as error:
                without.append((path, str(error)))
        if without:
            name = without[0][0].relative_to(self.root).as_posix()
            print(
                f"Left out of {self.split}: {len(without)} of {len(self)} pictures in which two "
                f"faces are not found, such as {name}; the setting frame='whole' takes them."
            )
        self.samples = [sample for sample in self.samples if sample[0] in self.couples]
        self.left_out += without

    def _couple(self, index: int, boxes: Boxes, source: str) -> Boxes:
        """The two of a picture; `boxes` from metadata.csv count where none are found.

        Those that are found are what networks have learned from: others are cut in other ways.
        """
        if source.startswith(DRAWN) and len(boxes) == 2:
            return boxes
        image = self.picture(index)
        try:
            return find_couple(image)
        except ValueError:
            if len(boxes) < 2:
                raise
            return [boxes[k] for k in pick_two(boxes, image.size)]

    def picture(self, index: int) -> Image.Image:
        """The picture itself, an RGB Pillow image."""
        if not -len(self) <= index < len(self):
            folder = self.root / self.split
            raise IndexError(f"There is no picture {index}: {folder} has {len(self)}, from 0 on.")
        return patiently(read_picture, self.samples[index][0]).image

    @property
    def labels(self) -> Tensor:
        """Index of each picture's class (N,)."""
        return torch.tensor([label for _, label in self.samples])

    @property
    def _keys(self) -> list[str]:
        """What each picture is called in `rows`."""
        folder = self.root / self.split
        return [path.relative_to(folder).as_posix() for path, _ in self.samples]

    @property
    def ids(self) -> list[str]:
        """Name of each picture: its path below the root."""
        return [path.relative_to(self.root).as_posix() for path, _ in self.samples]

    def column(self, name: str) -> list[str]:
        """One value a picture from metadata.csv ("" where it says nothing)."""
        return [self.rows.get(key, {}).get(name, "") for key in self._keys]

    @property
    def groups(self) -> list[str]:
        """The group of each picture; one that nobody told a group is a group of its own."""
        named = dict(zip(self.rows, group_names(list(self.rows.values())), strict=True))
        return [named.get(key) or name for key, name in zip(self._keys, self.ids, strict=True)]

    def __str__(self) -> str:
        counts = Counter(self.classes[label] for _, label in self.samples)
        parts = ", ".join(f"{counts[name]} {name}" for name in self.classes)
        left_out = f"; {len(self.left_out)} left out" if self.left_out else ""
        return f"{self.split}: {len(self)} pictures ({parts}){left_out}"


def read_boxes(dataset: CoupleFolder, column: str = "boxes") -> list[np.ndarray]:
    """Boxes of each picture from a column of metadata.csv: (K, 4), x0, y0, x1, y1 in pixels.

    The columns are boxes (of faces), body_boxes and bystander_boxes, JSON lists; a picture of which
    they say nothing has (0, 4).
    """
    all_boxes = []
    for name, text in zip(dataset.ids, dataset.column(column), strict=True):
        try:
            boxes = np.array(json.loads(text or "[]"), float)
        except (TypeError, ValueError):
            boxes = np.array(np.nan)
        if (boxes.size and boxes.shape[1:] != (4,)) or not np.isfinite(boxes).all():
            raise ValueError(
                f"The {column} of {name} in metadata.csv must be a JSON list of [x0, y0, x1, y1], "
                f"not {text!r}."
            )
        all_boxes.append(boxes.reshape(-1, 4))
    return all_boxes


Folder = TypeVar("Folder", bound=CoupleFolder)


def keep(dataset: Folder, indices: Iterable[int]) -> Folder:
    """Another `CoupleFolder` with the pictures of some indices (M,), in their order."""
    part = copy(dataset)
    part.samples = [dataset.samples[index] for index in indices]
    return part


def choose_pictures(dataset: CoupleFolder, n: int | None, seed: int = 0) -> list[int]:
    """Indices of about n pictures of a `CoupleFolder`: whole groups, by lot, each class its share.

    All if n is None.
    """
    if n is not None and n < 2:
        raise ValueError(f"n must be at least 2 pictures, or None for all, not {n}.")
    if n is None or n >= len(dataset):
        return list(range(len(dataset)))
    groups = np.unique(dataset.groups, return_inverse=True)[1]
    kinds = strata(groups, dataset.labels.numpy() == 1)
    rng, places = np.random.default_rng(seed), np.empty(len(kinds))
    for kind in np.unique(kinds):
        members = rng.permutation(np.flatnonzero(kinds == kind))
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.argsort(places, kind="stable")
    sizes = np.bincount(groups)[order]
    kept = order[np.cumsum(sizes) - sizes < n]
    return np.flatnonzero(np.isin(groups, kept)).tolist()


class EpochBatches(Sampler[list[Key]]):
    """Batches of keys (epoch, index): a new order every epoch, the same for the same seed.

    Call `set_epoch(epoch)` before each pass. Process `rank` of `world` takes the rows rank,
    rank + world, ... of every batch. A last batch with fewer than two pictures for each process is
    left out: batch norm cannot train on one.

    >>> [len(batch) for batch in EpochBatches(n=7, batch_size=3)]
    [3, 3]
    """

    def __init__(
        self, n: int, batch_size: int, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        least = 2 * world if world > 1 else 1
        if batch_size < least:
            raise ValueError(f"batch_size must be at least {least}, not {batch_size}.")
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.rank, self.world, self.epoch = rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """The next pass is one of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        full, rest = divmod(self.n, self.batch_size)
        return full + (rest >= 2 * self.world or full == 0)

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n).tolist()
        for batch in range(len(self)):
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
    Feature maps that are in memory need no workers. In a script of yours that uses workers, call
    this below `if __name__ == "__main__":`, as their processes import the script. Shuffled loaders
    draw from `EpochBatches` (as their `batch_sampler`). No loader takes from torch's own random
    numbers, so that a resumed run meets those of an undisturbed one.
    """
    options: dict[str, Any] = {"batch_size": batch_size}
    workers = 0 if getattr(dataset, "given", None) else workers
    if shuffle:
        options = {"batch_sampler": EpochBatches(len(dataset), batch_size, seed, rank, world)}
    return DataLoader(
        dataset,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        multiprocessing_context=START if workers else None,
        generator=torch.Generator(),
        **options,
    )


class EvalTransform:
    """RGB Pillow image -> (3, size, size) float32, normalised by mean and std of [0, 1] values.

    `frame` and `margin`: what the network looks at, see `dclib.framing`.

    Called with a picture, or with the frame that `cut` made of one. Raises ValueError for a picture
    without two faces, unless the frame is "whole".
    """

    def __init__(
        self,
        size: int = 512,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        frame: str = KINDS[0],
        margin: float = 0.0,
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, not {size}.")
        self.size, self.mean, self.std = size, tuple(mean), tuple(std)
        self.frame, self.margin = frame, margin

    def __call__(self, picture: Image.Image | Frame, epoch: int = 0, index: int = 0) -> Tensor:
        return self.to_tensor(self.resize(picture))

    @property
    def view(self) -> str:
        """All that decides the pixels, as a name."""
        kind = "" if self.frame == KINDS[0] else f"{self.frame}-{self.margin:g}-"
        return f"{kind}{self.size}px"

    def cut(self, image: Image.Image, couple: Boxes | None = None) -> Frame:
        """The frame of a picture; `couple`: boxes of the two faces, else they are looked for."""
        if couple is None and self.frame != KINDS[0]:
            couple = find_couple(image)
        boxes = () if couple is None else couple
        return frame_picture(image, boxes, self.frame, self.size, self.margin)

    def resize(self, picture: Image.Image | Frame) -> Image.Image:
        """What the network takes of a picture, not yet normalised."""
        return picture.image if isinstance(picture, Frame) else self.cut(picture).image

    def to_tensor(self, pixels: Image.Image | np.ndarray) -> Tensor:
        """Normalise: an RGB image or (H, W, 3) uint8 -> (3, H, W) float32."""
        return functional.normalize(functional.to_tensor(pixels), self.mean, self.std)

    def finish(self, batch: Tensor, device: str | torch.device) -> Tensor:
        """What is left to do with a loader's batch on the device that trains: here, to go there."""
        return batch.to(device, non_blocking=True)

    def undo(self, images: Tensor) -> Tensor:
        """Back to colours: (..., 3, H, W) normalised -> (..., H, W, 3) float in [0, 1]."""
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return (images.cpu() * std + mean).clamp(0, 1).movedim(-3, -1)
