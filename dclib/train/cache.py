"""Pictures decoded and resized once, so that an epoch only reads them.

    root/.cache/train-256px-<fingerprint>.npy    uint8 (N, 256, 256, 3)

Training is the same, bit for bit, with a cache and without: every transform resizes first, and a
picture that has its size stays as it is. The fingerprint is of all that decides the pixels.
"""

import contextlib
import hashlib
import inspect
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features
from tqdm.auto import tqdm

from dclib import colour, heif, pictures
from dclib.data.loading import CoupleFolder, EvalTransform
from dclib.files import file_hash, write_whole

RESERVE = 10**9  # bytes of disk that a cache leaves to others, checkpoints above all
CHUNK = 64  # pictures that wait in memory for being written


class PictureCache:
    """cache[path] is the picture of that file at one size, an RGB Pillow image.

    `file` holds one row for each of `paths`. Every process opens it for itself, as a memory map.
    Raises OSError if it is gone or cut off.
    """

    def __init__(self, file: Path, paths: list[Path], size: int) -> None:
        self.file, self.size = file, size
        self.pixels: np.ndarray | None = None
        self.rows = {path: row for row, path in enumerate(paths)}

    def __getitem__(self, path: Path) -> Image.Image:
        return Image.fromarray(self.open()[self.rows[path]])

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"pixels": None}

    def open(self) -> np.ndarray:
        """The pixels of all pictures, (N, size, size, 3) uint8."""
        if self.pixels is None:
            try:
                self.pixels = np.load(self.file, mmap_mode="r")
            except (ValueError, EOFError) as error:
                raise OSError(f"{self.file} is no whole cache ({error})") from error
        return self.pixels


def build_cache(dataset: CoupleFolder, size: int) -> None:
    """Give a CoupleFolder its `caches`, {path: PictureCache}; built if it is not there yet.

    `size`: pixels a side, as the transform has it. Where no cache can be kept, a printed sentence
    says why, and the data set decodes its pictures every time.
    """
    folder, start = dataset.root / ".cache", f"{dataset.split}-{size}px-"
    paths, dataset.caches = [path for path, _ in dataset.samples], {}
    try:
        name = _fingerprint(dataset, paths)
        file = folder / f"{start}{name}.npy"
        _remove_stale(folder, start, file)
        cache = PictureCache(file, paths, size)
        try:
            cache.open()
        except OSError:  # not there yet, or cut off
            _build(cache)
            if _fingerprint(dataset, paths) != name:
                file.unlink()
                raise OSError("a picture was changed in the meantime") from None
        dataset.caches = dict.fromkeys(paths, cache)
    except (OSError, pictures.PictureError) as error:
        print(
            f"Pictures of {dataset.split} at {size} px are decoded every time, because no cache "
            f"can be kept in {folder} ({error})."
        )


def _fingerprint(dataset: CoupleFolder, paths: list[Path]) -> str:
    """Of the files in their order and the code that decodes and resizes, ours and Pillow's."""
    code = [inspect.getsource(of) for of in (pictures, colour, heif, EvalTransform.resize)]
    code += [str(features.version(name)) for name in ("pil", "libjpeg_turbo", "webp", "littlecms2")]
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(file_hash, paths))
    return hashlib.sha256(json.dumps([code, dataset.ids, hashes]).encode()).hexdigest()[:16]


def _remove_stale(folder: Path, start: str, file: Path) -> None:
    """Remove caches of the same split and size but `file`."""
    for other in folder.glob(f"{start}*.npy"):
        with contextlib.suppress(OSError):  # another process was faster, or the folder is read-only
            if other != file:
                other.unlink()


def _build(cache: PictureCache) -> None:
    """Write all pictures into their file."""
    folder, paths, resize = cache.file.parent, list(cache.rows), EvalTransform(cache.size).resize
    shape = (len(paths), cache.size, cache.size, 3)
    folder.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(folder).free, int(np.prod(shape))
    if free < needed + RESERVE:
        raise OSError(
            f"it takes {_amount(needed)}, {_amount(RESERVE)} must stay free, and only "
            f"{_amount(free)} is free now"
        )

    def decode(path: Path) -> bytes:
        return resize(pictures.read_picture(path).image).tobytes()

    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    # written in order, not through a memory map: there a full disk would kill the process
    with (
        write_whole(cache.file) as unfinished,
        unfinished.open("xb") as file,
        ThreadPoolExecutor() as pool,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        chunks = (pool.map(decode, paths[n : n + CHUNK]) for n in range(0, len(paths), CHUNK))
        decoded = chain.from_iterable(chunks)
        for pixels in tqdm(decoded, "decoding", len(paths), unit="picture"):
            file.write(pixels)
    print(f"Decoded {len(paths)} pictures at {cache.size} px into {folder} ({_amount(needed)})")


def _amount(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
