"""One thing about a picture varied, from a little to a lot, all else left as it is.

Ten sweeps. Eight change the picture before its usual preparation; "size" and "aspect" change the
input of the network itself, which is what spatial pyramid pooling is for. Each has a reference, the
level that leaves everything as it is.
"""

import io
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional

from dclib.pictures import Boxes

if TYPE_CHECKING:
    from dclib.augment import EvalTransform
    from dclib.checkpoint import Checkpoint

GREY = (127, 127, 127)
Change = Callable[[Image.Image, Boxes, float, np.random.Generator], Image.Image]


class Sweep(NamedTuple):
    """What is varied: `unit` of the levels, the levels themselves, and the range they lie in.

    `reference` None is the size that the network was trained for. `change(image, boxes, level,
    rng)` gives another RGB picture; it is None where the network's input is changed instead.
    """

    unit: str
    levels: tuple[float, ...]
    allowed: tuple[float, float]
    reference: float | None
    change: Change | None


def brightness(
    image: Image.Image, boxes: Boxes, level: float, rng: np.random.Generator
) -> Image.Image:
    """All values times the level."""
    return functional.adjust_brightness(image, level)


def hue(image: Image.Image, boxes: Boxes, level: float, rng: np.random.Generator) -> Image.Image:
    """All colours turned by so many degrees."""
    return functional.adjust_hue(image, level / 360)


def blur(image: Image.Image, boxes: Boxes, level: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian, as Pillow approximates it; the side is the shorter one."""
    return image.filter(ImageFilter.GaussianBlur(level * min(image.size)))


def noise(image: Image.Image, boxes: Boxes, level: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian, each pixel and colour for itself; the same draws at every level."""
    pixels = np.asarray(image)
    grain = level * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray((pixels + grain).round().clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, boxes: Boxes, level: float, rng: np.random.Generator) -> Image.Image:
    """Saved with that quality and read again."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(level))
    return Image.open(buffer).convert("RGB")


def rotation(
    image: Image.Image, boxes: Boxes, level: float, rng: np.random.Generator
) -> Image.Image:
    """Counter-clockwise; black corners, as in the authors' augmentation."""
    return functional.rotate(image, level, InterpolationMode.BILINEAR)


def hidden(image: Image.Image, boxes: Boxes, level: float, rng: np.random.Generator) -> Image.Image:
    """Grey from the lower edge of each box upwards: the mouth goes first."""
    image = image.copy()
    for x0, y0, x1, y1 in boxes:
        top = y1 - level * (y1 - y0)
        image.paste(GREY, (round(x0), round(top), round(x1), round(y1)))
    return image


def resolution(
    image: Image.Image, boxes: Boxes, level: float, rng: np.random.Generator
) -> Image.Image:
    """The longer side reduced to `level` pixels; smaller pictures stay as they are."""
    image = image.copy()
    image.thumbnail((int(level), int(level)))
    return image


ANY, AS_IS = (0, math.inf), math.inf
SWEEPS = {
    "brightness": Sweep("factor", (0.25, 0.5, 0.75, 1.5, 2), ANY, 1, brightness),
    "hue": Sweep("degrees", (-90, -45, -20, 20, 45, 90), (-180, 180), 0, hue),
    "blur": Sweep("sigma / side", (0.005, 0.01, 0.02, 0.04), (0, 1), 0, blur),
    "noise": Sweep("sigma, of 255", (10, 20, 40, 80), ANY, 0, noise),
    "jpeg": Sweep("quality", (5, 10, 20, 50, 95), (1, 100), AS_IS, jpeg),
    "rotation": Sweep("degrees", (-45, -20, -10, 10, 20, 45), (-180, 180), 0, rotation),
    "hidden": Sweep("share of each face", (0.25, 0.5, 0.75, 1), (0, 1), 0, hidden),
    "resolution": Sweep("px, longer side", (32, 64, 128, 256), (1, math.inf), AS_IS, resolution),
    "size": Sweep("px, input", (128, 192, 256, 384, 512, 768), (1, 4096), None, None),
    "aspect": Sweep("width / height", (0.5, 0.7, 1.4, 2), (0.1, 10), 1, None),
}


def choose_levels(
    kinds: str | Iterable[str] | None = None, levels: Mapping[str, Sequence[float]] | None = None
) -> dict[str, list[float]]:
    """{kind: levels in order, without the reference}: those asked for, else those of `SWEEPS`.

    `kinds`: names, or one name; all by default. Raises ValueError for an unknown sweep, for levels
    of one that is not asked for, and for a level out of its range.
    """
    kinds, levels = [kinds] if isinstance(kinds, str) else list(kinds or SWEEPS), levels or {}
    for kind in [*kinds, *levels]:
        if kind not in SWEEPS:
            raise ValueError(f"There is no sweep {kind!r}; there are {', '.join(SWEEPS)}.")
        if kind not in kinds:
            raise ValueError(f"{kind} has levels but is not asked for; add it to kinds.")
    chosen = {}
    for kind in kinds:
        _, usual, (low, high), reference, _ = SWEEPS[kind]
        chosen[kind] = sorted(set(levels.get(kind, usual)) - {reference})
        for level in chosen[kind]:
            if not low <= level <= high:
                raise ValueError(f"Levels of {kind} lie from {low} to {high}, not at {level}.")
    return chosen


def reference_of(kind: str, checkpoint: "Checkpoint") -> float:
    """The level of a sweep that changes nothing for this `Checkpoint`."""
    reference = SWEEPS[kind].reference
    return checkpoint.config["image_size"] if reference is None else reference


def change_picture(
    image: Image.Image,
    kind: str,
    level: float,
    boxes: Boxes = (),
    seed: int = 0,
    index: int = 0,
) -> Image.Image:
    """An RGB picture as the sweep `kind` has it at `level`; `boxes` of faces, (x0, y0, x1, y1).

    The same image where nothing changes. What is random depends on (seed, kind, index) alone.
    """
    change, reference = SWEEPS[kind].change, SWEEPS[kind].reference
    if change is None or level == reference:
        return image
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), index])
    return change(image, boxes, level, rng)


def input_size(kind: str, level: float, size: int) -> tuple[int, int]:
    """(width, height) of the network's input, where it usually is (size, size)."""
    if kind == "size":
        return int(level), int(level)
    if kind == "aspect":
        return max(1, round(size * level**0.5)), max(1, round(size / level**0.5))
    return size, size


def prepare(image: Image.Image, transform: "EvalTransform", size: tuple[int, int]) -> Tensor:
    """The usual preparation for an input of any (width, height): -> (3, height, width)."""
    return transform.to_tensor(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
