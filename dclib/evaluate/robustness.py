"""How much change does a network bear? Accuracy at every level of `dclib.evaluate.robustness`.

All models answer to the same pictures at all levels, so that drops, and differences between models,
are those of pairs. What is measured is the change of a picture that the network knows how to
sort; that photographs taken in the dark are sorted as well as darkened ones does not follow.
"""

import io
import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional
from tqdm.auto import tqdm

from dclib.data import CLASSES
from dclib.data.loading import CoupleFolder, choose_pictures, read_boxes
from dclib.evaluate.intervals import estimate
from dclib.evaluate.metrics import Scored, proportion_interval
from dclib.evaluate.predictions import LOGITS, check_classes, choices_of, make_table
from dclib.files import extra
from dclib.pictures import Boxes
from dclib.predict import predict_logits

with extra("evaluate"):
    import pandas as pd

if TYPE_CHECKING:
    from dclib.checkpoint import Checkpoint

if TYPE_CHECKING:
    from dclib.checkpoint import Checkpoint
    from dclib.data.loading import EvalTransform

BATCH = 32  # pictures in memory
GREY = (127, 127, 127)
Change = Callable[[Image.Image, Boxes, float, np.random.Generator], Image.Image]
ANY, AS_IS = (0, math.inf), math.inf


def predict_sweeps(
    models: Mapping[str, "Checkpoint"],
    root: str | Path,
    split: str = "test",
    kinds: str | Iterable[str] | None = None,
    n: int | None = 200,
    levels: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """What each model answers at each level: a table of predictions with four columns more.

    Args:
        models: {name: loaded `Checkpoint`}.
        kinds: which of `dclib.evaluate.robustness.SWEEPS`, or one name; all by default. "hidden"
            needs a column `boxes` in metadata.csv, a JSON list of [x0, y0, x1, y1] in pixels;
            pictures without any are not in that sweep.
        n: about so many pictures, the same for all models and sweeps; None takes all.
        levels: {kind: levels} instead of those of `SWEEPS`; the reference comes by itself.

    The columns are model, sweep, level and `reference`, whether that level leaves all as it is.
    Raises ValueError for unknown sweeps, levels out of range or of a sweep that is not asked for,
    models of other classes, `n` below 2, and boxes that cannot be read or are all that is asked for
    and missing.
    """
    wanted = choose_levels(kinds, levels)
    for checkpoint in models.values():
        check_classes(checkpoint)
    dataset = CoupleFolder(root, split)
    chosen = choose_pictures(dataset, n, seed)
    told = read_boxes(dataset) if "hidden" in wanted else []
    boxes: dict[int, Boxes] = {i: told[i].tolist() for i in chosen if told and len(told[i])}
    if "hidden" in wanted and not boxes:
        if len(wanted) == 1:
            raise ValueError(
                "The sweep hidden needs face boxes in metadata.csv; no picture has any."
            )
        print("The sweep hidden is left out: no picture has face boxes in metadata.csv.")
        del wanted["hidden"]
    elif "hidden" in wanted and len(boxes) < len(chosen):
        print(f"hidden: {len(chosen) - len(boxes)} of {len(chosen)} pictures have no face boxes.")
    pictures, parts = make_table(dataset, np.zeros((len(dataset), len(CLASSES)))), []
    found = _answer_all(models, dataset, chosen, boxes, wanted, seed, progress)
    for (name, kind, level), logits in found.items():
        checkpoint = models[name]
        part = pictures.iloc[_shown(kind, chosen, boxes)].assign(model=name, sweep=kind)
        part = part.assign(level=float(level), reference=level == reference_of(kind, checkpoint))
        order = [checkpoint.model.classes.index(label) for label in CLASSES]
        part[LOGITS] = torch.cat(logits)[:, order].double().numpy()
        parts.append(part.assign(**choices_of(checkpoint)))
    return pd.concat(parts, ignore_index=True)


def _answer_all(
    models: Mapping[str, "Checkpoint"],
    dataset: CoupleFolder,
    chosen: Sequence[int],
    boxes: Mapping[int, Boxes],
    levels: Mapping[str, Sequence[float]],
    seed: int,
    progress: bool,
) -> dict[tuple[str, str, float], list[Tensor]]:
    """{(model, kind, level): logits of each batch}; every picture is decoded once."""
    logits = defaultdict(list)
    bar = tqdm(total=len(chosen), desc="sweeps", unit="picture", disable=not progress)
    with ThreadPoolExecutor() as pool, bar:
        for start in range(0, len(chosen), BATCH):
            part = chosen[start : start + BATCH]
            pictures = dict(zip(part, pool.map(dataset.picture, part), strict=True))
            unchanged = {name: _ask(c, pictures.values(), pool) for name, c in models.items()}
            for kind in levels:
                shown = _shown(kind, part, boxes)
                for name, checkpoint in models.items():
                    rows = [part.index(index) for index in shown]
                    logits[name, kind, reference_of(kind, checkpoint)].append(unchanged[name][rows])
                for level in levels[kind] if shown else ():
                    changed = _change_all(pictures, shown, kind, level, boxes, seed, pool)
                    for name, checkpoint in models.items():
                        if level != reference_of(kind, checkpoint):
                            found = _ask(checkpoint, changed, pool, (kind, level))
                            logits[name, kind, level].append(found)
            bar.update(len(part))
    return logits


def _change_all(
    pictures: Mapping[int, Image.Image],
    shown: Iterable[int],
    kind: str,
    level: float,
    boxes: Mapping[int, Boxes],
    seed: int,
    pool: ThreadPoolExecutor,
) -> list[Image.Image]:
    tasks = [(pictures[i], kind, level, boxes.get(i, ()), seed, i) for i in shown]
    return list(pool.map(lambda task: change_picture(*task), tasks))


def _ask(
    checkpoint: "Checkpoint",
    pictures: Iterable[Image.Image],
    pool: ThreadPoolExecutor,
    at: tuple[str, float] | None = None,
) -> Tensor:
    """Logits (B, 2) of pictures, prepared as usual, or as a sweep wants it at (kind, level)."""
    side = checkpoint.config["image_size"]
    size = input_size(*at, side) if at else (side, side)
    inputs = pool.map(partial(prepare, transform=checkpoint.transform, size=size), pictures)
    images = torch.stack(list(inputs))  # (B, 3, H, W)
    return predict_logits(checkpoint.model, [(images, torch.zeros(len(images)))])[0]


def _shown(kind: str, indices: Iterable[int], boxes: Collection[int]) -> list[int]:
    """Those of the pictures that are in a sweep."""
    return [index for index in indices if kind != "hidden" or index in boxes]


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every model at every level, of the table that `predict_sweeps` gives.

    A DataFrame with model, sweep, level, accuracy, low, high (95 %, as in `metrics`), n,
    drop, drop_low, drop_high, reference. `drop` is the accuracy at the reference less that at the
    level, paired by picture (`dclib.evaluate.intervals.estimate`: groups count as one). Raises
    ValueError if all pictures are one group.
    """
    rows = []
    for (model, kind), part in table.groupby(["model", "sweep"], sort=False):
        before = _right(part[part["reference"]])
        for (level, reference), here in part.groupby(["level", "reference"]):
            right = _right(here)
            n, low, high = proportion_interval([Scored(here)], "accuracy")
            drop = (0.0, 0.0, 0.0) if reference else _difference(before - right, here)
            rows.append((model, kind, level, right.mean(), low, high, n, *drop, reference))
    names = ["model", "sweep", "level", "accuracy", "low", "high", "n"]
    return pd.DataFrame(rows, columns=[*names, "drop", "drop_low", "drop_high", "reference"])


def versus(table: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Model `a` less model `b` at every level that both were asked at, paired by picture.

    A DataFrame with sweep, level, n, difference, low, high: of accuracy; and spared, spared_low,
    spared_high: how much less `a` has lost to its reference than `b` to its own, 95 % intervals.
    Raises ValueError for a model that is not in the table, and if all pictures are one group.
    """
    for name in (a, b):
        if not (table["model"] == name).any():
            raise ValueError(f"The table has no model {name!r}.")
    rows, of = [], {name: table[table["model"] == name] for name in (a, b)}
    for kind, part in of[a].groupby("sweep", sort=False):
        other = of[b][of[b]["sweep"] == kind]
        before = _right(part[part["reference"]]) - _right(other[other["reference"]])
        for level, here in part.groupby("level"):
            there = other[other["level"] == level]
            if len(there):
                now, spared = _right(here) - _right(there), (0.0, 0.0, 0.0)
                if not (here["reference"].all() and there["reference"].all()):
                    mean, low, high = _difference((now - before) / 2, here)
                    spared = (2 * mean, 2 * low, 2 * high)
                rows.append((kind, level, len(here), *_difference(now, here), *spared))
    names = ["sweep", "level", "n", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=[*names, "spared", "spared_low", "spared_high"])


def _right(part: pd.DataFrame) -> pd.Series:
    """1 or 0 by picture: a Series by id."""
    return pd.Series(Scored(part).right.astype(float), part["id"].to_numpy())


def _difference(values: pd.Series, part: pd.DataFrame) -> tuple[float, float, float]:
    """(mean, low, high) of values by id, within -1 and 1."""
    found = estimate([values[part["id"]]], part["group"])
    return found.mean, found.low, found.high


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
