"""Pictures decoded and resized once, so that an epoch only reads them.

    root/.cache/train-256px-<fingerprint>.npy    uint8 (N, 256, 256, 3)

Every transform resizes first, and a picture that has its size already stays as it is: training is
the same, bit for bit, with a cache and without. The fingerprint is of all that decides its pixels,
so that a changed file never meets an old cache.
"""

import contextlib
import hashlib
import inspect
import io
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features
from tqdm.auto import tqdm

from dclib import pictures
from dclib.data.loading import CoupleFolder, EvalTransform
from dclib.files import file_hash

RESERVE = 10**9  # bytes of disk that a cache leaves to others, checkpoints above all
ABANDONED = 600  # seconds after the last write to an unfinished file: its process has ended
CHUNK = 64  # pictures that wait in memory for being written


class PictureCache:
    """Pictures at one size: cache[path] is the one of that file, an RGB Pillow image.

    `file`: a .npy with one row for each of `paths`, in their order. Every process opens it for
    itself, as a memory map; a pickle holds names only. Raises KeyError for any other path, OSError
    if the file is gone, cut off or something else.
    """

    def __init__(self, file: str | Path, paths: Iterable[Path], size: int) -> None:
        self.file, self.size = Path(file), size
        self.pixels: np.memmap | None = None
        self.rows = {path: row for row, path in enumerate(paths)}
        self.shape = (len(self.rows), size, size, 3)

    def __getitem__(self, path: Path) -> Image.Image:
        row = self.rows[path]
        return Image.fromarray(self.open()[row])

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"pixels": None}

    def open(self) -> np.memmap:
        """The pixels of all pictures, (N, size, size, 3) uint8; the file is checked only once."""
        if self.pixels is not None:
            return self.pixels
        header = npy_header(self.shape)
        with self.file.open("rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            if file.read(len(header)) != header or n_bytes != len(header) + math.prod(self.shape):
                raise OSError(f"{self.file} is not a whole cache of {self.shape[0]} pictures")
            self.pixels = np.memmap(file, np.uint8, "r", len(header), self.shape)
        return self.pixels


def build_cache(dataset: CoupleFolder, sizes: Sequence[int], progress: bool = True) -> None:
    """Give a CoupleFolder its `caches`, {size: PictureCache}; those not there yet are built.

    `sizes`: pixels a side, those that the transform will ask for. Caches lie in root/.cache; those
    of the same split and size that no longer fit are removed. Where one cannot be kept, a printed
    sentence says why, and the data set decodes those pictures every time.
    """
    folder = dataset.root / ".cache"
    paths, dataset.caches = [path for path, _ in dataset.samples], {}
    try:
        with ThreadPoolExecutor() as pool:
            hashes = list(pool.map(file_hash, paths))
        names = [path.relative_to(dataset.root / dataset.split).as_posix() for path in paths]
        fingerprint = _fingerprint(names, hashes)
        for size in sizes:
            start = f"{dataset.split}-{size}px-"
            file = folder / f"{start}{fingerprint}.npy"
            cache = PictureCache(file, paths, size)
            _remove_stale(folder, start, file)
            try:
                cache.open()
            except OSError:  # not there yet, or cut off
                _build(cache, hashes, progress)
                cache.open()
            dataset.caches[size] = cache
    except (OSError, pictures.PictureError) as error:
        missing = " and ".join(str(size) for size in sizes if size not in dataset.caches)
        print(
            f"Pictures of {dataset.split} at {missing} px are decoded every time, because no cache "
            f"can be kept in {folder} ({error})."
        )


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of a .npy file of uint8 (NumPy Enhancement Proposal 1)."""
    buffer = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def _fingerprint(names: list[str], hashes: list[str]) -> str:
    """Of the files in their order and the code that decodes and resizes, ours and Pillow's."""
    code = [inspect.getsource(pictures), inspect.getsource(EvalTransform.resize)]
    code += [str(features.version(name)) for name in ("pil", "libjpeg_turbo", "webp")]
    return hashlib.sha256(json.dumps([code, names, hashes]).encode()).hexdigest()[:16]


def _remove_stale(folder: Path, start: str, file: Path) -> None:
    """Remove caches of the same split and size but `file`, and what killed processes left."""
    for other in folder.glob("*"):
        if other == file or not other.name.startswith(start):
            continue
        with contextlib.suppress(OSError):  # another process was faster, or the folder is read-only
            if other.suffix == ".npy" or time.time() - other.stat().st_mtime > ABANDONED:
                other.unlink()


def _build(cache: PictureCache, hashes: list[str], progress: bool) -> None:
    """Write all pictures into a file of this process alone, then give it its name at once."""
    folder, header, n_bytes = cache.file.parent, npy_header(cache.shape), math.prod(cache.shape)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < n_bytes + RESERVE:
        raise OSError(
            f"it takes {_amount(n_bytes)}, {_amount(RESERVE)} must stay free, and only "
            f"{_amount(free)} is free now"
        )
    jobs = [
        (path, file_hash, cache.size) for path, file_hash in zip(cache.rows, hashes, strict=True)
    ]
    unfinished = cache.file.with_suffix(f".{uuid.uuid4().hex}.unfinished")
    bar = tqdm(total=len(jobs), desc="decoding", unit="picture", disable=not progress)
    try:
        with unfinished.open("xb") as file, ThreadPoolExecutor() as pool, bar:
            file.write(header)
            for first in range(0, len(jobs), CHUNK):
                for pixels in pool.map(_decode, jobs[first : first + CHUNK]):
                    file.write(pixels)
                    bar.update()
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, cache.file)
    finally:
        unfinished.unlink(missing_ok=True)
    print(f"Decoded {len(jobs)} pictures at {cache.size} px into {folder} ({_amount(n_bytes)})")


def _decode(job: tuple[Path, str, int]) -> bytes:
    """One row of a cache, from the very bytes that its fingerprint is of."""
    path, file_hash, size = job
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != file_hash:
        raise OSError(f"{path} was changed in the meantime")
    return EvalTransform(size).resize(pictures.read_picture(data).image).tobytes()


def _amount(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
