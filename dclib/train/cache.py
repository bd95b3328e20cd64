"""Pictures decoded and resized once, so that an epoch only reads them.

    root/.cache/train-256px-<fingerprint>.npy    uint8 (N, 256, 256, 3)

Training is the same, bit for bit, with a cache and without, which holds what every transform cuts
out first. The fingerprint is of all that decides the pixels.
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

from dclib import framing, pictures
from dclib.data.loading import CoupleFolder
from dclib.files import file_hash, write_whole
from dclib.framing import Frame
from dclib.pictures import colour, heif

RESERVE = 10**9  # bytes of disk that a cache leaves to others, checkpoints above all
CHUNK = 64  # pictures that wait in memory for being written


class PictureCache:
    """cache[path] is what a transform of one `view` cuts out of that file's picture, a `Frame`.

    `file` holds one row for each of `paths`. Every process opens it for itself, as a memory map.
    Raises OSError if it is gone or cut off.
    """

    def __init__(self, file: Path, paths: list[Path], view: str) -> None:
        self.file, self.view = file, view
        self.pixels: np.ndarray | None = None
        self.rows = {path: row for row, path in enumerate(paths)}

    def __getitem__(self, path: Path) -> Frame:
        image = Image.fromarray(self.open()[self.rows[path]])
        return Frame(image, (), image.size)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"pixels": None}

    def open(self) -> np.ndarray:
        """The pixels of all frames, (N, size, size, 3) uint8."""
        if self.pixels is None:
            try:
                self.pixels = np.load(self.file, mmap_mode="r")
            except (ValueError, EOFError) as error:
                raise OSError(f"{self.file} is no whole cache ({error})") from error
        return self.pixels


def build_cache(dataset: CoupleFolder) -> None:
    """Give a CoupleFolder its `caches`, {path: PictureCache}; built if it is not there yet.

    Where no cache can be kept, a printed sentence says why, and the data set decodes its pictures
    every time.
    """
    view = dataset.transform.view
    folder, start = dataset.root / ".cache", f"{dataset.split}-{view}-"
    paths, dataset.caches = [path for path, _ in dataset.samples], {}
    try:
        name = _fingerprint(dataset, paths)
        file = folder / f"{start}{name}.npy"
        _remove_stale(folder, start, file)
        cache = PictureCache(file, paths, view)
        try:
            cache.open()
        except OSError:  # not there yet, or cut off
            _build(dataset, cache)
            if _fingerprint(dataset, paths) != name:
                file.unlink()
                raise OSError("a picture was changed in the meantime") from None
        dataset.caches = dict.fromkeys(paths, cache)
    except (OSError, pictures.PictureError) as error:
        print(
            f"Pictures of {dataset.split} are decoded every time, because no cache can be kept in "
            f"{folder} ({error})."
        )


def _fingerprint(dataset: CoupleFolder, paths: list[Path]) -> str:
    """Of the files in their order and the code that decodes and resizes, ours and Pillow's."""
    code = [inspect.getsource(of) for of in (pictures, colour, heif, framing)]
    code += [str(features.version(name)) for name in ("pil", "libjpeg_turbo", "webp", "littlecms2")]
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(file_hash, paths))
    couples = [np.asarray(dataset.couples.get(path, ())).tolist() for path in paths]
    known = json.dumps([code, dataset.ids, hashes, couples])
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def _remove_stale(folder: Path, start: str, file: Path) -> None:
    """Remove caches of the same split and size but `file`."""
    for other in folder.glob(f"{start}*.npy"):
        with contextlib.suppress(OSError):  # another process was faster, or the folder is read-only
            if other != file:
                other.unlink()


def _build(dataset: CoupleFolder, cache: PictureCache) -> None:
    """Write what the transform cuts out of all pictures into their file."""
    folder, n = cache.file.parent, len(dataset)
    shape = (n, dataset.transform.size, dataset.transform.size, 3)
    folder.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(folder).free, int(np.prod(shape))
    if free < needed + RESERVE:
        raise OSError(
            f"it takes {_amount(needed)}, {_amount(RESERVE)} must stay free, and only "
            f"{_amount(free)} is free now"
        )

    def decode(index: int) -> bytes:
        return dataset.framed(index).image.tobytes()

    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    # written in order, not through a memory map: there a full disk would kill the process
    with (
        write_whole(cache.file) as unfinished,
        unfinished.open("xb") as file,
        ThreadPoolExecutor() as pool,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        chunks = (pool.map(decode, range(n)[start : start + CHUNK]) for start in range(0, n, CHUNK))
        for pixels in tqdm(chain.from_iterable(chunks), "decoding", n, unit="picture"):
            file.write(pixels)
    print(f"Decoded {n} pictures at {dataset.transform.size} px into {folder} ({_amount(needed)})")


def _amount(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
